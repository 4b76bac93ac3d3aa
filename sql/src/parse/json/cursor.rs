//! A way through the text of one JSON value, which gives numbers as they are written.
//!
//! Promise: what is taken is JSON (RFC 8259) whose text is UTF-8, whichever parts of it are looked at.

use std::borrow::Cow;

/// How deep arrays and objects may stand in each other.
const MOST_DEPTH: u32 = 128;

/// The text is not JSON.
#[derive(Debug)]
pub(crate) struct Bad;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
}

impl<'a> Cursor<'a> {
    /// # Errors
    /// For what is no UTF-8.
    pub(crate) fn new(text: &'a [u8]) -> Result<Self, Bad> {
        simdutf8::basic::from_utf8(text).map_err(|_| Bad)?;
        Ok(Self {
            text,
            at: 0,
            depth: 0,
        })
    }

    /// What the next value is.
    #[inline]
    pub(crate) fn kind(&mut self) -> Result<Kind, Bad> {
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Boolean),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(Bad),
        }
    }

    /// Goes into the object or array that is next.
    pub(crate) fn enter(&mut self) -> Result<(), Bad> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MOST_DEPTH { Err(Bad) } else { Ok(()) }
    }

    /// The name of the next member of the object that was entered, to be followed by its value; none at its end, which is
    /// passed. `first` is set before the first one.
    #[inline]
    pub(crate) fn name(&mut self, first: &mut bool) -> Result<Option<Cow<'a, [u8]>>, Bad> {
        if !self.more(b'}', first)? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(Bad);
        }
        let name = self.string()?;
        if self.peek() != Some(b':') {
            return Err(Bad);
        }
        self.at += 1;
        Ok(Some(name))
    }

    #[inline]
    fn more(&mut self, end: u8, first: &mut bool) -> Result<bool, Bad> {
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(_) if std::mem::take(first) => Ok(true),
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(Bad),
        }
    }

    /// The text of the value that is next, which is no string, as it stands but for blanks.
    pub(crate) fn written(&mut self, kind: Kind) -> Result<Cow<'a, [u8]>, Bad> {
        let from = self.at;
        self.skip(kind)?;
        Ok(self.since(from, kind))
    }

    /// Where the next value begins, for [`Cursor::since`].
    pub(crate) fn place(&self) -> usize {
        self.at
    }

    /// The text from a place on that an object or another value begins at, up to here, without blanks.
    pub(crate) fn since(&self, from: usize, kind: Kind) -> Cow<'a, [u8]> {
        let text = &self.text[from..self.at];
        match kind {
            Kind::Object | Kind::Array => compact(text),
            _ => Cow::Borrowed(text),
        }
    }

    /// Passes the value that is next.
    pub(crate) fn skip(&mut self, kind: Kind) -> Result<(), Bad> {
        match kind {
            Kind::String => self.string().map(drop),
            Kind::Number => self.number(),
            Kind::Boolean if self.text[self.at] == b't' => self.word(b"true"),
            Kind::Boolean => self.word(b"false"),
            Kind::Null => self.word(b"null"),
            Kind::Array => {
                self.enter()?;
                let mut first = true;
                while self.more(b']', &mut first)? {
                    let kind = self.kind()?;
                    self.skip(kind)?;
                }
                Ok(())
            }
            Kind::Object => {
                self.enter()?;
                let mut first = true;
                while self.name(&mut first)?.is_some() {
                    let kind = self.kind()?;
                    self.skip(kind)?;
                }
                Ok(())
            }
        }
    }

    /// The text is at its end.
    pub(crate) fn end(&mut self) -> Result<(), Bad> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(Bad),
        }
    }

    /// The string that is next, as it is meant.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Cow<'a, [u8]>, Bad> {
        let from = self.at + 1;
        let end = from + plain(&self.text[from..]);
        match self.text.get(end) {
            Some(b'"') => {
                self.at = end + 1;
                Ok(Cow::Borrowed(&self.text[from..end]))
            }
            Some(b'\\') => self.escaped(from, end).map(Cow::Owned),
            _ => Err(Bad),
        }
    }

    fn escaped(&mut self, from: usize, first: usize) -> Result<Vec<u8>, Bad> {
        let mut meant = self.text[from..first].to_vec();
        self.at = first;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(meant);
                }
                Some(b'\\') => self.escape(&mut meant)?,
                _ => return Err(Bad),
            }
            let length = plain(&self.text[self.at..]);
            meant.extend_from_slice(&self.text[self.at..self.at + length]);
            self.at += length;
        }
    }

    fn escape(&mut self, meant: &mut Vec<u8>) -> Result<(), Bad> {
        let byte = *self.text.get(self.at + 1).ok_or(Bad)?;
        self.at += 2;
        meant.push(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = self.hex()?;
                if (0xd800..0xdc00).contains(&code) && self.text[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    let low = self.hex()?.checked_sub(0xdc00).filter(|low| *low < 0x400);
                    code = 0x1_0000 + ((code - 0xd800) << 10) + low.ok_or(Bad)?;
                }
                let letter = char::from_u32(code).ok_or(Bad)?;
                meant.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(Bad),
        });
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, Bad> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(Bad)?;
        self.at += 4;
        digits.iter().try_fold(0, |sum, &digit| {
            let digit = char::from(digit).to_digit(16).ok_or(Bad)?;
            Ok(sum * 16 + digit)
        })
    }

    fn number(&mut self) -> Result<(), Bad> {
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        let first = self.at;
        if self.digits()? > 1 && self.text[first] == b'0' {
            return Err(Bad);
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Passes digits, at least one; how many.
    #[inline]
    fn digits(&mut self) -> Result<usize, Bad> {
        let from = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == from {
            Err(Bad)
        } else {
            Ok(self.at - from)
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Bad> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Bad);
        }
        self.at += word.len();
        Ok(())
    }

    /// The next byte that is no blank.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                byte => return byte.copied(),
            }
        }
    }
}

/// How many bytes come before the first quote, backslash or control character.
#[inline]
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    // The lowest bit that is set is right (Henry S. Warren, "Hacker's Delight", "Find First 0-Byte"): a borrow goes upwards.
    let less = |word: u64, than: u64| word.wrapping_sub(ONES * than) & !word & HIGH;
    let (words, _) = text.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let (quotes, escapes) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5c));
        let found = less(word, 0x20) | less(quotes, 1) | less(escapes, 1);
        if found != 0 {
            return place * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let rest = words.len() * 8;
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    text[rest..]
        .iter()
        .position(ends)
        .map_or(text.len(), |end| rest + end)
}

/// JSON without the blanks between its parts.
fn compact(text: &[u8]) -> Cow<'_, [u8]> {
    let is_blank = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    if !text.iter().any(|&byte| is_blank(byte)) {
        return Cow::Borrowed(text);
    }
    let (mut short, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((&byte, behind)) = rest.split_first() {
        let length = if byte == b'"' {
            let mut end = 0;
            loop {
                end += plain(&behind[end..]);
                match behind.get(end) {
                    Some(b'\\') => end += 2,
                    _ => break end + 2,
                }
            }
        } else {
            1
        };
        let (part, behind) = rest.split_at(length.min(rest.len()));
        if !is_blank(byte) {
            short.extend_from_slice(part);
        }
        rest = behind;
    }
    Cow::Owned(short)
}

/// Why a line is no object, for people.
#[cold]
pub(super) fn why(line: &[u8]) -> String {
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line) {
        Err(error) => format!("no JSON object: {error}"),
        Ok(_) => "no JSON object".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_json(text: &[u8]) -> bool {
        let whole = || {
            let mut cursor = Cursor::new(text)?;
            let kind = cursor.kind()?;
            cursor.skip(kind)?;
            cursor.end()
        };
        whole().is_ok()
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            " ",
            "nan",
            "NaN",
            "01",
            "-",
            "1.",
            ".5",
            "+1",
            "1e",
            "tru",
            "nulll",
            "'a'",
            "\"a",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\u00g0\"",
            "\"a\tb\"",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":}",
            "1 2",
            "{",
            "[",
            "{\"a\":1",
            "\"\\",
            "\"\\u12",
        ] {
            assert!(!is_json(text.as_bytes()), "{text}");
        }
        assert!(!is_json(b"\"\xff\""));
        assert!(is_json([b"[".repeat(128), b"]".repeat(128)].concat().as_slice()));
        assert!(!is_json([b"[".repeat(129), b"]".repeat(129)].concat().as_slice()));
    }

    #[test]
    fn strings_are_as_they_are_meant() {
        let text = r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 and a longer plain rest of it""#;
        let meant = Cursor::new(text.as_bytes())
            .unwrap()
            .string()
            .unwrap()
            .into_owned();
        let expected: String = serde_json::from_str(text).unwrap();
        assert_eq!(meant, expected.as_bytes());
    }

    #[test]
    fn blanks_between_the_parts_go() {
        let text = br#"[ 1.10 , {"a b" : "c \" d" }, "\\" ]"#;
        let mut cursor = Cursor::new(text).unwrap();
        let short = cursor.written(Kind::Array).unwrap();
        assert_eq!(&short[..], br#"[1.10,{"a b":"c \" d"},"\\"]"#);
    }

    proptest! {
        #[test]
        fn it_takes_what_serde_takes(parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "a", "\"a\"", "\"b\":", "1", "-0", "1.5e3", "0", "true", "null", " ",
            "\\u00e9", "\u{e9}", "\t",
        ]), 0..12)) {
            let text = parts.concat();
            prop_assert_eq!(is_json(text.as_bytes()), serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
