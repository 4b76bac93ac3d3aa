//! `sawmill dataset add`.

use std::collections::HashSet;

use clap::Args;
use control::{Control, Source};
#[cfg(feature = "sql")]
use model::table::ColumnType;
use model::{Block, Content, Name};

use super::View;
use crate::{cli, commands::Context, output};

const HELP: &str = "\
The files stay where they are and are not read through: a block is a byte range between two line ends. Compressed \
files (gzip, zstd, bzip2, xz) are one block each, and Parquet files are split between their row groups. All nodes \
must see the files under the same path or URL. A file that changes after it was added is noticed when it is read, and \
its subtasks fail. A file that is added again counts once more.

What the lines are is detected from the first of them. Files that are added later may have more columns: these are \
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
    /// What the lines are: access, json, logfmt, syslog, syslog5424, csv, tsv, parquet, raw or regex:PATTERN with named
    /// groups [default: what the first lines look like]
    #[cfg(feature = "sql")]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Types of columns: text, integer, float, boolean or timestamp [default: what the first lines look like]
    #[cfg(feature = "sql")]
    #[arg(long, value_name = "COLUMN=TYPE,…", value_delimiter = ',', value_parser = super::typed)]
    types: Vec<(String, ColumnType)>,
}

/// Runs the command.
///
/// # Errors
/// What can't be read, reached or used, with its place; then nothing was changed.
pub(super) async fn run(args: AddArgs, context: &Context) -> anyhow::Result<()> {
    let block_size = args.block_size.unwrap_or(context.settings.block_size);
    if block_size == 0 {
        return Err(crate::exit::usage("--block-size must be at least 1 byte"));
    }
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
    control.store().init().await?;
    #[cfg(not(feature = "sql"))]
    let files = control.split(&sources, block_size).await?;
    #[cfg(feature = "sql")]
    let (files, lesson) = {
        let said = crate::commands::table::Said {
            format: args.format,
            types: args.types,
        };
        let format = said.format.as_deref();
        let files = crate::commands::files::split(&control, &sources, block_size, format).await?;
        let lesson = crate::commands::table::learn(&control, &args.name, &files, &said).await?;
        let files = files.into_iter().map(|file| file.blocks).collect::<Vec<_>>();
        (files, lesson)
    };
    tell_of_repeated(&control, &args.name, &files).await?;
    let added = control.append(&args.name, files).await?;
    if context.json() {
        let mut told = serde_json::json!({
            "dataset": View::from(&added.dataset),
            "added": { "files": added.files, "blocks": added.blocks, "bytes": added.bytes },
        });
        #[cfg(feature = "sql")]
        {
            told["learned"] = serde_json::to_value(&lesson)?;
        }
        return output::json(&told);
    }
    #[cfg(feature = "sql")]
    lesson.tell(&args.name);
    let files = output::counted(added.files as u64, "file");
    let blocks = output::counted(added.blocks.into(), "block");
    let size = output::size(added.bytes);
    output::line(format_args!(
        "dataset {}: added {files}, {blocks}, {size}",
        args.name
    ))
}

/// Tells of files that the dataset has blocks of already: their lines count once more. Not for datasets so large that looking
/// would take long.
async fn tell_of_repeated(control: &Control, name: &Name, files: &[Vec<Block>]) -> anyhow::Result<()> {
    const MOST_BLOCKS: u32 = 50_000;
    let Some(dataset) = control.store().get(name).await? else {
        return Ok(());
    };
    if dataset.count() > MOST_BLOCKS {
        return Ok(());
    }
    let blocks = control
        .store()
        .blocks(dataset.id, dataset.first..dataset.blocks)
        .await?;
    let held: HashSet<&str> = blocks.iter().filter_map(url).collect();
    for url in files.iter().filter_map(|blocks| blocks.first().and_then(url)) {
        if held.contains(url) {
            output::note(format_args!(
                "dataset {name}: {url} is in it already, its lines count once more now"
            ));
        }
    }
    Ok(())
}

fn url(block: &Block) -> Option<&str> {
    match &block.content {
        Content::Object { url, .. } => Some(url),
        Content::Inline(_) => None,
    }
}
