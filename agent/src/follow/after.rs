//! What becomes of files that are registered: removed or moved, when it is asked for.
//!
//! Only of files to which nobody writes any more: those that were renamed since they were first seen, that are compressed,
//! or whose name is that of another followed file with a number or date behind it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use tracing::{info, warn};

use super::{Follower, Now};
use crate::{
    config::After,
    content::{End, Key},
    links::Located,
    stream::{Place, Stream},
};

impl Follower {
    /// Removes or moves all files that are done with.
    pub(super) fn clear_away(&mut self, now: Now) {
        if self.after == After::Keep || self.once {
            return;
        }
        let done: Vec<u64> = self
            .by_key
            .values()
            .copied()
            .filter(|number| {
                self.streams
                    .get(number)
                    .is_some_and(|stream| self.is_done_with(stream, now))
            })
            .collect();
        for number in done {
            self.settle(number, now);
        }
    }

    fn is_done_with(&self, stream: &Stream, now: Now) -> bool {
        let Some(file) = &stream.file else { return false };
        file.place == Place::Matched
            && is_registered_whole(stream)
            && !self.spool.has_lost(&stream.dataset)
            && now.at.saturating_sub(file.changed) >= self.timing.quiet
            && (file.is_compressed || stream.was_renamed() || self.is_named_after_another(&file.path))
    }

    fn is_named_after_another(&self, path: &Path) -> bool {
        let live = unrotated(path);
        live.is_some_and(|live| {
            let mut files = self.streams.values().filter_map(|stream| stream.file.as_ref());
            files.any(|file| file.path == live && file.place == Place::Matched)
        })
    }

    /// Removes or moves the file of a stream.
    pub(super) fn settle(&mut self, number: u64, now: Now) -> bool {
        let Some(stream) = self.streams.get_mut(&number) else {
            return false;
        };
        let Some(file) = &stream.file else { return false };
        let path = file.path.clone();
        let unchanged = |key: Key, size: u64| key == stream.key && size == file.size();
        let found = self.paths.links().metadata(&path);
        if !found.is_ok_and(|found| unchanged(Key::of(&found), found.size())) {
            return false;
        }
        if self.after == After::Keep {
            return true;
        }
        let located = match self.paths.links().locate(&path) {
            Ok(located) if located.is_link => {
                self.paths.tell(
                    &path,
                    "registered whole, but a symbolic link, which is left where it is",
                );
                return false;
            }
            Ok(located) if unchanged(located.key, located.size) => located,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.paths
                    .tell(&path, &format!("registered whole, but left where it is: {error}"));
                return false;
            }
            _ => return false,
        };
        if stream.alone {
            self.paths.tell(
                &path,
                "one node alone keeps some of it, by an earlier run: `sawmill ship --again --copies 2`, or without --spread, ships it once more",
            );
            return false;
        }
        let settled = match &self.after {
            After::Keep => return true,
            After::Delete => located.remove().map(|()| None),
            After::MoveTo(folder) => moved(&located, folder).map(Some),
        };
        match settled {
            Ok(to) => {
                let to = to.map(|to| to.display().to_string());
                info!(
                    path = &*stream.path,
                    to, "registered whole, and removed from its place"
                );
                self.by_key.remove(&stream.key);
                stream.detach(now.wall_ms);
                stream.complete = true;
                true
            }
            Err(error) => {
                self.paths
                    .tell(&path, &format!("registered whole, but can't be removed: {error}"));
                false
            }
        }
    }
}

/// Whether the mill has every byte of the file.
pub(super) fn is_registered_whole(stream: &Stream) -> bool {
    let Some(file) = &stream.file else { return false };
    let is_whole = file.is_compressed || file.size() == stream.offset;
    file.end == End::Here && file.rest == 0 && is_whole && stream.registered_offset() == stream.offset
}

/// The name without the number or date that a rotation puts behind it; none without one.
fn unrotated(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let live = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.' | '_'));
    let suffix = &name[live.len()..];
    let is_rotation = suffix.starts_with(['-', '.', '_']) && suffix.ends_with(|c: char| c.is_ascii_digit());
    (is_rotation && !live.is_empty()).then(|| path.with_file_name(live))
}

/// Moves a file into a folder, under another name where there is one of its name. Across file systems it is copied, synced
/// and then removed.
fn moved(located: &Located<'_>, folder: &Path) -> io::Result<PathBuf> {
    folders::own(folder)?;
    let free = |count: u32| {
        let mut name = located.name().to_os_string();
        if count > 0 {
            name.push(format!(".{count}"));
        }
        folder.join(name)
    };
    let to = (0..u32::MAX)
        .map(free)
        .find(|to| fs::symlink_metadata(to).is_err());
    let to = to.ok_or_else(|| io::Error::other("no free name"))?;
    match located.rename(&to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copied(located, &to).inspect_err(|error| {
                warn!(path = %to.display(), "a file is not moved here: {error}");
            })?;
        }
        result => result?,
    }
    Ok(to)
}

/// Moves a file to another file system. Where it fails, the file is where it was.
fn copied(located: &Located<'_>, to: &Path) -> io::Result<()> {
    let from = located.open()?;
    // Nobody else reads it before it has the permissions of the file.
    let copy = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    let done = copy_whole(&from, &copy).and_then(|()| located.remove());
    if done.is_err() {
        fs::remove_file(to)?;
    }
    done
}

fn copy_whole(mut from: &File, mut copy: &File) -> io::Result<()> {
    io::copy(&mut from, &mut copy)?;
    let now = from.metadata()?;
    copy.set_permissions(now.permissions())?;
    copy.sync_all()?;
    match copy.metadata()?.len() == now.len() {
        true => Ok(()),
        false => Err(io::Error::other("it changed while it was moved")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Links;

    #[test]
    fn rotated_names_are_told_from_others() {
        let live = |name: &str| unrotated(Path::new(name)).map(|path| path.display().to_string());
        assert_eq!(live("/l/access.log.1").as_deref(), Some("/l/access.log"));
        assert_eq!(live("/l/access.log-20260131").as_deref(), Some("/l/access.log"));
        assert_eq!(live("/l/app.log.2026-01-31").as_deref(), Some("/l/app.log"));
        assert_eq!(
            (live("/l/access.log"), live("/l/web7"), live("/l/access.log.old")),
            (None, None, None)
        );
    }

    #[test]
    fn a_moved_file_never_covers_another() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("done");
        for text in ["one", "two"] {
            let path = dir.path().join("a.log.1");
            fs::write(&path, text).unwrap();
            let links = Links::default();
            let located = links.locate(&path).unwrap();
            let to = moved(&located, &folder).unwrap();
            assert_eq!(fs::read_to_string(to).unwrap(), text);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        // As to another file system.
        let path = dir.path().join("b.log.1");
        fs::write(&path, "three").unwrap();
        let (links, taken) = (Links::default(), folder.join("a.log.1"));
        let located = links.locate(&path).unwrap();
        assert!(copied(&located, &taken).is_err());
        assert!(path.exists() && fs::read_to_string(&taken).unwrap() == "one");
        let to = folder.join("b.log.1");
        copied(&located, &to).unwrap();
        assert!(!path.exists() && fs::read_to_string(&to).unwrap() == "three");
    }
}
