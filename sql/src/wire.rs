//! Partial and final results as they travel: an Arrow IPC stream, with what was counted in the metadata of its schema.

use std::{io::Read, sync::Arc};

use datafusion::arrow::{
    array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Schema, SchemaRef},
    ipc::{reader::StreamReader, writer::StreamWriter},
};

use crate::Error;

/// What was counted on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lines that were read.
    pub rows: u64,
    /// Those among them that did not parse.
    pub errors: u64,
}

const ROWS: &str = "sawmill.rows";
const ERRORS: &str = "sawmill.errors";

impl Tally {
    /// Adds another count to this one.
    pub fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.errors += other.errors;
    }

    fn of(schema: &Schema) -> Self {
        let number = |key: &str| {
            let text = schema.metadata().get(key);
            text.and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        Self {
            rows: number(ROWS),
            errors: number(ERRORS),
        }
    }
}

/// What was counted of one partial result, or of an answer.
///
/// # Errors
/// [`Error::BadPartial`].
pub fn tally(bytes: &[u8]) -> Result<Tally, Error> {
    let reader = StreamReader::try_new(bytes, None).map_err(|error| Error::BadPartial(error.to_string()))?;
    Ok(Tally::of(&reader.schema()))
}

/// Views point into whole blocks, which must not travel with them.
fn compact(batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
        _ => column.clone(),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        batch.schema(),
        columns.collect(),
        &options,
    )?)
}

/// The same columns under a schema that differs in its metadata.
fn under(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().to_vec();
    Ok(RecordBatch::try_new_with_options(
        schema.clone(),
        columns,
        &options,
    )?)
}

/// Writes one stream.
pub(crate) fn write(schema: &Schema, batches: &[RecordBatch], tally: Tally) -> Result<Vec<u8>, Error> {
    let metadata = [(ROWS, tally.rows), (ERRORS, tally.errors)];
    let metadata = metadata.map(|(key, number)| (key.to_string(), number.to_string()));
    let schema: SchemaRef = Schema::new_with_metadata(schema.fields().clone(), metadata.into()).into();
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
        writer.write(&under(&schema, &compact(batch)?)?)?;
    }
    Ok(writer.into_inner()?)
}

/// Reads all streams that stand one after another, with what they counted together.
pub(crate) fn read_all(mut bytes: impl Read) -> Result<(Option<SchemaRef>, Vec<RecordBatch>, Tally), Error> {
    let bad = |error: &dyn std::fmt::Display| Error::BadPartial(error.to_string());
    let mut whole = Vec::new();
    bytes.read_to_end(&mut whole).map_err(|error| bad(&error))?;
    let (mut rest, mut schema, mut batches, mut tally) = (&whole[..], None, Vec::new(), Tally::default());
    while !rest.is_empty() {
        let mut reader = StreamReader::try_new(&mut rest, None).map_err(|error| bad(&error))?;
        tally.add(Tally::of(&reader.schema()));
        let bare: SchemaRef = Schema::new(reader.schema().fields().clone()).into();
        for batch in reader.by_ref() {
            let batch = batch.map_err(|error| bad(&error))?;
            batches.push(under(&bare, &batch).map_err(|error| bad(&error))?);
        }
        schema = Some(bare);
    }
    Ok((schema, batches, tally))
}
