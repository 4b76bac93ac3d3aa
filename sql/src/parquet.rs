//! Parquet: answers as files.

use std::io::Write;

use datafusion::arrow::{array::RecordBatch, datatypes::SchemaRef};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};

use crate::Error;

impl From<ParquetError> for Error {
    fn from(error: ParquetError) -> Self {
        Self::Query(error.to_string())
    }
}

/// Writes a whole file.
///
/// # Errors
/// [`Error::Query`] for a type that Parquet has not, such as an interval; what `out` says.
pub(crate) fn write(
    schema: SchemaRef,
    batches: &[RecordBatch],
    out: &mut (impl Write + Send),
) -> Result<(), Error> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer = ArrowWriter::try_new(out, schema, Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.close()?;
    Ok(())
}
