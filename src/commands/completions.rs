//! `sawmill completions`: a script that makes a shell complete commands and flags.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{cli::Cli, exit::Exit, output};

/// `sawmill completions`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  sawmill completions bash > /etc/bash_completion.d/sawmill")]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When standard output can't be written.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sawmill", &mut script);
    output::bytes(&script)?;
    Ok(Exit::Success)
}
