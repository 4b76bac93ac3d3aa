//! Reports: a table for people, or JSON.

use serde::Serialize;

use crate::output::{self, Format};

/// A report of a bench.
pub(super) trait Report: Serialize {
    /// What was measured and on what, in sentences for people.
    fn about(&self) -> Vec<String>;

    /// Its lines for people: what, how much, and what that is beside something.
    fn lines(&self) -> Vec<Line>;
}

/// A line of a table.
pub(super) type Line = [String; 3];

/// A line of a table from anything that can be shown.
pub(super) fn line(what: impl Into<String>, how_much: impl Into<String>, note: impl Into<String>) -> Line {
    [what.into(), how_much.into(), note.into()]
}

/// Prints the report to standard output.
///
/// # Errors
/// As [`output::bytes`].
pub(super) fn print(report: &impl Report, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(report),
        Format::Table | Format::Csv | Format::Arrow | Format::Parquet => {
            report.about().iter().try_for_each(output::line)?;
            output::line("")?;
            output::table(&["WHAT", ">RESULT", "NOTE"], report.lines())
        }
    }
}

/// A rate without its fraction: `12345.6` as `12,346/s`.
pub(super) fn per_second(rate: f64) -> String {
    format!("{}/s", output::grouped(rate.max(0.0).round() as u64))
}

/// Milliseconds to a hundredth.
pub(super) fn ms(milliseconds: f64) -> String {
    format!("{milliseconds:.2} ms")
}

/// Tells on standard error what is being done: reports go to standard output alone.
pub(super) fn step(text: impl std::fmt::Display) {
    output::note(format_args!("bench: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        assert_eq!(
            (per_second(12_345.6).as_str(), ms(1.239).as_str()),
            ("12,346/s", "1.24 ms")
        );
    }
}
