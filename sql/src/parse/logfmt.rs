//! logfmt: `level=info msg="it \"works\"" took=12`.

use std::{borrow::Cow, collections::HashMap};

use memchr::{memchr, memchr2};
use model::table::Column;

use super::{Parser, Value};

pub(super) struct Logfmt {
    places: HashMap<Vec<u8>, usize>,
    /// The keys by place.
    keys: Vec<Vec<u8>>,
}

impl Logfmt {
    pub(super) fn new(columns: &[Column]) -> Self {
        let keys: Vec<Vec<u8>> = columns
            .iter()
            .map(|column| column.name.clone().into_bytes())
            .collect();
        let places = keys.iter().cloned().enumerate().map(|(place, key)| (key, place));
        Self {
            places: places.collect(),
            keys,
        }
    }
}

/// Calls `each` with the keys and values of a line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn pairs<'a>(line: &'a [u8], mut each: impl FnMut(&'a [u8], Value<'a>)) -> Result<(), String> {
    // A key alone is true.
    let alone = || Some(Cow::Borrowed(&b"true"[..]));
    words(line, |key, value| each(key, value.unwrap_or_else(alone)))
}

/// Calls `each` with the keys of a line and what stands behind their `=`; none for a key alone.
fn words<'a>(line: &'a [u8], mut each: impl FnMut(&'a [u8], Option<Value<'a>>)) -> Result<(), String> {
    let mut rest = line.trim_ascii();
    if memchr(b'=', rest).is_none() {
        return Err("there is no key=value in it".into());
    }
    while !rest.is_empty() {
        let end = memchr2(b'=', b' ', rest).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        if key.is_empty() {
            return Err("a key is missing before =".into());
        }
        let Some(value) = behind.strip_prefix(b"=") else {
            each(key, None);
            rest = behind.trim_ascii_start();
            continue;
        };
        if let Some(inside) = value.strip_prefix(b"\"") {
            let (value, behind) = unquote(inside).ok_or("a closing quote is missing")?;
            each(key, Some(Some(value)));
            rest = behind.trim_ascii_start();
        } else {
            let end = memchr(b' ', value).unwrap_or(value.len());
            let given = Some(Cow::Borrowed(&value[..end])).filter(|value| !value.is_empty());
            each(key, Some(given));
            rest = value[end..].trim_ascii_start();
        }
    }
    Ok(())
}

/// Whether most words of a line are pairs whose keys look like names, as in no other text.
pub(crate) fn is_dense(line: &[u8]) -> bool {
    let is_name = |key: &[u8]| {
        let first = key
            .first()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || b"_@".contains(byte));
        let further = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-/@".contains(byte);
        first && key.iter().all(further)
    };
    let (mut all, mut dense) = (0, 0);
    let parsed = words(line, |key, value| {
        all += 1;
        dense += usize::from(value.is_some() && is_name(key));
    });
    parsed.is_ok() && dense * 4 >= all * 3
}

fn unquote(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut value = Cow::Borrowed(&text[..0]);
    let mut at = 0;
    loop {
        let next = at + memchr2(b'"', b'\\', &text[at..])?;
        if text[next] == b'"' {
            let behind = &text[next + 1..];
            return Some(match value {
                Cow::Borrowed(_) => (Cow::Borrowed(&text[..next]), behind),
                Cow::Owned(mut value) => {
                    value.extend_from_slice(&text[at..next]);
                    (Cow::Owned(value), behind)
                }
            });
        }
        let meant = match *text.get(next + 1)? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            other => other,
        };
        let value = value.to_mut();
        value.extend_from_slice(&text[at..next]);
        value.push(meant);
        at = next + 2;
    }
}

impl Parser for Logfmt {
    fn parse<'a>(&mut self, line: &'a [u8], row: &mut [Value<'a>]) -> Result<(), String> {
        // Lines of one program mostly have the same keys in the same order.
        let mut next = 0;
        pairs(line, |key, value| {
            let place = match self.keys.get(next) {
                Some(expected) if expected == key => Some(next),
                _ => self.places.get(key).copied(),
            };
            if let Some(place) = place {
                row[place] = value;
                next = place + 1;
            }
        })
    }
}
