//! The blocks that a node keeps in a directory of its own.
//!
//! Promise: what [`LocalStore::put`] acknowledged is synced, and nothing that was put within the last hour is swept.
//! A directory belongs to one node of one process at a time: two that share it would sweep each other's blocks.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use model::{Name, place::BlockKey};

use crate::Error;

/// What a file is called until it is whole.
pub(crate) const PARTIAL: &str = ".partial-";
/// Bytes hashed at once.
const PIECE_BYTES: usize = 256 * 1024;

/// The directory of a node; clones share it.
#[derive(Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

struct Inner {
    node: Name,
    folder: PathBuf,
    /// Locked for as long as this lives.
    _lock: File,
    /// Held while a file is kept from being swept, and while one is swept.
    sweeping: Mutex<()>,
}

impl LocalStore {
    /// Takes a directory for a node, and makes it where there is none.
    ///
    /// # Errors
    /// [`Error::Io`] where it can't be used, [`Error::OtherNode`] where another node has it.
    pub fn open(folder: impl Into<PathBuf>, node: &Name) -> Result<Self, Error> {
        let folder = folder.into();
        let failed = |source| Error::Io {
            doing: "can't keep blocks in",
            path: folder.clone(),
            source,
        };
        folders::own(&folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut owner = options.open(folder.join("node")).map_err(failed)?;
        let other = |owner: &str| Error::OtherNode {
            path: folder.clone(),
            owner: owner.to_string(),
        };
        let mut found = String::new();
        owner.read_to_string(&mut found).map_err(failed)?;
        let found = found.trim();
        match owner.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(other(&format!("{found}, which runs"))),
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        match found {
            "" => {
                let written = writeln!(owner, "{node}").and_then(|()| owner.sync_all());
                written.and_then(|()| sync_folder(&folder)).map_err(failed)?;
            }
            found if found == node.as_str() => {}
            found => return Err(other(found)),
        }
        Ok(Self {
            inner: Arc::new(Inner {
                node: node.clone(),
                folder,
                _lock: owner,
                sweeping: Mutex::new(()),
            }),
        })
    }

    /// Whose it is.
    pub fn node(&self) -> &Name {
        &self.inner.node
    }

    /// Keeps a block, synced. Safe to repeat: what is there and is the same stays as it is. With `verify` what was written
    /// is read back and compared.
    ///
    /// Dropping the future keeps it or not.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Corrupt`] where the bytes are not those of the checksum.
    pub async fn put(
        &self,
        key: &BlockKey,
        bytes: Vec<Bytes>,
        checksum: blake3::Hash,
        verify: bool,
    ) -> Result<(), Error> {
        let (own, key) = (self.clone(), key.clone());
        blocking(move || own.put_now(&key, &bytes, checksum, verify)).await
    }

    /// Opens a block, standing at its beginning, with its bytes.
    ///
    /// # Errors
    /// [`Error::Io`], also for one that is not there.
    pub async fn open_block(&self, key: &BlockKey) -> Result<(File, u64), Error> {
        let path = self.path(key);
        blocking(move || {
            let (file, metadata) = crate::files::open(&path)?;
            Ok((file, metadata.len()))
        })
        .await
    }

    /// The same, of as many bytes as there must be, with this checksum if there is one.
    pub(crate) async fn open_checked(
        &self,
        key: &BlockKey,
        bytes: u64,
        checksum: Option<blake3::Hash>,
    ) -> Result<File, Error> {
        let (file, _) = self.open_block(key).await?;
        checked(file, bytes, checksum, &key.to_string()).await
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.inner.folder
    }

    fn path(&self, key: &BlockKey) -> PathBuf {
        self.inner.folder.join(key.as_str())
    }

    fn put_now(
        &self,
        key: &BlockKey,
        bytes: &[Bytes],
        checksum: blake3::Hash,
        verify: bool,
    ) -> Result<(), Error> {
        let path = self.path(key);
        let failed = |source| Error::Io {
            doing: "can't write",
            path: path.clone(),
            source,
        };
        let parent = path.parent().unwrap_or(&self.inner.folder);
        if self.is_kept(&path, checksum) {
            // Who put it may not have come so far.
            return sync_folder(parent).map_err(failed);
        }
        self.make_folder(parent).map_err(failed)?;
        let mut file = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempfile_in(parent)
            .map_err(failed)?;
        let mut hasher = blake3::Hasher::new();
        for bytes in bytes {
            hasher.update(bytes);
            file.write_all(bytes).map_err(failed)?;
        }
        if hasher.finalize() != checksum {
            return Err(Error::Corrupt { url: key.to_string() });
        }
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        sync_folder(parent).map_err(failed)?;
        if verify && hash_of(&mut File::open(&path).map_err(failed)?).map_err(failed)? != checksum {
            return Err(Error::Corrupt { url: key.to_string() });
        }
        Ok(())
    }

    /// Whether a block is there with these bytes; it is not swept for an hour then.
    fn is_kept(&self, path: &Path, checksum: blake3::Hash) -> bool {
        let touched = {
            let _now = self.sweeping();
            let file = File::options().read(true).write(true).open(path);
            file.and_then(|file| {
                file.set_modified(SystemTime::now())?;
                Ok(file)
            })
        };
        touched.is_ok_and(|mut file| hash_of(&mut file).is_ok_and(|found| found == checksum))
    }

    pub(crate) fn sweeping(&self) -> std::sync::MutexGuard<'_, ()> {
        self.inner.sweeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a folder below the directory, and syncs what it is made in.
    pub(crate) fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(folder)?;
        let ours = folder.ancestors().skip(1);
        for above in ours.take_while(|above| above.starts_with(&self.inner.folder)) {
            sync_folder(above)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "LocalStore({} of {})",
            self.inner.folder.display(),
            self.inner.node
        )
    }
}

/// The file, standing at its beginning, if it has so many bytes and this checksum.
pub(crate) async fn checked(
    mut file: File,
    bytes: u64,
    checksum: Option<blake3::Hash>,
    name: &str,
) -> Result<File, Error> {
    let url = name.to_string();
    blocking(move || {
        let failed = |source| Error::Io {
            doing: "can't read",
            path: PathBuf::from(&url),
            source,
        };
        file.rewind().map_err(failed)?;
        let is_whole = file.metadata().map_err(failed)?.len() == bytes;
        let is_same = match checksum {
            Some(checksum) if is_whole => hash_of(&mut file).map_err(failed)? == checksum,
            _ => is_whole,
        };
        if !is_same {
            return Err(Error::Corrupt { url: url.clone() });
        }
        file.rewind().map_err(failed)?;
        Ok(file)
    })
    .await
}

fn hash_of(file: &mut File) -> io::Result<blake3::Hash> {
    let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; PIECE_BYTES]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize()),
            read => hasher.update(&piece[..read]),
        };
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(Error::Io {
            doing: "can't go on with",
            path: PathBuf::from("a block"),
            source: io::Error::other(error),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(number: u64) -> BlockKey {
        let key = format!("blocks/mill/access/web7/00000000-0000-4000-8000-00000000000a/{number:012}.zst");
        key.parse().unwrap()
    }

    fn node(name: &str) -> Name {
        Name::new(name).unwrap()
    }

    async fn put(store: &LocalStore, number: u64, text: &'static str) -> Result<(), Error> {
        let bytes = vec![Bytes::from_static(text.as_bytes())];
        store
            .put(&key(number), bytes, blake3::hash(text.as_bytes()), true)
            .await
    }

    #[tokio::test]
    async fn what_was_put_is_read_and_a_broken_one_is_told_and_mended() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path(), &node("a")).unwrap();
        put(&store, 1, "lines\n").await.unwrap();
        put(&store, 1, "lines\n").await.unwrap();
        let hash = blake3::hash(b"lines\n");
        let open = async || store.open_checked(&key(1), 6, Some(hash)).await;
        let mut text = String::new();
        open().await.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "lines\n");
        fs::write(folder.path().join(key(1).as_str()), "lined\n").unwrap();
        assert!(matches!(open().await, Err(Error::Corrupt { .. })));
        put(&store, 1, "lines\n").await.unwrap();
        assert!(open().await.is_ok());
        let wrong = store
            .put(&key(2), vec![Bytes::from_static(b"x")], hash, false)
            .await;
        assert!(matches!(wrong, Err(Error::Corrupt { .. })));
        assert!(store.open_block(&key(2)).await.unwrap_err().is_not_found());
    }

    #[test]
    fn a_directory_belongs_to_one_node() {
        let folder = tempfile::tempdir().unwrap();
        let first = LocalStore::open(folder.path(), &node("a")).unwrap();
        let again = LocalStore::open(folder.path(), &node("a")).unwrap_err();
        assert!(again.to_string().contains("which runs"), "{again}");
        drop(first);
        let other = LocalStore::open(folder.path(), &node("b"));
        assert!(matches!(other, Err(Error::OtherNode { owner, .. }) if owner == "a"));
        LocalStore::open(folder.path(), &node("a")).unwrap();
    }

    #[tokio::test]
    async fn only_what_is_old_and_unnamed_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path(), &node("a")).unwrap();
        for number in 1..=3 {
            put(&store, number, "x\n").await.unwrap();
        }
        let (old, now) = (SystemTime::now() - Duration::from_secs(7200), SystemTime::now());
        for number in [1, 2] {
            let path = folder.path().join(key(number).as_str());
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
        let before = now - Duration::from_secs(3600);
        assert_eq!(store.sweep("mill", before, |named| *named == key(2)).unwrap(), 1);
        assert!(store.open_block(&key(1)).await.is_err());
        // What is named again is put back; what is not goes after a week.
        assert_eq!(store.sweep("mill", before, |_| true).unwrap(), 0);
        assert!(store.open_block(&key(1)).await.is_ok());
        assert_eq!(store.sweep("mill", before, |named| *named == key(2)).unwrap(), 1);
        let trash = folder.path().join("trash");
        let days = || {
            fs::read_dir(&trash)
                .unwrap()
                .map(|day| day.unwrap().path())
                .collect::<Vec<_>>()
        };
        fs::rename(&days()[0], trash.join("2020-01-01")).unwrap();
        assert_eq!(store.sweep("mill", before, |_| true).unwrap(), 0);
        assert!(store.open_block(&key(1)).await.is_ok());
        assert_eq!(store.sweep("mill", before, |named| *named == key(2)).unwrap(), 1);
        fs::rename(&days()[0], trash.join("2020-01-01")).unwrap();
        store.sweep("mill", before, |named| *named == key(2)).unwrap();
        assert!(days().is_empty(), "{:?}", days());
        // Put once more, it is as if it were new.
        put(&store, 2, "x\n").await.unwrap();
        assert_eq!(store.sweep("mill", before, |_| false).unwrap(), 0);
        assert!(store.open_block(&key(3)).await.is_ok() && !store.has_any("other"));
    }
}
