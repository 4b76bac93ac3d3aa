//! Files that are not followed yet: new ones, or known ones under another name, in another form, or as a copy.
//!
//! A file that begins with what another stream began with is that stream when it also has, before the place that was
//! reached, the bytes that were read there. While the first file still is there too, one of them is a copy: it is
//! compared once it is still, and goes on behind what they have in common. One that is only the beginning of the first is
//! waited for longer: whoever writes it may have been kept from it.

use std::{io, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use tracing::{debug, info};

use super::{Follower, Now};
use crate::{
    content::{Content, End, Key},
    mark::{HEAD_BYTES, Mark, TAIL_BYTES},
    paths::Found,
    stream::{Attached, Look, Place, Stream},
};

/// Bytes that are compared at a time.
const COMPARED_BYTES: usize = 256 << 10;

/// A file that is not followed yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    size: u64,
    modified: (i64, i64),
    since: Duration,
}

/// A file while it is looked at.
struct Candidate<'a> {
    found: &'a Found,
    content: Content,
    head: Vec<u8>,
}

/// What a candidate and the file of a stream have in common.
struct Common {
    /// Up to here.
    offset: u64,
    /// The candidate is only the beginning of the other.
    is_all: bool,
}

/// What a file that may be a stream is.
enum Verdict {
    /// The stream itself.
    Stream(u64),
    /// A copy of one, up to this offset.
    Copy(u64),
    /// Something of its own.
    New,
    /// Not to be told yet.
    Wait,
}

impl Follower {
    /// Follows `found` if it is the file in which a stream was before, as after a restart.
    pub(super) fn consider_again(&mut self, found: &Found, now: Now) {
        let was_here = |stream: &Stream| {
            stream.file.is_none()
                && stream.key == found.key
                && stream.left != Some(found.key)
                && stream.offset > 0
        };
        let mut numbers: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| was_here(stream) && stream.dataset == found.dataset)
            .map(|(number, _)| *number)
            .collect();
        if numbers.is_empty() {
            return;
        }
        numbers.sort_by_key(|number| std::cmp::Reverse(self.streams.get(number).map(|stream| stream.offset)));
        let Some(mut candidate) = self.candidate(found) else {
            return;
        };
        for number in numbers {
            let Some(stream) = self.streams.get_mut(&number) else {
                continue;
            };
            match stream.look(&mut candidate.content, &mut self.buffer) {
                Ok(Look::Same) => return self.attach(number, candidate, now),
                // The inode holds something else by now.
                Ok(Look::Short | Look::Other) => stream.left = Some(found.key),
                Err(_) => {}
            }
        }
    }

    /// Follows a file that no stream is in, as soon as it is clear what it is.
    pub(super) fn consider(&mut self, found: &Found, now: Now) {
        let still = self.still_for(found, now);
        let Some(candidate) = self.candidate(found) else {
            return;
        };
        if candidate.head.is_empty() {
            return;
        }
        let mut candidate = candidate;
        let verdict = match self.again {
            true => Verdict::New,
            false => self.verdict(&mut candidate, still),
        };
        match verdict {
            Verdict::Stream(number) => self.attach(number, candidate, now),
            Verdict::Copy(offset) => self.fork(candidate, offset, now),
            Verdict::New => self.begin(candidate, now),
            Verdict::Wait => self.next_scan = self.next_scan.min(now.at + self.timing.copy),
        }
    }

    /// Follows a file that no pattern matches if it is the rest of a stream that lost its own.
    pub(super) fn consider_lost(&mut self, found: &Found, now: Now) {
        let Some(mut candidate) = self.candidate(found) else {
            return;
        };
        for number in self.alike(&candidate) {
            let Some(stream) = self.streams.get(&number) else {
                continue;
            };
            if stream.file.is_some() || stream.left == Some(found.key) {
                continue;
            }
            if let Ok(Look::Same) = stream.look(&mut candidate.content, &mut self.buffer) {
                self.attach(number, candidate, now);
                if let Some(file) = self
                    .streams
                    .get_mut(&number)
                    .and_then(|stream| stream.file.as_mut())
                {
                    file.place = Place::Renamed;
                }
                return;
            }
        }
    }

    /// How long the file has been as it is.
    fn still_for(&mut self, found: &Found, now: Now) -> Duration {
        let (size, modified) = (
            found.metadata.size(),
            (found.metadata.mtime(), found.metadata.mtime_nsec()),
        );
        let fresh = Waiting {
            size,
            modified,
            since: now.at,
        };
        let waiting = self.waiting.entry(found.key).or_insert(fresh);
        if (waiting.size, waiting.modified) != (size, modified) {
            *waiting = fresh;
        }
        now.at.saturating_sub(waiting.since)
    }

    /// Opens it and reads its head; none of a file that can't be read, or is not the one that was found any more.
    fn candidate<'a>(&mut self, found: &'a Found) -> Option<Candidate<'a>> {
        let (mut content, metadata) = self.paths.open(&found.path)?;
        if Key::of(&metadata) != found.key {
            return None;
        }
        let mut head = Vec::new();
        match content.read_at(0, HEAD_BYTES, &mut head) {
            // More may come that tells what it is.
            Ok(End::Midst) if head.len() < HEAD_BYTES => {
                if self.once {
                    self.paths
                        .tell(&found.path, "it ends in the midst of compressed data");
                }
                None
            }
            Ok(End::Broken(why)) if head.is_empty() => {
                self.paths.tell(&found.path, &why);
                None
            }
            Ok(_) => Some(Candidate { found, content, head }),
            Err(error) => {
                self.paths.tell(&found.path, &error.to_string());
                None
            }
        }
    }

    /// Streams that begin as the candidate does, those that got farthest first.
    fn alike(&mut self, candidate: &Candidate<'_>) -> Vec<u64> {
        let mut marks: Vec<Mark> = Vec::new();
        let mut alike: Vec<(u64, u64)> = Vec::new();
        for (number, stream) in &mut self.streams {
            let length = stream.head.len();
            if length > candidate.head.len() || stream.dataset != candidate.found.dataset {
                continue;
            }
            if length == 0 {
                // Nothing is read yet, and perhaps nothing of its file has another name.
                if begins_like(stream, &candidate.head, &mut self.buffer) {
                    alike.push((0, *number));
                }
                continue;
            }
            // Nearly all heads have one length: each is hashed once.
            let known = marks.iter().find(|mark| mark.len() == length).copied();
            let mark = known.unwrap_or_else(|| {
                let mark = Mark::of(&candidate.head[..length]);
                marks.push(mark);
                mark
            });
            if mark == stream.head {
                alike.push((stream.offset, *number));
            }
        }
        alike.sort_by(|a, b| b.cmp(a));
        alike.into_iter().map(|(_, number)| number).collect()
    }

    fn verdict(&mut self, candidate: &mut Candidate<'_>, still: Duration) -> Verdict {
        let key = candidate.found.key;
        let mut waits = false;
        for number in self.alike(candidate) {
            let Some(stream) = self.streams.get(&number) else {
                continue;
            };
            if stream.left == Some(key) {
                continue;
            }
            // Programs begin their logs alike: what has no name of a rotated file is one of its own.
            if stream.key != key && !names_are_related(Path::new(&*stream.path), &candidate.found.path) {
                continue;
            }
            let is_free = match &stream.file {
                None => true,
                Some(file) => file.place == Place::Nowhere && stream.is_at_end(),
            };
            if is_free {
                match stream.look(&mut candidate.content, &mut self.buffer) {
                    Ok(Look::Same) => return Verdict::Stream(number),
                    // A copy that is still being written, or was left half.
                    Ok(Look::Short)
                        if still < self.timing.unended
                            && !self.once
                            && Path::new(&*stream.path) != candidate.found.path =>
                    {
                        waits = true;
                    }
                    // Under the very same name it was written anew.
                    Ok(Look::Short) if Path::new(&*stream.path) == candidate.found.path => {}
                    Ok(Look::Short) => return self.copy_of_all(candidate),
                    Ok(Look::Other) | Err(_) => {}
                }
            } else if still < self.timing.copy && !self.once {
                waits = true;
            } else {
                match self.compare(number, candidate) {
                    // It may be written still, by somebody who was kept waiting.
                    Ok(Some(Common { is_all: true, .. })) if still < self.timing.unended && !self.once => {
                        waits = true;
                    }
                    Ok(Some(Common { offset, .. })) => return Verdict::Copy(offset),
                    Ok(None) => {}
                    Err(_) => waits = true,
                }
            }
        }
        if waits { Verdict::Wait } else { Verdict::New }
    }

    /// All of the candidate is in a stream already.
    fn copy_of_all(&mut self, candidate: &mut Candidate<'_>) -> Verdict {
        let mut offset = 0;
        loop {
            match candidate
                .content
                .read_at(offset, COMPARED_BYTES, &mut self.buffer)
            {
                Ok(end) => {
                    offset += self.buffer.len() as u64;
                    if end != End::More {
                        return Verdict::Copy(offset);
                    }
                }
                Err(_) => return Verdict::Wait,
            }
        }
    }

    /// How far a candidate and the file of a stream are the same, where one of them is the beginning of the other and the
    /// stream is read so far.
    fn compare(&mut self, number: u64, candidate: &mut Candidate<'_>) -> io::Result<Option<Common>> {
        let Some(stream) = self.streams.get(&number) else {
            return Ok(None);
        };
        let Some(file) = &stream.file else { return Ok(None) };
        // One of its own, since that of the stream may be in the midst of decoding.
        let (mut other, metadata) = Content::open(&file.path, self.paths.links())?;
        if Key::of(&metadata) != stream.key || metadata.len() != file.size() || file.end != End::Here {
            return Err(io::Error::other("not to be compared now"));
        }
        let mut theirs = Vec::new();
        let mut offset = 0;
        loop {
            candidate
                .content
                .read_at(offset, COMPARED_BYTES, &mut self.buffer)?;
            other.read_at(offset, COMPARED_BYTES, &mut theirs)?;
            let common = self.buffer.len().min(theirs.len());
            if self.buffer[..common] != theirs[..common] {
                return Ok(None);
            }
            offset += common as u64;
            match (self.buffer.len() - common, theirs.len() - common) {
                (0, 0) if common == COMPARED_BYTES => {}
                // The candidate goes on: what the stream has not read yet is left to it.
                (1.., _) => {
                    let offset = offset.min(stream.offset);
                    return Ok(Some(Common {
                        offset,
                        is_all: false,
                    }));
                }
                (0, more) => {
                    let is_all = more > 0;
                    return Ok(Some(Common { offset, is_all }));
                }
            }
        }
    }

    fn attach(&mut self, number: u64, candidate: Candidate<'_>, now: Now) {
        let Candidate { found, content, head } = candidate;
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        if stream.file.is_some() {
            self.by_key.remove(&stream.key);
        }
        debug!(path = %found.path.display(), offset = stream.offset, was = &*stream.path, "a known file is followed");
        let file = Attached::new(found.path.clone(), content, &found.metadata, now.at);
        stream.attach(file, found.key, &head);
        self.by_key.insert(found.key, number);
        self.waiting.remove(&found.key);
    }

    fn begin(&mut self, candidate: Candidate<'_>, now: Now) {
        let found = candidate.found;
        info!(path = %found.path.display(), dataset = found.dataset.as_str(), "a new file is followed");
        let number = self.next_stream;
        self.next_stream += 1;
        let stream = Stream::new(found.dataset.clone(), &found.path, found.key);
        self.streams.insert(number, stream);
        self.attach(number, candidate, now);
    }

    /// Follows a copy from where it goes beyond what it is a copy of.
    fn fork(&mut self, mut candidate: Candidate<'_>, offset: u64, now: Now) {
        let length = offset.min(TAIL_BYTES as u64);
        let read =
            candidate
                .content
                .read_at(offset - length, TAIL_BYTES.min(length as usize), &mut self.buffer);
        if read.is_err() || self.buffer.len() as u64 != length {
            return;
        }
        let found = candidate.found;
        info!(path = %found.path.display(), offset, "a copy of a known file is followed");
        let mut stream = Stream::new(found.dataset.clone(), &found.path, found.key);
        stream.skip_to(offset, &candidate.head, &self.buffer);
        let number = self.next_stream;
        self.next_stream += 1;
        self.streams.insert(number, stream);
        self.attach(number, candidate, now);
    }
}

/// Whether one may be the rotated form of the other by their names: `access.log` and `access.log.1.gz`,
/// `access-20261123.log` or `2026-access.log`, but not `access2.log`.
fn names_are_related(one: &Path, other: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.as_encoded_bytes().to_vec());
    let is_elsewhere = one.parent() != other.parent();
    let (Some(one), Some(other)) = (name(one), name(other)) else {
        return false;
    };
    // Two services log under one name, each in its own folder.
    if is_elsewhere && one == other {
        return false;
    }
    let stands_in = |stem: &[u8], name: &[u8]| {
        let is_border = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        (0..=name.len().saturating_sub(stem.len())).any(|at| {
            let end = at + stem.len();
            name[at..].starts_with(stem)
                && is_border(at.checked_sub(1).and_then(|before| name.get(before)))
                && is_border(name.get(end))
        })
    };
    // Of a hidden file the first part is behind its dot.
    let stem = |name: &[u8]| {
        let dot = name.iter().skip(1).position(|&byte| byte == b'.');
        dot.map_or(name.len(), |dot| dot + 1)
    };
    stands_in(&one[..stem(&one)], &other) || stands_in(&other[..stem(&other)], &one)
}

/// Whether the file of a stream of which nothing is read begins as `head` does.
fn begins_like(stream: &mut Stream, head: &[u8], buffer: &mut Vec<u8>) -> bool {
    let content = stream.file.as_mut().and_then(|file| file.content.as_mut());
    content.is_some_and(|content| {
        let read = content.read_at(0, head.len(), buffer);
        read.is_ok() && !buffer.is_empty() && head.starts_with(buffer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_forms_are_told_by_their_names() {
        let related = |one: &str, other: &str| names_are_related(Path::new(one), Path::new(other));
        for other in [
            "access.log.1",
            "access.log.2.gz",
            "access.log-20261123",
            "access-2026-11-23.log",
            "2026-11-23-access.log.zst",
            "old/access.log.1.gz",
        ] {
            assert!(
                related("access.log", other) && related(other, "access.log"),
                "{other}"
            );
        }
        for other in [
            "other/access.log",
            "access2.log",
            "error.log",
            "w2.log",
            "myaccess.log",
        ] {
            assert!(!related("access.log", other), "{other}");
        }
        assert!(!related("w1.log", "w2.log") && related(".hidden", ".hidden.1"));
    }
}
