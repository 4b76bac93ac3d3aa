//! `sawmill dataset head`: the first lines as rows, read here, without a job.

use std::io::{BufRead as _, BufReader, Read as _};

use anyhow::Context as _;
use clap::Args;
use control::Control;
use engine::row_groups;
use model::{
    Block, Content, Name,
    processor::{Query, QueryTable},
    table::{Format, Table},
};
use storage::{BlockReader, Dataset};

use crate::{
    commands::{Context, query::answer, table},
    output,
};

/// Bytes of lines that are shown at most: a line may be of any length.
const MOST_BYTES: u64 = 16 << 20;

const HELP: &str = "\
Reads the first blocks here, without a job. A line that does not parse is a row like any other: then there is a column \
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
    let dataset = control.dataset(&args.name).await?;
    let table = table::of(&control, &dataset).await?;
    let head = Head::read(&control, &dataset, &table, args.lines).await?;
    let (mut shown, mut tally) = head.rows(&control, &table, false, context).await?;
    if tally.errors > 0 {
        (shown, tally) = head.rows(&control, &table, true, context).await?;
    }
    output::bytes(&shown)?;
    if tally.rows == 0 {
        output::note(format_args!("dataset {} has no lines", args.name));
    }
    Ok(())
}

/// The first lines, by block.
struct Head {
    dataset: Name,
    lines: u32,
    blocks: Vec<FirstRows>,
}

struct FirstRows {
    number: u32,
    begins_file: bool,
    content: First,
}

enum First {
    Lines(Vec<u8>),
    /// Of a Parquet file.
    Groups(Block, Box<sql::RowGroups>),
}

impl Head {
    async fn read(control: &Control, dataset: &Dataset, table: &Table, lines: u32) -> anyhow::Result<Self> {
        let mut head = Self {
            dataset: dataset.name.clone(),
            lines,
            blocks: Vec::new(),
        };
        let (mut left, mut bytes_left) = (lines as usize, MOST_BYTES);
        for block in dataset.first..dataset.blocks {
            let found = control.store().blocks(dataset.id, block..block + 1).await?;
            let Some(content) = found.first() else {
                break;
            };
            let begins_file = match content.content {
                Content::Object { start, .. } => start == 0,
                Content::Inline(_) => true,
            };
            if table.format == Format::Parquet {
                let groups = row_groups::row_groups(control.store(), content).await;
                let groups = groups.map_err(|failure| anyhow::anyhow!(failure.message));
                let groups = groups.with_context(|| unreadable(block, dataset))?;
                left = left.saturating_sub(groups.rows() as usize);
                head.blocks.push(FirstRows {
                    number: block,
                    begins_file,
                    content: First::Groups(content.clone(), Box::new(groups)),
                });
                if left == 0 {
                    break;
                }
                continue;
            }
            // The header of a file is no row.
            let header = usize::from(begins_file && matches!(table.format, Format::Separated { .. }));
            let wanted = left + header;
            let reader = control.store().reader(content).await?;
            let read = tokio::task::spawn_blocking(move || first_lines(reader, wanted, bytes_left));
            let (bytes, count) = read.await?.with_context(|| unreadable(block, dataset))?;
            bytes_left = bytes_left.saturating_sub(bytes.len() as u64);
            head.blocks.push(FirstRows {
                number: block,
                begins_file,
                content: First::Lines(bytes),
            });
            left = left.saturating_sub(count.saturating_sub(header));
            if left == 0 || bytes_left == 0 {
                break;
            }
        }
        Ok(head)
    }

    /// The rows as text, and what was counted.
    async fn rows(
        &self,
        control: &Control,
        table: &Table,
        errors: bool,
        context: &Context,
    ) -> anyhow::Result<(Vec<u8>, sql::Tally)> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let mut columns: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
        if columns.is_empty() || errors {
            columns.push(quoted(model::table::RAW));
        }
        if errors {
            columns.push(quoted(model::table::ERROR));
        }
        let runtime = sql::Runtime::for_planning();
        let question = Query {
            sql: format!(
                "SELECT {} FROM {} LIMIT {}",
                columns.join(", "),
                quoted(self.dataset.as_str()),
                self.lines
            ),
            tables: vec![QueryTable {
                name: self.dataset.to_string(),
                table: table.clone(),
                lower_half: None,
            }],
            time_zone: "UTC".into(),
            now_us: jiff::Timestamp::now().as_microsecond(),
            version: sql::VERSION.to_string(),
            ..Query::default()
        };
        let mut partials = Vec::new();
        for first in &self.blocks {
            let (number, begins_file) = (first.number, first.begins_file);
            partials.extend(match &first.content {
                First::Lines(bytes) => sql::lower(&runtime, &question, 0, bytes, number, begins_file).await?,
                First::Groups(block, groups) => {
                    of_groups(control, &runtime, &question, block, number, groups).await?
                }
            });
        }
        let answer = sql::upper(&runtime, &question, &partials[..]).await?;
        let mut shown = Vec::new();
        let (tally, _) = sql::render(&answer, answer::rendering(context.format), &mut shown)?;
        Ok((shown, tally))
    }
}

async fn of_groups(
    control: &Control,
    runtime: &sql::Runtime,
    question: &Query,
    block: &Block,
    number: u32,
    groups: &sql::RowGroups,
) -> anyhow::Result<Vec<u8>> {
    let at = sql::BlockAt {
        number,
        begins_file: false,
        contents: None,
    };
    let cache = sql::ColumnCache::new(0);
    let mut half = sql::LowerHalf::new(runtime, question.clone().into(), 0, at, cache).await?;
    let pieces = row_groups::pieces(control.store(), block, half.pieces(groups)?).await;
    let pieces = pieces.map_err(|failure| anyhow::anyhow!(failure.message))?;
    half.read_pieces(groups, pieces)?;
    Ok(half.run().await?)
}

fn unreadable(block: u32, dataset: &Dataset) -> String {
    format!("can't read block {block} of dataset {}", dataset.name)
}

/// At most so many lines, and whole ones unless they take too much; how many there were.
fn first_lines(reader: BlockReader, wanted: usize, most: u64) -> std::io::Result<(Vec<u8>, usize)> {
    let mut reader = BufReader::new(reader).take(most);
    let (mut bytes, mut count) = (Vec::new(), 0);
    while count < wanted && reader.read_until(b'\n', &mut bytes)? > 0 {
        count += 1;
    }
    Ok((bytes, count))
}
