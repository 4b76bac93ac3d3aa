//! The dispatcher: the one that leads admits jobs, splits them, feeds, recovers, revokes and retries.
//!
//! Promise: only the elected leader acts, fenced in ZooKeeper by its candidate and in MongoDB by its epoch; a new
//! leader goes on where the old one stopped, without losing or repeating a recorded subtask. The others stand by.

#![warn(missing_docs)]

mod active;
mod admission;
mod assigning;
mod cancelling;
mod census;
mod compacting;
mod feeding;
mod following;
mod leading;
mod portions;
mod recovery;
mod reuse;
mod rooms;
mod takeover;
mod views;

use std::time::{Duration, Instant};

use coordination::{Candidacy, Leader, Office, Term, terms};
use model::{FORMAT, znode::CandidateData};
use storage::{Retention, Store};
use tokio_util::sync::CancellationToken;

use crate::{leading::Leading, recovery::Recovering};

/// How a dispatcher works.
#[derive(Clone, Debug)]
pub struct Config {
    /// Entries that may wait in `/unowned`, as a multiple of the slots of all live workers.
    pub window_factor: u32,
    /// A job without progress for this long is compared with the stores and healed.
    pub heal_after: Duration,
    /// How long results, jobs and failures are kept.
    pub retention: Retention,
    /// Most jobs admitted at once; the others stay PENDING.
    pub active_jobs: usize,
    /// Whether short subtasks are fed as bundles; off: entries of one.
    pub bundles: bool,
    /// Without MongoDB for this long the leader gives up its candidacy.
    pub give_up_after: Duration,
    /// The version of the queries that nodes of this release answer, for which views are kept current; none: they are not.
    pub query_version: Option<String>,
    /// The protocol that agents and workers must speak to be brought together.
    pub protocol: u32,
    /// How long the lag of an agent may grow while another worker is idle before it is moved there.
    pub patience: Duration,
    /// `HOST:PORT` of the gateway beside it.
    pub gateway: Option<String>,
    /// Host name told to others.
    pub host: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window_factor: 2,
            heal_after: Duration::from_secs(60),
            retention: Retention::default(),
            active_jobs: 4096,
            bundles: true,
            give_up_after: Duration::from_secs(5),
            query_version: None,
            protocol: 0,
            patience: Duration::from_secs(30),
            gateway: None,
            host: String::new(),
        }
    }
}

/// What the role works with.
#[derive(Clone)]
pub struct Parts {
    /// Where ZooKeeper is.
    pub zookeeper: coordination::Config,
    /// MongoDB.
    pub store: Store,
}

/// Why a dispatcher ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ZooKeeper.
    #[error(transparent)]
    Coordination(#[from] coordination::Error),
    /// MongoDB.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// Its own candidate vanished.
    #[error("the candidate znode of this dispatcher is gone")]
    Deposed,
}

impl Error {
    /// Whether looking again may mend it within this term.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Coordination(failure) => failure.is_retryable(),
            Self::Storage(failure) => failure.is_retryable(),
            Self::Deposed => false,
        }
    }

    /// Whether another leads.
    fn is_deposed(&self) -> bool {
        matches!(
            self,
            Self::Deposed | Self::Storage(storage::Error::Deposed { .. })
        )
    }
}

impl terms::TermError for Error {
    fn is_fatal(&self) -> bool {
        match self {
            Self::Coordination(failure) => failure.is_fatal(),
            Self::Storage(_) | Self::Deposed => false,
        }
    }
}

/// Stands by and leads when elected, until `stop` is cancelled.
///
/// # Errors
/// Only what no waiting mends. Dropping the future is safe at any point: the next leader looks at what was done.
pub async fn run(config: Config, parts: Parts, stop: CancellationToken) -> Result<(), Error> {
    let mut later = false;
    terms::serve(&parts.zookeeper, &stop, "dispatcher", |term| {
        let (config, store, stop) = (config.clone(), parts.store.clone(), stop.clone());
        // A later term mostly follows a lost session, and others may have lost theirs to the same outage.
        let outage_until = later.then(|| Instant::now() + term.session_timeout());
        later = true;
        async move { serve_term(config, store, term, outage_until, stop).await }
    })
    .await
}

async fn serve_term(
    config: Config,
    store: Store,
    term: Term,
    outage_until: Option<Instant>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let data = CandidateData {
        v: FORMAT,
        host: config.host.clone(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        gateway: config.gateway.clone(),
    };
    let candidacy = Candidacy::enter(&term, Office::Dispatcher, &data).await?;
    tracing::info!(candidate = candidacy.name(), "dispatcher started, standing by");
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = lead(config, store, &term, &candidacy, outage_until, &stop) => ended,
    };
    candidacy.withdraw().await;
    ended
}

async fn lead(
    config: Config,
    store: Store,
    term: &Term,
    candidacy: &Candidacy,
    outage_until: Option<Instant>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    candidacy.until_leading().await?;
    let recovery = Leader::take_office(term, candidacy).await?.recovery();
    let recovering = Recovering::new(recovery, outage_until);
    tokio::select! {
        ended = hold_office(config, store, term, candidacy, stop) => ended,
        failure = recovering.work() => Err(failure),
        () = candidacy.lost() => Err(Error::Deposed),
    }
}

async fn hold_office(
    config: Config,
    store: Store,
    term: &Term,
    candidacy: &Candidacy,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let epoch = store.take_epoch(candidacy.name()).await?;
    // This looks for the candidate. Where it still exists now, whoever leads next takes a higher epoch than this one; the
    // epoch of a leader that was deposed while MongoDB was slow could be higher than its successor's.
    let leader = Leader::take_office(term, candidacy).await?;
    tracing::info!(epoch = epoch.0, "leading");
    Leading::new(config, store, leader, epoch).work(stop).await
}
