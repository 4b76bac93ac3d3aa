//! What the lines of a file are, from the first of them.

use std::collections::BTreeMap;

use model::table::{Column, ColumnType, EVERYWHERE, Format, Table};
use serde_json::{Map, Value};

pub(crate) use self::evidence::{Evidence, failing, weigh};
use crate::{
    Error, formats,
    parse::{fixed_columns, json::DOT, logfmt, pattern::Pattern, separated::Separated},
    time::is_stamp,
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
/// `text:joined`, `raw`, `regex:…` or one of the [known](crate::formats).
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
        _ => match (name.strip_prefix("regex:"), formats::find(name)) {
            (Some(pattern), _) => {
                Pattern::new(pattern)?;
                Format::Regex {
                    pattern: pattern.to_string(),
                }
            }
            (None, Some(definition)) => definition.format(),
            (None, None) => {
                return Err(Error::BadFormat(format!(
                    "{name:?} is none of access, json, logfmt, syslog, syslog5424, csv, tsv, parquet, text, text:joined, raw, \
                     regex:PATTERN, and none of those that `sawmill dataset formats` lists"
                )));
            }
        },
    })
}

/// The table of lines in a named format; some have columns that only their lines tell.
///
/// # Errors
/// [`Error::BadFormat`].
pub fn named(name: &str, sample: &[u8]) -> Result<Detected, Error> {
    let lines = lines(sample);
    let format = match format(name)? {
        Format::Text { joined, .. } => text::Counted::of(&lines).format(joined),
        format => format,
    };
    let table = match formats::find(name) {
        Some(definition) => definition.table(&lines),
        None => table(&format, &lines),
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

/// What the values of a column have been so far.
#[derive(Clone, Copy, Default)]
struct Seen {
    kind: Option<ColumnType>,
}

impl Seen {
    fn value(&mut self, text: &[u8], quoted: bool) {
        let kind = if quoted { of_text(text) } else { of_bare(text) };
        self.kind = Some(match (self.kind, kind) {
            (None, kind) => kind,
            (Some(before), kind) if before == kind => kind,
            (Some(ColumnType::Integer | ColumnType::Float), ColumnType::Integer | ColumnType::Float) => {
                ColumnType::Float
            }
            _ => ColumnType::Text,
        });
    }
}

fn of_text(text: &[u8]) -> ColumnType {
    if is_stamp(text) {
        ColumnType::Timestamp
    } else {
        ColumnType::Text
    }
}

fn of_bare(text: &[u8]) -> ColumnType {
    let Ok(text) = std::str::from_utf8(text) else {
        return ColumnType::Text;
    };
    let number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    if number && text.parse::<i64>().is_ok() {
        ColumnType::Integer
    } else if number && text.parse::<f64>().is_ok() {
        ColumnType::Float
    } else if matches!(text, "true" | "false") {
        ColumnType::Boolean
    } else {
        of_text(text.as_bytes())
    }
}

fn table(format: &Format, lines: &[&[u8]]) -> Option<Table> {
    let columns = match fixed_columns(format) {
        Some(fixed) => fixed,
        None => seen(format, lines)?.into_iter().map(Column::from).collect(),
    };
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
    let column = |(name, Seen { kind }): (String, Seen)| SeenColumn { name, kind };
    seen.into_iter().filter(free).map(column).collect()
}

fn is_everywhere(name: &str) -> bool {
    EVERYWHERE.iter().any(|(known, _)| *known == name)
}

/// Columns that are found by their place: a name that is taken gets a number behind it.
fn columns_in_place(seen: impl IntoIterator<Item = (String, Seen)>) -> Vec<SeenColumn> {
    let mut columns: Vec<SeenColumn> = Vec::new();
    for (given, Seen { kind }) in seen {
        let taken = |name: &str| is_everywhere(name) || columns.iter().any(|column| column.name == name);
        let mut name = given.clone();
        let mut number = 2;
        while taken(&name) {
            name = format!("{given}_{number}");
            number += 1;
        }
        columns.push(SeenColumn { name, kind });
    }
    columns
}

fn json_columns(lines: &[&[u8]]) -> Option<Vec<SeenColumn>> {
    fn visit(seen: &mut BTreeMap<String, Seen>, path: &str, object: &Map<String, Value>) {
        for (key, value) in object {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}{DOT}{key}")
            };
            match value {
                Value::Object(inner) => visit(seen, &path, inner),
                Value::Null => drop(seen.entry(path).or_default()),
                Value::String(text) => seen.entry(path).or_default().value(text.as_bytes(), true),
                Value::Array(_) => seen.entry(path).or_default().kind = Some(ColumnType::Text),
                other => seen
                    .entry(path)
                    .or_default()
                    .value(other.to_string().as_bytes(), false),
            }
        }
    }
    let mut seen = BTreeMap::new();
    for line in lines {
        if let Ok(object) = serde_json::from_slice::<Map<String, Value>>(line) {
            visit(&mut seen, "", &object);
        }
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
    for line in rest {
        let mut place = 0;
        let _ = separated.values(line, |value| {
            if let (Some(value), Some((_, seen))) = (value, seen.get_mut(place)) {
                seen.value(&value, false);
            }
            place += 1;
        });
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
        Some((name, kind)) => (name.to_string(), Seen { kind: Some(kind) }),
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
        let names = |sample: &str| {
            found(sample)
                .1
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("a,a,_raw,a_2\n1,2,3,4\n"), ["a", "a_2", "_raw_2", "a_2_2"]);
        assert_eq!(names("{\"_line\":1,\"b\":2}\n"), ["b"]);
        assert_eq!(names("_error=x b=2\n"), ["b"]);
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
