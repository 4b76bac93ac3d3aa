//! From a line to the values of its columns.

use std::borrow::Cow;

use model::table::{Format, Reads, Table};

use crate::Error;

pub(crate) mod access;
pub(crate) mod directives;
pub(crate) mod json;
pub(crate) mod logfmt;
pub(crate) mod members;
pub(crate) mod pattern;
pub(crate) mod separated;
mod syslog;
pub(crate) mod text;

/// A value as it stands in the line, or as it is meant where the line escapes it.
pub(crate) type Value<'a> = Option<Cow<'a, [u8]>>;

/// Splits lines of one format.
pub(crate) trait Parser: Send {
    /// Puts the values of the columns into `row`, which comes empty; those that are not wanted may be left out.
    ///
    /// # Errors
    /// What is wrong with the line. Values put before count no more.
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String>;

    /// Whether the next line is no row but tells how those below it are read.
    fn passes_over(&mut self, _line: &[u8]) -> bool {
        false
    }
}

/// The parser of a table; `wanted` tells which of its columns are looked at.
///
/// # Errors
/// [`Error::BadFormat`].
pub(crate) fn parser(table: &Table, wanted: &[bool]) -> Result<Box<dyn Parser>, Error> {
    Ok(match &table.format {
        Format::Access => Box::new(access::Access),
        Format::Json => Box::new(json::Json::new(&table.columns, wanted)),
        Format::Logfmt => Box::new(logfmt::Logfmt::new(&table.columns)),
        Format::Syslog => Box::new(syslog::Bsd),
        Format::Syslog5424 => Box::new(syslog::Rfc5424),
        Format::Separated { separator } => {
            let least = table.least.map(|least| least as usize);
            Box::new(separated::Separated::new(*separator)?.with_least(least))
        }
        Format::Regex { pattern } => Box::new(pattern::Pattern::new(pattern)?),
        Format::Known { reads, .. } => match reads {
            Reads::Pattern(pattern) => Box::new(pattern::Known::new(pattern)?),
            Reads::Members(paths) => Box::new(members::Members::new(paths, wanted)),
            Reads::Directives { separator } => {
                Box::new(directives::Directives::new(*separator, &table.columns))
            }
        },
        // The rows of Parquet do not come in lines, and text is scanned.
        Format::Parquet | Format::Text { .. } | Format::Raw => Box::new(Whole),
    })
}

/// Nothing but the line itself.
struct Whole;

impl Parser for Whole {
    fn parse<'a>(&mut self, _line: &'a [u8], _row: &mut [Value<'a>]) -> Result<(), String> {
        Ok(())
    }
}

/// The columns that a format always has.
pub(crate) fn fixed_columns(format: &Format) -> Option<Vec<model::table::Column>> {
    let columns: &[_] = match format {
        Format::Access => &access::COLUMNS,
        Format::Syslog => &syslog::BSD_COLUMNS,
        Format::Syslog5424 => &syslog::RFC5424_COLUMNS,
        Format::Text { .. } => &text::COLUMNS,
        Format::Raw => &[],
        _ => return None,
    };
    let column = |&(name, kind): &(&str, _)| model::table::Column {
        name: name.to_string(),
        kind,
    };
    Some(columns.iter().map(column).collect())
}

/// A line without what does not belong to it, and how many NUL bytes were that: a byte order mark, where a file begins, and
/// NULs, which a crash leaves in the place of what was not yet written.
#[inline]
pub(crate) fn beginning(line: &[u8]) -> (&[u8], usize) {
    match line.first() {
        Some(0 | 0xef) => stripped(line),
        _ => (line, 0),
    }
}

fn stripped(line: &[u8]) -> (&[u8], usize) {
    let nuls = |line: &[u8]| line.iter().take_while(|byte| **byte == 0).count();
    let before = nuls(line);
    match line[before..].strip_prefix("\u{feff}".as_bytes()) {
        Some(line) => {
            let behind = nuls(line);
            (&line[behind..], before + behind)
        }
        None => (&line[before..], before),
    }
}

/// Puts a value where there is one.
pub(crate) fn put<'a>(row: &mut [Value<'a>], column: usize, value: &'a [u8]) {
    if let Some(slot) = row.get_mut(column) {
        *slot = Some(Cow::Borrowed(value));
    }
}
