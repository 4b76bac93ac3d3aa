//! An agent at work: one thread follows files, one packs blocks into the spool, a task ships them.
//!
//! Stops in this order: nothing more is read, what is open is cut and spooled, the uplink ships for the grace that it has,
//! what was acknowledged is written down.

mod threads;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use api::v1::AgentReport;
use model::{Name, place::COPIES};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use uuid::Uuid;

use crate::{
    Config, Error,
    disk::Disk,
    follow::{Follower, Following, Tally},
    paths,
    spool::{Header, Spool},
    state::StateDir,
    uplink::Uplink,
    wake::Waker,
};

/// Between two looks whether the spool has been emptied.
pub(crate) const EMPTY_LOOK: Duration = Duration::from_millis(20);

/// How long the last blocks may take to be spooled when the agent stops, beyond its grace.
const SPOOL_GRACE: Duration = Duration::from_secs(5);

/// Nodes that a worker may name for one block.
const COPIES_MAX: usize = *COPIES.end() as usize;

/// What the parts of an agent know of each other.
pub(crate) struct Shared {
    pub(crate) spool: Arc<Spool>,
    pub(crate) waker: Arc<Waker>,
    /// By order of a user: nothing is read or shipped.
    paused: AtomicBool,
    /// Nothing more is read, ever.
    pub(crate) stopping: AtomicBool,
    /// Bytes of lines that were acknowledged since the start.
    registered_bytes: AtomicU64,
    following: watch::Sender<Following>,
    /// The incarnations of the datasets, once the mill has told them.
    datasets: Mutex<Option<BTreeMap<Name, Option<Uuid>>>>,
    /// Which nodes keep blocks of which file, of files that are shipped once.
    placed: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Shared {
    pub(crate) fn new(spool: Arc<Spool>) -> Self {
        Self {
            spool,
            waker: Arc::default(),
            paused: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            registered_bytes: AtomicU64::new(0),
            following: watch::Sender::new(Following::default()),
            datasets: Mutex::default(),
            placed: Mutex::default(),
        }
    }

    /// The mill has told the incarnations of the datasets.
    pub(crate) fn meet(&self, datasets: BTreeMap<Name, Option<Uuid>>) {
        *self.datasets.lock().unwrap_or_else(PoisonError::into_inner) = Some(datasets);
        self.waker.nudge();
    }

    /// A dataset is in this incarnation by now: it may have been made by what was just stored.
    pub(crate) fn note_incarnation(&self, dataset: &Name, incarnation: Option<Uuid>) {
        let mut datasets = self.datasets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(datasets) = &mut *datasets {
            datasets.insert(dataset.clone(), incarnation);
        }
    }

    /// The incarnations of the datasets, as the mill told them last; none before it did.
    pub(crate) fn datasets(&self) -> Option<BTreeMap<Name, Option<Uuid>>> {
        self.datasets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Obeys a user.
    pub(crate) fn pause(&self, paused: bool) {
        if self.paused.swap(paused, Ordering::Relaxed) != paused {
            info!(paused, "told by the mill");
            self.waker.nudge();
        }
    }

    /// Blocks were acknowledged.
    pub(crate) fn registered(&self, raw_bytes: u64) {
        self.registered_bytes.fetch_add(raw_bytes, Ordering::Relaxed);
        self.waker.nudge();
    }

    /// Nodes keep a block.
    pub(crate) fn placed(&self, block: &Header, nodes: &[String]) {
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        for position in &block.positions {
            let of_file = placed.entry(position.path.clone()).or_default();
            of_file.extend(nodes.iter().take(COPIES_MAX).cloned());
        }
    }

    /// The nodes that keep blocks of each file.
    pub(crate) fn take_placed(&self) -> BTreeMap<String, BTreeSet<String>> {
        std::mem::take(&mut self.placed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes of lines that were acknowledged since the start.
    pub(crate) fn registered_bytes(&self) -> u64 {
        self.registered_bytes.load(Ordering::Relaxed)
    }

    /// How far files are that are shipped once.
    pub(crate) fn tally(&self) -> Tally {
        self.following.borrow().tally
    }

    /// How the agent is doing, with `rate` in bytes of lines per second.
    pub(crate) fn report(&self, rate: u64) -> AgentReport {
        let waiting = self.spool.waiting();
        let Following {
            files, spool_full, ..
        } = *self.following.borrow();
        let age = |oldest: i64| u64::try_from(wall_ms() - oldest).unwrap_or(0);
        AgentReport {
            lag_bytes: waiting.raw_bytes,
            lag_ms: waiting.oldest_ms.map_or(0, age),
            spool_bytes: waiting.stored_bytes,
            spool_full,
            files,
            rate,
        }
    }
}

/// Milliseconds since 1970 UTC.
pub(crate) fn wall_ms() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An agent whose threads run.
pub(crate) struct Running {
    pub(crate) shared: Arc<Shared>,
    pub(crate) uplink: Uplink,
    /// Ends when all that was read is in the spool.
    pub(crate) spooled: oneshot::Receiver<()>,
    /// Ends when all is written down.
    pub(crate) kept: oneshot::Receiver<Follower>,
    /// Tells the follower that the uplink has ended.
    pub(crate) shipped: CancellationToken,
    /// Held for as long as anything is written there.
    pub(crate) dir: Arc<StateDir>,
}

impl Running {
    /// Opens the state directory and starts the threads.
    pub(crate) fn start(config: &Arc<Config>, mode: threads::Mode) -> Result<Self, Error> {
        config.check()?;
        paths::check_links(&config.sources, config.follow_links)?;
        allow_many_files();
        let disk = Disk::default();
        let dir = Arc::new(StateDir::open(&config.state, &config.name, &disk)?);
        let once = matches!(mode, threads::Mode::Once { .. });
        let (mut follower, spool) = Follower::open(config, once, dir.path().to_path_buf(), disk)?;
        follower.raise_again(&mode);
        let shared = Arc::new(Shared::new(spool));
        let shipped = CancellationToken::new();
        let (spooled, kept) = threads::start(follower, &shared, &shipped, config.timing.poll)?;
        let uplink = Uplink::new(Arc::clone(config), Arc::clone(&shared), Arc::clone(&dir), once);
        Ok(Self {
            shared,
            uplink,
            spooled,
            kept,
            shipped,
            dir,
        })
    }
}

/// Follows and ships until `cancel`, then ships for [`Config::stop_grace`] what is left and ends; what is still left then
/// stays in the spool. Dropping the future stops shipping at once and loses nothing.
///
/// # Errors
/// [`Error`]: what is wrong with the settings or the state directory; a dead connection or a full store is waited for.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<(), Error> {
    let config = Arc::new(config);
    let running = Running::start(&config, threads::Mode::Follow)?;
    let Running {
        shared,
        uplink,
        spooled,
        kept,
        shipped,
        dir: _dir,
    } = running;
    info!(
        agent = config.name.as_str(),
        state = %config.state.display(),
        servers = config.servers.join(","),
        "following"
    );
    let _stop = StopOnDrop(Arc::clone(&shared), shipped.clone());
    let stop = async {
        cancel.cancelled().await;
        shared.stopping.store(true, Ordering::Relaxed);
        shared.waker.nudge();
        // A disk that is full may keep it for ever.
        let spooled = tokio::time::timeout(config.stop_grace + SPOOL_GRACE, spooled).await;
        drop(spooled);
        let emptied = async {
            while !shared.spool.is_empty() {
                tokio::time::sleep(EMPTY_LOOK).await;
            }
        };
        if tokio::time::timeout(config.stop_grace, emptied).await.is_err() {
            info!(
                bytes = shared.spool.bytes(),
                "what is not shipped stays in the spool"
            );
        }
    };
    let ended = tokio::select! {
        () = stop => Ok(()),
        ended = uplink.run() => ended,
    };
    shared.stopping.store(true, Ordering::Relaxed);
    shipped.cancel();
    shared.waker.nudge();
    let kept = kept.await;
    ended?;
    kept.map(drop)
        .map_err(|_| Error::Panicked("the thread that follows files".to_string()))
}

/// Ends the threads when nobody waits for them any more.
pub(crate) struct StopOnDrop(pub(crate) Arc<Shared>, pub(crate) CancellationToken);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stopping.store(true, Ordering::Relaxed);
        self.1.cancel();
        self.0.waker.nudge();
    }
}

/// Each followed file is open: the limit that is meant for `select` is in the way.
fn allow_many_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        debug!("the number of open files stays limited: {error}");
    }
}

pub(crate) use threads::Mode;
