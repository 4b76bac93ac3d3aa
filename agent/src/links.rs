//! Files by the names that others give them: without symbolic links, unless these are asked for.
//!
//! Promise: below the directory that the user has named (a pattern up to its first wildcard) nothing is opened through a link,
//! unless links are followed, and nothing is removed through one even then; what is removed is the file that was looked at, in
//! the directory in which it was seen. So whoever may write to a followed directory can't have any other file read or removed.
//! Links in what the user has named are followed.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

use crate::content::Key;

/// Why a link is not read.
pub(crate) const IS_LINK: &str =
    "it is a symbolic link, and what links lead to is read only with --follow-links";
const BY_LINK: &str = "a symbolic link leads to its directory, and what links lead to is read only with --follow-links, and never removed";

/// Which links are followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links {
    follow: bool,
    /// The directories that the user has named.
    named: Vec<PathBuf>,
}

impl Links {
    pub(crate) fn new(follow: bool, named: Vec<PathBuf>) -> Self {
        Self { follow, named }
    }

    /// What is at a path: the link itself where it is not followed. A path through links that are not followed is an error,
    /// so that it never stands for the file that it leads to.
    pub(crate) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        if self.follow {
            return fs::metadata(path);
        }
        let (folder, name) = self.folder(path)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        File::from(openat(&folder, name, flags, Mode::empty())?).metadata()
    }

    /// Opens a file to be read; never waits, as opening a FIFO would.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        if self.follow {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
            return options.open(path);
        }
        let (folder, name) = self.folder(path)?;
        open_in(&folder, name)
    }

    /// Finds the file at a path, to remove or move it: through no link below what was named, even where links are followed.
    pub(crate) fn locate<'a>(&self, path: &'a Path) -> io::Result<Located<'a>> {
        let (folder, name) = self.folder(path)?;
        let stat = fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(Located {
            key: key(&stat),
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            is_link: stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits(),
            folder,
            name,
        })
    }

    /// The directory of a path, without links below what was named, and the name in it.
    fn folder<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let named = self.named.iter().filter(|named| parent.starts_with(named));
        let named = named.max_by_key(|named| named.as_os_str().len());
        let named = named.map_or(parent, PathBuf::as_path);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut folder = open(named, flags, Mode::empty())?;
        for part in parent.strip_prefix(named).unwrap_or(Path::new("")) {
            let next = openat(&folder, part, flags | OFlag::O_NOFOLLOW, Mode::empty());
            folder = next.map_err(|error| match error {
                // A link is no directory.
                Errno::ENOTDIR | Errno::ELOOP => io::Error::other(BY_LINK),
                error => error.into(),
            })?;
        }
        Ok((folder, name))
    }
}

fn open_in(folder: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = openat(folder, name, flags, Mode::empty());
    let opened = opened.map_err(|error| match error {
        Errno::ELOOP => io::Error::other(IS_LINK),
        error => error.into(),
    });
    Ok(File::from(opened?))
}

fn key(stat: &FileStat) -> Key {
    Key {
        device: stat.st_dev,
        inode: stat.st_ino,
    }
}

/// A file in an open directory.
pub(crate) struct Located<'a> {
    pub(crate) key: Key,
    /// In bytes, as stored.
    pub(crate) size: u64,
    pub(crate) is_link: bool,
    folder: OwnedFd,
    name: &'a OsStr,
}

impl Located<'_> {
    pub(crate) fn name(&self) -> &OsStr {
        self.name
    }

    /// Opens it to be read.
    pub(crate) fn open(&self) -> io::Result<File> {
        let file = open_in(&self.folder, self.name)?;
        match Key::of(&file.metadata()?) == self.key {
            true => Ok(file),
            false => Err(replaced()),
        }
    }

    /// Removes it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.check()?;
        Ok(unlinkat(&self.folder, self.name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Gives it another name.
    pub(crate) fn rename(&self, to: &Path) -> io::Result<()> {
        self.check()?;
        Ok(renameat(&self.folder, self.name, AT_FDCWD, to)?)
    }

    /// The name may stand for another file by now.
    fn check(&self) -> io::Result<()> {
        let now = fstatat(&self.folder, self.name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match key(&now) == self.key {
            true => Ok(()),
            false => Err(replaced()),
        }
    }
}

fn replaced() -> io::Error {
    io::Error::other("another file has taken its place")
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::fs::symlink};

    use super::*;

    fn read(links: &Links, path: &Path) -> Result<String, String> {
        let mut text = String::new();
        let mut file = links.open(path).map_err(|error| error.to_string())?;
        file.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn no_link_below_what_was_named_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("logs/app")).unwrap();
        fs::create_dir_all(at("secrets")).unwrap();
        fs::write(at("logs/app/a.log"), "a line\n").unwrap();
        fs::write(at("secrets/key.log"), "secret\n").unwrap();
        symlink(at("secrets/key.log"), at("logs/app/link.log")).unwrap();
        symlink(at("secrets"), at("logs/linked")).unwrap();
        symlink(at("logs"), at("here")).unwrap();
        let links = Links::new(false, vec![at("logs"), at("here")]);
        assert_eq!(read(&links, &at("logs/app/a.log")).unwrap(), "a line\n");
        // The user has named it by a link.
        assert_eq!(read(&links, &at("here/app/a.log")).unwrap(), "a line\n");
        for (path, why) in [
            ("logs/app/link.log", IS_LINK),
            ("logs/linked/key.log", BY_LINK),
            ("here/linked/key.log", BY_LINK),
        ] {
            assert_eq!(read(&links, &at(path)).unwrap_err(), why, "{path}");
        }
        let followed = Links::new(true, vec![at("logs")]);
        for path in ["logs/app/link.log", "logs/linked/key.log"] {
            assert_eq!(read(&followed, &at(path)).unwrap(), "secret\n");
        }
        // What is removed is never behind a link.
        assert!(followed.locate(&at("logs/app/link.log")).unwrap().is_link);
        let behind = followed.locate(&at("logs/linked/key.log")).map(|_| ());
        assert_eq!(behind.unwrap_err().to_string(), BY_LINK);
        assert!(links.metadata(&at("logs/app/link.log")).unwrap().is_symlink());
        assert!(links.metadata(&at("here/app/a.log")).unwrap().is_file());
        assert!(links.metadata(&at("logs/linked/key.log")).is_err());
    }

    #[test]
    fn a_path_that_was_swapped_costs_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("logs/app")).unwrap();
        fs::create_dir_all(at("precious")).unwrap();
        let path = at("logs/app/a.log");
        fs::write(&path, "shipped\n").unwrap();
        fs::write(at("precious/a.log"), "precious\n").unwrap();
        let links = Links::new(false, vec![at("logs")]);
        // Its directory is another, after it was looked at.
        let located = links.locate(&path).unwrap();
        fs::rename(at("logs/app"), at("logs/old")).unwrap();
        symlink(at("precious"), at("logs/app")).unwrap();
        located.remove().unwrap();
        assert!(at("precious/a.log").exists() && !at("logs/old/a.log").exists());
        assert!(links.locate(&path).is_err());
        // Its name stands for another file.
        let path = at("logs/old/a.log");
        fs::write(&path, "shipped\n").unwrap();
        let located = links.locate(&path).unwrap();
        fs::rename(at("precious/a.log"), &path).unwrap();
        for refused in [
            located.remove(),
            located.rename(&at("moved")),
            located.open().map(drop),
        ] {
            assert!(refused.unwrap_err().to_string().contains("another file"));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious\n");
    }
}
