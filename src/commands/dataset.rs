//! `sawmill dataset`: names for log files.

use clap::{Args, Subcommand};
use control::Source;
use model::{Name, table::Table};
use serde::Serialize;
use storage::Dataset;

use super::Context;
use crate::{cli, exit::Exit, output};

/// `sawmill dataset`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Split files into blocks and add these to a dataset, a new one where there is none of this name
    Add(AddArgs),
    /// List all datasets
    List,
    /// Show a dataset and its blocks
    Show(ShowArgs),
    /// Forget a dataset that no unfinished job runs over; the files stay as they are
    Remove(RemoveArgs),
}

const ADD_HELP: &str = "\
The files stay where they are and are not read through: a block is a byte range between two line ends. Compressed \
files (gzip, zstd, bzip2, xz) are one block each. All nodes must see the files under the same path or URL. A file that \
changes after it was added is noticed when it is read, and its subtasks fail.

Examples:
  sawmill dataset add access /var/log/nginx/access.log*
  sawmill dataset add access --block-size 64MiB s3://logs/2024/access.log";

/// `sawmill dataset add`.
#[derive(Clone, Debug, Args)]
#[command(after_help = ADD_HELP)]
pub struct AddArgs {
    /// Of the dataset: 1 to 64 characters of A-Z a-z 0-9 . _ -, the first a letter or digit
    name: Name,
    /// Files or URLs, in this order
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Bytes of a block [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = cli::size)]
    block_size: Option<u64>,
    /// What the lines are: access, json, logfmt, syslog, syslog5424, csv, tsv, raw or regex:PATTERN with named groups
    /// [default: what the first lines look like]
    #[cfg(feature = "sql")]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// `sawmill dataset show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Of the dataset
    name: Name,
    /// How many blocks to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
}

/// `sawmill dataset remove`.
#[derive(Clone, Debug, Args)]
pub struct RemoveArgs {
    /// Of the dataset
    name: Name,
}

#[derive(Serialize)]
struct View {
    name: String,
    id: String,
    blocks: u32,
    bytes: u64,
    created_at: String,
    /// How its lines become rows, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<Table>,
}

impl From<&Dataset> for View {
    fn from(dataset: &Dataset) -> Self {
        Self {
            name: dataset.name.to_string(),
            id: dataset.id.to_string(),
            blocks: dataset.blocks,
            bytes: dataset.bytes,
            created_at: output::time(dataset.created_ms),
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
        Command::Add(args) => add(args, context).await?,
        Command::List => list(context).await?,
        Command::Show(args) => show(args, context).await?,
        Command::Remove(args) => remove(args, context).await?,
    }
    Ok(Exit::Success)
}

async fn add(args: AddArgs, context: &Context) -> anyhow::Result<()> {
    let block_size = args.block_size.unwrap_or(context.settings.block_size);
    if block_size == 0 {
        return Err(crate::exit::usage("--block-size must be at least 1 byte"));
    }
    let sources = args
        .files
        .iter()
        .map(|file| Source::parse(file))
        .collect::<Result<Vec<_>, _>>()?;
    let control = context.control().await?;
    control.store().init().await?;
    #[cfg(feature = "sql")]
    if let Some(format) = &args.format {
        // Before anything is written; what the lines say comes later.
        sql::check_name(format).map_err(|error| crate::exit::usage(error.to_string()))?;
    }
    let added = control.add_dataset(&args.name, &sources, block_size).await?;
    #[cfg(feature = "sql")]
    let added = control::AddReport {
        dataset: learn(&control, &added.dataset, args.format.as_deref(), context).await?,
        ..added
    };
    if context.json() {
        return output::json(&serde_json::json!({
            "dataset": View::from(&added.dataset),
            "added": { "files": added.files, "blocks": added.blocks, "bytes": added.bytes },
        }));
    }
    let files = output::counted(added.files as u64, "file");
    let blocks = output::counted(added.blocks.into(), "block");
    let size = output::size(added.bytes);
    output::line(format_args!(
        "dataset {}: added {files}, {blocks}, {size}",
        args.name
    ))
}

/// Makes sure that the format of a dataset is known, and tells what it was taken for when it was not.
#[cfg(feature = "sql")]
async fn learn(
    control: &control::Control,
    dataset: &Dataset,
    named: Option<&str>,
    context: &Context,
) -> anyhow::Result<Dataset> {
    if dataset.blocks > 0 && (dataset.table.is_none() || named.is_some()) {
        let detected = super::table::learn(control, dataset, named).await?;
        if !context.json() {
            let (format, why) = (detected.table.format.name(), detected.why);
            output::note(format_args!(
                "dataset {}: its lines are taken as {format} ({why}; --format says otherwise)",
                dataset.name
            ));
        }
    }
    Ok(control.dataset(&dataset.name).await?)
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
        let blocks = output::grouped(dataset.blocks.into());
        [
            dataset.name.to_string(),
            blocks,
            output::size(dataset.bytes),
            output::ago(dataset.created_ms),
        ]
    });
    output::table(&["NAME", ">BLOCKS", ">SIZE", "CREATED"], rows)
}

async fn show(args: ShowArgs, context: &Context) -> anyhow::Result<()> {
    let control = context.control().await?;
    let dataset = control.dataset(&args.name).await?;
    let blocks = control
        .store()
        .blocks(dataset.id, 0..dataset.blocks.min(args.limit))
        .await?;
    if context.json() {
        return output::json(&serde_json::json!({ "dataset": View::from(&dataset), "blocks": blocks }));
    }
    let mut pairs = vec![
        ("name", dataset.name.to_string()),
        ("id", dataset.id.to_string()),
        ("blocks", output::grouped(dataset.blocks.into())),
        (
            "size",
            format!(
                "{} ({} bytes)",
                output::size(dataset.bytes),
                output::grouped(dataset.bytes)
            ),
        ),
        ("created", output::time(dataset.created_ms)),
    ];
    if let Some(table) = &dataset.table {
        pairs.push(("format", table.format.name()));
        pairs.push(("columns", columns(table)));
    }
    output::pairs(&pairs)?;
    if blocks.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let rows = blocks.iter().enumerate().map(|(index, block)| {
        let [start, end, url] = match &block.content {
            model::Content::Inline(payload) => ["0".into(), payload.0.len().to_string(), "(inline)".into()],
            model::Content::Object {
                url,
                start,
                end,
                codec,
                ..
            } => {
                let codec = if *codec == model::Codec::None {
                    String::new()
                } else {
                    format!(" ({codec:?})").to_lowercase()
                };
                [start.to_string(), end.to_string(), format!("{url}{codec}")]
            }
        };
        [index.to_string(), start, end, url]
    });
    output::table(&[">BLOCK", ">START", ">END", "OBJECT"], rows)?;
    if u64::from(dataset.blocks) > blocks.len() as u64 {
        output::line(format_args!(
            "… and {} more (--limit)",
            u64::from(dataset.blocks) - blocks.len() as u64
        ))?;
    }
    Ok(())
}

/// Names and types of all columns, those that every table has last.
fn columns(table: &Table) -> String {
    let own = table
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.kind));
    let all = own.chain(model::table::EVERYWHERE);
    let told = all.map(|(name, kind)| format!("{name} {}", kind.name()));
    told.collect::<Vec<_>>().join(", ")
}

async fn remove(args: RemoveArgs, context: &Context) -> anyhow::Result<()> {
    let control = context.control().await?;
    let dataset = control.dataset(&args.name).await?;
    control.remove_dataset(&args.name).await?;
    if context.json() {
        return output::json(&serde_json::json!({ "removed": View::from(&dataset) }));
    }
    output::line(format_args!(
        "dataset {} is removed ({}); its files are untouched",
        args.name,
        output::counted(dataset.blocks.into(), "block")
    ))
}
