//! Where a record ends: at its line feed, or before the next line that begins a record.

use memchr::memrchr;
use regex::bytes::Regex;

/// How lines make records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    start: Option<Regex>,
}

impl Records {
    /// Of single lines, or of lines of which the first matches `start`.
    pub(crate) fn new(start: Option<Regex>) -> Self {
        Self { start }
    }

    /// The end of the last whole record within the first `limit` of `bytes`, which begin with a record; 0 for none.
    pub(crate) fn end(&self, bytes: &[u8], limit: usize) -> usize {
        let limit = limit.min(bytes.len());
        let Some(start) = &self.start else {
            return last_line_end(&bytes[..limit]);
        };
        // A line that begins a record ends the one before it, and is whole itself: half a line may match later.
        let mut line_end = last_line_end(bytes);
        while line_end > 0 {
            let line_begin = last_line_end(&bytes[..line_end - 1]);
            if line_begin == 0 {
                return 0;
            }
            if line_begin <= limit && start.is_match(&bytes[line_begin..line_end - 1]) {
                return line_begin;
            }
            line_end = line_begin;
        }
        0
    }

    /// Where to cut what has no end within `limit`, in bytes: behind a line where there is one.
    pub(crate) fn forced_end(bytes: &[u8], limit: usize) -> usize {
        let limit = limit.min(bytes.len());
        match last_line_end(&bytes[..limit]) {
            0 => limit,
            end => end,
        }
    }
}

/// Behind the last line feed; 0 without one.
fn last_line_end(bytes: &[u8]) -> usize {
    memrchr(b'\n', bytes).map_or(0, |at| at + 1)
}

/// Lines in `bytes`; what follows the last line feed is one too.
pub(crate) fn lines(bytes: &[u8]) -> u64 {
    let ended = memchr::memchr_iter(b'\n', bytes).count() as u64;
    ended + u64::from(!bytes.is_empty() && bytes.last() != Some(&b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_lines_end_at_their_line_feed() {
        let records = Records::default();
        let text = b"one\ntwo\nthr";
        let ends = [0, 3, 4, 7, 8, 11, 99].map(|limit| records.end(text, limit));
        assert_eq!(ends, [0, 0, 4, 4, 8, 8, 8]);
        assert_eq!((lines(text), lines(b"a\n"), lines(b"")), (3, 1, 0));
        assert_eq!(Records::forced_end(b"endless", 4), 4);
        assert_eq!(Records::forced_end(b"a\nbc", 4), 2);
    }

    #[test]
    fn a_record_of_several_lines_ends_where_the_next_begins() {
        let records = Records::new(Some(Regex::new(r"^\d").unwrap()));
        let text = b"1 a\n  at b\n2 c\n  at d\n3";
        assert_eq!(records.end(text, 99), 11);
        assert_eq!(records.end(text, 11), 11);
        assert_eq!(records.end(text, 10), 0);
        assert_eq!(records.end(b"1 a\n2", 99), 0);
        assert_eq!(records.end(b"1 a\n2\n", 99), 4);
        assert_eq!(records.end(b"", 99), 0);
    }
}
