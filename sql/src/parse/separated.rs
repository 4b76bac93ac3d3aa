//! Values with a separator between them, quoted as RFC 4180 has it.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::{Parser, Value};
use crate::Error;

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

    /// Calls `each` with the values of a line, in their order.
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
                let end = memchr2(self.separator, b'\n', rest).unwrap_or(rest.len());
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

fn unquote(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = memchr(b'"', text)?;
    if text.get(end + 1) != Some(&b'"') {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
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
