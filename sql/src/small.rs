//! Small tables that are joined with the lines of datasets.

use datafusion::arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Int64Type, SchemaRef},
};
use model::{
    processor::SmallTable,
    table::{Format, Table},
};

use crate::{BlockRows, Error, Origin, detect, named, schema::schema};

/// The rows of a small table.
#[derive(Debug)]
pub(crate) struct SmallRows {
    table: Table,
    checksum: String,
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
}

impl SmallRows {
    /// Parses the bytes of a table.
    ///
    /// # Errors
    /// [`Error::BadTable`] for other bytes than those that are meant, or a line that does not parse.
    pub(crate) fn parse(small: &SmallTable, bytes: &[u8]) -> Result<Self, Error> {
        let bad = |why: String| Error::BadTable {
            name: small.name.clone(),
            why,
        };
        let checksum = checksum(bytes);
        if checksum != small.checksum {
            return Err(bad("its bytes are not those that were sent along".into()));
        }
        let own = small.table.columns.len();
        let (raw, line, error) = (own, own + 1, own + 3);
        let projection: Vec<usize> = (0..own).chain([raw, line, error]).collect();
        let origin = Origin {
            block: 0,
            begins_file: true,
            now_us: 0,
        };
        let rows = BlockRows::parse(&small.table, bytes, &projection, origin)?;
        let mut batches = Vec::with_capacity(rows.batches.len());
        let columns: Vec<usize> = (0..own).collect();
        for batch in &rows.batches {
            if let Some((line, why)) = first_error(batch) {
                return Err(bad(format!("line {line} (without the header): {why}")));
            }
            // A blank line would be a row of nulls, among which `NOT IN` finds nothing.
            let lines = batch.column(own).as_string_view().iter();
            let filled: BooleanArray = lines.map(|line| line.map(|line| !line.is_empty())).collect();
            batches.push(filter_record_batch(&batch.project(&columns)?, &filled)?);
        }
        Ok(Self {
            table: small.table.clone(),
            checksum,
            schema: schema(&small.table).project(&columns)?.into(),
            batches,
        })
    }

    /// Whether they are the rows of this table.
    pub(crate) fn are_of(&self, small: &SmallTable) -> bool {
        self.checksum == small.checksum && self.table == small.table
    }

    /// What they take in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum()
    }
}

/// The first line of a batch that did not parse, and why; its last two columns tell.
fn first_error(batch: &RecordBatch) -> Option<(i64, String)> {
    let errors = batch.column(batch.num_columns() - 1).as_string_view();
    let lines = batch.column(batch.num_columns() - 2).as_primitive::<Int64Type>();
    let row = (0..batch.num_rows()).find(|&row| errors.is_valid(row))?;
    Some((lines.value(row), errors.value(row).to_string()))
}

/// The checksum by which nodes know a small table: blake3 in hexadecimal digits.
pub fn checksum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// How the lines of a small table become rows: as the ending of its file says (`csv`, `tsv`, `json`, `jsonl`, `ndjson`),
/// else as they look. Types are learned from all lines.
///
/// # Errors
/// [`Error::BadTable`] for lines without columns.
pub fn small_table(name: &str, ending: Option<&str>, bytes: &[u8]) -> Result<Table, Error> {
    let bad = |why: String| Error::BadTable {
        name: name.to_string(),
        why,
    };
    // The last line of a sample may be cut off; here it is not.
    let mut whole = bytes.to_vec();
    if !whole.ends_with(b"\n") {
        whole.push(b'\n');
    }
    let ending = ending.map(str::to_ascii_lowercase);
    let detected = match ending.as_deref() {
        Some(format @ ("csv" | "tsv" | "json")) => named(format, &whole),
        Some("jsonl" | "ndjson") => named("json", &whole),
        _ => Ok(detect(&whole)),
    };
    let table = detected.map_err(|error| bad(error.to_string()))?.table;
    if matches!(table.format, Format::Text { .. } | Format::Raw) || table.columns.is_empty() {
        return Err(bad(
            "no columns are found in it: it can be CSV or TSV with a header, or an object of JSON on each line".into(),
        ));
    }
    Ok(table)
}
