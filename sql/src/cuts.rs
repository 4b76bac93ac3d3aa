//! Where a file of separated values may be cut into blocks.

use std::ops::Range;

use crate::{Error, parse::separated::Separated};

/// Finds the ends of records in a file, and cuts at the first one at or behind each
/// multiple of a size: where a file of lines would be cut, unless a record is of several lines there.
#[derive(Debug)]
pub struct RecordCuts {
    separated: Separated,
    block_size: u64,
    /// What was given and is not looked at yet, since it is no whole record.
    rest: Vec<u8>,
    /// Where the rest begins in the file.
    at: u64,
    /// Where the block that is not cut yet begins.
    start: u64,
}

impl RecordCuts {
    /// From a place in the file on that a record begins at, for blocks of about so many bytes, at least 1.
    ///
    /// # Errors
    /// [`Error::BadFormat`] for what is no separator.
    pub fn new(separator: char, from: u64, block_size: u64) -> Result<Self, Error> {
        Ok(Self {
            separated: Separated::new(separator)?,
            block_size: block_size.max(1),
            rest: Vec::new(),
            at: from,
            start: from,
        })
    }

    /// Takes the next bytes of the file, and appends the blocks that end in them.
    pub fn push(&mut self, bytes: &[u8], blocks: &mut Vec<Range<u64>>) {
        self.rest.extend_from_slice(bytes);
        let text = std::mem::take(&mut self.rest);
        let taken = self.look_through(&text, false, blocks);
        self.rest = text;
        self.rest.drain(..taken);
    }

    /// The last block or blocks, at the end of the file.
    pub fn finish(mut self) -> Vec<Range<u64>> {
        let mut blocks = Vec::new();
        let text = std::mem::take(&mut self.rest);
        self.look_through(&text, true, &mut blocks);
        if self.start < self.at {
            blocks.push(self.start..self.at);
        }
        blocks
    }

    fn look_through(&mut self, text: &[u8], last: bool, blocks: &mut Vec<Range<u64>>) -> usize {
        let whole = match last {
            true => text.len(),
            false => memchr::memrchr(b'\n', text).map_or(0, |end| end + 1),
        };
        let mut taken = 0;
        while taken < whole
            && let Some(end) = self.separated.record(&text[taken..whole], last)
        {
            let bytes = (end.bytes + 1).min(whole - taken);
            taken += bytes;
            self.at += bytes as u64;
            let border = (self.start / self.block_size + 1).saturating_mul(self.block_size);
            if self.at >= border {
                blocks.push(self.start..self.at);
                self.start = self.at;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str, block_size: u64, step: usize) -> Vec<&str> {
        let mut cuts = RecordCuts::new(',', 0, block_size).unwrap();
        let mut ranges = Vec::new();
        for piece in text.as_bytes().chunks(step) {
            cuts.push(piece, &mut ranges);
        }
        ranges.extend(cuts.finish());
        ranges
            .iter()
            .map(|range| &text[range.start as usize..range.end as usize])
            .collect()
    }

    #[test]
    fn blocks_end_where_records_do() {
        let text = "a,b\n1,\"x\n2,y\n3,z\"\n4,w\n5,v";
        for step in [1, 3, 100] {
            assert_eq!(
                blocks(text, 8, step),
                ["a,b\n1,\"x\n2,y\n3,z\"\n", "4,w\n5,v"],
                "{step}"
            );
            assert_eq!(blocks(text, 1000, step), [text]);
        }
        assert_eq!(blocks("1,2\n3,4\n", 4, 100), ["1,2\n", "3,4\n"]);
        assert_eq!(blocks("", 4, 100), [""; 0]);
    }

    #[test]
    fn a_quote_that_is_never_closed_costs_no_block() {
        let text = "a,b\n1,\"x\n2,y\n3,z\n";
        assert_eq!(blocks(text, 4, 2), ["a,b\n", "1,\"x\n", "2,y\n", "3,z\n"]);
    }
}
