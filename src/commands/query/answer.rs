//! The answer of a query, as it is printed.

use control::Control;
use model::Job;

use crate::{
    commands::job,
    output::{self, Format},
};

/// Prints the answer of a job, and on standard error what was counted on the way.
///
/// # Errors
/// What can't be read or written.
pub(crate) async fn print(control: &Control, job: &Job, format: Format) -> anyhow::Result<()> {
    show(&job::bytes_of(control, job).await?, format)
}

/// Prints an answer that is at hand, and on standard error what was counted on the way.
///
/// # Errors
/// What can't be written.
pub(super) fn show(answer: &[u8], format: Format) -> anyhow::Result<()> {
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
    Ok(())
}

fn rendering(format: Format) -> sql::Rendering {
    match format {
        Format::Table => sql::Rendering::Table,
        Format::Json => sql::Rendering::Json,
        Format::Csv => sql::Rendering::Csv,
        Format::Arrow => sql::Rendering::Arrow,
    }
}
