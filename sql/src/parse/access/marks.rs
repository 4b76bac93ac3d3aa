//! Where the quotes and the ends of the lines are: sixteen bytes at a time, in the manner of Geoff Langdale and Daniel
//! Lemire, "Parsing Gigabytes of JSON per Second".

use wide::u8x16;

/// Bytes looked at in one go, one bit each.
const WINDOW: usize = 64;

/// Finds quotes and line feeds, one after the other.
pub(super) struct Marks<'a> {
    text: &'a [u8],
    /// Where the window begins.
    base: usize,
    /// The marks of the window that are still to be given.
    left: u64,
}

impl<'a> Marks<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            base: 0,
            left: window(text, 0),
        }
    }

    /// Place of the next mark; the length of the text at its end.
    #[inline]
    pub(super) fn next(&mut self) -> usize {
        while self.left == 0 {
            self.base += WINDOW;
            if self.base >= self.text.len() {
                self.base = self.text.len();
                return self.base;
            }
            self.left = window(self.text, self.base);
        }
        let place = self.base + self.left.trailing_zeros() as usize;
        self.left &= self.left - 1;
        place
    }
}

#[inline]
fn window(text: &[u8], base: usize) -> u64 {
    if let Some(bytes) = text
        .get(base..base + WINDOW)
        .and_then(|bytes| bytes.first_chunk::<WINDOW>())
    {
        return marks(bytes);
    }
    let rest = text.get(base..).unwrap_or_default();
    let mut padded = [0; WINDOW];
    padded[..rest.len()].copy_from_slice(rest);
    marks(&padded)
}

#[inline]
fn marks(bytes: &[u8; WINDOW]) -> u64 {
    let (quote, line_feed) = (u8x16::splat(b'"'), u8x16::splat(b'\n'));
    let (parts, _) = bytes.as_chunks::<16>();
    let mut marks = 0;
    for (place, part) in parts.iter().enumerate() {
        let part = u8x16::new(*part);
        let found = part.simd_eq(quote) | part.simd_eq(line_feed);
        marks |= u64::from(found.to_bitmask()) << (16 * place);
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_marks_are_found_wherever_they_stand() {
        for length in [0, 1, 15, 16, 63, 64, 65, 200] {
            let text: Vec<u8> = (0..length)
                .map(|at| [b'x', b'"', 0xff, b'\n', 0][at * 7 % 5])
                .collect();
            let expected: Vec<usize> = (0..length)
                .filter(|&at| matches!(text[at], b'"' | b'\n'))
                .collect();
            let mut marks = Marks::new(&text);
            let found: Vec<usize> =
                std::iter::from_fn(|| Some(marks.next()).filter(|&at| at < length)).collect();
            assert_eq!(found, expected, "{length}");
            assert_eq!(marks.next(), length);
        }
    }
}
