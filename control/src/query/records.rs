//! Blocks of separated values: cut where records end, which a line feed in quotes does not.

use std::{io::Read as _, ops::Range};

use model::{Block, Codec, Content, Name, table::Format};

use super::{table, wrong};
use crate::{Control, Error, adding::File};

/// Bytes that are looked through at once.
const PIECE_BYTES: u64 = 8 << 20;

/// Cuts the blocks of files anew where the lines of the dataset are separated values. What was cut at a line feed in quotes is
/// found by reading a file from its beginning on; a file of one block is not read.
///
/// # Errors
/// A dataset that is gone; a file that can't be read.
pub(super) async fn cut(
    control: &Control,
    dataset: &Name,
    files: &mut [File],
    block_size: u64,
) -> Result<(), Error> {
    let Some(dataset) = control.store()?.get(dataset).await? else {
        return Ok(());
    };
    let Some(Format::Separated { separator }) = dataset.table.map(|table| table.format) else {
        return Ok(());
    };
    for File { place, blocks, .. } in files.iter_mut().filter(|file| file.blocks.len() > 1) {
        let [first, .., last] = &blocks[..] else { continue };
        let (Some(Range { start, .. }), Some(Range { end, .. })) = (plain(first), plain(last)) else {
            continue;
        };
        let mut cuts = sql::RecordCuts::new(separator, start, block_size).map_err(wrong)?;
        let (mut ranges, mut from) = (Vec::new(), start);
        while from < end {
            let to = end.min(from + PIECE_BYTES);
            (cuts, ranges) =
                looked_through(control, place, &first.with_range(from..to), cuts, ranges).await?;
            from = to;
        }
        ranges.extend(cuts.finish());
        *blocks = ranges.into_iter().map(|range| first.with_range(range)).collect();
    }
    Ok(())
}

/// Where a block stands in its file; none for one that can't be cut.
fn plain(block: &Block) -> Option<Range<u64>> {
    match block.content {
        Content::Object {
            codec: Codec::None,
            start,
            end,
            ..
        } => Some(start..end),
        _ => None,
    }
}

type Cuts = (sql::RecordCuts, Vec<Range<u64>>);

async fn looked_through(
    control: &Control,
    place: &str,
    piece: &Block,
    mut cuts: sql::RecordCuts,
    mut ranges: Vec<Range<u64>>,
) -> Result<Cuts, Error> {
    let reader = control.store()?.reader(piece).await;
    let mut reader = reader.map_err(|error| table::cant_read(place, &error))?;
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        cuts.push(&bytes, &mut ranges);
        std::io::Result::Ok((cuts, ranges))
    });
    let read = read.await.map_err(|error| table::cant_read(place, &error))?;
    read.map_err(|error| table::cant_read(place, &error))
}
