//! What the lines of a file are, from the first of them.

use std::collections::BTreeMap;

use model::table::{Column, ColumnType, EVERYWHERE, Format, Table};

pub(crate) use self::evidence::{Evidence, failing, weigh};
use crate::{
    Error,
    decode::without_return,
    formats,
    parse::{
        beginning, fixed_columns,
        json::{self, Leaf},
        logfmt,
        pattern::Pattern,
        separated::Separated,
    },
    types::{Odd, Seen},
};

mod choice;
mod evidence;
mod header;
mod text;

/// A format with its columns, and why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// What to read the lines as.
    pub table: Table,
    /// For people.
    pub why: String,
    /// What else people may want to know of the lines: sentences.
    pub notes: Vec<String>,
}

/// Why a format was taken that a user has named.
pub const NAMED: &str = "as named";

/// A sample of fewer lines decides nothing for good, unless they have the marks of a format.
const FEW_LINES: usize = 5;

/// Columns that lines make by their names are at most so many: where names are data there would be no end.
pub(crate) const MOST_COLUMNS: usize = 4000;

/// The lines of a sample that are not blank.
pub(crate) fn lines(sample: &[u8]) -> Vec<&[u8]> {
    let sample = sample.strip_prefix("\u{feff}".as_bytes()).unwrap_or(sample);
    // The last line may be cut off.
    let end = memchr::memrchr(b'\n', sample).unwrap_or(sample.len());
    sample[..end]
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.trim_ascii().is_empty())
        .collect()
}

/// The lines of a sample as a format has them: separated values may have line feeds in quotes.
pub(crate) fn records<'a>(format: &Format, sample: &'a [u8]) -> Vec<&'a [u8]> {
    let Format::Separated { separator } = format else {
        return lines(sample);
    };
    let Ok(separated) = Separated::new(*separator) else {
        return lines(sample);
    };
    let sample = sample.strip_prefix("\u{feff}".as_bytes()).unwrap_or(sample);
    // The last record may be cut off: one that would be most of the sample is none.
    let end = memchr::memrchr(b'\n', sample).unwrap_or(sample.len());
    let (mut rest, mut records) = (&sample[..end], Vec::new());
    while !rest.is_empty()
        && let Some(end) = separated.record(rest, rest.len() > end / 2)
    {
        let record = without_return(&rest[..end.bytes]);
        if !record.is_empty() {
            records.push(record);
        }
        rest = rest.get(end.bytes + 1..).unwrap_or_default();
    }
    records
}

/// Detects the format of lines from a sample of them; text when none fits.
pub fn detect(sample: &[u8]) -> Detected {
    choice::choose(sample)
}

/// Whether a format that was detected in a sample could become another one with more lines: there are few, and they have
/// no marks of a format.
pub(crate) fn is_provisional(table: &Table, sample: &[u8]) -> bool {
    let weak = matches!(
        table.format,
        Format::Text { .. } | Format::Raw | Format::Separated { .. } | Format::Logfmt
    );
    weak && lines(sample).len() < FEW_LINES
}

/// The format that a user names: `access`, `json`, `logfmt`, `syslog`, `syslog5424`, `csv`, `tsv`, `parquet`, `text`,
/// `text:joined`, `raw`, `separated:…`, `regex:…` or one of the [known](crate::formats).
///
/// # Errors
/// [`Error::BadFormat`] that names the choices.
pub fn format(name: &str) -> Result<Format, Error> {
    Ok(match name {
        "access" | "common" | "combined" => Format::Access,
        "json" => Format::Json,
        "logfmt" => Format::Logfmt,
        "syslog" => Format::Syslog,
        "syslog5424" => Format::Syslog5424,
        "csv" => Format::Separated { separator: ',' },
        "tsv" => Format::Separated { separator: '\t' },
        "parquet" => Format::Parquet,
        "text" | "text:joined" => Format::Text {
            joined: name != "text",
            yearless: false,
        },
        "raw" => Format::Raw,
        _ => match (name.split_once(':'), formats::find(name)) {
            (_, Some(definition)) => definition.format(),
            (Some(("regex", pattern)), _) => {
                Pattern::new(pattern)?;
                Format::Regex {
                    pattern: pattern.to_string(),
                }
            }
            (Some(("separated", by)), _) => separated(by)?,
            _ => {
                return Err(Error::BadFormat(format!(
                    "{name:?} is none of access, json, logfmt, syslog, syslog5424, csv, tsv, separated:CHARACTER, parquet, text, \
                     text:joined, raw, regex:PATTERN, and none of those that `sawmill dataset formats` lists"
                )));
            }
        },
    })
}

fn separated(by: &str) -> Result<Format, Error> {
    let mut letters = by.chars();
    let (Some(separator), None) = (letters.next(), letters.next()) else {
        return Err(Error::BadFormat(format!(
            "{by:?} is no separator: it is one character, as in separated:;"
        )));
    };
    Separated::new(separator)?;
    Ok(Format::Separated { separator })
}

/// The table of lines in a named format; some have columns that only their lines tell.
///
/// # Errors
/// [`Error::BadFormat`].
pub fn named(name: &str, sample: &[u8]) -> Result<Detected, Error> {
    let format = match format(name)? {
        Format::Text { joined, .. } => text::Counted::of(&lines(sample)).format(joined),
        format => format,
    };
    let lines = records(&format, sample);
    let table = match formats::find(name) {
        Some(definition) if matches!(format, Format::Known { .. }) => definition.table(&lines),
        _ => table(&format, &lines),
    };
    let table = table.ok_or_else(|| {
        Error::BadFormat(format!(
            "no columns can be learned from the first lines as {name}"
        ))
    })?;
    Ok(Detected {
        table,
        why: NAMED.into(),
        notes: Vec::new(),
    })
}

fn table(format: &Format, lines: &[&[u8]]) -> Option<Table> {
    let mut columns: Vec<Column> = match fixed_columns(format) {
        Some(fixed) => fixed,
        None => seen(format, lines)?.into_iter().map(Column::from).collect(),
    };
    if format.finds_by_name() {
        columns.truncate(MOST_COLUMNS);
    }
    Some(Table {
        format: format.clone(),
        columns,
        least: None,
    })
}

/// A column as lines have it.
pub(crate) struct SeenColumn {
    pub(crate) name: String,
    /// None where no line has a value in it.
    pub(crate) kind: Option<ColumnType>,
    /// The value for which it is text, where all of them look like numbers.
    pub(crate) odd: Option<Odd>,
}

impl SeenColumn {
    fn new(name: String, seen: Seen) -> Self {
        Self {
            name,
            kind: seen.kind(),
            odd: seen.odd(),
        }
    }
}

impl From<SeenColumn> for Column {
    fn from(seen: SeenColumn) -> Self {
        Self {
            name: seen.name,
            kind: seen.kind.unwrap_or(ColumnType::Text),
        }
    }
}

/// The columns of lines, for formats that do not fix them; none where there are none to be seen.
pub(crate) fn seen(format: &Format, lines: &[&[u8]]) -> Option<Vec<SeenColumn>> {
    match format {
        Format::Json => json_columns(lines),
        Format::Logfmt => logfmt_columns(lines),
        Format::Separated { separator } => separated_columns(*separator, lines),
        Format::Regex { pattern } => pattern_columns(pattern, lines),
        _ => None,
    }
}

/// Columns that are found by their name: those named like what every table has are left to `_raw`.
fn columns(seen: impl IntoIterator<Item = (String, Seen)>) -> Vec<SeenColumn> {
    let free = |(name, _): &(String, Seen)| !is_everywhere(name);
    let column = |(name, seen)| SeenColumn::new(name, seen);
    seen.into_iter().filter(free).map(column).collect()
}

fn is_everywhere(name: &str) -> bool {
    EVERYWHERE.iter().any(|(known, _)| *known == name)
}

/// Columns that are found by their place: a name that is taken gets a number behind it.
fn columns_in_place(seen: impl IntoIterator<Item = (String, Seen)>) -> Vec<SeenColumn> {
    let mut columns: Vec<SeenColumn> = Vec::new();
    for (given, seen) in seen {
        let taken = |name: &str| is_everywhere(name) || columns.iter().any(|column| column.name == name);
        let mut name = given.clone();
        let mut number = 2;
        while taken(&name) {
            name = format!("{given}_{number}");
            number += 1;
        }
        columns.push(SeenColumn::new(name, seen));
    }
    columns
}

fn json_columns(lines: &[&[u8]]) -> Option<Vec<SeenColumn>> {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for line in lines {
        json::leaves(line, |path, leaf| {
            if !seen.contains_key(path) {
                seen.insert(path.to_string(), Seen::default());
            }
            let Some(seen) = seen.get_mut(path) else { return };
            match leaf {
                Leaf::Text(text) => seen.value(text, true),
                Leaf::Number(number) => seen.number(number),
                Leaf::Boolean(word) => seen.value(word, false),
                Leaf::Array => *seen = Seen::of(ColumnType::Text),
                Leaf::Null => {}
            }
        });
    }
    (!seen.is_empty()).then(|| columns(seen))
}

fn logfmt_columns(lines: &[&[u8]]) -> Option<Vec<SeenColumn>> {
    let mut order: Vec<(String, Seen)> = Vec::new();
    for line in lines {
        let _ = logfmt::pairs(line, |key, value| {
            let key = String::from_utf8_lossy(key);
            let place = order
                .iter()
                .position(|(known, _)| *known == key)
                .unwrap_or_else(|| {
                    order.push((key.into_owned(), Seen::default()));
                    order.len() - 1
                });
            if let Some(value) = value {
                order[place].1.value(&value, false);
            }
        });
    }
    (!order.is_empty()).then(|| columns(order))
}

fn separated_columns(separator: char, lines: &[&[u8]]) -> Option<Vec<SeenColumn>> {
    let separated = Separated::new(separator).ok()?;
    let (header, rest) = lines.split_first()?;
    let mut seen = Vec::new();
    separated
        .values(header, |value| {
            let name = value.map(|value| String::from_utf8_lossy(&value).trim().to_string());
            let name = name.filter(|name| !name.is_empty());
            let number = seen.len() + 1;
            seen.push((name.unwrap_or_else(|| format!("column{number}")), Seen::default()));
        })
        .ok()?;
    // Where files were joined the header is there again.
    for line in rest.iter().filter(|line| beginning(line).0 != *header) {
        let mut row = Vec::with_capacity(seen.len());
        let parsed = separated.values(line, |value| row.push(value));
        if parsed.is_err() || row.len() != seen.len() {
            continue;
        }
        for ((_, seen), value) in seen.iter_mut().zip(row) {
            if let Some(value) = value {
                seen.value(&value, false);
            }
        }
    }
    Some(columns_in_place(seen))
}

fn pattern_columns(pattern: &str, lines: &[&[u8]]) -> Option<Vec<SeenColumn>> {
    let mut parser = Pattern::new(pattern).ok()?;
    let mut seen: Vec<(String, Seen)> = parser
        .names()
        .into_iter()
        .map(|name| (name, Seen::default()))
        .collect();
    for line in lines {
        let mut row = vec![None; seen.len()];
        if crate::parse::Parser::parse(&mut parser, line, &mut row).is_ok() {
            for ((_, seen), value) in seen.iter_mut().zip(&row) {
                if let Some(value) = value {
                    seen.value(value, false);
                }
            }
        }
    }
    let typed = seen.into_iter().map(|(name, seen)| match named_type(&name) {
        Some((name, kind)) => (name.to_string(), Seen::of(kind)),
        None => (name, seen),
    });
    Some(columns_in_place(typed))
}

/// A group such as `took__float` names the type of its column.
fn named_type(group: &str) -> Option<(&str, ColumnType)> {
    let (name, kind) = group.rsplit_once("__")?;
    let kind = kind.parse().ok()?;
    (!name.is_empty()).then_some((name, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sample: &str) -> (String, Vec<(String, ColumnType)>) {
        let Detected { table, .. } = detect(sample.as_bytes());
        let columns = table.columns.into_iter().map(|column| (column.name, column.kind));
        (table.format.name(), columns.collect())
    }

    #[test]
    fn each_format_is_known_by_its_lines() {
        for (sample, format) in [
            (
                "1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 5\n",
                "access",
            ),
            ("{\"a\":1}\n{\"a\":2}\n", "json"),
            ("level=info msg=hi\nlevel=warn msg=\"a b\"\n", "logfmt"),
            ("Jun 14 15:16:01 combo sshd[1]: hi\n", "syslog"),
            (
                "<34>1 2003-10-11T22:14:15.003Z host su - ID47 - hi\n",
                "syslog5424",
            ),
            ("a,b\n1,2\n", "csv"),
            ("a\tb\n1\t2\n", "tsv"),
            (
                "2015-07-29 17:41:44,747 - INFO\n2015-07-29 17:41:45,1 - WARN\n",
                "text",
            ),
            ("just words\nand more\n", "text"),
            ("", "text"),
        ] {
            assert_eq!(found(sample).0, format, "{sample}");
        }
    }

    #[test]
    fn columns_and_their_types_are_learned() {
        let (_, columns) = found(
            "{\"n\":1,\"o\":{\"f\":1},\"t\":\"2024-01-01T00:00:00Z\"}\n{\"n\":null,\"o\":{\"f\":1.5},\"s\":\"x\"}\n",
        );
        let expected = [
            ("n", ColumnType::Integer),
            ("o.f", ColumnType::Float),
            ("s", ColumnType::Text),
            ("t", ColumnType::Timestamp),
        ];
        assert_eq!(columns, expected.map(|(name, kind)| (name.to_string(), kind)));
        let (_, columns) = found("a,b,\n1,x,2\n2,,3\n");
        let expected = [
            ("a", ColumnType::Integer),
            ("b", ColumnType::Text),
            ("column3", ColumnType::Integer),
        ];
        assert_eq!(columns, expected.map(|(name, kind)| (name.to_string(), kind)));
    }

    #[test]
    fn no_two_columns_have_one_name() {
        let names = |format: &str, sample: &str| {
            let columns = named(format, sample.as_bytes()).unwrap().table.columns;
            columns.into_iter().map(|column| column.name).collect::<Vec<_>>()
        };
        assert_eq!(
            names("csv", "a,a,_raw,a_2\n1,2,3,4\n"),
            ["a", "a_2", "_raw_2", "a_2_2"]
        );
        assert_eq!(names("json", "{\"_line\":1,\"b\":2}\n"), ["b"]);
        assert_eq!(names("logfmt", "_error=x b=2\n"), ["b"]);
    }

    #[test]
    fn a_group_may_name_its_type() {
        let found = named(
            "regex:^(?<code__text>\\d+) (?<took__float>\\d+) (?<n__x>\\d+)$",
            b"1 2 3\n",
        )
        .unwrap();
        let columns = found
            .table
            .columns
            .into_iter()
            .map(|column| (column.name, column.kind));
        let expected = [
            ("code", ColumnType::Text),
            ("took", ColumnType::Float),
            ("n__x", ColumnType::Integer),
        ];
        assert_eq!(
            columns.collect::<Vec<_>>(),
            expected.map(|(name, kind)| (name.to_string(), kind))
        );
    }

    #[test]
    fn a_bad_name_lists_the_choices() {
        let told = named("apache", b"").unwrap_err().to_string();
        assert!(told.contains("logfmt"), "{told}");
        assert!(named("regex:(", b"").is_err());
        assert!(
            named("regex:x", b"")
                .unwrap_err()
                .to_string()
                .contains("named group")
        );
    }
}
