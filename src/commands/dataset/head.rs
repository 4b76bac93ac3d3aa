//! `sawmill dataset head`: the first lines as rows.

use clap::Args;
use model::Name;

use crate::{
    commands::{Context, query::answer},
    output,
};

const HELP: &str = "\
Reads the first blocks without a job. A line that does not parse is a row like any other: then there is a column \
_error besides.

Examples:
  sawmill dataset head access
  sawmill dataset head access -n 3 --output json";

/// `sawmill dataset head`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct HeadArgs {
    /// Of the dataset
    name: Name,
    /// How many lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    lines: u32,
}

/// Runs the command.
///
/// # Errors
/// An unknown dataset; what can't be reached or read.
pub(super) async fn run(args: HeadArgs, context: &Context) -> anyhow::Result<()> {
    let control = context.control().await?;
    let head = control.head(&args.name, args.lines).await?;
    let mut shown = Vec::new();
    let (tally, _) = sql::render(&head, answer::rendering(context.format), &mut shown)?;
    output::bytes(&shown)?;
    if tally.rows == 0 {
        output::note(format_args!("dataset {} has no lines", args.name));
    }
    Ok(())
}
