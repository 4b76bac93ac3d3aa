//! Files that are there whole or not at all: written beside, synced, renamed, the directory synced.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// Ending of files that are being written; what a crash leaves of them is removed at the next start.
pub(crate) const UNFINISHED: &str = "new";

/// Writes and removes files of the state directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) fuse: Option<std::sync::Arc<std::sync::atomic::AtomicI64>>,
}

impl Disk {
    /// A place where a test lets the process die.
    fn step(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(fuse) = &self.fuse
            && fuse.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) <= 0
        {
            return Err(io::Error::other("the test lets the agent die here"));
        }
        let _ = self;
        Ok(())
    }

    /// Puts a file of these parts at `path`, in place of what is there. On return it outlives a crash of the machine.
    pub(crate) fn put(&self, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        self.step()?;
        let new = path.with_extension(UNFINISHED);
        let mut file = File::create(&new)?;
        for part in parts {
            file.write_all(part)?;
            self.step()?;
        }
        file.sync_data()?;
        self.step()?;
        fs::rename(&new, path)?;
        self.step()?;
        sync_folder(path)
    }

    /// Appends to a file, which is made where there is none. Not synced.
    pub(crate) fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        let mut file = File::options().create(true).append(true).open(path)?;
        file.write_all(bytes)
    }

    /// Removes a file; one that is gone already is no error. Not synced: a file that comes back is removed again.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Has what was removed from the directory of `path` outlive a crash of the machine.
    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        sync_folder(path)
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
