//! The watcher: records the end of every subtask in MongoDB, exactly once, and then clears `/done`.
//!
//! Promise: an end is recorded before its entry is deleted; a crash in between repeats the recording, which changes
//! nothing. Non-promise: order. It decides nothing but what the recorded ends make of a job.

#![warn(missing_docs)]

mod batch;
mod desk;

use std::time::Duration;

use coordination::{Candidacy, Office, Term, Waiting, terms};
use model::{FORMAT, znode::CandidateData};
use tokio_util::sync::CancellationToken;

/// How a watcher works.
#[derive(Clone, Debug)]
pub struct Config {
    /// Entries in the share of another watcher that lives are taken once they have waited this long: it may not get on. Those
    /// of one that is gone are taken at once.
    pub take_over_after: Duration,
    /// Without MongoDB for this long the watcher gives up its candidacy, so that others may take its share.
    pub give_up_after: Duration,
    /// Host name told to others.
    pub host: String,
    /// For fault tests: abort the process after this many transactions, before `/done` is cleared.
    pub abort_after_transactions: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            take_over_after: Duration::from_secs(5),
            give_up_after: Duration::from_secs(5),
            host: String::new(),
            abort_after_transactions: None,
        }
    }
}

/// What the role works with.
#[derive(Clone)]
pub struct Parts {
    /// Where ZooKeeper is.
    pub zookeeper: coordination::Config,
    /// MongoDB.
    pub store: storage::Store,
}

/// Why a watcher ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ZooKeeper.
    #[error(transparent)]
    Coordination(#[from] coordination::Error),
    /// MongoDB.
    #[error("can't record: {0}")]
    Storage(#[from] storage::Error),
    /// A committing task died.
    #[error("a committer died: {0}")]
    Committer(#[from] tokio::task::JoinError),
    /// Its own candidate vanished.
    #[error("the candidate znode of this watcher is gone")]
    Deposed,
}

impl terms::TermError for Error {
    fn is_fatal(&self) -> bool {
        match self {
            Self::Coordination(failure) => failure.is_fatal(),
            Self::Storage(_) | Self::Committer(_) | Self::Deposed => false,
        }
    }
}

/// Records until `stop` is cancelled; then finishes what it has in hand and leaves.
///
/// # Errors
/// Only what no waiting mends, such as refused credentials. Dropping the future is safe at any point.
pub async fn run(config: Config, parts: Parts, stop: CancellationToken) -> Result<(), Error> {
    terms::serve(&parts.zookeeper, &stop, "watcher", |term| {
        let (config, store, stop) = (config.clone(), parts.store.clone(), stop.clone());
        async move { serve_term(config, store, term, stop).await }
    })
    .await
}

async fn serve_term(
    config: Config,
    store: storage::Store,
    term: Term,
    stop: CancellationToken,
) -> Result<(), Error> {
    // A watcher that can't record has no share.
    let reached = Waiting::until("MongoDB", storage::Error::is_retryable, async || {
        store.ping().await
    });
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        reached = reached => reached?,
    }
    let data = CandidateData {
        v: FORMAT,
        host: config.host.clone(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        gateway: None,
    };
    let candidacy = Candidacy::enter(&term, Office::Watcher, &data).await?;
    tracing::info!(candidate = candidacy.name(), "watcher started");
    let mut desk = desk::Desk::new(config, store, &term, &candidacy);
    let ended = tokio::select! {
        ended = desk.work(&stop) => ended,
        () = candidacy.lost() => Err(Error::Deposed),
    };
    candidacy.withdraw().await;
    ended
}
