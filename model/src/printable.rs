//! Text from elsewhere, such as the lines of a log, made fit for a terminal: what would steer it is written out.

use std::{borrow::Cow, fmt::Write as _, str::from_utf8};

/// A text in which each control character is written out (`\n`, `\t`, `\x1b`), so that it stays on its line.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    text.chars().for_each(|c| push(&mut shown, c));
    Cow::Owned(shown)
}

/// As [`on_one_line`], but lines end and tabs stay.
pub fn in_lines(text: &str) -> Cow<'_, str> {
    if !text.contains(is_steering) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let ends_line = c == '\r' && characters.peek() == Some(&'\n');
        if is_steering(c) && !ends_line {
            push(&mut shown, c);
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

fn is_steering(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

fn push(to: &mut String, c: char) {
    match c {
        '\n' => to.push_str("\\n"),
        '\r' => to.push_str("\\r"),
        '\t' => to.push_str("\\t"),
        // Writing to a string cannot fail.
        c if c.is_control() => write!(to, "\\x{:02x}", u32::from(c)).unwrap_or_default(),
        c => to.push(c),
    }
}

/// Bytes that come in pieces, as [`in_lines`] of them; what is no UTF-8 is written out too.
#[derive(Debug, Default)]
pub struct Pieces {
    /// The beginning of a character or of the end of a line.
    held: Vec<u8>,
}

impl Pieces {
    /// What can be printed with this piece.
    pub fn next(&mut self, piece: &[u8]) -> String {
        self.held.extend_from_slice(piece);
        let mut ready = self.held.len();
        if let Some(begun) = self.held.utf8_chunks().last().map(|last| last.invalid())
            && from_utf8(begun).is_err_and(|error| error.error_len().is_none())
        {
            ready -= begun.len();
        } else if self.held.ends_with(b"\r") {
            ready -= 1;
        }
        let rest = self.held.split_off(ready);
        let text = printed(&self.held);
        self.held = rest;
        text
    }

    /// What is left of the last piece.
    pub fn end(self) -> String {
        printed(&self.held)
    }
}

fn printed(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&in_lines(chunk.valid()));
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").unwrap_or_default();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out() {
        for (text, one_line, lines) in [
            ("plain, ä", "plain, ä", "plain, ä"),
            ("\u{1b}]0;title\u{7}", "\\x1b]0;title\\x07", "\\x1b]0;title\\x07"),
            ("a\tb\r\nc\n", "a\\tb\\r\\nc\\n", "a\tb\r\nc\n"),
            ("over\rwritten", "over\\rwritten", "over\\rwritten"),
            ("\u{9b}31m\u{7f}\0", "\\x9b31m\\x7f\\x00", "\\x9b31m\\x7f\\x00"),
        ] {
            assert_eq!(on_one_line(text), one_line, "{text:?}");
            assert_eq!(in_lines(text), lines, "{text:?}");
        }
    }

    #[test]
    fn pieces_may_end_anywhere() {
        let bytes = b"a\xc3\xa4\xc2\x9b1m\r\n\xff\r\xe2\x82";
        let whole = "aä\\x9b1m\r\n\\xff\\r\\xe2\\x82";
        for cut in 0..=bytes.len() {
            let mut pieces = Pieces::default();
            let (one, other) = bytes.split_at(cut);
            let shown = pieces.next(one) + &pieces.next(other) + &pieces.end();
            assert_eq!(shown, whole, "cut at {cut}");
        }
    }
}
