//! Values with a separator between them that a line `#Fields:` names, as IIS and CloudFront write them
//! (<https://www.w3.org/TR/WD-logfile.html>), or a line `#fields`, as Zeek does, which has the types in a line `#types`.
//!
//! The fields `date` and `time` are one column, `time`. A block that begins within a file has the fields of the table
//! until it comes to such a line.

use std::borrow::Cow;

use memchr::memchr;
use model::table::{Column, ColumnType};

use super::{Parser, Value, put};

const TIME: &str = "time";

/// Where a value goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To a column.
    Column(usize),
    /// To the column of the time, as the date of it, which is followed by the time or not.
    Date(usize),
    /// To the column of the time, behind the date that was before.
    Time(usize),
    /// To none, for the table has none.
    Nowhere,
}

pub(crate) struct Directives {
    separator: u8,
    names: Vec<String>,
    places: Vec<Place>,
}

/// The columns that a line of fields names: in lower case, and without what would have to be quoted in a query.
fn fields(line: &[u8]) -> Option<Vec<String>> {
    let names = line
        .strip_prefix(b"#Fields:")
        .or_else(|| line.strip_prefix(b"#fields\t"))?;
    let names = String::from_utf8_lossy(names).to_lowercase();
    let plain = |name: &str| {
        let words = name.split(|c: char| !c.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        words.join("_")
    };
    Some(names.split_whitespace().map(plain).collect())
}

/// What the fields hold, where a line tells.
fn types(line: &[u8]) -> Option<Vec<ColumnType>> {
    let types = String::from_utf8_lossy(line.strip_prefix(b"#types\t")?);
    let kind = |name: &str| match name {
        "time" => ColumnType::Timestamp,
        "count" | "int" | "port" => ColumnType::Integer,
        "double" | "interval" => ColumnType::Float,
        _ => ColumnType::Text,
    };
    Some(types.split('\t').map(kind).collect())
}

/// What a field of a common name holds.
fn kind(name: &str) -> ColumnType {
    match name {
        TIME => ColumnType::Timestamp,
        "s_port" | "c_port" | "sc_status" | "sc_substatus" | "sc_win32_status" | "sc_bytes" | "cs_bytes"
        | "sc_content_len" | "bytes" => ColumnType::Integer,
        // Milliseconds of IIS, seconds of CloudFront.
        "time_taken" | "time_to_first_byte" => ColumnType::Float,
        _ => ColumnType::Text,
    }
}

/// The columns of the first line of fields.
pub(crate) fn columns(lines: &[&[u8]]) -> Option<Vec<Column>> {
    let mut names = lines.iter().find_map(|line| fields(line))?;
    if names.iter().any(|name| name == TIME) {
        names.retain(|name| name != "date");
    }
    let types = lines.iter().find_map(|line| types(line)).unwrap_or_default();
    let told = types.into_iter().map(Some).chain(std::iter::repeat(None));
    let column = |(name, told): (String, Option<ColumnType>)| Column {
        kind: told.unwrap_or_else(|| kind(&name)),
        name,
    };
    Some(names.into_iter().zip(told).map(column).collect())
}

/// Whether the lines of a new file have the fields of a table in the same places: where a block begins within the file,
/// nothing else tells them.
///
/// # Errors
/// What is named otherwise.
pub(crate) fn check_places(table: &[Column], lines: &[&[u8]]) -> Result<(), String> {
    let Some(found) = columns(lines) else {
        return Ok(());
    };
    let names = |columns: &[Column]| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        names.join(" ")
    };
    let (known, found) = (names(table), names(&found));
    if known == found {
        return Ok(());
    }
    Err(format!(
        "the fields are {found} here and {known} in the dataset, and values are found by their place: \
         add the file to a dataset of its own"
    ))
}

/// How many lines have as many values as the line of fields above them names.
pub(crate) fn fitting(separator: char, lines: &[&[u8]]) -> usize {
    let Some(table) = columns(lines) else {
        return 0;
    };
    let mut parser = Directives::new(separator, &table);
    let mut is_row = |line: &&&[u8]| {
        let mut row = vec![None; table.len()];
        !parser.passes_over(line) && parser.parse(line, &mut row).is_ok()
    };
    lines.iter().filter(|line| is_row(line)).count()
}

impl Directives {
    pub(crate) fn new(separator: char, columns: &[Column]) -> Self {
        let mut directives = Self {
            separator: u8::try_from(separator).unwrap_or(b' '),
            names: columns.iter().map(|column| column.name.clone()).collect(),
            places: Vec::new(),
        };
        // The date is a field of its own before the time, wherever the format is written.
        let places = columns.iter().enumerate().flat_map(|(place, column)| {
            if column.name == TIME {
                vec![Place::Date(place), Place::Time(place)]
            } else {
                vec![Place::Column(place)]
            }
        });
        directives.places = places.collect();
        directives
    }

    /// Takes the order of the values from a line of fields.
    fn order(&mut self, fields: &[String]) {
        let with_date = fields.iter().any(|name| name == "date");
        let place = |name: &String| {
            let wanted = if name == "date" { TIME } else { name };
            let column = self.names.iter().position(|known| known == wanted);
            match column {
                Some(column) if name == "date" => Place::Date(column),
                Some(column) if name == TIME && with_date => Place::Time(column),
                Some(column) => Place::Column(column),
                None => Place::Nowhere,
            }
        };
        self.places = fields.iter().map(place).collect();
    }
}

impl Parser for Directives {
    fn passes_over(&mut self, line: &[u8]) -> bool {
        if let Some(fields) = fields(line) {
            self.order(&fields);
        }
        line.starts_with(b"#")
    }

    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        if self.passes_over(line) {
            return Ok(());
        }
        let (mut at, mut values) = (0, 0);
        let (mut date, mut time) = (None, None);
        while at <= line.len() {
            let end = memchr(self.separator, &line[at..]).map_or(line.len(), |length| at + length);
            let value = &line[at..end];
            match self.places.get(values) {
                _ if value.is_empty() || value == b"-" => {}
                Some(Place::Column(column)) => put(row, *column, value),
                Some(Place::Date(column)) => {
                    date = Some(at);
                    put(row, *column, value);
                }
                Some(Place::Time(column)) => match date {
                    // Behind the date, as nearly everywhere: both are one piece of the line.
                    Some(from) if self.places.get(values - 1) == Some(&Place::Date(*column)) => {
                        put(row, *column, &line[from..end]);
                    }
                    _ => time = Some((*column, value)),
                },
                Some(Place::Nowhere) | None => {}
            }
            values += 1;
            at = end + 1;
        }
        if let Some((column, time)) = time {
            join(&mut row[column], time);
        }
        if values == self.places.len() {
            Ok(())
        } else {
            let named = self.places.len();
            Err(format!("it has {values} values, #Fields: names {named}"))
        }
    }
}

/// Puts the time behind a date that stands elsewhere in the line.
fn join(date: &mut Value<'_>, time: &[u8]) {
    let mut whole = date.take().map(Cow::into_owned).unwrap_or_default();
    whole.push(b' ');
    whole.extend_from_slice(time);
    *date = Some(Cow::Owned(whole));
}
