//! The first lines of a dataset as an answer, read here, without a job.

use std::io::{BufRead as _, BufReader, Read as _};

use engine::row_groups;
use model::{
    Block, Codec, Content, Name,
    processor::{Query, QueryTable},
    table::{Format, Table},
};
use storage::{BlockReader, Dataset};

use super::table;
use crate::{Control, Error, submit::now_ms};

/// Bytes of lines that are read at most: a line may be of any length.
const MOST_BYTES: u64 = 16 << 20;

/// The answer that the first lines are. Where one of them does not parse it has a column `_error` besides.
pub(crate) async fn head(control: &Control, name: &Name, lines: u32) -> Result<Vec<u8>, Error> {
    let dataset = control.dataset(name).await?;
    let table = table::of(control, &dataset).await?;
    let head = Head::read(control, &dataset, &table, lines).await?;
    let answer = head.answer(control, &table, false).await?;
    if sql::counted(&answer)?.errors == 0 {
        return Ok(answer);
    }
    head.answer(control, &table, true).await
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
    async fn read(control: &Control, dataset: &Dataset, table: &Table, lines: u32) -> Result<Self, Error> {
        let mut head = Self {
            dataset: dataset.name.clone(),
            lines,
            blocks: Vec::new(),
        };
        let (mut left, mut bytes_left) = (lines as usize, MOST_BYTES);
        let live = control.live(dataset).await?;
        for block in live.into_iter().flatten() {
            let found = control
                .store()?
                .blocks(dataset.edition(), block..block + 1)
                .await?;
            let Some(content) = found.first() else {
                break;
            };
            let begins_file = match content.content {
                Content::Object { start, codec, .. } => start == 0 && codec != Codec::Zstd,
                Content::Inline(_) => true,
            };
            if table.format == Format::Parquet {
                let groups = row_groups::row_groups(control.store()?, content).await;
                let groups = groups.map_err(|failure| unreadable(block, dataset, &failure.message))?;
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
            let header = usize::from(matches!(table.format, Format::Separated { .. }));
            let wanted = left + header;
            let reader = control.store()?.reader(content).await?;
            let read = tokio::task::spawn_blocking(move || first_lines(reader, wanted, bytes_left));
            let read = read.await.map_err(|error| unreadable(block, dataset, &error))?;
            let (bytes, count) = read.map_err(|error| unreadable(block, dataset, &error))?;
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

    /// The rows, with why lines did not parse where `errors` is set.
    async fn answer(&self, control: &Control, table: &Table, errors: bool) -> Result<Vec<u8>, Error> {
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
            now_us: now_ms().saturating_mul(1000),
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
        Ok(sql::upper(&runtime, &question, &partials[..]).await?)
    }
}

async fn of_groups(
    control: &Control,
    runtime: &sql::Runtime,
    question: &Query,
    block: &Block,
    number: u32,
    groups: &sql::RowGroups,
) -> Result<Vec<u8>, Error> {
    let at = sql::BlockAt {
        number,
        begins_file: false,
        contents: None,
    };
    let cache = sql::ColumnCache::new(0);
    let mut half = sql::LowerHalf::new(runtime, question.clone().into(), 0, at, cache).await?;
    let pieces = row_groups::pieces(control.store()?, block, half.pieces(groups)?).await;
    let pieces = pieces.map_err(|failure| Error::Failed(failure.message))?;
    half.read_pieces(groups, pieces)?;
    Ok(half.run().await?)
}

fn unreadable(block: u32, dataset: &Dataset, why: &impl std::fmt::Display) -> Error {
    table::cant_read(format_args!("block {block} of dataset {}", dataset.name), why)
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
