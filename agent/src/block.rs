//! The open block of a dataset: whole records of many files, with where each run of them came from.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use model::{Name, origin::Origin, place::Placement};
use serde::{Deserialize, Serialize};

use crate::{content::Key, mark::Mark, records};

/// Most runs of one block: with the longest paths they make as many bytes as workers take.
pub(crate) const MOST_RUNS: usize = 3000;

/// How far a file has got, and how to know it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Number of the stream, within the state directory.
    pub(crate) stream: u64,
    pub(crate) dataset: Name,
    /// Where it was last seen.
    pub(crate) path: String,
    /// Where it was first seen: another path tells of a rotation.
    pub(crate) born: String,
    #[serde(flatten)]
    pub(crate) key: Key,
    pub(crate) head: Mark,
    pub(crate) offset: u64,
    pub(crate) tail: Mark,
}

/// A block that is being filled.
#[derive(Debug)]
pub(crate) struct OpenBlock {
    raw: Vec<u8>,
    origins: Vec<Origin>,
    /// The streams of the origins.
    streams: Vec<u64>,
    /// Where all of its files go.
    placement: Option<Placement>,
    since: Option<(Duration, i64)>,
}

/// A block that is full: what is packed and put into the spool.
#[derive(Debug)]
pub(crate) struct CutBlock {
    pub(crate) dataset: Name,
    pub(crate) raw: Vec<u8>,
    pub(crate) lines: u64,
    pub(crate) origins: Vec<Origin>,
    /// Where its files are behind it.
    pub(crate) positions: Vec<Position>,
    /// Where its lines begin in each of these.
    pub(crate) begins: Vec<u64>,
    /// The block that it has lines of once more, which the mill has lost.
    pub(crate) rebuilds: Option<u64>,
    /// When its first line was read, in milliseconds since 1970 UTC.
    pub(crate) read_ms: i64,
}

/// Records of a stream, as they are pushed.
pub(crate) struct Pushed<'a> {
    pub(crate) stream: u64,
    pub(crate) host: &'a Arc<str>,
    pub(crate) path: &'a Arc<str>,
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
}

impl OpenBlock {
    pub(crate) fn new() -> Self {
        Self {
            raw: Vec::new(),
            origins: Vec::new(),
            streams: Vec::new(),
            placement: None,
            since: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Whether what it has goes elsewhere than what is placed so.
    pub(crate) fn is_elsewhere(&self, placement: Option<&Placement>) -> bool {
        !self.is_empty() && self.placement.as_ref() != placement
    }

    /// Says where what it gets goes; for one that is empty.
    pub(crate) fn place(&mut self, placement: Option<Placement>) {
        self.placement = placement;
    }

    /// Whether it must be cut before anything is added.
    pub(crate) fn has_most_runs(&self) -> bool {
        self.origins.len() >= MOST_RUNS
    }

    /// How long it has had lines.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        self.since
            .map_or(Duration::ZERO, |(since, _)| now.saturating_sub(since))
    }

    /// Adds records.
    pub(crate) fn push(&mut self, pushed: &Pushed<'_>, now: (Duration, i64)) {
        self.since.get_or_insert(now);
        let (lines, bytes) = (records::lines(pushed.bytes), pushed.bytes.len() as u64);
        match (self.origins.last_mut(), self.streams.last()) {
            (Some(last), Some(stream))
                if *stream == pushed.stream && last.offset + last.bytes == pushed.offset =>
            {
                last.lines += lines;
                last.bytes += bytes;
            }
            _ => {
                self.origins.push(Origin {
                    host: pushed.host.to_string(),
                    path: pushed.path.to_string(),
                    offset: pushed.offset,
                    lines,
                    bytes,
                });
                self.streams.push(pushed.stream);
            }
        }
        self.raw.extend_from_slice(pushed.bytes);
    }

    /// Takes what is in it; `position` tells where a stream is.
    pub(crate) fn cut(
        &mut self,
        dataset: &Name,
        mut position: impl FnMut(u64) -> Option<Position>,
    ) -> Option<CutBlock> {
        if self.is_empty() {
            return None;
        }
        let taken = std::mem::replace(self, Self::new());
        // A busy dataset fills the next one as far.
        self.raw.reserve(taken.raw.len() / 2);
        let mut begins = BTreeMap::new();
        for (stream, origin) in taken.streams.iter().zip(&taken.origins) {
            begins.entry(*stream).or_insert(origin.offset);
        }
        let positions = begins
            .into_iter()
            .filter_map(|(stream, begin)| Some((position(stream)?, begin)));
        let (positions, begins) = positions.unzip();
        Some(CutBlock {
            dataset: dataset.clone(),
            lines: taken.origins.iter().map(|origin| origin.lines).sum(),
            raw: taken.raw,
            origins: taken.origins,
            positions,
            begins,
            rebuilds: None,
            read_ms: taken.since.map_or(0, |(_, wall_ms)| wall_ms),
        })
    }
}
