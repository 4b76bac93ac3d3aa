//! Files that are shipped once, as they are: which of them are done.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use model::Name;
use uuid::Uuid;

use super::{Follower, Now, after::is_registered_whole};
use crate::{config::After, content::End, paths::Found, service::Mode, stream::Stream};

/// A dataset was removed after half of a file, and the other half went into the next one of its name.
const PARTLY: &str = "its dataset was removed while it was shipped, so that only a part of it is there: --again ships all of it";
/// What a restored mill has lost is not known.
const LOST: &str = "the mill was restored from an older backup, and it is not known what it has of the file: --again ships all of it";

/// A file that is shipped once.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// As stored.
    size: u64,
    stream: Option<u64>,
    /// Where its stream was when it was found.
    begun: u64,
}

/// How far files are that are shipped once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) files: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// Bytes of lines to ship, as far as is known.
    pub(crate) bytes: u64,
    /// Bytes of lines that are registered.
    pub(crate) registered_bytes: u64,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All of its blocks are acknowledged and were read back.
    Shipped {
        /// Bytes of lines that were shipped now.
        bytes: u64,
        /// The nodes that keep them, by name, where nodes do and have said so.
        nodes: Vec<String>,
    },
    /// All of it was shipped before.
    Already,
    /// It stays.
    Failed {
        /// Why.
        why: String,
    },
}

impl Follower {
    pub(crate) fn is_once(&self) -> bool {
        self.once
    }

    /// Whether files are shipped that were shipped before.
    pub(crate) fn raise_again(&mut self, mode: &Mode) {
        self.again = matches!(mode, Mode::Once { again: true });
    }

    /// Takes down which streams the files are; looks again at once for those that wait for others.
    pub(super) fn note_once(&mut self, found: &[Found], now: Now) {
        let mut waits = false;
        for found in found {
            let file = self.shipped_once.entry(found.path.clone()).or_insert(File {
                size: found.metadata.len(),
                stream: None,
                begun: 0,
            });
            if file.stream.is_none()
                && let Some(number) = self.by_key.get(&found.key)
            {
                file.stream = Some(*number);
                file.begun = self.streams.get(number).map_or(0, |stream| stream.offset);
            }
            waits |= file.stream.is_none() && file.size > 0 && self.paths.why(&found.path).is_none();
        }
        // What is followed needs no second stream.
        self.again = self.again && waits;
        if waits {
            self.next_scan = now.at;
        }
    }

    /// Learns which incarnations the datasets have now: what another one took is not there any more.
    pub(crate) fn meet(&mut self, datasets: &BTreeMap<Name, Option<Uuid>>) {
        self.has_met = true;
        self.streams.retain(|_, stream| {
            let now = datasets.get(&stream.dataset);
            match (stream.incarnation, now) {
                // Some of it is there: that is told, and left to a user.
                (Some(then), Some(now)) => then.is_nil() || Some(then) == *now,
                (None, _) | (_, None) => true,
            }
        });
    }

    /// Whether all files are read as far as they can be.
    pub(crate) fn is_read(&self) -> bool {
        !self.is_rebuilding()
            && self.shipped_once.iter().all(|(path, file)| {
                let stream = file.stream.and_then(|number| self.streams.get(&number));
                let stopped = stream.and_then(|stream| stream.file.as_ref());
                match stopped {
                    Some(file) => file.end != End::More && (file.rest == 0 || file.end != End::Here),
                    None => file.size == 0 || self.paths.why(path).is_some() || stream.is_some(),
                }
            })
    }

    /// How far the files are.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (path, file) in &self.shipped_once {
            tally.files += 1;
            if let Some(stream) = file.stream.and_then(|number| self.streams.get(&number)) {
                let is_compressed = stream.file.as_ref().is_some_and(|file| file.is_compressed);
                let end = if is_compressed {
                    stream.offset
                } else {
                    file.size.max(stream.offset)
                };
                tally.bytes += end - file.begun;
                tally.registered_bytes += stream.registered_offset().saturating_sub(file.begun);
            }
            match self.fate(path, file) {
                Some(Fate::Failed { .. }) => tally.failed += 1,
                Some(_) => tally.done += 1,
                None => {}
            }
        }
        tally
    }

    /// How long until nobody has written for long enough to the files that are shipped and are to be removed or moved: who
    /// writes to one has it open, which can't be seen.
    pub(crate) fn rest_left(&self, now: SystemTime) -> Duration {
        if self.after == After::Keep {
            return Duration::ZERO;
        }
        let whole = self.shipped_once.iter().filter(|(_, file)| {
            let stream = file.stream.and_then(|number| self.streams.get(&number));
            stream.is_some_and(is_registered_whole)
        });
        let left = whole.filter_map(|(path, _)| {
            let changed = self
                .paths
                .links()
                .metadata(path)
                .and_then(|metadata| metadata.modified())
                .ok()?;
            // One of the future tells nothing.
            let since = now.duration_since(changed).unwrap_or_default();
            Some(self.timing.quiet.saturating_sub(since))
        });
        left.max().unwrap_or_default()
    }

    /// Leaves all files where they are, whatever is asked for.
    pub(crate) fn leave_all(&mut self) {
        self.leaves_all = true;
    }

    /// What became of each file, when all is over; files that are shipped whole are removed or moved where that is asked for.
    pub(crate) fn fates(&mut self, why_not: &str, now: Now) -> Vec<(PathBuf, Fate)> {
        let files: Vec<_> = self.shipped_once.clone().into_iter().collect();
        let mut fates = Vec::with_capacity(files.len());
        for (path, file) in files {
            let mut fate = self.fate(&path, &file).unwrap_or_else(|| Fate::Failed {
                why: why_not.to_string(),
            });
            let whole = file
                .stream
                .filter(|number| self.streams.get(number).is_some_and(is_registered_whole));
            if let (Some(number), Fate::Shipped { .. } | Fate::Already) = (whole, &fate)
                && (self.leaves_all || !self.settle(number, now))
            {
                let unsettled = if self.leaves_all {
                    "stopped before nobody had written to it for long enough"
                } else {
                    "it has changed since it was shipped"
                };
                let why = self.paths.why(&path).unwrap_or(unsettled);
                fate = Fate::Failed {
                    why: format!("shipped, but it stays: {why}"),
                };
            }
            fates.push((path, fate));
        }
        fates
    }

    fn fate(&self, path: &std::path::Path, file: &File) -> Option<Fate> {
        let stream = file.stream.and_then(|number| self.streams.get(&number));
        let Some(stream) = stream else {
            let told = self
                .paths
                .why(path)
                .map(|why| Fate::Failed { why: why.to_string() });
            return told.or((file.size == 0).then_some(Fate::Shipped {
                bytes: 0,
                nodes: Vec::new(),
            }));
        };
        if !self.has_met {
            return None;
        }
        let is_partly = stream.incarnation.is_some_and(|incarnation| incarnation.is_nil());
        let why = match stream.file.as_ref().map(|file| &file.end) {
            Some(End::Midst) => Some("it ends in the midst of compressed data".to_string()),
            Some(End::Broken(why)) => Some(why.clone()),
            _ if is_partly => Some(PARTLY.to_string()),
            _ if self.rebuilding.unknown.contains(&stream.dataset) && file.begun > 0 => {
                Some(LOST.to_string())
            }
            _ => None,
        };
        if let Some(why) = why {
            return Some(Fate::Failed { why });
        }
        let is_copy = |stream: &Stream| stream.registered.is_none() && stream.is_at_end();
        if stream.offset == file.begun && file.begun > 0 && (is_registered_whole(stream) || is_copy(stream)) {
            return Some(Fate::Already);
        }
        is_registered_whole(stream).then_some(Fate::Shipped {
            bytes: stream.offset - file.begun,
            nodes: Vec::new(),
        })
    }
}
