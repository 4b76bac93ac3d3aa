//! `sawmill dataset set`: what holds for a dataset that is there.

use clap::Args;
use model::Name;
#[cfg(feature = "sql")]
use model::table::ColumnType;

use super::View;
use crate::{commands::Context, exit::usage, output};

const HELP: &str = "\
What is recorded of queries that read a column whose type changes is not used again.

Example:
  sawmill dataset set app --types zip=text,took=float";

/// `sawmill dataset set`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct SetArgs {
    /// Of the dataset
    name: Name,
    /// Types of columns: text, integer, float, boolean or timestamp
    #[cfg(feature = "sql")]
    #[arg(long, value_name = "COLUMN=TYPE,…", value_delimiter = ',', value_parser = super::typed)]
    types: Vec<(String, ColumnType)>,
}

/// Runs the command.
///
/// # Errors
/// An unknown dataset or column; what can't be reached.
pub(super) async fn run(args: SetArgs, context: &Context) -> anyhow::Result<()> {
    let control = context.control().await?;
    control.dataset(&args.name).await?;
    let mut changed = false;
    #[cfg(feature = "sql")]
    if !args.types.is_empty() {
        crate::commands::table::retype(&control, &args.name, &args.types).await?;
        changed = true;
    }
    if !changed {
        return Err(usage("nothing to set: see `sawmill dataset set --help`"));
    }
    let dataset = control.dataset(&args.name).await?;
    if context.json() {
        return output::json(&serde_json::json!({ "dataset": View::from(&dataset) }));
    }
    output::line(format_args!("dataset {} is changed", args.name))
}
