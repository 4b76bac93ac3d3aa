//! Following files: finds them, reads them as they grow, cuts their lines into blocks, and remembers how far it got.
//!
//! Promise: a line comes into exactly one block of the spool, whatever becomes of the names of its file and whenever the
//! process dies, as long as its bytes can still be read in some file that the patterns match or that lies beside it.
//! No promise for bytes that are removed before they were read (between the copy and the truncation of a rotation by
//! copying, or in a file removed while the agent is away).
//!
//! All of it is synchronous and takes the time from its caller: one thread of [`crate::service`] calls
//! [`Follower::turn`] again and again, tests do so step by step.

mod after;
mod consider;
mod keep;
mod once;
mod read;
mod rebuild;
mod scan;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use model::Name;

pub use self::once::Fate;
pub(crate) use self::once::Tally;
use self::rebuild::Rebuilding;
use crate::{
    Error,
    block::{CutBlock, OpenBlock},
    config::{After, Config, Keeping, Timing},
    content::Key,
    disk::Disk,
    paths::Paths,
    records::Records,
    snapshot::Snapshot,
    spool::{Header, Spool},
    stream::Stream,
};

/// Most blocks that are cut and not yet packed: one is packed while the next is filled.
const MOST_READY: usize = 1;

/// A moment: time since some beginning for waits, and the time of day for others to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) at: Duration,
    /// Milliseconds since 1970 UTC.
    pub(crate) wall_ms: i64,
}

/// What woke the follower.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    /// Files that may have changed.
    pub(crate) paths: HashSet<PathBuf>,
    /// Look for new files now.
    pub(crate) scan: bool,
}

/// What became of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// There is more to read at once.
    pub(crate) is_behind: bool,
    /// When the next turn is due, at the latest.
    pub(crate) next: Duration,
    /// New files were looked for.
    pub(crate) has_scanned: bool,
}

/// How far the files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Following {
    pub(crate) files: u64,
    pub(crate) spool_full: bool,
    /// Of files that are shipped once.
    pub(crate) tally: Tally,
}

/// Follows the files of an agent.
pub(crate) struct Follower {
    host: Arc<str>,
    records: Records,
    block_bytes: usize,
    age: Duration,
    spool_bytes: u64,
    /// How many are followed.
    datasets: usize,
    timing: Timing,
    after: After,
    keeping: Keeping,
    /// Every file is read to its end at once, as it is now.
    once: bool,
    /// No file is removed or moved any more.
    leaves_all: bool,
    /// Also what was shipped before.
    again: bool,
    /// It is known what the mill has of what is shipped once.
    has_met: bool,
    rebuilding: Rebuilding,
    /// What is shipped once.
    shipped_once: BTreeMap<PathBuf, once::File>,
    dir: PathBuf,
    disk: Disk,
    spool: Arc<Spool>,
    paths: Paths,
    streams: BTreeMap<u64, Stream>,
    /// The stream that is in a file.
    by_key: HashMap<Key, u64>,
    next_stream: u64,
    /// Files that are not followed yet, and since when they are as they are.
    waiting: HashMap<Key, consider::Waiting>,
    open: BTreeMap<Name, OpenBlock>,
    ready: VecDeque<CutBlock>,
    /// Up to where the snapshot covers the blocks of each dataset.
    registered: BTreeMap<Name, u64>,
    /// Registered blocks whose positions are in no snapshot yet.
    unkept: Vec<Arc<Header>>,
    is_spool_full: bool,
    next_poll: Duration,
    next_scan: Duration,
    next_keep: Duration,
    buffer: Vec<u8>,
}

impl Follower {
    /// Goes on from what stands in the directory `dir` and in the spool there.
    pub(crate) fn open(
        config: &Config,
        once: bool,
        dir: PathBuf,
        disk: Disk,
    ) -> Result<(Self, Arc<Spool>), Error> {
        let snapshot = Snapshot::read(&dir)?;
        let spool = Arc::new(Spool::open(&dir, &snapshot.registered, disk.clone())?);
        let mut streams = BTreeMap::new();
        for kept in snapshot.files {
            let mut stream = Stream::resumed(&kept.position);
            stream.gone_ms = kept.gone_ms;
            stream.incarnation = kept.incarnation;
            stream.alone = kept.alone;
            let number = kept.position.stream;
            stream.registered = Some(kept.position);
            streams.insert(number, stream);
        }
        for position in spool.headers().iter().flat_map(|header| &header.positions) {
            streams
                .entry(position.stream)
                .and_modify(|stream: &mut Stream| stream.resume(position))
                .or_insert_with(|| Stream::resumed(position));
        }
        let follower = Self {
            host: Arc::from(config.host.as_str()),
            records: Records::new(config.multiline_start.clone()),
            block_bytes: config.block_bytes,
            age: config.age,
            spool_bytes: config.spool_bytes,
            datasets: config.sources.len(),
            timing: config.timing.clone(),
            after: config.after.clone(),
            keeping: config.keeping.clone(),
            once,
            leaves_all: false,
            again: false,
            has_met: false,
            rebuilding: Rebuilding::default(),
            shipped_once: BTreeMap::new(),
            dir,
            disk,
            spool: Arc::clone(&spool),
            paths: Paths::new(config.sources.clone(), config.follow_links),
            next_stream: streams.keys().next_back().map_or(1, |last| last + 1),
            streams,
            by_key: HashMap::new(),
            waiting: HashMap::new(),
            open: BTreeMap::new(),
            ready: VecDeque::new(),
            registered: snapshot.registered,
            unkept: Vec::new(),
            is_spool_full: false,
            next_poll: Duration::ZERO,
            next_scan: Duration::ZERO,
            next_keep: Duration::ZERO,
            buffer: Vec::new(),
        };
        Ok((follower, spool))
    }

    /// Looks, reads, cuts and keeps; `paused` reads nothing. Takes as long as reading a few megabytes does.
    pub(crate) fn turn(&mut self, now: Now, wake: &Wake, paused: bool) -> Turn {
        let is_scan_due = wake.scan || now.at >= self.next_scan;
        // First what is followed: new files are compared with it.
        if is_scan_due || now.at >= self.next_poll {
            self.poll_all(now);
            self.next_poll = now.at + self.timing.poll;
        } else {
            self.poll_paths(&wake.paths, now);
        }
        let has_scanned = is_scan_due || now.at >= self.next_scan;
        if has_scanned {
            self.scan(now);
        }
        let is_behind = !paused && (self.rebuild(now, has_scanned) | self.read(now));
        self.cut_old(now);
        self.keep(now, false);
        Turn {
            is_behind,
            next: self.next_due(now),
            has_scanned,
        }
    }

    fn next_due(&self, now: Now) -> Duration {
        let blocks = self.open.values().filter(|block| !block.is_empty());
        let cuts = blocks.map(|block| now.at + self.age.saturating_sub(block.age(now.at)));
        let keep = (!self.unkept.is_empty()).then_some(self.next_keep);
        cuts.chain(keep)
            .chain([self.next_poll, self.next_scan])
            .min()
            .unwrap_or(now.at)
    }

    /// A block that is to be packed and committed, in order.
    pub(crate) fn take_ready(&mut self) -> Option<CutBlock> {
        self.ready.pop_front()
    }

    /// Gives back a block for which there was no room.
    pub(crate) fn put_back(&mut self, block: CutBlock) {
        self.ready.push_front(block);
    }

    /// Cuts what is open, whatever its size and age.
    pub(crate) fn cut_all(&mut self) {
        let datasets: Vec<Name> = self.open.keys().cloned().collect();
        datasets.iter().for_each(|dataset| self.cut(dataset));
    }

    fn cut_old(&mut self, now: Now) {
        let is_old = |block: &OpenBlock| !block.is_empty() && block.age(now.at) >= self.age;
        let old = self.open.iter().filter(|(_, block)| is_old(block));
        let old: Vec<Name> = old.map(|(dataset, _)| dataset.clone()).collect();
        old.iter().for_each(|dataset| self.cut(dataset));
    }

    fn cut(&mut self, dataset: &Name) {
        let streams = &self.streams;
        let position = |number: u64| Some(streams.get(&number)?.position(number));
        if let Some(block) = self
            .open
            .get_mut(dataset)
            .and_then(|block| block.cut(dataset, position))
        {
            self.ready.push_back(block);
        }
    }

    /// How many files there are, and whether the spool keeps them from being read.
    pub(crate) fn following(&self) -> Following {
        Following {
            files: self.by_key.len() as u64,
            spool_full: self.is_spool_full,
            tally: self.tally(),
        }
    }

    /// Directories whose changes concern the files.
    pub(crate) fn folders(&self) -> HashSet<PathBuf> {
        let files = self.streams.values().filter_map(|stream| stream.file.as_ref());
        let parents = files.filter_map(|file| Some(file.path.parent()?.to_path_buf()));
        self.paths.folders().into_iter().chain(parents).collect()
    }
}
