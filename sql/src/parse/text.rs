//! Any text: the time stamp and the level at the beginning of a line, and the message behind them.
//!
//! There is nothing that a line must have, so none is broken but by NUL bytes in front of it. Values go straight into the columns.

use memchr::{memchr, memrchr};
use model::table::{ColumnType, Format};

use self::head::{Head, Heads};
use super::beginning;
use crate::decode::{Sink, without_return};

pub(crate) mod head;
mod level;

pub(crate) const COLUMNS: [(&str, ColumnType); 3] = [
    ("time", ColumnType::Timestamp),
    ("level", ColumnType::Text),
    ("message", ColumnType::Text),
];

const TIME: usize = 0;
const LEVEL: usize = 1;
const MESSAGE: usize = 2;

/// A record that is longer is cut at the end of a line.
const MOST_RECORD_BYTES: usize = 1 << 20;

/// How the lines of a table of text become records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    /// Whether lines without a time stamp belong to the record above them.
    pub(crate) joined: bool,
    /// The moment near which times without a year are; none where stamps have a year.
    pub(crate) yearless_now: Option<i64>,
}

impl Text {
    /// None for another format.
    pub(crate) fn of(format: &Format, now_us: i64) -> Option<Self> {
        match *format {
            Format::Text { joined, yearless } => Some(Self {
                joined,
                yearless_now: yearless.then_some(now_us),
            }),
            _ => None,
        }
    }

    /// How many bytes of some lines are whole records: behind the last of them there may be more of it.
    pub(crate) fn whole(self, lines: &[u8]) -> usize {
        if !self.joined {
            return lines.len();
        }
        let mut heads = Heads::new(self.yearless_now);
        let mut end = lines.len().saturating_sub(1);
        while let Some(feed) = memrchr(b'\n', &lines[..end]) {
            if heads.begins_record(&lines[feed + 1..end]) {
                return feed + 1;
            }
            end = feed;
        }
        match lines.len() {
            bytes if bytes > MOST_RECORD_BYTES => bytes,
            _ => 0,
        }
    }
}

/// Reads all lines.
pub(crate) fn scan(lines: &[u8], text: Text, sink: &mut Sink<'_>) {
    let mut scan = Scan {
        lines,
        // Checked once, so that its parts, which end at ASCII characters, need no check.
        text: simdutf8::basic::from_utf8(lines).ok(),
        heads: Heads::new(text.yearless_now),
        is_read: [TIME, LEVEL, MESSAGE].iter().any(|&place| sink.looks_at(place)),
        sink,
    };
    if text.joined {
        scan.records();
    } else {
        scan.lines();
    }
}

struct Scan<'a, 's, 't> {
    lines: &'a [u8],
    text: Option<&'a str>,
    heads: Heads,
    /// Whether one of the columns is looked at.
    is_read: bool,
    sink: &'s mut Sink<'t>,
}

impl Scan<'_, '_, '_> {
    fn lines(&mut self) {
        let mut begin = 0;
        while begin < self.lines.len() {
            let end = self.end(begin);
            let from = self.beginning(begin, end);
            let head = match self.is_read {
                true => self.heads.read(without_return(&self.lines[from..end])),
                false => Head::default(),
            };
            self.put(from, end, head);
            begin = end + 1;
        }
    }

    fn records(&mut self) {
        let mut begin = 0;
        while begin < self.lines.len() {
            let mut end = self.end(begin);
            let from = self.beginning(begin, end);
            let head = self.heads.read(without_return(&self.lines[from..end]));
            while end + 1 < self.lines.len() {
                let next = self.end(end + 1);
                if self
                    .heads
                    .begins_record(without_return(&self.lines[end + 1..next]))
                {
                    break;
                }
                self.sink.continuation();
                end = next;
            }
            self.put(from, end, head);
            begin = end + 1;
        }
    }

    /// Where a line begins behind what does not belong to it, which is told.
    #[inline]
    fn beginning(&mut self, begin: usize, end: usize) -> usize {
        let (line, nuls) = beginning(&self.lines[begin..end]);
        if nuls > 0 {
            self.sink.nuls_before(nuls);
        }
        end - line.len()
    }

    /// Where the line that begins here ends.
    #[inline]
    fn end(&self, begin: usize) -> usize {
        memchr(b'\n', &self.lines[begin..]).map_or(self.lines.len(), |length| begin + length)
    }

    #[inline]
    fn put(&mut self, begin: usize, end: usize, head: Head) {
        let line = without_return(&self.lines[begin..end]);
        if let Some(builder) = &mut self.sink.own[TIME] {
            match head.time_us {
                Some(time) => builder.timestamp(time),
                None => builder.null(),
            }
        }
        if let Some(builder) = &mut self.sink.own[LEVEL] {
            match head.level {
                Some(level) => builder.text(level),
                None => builder.null(),
            }
        }
        if let Some(builder) = &mut self.sink.own[MESSAGE] {
            let (from, to) = (begin + head.message, begin + line.len());
            match self.text.and_then(|text| text.get(from..to)) {
                Some(text) => builder.text(text),
                None => drop(builder.value(&self.lines[from..to])),
            }
        }
        self.sink.end_of_line(line);
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Array, AsArray};
    use model::table::{EVERYWHERE, RAW, Table};

    use super::*;
    use crate::{
        block::Origin,
        decode::{Decoded, decode},
        parse::fixed_columns,
    };

    fn read(joined: bool, from: impl std::io::Read) -> Decoded {
        let format = Format::Text {
            joined,
            yearless: false,
        };
        let table = Table {
            columns: fixed_columns(&format).unwrap(),
            format,
            least: None,
        };
        let raw = EVERYWHERE.iter().position(|(name, _)| *name == RAW).unwrap();
        let origin = Origin {
            block: 0,
            begins_file: true,
            now_us: 0,
        };
        decode(&table, from, &[TIME, LEVEL, MESSAGE, 3 + raw], origin, 0).unwrap()
    }

    fn texts(decoded: &Decoded, place: usize) -> Vec<Option<&str>> {
        decoded.columns[place].array.as_string_view().iter().collect()
    }

    const TRACE: &str = "    of the block before\n2024-03-12 10:00:07 ERROR no\r\n\tat a.B\r\nCaused by: c\n2024-03-12 10:00:08 INFO yes";

    #[test]
    fn every_line_is_a_row() {
        let found = read(false, TRACE.as_bytes());
        assert_eq!(
            texts(&found, 2),
            [
                Some("    of the block before"),
                Some("no"),
                Some("\tat a.B"),
                Some("Caused by: c"),
                Some("yes")
            ]
        );
        assert_eq!(found.columns[TIME].array.null_count(), 3);
        assert!(found.broken.is_empty() && found.no_rows.is_empty());
    }

    #[test]
    fn what_a_crash_leaves_is_no_part_of_a_line() {
        let found = read(
            false,
            &b"\xef\xbb\xbf2024-03-12 10:00:07 INFO a\n\0\0\x002024-03-12 10:00:08 b\n"[..],
        );
        assert_eq!(texts(&found, 2), [Some("a"), Some("b")]);
        assert_eq!(
            (found.columns[TIME].array.null_count(), &*found.broken),
            (0, &[1][..])
        );
    }

    #[test]
    fn lines_without_a_stamp_belong_to_the_record_above() {
        let found = read(true, TRACE.as_bytes());
        assert_eq!(
            texts(&found, 2),
            [
                Some("    of the block before"),
                Some("no\r\n\tat a.B\r\nCaused by: c"),
                Some("yes")
            ]
        );
        assert_eq!(texts(&found, 1), [None, Some("ERROR"), Some("INFO")]);
        assert_eq!(
            texts(&found, 3)[1],
            Some("2024-03-12 10:00:07 ERROR no\r\n\tat a.B\r\nCaused by: c")
        );
        assert_eq!(*found.no_rows, [2, 3]);
    }

    /// Gives a few bytes at a time.
    struct Dripping<'a>(&'a [u8]);

    impl std::io::Read for Dripping<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let few = to.len().min(100_003).min(self.0.len());
            to[..few].copy_from_slice(&self.0[..few]);
            self.0 = &self.0[few..];
            Ok(few)
        }
    }

    #[test]
    fn records_stay_whole_however_they_are_read() {
        let further = format!("  {}\n", "x".repeat(90_000)).repeat(3);
        let mut text = String::new();
        for second in 0..6 {
            text += &format!("2024-03-12 10:00:0{second} INFO {second}\n{further}");
        }
        let found = read(true, Dripping(text.as_bytes()));
        assert_eq!((found.rows, found.no_rows.len()), (6, 18));
        let whole = texts(&found, 3)
            .into_iter()
            .flatten()
            .map(|record| format!("{record}\n"));
        assert_eq!(whole.collect::<String>(), text);
    }

    #[test]
    fn a_record_without_an_end_is_cut() {
        let text = "no stamp at all\n".repeat(300_000);
        let found = read(true, text.as_bytes());
        assert!(found.rows > 1 && found.rows < 10, "{}", found.rows);
        assert_eq!(found.rows as usize + found.no_rows.len(), 300_000);
    }
}
