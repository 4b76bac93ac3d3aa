//! The test harness: puts queries into a mill and counts how they were answered.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread: it turns this process into the guard of a command.
    engine::guard::run_if_asked();
    sawmill::harness::main()
}
