//! Syslog, as BSD writes it (RFC 3164), with times as they were ever since or as RFC 3339 has them (Debian 12, Ubuntu 24.04),
//! and as RFC 5424 has it.

use memchr::memchr;
use model::table::ColumnType;

use super::{Parser, Value, put};

pub(crate) const BSD_COLUMNS: [(&str, ColumnType); 6] = [
    ("priority", ColumnType::Integer),
    ("time", ColumnType::Timestamp),
    ("host", ColumnType::Text),
    ("app", ColumnType::Text),
    ("pid", ColumnType::Text),
    ("message", ColumnType::Text),
];

pub(crate) const RFC5424_COLUMNS: [(&str, ColumnType); 8] = [
    ("priority", ColumnType::Integer),
    ("time", ColumnType::Timestamp),
    ("host", ColumnType::Text),
    ("app", ColumnType::Text),
    ("pid", ColumnType::Text),
    ("message_id", ColumnType::Text),
    ("data", ColumnType::Text),
    ("message", ColumnType::Text),
];

/// The number in angle brackets, and what is behind them.
fn priority(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = line.strip_prefix(b"<")?;
    let end = memchr(b'>', inside).filter(|&end| (1..=3).contains(&end))?;
    let number = &inside[..end];
    number
        .iter()
        .all(u8::is_ascii_digit)
        .then(|| (number, &inside[end + 1..]))
}

/// The time at the beginning of a line, and what is behind it: `Oct 11 22:14:15`, or a date of digits and a time in one
/// word.
fn bsd_time(line: &[u8]) -> Option<(&[u8], &[u8])> {
    const LENGTH: usize = 15;
    if line.first()?.is_ascii_digit() {
        let end = memchr(b' ', line).filter(|&end| end > LENGTH)?;
        return (line[4] == b'-' && line[10] == b'T').then(|| line.split_at(end));
    }
    let (time, rest) = line.split_at_checked(LENGTH)?;
    (time[3] == b' ' && time[9] == b':').then_some((time, rest))
}

pub(super) struct Bsd;

impl Parser for Bsd {
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        let mut rest = line;
        if let Some((number, behind)) = priority(line) {
            put(row, 0, number);
            rest = behind;
        }
        let (time, rest) = bsd_time(rest).ok_or("it does not begin with a time such as Oct 11 22:14:15")?;
        put(row, 1, time);
        let rest = rest.strip_prefix(b" ").ok_or("the host is missing")?;
        let end = memchr(b' ', rest).ok_or("the message is missing")?;
        put(row, 2, &rest[..end]);
        let rest = &rest[end + 1..];
        // The tag ends at a colon; without one all is message.
        let tag = memchr(b':', rest).filter(|&end| end > 0 && !rest[..end].contains(&b' '));
        let Some(end) = tag else {
            put(row, 5, rest);
            return Ok(());
        };
        let tag = &rest[..end];
        match memchr(b'[', tag).filter(|_| tag.ends_with(b"]")) {
            Some(bracket) => {
                put(row, 3, &tag[..bracket]);
                put(row, 4, &tag[bracket + 1..tag.len() - 1]);
            }
            None => put(row, 3, tag),
        }
        let message = &rest[end + 1..];
        put(row, 5, message.strip_prefix(b" ").unwrap_or(message));
        Ok(())
    }
}

pub(super) struct Rfc5424;

impl Parser for Rfc5424 {
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        let (number, rest) = priority(line).ok_or("it does not begin with a priority such as <34>")?;
        put(row, 0, number);
        let mut rest = rest.strip_prefix(b"1 ").ok_or("the version is not 1")?;
        for column in 1..=5 {
            let end = memchr(b' ', rest).ok_or("the header is cut short")?;
            if &rest[..end] != b"-" {
                put(row, column, &rest[..end]);
            }
            rest = &rest[end + 1..];
        }
        let data = structured(rest).ok_or("the structured data has no end")?;
        if &rest[..data] != b"-" {
            put(row, 6, &rest[..data]);
        }
        if let Some(message) = rest[data..].strip_prefix(b" ") {
            put(
                row,
                7,
                message.strip_prefix("\u{feff}".as_bytes()).unwrap_or(message),
            );
        }
        Ok(())
    }
}

/// Where the structured data ends: a hyphen, or elements in brackets, in which quoted values may contain brackets.
fn structured(text: &[u8]) -> Option<usize> {
    if text.first() == Some(&b'-') {
        return Some(1);
    }
    let (mut at, mut quoted) = (0, false);
    if text.first() != Some(&b'[') {
        return None;
    }
    while at < text.len() {
        match text[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b']' if !quoted && text.get(at + 1) != Some(&b'[') => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}
