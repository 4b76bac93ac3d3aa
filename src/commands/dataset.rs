//! `sawmill dataset`: names for log files, and what their lines are.

mod add;
mod compact;
mod files;
#[cfg(feature = "sql")]
mod formats;
#[cfg(feature = "sql")]
mod head;
mod refresh;
mod schema;
mod set;
mod show;
mod undo;

use clap::{Args, Subcommand};
use control::{AgentState, Source};
use model::{
    Name,
    table::{ColumnType, Table},
};
use serde::Serialize;
use storage::Dataset;

use super::Context;
use crate::{exit::Exit, output};

/// `sawmill dataset`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Split files into blocks and add these to a dataset, a new one where there is none of this name
    Add(add::AddArgs),
    /// Add what has come behind the ends of the files of a dataset since they were added
    Refresh(refresh::RefreshArgs),
    /// Take back what was added last to a dataset
    Undo(undo::UndoArgs),
    /// List all datasets
    List,
    /// Show a dataset and its blocks
    Show(show::ShowArgs),
    /// Show the columns of a dataset, and how its lines are read
    Schema(schema::SchemaArgs),
    /// Show the first lines of a dataset as rows of its table
    #[cfg(feature = "sql")]
    Head(head::HeadArgs),
    /// List the formats of lines that are known by name, or show one with an example
    #[cfg(feature = "sql")]
    Formats(formats::FormatsArgs),
    /// Change what holds for a dataset
    Set(set::SetArgs),
    /// Merge small blocks that agents shipped into larger ones now
    Compact(compact::CompactArgs),
    /// Forget a dataset that no unfinished job runs over, or take the blocks of files out of it; the files stay as they are
    Remove(RemoveArgs),
}

impl Command {
    /// `sawmill dataset schema NAME`.
    #[cfg(feature = "sql")]
    pub(super) fn schema(name: Name) -> Self {
        Self::Schema(schema::SchemaArgs { name })
    }

    /// Whether it prints rows, in any format.
    pub fn prints_answers(&self) -> bool {
        match self {
            #[cfg(feature = "sql")]
            Self::Head(_) => true,
            _ => false,
        }
    }
}

/// `sawmill dataset remove`.
#[derive(Clone, Debug, Args)]
pub struct RemoveArgs {
    /// Of the dataset
    name: Name,
    /// Take out the blocks of this file or URL alone, which may be gone; may be repeated
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<String>,
}

#[derive(Serialize)]
struct View {
    name: String,
    id: String,
    blocks: u32,
    bytes: u64,
    /// Blocks that have become part of others, where there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    compacted: Option<u32>,
    created_at: String,
    /// What it keeps, where it does not keep all.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    /// What has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<Left>,
    /// How its lines become rows, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<Table>,
}

#[derive(Serialize)]
struct Left {
    blocks: u32,
    bytes: u64,
    at: String,
}

impl From<&Dataset> for View {
    fn from(dataset: &Dataset) -> Self {
        Self {
            name: dataset.name.to_string(),
            id: dataset.id.to_string(),
            blocks: dataset.count(),
            bytes: dataset.bytes,
            compacted: Some(dataset.void).filter(|void| *void > 0),
            created_at: output::time(dataset.created_ms),
            keep_ms: dataset.limits.keep_ms,
            max_bytes: dataset.limits.max_bytes,
            left: dataset.left_ms.map(|at| Left {
                blocks: dataset.first,
                bytes: dataset.left_bytes,
                at: output::time(at),
            }),
            table: dataset.table.clone(),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What can't be read, reached or found, with its place; then nothing was changed.
pub async fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    match command {
        Command::Add(args) => add::run(args, context).await?,
        Command::Refresh(args) => refresh::run(args, context).await?,
        Command::Undo(args) => undo::run(args, context).await?,
        Command::List => list(context).await?,
        Command::Show(args) => show::run(args, context).await?,
        Command::Schema(args) => schema::run(args, context).await?,
        #[cfg(feature = "sql")]
        Command::Head(args) => head::run(args, context).await?,
        #[cfg(feature = "sql")]
        Command::Formats(args) => formats::run(args, context)?,
        Command::Set(args) => set::run(args, context).await?,
        Command::Compact(args) => compact::run(args, context).await?,
        Command::Remove(args) if args.files.is_empty() => remove(&args.name, context).await?,
        Command::Remove(args) => remove_files(args, context).await?,
    }
    Ok(Exit::Success)
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let datasets = context.control().await?.datasets().await?;
    if context.json() {
        return output::json(&datasets.iter().map(View::from).collect::<Vec<_>>());
    }
    if datasets.is_empty() {
        output::note("no datasets; `sawmill dataset add NAME FILE…` makes one");
        return Ok(());
    }
    let rows = datasets.iter().map(|dataset| {
        let blocks = output::grouped(dataset.count().into());
        [
            dataset.name.to_string(),
            blocks,
            output::size(dataset.bytes),
            output::ago(dataset.created_ms),
        ]
    });
    output::table(&["NAME", ">BLOCKS", ">SIZE", "CREATED"], rows)
}

/// Names and types of all columns, those that every table has last.
pub(super) fn columns(table: &Table) -> impl Iterator<Item = (&str, ColumnType)> {
    let own = table
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.kind));
    own.chain(model::table::EVERYWHERE)
}

/// For clap: `NAME=TYPE`.
#[cfg(feature = "sql")]
fn typed(text: &str) -> Result<(String, ColumnType), String> {
    let (name, kind) = text
        .rsplit_once('=')
        .ok_or_else(|| format!("{text:?} is not NAME=TYPE, such as took=float"))?;
    Ok((name.to_string(), kind.parse()?))
}

async fn remove_files(args: RemoveArgs, context: &Context) -> anyhow::Result<()> {
    let sources = args.files.iter().map(|file| Source::parse(file));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let control = context.control().await?;
    let (mut blocks, mut bytes, mut dataset) = (0, 0, None);
    for source in &sources {
        let taken_out = control.remove_file(&args.name, source).await?;
        context
            .log(
                "dataset.remove-file",
                args.name.as_str(),
                source.as_str().to_string(),
            )
            .await?;
        blocks += taken_out.blocks;
        bytes += taken_out.bytes;
        dataset = taken_out.dataset;
    }
    if context.json() {
        return output::json(&serde_json::json!({
            "dataset": dataset.as_ref().map(View::from),
            "taken_out": { "files": sources.len(), "blocks": blocks, "bytes": bytes },
        }));
    }
    output::line(format_args!(
        "dataset {}: took out {} with {}, {}; the files are untouched",
        args.name,
        output::counted(sources.len() as u64, "file"),
        output::counted(blocks.into(), "block"),
        output::size(bytes)
    ))
}

async fn remove(name: &Name, context: &Context) -> anyhow::Result<()> {
    let control = context.control().await?;
    let dataset = control.remove_dataset(name).await?;
    let agents = control.agents().await.unwrap_or_default().into_iter();
    let shipping: Vec<String> = agents
        .filter(|agent| agent.state != AgentState::Away && agent.ships_to.contains(name))
        .map(|agent| agent.name.to_string())
        .collect();
    context
        .log("dataset.remove", name.as_str(), dataset.id.to_string())
        .await?;
    if context.json() {
        let removed = View::from(&dataset);
        return output::json(&serde_json::json!({ "removed": removed, "still_shipping": shipping }));
    }
    if !shipping.is_empty() {
        output::note(format_args!(
            "note: still shipping into {name}, which makes it anew with their next lines: {}",
            shipping.join(", ")
        ));
    }
    output::line(format_args!(
        "dataset {name} is removed ({}); its files are untouched",
        output::counted(dataset.count().into(), "block")
    ))
}
