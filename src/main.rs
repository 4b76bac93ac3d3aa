//! The `sawmill` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread and runtime: a guard of a command is this program, executed again.
    engine::guard::run_if_asked();
    sawmill::cli::main()
}
