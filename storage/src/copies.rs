//! Copies of remote blocks that a node keeps on its disk, so that they travel once.
//!
//! A copy is named by what was copied: URL, range, size, modification time and ETag. It appears as a whole or not at all, and
//! the ones that were not read for longest give way. A disk that does not take copies costs only them.

use std::{
    fs::File,
    io::{self, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    time::SystemTime,
};

use bytes::Bytes;
use object_store::{ObjectStore, path::Path as Key};
use tempfile::NamedTempFile;

use crate::{BlockReader, Error, objects};

/// Bytes kept when room is made, of 10: so that not every copy has to make room.
const TENTHS_KEPT: u64 = 9;

/// The folder of the copies.
#[derive(Debug)]
pub(crate) struct Copies {
    folder: PathBuf,
    most_bytes: u64,
}

/// What is copied.
#[derive(Clone, Debug)]
pub(crate) struct Original<'a> {
    pub(crate) url: &'a str,
    pub(crate) range: Range<u64>,
    pub(crate) size: u64,
    pub(crate) mtime_ms: i64,
    /// Its ETag, where it is known.
    pub(crate) version: Option<&'a str>,
}

impl Copies {
    pub(crate) fn new(folder: PathBuf, most_bytes: u64) -> Self {
        Self { folder, most_bytes }
    }

    /// The bytes of a remote block, from the copy if there is one.
    pub(crate) async fn fetch(
        &self,
        store: &dyn ObjectStore,
        key: &Key,
        original: Original<'_>,
    ) -> Result<BlockReader, Error> {
        let (range, url) = (original.range.clone(), original.url);
        let remaining = range.end.saturating_sub(range.start);
        if let Some(file) = self.found(&original) {
            return Ok(BlockReader::File { file, remaining });
        }
        let Some(copy) = self.begin() else {
            return objects::fetch(store, key, range, url).await;
        };
        let into = || copy.reopen();
        let reader = match objects::fetch_into(store, key, range.clone(), url, into).await {
            Err(Error::Io { .. }) => return objects::fetch(store, key, range, url).await,
            other => other?,
        };
        self.keep(copy, &original);
        Ok(reader)
    }

    /// The copy, where there is one and the folder can be used.
    pub(crate) fn found(&self, original: &Original<'_>) -> Option<File> {
        let bytes = original.range.end.saturating_sub(original.range.start);
        self.is_usable()
            .then(|| found(&self.folder.join(name(original)), bytes))?
    }

    /// A file that may become a copy; none where the disk takes none.
    pub(crate) fn begin(&self) -> Option<NamedTempFile> {
        if !self.is_usable() {
            return None;
        }
        let mut file = tempfile::Builder::new();
        file.prefix("partial-").tempfile_in(&self.folder).ok()
    }

    /// Makes a whole file the copy.
    pub(crate) fn keep(&self, copy: NamedTempFile, original: &Original<'_>) {
        // Synced first: after a power failure a copy is whole or not there.
        let path = self.folder.join(name(original));
        let kept = copy.as_file().sync_data().and_then(|()| Ok(copy.persist(&path)?));
        match kept {
            Ok(_) => self.make_room(),
            Err(error) => tracing::debug!("no copy of {} is kept: {error}", original.url),
        }
    }

    /// Makes these bytes the copy, so that nobody has to fetch them.
    pub(crate) fn warm(&self, bytes: &[Bytes], original: &Original<'_>) {
        let Some(mut copy) = self.begin() else { return };
        match bytes.iter().try_for_each(|bytes| copy.write_all(bytes)) {
            Ok(()) => self.keep(copy, original),
            Err(error) => tracing::debug!("no copy of {} is kept: {error}", original.url),
        }
    }

    fn is_usable(&self) -> bool {
        // It may stand among everybody's temporary files.
        let owned = folders::private(&self.folder);
        if let Err(error) = &owned {
            tracing::debug!("no copies in {}: {error}", self.folder.display());
        }
        owned.is_ok()
    }

    /// Removes the copies that were not read for longest, once they are too many.
    fn make_room(&self) {
        let Ok(mut copies) = list(&self.folder) else {
            return;
        };
        let mut bytes: u64 = copies.iter().map(|(_, bytes, _)| bytes).sum();
        if bytes <= self.most_bytes {
            return;
        }
        copies.sort_unstable();
        for (_, size, path) in copies {
            if bytes <= self.most_bytes / 10 * TENTHS_KEPT {
                break;
            }
            // Who reads it at this moment keeps it open; another process may have been faster.
            if std::fs::remove_file(path).is_ok() {
                bytes -= size;
            }
        }
    }
}

fn name(original: &Original<'_>) -> String {
    let mut hasher = blake3::Hasher::new();
    let Original {
        url,
        range,
        size,
        mtime_ms,
        version,
    } = original;
    for number in [range.start, range.end, *size, mtime_ms.cast_unsigned()] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(url.as_bytes());
    if let Some(version) = version {
        hasher.update(b"\0").update(version.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The copy, if it is whole; from now on it is the one that was read last.
fn found(path: &Path, bytes: u64) -> Option<File> {
    let file = File::options().read(true).write(true).open(path).ok()?;
    if file.metadata().ok()?.len() != bytes {
        return None;
    }
    // Only the order in which copies give way depends on it.
    let _ = file.set_modified(SystemTime::now());
    Some(file)
}

/// When each copy was read last, its size and its path.
fn list(folder: &Path) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
    let mut copies = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // One that another process has just removed is none.
        if let Ok(metadata) = entry.metadata() {
            copies.push((metadata.modified()?, metadata.len(), entry.path()));
        }
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use object_store::{ObjectStoreExt, memory::InMemory};

    use super::*;

    async fn read(copies: &Copies, store: &InMemory, key: &Key, range: Range<u64>) -> String {
        let original = Original {
            url: "memory:///a",
            range,
            size: 10,
            mtime_ms: 5,
            version: None,
        };
        let mut reader = copies.fetch(store, key, original).await.unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).unwrap();
        text
    }

    #[tokio::test]
    async fn a_block_travels_once_and_the_oldest_copy_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let copies = Copies::new(folder.path().join("blocks"), 8);
        let (store, key) = (InMemory::new(), Key::from("a"));
        store.put(&key, "0123456789".into()).await.unwrap();
        assert_eq!(read(&copies, &store, &key, 2..6).await, "2345");
        store.put(&key, "abcdefghij".into()).await.unwrap();
        assert_eq!(read(&copies, &store, &key, 2..6).await, "2345", "from the copy");
        assert_eq!(read(&copies, &store, &key, 0..4).await, "abcd");
        assert_eq!(list(&copies.folder).unwrap().len(), 2);
        assert_eq!(read(&copies, &store, &key, 6..10).await, "ghij");
        let left: u64 = list(&copies.folder)
            .unwrap()
            .iter()
            .map(|(_, bytes, _)| bytes)
            .sum();
        assert!(left <= 8, "{left}");
        assert_eq!(read(&copies, &store, &key, 6..10).await, "ghij");
    }

    #[test]
    fn a_folder_where_others_write_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let copies = Copies::new(folder.path().join("blocks"), 8);
        assert!(copies.begin().is_some());
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&copies.folder, open).unwrap();
        assert!(copies.begin().is_none());
    }

    #[tokio::test]
    async fn without_room_for_copies_blocks_are_read_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("blocks"), "a file").unwrap();
        let copies = Copies::new(folder.path().join("blocks"), 100);
        let (store, key) = (InMemory::new(), Key::from("a"));
        store.put(&key, "0123456789".into()).await.unwrap();
        assert_eq!(read(&copies, &store, &key, 2..6).await, "2345");
    }
}
