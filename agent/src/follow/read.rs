//! Reading what has come, record by record, into the open blocks.

use std::{sync::Arc, time::Duration};

use model::Name;
use tracing::warn;

use super::{Follower, MOST_READY, Now};
use crate::{
    block::{OpenBlock, Pushed},
    content::End,
    records::Records,
    stream::{Place, Stream},
};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;
/// Bytes of one file before it is the turn of the next.
const TURN_BYTES: u64 = 8 << 20;

/// What to do with the bytes that were read.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// So many go into the open block.
    Push(usize),
    /// The same, and the block is cut behind them: they do not end with a line feed.
    PushAndCut(usize),
    /// The next record has room in an empty block only.
    Cut,
    /// The record is longer than what was read.
    ReadMore,
    /// Nothing is whole; what is left waits.
    Rest,
}

/// How a file is to be read now.
struct Reading {
    end: End,
    /// What is left at the end of the file counts as a record.
    is_settled: bool,
    /// The same where it ends with a line feed.
    is_settled_lines: bool,
}

impl Follower {
    /// Reads from each file that has more, until there is nothing more to read or no room. True where there is more.
    pub(super) fn read(&mut self, now: Now) -> bool {
        let has_more = |stream: &Stream| {
            let file = stream.file.as_ref();
            file.is_some_and(|file| {
                file.end == End::More || (file.rest > 0 && self.is_settled(stream, now).1)
            })
        };
        let with_more = self
            .by_key
            .values()
            .copied()
            .filter(|number| self.streams.get(number).is_some_and(has_more));
        let mut numbers: Vec<u64> = with_more.collect();
        // Oldest first, so that a backlog comes in the order in which it was found.
        numbers.sort_unstable();
        let mut is_behind = false;
        for number in numbers {
            if !self.has_room() {
                return !self.is_spool_full;
            }
            // It may have been truncated and written anew since it was looked at.
            self.poll(number, now);
            is_behind |= self.read_stream(number, now);
        }
        self.has_room();
        is_behind
    }

    /// Whether blocks may be filled; tells when the spool is full, and when it is not any more.
    pub(super) fn has_room(&mut self) -> bool {
        let is_full = self.spool.bytes() >= self.spool_bytes;
        if is_full != self.is_spool_full {
            self.is_spool_full = is_full;
            if is_full {
                warn!(
                    bytes = self.spool_bytes,
                    "the spool is full: nothing is read until blocks are acknowledged"
                );
            } else {
                warn!("the spool has room again: reading goes on");
            }
        }
        !is_full && self.ready.len() < MOST_READY
    }

    /// Whether there is room for a dataset: one that the mill does not take must not fill the spool of the others.
    pub(super) fn has_room_for(&self, dataset: &Name) -> bool {
        let share = match self.datasets {
            0 | 1 => self.spool_bytes,
            _ => self.spool_bytes / 2,
        };
        !self.spool.is_held(dataset) && self.spool.bytes_of(dataset) < share
    }

    /// Whether what is left at the end of a file is taken as it is, in general and where it ends with a line feed.
    fn is_settled(&self, stream: &Stream, now: Now) -> (bool, bool) {
        let Some(file) = &stream.file else {
            return (false, false);
        };
        let is_live = file.place == Place::Matched && !file.is_compressed && !stream.was_renamed();
        let wait = match () {
            () if self.once => Duration::ZERO,
            () if is_live => self.timing.unended,
            () => self.timing.unended_rotated,
        };
        let still = now.at.saturating_sub(file.changed);
        (still >= wait, still >= wait.min(self.age))
    }

    /// Reads one file for its turn; true where it has more.
    fn read_stream(&mut self, number: u64, now: Now) -> bool {
        let Some(mut stream) = self.streams.remove(&number) else {
            return false;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let is_behind = self.read_turn(number, &mut stream, &mut buffer, now);
        self.buffer = buffer;
        self.streams.insert(number, stream);
        is_behind
    }

    fn read_turn(&mut self, number: u64, stream: &mut Stream, buffer: &mut Vec<u8>, now: Now) -> bool {
        let dataset = stream.dataset.clone();
        let placement = self.keeping.placement(&self.host, &stream.born, number);
        let turn_end = stream.offset + TURN_BYTES;
        let mut most = READ_BYTES.min(self.block_bytes);
        while stream.offset < turn_end {
            if !self.has_room() {
                return true;
            }
            if !self.has_room_for(&dataset) {
                return false;
            }
            if let Err(error) = super::scan::reopened(stream, self.paths.links()) {
                warn!(path = &*stream.path, "can't be read now: {error}");
                return false;
            }
            let (is_settled, is_settled_lines) = self.is_settled(stream, now);
            let Some(file) = &mut stream.file else {
                return false;
            };
            let Some(content) = &mut file.content else {
                return false;
            };
            let end = match content.read_at(stream.offset, most, buffer) {
                Ok(end) => end,
                Err(error) => {
                    warn!(path = &*stream.path, "can't be read now: {error}");
                    file.end = End::Here;
                    return false;
                }
            };
            let reading = Reading {
                end,
                is_settled,
                is_settled_lines,
            };
            let block = self.open.entry(dataset.clone()).or_insert_with(OpenBlock::new);
            if block.is_elsewhere(placement.as_ref()) {
                self.cut_with(number, stream, &dataset);
                continue;
            }
            block.place(placement.clone());
            match next_step(&self.records, block, self.block_bytes, buffer, &reading) {
                Step::Push(length) => self.push(number, stream, &buffer[..length], now),
                Step::PushAndCut(length) => {
                    self.push(number, stream, &buffer[..length], now);
                    self.cut_with(number, stream, &dataset);
                }
                Step::Cut => self.cut_with(number, stream, &dataset),
                Step::ReadMore => most = (most * 4).min(self.block_bytes),
                Step::Rest => {
                    rest(stream, buffer.len() as u64, reading.end);
                    return false;
                }
            }
        }
        true
    }

    fn push(&mut self, number: u64, stream: &mut Stream, bytes: &[u8], now: Now) {
        let pushed = Pushed {
            stream: number,
            host: &self.host,
            path: &stream.path,
            offset: stream.offset,
            bytes,
        };
        let block = self
            .open
            .entry(stream.dataset.clone())
            .or_insert_with(OpenBlock::new);
        block.push(&pushed, (now.at, now.wall_ms));
        if bytes.last() != Some(&b'\n') && bytes.len() >= self.block_bytes {
            warn!(
                path = &*stream.path,
                offset = stream.offset,
                "a line is longer than a block and is cut"
            );
        }
        stream.advance(bytes);
        self.spool.announce(&stream.dataset, bytes.len() as u64);
        if block.len() >= self.block_bytes || block.has_most_runs() {
            let dataset = stream.dataset.clone();
            self.cut_with(number, stream, &dataset);
        }
    }

    /// Cuts the open block while a stream is out of the map.
    fn cut_with(&mut self, number: u64, stream: &Stream, dataset: &Name) {
        let streams = &self.streams;
        let position = |other: u64| match other == number {
            true => Some(stream.position(number)),
            false => Some(streams.get(&other)?.position(other)),
        };
        if let Some(block) = self
            .open
            .get_mut(dataset)
            .and_then(|block| block.cut(dataset, position))
        {
            self.ready.push_back(block);
        }
    }
}

/// The end of a file is reached, with so many bytes that make no record.
fn rest(stream: &mut Stream, rest: u64, end: End) {
    let path = Arc::clone(&stream.path);
    let Some(file) = &mut stream.file else { return };
    match &end {
        End::Broken(why) if file.end != end => warn!(path = &*path, "the rest is not read: {why}"),
        _ => {}
    }
    file.end = if end == End::More { End::Here } else { end };
    file.rest = rest;
}

/// What to do with `bytes`, which begin with a record.
fn next_step(
    records: &Records,
    block: &OpenBlock,
    block_bytes: usize,
    bytes: &[u8],
    reading: &Reading,
) -> Step {
    let room = block_bytes.saturating_sub(block.len());
    let whole = records.end(bytes, room);
    if whole > 0 {
        return Step::Push(whole);
    }
    if records.end(bytes, block_bytes) > 0 {
        return Step::Cut;
    }
    if bytes.len() >= block_bytes {
        return match block.is_empty() {
            true => forced(Records::forced_end(bytes, block_bytes), bytes),
            false => Step::Cut,
        };
    }
    match &reading.end {
        End::More => Step::ReadMore,
        End::Here if bytes.is_empty() => Step::Rest,
        End::Here => {
            let ends_well = bytes.last() == Some(&b'\n');
            let settled = reading.is_settled || (reading.is_settled_lines && ends_well);
            match (settled, bytes.len() <= room) {
                (false, _) => Step::Rest,
                (true, false) => Step::Cut,
                (true, true) => forced(bytes.len(), bytes),
            }
        }
        End::Midst | End::Broken(_) => Step::Rest,
    }
}

/// Records of single lines never come here with a line feed; those of several may.
fn forced(length: usize, bytes: &[u8]) -> Step {
    match bytes[..length].last() {
        Some(b'\n') => Step::Push(length),
        _ => Step::PushAndCut(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(filled: usize, bytes: &[u8], end: End, is_settled: bool) -> Step {
        let mut block = OpenBlock::new();
        if filled > 0 {
            let (host, path) = (Arc::from("h"), Arc::from("p"));
            let pushed = Pushed {
                stream: 9,
                host: &host,
                path: &path,
                offset: 0,
                bytes: &vec![b'\n'; filled],
            };
            block.push(&pushed, (Duration::ZERO, 0));
        }
        let reading = Reading {
            end,
            is_settled,
            is_settled_lines: is_settled,
        };
        next_step(&Records::default(), &block, 10, bytes, &reading)
    }

    #[test]
    fn blocks_end_with_whole_lines() {
        assert_eq!(step(0, b"ab\ncd\nef", End::Here, false), Step::Push(6));
        assert_eq!(step(7, b"ab\ncd\nef", End::Here, false), Step::Push(3));
        assert_eq!(step(8, b"ab\ncd\nef", End::Here, false), Step::Cut);
        assert_eq!(step(0, b"ab", End::Here, false), Step::Rest);
        assert_eq!(step(0, b"ab", End::More, true), Step::ReadMore);
        assert_eq!(step(0, b"", End::Here, true), Step::Rest);
    }

    #[test]
    fn what_does_not_end_is_cut_alone() {
        assert_eq!(step(0, b"0123456789", End::More, false), Step::PushAndCut(10));
        assert_eq!(step(1, b"0123456789", End::More, false), Step::Cut);
        assert_eq!(step(0, b"ab", End::Here, true), Step::PushAndCut(2));
        assert_eq!(step(9, b"ab", End::Here, true), Step::Cut);
        assert_eq!(step(0, b"ab", End::Midst, true), Step::Rest);
    }
}
