//! Where the files are: what the patterns match now, and what became of those that were followed.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, Metadata},
    io,
    os::unix::fs::DirEntryExt as _,
    path::{Path, PathBuf},
};

use tracing::{debug, info, warn};

use super::{Follower, Now};
use crate::{
    content::Key,
    links::Links,
    paths::Found,
    stream::{Look, Place},
};

/// How long a file that vanished is looked for beside its last place, in milliseconds: a rotation takes less.
const LOOK_BESIDE_MS: i64 = 600_000;
/// A file without change for so long is closed until it changes, in seconds.
const CLOSE_AFTER_SECONDS: u64 = 600;

impl Follower {
    /// Looks for new files, and for where the followed ones are.
    pub(super) fn scan(&mut self, now: Now) {
        self.next_scan = now.at + self.timing.scan;
        let found = self.paths.find();
        let places: HashMap<Key, &Found> = found.iter().map(|found| (found.key, found)).collect();
        self.place_followed(&places, now);
        self.let_go(now);
        // Files that are where they were before the others: a copy of one must not take its place.
        let new: Vec<&Found> = found
            .iter()
            .filter(|found| !self.by_key.contains_key(&found.key))
            .collect();
        if !self.again {
            new.iter().for_each(|found| self.consider_again(found, now));
        }
        for found in new {
            if !self.by_key.contains_key(&found.key) {
                self.consider(found, now);
            }
        }
        if self.once {
            self.note_once(&found, now);
        } else {
            self.look_beside(&places, now);
        }
        self.waiting.retain(|key, _| places.contains_key(key));
        self.clear_away(now);
    }

    fn place_followed(&mut self, places: &HashMap<Key, &Found>, now: Now) {
        for stream in self.streams.values_mut() {
            let Some(file) = &mut stream.file else { continue };
            let (place, path) = match places.get(&stream.key) {
                Some(found) => (Place::Matched, Some(found.path.clone())),
                None => match beside(&file.path, stream.key) {
                    Some(path) => (Place::Renamed, Some(path)),
                    None => (Place::Nowhere, None),
                },
            };
            if let Some(path) = path.filter(|path| *path != file.path) {
                info!(from = %file.path.display(), to = %path.display(), "a file was renamed");
                stream.path = path.to_string_lossy().into();
                file.path = path;
                file.changed = now.at;
            }
            if place != file.place {
                file.changed = now.at;
                file.place = place;
            }
        }
    }

    /// Ends what can't come back: files without a name, and renamed ones to which nobody writes any more.
    fn let_go(&mut self, now: Now) {
        for stream in self.streams.values_mut() {
            let is_at_end = stream.is_at_end();
            let Some(file) = &stream.file else { continue };
            let wait = match file.place {
                Place::Matched => continue,
                Place::Renamed => self.timing.let_go,
                Place::Nowhere => self.timing.unended,
            };
            if is_at_end && now.at.saturating_sub(file.changed) >= wait {
                debug!(path = &*stream.path, "a file is read to its end and let go");
                self.by_key.remove(&stream.key);
                stream.detach(now.wall_ms);
                stream.complete = true;
            }
        }
    }

    /// Looks for files that vanished lately beside their last place, renamed or compressed under a name that no pattern matches.
    fn look_beside(&mut self, places: &HashMap<Key, &Found>, now: Now) {
        let is_lost = |stream: &crate::stream::Stream| {
            let lately = stream
                .gone_ms
                .is_none_or(|gone| now.wall_ms - gone < LOOK_BESIDE_MS);
            stream.file.is_none() && !stream.complete && lately
        };
        let mut lost = Vec::new();
        for stream in self.streams.values_mut().filter(|stream| is_lost(stream)) {
            stream.gone_ms.get_or_insert(now.wall_ms);
            lost.push((
                PathBuf::from(&*stream.path),
                PathBuf::from(&stream.born),
                stream.dataset.clone(),
                stream.key,
            ));
        }
        let mut tried = HashSet::new();
        for (path, born, dataset, key) in lost {
            let beginning = born
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            for (candidate, inode) in entries(&path) {
                let name = candidate
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default();
                let is_named_so = !beginning.is_empty() && name.starts_with(&beginning);
                if inode != key.inode && !is_named_so {
                    continue;
                }
                let Ok(metadata) = self.paths.links().metadata(&candidate) else {
                    continue;
                };
                let found = Found {
                    key: Key::of(&metadata),
                    path: candidate,
                    dataset: dataset.clone(),
                    metadata,
                };
                let is_new = found.metadata.is_file()
                    && !places.contains_key(&found.key)
                    && !self.by_key.contains_key(&found.key)
                    && tried.insert((found.key, dataset.clone()));
                if is_new {
                    self.consider_lost(&found, now);
                }
            }
        }
    }

    /// Looks at the size and time of all followed files.
    pub(super) fn poll_all(&mut self, now: Now) {
        let numbers: Vec<u64> = self.by_key.values().copied().collect();
        for number in numbers {
            self.poll(number, now);
        }
    }

    /// Looks at those of which the system has told.
    pub(super) fn poll_paths(&mut self, paths: &HashSet<PathBuf>, now: Now) {
        if paths.is_empty() {
            return;
        }
        let is_meant = |number: &u64| {
            let file = self.streams.get(number).and_then(|stream| stream.file.as_ref());
            file.is_some_and(|file| paths.contains(&file.path))
        };
        let numbers: Vec<u64> = self.by_key.values().copied().filter(is_meant).collect();
        for number in numbers {
            self.poll(number, now);
        }
    }

    /// Looks at one file: whether it has grown, or is another by now.
    pub(super) fn poll(&mut self, number: u64, now: Now) {
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        let Some(file) = &mut stream.file else { return };
        let named = self
            .paths
            .links()
            .metadata(&file.path)
            .ok()
            .filter(|metadata| Key::of(metadata) == stream.key);
        if named.is_none() && file.place == Place::Matched {
            // Renamed, removed or replaced: look where it is, and what has come in its place.
            self.next_scan = now.at;
        }
        let metadata = match (named, &file.content) {
            (Some(metadata), _) => metadata,
            (None, Some(content)) => match content.metadata() {
                Ok(metadata) => metadata,
                Err(_) => return,
            },
            (None, None) => return,
        };
        if file.notice(&metadata, now.at) {
            self.check(number, &metadata, now);
        } else if file.place == Place::Matched
            && now.at.saturating_sub(file.changed).as_secs() >= CLOSE_AFTER_SECONDS
            && file.rest == 0
        {
            file.content = None;
        }
    }

    /// Whether a file that has changed still is the one that was read; else it is left, and what is in it is new.
    fn check(&mut self, number: u64, metadata: &Metadata, now: Now) {
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        let look = match reopened(stream, self.paths.links()) {
            Ok(()) => {
                let mut content = stream.file.as_mut().and_then(|file| file.content.take());
                let look = match &mut content {
                    Some(content) => stream.look(content, &mut self.buffer),
                    None => Ok(Look::Other),
                };
                if let Some(file) = &mut stream.file {
                    file.content = content;
                }
                look
            }
            Err(error) => Err(error),
        };
        match look {
            Ok(Look::Same) => {}
            // Decoded anew, it may not be written as far.
            Ok(Look::Short) if stream.file.as_ref().is_some_and(|file| file.is_compressed) => {}
            Ok(Look::Short | Look::Other) => {
                info!(
                    path = &*stream.path,
                    bytes = metadata.len(),
                    "a file was truncated or written anew"
                );
                stream.left = Some(stream.key);
                self.by_key.remove(&stream.key);
                stream.detach(now.wall_ms);
                self.next_scan = now.at;
            }
            Err(error) => warn!(path = &*stream.path, "can't be read now: {error}"),
        }
    }
}

/// Opens the file of a stream where it was closed.
pub(super) fn reopened(stream: &mut crate::stream::Stream, links: &Links) -> io::Result<()> {
    let Some(file) = &mut stream.file else {
        return Ok(());
    };
    if file.content.is_none() {
        let (content, metadata) = crate::content::Content::open(&file.path, links)?;
        if Key::of(&metadata) == stream.key {
            file.content = Some(content);
        }
    }
    Ok(())
}

/// The entries of the directory of `path`, with their inodes.
fn entries(path: &Path) -> Vec<(PathBuf, u64)> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Ok(entries) = fs::read_dir(folder.unwrap_or(Path::new("."))) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| (entry.path(), entry.ino()))
        .collect()
}

/// The name that a file has now in the directory where it was.
pub(super) fn beside(path: &Path, key: Key) -> Option<PathBuf> {
    let named = entries(path).into_iter().filter(|(_, inode)| *inode == key.inode);
    let mut paths = named.map(|(path, _)| path);
    paths.find(|path| fs::symlink_metadata(path).is_ok_and(|metadata| Key::of(&metadata) == key))
}
