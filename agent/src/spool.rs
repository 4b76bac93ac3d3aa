//! Blocks on disk that the mill has not acknowledged, numbered per dataset.
//!
//! Promise: a block is synced, with the positions of its files behind it, before anybody sees it here; its number means
//! these bytes for ever. What is read again after a crash is what stands in no whole block. No promise that a file is
//! gone as soon as it is acknowledged: it goes when the positions are kept elsewhere ([`Spool::remove`]).
//!
//! Filled by the thread that packs, emptied by the uplink, cleared by the thread that follows files.

mod file;
mod lanes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::Name;
use tokio::sync::Notify;
use tracing::warn;
use uuid::Uuid;

use self::file::Unusable;
pub(crate) use self::{
    file::{Header, decode_any, written_any},
    lanes::Lane,
};
use crate::{Error, block::CutBlock, disk::Disk, object::Object};

/// Folder of the state directory that has the blocks.
const FOLDER: &str = "spool";

/// The blocks of all datasets.
pub(crate) struct Spool {
    disk: Disk,
    /// The state directory.
    dir: PathBuf,
    inner: Mutex<Inner>,
    /// Held while what is known of the lanes is copied, written and noted as written.
    keeping: Mutex<()>,
    /// Told of blocks that came.
    filled: Notify,
}

#[derive(Default)]
struct Inner {
    datasets: BTreeMap<Name, Queue>,
    /// Acknowledged, and still on disk.
    acknowledged: Vec<Acknowledged>,
    /// What is known of the lanes is on disk.
    lanes_kept: bool,
    stored_bytes: u64,
    /// Lines that were read and are in no file here yet.
    unspooled_bytes: u64,
}

/// A block that the mill has, and the incarnation of its dataset that took it, where that was told.
pub(crate) type Acknowledged = (Arc<Header>, Option<Uuid>);

#[derive(Default)]
struct Queue {
    /// All up to here are registered.
    registered: u64,
    /// All up to here are on disk no more.
    removed: u64,
    /// No more than up to here can the mill know: what was found on disk, which may have been sent before, and what was sent.
    sent: u64,
    /// Of those up to here the cluster may have some without having said so.
    doubtful: u64,
    blocks: BTreeMap<u64, Arc<Header>>,
    lane: Lane,
    /// On disk, and of lines that are on their way to it.
    bytes: u64,
    /// The mill does not take it from this agent.
    is_held: bool,
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
    /// Reads what is in a state directory; `registered` tells up to where blocks are registered and not needed any more.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::BadState`]: also for a block that can't be read, as its number must not be used again.
    pub(crate) fn open(dir: &Path, registered: &BTreeMap<Name, u64>, disk: Disk) -> Result<Self, Error> {
        let mut inner = Inner {
            lanes_kept: true,
            ..Inner::default()
        };
        for (dataset, lane) in lanes::read(dir)? {
            let queue = inner.datasets.entry(dataset).or_default();
            queue.registered = lane.base;
            queue.lane = lane;
        }
        for (dataset, registered) in registered {
            let queue = inner.datasets.entry(dataset.clone()).or_default();
            queue.registered = queue.registered.max(*registered);
        }
        let folder = dir.join(FOLDER);
        let failed = |source| Error::State {
            path: folder.clone(),
            source,
        };
        // For its user alone, also where the directory above was made open to others.
        folders::own(&folder).map_err(failed)?;
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().and_then(|name| Name::new(name).ok());
            if let Some(dataset) = name {
                let queue = inner.datasets.entry(dataset.clone()).or_default();
                queue.load(&entry.path(), &dataset, &disk)?;
            }
        }
        for queue in inner.datasets.values_mut() {
            queue.removed = queue.registered;
            queue.sent = queue.last();
            queue.doubtful = queue.sent;
            queue.bytes = queue.blocks.values().map(|header| header.stored_bytes).sum();
        }
        let blocks = inner.datasets.values().flat_map(|queue| queue.blocks.values());
        inner.stored_bytes = blocks.map(|header| header.stored_bytes).sum();
        Ok(Self {
            disk,
            dir: dir.to_path_buf(),
            inner: Mutex::new(inner),
            keeping: Mutex::default(),
            filled: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self) -> MutexGuard<'_, ()> {
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, dataset: &Name, sequence: u64) -> PathBuf {
        self.dir
            .join(FOLDER)
            .join(dataset.as_str())
            .join(file::name(sequence))
    }

    /// All headers, those of one dataset in order.
    pub(crate) fn headers(&self) -> Vec<Arc<Header>> {
        let inner = self.lock();
        let queues = inner.datasets.values();
        queues.flat_map(|queue| queue.blocks.values().cloned()).collect()
    }

    /// Lines were read that will come by [`Spool::commit`].
    pub(crate) fn announce(&self, dataset: &Name, raw_bytes: u64) {
        let mut inner = self.lock();
        inner.unspooled_bytes += raw_bytes;
        inner.datasets.entry(dataset.clone()).or_default().bytes += raw_bytes;
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
        if let Some(lost) = header.rebuilds {
            queue.lane.find(lost);
        }
        queue.bytes = queue.bytes.saturating_sub(header.raw_bytes) + header.stored_bytes;
        queue.blocks.insert(sequence, Arc::new(header));
        inner.lanes_kept &= block.rebuilds.is_none();
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

    /// A block that is not acknowledged.
    pub(crate) fn block(&self, dataset: &Name, sequence: u64) -> Option<Arc<Header>> {
        let inner = self.lock();
        inner.datasets.get(dataset)?.blocks.get(&sequence).cloned()
    }

    /// The data of a block.
    pub(crate) fn data(&self, header: &Header) -> io::Result<Vec<u8>> {
        file::data(&self.path(&header.dataset, header.sequence), header)
    }

    /// Waits for a block to come. One who waits is told; dropping the future loses nothing.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// A block is about to be sent.
    pub(crate) fn note_sent(&self, header: &Header) {
        let mut inner = self.lock();
        let queue = inner.datasets.entry(header.dataset.clone()).or_default();
        queue.sent = queue.sent.max(header.sequence);
    }

    /// Blocks of a dataset up to `sequence` were sent, and it is not known what became of them.
    pub(crate) fn doubt(&self, dataset: &Name, sequence: u64) {
        let mut inner = self.lock();
        let queue = inner.datasets.entry(dataset.clone()).or_default();
        queue.doubtful = queue.doubtful.max(sequence);
    }

    /// Removes what the cluster certainly does not have: blocks that were cut since the start and that it refused, or that were
    /// never sent. Their lines are in no block then. Only when nothing more is committed or sent.
    ///
    /// # Errors
    /// What the disk says; blocks that are still there are shipped by the next start, as after a crash.
    pub(crate) fn abandon(&self) -> io::Result<()> {
        let refused: Vec<Arc<Header>> = {
            let mut inner = self.lock();
            let queues = inner.datasets.values_mut();
            let refused = queues.flat_map(|queue| {
                let blocks = queue.blocks.range(queue.doubtful + 1..);
                let refused: Vec<_> = blocks.map(|(_, header)| Arc::clone(header)).collect();
                let lost = refused.iter().filter_map(|header| header.rebuilds);
                queue.lane.lost.extend(lost.map(|lost| (lost, lost)));
                refused
            });
            let refused: Vec<_> = refused.collect();
            inner.lanes_kept &= refused.iter().all(|header| header.rebuilds.is_none());
            refused
        };
        // What they have once more is lost again before they are gone.
        self.keep_lanes()?;
        // The last first, so that a crash leaves no gap.
        for header in refused.iter().rev() {
            self.disk.remove(&self.path(&header.dataset, header.sequence))?;
            let mut inner = self.lock();
            inner.stored_bytes = inner.stored_bytes.saturating_sub(header.stored_bytes);
            if let Some(queue) = inner.datasets.get_mut(&header.dataset) {
                queue.blocks.remove(&header.sequence);
                queue.bytes = queue.bytes.saturating_sub(header.stored_bytes);
            }
        }
        let datasets: BTreeSet<&Name> = refused.iter().map(|header| &header.dataset).collect();
        let mut folders = datasets.into_iter().map(|dataset| self.path(dataset, 0));
        folders.try_for_each(|path| self.disk.sync_folder(&path))
    }

    /// All blocks of a dataset up to `sequence` are registered, the last one in this incarnation of it. Gives the lines' bytes
    /// of those that were not before.
    ///
    /// # Errors
    /// [`Error::Outdated`] for blocks that were never sent from here: the mill has others under these numbers.
    pub(crate) fn acknowledge(
        &self,
        dataset: &Name,
        sequence: u64,
        incarnation: Option<Uuid>,
    ) -> Result<u64, Error> {
        let mut inner = self.lock();
        let queue = inner.datasets.entry(dataset.clone()).or_default();
        let known = queue.sent.max(queue.registered);
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
        let gone = gone.into_values().map(|header| (header, incarnation));
        inner.acknowledged.extend(gone);
        Ok(bytes)
    }

    /// Notes which incarnation of a dataset takes its blocks now.
    pub(crate) fn note_incarnation(&self, dataset: &Name, now: Option<Uuid>) {
        let mut inner = self.lock();
        let queue = inner.datasets.entry(dataset.clone()).or_default();
        let before = std::mem::replace(&mut queue.lane.incarnation, now);
        if before == now {
            return;
        }
        inner.lanes_kept = false;
        if before.is_some() {
            warn!(
                dataset = dataset.as_str(),
                "the dataset was removed: what was shipped before is not in it any more; what comes now goes into a new one"
            );
        }
    }

    /// The blocks that were acknowledged since the last call, those of one dataset in order.
    pub(crate) fn take_acknowledged(&self) -> Vec<Acknowledged> {
        std::mem::take(&mut self.lock().acknowledged)
    }

    /// Writes down what is known of the lanes, where that has changed. Before it is written that blocks are registered.
    pub(crate) fn keep_lanes(&self) -> io::Result<()> {
        let _keeping = self.keep();
        let lanes = {
            let mut inner = self.lock();
            if std::mem::replace(&mut inner.lanes_kept, true) {
                return Ok(());
            }
            inner.lanes()
        };
        let written = lanes::write(&self.dir, &self.disk, lanes);
        if written.is_err() {
            self.lock().lanes_kept = false;
        }
        written
    }

    /// Removes acknowledged blocks, whose positions are kept elsewhere by now.
    pub(crate) fn remove(&self, blocks: &[Arc<Header>]) -> io::Result<()> {
        for header in blocks {
            self.disk.remove(&self.path(&header.dataset, header.sequence))?;
            let mut inner = self.lock();
            inner.stored_bytes = inner.stored_bytes.saturating_sub(header.stored_bytes);
            let queue = inner.datasets.entry(header.dataset.clone()).or_default();
            queue.removed = queue.removed.max(header.sequence);
            queue.bytes = queue.bytes.saturating_sub(header.stored_bytes);
        }
        Ok(())
    }

    /// What the numbers of a dataset belong to.
    pub(crate) fn lane(&self, dataset: &Name) -> Lane {
        let inner = self.lock();
        let queue = inner.datasets.get(dataset);
        queue.map(|queue| queue.lane.clone()).unwrap_or_default()
    }

    /// Up to where each dataset is registered, and what its numbers belong to.
    pub(crate) fn registered(&self) -> Vec<(Name, u64, Lane)> {
        let inner = self.lock();
        let queues = inner.datasets.iter();
        queues
            .map(|(dataset, queue)| (dataset.clone(), queue.registered, queue.lane.clone()))
            .collect()
    }

    /// Whether all registered blocks of a dataset are gone from the disk, with their positions kept.
    pub(crate) fn is_kept(&self, dataset: &Name) -> bool {
        let inner = self.lock();
        let queue = inner.datasets.get(dataset);
        queue.is_none_or(|queue| queue.removed >= queue.registered)
    }

    /// The mill has only the blocks up to `mark` of those that it had acknowledged, and gives another numbering for those
    /// that follow. Gives how many are lost. Only where [`Spool::is_kept`]; on an error nothing has happened.
    pub(crate) fn renumber(&self, dataset: &Name, numbering: Uuid, mark: u64) -> io::Result<u64> {
        let _keeping = self.keep();
        let mut lanes = self.lock().lanes();
        let registered = {
            let mut inner = self.lock();
            inner.datasets.entry(dataset.clone()).or_default().registered
        };
        let lane = lanes.entry(dataset.clone()).or_default();
        lane.numbering = Some(numbering);
        lane.base = registered;
        if mark < registered {
            // A backup may be older than what was lost the last time.
            lane.lost.retain(|(first, _)| *first <= mark);
            lane.lost.push((mark + 1, registered));
        }
        let lane = lane.clone();
        lanes::write(&self.dir, &self.disk, lanes)?;
        let mut inner = self.lock();
        inner.datasets.entry(dataset.clone()).or_default().lane = lane;
        Ok(registered.saturating_sub(mark))
    }

    /// Blocks that the mill has lost and that are not here again: ranges with both ends.
    pub(crate) fn lost(&self) -> BTreeMap<Name, Vec<(u64, u64)>> {
        let inner = self.lock();
        let queues = inner
            .datasets
            .iter()
            .filter(|(_, queue)| !queue.lane.lost.is_empty());
        queues
            .map(|(dataset, queue)| (dataset.clone(), queue.lane.lost.clone()))
            .collect()
    }

    /// Whether the mill has lost blocks of a dataset that are not here again.
    pub(crate) fn has_lost(&self, dataset: &Name) -> bool {
        let inner = self.lock();
        let queue = inner.datasets.get(dataset);
        queue.is_some_and(|queue| !queue.lane.lost.is_empty())
    }

    /// A lost block stays lost.
    pub(crate) fn give_up(&self, dataset: &Name, sequence: u64) {
        self.change_lost(dataset, |lane| lane.find(sequence));
    }

    /// Of the lost blocks of a dataset all but these stay lost.
    pub(crate) fn give_up_all_but(&self, dataset: &Name, known: impl Iterator<Item = u64>) {
        self.change_lost(dataset, |lane| {
            lane.lost = known.map(|sequence| (sequence, sequence)).collect()
        });
    }

    fn change_lost(&self, dataset: &Name, change: impl FnOnce(&mut Lane)) {
        let mut inner = self.lock();
        inner.lanes_kept = false;
        change(&mut inner.datasets.entry(dataset.clone()).or_default().lane);
    }

    /// Bytes on disk, and of lines that are on their way to it.
    pub(crate) fn bytes(&self) -> u64 {
        let inner = self.lock();
        inner.stored_bytes + inner.unspooled_bytes
    }

    /// The same of one dataset.
    pub(crate) fn bytes_of(&self, dataset: &Name) -> u64 {
        let inner = self.lock();
        inner.datasets.get(dataset).map_or(0, |queue| queue.bytes)
    }

    /// The mill does not take a dataset from this agent: nothing more is to be read for it. True when that is new.
    pub(crate) fn hold(&self, dataset: &Name) -> bool {
        let mut inner = self.lock();
        let queue = inner.datasets.entry(dataset.clone()).or_default();
        !std::mem::replace(&mut queue.is_held, true)
    }

    /// It takes it. True when that is new.
    pub(crate) fn release(&self, dataset: &Name) -> bool {
        let mut inner = self.lock();
        let queue = inner.datasets.get_mut(dataset);
        queue.is_some_and(|queue| std::mem::replace(&mut queue.is_held, false))
    }

    /// Whether nothing is to be read for a dataset.
    pub(crate) fn is_held(&self, dataset: &Name) -> bool {
        let inner = self.lock();
        inner.datasets.get(dataset).is_some_and(|queue| queue.is_held)
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

impl Inner {
    fn lanes(&self) -> BTreeMap<Name, Lane> {
        let lanes = self
            .datasets
            .iter()
            .map(|(dataset, queue)| (dataset.clone(), queue.lane.clone()));
        lanes.filter(|(_, lane)| *lane != Lane::default()).collect()
    }
}

impl Queue {
    /// Reads the folder of a dataset: the blocks that follow what is registered, without a last one that is torn.
    fn load(&mut self, folder: &Path, dataset: &Name, disk: &Disk) -> Result<(), Error> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            |source| Error::State { path, source }
        };
        let mut sequences = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed(folder))? {
            let path = entry.map_err(failed(folder))?.path();
            match file::sequence(&path) {
                Some(sequence) if sequence > self.registered => sequences.push((sequence, path)),
                // Acknowledged, or never finished.
                _ => disk.remove(&path).map_err(failed(&path))?,
            }
        }
        sequences.sort();
        let last = sequences.last().map_or(0, |(sequence, _)| *sequence);
        for (sequence, path) in sequences {
            // Only the last can be torn by a crash, the others were synced before it; their sizes are compared all the same.
            let header = match file::header(&path, dataset, sequence, sequence == last) {
                Ok(header) => header,
                Err(Unusable::Torn(why)) if sequence == last => {
                    warn!(dataset = dataset.as_str(), sequence, %why, "a torn block: its lines are read again");
                    disk.remove(&path).map_err(failed(&path))?;
                    continue;
                }
                Err(Unusable::Torn(why)) => return Err(Error::BadBlock { path, why }),
                Err(Unusable::Unreadable(error)) => {
                    let why = error.to_string();
                    return Err(Error::BadBlock { path, why });
                }
            };
            if sequence != self.last() + 1 {
                let why = format!("block {} before it is missing", self.last() + 1);
                return Err(Error::BadBlock { path, why });
            }
            if let Some(lost) = header.rebuilds {
                self.lane.find(lost);
            }
            self.blocks.insert(sequence, Arc::new(header));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
