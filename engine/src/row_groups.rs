//! Parts of Parquet files, as far as a query needs them.

use std::{io::Read as _, ops::Range};

use bytes::Bytes;
use futures::future::try_join_all;
use model::{Block, Content, Failure, FailureKind};
use sql::{Footer, RowGroups};

use crate::{Blocks, lines::Lines};

/// The end of a file that is read at once: the footers of most are shorter.
const TAIL_BYTES: u64 = 64 * 1024;
/// Parts of a file that are asked for at once where it is on another machine.
const AT_ONCE: usize = 8;

/// Reads the footer of the file that a block is of. Dropping the future has no effect.
///
/// # Errors
/// A [`Failure`] of kind `Query` for what is no Parquet file that can be read, else those of [`Blocks::open`].
pub async fn footer(blocks: &impl Blocks, block: &Block) -> Result<Footer, Failure> {
    let Content::Object { size, url, .. } = &block.content else {
        return Err(failure("a block of Parquet is a part of a file"));
    };
    let bad = |error: sql::Error| failure(format!("{url}: {error}"));
    let mut tail = read(blocks, block, size.saturating_sub(TAIL_BYTES)..*size).await?;
    let length = sql::footer_bytes(&tail).map_err(bad)?;
    let missing = length.saturating_sub(tail.len() as u64);
    if missing > 0 {
        let end = size - tail.len() as u64;
        let before = read(blocks, block, end.saturating_sub(missing)..end).await?;
        tail = [before, tail].concat().into();
    }
    let size = *size;
    let footer = tokio::task::spawn_blocking(move || Footer::read(&tail, size)).await;
    footer
        .map_err(|error| failure(format!("{url}: {error}")))?
        .map_err(bad)
}

/// The row groups of a block, and the footer that tells of them. Dropping the future has no effect.
///
/// # Errors
/// As [`footer`].
pub async fn row_groups(blocks: &impl Blocks, block: &Block) -> Result<RowGroups, Failure> {
    let Content::Object { start, end, url, .. } = &block.content else {
        return Err(failure("a block of Parquet is a part of a file"));
    };
    let groups = footer(blocks, block).await?.row_groups(&(*start..*end));
    groups.map_err(|error| failure(format!("{url}: {error}")))
}

/// Reads ranges of the file that a block is of, each with where it begins. Dropping the future has no effect.
///
/// # Errors
/// Those of [`Blocks::open`].
pub async fn pieces(
    blocks: &impl Blocks,
    block: &Block,
    ranges: Vec<Range<u64>>,
) -> Result<Vec<(u64, Bytes)>, Failure> {
    let mut pieces = Vec::with_capacity(ranges.len());
    for some in ranges.chunks(AT_ONCE) {
        let reads = some.iter().map(|range| read(blocks, block, range.clone()));
        let read = try_join_all(reads).await?;
        pieces.extend(some.iter().map(|range| range.start).zip(read));
    }
    Ok(pieces)
}

async fn read(blocks: &impl Blocks, block: &Block, range: Range<u64>) -> Result<Bytes, Failure> {
    let source = blocks.open(&block.with_range(range)).await?;
    let read = tokio::task::spawn_blocking(move || {
        let mut lines = Lines::new(source)?;
        let (name, mut bytes) = (lines.name(), Vec::new());
        let read = lines.read_to_end(&mut bytes);
        read.map_err(|error| Lines::failure(&name, &error))?;
        Ok(bytes.into())
    });
    read.await.map_err(|error| failure(error.to_string()))?
}

fn failure(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Query, message)
}
