//! Whether the first line of separated values names them.

use std::collections::HashSet;

use datafusion::arrow::array::{AsArray, StringViewArray};
use model::table::{Column, ColumnType, Format, Table};

use super::{Evidence, records};
use crate::{BlockRows, Origin, parse::separated::Separated, time::Clock, types::is_value};

/// The name of a column is rarely longer.
const MOST_NAME_BYTES: usize = 64;
/// Or has more words.
const MOST_NAME_WORDS: usize = 5;

/// What speaks for a header and rows below it; none where nothing does, so that taking the first line for one would lose
/// it.
pub(super) fn evidence(separator: char, sample: &[u8]) -> Option<Evidence> {
    let format = Format::Separated { separator };
    let lines = records(&format, sample);
    let (header, below) = lines.split_first()?;
    let names = cells(separator, header)?;
    if names.len() < 2 || !are_names(&names) || is_within_stamps(separator, below) {
        return None;
    }
    // The values as they stand.
    let column = |name: &String| Column {
        name: name.clone(),
        kind: ColumnType::Text,
    };
    let table = Table {
        format,
        columns: names.iter().map(column).collect(),
        least: None,
    };
    let places: Vec<usize> = (0..names.len()).collect();
    let origin = Origin {
        block: 0,
        begins_file: true,
        now_us: 0,
    };
    let rows = BlockRows::parse(&table, &lines.join(&b'\n'), &places, origin).ok()?;
    let of = usize::try_from(rows.tally.rows).ok()?;
    let fit = of - usize::try_from(rows.tally.errors).ok()?;
    let columns: Vec<Vec<&StringViewArray>> = places
        .iter()
        .map(|&place| {
            rows.batches
                .iter()
                .map(|batch| batch.column(place).as_string_view())
                .collect()
        })
        .collect();
    let values = |place: usize| columns[place].iter().flat_map(|array| array.iter().flatten());
    // What repeats the header is no row; more often than files begin, it is none.
    let repeated = below.len().saturating_sub(of);
    if of == 0 || (repeated > 1 && repeated * 20 > of) {
        return None;
    }
    let unlike = |(place, name): (usize, &String)| is_unlike(name, values(place));
    let told_by_values = names.iter().enumerate().any(unlike);
    // Of text alone, a column tells that has few values, again and again, and its name is none of them.
    let told_by_names = || {
        let is_strange = |(place, name): (usize, &String)| values(place).all(|value| value != name);
        let has_few = |place: &usize| values(*place).collect::<HashSet<_>>().len() * 3 <= of;
        names.iter().all(|name| is_plain_name(name))
            && names.iter().enumerate().all(is_strange)
            && places.iter().any(has_few)
    };
    (told_by_values || told_by_names()).then_some(Evidence { fit, of })
}

/// Whether what should separate stands within the time stamps of most lines: `10:00:07,123 INFO …` behind a banner.
fn is_within_stamps(separator: char, rows: &[&[u8]]) -> bool {
    let mut clock = Clock::new(None);
    let mut is_within = |row: &&&[u8]| {
        let bare = row.strip_prefix(b"[").unwrap_or(row);
        let stamp = clock.read(bare).and_then(|(_, length)| bare.get(..length));
        stamp.is_some_and(|stamp| stamp.iter().any(|&byte| char::from(byte) == separator))
    };
    rows.iter().filter(|row| is_within(row)).count() * 2 > rows.len()
}

/// The values of a line.
fn cells(separator: char, line: &[u8]) -> Option<Vec<String>> {
    let mut cells = Vec::new();
    let separated = Separated::new(separator).ok()?;
    let each = |value: crate::parse::Value<'_>| {
        cells.push(
            value
                .map(|value| String::from_utf8_lossy(&value).trim().to_string())
                .unwrap_or_default(),
        );
    };
    separated.values(line, each).ok()?;
    Some(cells)
}

/// Whether these can be the names of columns: none twice, none a value, and but the last none empty.
fn are_names(names: &[String]) -> bool {
    let mut seen = HashSet::new();
    let given = names.iter().filter(|name| !name.is_empty()).count();
    let is_name = |name: &&String| {
        name.len() <= MOST_NAME_BYTES
            && name.split_whitespace().count() <= MOST_NAME_WORDS
            && name.starts_with(|first: char| first.is_alphabetic() || "_#@$\"".contains(first))
            && !name.contains(['=', '[', '{'])
            && !is_value(name.as_bytes())
    };
    given * 2 > names.len()
        && names
            .iter()
            .filter(|name| !name.is_empty())
            .all(|name| is_name(&name) && seen.insert(name))
}

/// One word, as programs name columns.
fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "_.-#@$".contains(c);
    !name.is_empty() && name.chars().all(plain)
}

/// Whether the values of a column are of another kind than its name: nearly all numbers, times or the like.
fn is_unlike<'a>(name: &str, values: impl Iterator<Item = &'a str>) -> bool {
    let (mut all, mut unlike) = (0, 0);
    for value in values.map(str::trim).filter(|value| *value != name) {
        all += 1;
        let is_other = value.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-' || c == '$')
            || is_value(value.as_bytes());
        unlike += usize::from(is_other);
    }
    let digits = |text: &str| text.bytes().any(|byte| byte.is_ascii_digit());
    all > 0 && unlike * 10 >= all * 9 && (!digits(name) || !is_value(name.as_bytes()))
}
