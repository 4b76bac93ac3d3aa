//! The answer of a query, as it is printed.

use control::Control;
use model::{
    Job,
    answer::{KEPT_BYTES, KEPT_ROWS},
};

use crate::{
    commands::job,
    output::{self, Format},
};

/// Prints the answer of a job, and on standard error what was counted on the way; tells whether it is so small that its
/// rows are kept unasked.
///
/// # Errors
/// What can't be read or written.
pub(crate) async fn print(control: &Control, job: &Job, format: Format) -> anyhow::Result<bool> {
    show(&job::bytes_of(control, job).await?, format)
}

/// As [`print`], of an answer that is at hand.
///
/// # Errors
/// What can't be written.
pub(super) fn show(answer: &[u8], format: Format) -> anyhow::Result<bool> {
    let mut shown = Vec::new();
    let (tally, rows) = sql::render(answer, rendering(format), &mut shown)?;
    output::bytes(&shown)?;
    if format == Format::Table {
        let mut told = format!(
            "{} from {}",
            output::counted(rows as u64, "row"),
            output::counted(tally.rows, "line")
        );
        if tally.errors > 0 {
            told += &format!(
                ", of which {} did not parse: SELECT _raw, _error … WHERE _error IS NOT NULL shows them",
                output::grouped(tally.errors)
            );
        }
        output::note(told);
    }
    Ok(rows <= KEPT_ROWS && answer.len() <= KEPT_BYTES)
}

/// The rendering that a format asks for.
pub(crate) fn rendering(format: Format) -> sql::Rendering {
    match format {
        Format::Table => sql::Rendering::Table,
        Format::Json => sql::Rendering::Json,
        Format::Csv => sql::Rendering::Csv,
        Format::Arrow => sql::Rendering::Arrow,
    }
}
