//! Blocks that a mill has lost, since it was restored from an older backup: their lines are read again from the files.
//!
//! A lost block is known by the journal as parts of streams. What of it still stands in the file of its stream becomes a block
//! once more, which says in the spool what it is; the positions of files have nothing to do with that. What can't be
//! read for a while, as in the midst of a rotation, is told and given up.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use model::Name;
use tracing::warn;

use super::{Follower, Now, scan::beside};
use crate::{
    block::{CutBlock, OpenBlock, Pushed},
    content::Content,
    journal::{self, Number, Part},
    links::Links,
    mark::Mark,
    stream::Stream,
};

/// Most places of lost lines that are named in the log.
const MOST_TOLD: usize = 200;

/// What is done about lost blocks.
#[derive(Default)]
pub(super) struct Rebuilding {
    /// Where the lines of lost blocks lay; looked up once for each loss.
    known: BTreeMap<Number, Vec<Part>>,
    /// The ranges that were looked up.
    looked_up: BTreeMap<Name, Vec<(u64, u64)>>,
    /// Read again, and not in the spool yet.
    under_way: HashSet<Number>,
    /// Of these it is not known what was in some lost blocks.
    pub(super) unknown: BTreeSet<Name>,
    /// Lines that could not be read when it was tried first.
    missing_since: Option<Duration>,
    /// Lines that stay lost, by dataset and path: where from, where to.
    missing: BTreeMap<(Name, String), (u64, u64)>,
}

impl Rebuilding {
    /// Whether all of these were looked up.
    fn covers(&self, lost: &BTreeMap<Name, Vec<(u64, u64)>>) -> bool {
        lost.iter().all(|(dataset, ranges)| {
            let known = self.looked_up.get(dataset).map(Vec::as_slice).unwrap_or_default();
            let is_known = |range: &(u64, u64)| {
                known
                    .iter()
                    .any(|(first, last)| *first <= range.0 && range.1 <= *last)
            };
            ranges.iter().all(is_known)
        })
    }
}

impl Follower {
    /// Reads lost blocks again, as long as there is room for them; true where there are more. `has_scanned`: it was looked
    /// where the files are.
    pub(super) fn rebuild(&mut self, now: Now, has_scanned: bool) -> bool {
        let lost = self.spool.lost();
        if lost.is_empty() {
            if !self.rebuilding.looked_up.is_empty() {
                self.tell_missing();
                self.rebuilding = Rebuilding::default();
            }
            return false;
        }
        let waits = self.rebuilding.known.is_empty() || self.rebuilding.missing_since.is_some();
        if waits && !has_scanned {
            return false;
        }
        if !self.rebuilding.covers(&lost) {
            self.look_up(lost);
        }
        let waiting: Vec<Number> = self.rebuilding.known.keys().cloned().collect();
        for number in waiting {
            if !self.has_room() {
                return !self.is_spool_full;
            }
            // It stays known, and is looked at again when the spool has let go of some.
            if self.has_room_for(&number.0) {
                self.rebuild_one(number, now);
            }
        }
        false
    }

    /// Whether lost blocks wait of which it is known where their lines are.
    pub(super) fn is_rebuilding(&self) -> bool {
        let lost = self.spool.lost();
        let is_lost = |(dataset, sequence): &Number| {
            let mut ranges = lost.get(dataset).into_iter().flatten();
            ranges.any(|(first, last)| (*first..=*last).contains(sequence))
        };
        !self.rebuilding.covers(&lost)
            || !self.rebuilding.known.is_empty()
            || self.rebuilding.under_way.iter().any(is_lost)
    }

    fn look_up(&mut self, lost: BTreeMap<Name, Vec<(u64, u64)>>) {
        let rebuilding = &mut self.rebuilding;
        rebuilding.known = journal::find(&self.dir, &lost);
        for (dataset, ranges) in &lost {
            let known = rebuilding.known.keys().filter(|(of, _)| of == dataset);
            let known: Vec<u64> = known.map(|(_, sequence)| *sequence).collect();
            let count: u64 = ranges.iter().map(|(first, last)| last - first + 1).sum();
            let unknown = count.saturating_sub(known.len() as u64);
            if unknown == 0 {
                continue;
            }
            warn!(
                dataset = dataset.as_str(),
                blocks = unknown,
                "it is not known where the lines of these blocks lay, which the mill has lost: they stay missing there"
            );
            // Files that are shipped once are told to be incomplete until they are shipped again.
            if self.once && !self.again {
                rebuilding.unknown.insert(dataset.clone());
            } else {
                self.spool.give_up_all_but(dataset, known.into_iter());
            }
        }
        rebuilding.looked_up = lost;
        let under_way = &rebuilding.under_way;
        rebuilding.known.retain(|number, _| !under_way.contains(number));
    }

    fn rebuild_one(&mut self, number: Number, now: Now) {
        let Some(parts) = self.rebuilding.known.get(&number).cloned() else {
            return;
        };
        let (dataset, sequence) = &number;
        let mut block = OpenBlock::new();
        let mut missing = Vec::new();
        for part in &parts {
            let stream = self
                .streams
                .get(&part.stream)
                .filter(|stream| stream.dataset == *dataset);
            let read =
                stream.and_then(|stream| read_again(stream, part, self.paths.links(), &mut self.buffer).ok());
            match (stream, read) {
                (Some(stream), Some(())) => {
                    let pushed = Pushed {
                        stream: part.stream,
                        host: &self.host,
                        path: &stream.path,
                        offset: part.begin,
                        bytes: &self.buffer,
                    };
                    block.push(&pushed, (now.at, now.wall_ms));
                }
                (stream, _) => {
                    let path = stream.map_or("a file that is forgotten", |stream| &*stream.path);
                    missing.push((path.to_string(), part.begin, part.end));
                }
            }
        }
        if !missing.is_empty() {
            let since = *self.rebuilding.missing_since.get_or_insert(now.at);
            // It may be about to be renamed or compressed.
            if now.at.saturating_sub(since) < self.timing.unended && !self.once {
                return;
            }
        }
        for (path, begin, end) in missing {
            let known = self
                .rebuilding
                .missing
                .entry((dataset.clone(), path))
                .or_insert((begin, end));
            *known = (known.0.min(begin), known.1.max(end));
        }
        self.rebuilding.known.remove(&number);
        let cut = block.cut(dataset, |_| None);
        let Some(cut) = cut else {
            return self.spool.give_up(dataset, *sequence);
        };
        self.spool.announce(dataset, cut.raw.len() as u64);
        self.ready.push_back(CutBlock {
            rebuilds: Some(*sequence),
            ..cut
        });
        self.rebuilding.under_way.insert(number);
    }

    /// Names what stays lost.
    fn tell_missing(&mut self) {
        let missing = std::mem::take(&mut self.rebuilding.missing);
        let count = missing.len();
        for ((dataset, path), (begin, end)) in missing.into_iter().take(MOST_TOLD) {
            warn!(
                dataset = dataset.as_str(),
                path,
                begin,
                end,
                "the mill has lost these bytes, or some of them, and they can't be read any more"
            );
        }
        if count > MOST_TOLD {
            warn!("and so it is with {} files more", count - MOST_TOLD);
        }
    }
}

/// Reads the lines of a part into `buffer`, if the file of the stream still has them.
fn read_again(stream: &Stream, part: &Part, links: &Links, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut result = Err(io::Error::from(io::ErrorKind::NotFound));
    for path in places(stream) {
        result = read_at(&path, links, stream, part, buffer);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn places(stream: &Stream) -> Vec<PathBuf> {
    let followed = stream.file.as_ref().map(|file| file.path.clone());
    let last = Path::new(&*stream.path);
    let mut places: Vec<PathBuf> = followed
        .into_iter()
        .chain([last.to_path_buf()])
        .chain(beside(last, stream.key))
        .collect();
    places.dedup();
    places
}

fn read_at(path: &Path, links: &Links, stream: &Stream, part: &Part, buffer: &mut Vec<u8>) -> io::Result<()> {
    let other = || io::Error::other("it is another file");
    let (mut content, _) = Content::open(path, links)?;
    content.read_at(0, stream.head.len(), buffer)?;
    if !stream.head.begins(buffer) {
        return Err(other());
    }
    let length = usize::try_from(part.end.saturating_sub(part.begin)).map_err(|_| other())?;
    let tail = part.tail.len();
    // The mark reaches back before a short part.
    let before = tail.saturating_sub(length);
    let begin = part.begin.checked_sub(before as u64).ok_or_else(other)?;
    content.read_at(begin, before + length, buffer)?;
    if buffer.len() != before + length || Mark::of(&buffer[buffer.len() - tail..]) != part.tail {
        return Err(other());
    }
    buffer.drain(..before);
    Ok(())
}
