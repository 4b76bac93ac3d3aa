//! `sawmill dataset schema`: the columns of a dataset.

use clap::Args;
use model::{
    Name,
    table::{EVERYWHERE, Format, Table},
};

use crate::{commands::Context, output};

const HELP: &str = "\
Every dataset has the columns _raw (the line), _line and _block (where it stands), _file and _host (the file that it stood in, \
and the machine that it was shipped from), and _error (why it did not parse).

Example:
  sawmill dataset schema access";

/// `sawmill dataset schema`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct SchemaArgs {
    /// Of the dataset
    pub(super) name: Name,
}

/// Runs the command.
///
/// # Errors
/// An unknown dataset; what can't be reached.
pub(super) async fn run(args: SchemaArgs, context: &Context) -> anyhow::Result<()> {
    let control = context.control().await?;
    let dataset = control.described(&args.name).await?;
    let Some(table) = &dataset.table else {
        anyhow::bail!(
            "it is not known what the lines of dataset {} are: this build of Sawmill has no SQL",
            args.name
        );
    };
    let why = dataset.table_why.as_deref().unwrap_or_default();
    if context.json() {
        return output::json(&serde_json::json!({
            "dataset": dataset.name,
            "format": table.format.name(),
            "why": why,
            "columns": super::columns(table)
                .map(|(name, kind)| serde_json::json!({ "name": name, "type": kind }))
                .collect::<Vec<_>>(),
        }));
    }
    let format = table.format.name();
    let told = if why.is_empty() {
        format
    } else {
        format!("{format} ({why})")
    };
    output::pairs(&[("dataset", dataset.name.to_string()), ("format", told)])?;
    output::line("")?;
    let rows = super::columns(table)
        .enumerate()
        .map(|(place, (name, kind))| [name.to_string(), kind.name().to_string(), remark(table, place)]);
    output::table(&["COLUMN", "TYPE", ""], rows)
}

/// What to know of the column in this place.
fn remark(table: &Table, place: usize) -> String {
    let own = table.columns.len();
    let remark = match place.checked_sub(own) {
        None if table.least.is_some_and(|least| place >= least as usize) => "not in the older files",
        None => "",
        Some(place) => match EVERYWHERE[place].0 {
            model::table::RAW if table.format == Format::Parquet => "null, for there are no lines",
            model::table::RAW => "the line as it is",
            model::table::LINE => "its number in its block, from 1",
            model::table::BLOCK => "the number of its block",
            model::table::FILE => "the file that it stood in",
            model::table::HOST => "the machine that it was shipped from; null where it was not",
            _ => "why it did not parse; null where it did",
        },
    };
    remark.to_string()
}
