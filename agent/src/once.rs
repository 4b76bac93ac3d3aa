//! Shipping files once, as they are now: `sawmill ship`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use futures::FutureExt as _;
use model::Name;
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error, Fate,
    follow::{Now, Tally},
    service::{Mode, Running, StopOnDrop, wall_ms},
};

/// Between two words of how far it is.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// How far a shipment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files to ship.
    pub files: u64,
    /// Files that are shipped whole.
    pub done: u64,
    /// Files that can't be shipped.
    pub failed: u64,
    /// Bytes of lines to ship, as far as is known: compressed files tell as they are read.
    pub bytes: u64,
    /// Bytes of lines that are stored and registered.
    pub registered_bytes: u64,
}

impl From<Tally> for Progress {
    fn from(tally: Tally) -> Self {
        Self {
            files: tally.files,
            done: tally.done,
            failed: tally.failed,
            bytes: tally.bytes,
            registered_bytes: tally.registered_bytes,
        }
    }
}

/// What became of a shipment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipment {
    /// What became of each file, in the order of their paths.
    pub fates: Vec<(PathBuf, Fate)>,
    /// Blocks that a shipment before had left in the spool, by their dataset, and that were shipped first.
    pub leftovers: BTreeMap<Name, u64>,
    /// Blocks that are in the spool now, by their dataset: the next shipment ships them first.
    pub waiting: BTreeMap<Name, u64>,
}

/// Ships the files of `config` once and tells what became of each. A file counts as shipped when all its blocks are stored,
/// read back, compared and registered. One that was shipped before, from this state directory to this incarnation of the
/// dataset, is not shipped twice unless `again`. What a shipment before has left in the spool is shipped first, into the
/// dataset that it is for. `tell` hears how far it is.
///
/// What is refused for good (no such nodes, no right to the dataset) leaves nothing behind that the cluster does not have: the
/// next shipment reads it from the files again, for the same dataset or another.
///
/// Ends early when `cancel` asks for it: what is spooled then is shipped by the next shipment. Dropping the future does the
/// same.
///
/// # Errors
/// [`Error`], when nothing can be shipped at all; [`Error::BadFile`] for a path without a file.
pub async fn ship(
    config: Config,
    again: bool,
    cancel: CancellationToken,
    mut tell: impl FnMut(Progress),
) -> Result<Shipment, Error> {
    check_files(&config)?;
    let config = Arc::new(config);
    let running = Running::start(&config, Mode::Once { again })?;
    let left = running.shared.spool.headers();
    let Running {
        shared,
        uplink,
        spooled,
        kept,
        shipped,
        dir: _dir,
    } = running;
    let _stop = StopOnDrop(Arc::clone(&shared), shipped.clone());
    let spooled = spooled.shared();
    let done = async {
        spooled.clone().await.unwrap_or_default();
        while !shared.spool.is_empty() {
            tokio::time::sleep(crate::service::EMPTY_LOOK).await;
        }
    };
    let telling = async {
        loop {
            tell(shared.tally().into());
            tokio::time::sleep(TELL_EVERY).await;
        }
    };
    let mut is_refused = false;
    let why_not = tokio::select! {
        () = done => String::new(),
        () = cancel.cancelled() => "stopped".to_string(),
        ended = uplink.run() => match ended {
            Err(Error::NotTaken { why }) => why,
            Err(Error::Refused { why }) => {
                is_refused = true;
                why
            }
            Err(error) => return Err(error),
            Ok(()) => String::new(),
        },
        () = telling => String::new(),
    };
    shared.stopping.store(true, Ordering::Relaxed);
    shipped.cancel();
    shared.waker.nudge();
    let Ok(mut follower) = kept.await else {
        return Err(Error::Panicked("the thread that reads files".to_string()));
    };
    tell(shared.tally().into());
    if is_refused {
        // Nothing more is committed after it.
        spooled.await.unwrap_or_default();
        let spool = Arc::clone(&shared.spool);
        let abandoned = tokio::task::spawn_blocking(move || spool.abandon()).await;
        let abandoned = abandoned.map_err(|error| Error::Panicked(error.to_string()))?;
        abandoned.map_err(|source| Error::State {
            path: config.state.clone(),
            source,
        })?;
    }
    let rest = follower.rest_left(SystemTime::now());
    if !rest.is_zero() {
        let seconds = rest.as_secs_f64().ceil();
        tracing::info!(
            "shipped; files are removed from their places when nobody has written to them for {seconds} s more"
        );
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = cancel.cancelled() => follower.leave_all(),
        }
    }
    let now = Now {
        at: Duration::ZERO,
        wall_ms: wall_ms(),
    };
    let fates = tokio::task::spawn_blocking(move || follower.fates(&why_not, now)).await;
    let mut fates = fates.map_err(|error| Error::Panicked(error.to_string()))?;
    let mut placed = shared.take_placed();
    for (path, fate) in &mut fates {
        if let (Fate::Shipped { nodes, .. }, Some(of_file)) = (fate, placed.remove(&*path.to_string_lossy()))
        {
            nodes.extend(of_file);
        }
    }
    let (mut leftovers, mut waiting) = (BTreeMap::new(), BTreeMap::new());
    let still = shared.spool.headers();
    for header in left.iter().filter(|header| !still.contains(header)) {
        *leftovers.entry(header.dataset.clone()).or_default() += 1;
    }
    for header in still {
        *waiting.entry(header.dataset.clone()).or_default() += 1;
    }
    Ok(Shipment {
        fates,
        leftovers,
        waiting,
    })
}

/// A path that is no pattern must be a file.
fn check_files(config: &Config) -> Result<(), Error> {
    for pattern in config.sources.iter().flat_map(|source| &source.patterns) {
        let path = Path::new(pattern);
        let why = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => continue,
            Ok(metadata) if metadata.is_dir() => "it is a directory: give its files".to_string(),
            Ok(_) => "it is no regular file".to_string(),
            Err(_) if pattern.contains(['*', '?', '[']) => continue,
            Err(error) => error.to_string(),
        };
        return Err(Error::BadFile {
            path: path.to_path_buf(),
            why,
        });
    }
    Ok(())
}
