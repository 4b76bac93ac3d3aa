//! Answers for people and programs.

use std::io::{self, Write};

use datafusion::arrow::{
    array::RecordBatch, csv, datatypes::Schema, ipc::writer::StreamWriter, json,
    util::pretty::pretty_format_batches,
};

use crate::{Error, Tally, parquet, wire};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rendering {
    /// A table with borders.
    Table,
    /// One JSON object per row and line.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

/// Writes the answer that [`crate::upper`] gave; tells what was counted, and how many rows it has.
///
/// # Errors
/// [`Error::BadPartial`]; [`Error::Query`] for a column that Parquet has no type for; what `out` says.
pub fn render(
    answer: &[u8],
    rendering: Rendering,
    out: &mut (impl Write + Send),
) -> Result<(Tally, usize), Error> {
    let (schema, batches, tally) = wire::read_all(answer)?;
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let schema = schema.unwrap_or_else(|| Schema::empty().into());
    let write = |error: io::Error| Error::Query(format!("the answer can't be written: {error}"));
    match rendering {
        Rendering::Table => {
            let shown = match &batches[..] {
                [] => pretty_format_batches(&[RecordBatch::new_empty(schema)])?,
                batches => pretty_format_batches(batches)?,
            };
            writeln!(out, "{shown}").map_err(write)?;
        }
        Rendering::Json => {
            let mut writer = json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, json::writer::LineDelimited>(&mut *out);
            writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
            writer.finish()?;
        }
        Rendering::Csv => {
            let mut writer = csv::Writer::new(&mut *out);
            if batches.is_empty() {
                writer.write(&RecordBatch::new_empty(schema))?;
            }
            for batch in &batches {
                writer.write(batch)?;
            }
        }
        Rendering::Arrow => {
            let mut writer = StreamWriter::try_new(&mut *out, &schema)?;
            for batch in &batches {
                writer.write(batch)?;
            }
            writer.finish()?;
        }
        Rendering::Parquet => parquet::write(&schema, &batches, out)?,
    }
    out.flush().map_err(write)?;
    Ok((tally, rows))
}
