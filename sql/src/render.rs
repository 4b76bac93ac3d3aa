//! Answers for people and programs.

use std::{
    io::{self, Write},
    sync::Arc,
};

use datafusion::arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray},
    csv,
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
    ipc::writer::StreamWriter,
    json,
    util::{
        display::{ArrayFormatter, FormatOptions},
        pretty::pretty_format_batches,
    },
};
use model::printable::on_one_line;

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
            let cells = match &batches[..] {
                [] => vec![cells(&RecordBatch::new_empty(schema))?],
                batches => batches.iter().map(cells).collect::<Result<_, _>>()?,
            };
            let shown = pretty_format_batches(&cells)?;
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

/// The values as texts in which nothing steers a terminal or breaks a row.
fn cells(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let options = FormatOptions::default().with_display_error(true);
    let column = |values: &ArrayRef| {
        let formatter = ArrayFormatter::try_new(values, &options)?;
        let cell = |row| {
            let shown = (!values.is_null(row)).then(|| formatter.value(row).to_string());
            shown.map(|shown| on_one_line(&shown).into_owned())
        };
        let cells: StringArray = (0..values.len()).map(cell).collect();
        Ok(Arc::new(cells) as ArrayRef)
    };
    let columns = batch.columns().iter().map(column);
    let columns = columns.collect::<Result<_, ArrowError>>()?;
    let schema = batch.schema();
    let names = schema.fields().iter().map(|field| on_one_line(field.name()));
    let fields: Vec<Field> = names.map(|name| Field::new(name, DataType::Utf8, true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Schema::new(fields).into(), columns, &options)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn a_table_shows_what_would_steer_a_terminal() {
        let texts = StringViewArray::from(vec![Some("\u{1b}]0;x\u{7}"), None, Some("a\nb")]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("text\u{1b}[2J", Arc::new(texts)),
            ("n", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let answer = wire::write(&batch.schema(), &[batch], Tally::default(), &[]).unwrap();
        let shown = |rendering| {
            let mut shown = Vec::new();
            render(&answer, rendering, &mut shown).unwrap();
            String::from_utf8(shown).unwrap()
        };
        let table = "\
+--------------+---+
| text\\x1b[2J  | n |
+--------------+---+
| \\x1b]0;x\\x07 | 1 |
|              | 2 |
| a\\nb         | 3 |
+--------------+---+
";
        assert_eq!(shown(Rendering::Table), table);
        assert_eq!(
            shown(Rendering::Csv),
            "text\u{1b}[2J,n\n\u{1b}]0;x\u{7},1\n,2\n\"a\nb\",3\n"
        );
    }
}
