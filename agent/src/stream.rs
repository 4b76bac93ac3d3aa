//! A stream of lines: what was one file when it was first read, whatever became of its name since.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc, time::Duration};

use model::Name;
use uuid::Uuid;

use crate::{
    block::Position,
    content::{Codec, Content, End, Key},
    mark::{HEAD_BYTES, Mark, TAIL_BYTES},
};

/// How far a stream was read, and the file that it is in.
pub(crate) struct Stream {
    pub(crate) dataset: Name,
    /// Where it was first seen.
    pub(crate) born: String,
    /// Where it was last seen, as told to others.
    pub(crate) path: Arc<str>,
    /// The file in which it was last.
    pub(crate) key: Key,
    /// First bytes that were read.
    pub(crate) head: Mark,
    /// The bytes of `head` while they may become more.
    head_bytes: Vec<u8>,
    /// Behind what was read.
    pub(crate) offset: u64,
    /// Last bytes that were read.
    pub(crate) tail: Mark,
    tail_bytes: Vec<u8>,
    /// As far as the mill has it.
    pub(crate) registered: Option<Position>,
    /// The incarnation of the dataset that took its first lines; nil where another took others.
    pub(crate) incarnation: Option<Uuid>,
    /// Some of it is kept by one node alone.
    pub(crate) alone: bool,
    /// The file that it is in now.
    pub(crate) file: Option<Attached>,
    /// Since when it is in no file, in milliseconds since 1970 UTC.
    pub(crate) gone_ms: Option<i64>,
    /// Nothing more of it can come.
    pub(crate) complete: bool,
    /// A file that held it and now holds something else.
    pub(crate) left: Option<Key>,
}

/// Where a followed file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At a path that a pattern matches.
    Matched,
    /// Beside it, under a name that none matches.
    Renamed,
    /// At no path that is known: removed, or moved far away.
    Nowhere,
}

/// A file that a stream is in.
pub(crate) struct Attached {
    pub(crate) path: PathBuf,
    /// Closed when nothing has come for long.
    pub(crate) content: Option<Content>,
    pub(crate) place: Place,
    size: u64,
    modified: (i64, i64),
    /// When its size or time changed last.
    pub(crate) changed: Duration,
    /// How the last read ended; [`End::More`] while there is something to read.
    pub(crate) end: End,
    /// Bytes behind the offset that make no whole record yet.
    pub(crate) rest: u64,
    pub(crate) is_compressed: bool,
}

impl Attached {
    pub(crate) fn new(path: PathBuf, content: Content, metadata: &Metadata, changed: Duration) -> Self {
        Self {
            path,
            is_compressed: content.codec() != Codec::Plain,
            content: Some(content),
            place: Place::Matched,
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed,
            end: End::More,
            rest: 0,
        }
    }

    /// Takes down size and time; true when they are others than before.
    pub(crate) fn notice(&mut self, metadata: &Metadata, now: Duration) -> bool {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let is_new = (self.size, self.modified) != (metadata.size(), modified);
        if is_new {
            (self.size, self.modified) = (metadata.size(), modified);
            self.changed = now;
            self.end = End::More;
            if self.is_compressed
                && let Some(content) = &mut self.content
            {
                content.restart();
            }
        }
        is_new
    }

    /// Bytes of the file as it is stored.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl Stream {
    /// One of which nothing is read.
    pub(crate) fn new(dataset: Name, path: &std::path::Path, key: Key) -> Self {
        let path = path.to_string_lossy();
        Self {
            dataset,
            born: path.to_string(),
            path: Arc::from(&*path),
            key,
            head: Mark::default(),
            head_bytes: Vec::new(),
            offset: 0,
            tail: Mark::default(),
            tail_bytes: Vec::new(),
            registered: None,
            incarnation: None,
            alone: false,
            file: None,
            gone_ms: None,
            complete: false,
            left: None,
        }
    }

    /// One that was at this position when the agent stopped.
    pub(crate) fn resumed(position: &Position) -> Self {
        let mut stream = Self::new(
            position.dataset.clone(),
            std::path::Path::new(&position.path),
            position.key,
        );
        stream.resume(position);
        stream
    }

    /// Goes on to a later position.
    pub(crate) fn resume(&mut self, position: &Position) {
        self.born.clone_from(&position.born);
        self.path = Arc::from(&*position.path);
        self.key = position.key;
        self.head = position.head;
        self.offset = position.offset;
        self.tail = position.tail;
    }

    /// Its position now.
    pub(crate) fn position(&self, stream: u64) -> Position {
        Position {
            stream,
            dataset: self.dataset.clone(),
            path: self.path.to_string(),
            born: self.born.clone(),
            key: self.key,
            head: self.head,
            offset: self.offset,
            tail: self.tail,
        }
    }

    /// These bytes, which follow its offset, were read.
    pub(crate) fn advance(&mut self, bytes: &[u8]) {
        if self.head.len() < HEAD_BYTES && self.head.len() as u64 == self.offset {
            let more = bytes.len().min(HEAD_BYTES - self.head_bytes.len());
            self.head_bytes.extend_from_slice(&bytes[..more]);
            self.head = Mark::of(&self.head_bytes);
            if self.head_bytes.len() == HEAD_BYTES {
                self.head_bytes = Vec::new();
            }
        }
        let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let kept = TAIL_BYTES - last.len();
        let dropped = self.tail_bytes.len().saturating_sub(kept);
        self.tail_bytes.drain(..dropped);
        self.tail_bytes.extend_from_slice(last);
        self.tail = Mark::of(&self.tail_bytes);
        self.offset += bytes.len() as u64;
    }

    /// Puts it into a file. `head` are the first bytes of that, so that its own can be continued.
    pub(crate) fn attach(&mut self, file: Attached, key: Key, head: &[u8]) {
        if self.head.len() < HEAD_BYTES {
            self.head_bytes = head.get(..self.head.len()).unwrap_or_default().to_vec();
        }
        self.path = Arc::from(&*file.path.to_string_lossy());
        self.key = key;
        self.file = Some(file);
        self.gone_ms = None;
        self.complete = false;
    }

    /// Skips to `offset` of the file, whose `head` and last bytes before the offset these are.
    pub(crate) fn skip_to(&mut self, offset: u64, head: &[u8], last: &[u8]) {
        let known = head.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        self.head_bytes = head[..known].to_vec();
        self.head = Mark::of(&self.head_bytes);
        self.tail_bytes = last.to_vec();
        self.tail = Mark::of(last);
        self.offset = offset;
    }

    /// Takes it out of its file.
    pub(crate) fn detach(&mut self, wall_ms: i64) {
        self.file = None;
        self.gone_ms = Some(wall_ms);
    }

    /// Whether its file has another name than at first.
    pub(crate) fn was_renamed(&self) -> bool {
        *self.path != *self.born
    }

    /// Whether all that its file has is read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.file
            .as_ref()
            .is_some_and(|file| file.end == End::Here && file.rest == 0)
    }

    /// The mill has it up to this position, the last of it in this incarnation of the dataset.
    pub(crate) fn note_registered(&mut self, position: &Position, incarnation: Option<Uuid>) {
        self.registered = Some(position.clone());
        match (self.incarnation, incarnation) {
            (None, Some(first)) => self.incarnation = Some(first),
            (Some(first), Some(now)) if first != now => self.incarnation = Some(Uuid::nil()),
            _ => {}
        }
    }

    /// Up to where the mill has it.
    pub(crate) fn registered_offset(&self) -> u64 {
        self.registered.as_ref().map_or(0, |position| position.offset)
    }
}

/// How a file looks at the place that a stream has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The bytes before it are those that were read.
    Same,
    /// It is not that long.
    Short,
    /// They are others.
    Other,
}

impl Stream {
    /// Looks whether `content` goes on where the stream is.
    pub(crate) fn look(&self, content: &mut Content, buffer: &mut Vec<u8>) -> std::io::Result<Look> {
        if self.head.len() > 0 {
            content.read_at(0, self.head.len(), buffer)?;
            if !self.head.begins(buffer) {
                return Ok(if buffer.len() < self.head.len() {
                    Look::Short
                } else {
                    Look::Other
                });
            }
        }
        content.read_at(self.offset - self.tail.len() as u64, self.tail.len(), buffer)?;
        Ok(match buffer.len() == self.tail.len() {
            false => Look::Short,
            true if Mark::of(buffer) == self.tail => Look::Same,
            true => Look::Other,
        })
    }
}
