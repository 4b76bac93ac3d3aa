//! What the footer of a file tells: its columns, and where its row groups are.

use std::{ops::Range, sync::Arc};

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use model::table::{Format, Table};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    basic::{Compression, LogicalType},
    file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData},
};

use super::{
    bad, guarded,
    leaves::{Leaf, leaves},
    thrift,
};
use crate::{Error, decode::MOST_ROWS};

/// What a Parquet file begins and ends with.
const MAGIC: &[u8; 4] = b"PAR1";
/// The same of a file with an encrypted footer.
const MAGIC_ENCRYPTED: &[u8; 4] = b"PARE";
/// Bytes at the end of a file: the length of its footer, and the magic number.
const TAIL_BYTES: u64 = 8;
/// Most bytes of a footer: those of a hundred thousand columns of row groups.
const MOST_FOOTER_BYTES: u64 = 32 << 20;

/// Whether a file that begins with these bytes is a Parquet file, or means to be.
pub fn is_parquet(head: &[u8]) -> bool {
    head.starts_with(MAGIC) || head.starts_with(MAGIC_ENCRYPTED)
}

/// How many bytes at the end of a file are its footer, [`TAIL_BYTES`] included, from these last bytes of it.
///
/// # Errors
/// [`Error::BadParquet`] for the end of a file that is cut off or encrypted.
pub fn footer_bytes(tail: &[u8]) -> Result<u64, Error> {
    let tail = tail
        .last_chunk::<8>()
        .and_then(|last| last.split_first_chunk::<4>());
    let (length, magic) = tail.ok_or_else(|| bad("it is too short"))?;
    if magic == MAGIC_ENCRYPTED {
        return Err(bad("it is encrypted"));
    }
    if magic != MAGIC {
        return Err(bad("it does not end with PAR1, so it is cut off"));
    }
    let length = u64::from(u32::from_le_bytes(*length)) + TAIL_BYTES;
    if length > MOST_FOOTER_BYTES {
        return Err(bad(format!(
            "its footer would be longer than {MOST_FOOTER_BYTES} bytes"
        )));
    }
    Ok(length)
}

/// What is known of a file from its footer.
#[derive(Clone, Debug)]
pub struct Footer {
    metadata: ArrowReaderMetadata,
    leaves: Vec<Leaf>,
}

impl Footer {
    /// From the last bytes of a file, as many as [`footer_bytes`] says or more; `size` is that of the file.
    ///
    /// # Errors
    /// [`Error::BadParquet`].
    pub fn read(footer: &[u8], size: u64) -> Result<Self, Error> {
        guarded(|| Self::read_unguarded(footer, size))
    }

    fn read_unguarded(footer: &[u8], size: u64) -> Result<Self, Error> {
        let length = footer_bytes(footer)?;
        let start = (footer.len() as u64).checked_sub(length);
        let start = start.and_then(|start| usize::try_from(start).ok());
        let start = start.ok_or_else(|| bad("its footer is cut off"))?;
        let description = &footer[start..footer.len() - TAIL_BYTES as usize];
        thrift::check_description(description)?;
        let metadata = Arc::new(ParquetMetaDataReader::decode_metadata(description).map_err(bad)?);
        check(&metadata, size.saturating_sub(length))?;
        let metadata = with_views(metadata)?;
        let mut leaves = leaves(metadata.schema().fields());
        let columns = leaves.last().map_or(0, |leaf| leaf.columns.end);
        if columns != metadata.parquet_schema().num_columns() {
            return Err(bad("its schema is of a kind that is not known"));
        }
        if leaves.is_empty() {
            return Err(bad("it has no columns"));
        }
        for leaf in leaves.iter_mut().filter(|leaf| leaf.columns.len() == 1) {
            let stored = metadata.parquet_schema().column(leaf.columns.start);
            leaf.is_uuid = matches!(stored.logical_type_ref(), Some(LogicalType::Uuid));
        }
        Ok(Self { metadata, leaves })
    }

    /// The table that the file is. Members of structures are columns named by their path; what is no number, truth value or
    /// time is text.
    pub fn table(&self) -> Table {
        Table {
            format: Format::Parquet,
            columns: self.leaves.iter().map(Leaf::column).collect(),
            least: None,
        }
    }

    /// The ranges of blocks of about so many bytes, but of one row group at least, in the order of the file.
    ///
    /// # Errors
    /// [`Error::BadParquet`].
    pub fn blocks(&self, about_bytes: u64) -> Result<Vec<Range<u64>>, Error> {
        let mut groups = Vec::new();
        for group in self.metadata.metadata().row_groups() {
            if group.num_rows() > 0 {
                groups.push(range(group)?);
            }
        }
        groups.sort_unstable_by_key(|group| group.start);
        let mut blocks: Vec<Range<u64>> = Vec::new();
        for group in groups {
            match blocks.last_mut() {
                // Row groups that stand in each other stay together.
                Some(last) if group.start < last.end || group.end - last.start <= about_bytes => {
                    last.end = last.end.max(group.end);
                }
                _ => blocks.push(group),
            }
        }
        Ok(blocks)
    }

    /// The row groups of the block with this range.
    ///
    /// # Errors
    /// [`Error::BadParquet`], also for a range that no row group begins in; [`Error::TooManyLines`].
    pub fn row_groups(self, block: &Range<u64>) -> Result<RowGroups, Error> {
        let (mut numbers, mut rows) = (Vec::new(), 0_u64);
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            if group.num_rows() > 0 && block.contains(&range(group)?.start) {
                numbers.push(number);
                rows = rows.saturating_add(group.num_rows().unsigned_abs());
            }
        }
        if numbers.is_empty() {
            return Err(bad("it has no rows where the block is"));
        }
        let rows = u32::try_from(rows).ok().filter(|rows| *rows <= MOST_ROWS);
        Ok(RowGroups {
            rows: rows.ok_or(Error::TooManyLines { most: MOST_ROWS })?,
            footer: self,
            numbers,
        })
    }
}

/// The row groups of one block.
#[derive(Clone, Debug)]
pub struct RowGroups {
    footer: Footer,
    /// Their numbers in the file.
    pub(super) numbers: Vec<usize>,
    pub(super) rows: u32,
}

impl RowGroups {
    /// How many rows they have.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    pub(super) fn metadata(&self) -> &ArrowReaderMetadata {
        &self.footer.metadata
    }

    /// The column of the file that has this name; none where the file has not.
    pub(super) fn leaf(&self, name: &str) -> Option<&Leaf> {
        self.footer.leaves.iter().find(|leaf| leaf.name == name)
    }

    /// Where the bytes of a column are: a range for each row group, and for each leaf that it is made of.
    pub(super) fn chunks(&self, leaf: &Leaf) -> Result<Vec<Range<u64>>, Error> {
        let all = self.metadata().metadata().row_groups();
        let groups = self.numbers.iter().map(|&number| &all[number]);
        let chunks = groups.flat_map(|group| &group.columns()[leaf.columns.clone()]);
        chunks.map(chunk).collect()
    }
}

/// Whether all that the footer tells can be.
fn check(metadata: &ParquetMetaData, data_end: u64) -> Result<(), Error> {
    let columns = metadata.file_metadata().schema_descr().num_columns();
    let mut rows = 0_i64;
    for group in metadata.row_groups() {
        if group.num_rows() < 0 || group.columns().len() != columns {
            return Err(bad("a row group of it can't be"));
        }
        rows = rows.saturating_add(group.num_rows());
        for column in group.columns() {
            let compression = match column.compression() {
                Compression::BROTLI(_) => Some("brotli"),
                Compression::LZO => Some("lzo"),
                _ => None,
            };
            if let Some(compression) = compression {
                return Err(bad(format!(
                    "it is compressed by {compression}: have it written with zstd, snappy, lz4 or gzip"
                )));
            }
        }
        if group.num_rows() > 0 && range(group)?.end > data_end {
            return Err(bad("a row group of it reaches into its footer"));
        }
    }
    if rows != metadata.file_metadata().num_rows() {
        return Err(bad("its row groups have other rows than it says"));
    }
    Ok(())
}

/// The bytes that the columns of a row group take.
fn range(group: &RowGroupMetaData) -> Result<Range<u64>, Error> {
    let mut all: Option<Range<u64>> = None;
    for column in group.columns() {
        let one = chunk(column)?;
        all = Some(match all {
            Some(all) => all.start.min(one.start)..all.end.max(one.end),
            None => one,
        });
    }
    all.filter(|all| !all.is_empty())
        .ok_or_else(|| bad("it has no columns"))
}

fn chunk(column: &ColumnChunkMetaData) -> Result<Range<u64>, Error> {
    let (start, length) = column_range(column).ok_or_else(|| bad("a column of it stands nowhere"))?;
    if start < MAGIC.len() as u64 {
        return Err(bad("a column of it stands nowhere"));
    }
    Ok(start..start.saturating_add(length))
}

fn column_range(column: &ColumnChunkMetaData) -> Option<(u64, u64)> {
    let (dictionary, data) = (column.dictionary_page_offset(), column.data_page_offset());
    // As the reader takes it.
    let start = dictionary.unwrap_or(data);
    Some((
        u64::try_from(start).ok()?,
        u64::try_from(column.compressed_size()).ok()?,
    ))
}

/// Has text read without copying it. What the writer says of its own types is left out: it may be anything.
fn with_views(metadata: Arc<ParquetMetaData>) -> Result<ArrowReaderMetadata, Error> {
    let plain = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let plain = ArrowReaderMetadata::try_new(metadata.clone(), plain).map_err(bad)?;
    let fields: Fields = plain.schema().fields().iter().map(as_view).collect();
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
    ArrowReaderMetadata::try_new(metadata, options).map_err(bad)
}

fn as_view(field: &FieldRef) -> FieldRef {
    let kind = match field.data_type() {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        DataType::Struct(members) => DataType::Struct(members.iter().map(as_view).collect()),
        _ => return field.clone(),
    };
    Arc::new(Field::clone(field).with_data_type(kind))
}
