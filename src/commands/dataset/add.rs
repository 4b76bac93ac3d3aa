//! `sawmill dataset add`.

#[cfg(feature = "sql")]
mod learned;

use clap::Args;
use control::{Adding, Source};
use model::Name;
#[cfg(feature = "sql")]
use model::table::ColumnType;

use super::{View, files};
use crate::{cli, commands::Context, output};

const HELP: &str = "\
The files stay where they are and are not read through: a block is a byte range between two line ends. Files of separated \
values are, since a value in quotes may have line feeds in it. Compressed \
files (gzip, zstd, bzip2, xz) are one block each, and Parquet files are split between their row groups. All nodes \
must see the files under the same path or URL. A file that changes after it was added is noticed when it is read, and \
its subtasks fail. Of a file that has only grown since it was added, adding it again takes what came behind its end; \
one that has not changed is left out. `sawmill dataset undo` takes back what was added last.

Logs that are being written to are better followed by `sawmill agent`.

What the lines are is detected from the first of them, and some of the last: a format is taken where nearly all lines have \
its marks, and everything else is text, with a time, a level and a message. A --format that makes sense of few lines is \
refused. With text:joined, lines without a time, such as those of a stack trace, belong to the record above them. Files that are added later may have more columns: these are \
null in what was there before. A column keeps its type; where a later file has another one, that is told, and values that do \
not fit are null, with the reason in _error and the whole line in _raw.

Examples:
  sawmill dataset add access /var/log/nginx/access.log*
  sawmill dataset add access --block-size 64MiB s3://logs/2024/access.log
  sawmill dataset add sales 2024-*.parquet
  sawmill dataset add app --types zip=text,took=float app.jsonl
  sawmill dataset add zk --format 'regex:^(?<time>\\S+ \\S+) - (?<level>[A-Z]+) +(?<message>.*)$' zookeeper.log";

/// `sawmill dataset add`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct AddArgs {
    /// Of the dataset: 1 to 64 characters of A-Z a-z 0-9 . _ -, the first a letter or digit
    name: Name,
    /// Files or URLs, in this order
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Bytes of a block [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = cli::size)]
    block_size: Option<u64>,
    /// What the lines are: access, json, logfmt, syslog, syslog5424, csv, tsv, separated:CHARACTER, parquet, text, text:joined, raw or
    /// regex:PATTERN with named groups [default: what the first lines look like]
    #[cfg(feature = "sql")]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Take --format also for files of whose lines it makes sense of few
    #[cfg(feature = "sql")]
    #[arg(long, requires = "format")]
    force: bool,
    /// Types of columns: text, integer, float, boolean or timestamp [default: what the first lines look like]
    #[cfg(feature = "sql")]
    #[arg(long, value_name = "COLUMN=TYPE,…", value_delimiter = ',', value_parser = super::typed)]
    types: Vec<(String, ColumnType)>,
    /// Add all of the files that are in the dataset already once more, so that their lines count twice
    #[arg(long)]
    again: bool,
}

/// Runs the command.
///
/// # Errors
/// What can't be read, reached or used, with its place; then nothing was changed.
pub(super) async fn run(args: AddArgs, context: &Context) -> anyhow::Result<()> {
    let block_size = args.block_size.unwrap_or(context.settings.block_size);
    control::check_block_size(block_size)?;
    let sources = args
        .files
        .iter()
        .map(|file| Source::parse(file))
        .collect::<Result<Vec<_>, _>>()?;
    #[cfg(feature = "sql")]
    if let Some(format) = &args.format {
        sql::format(format).map_err(|error| crate::exit::usage(error.to_string()))?;
    }
    let control = context.control().await?;
    let adding = Adding {
        dataset: args.name.clone(),
        sources,
        block_size,
        #[cfg(feature = "sql")]
        format: args.format,
        #[cfg(feature = "sql")]
        types: args.types,
        #[cfg(feature = "sql")]
        force: args.force,
        #[cfg(not(feature = "sql"))]
        format: None,
        #[cfg(not(feature = "sql"))]
        types: Vec::new(),
        again: args.again,
        #[cfg(not(feature = "sql"))]
        force: false,
    };
    let added = control.add_files(&adding).await?;
    let places: Vec<&str> = adding.sources.iter().map(control::Source::as_str).collect();
    context
        .log("dataset.add", args.name.as_str(), places.join(" "))
        .await?;
    files::tell(&args.name, &added.reports);
    if context.json() {
        return output::json(&serde_json::json!({
            "dataset": View::from(&added.dataset),
            "added": { "files": added.files, "blocks": added.blocks, "bytes": added.bytes },
            "files": added.reports,
            "learned": added.learned,
        }));
    }
    #[cfg(feature = "sql")]
    learned::tell(&added.learned, &added.dataset);
    let files = output::counted(added.files as u64, "file");
    let blocks = output::counted(added.blocks.into(), "block");
    let size = output::size(added.bytes);
    output::line(format_args!(
        "dataset {}: added {files}, {blocks}, {size}",
        args.name
    ))
}
