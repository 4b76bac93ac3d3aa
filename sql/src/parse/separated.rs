//! Values with a separator between them, quoted as RFC 4180 has it: a value in quotes may have line feeds in it, so that a
//! record is of one or more lines.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memchr2};

use super::{Parser, Value, beginning};
use crate::Error;

/// A record in quotes of more bytes is none: its first line stands alone, and is broken. So a quote that is never closed
/// costs its line and not all behind it.
const MOST_RECORD_BYTES: usize = 1 << 20;

/// Where a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Its bytes, without the line feed behind it.
    pub(crate) bytes: usize,
    /// Its lines.
    pub(crate) lines: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Separated {
    separator: u8,
    /// Values that a line has at least; none: one for each column.
    least: Option<usize>,
}

impl Separated {
    pub(crate) fn new(separator: char) -> Result<Self, Error> {
        match u8::try_from(separator) {
            Ok(separator) if separator.is_ascii() && !matches!(separator, b'"' | b'\n' | b'\r') => Ok(Self {
                separator,
                least: None,
            }),
            _ => Err(Error::BadFormat(format!("{separator:?} is no separator"))),
        }
    }

    /// Takes lines with fewer values than columns, of files from before those were there.
    pub(crate) fn with_least(self, least: Option<usize>) -> Self {
        Self { least, ..self }
    }

    /// The record that begins here; none where more bytes must tell. `last`: there are no more.
    ///
    /// It does not depend on how many bytes there are behind it.
    #[inline]
    pub(crate) fn record(&self, text: &[u8], last: bool) -> Option<End> {
        match memchr2(b'\n', b'"', text) {
            Some(at) if text[at] == b'"' => self.quoted(text, at, last),
            end => Some(End {
                bytes: end.unwrap_or(text.len()),
                lines: 1,
            }),
        }
    }

    /// The same where the first quote is at this place.
    fn quoted(&self, text: &[u8], first: usize, last: bool) -> Option<End> {
        let line = || End {
            bytes: memchr(b'\n', text).unwrap_or(text.len()),
            lines: 1,
        };
        let begin = text.len() - beginning(text).0.len();
        let most = text.len().min(MOST_RECORD_BYTES);
        let mut at = first;
        loop {
            // Within a value a quote is a byte like any other.
            let opens = at == begin || text[at - 1] == self.separator;
            at += 1;
            if opens {
                let Some(closed) = closing(text.get(at..most).unwrap_or_default()) else {
                    let is_open = text.len() < MOST_RECORD_BYTES && !last;
                    return (!is_open).then(line);
                };
                at += closed + 1;
                match text.get(at) {
                    None | Some(b'\n') => break,
                    Some(b'\r') if matches!(text.get(at + 1), None | Some(b'\n')) => {
                        at += 1;
                        break;
                    }
                    Some(&byte) if byte == self.separator => {}
                    // What looked like a quoted value is none.
                    Some(_) => return Some(line()),
                }
            }
            match memchr2(b'\n', b'"', &text[at..]) {
                Some(next) if text[at + next] == b'"' => at += next,
                end => {
                    at = end.map_or(text.len(), |end| at + end);
                    break;
                }
            }
        }
        let feeds = memchr_iter(b'\n', &text[first..at]).count();
        Some(End {
            bytes: at,
            lines: 1 + u32::try_from(feeds).unwrap_or(u32::MAX),
        })
    }

    /// Calls `each` with the values of a record, in their order.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn values<'a>(&self, line: &'a [u8], mut each: impl FnMut(Value<'a>)) -> Result<(), String> {
        let mut rest = line;
        loop {
            let behind = if let Some(inside) = rest.strip_prefix(b"\"") {
                let (value, behind) = unquote(inside).ok_or("a closing quote is missing")?;
                each(Some(value));
                behind
            } else {
                let end = until(self.separator, rest);
                each(Some(Cow::Borrowed(&rest[..end])).filter(|value| !value.is_empty()));
                &rest[end..]
            };
            match behind.split_first() {
                None => return Ok(()),
                Some((byte, behind)) if *byte == self.separator => rest = behind,
                Some(_) => return Err("there is text behind a closing quote".into()),
            }
        }
    }
}

/// How many bytes come before a byte: mostly few, for which a call costs more than looking.
#[inline]
fn until(byte: u8, text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const NEAR: usize = 4;
    let (words, _) = text.as_chunks::<8>();
    for (place, word) in words.iter().take(NEAR).enumerate() {
        // The lowest bit that is set is right: a borrow goes upwards.
        let word = u64::from_le_bytes(*word) ^ (ONES * u64::from(byte));
        let found = word.wrapping_sub(ONES) & !word & (ONES * 0x80);
        if found != 0 {
            return place * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let rest = 8 * words.len().min(NEAR);
    memchr(byte, &text[rest..]).map_or(text.len(), |end| rest + end)
}

/// Where the quote is that closes the value that these bytes begin with.
fn closing(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += until(b'"', text.get(at..)?);
        match text.get(at..) {
            Some([b'"', b'"', ..]) => at += 2,
            Some([_, ..]) => return Some(at),
            _ => return None,
        }
    }
}

fn unquote(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = until(b'"', text);
    if text.get(end + 1) != Some(&b'"') {
        let behind = text.get(end + 1..)?;
        return Some((Cow::Borrowed(&text[..end]), behind));
    }
    let (mut value, mut rest) = (Vec::new(), text);
    loop {
        let end = memchr(b'"', rest)?;
        value.extend_from_slice(&rest[..end]);
        if rest.get(end + 1) != Some(&b'"') {
            return Some((Cow::Owned(value), &rest[end + 1..]));
        }
        value.push(b'"');
        rest = &rest[end + 2..];
    }
}

impl Parser for Separated {
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        let mut column = 0;
        self.values(line, |value| {
            if let Some(slot) = row.get_mut(column) {
                *slot = value;
            }
            column += 1;
        })?;
        if (self.least.unwrap_or(row.len())..=row.len()).contains(&column) {
            Ok(())
        } else {
            Err(format!("it has {column} values, the header names {}", row.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str) -> Vec<&str> {
        let separated = Separated::new(';').unwrap();
        let (mut rest, mut all) = (text, Vec::new());
        while !rest.is_empty() {
            let End { bytes, lines } = separated.record(rest.as_bytes(), true).unwrap();
            let feeds = rest[..bytes].matches('\n').count();
            assert_eq!(lines as usize, feeds + 1, "{text:?}");
            all.push(&rest[..bytes]);
            rest = rest.get(bytes + 1..).unwrap_or_default();
        }
        all
    }

    #[test]
    fn line_feeds_in_quotes_end_no_record() {
        for (text, expected) in [
            ("a;b\n1;2\n\n3", &["a;b", "1;2", "", "3"][..]),
            ("1;\"x\ny\";2\r\n3;4;5\n", &["1;\"x\ny\";2\r", "3;4;5"]),
            ("\"x \"\"y\n\"\"\"\n1", &["\"x \"\"y\n\"\"\"", "1"]),
            // A quote within a value is one like any other byte.
            ("5\" disk;x\n6\" disk;y\n", &["5\" disk;x", "6\" disk;y"]),
            // What is not closed as it should be costs its line alone.
            ("1;\"x\n2;\"y\"\n3;z\n", &["1;\"x", "2;\"y\"", "3;z"]),
            ("1;\"x\n2;y\n3;z", &["1;\"x", "2;y", "3;z"]),
            ("\u{feff}\"a\nb\";c\n1;2", &["\u{feff}\"a\nb\";c", "1;2"]),
        ] {
            assert_eq!(records(text), expected, "{text:?}");
        }
    }

    #[test]
    fn more_bytes_tell_where_an_open_record_ends() {
        let separated = Separated::new(',').unwrap();
        let text = b"1,\"x\ny\"\n2,z\n";
        assert_eq!(separated.record(&text[..5], false), None);
        let end = separated.record(text, false).unwrap();
        assert_eq!((end.bytes, end.lines), (7, 2));
        let long = [
            b"1,\"".to_vec(),
            b"x\n".repeat(MOST_RECORD_BYTES),
            b"\"\n".to_vec(),
        ]
        .concat();
        let line = Some(End { bytes: 4, lines: 1 });
        assert_eq!(separated.record(&long[..MOST_RECORD_BYTES - 1], false), None);
        assert_eq!(separated.record(&long[..MOST_RECORD_BYTES], false), line);
        assert_eq!(separated.record(&long, true), line);
    }
}
