//! What commands print: short aligned tables for people, one JSON document for programs.
//!
//! Promise: everything on standard output goes through here, and a reader that closes it early (`| head`) ends the
//! command without an error. What would steer a terminal, such as an escape sequence in a log, is written out there;
//! files and pipes get what it is.

use std::{
    fmt::Display,
    fs,
    io::{self, ErrorKind, IsTerminal as _, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use model::printable::{Pieces, in_lines};
use serde::Serialize;

use crate::{config::Span, exit::StdoutClosed};

/// In which form results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and sentences, for people.
    #[default]
    Table,
    /// One JSON document, for programs; one per row for answers.
    Json,
    /// Comma-separated values, for answers alone.
    Csv,
    /// An Arrow IPC stream, for answers alone.
    Arrow,
    /// A Parquet file, for answers alone.
    Parquet,
}

impl Format {
    /// Whether only answers can be printed so.
    pub fn is_for_answers(self) -> bool {
        !matches!(self, Self::Table | Self::Json)
    }

    /// Whether a terminal can't show it.
    pub fn is_binary(self) -> bool {
        !matches!(self, Self::Table | Self::Json | Self::Csv)
    }

    /// What the ending of a file's name says; none for an ending that says nothing.
    pub fn of_ending(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "arrow" | "arrows" => Some(Self::Arrow),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Writes a file whole: who looks meanwhile sees what was there before. What is no regular file, such as a pipe, is written
/// to as it is.
///
/// # Errors
/// What the system says, with the path.
pub fn file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let failed = || format!("can't write {}", path.display());
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        return fs::write(path, bytes).with_context(failed);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut new = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .with_context(failed)?;
    new.write_all(bytes).with_context(failed)?;
    new.persist(path).with_context(failed)?;
    Ok(())
}

/// Writes bytes to standard output and flushes.
///
/// # Errors
/// [`StdoutClosed`] when nobody reads any more, else what the system says.
pub fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut pieces = Printed::to_stdout();
    pieces.write(bytes)?;
    pieces.end()
}

/// What comes in pieces, such as what a command printed, on its way to standard output or standard error.
#[derive(Debug)]
pub struct Printed {
    is_error: bool,
    /// None: it goes out as it is.
    terminal: Option<Pieces>,
}

impl Printed {
    /// To standard output.
    pub fn to_stdout() -> Self {
        Self {
            is_error: false,
            terminal: io::stdout().is_terminal().then(Pieces::default),
        }
    }

    /// To standard error.
    pub fn to_stderr() -> Self {
        Self {
            is_error: true,
            terminal: io::stderr().is_terminal().then(Pieces::default),
        }
    }

    /// Writes a piece and flushes.
    ///
    /// # Errors
    /// As [`bytes`].
    pub fn write(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        match &mut self.terminal {
            None => self.out(piece),
            Some(pieces) => {
                let ready = pieces.next(piece);
                self.out(ready.as_bytes())
            }
        }
    }

    /// Writes what is left of the last piece.
    ///
    /// # Errors
    /// As [`bytes`].
    pub fn end(mut self) -> anyhow::Result<()> {
        let rest = self.terminal.take().map(Pieces::end).unwrap_or_default();
        if rest.is_empty() {
            Ok(())
        } else {
            self.out(rest.as_bytes())
        }
    }

    fn out(&self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.is_error {
            return io::stderr()
                .lock()
                .write_all(bytes)
                .context("can't write to standard error");
        }
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
            result => result.context("can't write to standard output"),
        }
    }
}

/// Writes a line of text.
///
/// # Errors
/// As [`bytes`].
pub fn line(text: impl Display) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes one JSON document.
///
/// # Errors
/// As [`bytes`].
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("can't write JSON")?;
    line(text)
}

/// A line on standard error that is neither result nor log; a closed standard error is no error.
pub fn note(text: impl Display) {
    let text = text.to_string();
    writeln!(io::stderr().lock(), "{}", in_lines(&text)).unwrap_or_default();
}

/// Rows under headings without frames. A heading that begins with `>` is a column of numbers, aligned right.
///
/// # Errors
/// As [`bytes`].
pub fn table<R: IntoIterator<Item = String>>(
    headings: &[&str],
    rows: impl IntoIterator<Item = R>,
) -> anyhow::Result<()> {
    line(rendered(headings, rows))
}

fn rendered<R: IntoIterator<Item = String>>(headings: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')));
    for (index, heading) in headings.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    for row in rows {
        table.add_row(row);
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Aligned pairs of a word and what it is; several lines of what stay under each other.
///
/// # Errors
/// As [`bytes`].
pub fn pairs(pairs: &[(&str, String)]) -> anyhow::Result<()> {
    let width = pairs.iter().map(|(word, _)| word.len()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for (word, what) in pairs {
        let mut word = *word;
        for part in what.lines() {
            text.push_str(&format!("{word:width$}{part}\n"));
            word = "";
        }
    }
    bytes(text.as_bytes())
}

/// A number with a comma after each three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and the word for what is counted, in the plural where it is not 1.
pub fn counted(number: u64, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {word}{plural}", grouped(number))
}

/// Bytes with a unit, to two or three digits.
pub fn size(bytes: u64) -> String {
    if bytes < 10_240 {
        return format!("{} B", grouped(bytes));
    }
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// A duration to two units at most.
pub fn duration(duration: Duration) -> String {
    let rounded = match duration.as_secs() {
        0 => Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(0)),
        seconds @ 1..=9 => {
            Duration::from_millis(seconds * 1000 + u64::from(duration.subsec_millis()) / 100 * 100)
        }
        seconds @ 10..=3599 => Duration::from_secs(seconds),
        seconds @ 3600..=86_399 => Duration::from_secs(seconds / 60 * 60),
        seconds => Duration::from_secs(seconds / 3600 * 3600),
    };
    Span(rounded).to_string()
}

/// How long ago a time was, in milliseconds since 1970.
pub fn ago(then_ms: i64) -> String {
    let now = jiff::Timestamp::now().as_millisecond();
    let passed = Duration::from_millis(u64::try_from(now - then_ms).unwrap_or(0));
    format!("{} ago", duration(Duration::from_secs(passed.as_secs())))
}

/// A time in milliseconds since 1970, as RFC 3339 in UTC.
pub fn time(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_have_no_frames() {
        let rows = [["a", "1"], ["longer", "1000"]].map(|row| row.map(str::to_string));
        let text = rendered(&["NAME", ">BYTES"], rows);
        assert_eq!(text, "NAME    BYTES\na           1\nlonger   1000");
    }

    #[test]
    fn files_are_replaced_whole_and_their_ending_tells_their_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        for text in ["long", "new"] {
            file(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing else is left"
        );
        file(Path::new("/dev/null"), b"x").unwrap();
        assert!(file(&folder.path().join("no/such"), b"x").is_err());
        let of = |name| Format::of_ending(Path::new(name));
        assert_eq!(
            [of("x.CSV"), of("x.jsonl"), of("x.parquet")],
            [Some(Format::Csv), Some(Format::Json), Some(Format::Parquet)]
        );
        assert_eq!([of("x.txt"), of("csv")], [None, None]);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [grouped(7), grouped(1000), grouped(1_234_567)],
            ["7", "1,000", "1,234,567"]
        );
        assert_eq!(
            [size(0), size(4096), size(9 << 20)],
            ["0 B", "4,096 B", "9.0 MiB"]
        );
        let shown = |ms| duration(Duration::from_millis(ms));
        assert_eq!(
            [shown(12), shown(1234), shown(61_500), shown(90_061_000)],
            ["12ms", "1s 200ms", "1m 1s", "1d 1h"]
        );
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
