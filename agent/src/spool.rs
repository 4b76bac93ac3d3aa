//! Blocks on disk that the mill has not acknowledged, numbered per dataset.
//!
//! Promise: a block is synced, with the positions of its files behind it, before anybody sees it here; its number means
//! these bytes for ever. What is read again after a crash is what stands in no whole block. No promise that a file is
//! gone as soon as it is acknowledged: it goes when the positions are kept elsewhere ([`Spool::remove`]).
//!
//! Filled by the thread that packs, emptied by the uplink, cleared by the thread that follows files.

mod file;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::Name;
use tokio::sync::Notify;
use tracing::warn;

pub(crate) use self::file::Header;
use crate::{Error, block::CutBlock, disk::Disk, object::Object};

/// The blocks of all datasets.
pub(crate) struct Spool {
    disk: Disk,
    dir: PathBuf,
    inner: Mutex<Inner>,
    /// Told of blocks that came.
    filled: Notify,
}

#[derive(Default)]
struct Inner {
    datasets: BTreeMap<Name, Queue>,
    /// Acknowledged, and still on disk.
    acknowledged: Vec<Arc<Header>>,
    stored_bytes: u64,
    /// Lines that were read and are in no file here yet.
    unspooled_bytes: u64,
}

#[derive(Default)]
struct Queue {
    /// All up to here are registered.
    registered: u64,
    blocks: BTreeMap<u64, Arc<Header>>,
}

impl Queue {
    /// All up to here are cut.
    fn last(&self) -> u64 {
        self.blocks
            .keys()
            .next_back()
            .copied()
            .unwrap_or(0)
            .max(self.registered)
    }
}

/// What waits in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Bytes on disk.
    pub(crate) stored_bytes: u64,
    /// Bytes of lines that are not registered.
    pub(crate) raw_bytes: u64,
    /// When the first of these lines was read, in milliseconds since 1970.
    pub(crate) oldest_ms: Option<i64>,
}

impl Spool {
    /// Reads what is there; `registered` tells up to where blocks are registered and not needed any more.
    pub(crate) fn open(dir: &Path, registered: &BTreeMap<Name, u64>, disk: Disk) -> Result<Self, Error> {
        let mut inner = Inner::default();
        for (dataset, registered) in registered {
            inner.datasets.entry(dataset.clone()).or_default().registered = *registered;
        }
        let failed = |source| Error::State {
            path: dir.to_path_buf(),
            source,
        };
        fs::create_dir_all(dir).map_err(failed)?;
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().and_then(|name| Name::new(name).ok());
            if let Some(dataset) = name {
                let queue = inner.datasets.entry(dataset.clone()).or_default();
                queue.load(&entry.path(), &dataset, &disk).map_err(failed)?;
            }
        }
        let blocks = inner.datasets.values().flat_map(|queue| queue.blocks.values());
        inner.stored_bytes = blocks.map(|header| header.stored_bytes).sum();
        Ok(Self {
            disk,
            dir: dir.to_path_buf(),
            inner: Mutex::new(inner),
            filled: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, dataset: &Name, sequence: u64) -> PathBuf {
        self.dir.join(dataset.as_str()).join(file::name(sequence))
    }

    /// All headers, those of one dataset in order.
    pub(crate) fn headers(&self) -> Vec<Arc<Header>> {
        let inner = self.lock();
        let queues = inner.datasets.values();
        queues.flat_map(|queue| queue.blocks.values().cloned()).collect()
    }

    /// Lines were read that will come by [`Spool::commit`].
    pub(crate) fn announce(&self, raw_bytes: u64) {
        self.lock().unspooled_bytes += raw_bytes;
    }

    /// Gives a block its number and puts it on disk. On an error nothing has happened; try again.
    pub(crate) fn commit(&self, block: &CutBlock, object: &Object) -> io::Result<u64> {
        let sequence = {
            let mut inner = self.lock();
            inner.datasets.entry(block.dataset.clone()).or_default().last() + 1
        };
        let header = Header::new(block, object, sequence);
        let path = self.path(&block.dataset, sequence);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        file::write(&self.disk, &path, &header, &object.data)?;
        let mut inner = self.lock();
        inner.stored_bytes += header.stored_bytes;
        inner.unspooled_bytes = inner.unspooled_bytes.saturating_sub(header.raw_bytes);
        let queue = inner.datasets.entry(block.dataset.clone()).or_default();
        queue.blocks.insert(sequence, Arc::new(header));
        drop(inner);
        self.filled.notify_one();
        Ok(sequence)
    }

    /// The datasets that have blocks.
    pub(crate) fn datasets(&self) -> Vec<Name> {
        let inner = self.lock();
        let with_blocks = inner
            .datasets
            .iter()
            .filter(|(_, queue)| !queue.blocks.is_empty());
        with_blocks.map(|(name, _)| name.clone()).collect()
    }

    /// The first block of a dataset above `sequence`.
    pub(crate) fn next(&self, dataset: &Name, sequence: u64) -> Option<Arc<Header>> {
        let inner = self.lock();
        let queue = inner.datasets.get(dataset)?;
        queue
            .blocks
            .range(sequence + 1..)
            .next()
            .map(|(_, header)| Arc::clone(header))
    }

    /// The data of a block.
    pub(crate) fn data(&self, header: &Header) -> io::Result<Vec<u8>> {
        file::data(&self.path(&header.dataset, header.sequence), header)
    }

    /// Waits for a block to come. One who waits is told; dropping the future loses nothing.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// All blocks of a dataset up to `sequence` are registered. Gives the lines' bytes of those that were not before.
    ///
    /// # Errors
    /// [`Error::Outdated`] for blocks that were never cut here.
    pub(crate) fn acknowledge(&self, dataset: &Name, sequence: u64) -> Result<u64, Error> {
        let mut inner = self.lock();
        let queue = inner.datasets.entry(dataset.clone()).or_default();
        let known = queue.last();
        if sequence > known {
            return Err(Error::Outdated {
                dataset: dataset.to_string(),
                registered: sequence,
                known,
            });
        }
        let left = queue.blocks.split_off(&(sequence + 1));
        let gone = std::mem::replace(&mut queue.blocks, left);
        queue.registered = queue.registered.max(sequence);
        let bytes = gone.values().map(|header| header.raw_bytes).sum();
        inner.acknowledged.extend(gone.into_values());
        Ok(bytes)
    }

    /// The blocks that were acknowledged since the last call, those of one dataset in order.
    pub(crate) fn take_acknowledged(&self) -> Vec<Arc<Header>> {
        std::mem::take(&mut self.lock().acknowledged)
    }

    /// Removes acknowledged blocks, whose positions are kept elsewhere by now.
    pub(crate) fn remove(&self, blocks: &[Arc<Header>]) -> io::Result<()> {
        for header in blocks {
            self.disk.remove(&self.path(&header.dataset, header.sequence))?;
            let mut inner = self.lock();
            inner.stored_bytes = inner.stored_bytes.saturating_sub(header.stored_bytes);
        }
        Ok(())
    }

    /// Bytes on disk, and of lines that are on their way to it.
    pub(crate) fn bytes(&self) -> u64 {
        let inner = self.lock();
        inner.stored_bytes + inner.unspooled_bytes
    }

    /// What is not registered yet.
    pub(crate) fn waiting(&self) -> Waiting {
        let inner = self.lock();
        let blocks = || inner.datasets.values().flat_map(|queue| queue.blocks.values());
        Waiting {
            stored_bytes: inner.stored_bytes,
            raw_bytes: inner.unspooled_bytes + blocks().map(|header| header.raw_bytes).sum::<u64>(),
            oldest_ms: blocks().map(|header| header.read_ms).min(),
        }
    }

    /// Whether nothing waits for an acknowledgement.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().datasets.values().all(|queue| queue.blocks.is_empty())
    }
}

impl Queue {
    /// Reads the folder of a dataset: the blocks that follow what is registered, up to the first that is torn.
    fn load(&mut self, folder: &Path, dataset: &Name, disk: &Disk) -> io::Result<()> {
        let mut sequences = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match file::sequence(&path) {
                Some(sequence) if sequence > self.registered => sequences.push((sequence, path)),
                // Acknowledged, or never finished.
                _ => disk.remove(&path)?,
            }
        }
        sequences.sort();
        let last = sequences.last().map_or(0, |(sequence, _)| *sequence);
        for (sequence, path) in sequences {
            // Only the last can be torn by a crash, the others were synced before it; their sizes are compared all the same.
            let read = file::header(&path, dataset, sequence, sequence == last);
            let header = match read {
                Ok(header) if sequence == self.last() + 1 => header,
                Ok(_) => {
                    warn!(
                        dataset = dataset.as_str(),
                        sequence, "a block without its predecessor: its lines are read again"
                    );
                    disk.remove(&path)?;
                    continue;
                }
                Err(why) => {
                    warn!(dataset = dataset.as_str(), sequence, %why, "a torn block: its lines are read again");
                    disk.remove(&path)?;
                    continue;
                }
            };
            self.blocks.insert(sequence, Arc::new(header));
        }
        Ok(())
    }
}
