//! The wanted columns of a block, from the bytes that they take.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::{Buf, Bytes, buf::Reader};
use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray, StringViewBuilder, make_array, new_null_array},
    buffer::NullBuffer,
    compute::concat,
    datatypes::DataType,
    error::ArrowError,
};
use model::table::{Column as Described, ColumnType, ERROR, EVERYWHERE, Table};
use parquet::{
    arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};

use super::{
    MOST_BYTES, bad,
    footer::RowGroups,
    guarded,
    leaves::Leaf,
    thrift,
    values::{misfits, text, typed, uuids},
};
use crate::{
    Error,
    decode::{Column, Decoded, misfit},
    schema::data_type,
};

/// What is not wanted between two pieces, and read all the same: on other machines each read is a request.
const GAP_BYTES: u64 = 16 * 1024;

/// The ranges of a file that are needed for the wanted columns of a block.
///
/// # Errors
/// [`Error::BadParquet`], [`Error::TooManyBytes`].
pub(crate) fn pieces(table: &Table, groups: &RowGroups, wanted: &[usize]) -> Result<Vec<Range<u64>>, Error> {
    let mut chunks = Vec::new();
    for (_, leaf) in looked_at(table, groups, wanted).values() {
        chunks.extend(groups.chunks(leaf)?);
    }
    let bytes: u64 = chunks
        .iter()
        .map(|chunk| chunk.end - chunk.start)
        .fold(0, u64::saturating_add);
    within(bytes)?;
    chunks.sort_unstable_by_key(|chunk| chunk.start);
    let mut pieces: Vec<Range<u64>> = Vec::new();
    for chunk in chunks {
        match pieces.last_mut() {
            Some(last) if chunk.start <= last.end.saturating_add(GAP_BYTES) => {
                last.end = last.end.max(chunk.end);
            }
            _ => pieces.push(chunk),
        }
    }
    Ok(pieces)
}

fn within(bytes: u64) -> Result<(), Error> {
    if bytes > MOST_BYTES {
        return Err(Error::TooManyBytes { most: MOST_BYTES });
    }
    Ok(())
}

/// Reads the wanted columns, by their places in the schema of the table, out of the [`pieces`] that they need, each with
/// where in the file it begins.
///
/// # Errors
/// [`Error::BadParquet`], [`Error::TooManyBytes`].
pub(crate) fn decode(
    table: &Table,
    groups: &RowGroups,
    pieces: Vec<(u64, Bytes)>,
    wanted: &[usize],
) -> Result<Decoded, Error> {
    guarded(|| decode_unguarded(table, groups, Pieces(pieces.into()), wanted))
}

fn decode_unguarded(
    table: &Table,
    groups: &RowGroups,
    pieces: Pieces,
    wanted: &[usize],
) -> Result<Decoded, Error> {
    let rows = groups.rows as usize;
    let wants_errors = wanted.iter().any(|&place| is_error(table, place));
    let mut problems = BTreeMap::new();
    let mut known = BTreeMap::new();
    let mut bytes = 0;
    for (place, (column, leaf)) in looked_at(table, groups, wanted) {
        for chunk in groups.chunks(leaf)? {
            bytes += thrift::check_pages(&pieces.get(&chunk)?)?;
        }
        within(bytes)?;
        let found = found(groups, &pieces, leaf)?;
        let array = typed(&found, column.kind)?;
        let misfits = misfits(found.as_ref(), array.as_ref());
        if wants_errors && !misfits.is_empty() {
            note(&mut problems, column, &found, &misfits)?;
        }
        let misfits = misfits.into();
        known.insert(place, Column { array, misfits });
    }
    let none = |place: usize| {
        let kind = table
            .columns
            .get(place)
            .map_or(ColumnType::Text, |column| column.kind);
        Column {
            array: new_null_array(&data_type(kind), rows),
            misfits: Arc::default(),
        }
    };
    let columns = wanted.iter().map(|&place| match known.get(&place) {
        Some(column) => column.clone(),
        None if is_error(table, place) => errors(&problems, groups.rows),
        // A column that other files have, or one that only lines have.
        None => none(place),
    });
    Ok(Decoded {
        rows: groups.rows,
        broken: Arc::default(),
        columns: columns.collect(),
        no_rows: Vec::new(),
    })
}

fn is_error(table: &Table, place: usize) -> bool {
    let everywhere = place.checked_sub(table.columns.len());
    everywhere
        .and_then(|place| EVERYWHERE.get(place))
        .is_some_and(|(name, _)| *name == ERROR)
}

/// The columns that are read, by place: those that are wanted, and those of which a value may not fit where it is wanted why.
fn looked_at<'a>(
    table: &'a Table,
    groups: &'a RowGroups,
    wanted: &[usize],
) -> BTreeMap<usize, (&'a Described, &'a Leaf)> {
    let wants_errors = wanted.iter().any(|&place| is_error(table, place));
    let read = table.columns.iter().enumerate().filter_map(|(place, column)| {
        let leaf = groups.leaf(&column.name)?;
        let fits = column.kind == ColumnType::Text || (leaf.fits && column.kind.takes(leaf.kind));
        (wanted.contains(&place) || (wants_errors && !fits)).then_some((place, (column, leaf)))
    });
    read.collect()
}

fn note(
    problems: &mut BTreeMap<u32, String>,
    column: &Described,
    found: &ArrayRef,
    misfits: &[u32],
) -> Result<(), Error> {
    let texts = text(found)?;
    let texts = texts.as_string_view();
    for &row in misfits {
        let value = texts.value(row as usize).as_bytes();
        problems.entry(row).or_insert_with(|| misfit(column, value));
    }
    Ok(())
}

fn errors(problems: &BTreeMap<u32, String>, rows: u32) -> Column {
    let mut texts = StringViewBuilder::with_capacity(rows as usize);
    for row in 0..rows {
        texts.append_option(problems.get(&row));
    }
    Column {
        array: Arc::new(texts.finish()),
        misfits: problems.keys().copied().collect(),
    }
}

/// The values of a column as the file has them.
fn found(groups: &RowGroups, pieces: &Pieces, leaf: &Leaf) -> Result<ArrayRef, Error> {
    let metadata = groups.metadata().clone();
    let mask = ProjectionMask::leaves(metadata.parquet_schema(), leaf.columns.clone());
    let rows = groups.rows as usize;
    let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(pieces.clone(), metadata)
        .with_row_groups(groups.numbers.clone())
        .with_projection(mask)
        .with_batch_size(rows)
        .build()
        .map_err(bad)?
        .collect::<Result<Vec<_>, ArrowError>>()
        .map_err(bad)?;
    let parts = batches.iter().map(|batch| member(batch.column(0), leaf.depth));
    let parts: Vec<ArrayRef> = parts.collect::<Result<_, _>>()?;
    let whole = match &parts[..] {
        [] => return Err(bad("it has fewer rows than it says")),
        [one] => one.clone(),
        parts => concat(&parts.iter().map(Arc::as_ref).collect::<Vec<_>>())?,
    };
    if whole.len() != rows {
        return Err(bad("it has fewer rows than it says"));
    }
    Ok(if leaf.is_uuid { uuids(&whole) } else { whole })
}

/// The only member of the only member … of a structure; null where a structure is.
fn member(array: &ArrayRef, depth: usize) -> Result<ArrayRef, Error> {
    let Some(depth) = depth.checked_sub(1) else {
        return Ok(array.clone());
    };
    let inner = array.as_struct().column(0);
    if *inner.data_type() == DataType::Null {
        return member(inner, depth);
    }
    let nulls = NullBuffer::union(array.nulls(), inner.nulls());
    let inner = inner.to_data().into_builder().nulls(nulls).build()?;
    member(&make_array(inner), depth)
}

/// Parts of a file.
#[derive(Clone)]
struct Pieces(Arc<[(u64, Bytes)]>);

impl Pieces {
    /// All that is there from this place on.
    fn from(&self, start: u64) -> Option<Bytes> {
        self.0.iter().find_map(|(begin, bytes)| {
            let from = usize::try_from(start.checked_sub(*begin)?).ok()?;
            (from < bytes.len()).then(|| bytes.slice(from..))
        })
    }

    fn get(&self, range: &Range<u64>) -> Result<Bytes, Error> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let piece = self.from(range.start).filter(|piece| piece.len() >= length);
        Ok(piece
            .ok_or_else(|| bad("a column of it was not read"))?
            .slice(..length))
    }
}

impl Length for Pieces {
    fn len(&self) -> u64 {
        let ends = self.0.iter().map(|(begin, bytes)| begin + bytes.len() as u64);
        ends.max().unwrap_or_default()
    }
}

impl ChunkReader for Pieces {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let found = self
            .from(start)
            .ok_or_else(|| ParquetError::EOF("it reaches out of its block".into()));
        found.map(Buf::reader)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let found = self.from(start).filter(|found| found.len() >= length);
        let found = found.ok_or_else(|| ParquetError::EOF("it reaches out of its block".into()))?;
        // A copy: values that point into a page must not keep the whole piece in memory.
        Ok(Bytes::copy_from_slice(&found[..length]))
    }
}
