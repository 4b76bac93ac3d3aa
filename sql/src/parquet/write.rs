//! Answers as Parquet files.

use std::io::{self, Write};

use datafusion::arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};

use crate::Error;

/// Rows of a row group: as many as readers like to take at once on one core.
const GROUP_ROWS: usize = 128 * 1024;

/// Writes a whole file.
///
/// # Errors
/// [`Error::Query`] that names the column whose type Parquet has not; what `out` says.
pub(crate) fn write(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    out: &mut (impl Write + Send),
) -> Result<(), Error> {
    if let Some(field) = schema.fields().iter().find(|field| is_foreign(field.data_type())) {
        return Err(no_such_type(field));
    }
    written(schema, batches, out).map_err(|error| culprit(schema, batches, &error))
}

fn written(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    out: &mut (impl Write + Send),
) -> Result<(), ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let mut writer = ArrowWriter::try_new(out, schema.clone(), Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.close().map(drop)
}

/// Types that Parquet has not, or only as a bare number of nobody knows what.
fn is_foreign(found: &DataType) -> bool {
    match found {
        DataType::Interval(_) | DataType::Duration(_) | DataType::Union(..) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => is_foreign(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| is_foreign(field.data_type())),
        DataType::Dictionary(_, values) => is_foreign(values),
        _ => false,
    }
}

fn no_such_type(field: &Field) -> Error {
    let (name, found) = (field.name(), field.data_type());
    Error::Query(format!(
        "column {name:?} is of type {found}, which Parquet has not: have the query cast it, to VARCHAR for example"
    ))
}

/// Which column can't be written, where it is one.
fn culprit(schema: &SchemaRef, batches: &[RecordBatch], error: &ParquetError) -> Error {
    for (place, field) in schema.fields().iter().enumerate() {
        let alone: SchemaRef = Schema::new(vec![field.clone()]).into();
        let batches: Result<Vec<_>, _> = batches.iter().map(|batch| batch.project(&[place])).collect();
        if batches.is_ok_and(|batches| written(&alone, &batches, &mut io::sink()).is_err()) {
            return no_such_type(field);
        }
    }
    Error::Query(format!("the answer can't be written as Parquet: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use datafusion::arrow::{
        array::{ArrayRef, DurationSecondArray, Int64Array, StringViewArray},
        compute::concat_batches,
    };
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let part = batch(vec![
            ("n", Arc::new(Int64Array::from(vec![Some(1), None]))),
            (
                "t",
                Arc::new(StringViewArray::from(vec!["a", "more than twelve bytes"])),
            ),
        ]);
        let mut bytes = Vec::new();
        write(&part.schema(), &[part.clone(), part.clone()], &mut bytes).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
        let read: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        let expected = concat_batches(&part.schema(), [&part, &part]).unwrap();
        assert_eq!(
            concat_batches(&read[0].schema(), &read).unwrap().columns(),
            expected.columns()
        );
        let mut empty = Vec::new();
        write(&part.schema(), &[], &mut empty).unwrap();
        assert!(empty.starts_with(b"PAR1") && empty.ends_with(b"PAR1"));
    }

    #[test]
    fn a_type_that_parquet_has_not_is_told_with_its_column() {
        let span = batch(vec![("took", Arc::new(DurationSecondArray::from(vec![5])))]);
        let told = write(&span.schema(), std::slice::from_ref(&span), &mut Vec::new());
        let told = told.unwrap_err().to_string();
        assert!(
            told.contains("column \"took\"") && told.contains("cast it"),
            "{told}"
        );
    }
}
