//! The facade over a mill: submit jobs, watch and cancel them, fetch their outputs, see who works, check that all adds up.
//!
//! Promise: every method may be repeated; what can't be done is told with its place and leaves nothing changed, except
//! where a method says otherwise. No promise of freshness: everything is as it was when it was asked for.
//!
//! A handle works on the stores themselves ([`Control::open`]) or asks a gateway ([`Control::connect`]); both give the same answers
//! and the same errors. What needs the stores says so by [`Error::NeedsStores`].
//!
//! Called by the command line, the harness, the bench and, for others, by the gateway; it talks to no role but that.

mod adding;
mod agents;
mod audit;
mod changes;
mod datasets;
mod doctor;
mod error;
mod explanation;
mod failed;
mod foresee;
mod lesson;
mod obstacles;
mod output;
mod places;
mod queries;
#[cfg(feature = "sql")]
mod query;
mod question;
mod remote;
mod stalled;
mod status;
mod stderr;
mod submit;
mod taking_out;
mod tokens;
mod view_report;
mod views;
mod wait;
pub mod wire;

use std::{sync::Arc, time::Duration};

use coordination::Term;
use model::{Job, JobId};
use remote::Remote;
use storage::{FailureRecord, JobFilter, Pruned, Retention, Store};

pub use adding::{FileReport, What, check_block_size};
pub use agents::{Agent, AgentDataset, AgentLoad, AgentState, Amount};
pub use audit::{AuditReport, JobTally};
pub use datasets::{AddReport, Adding, Changes, Source};
pub use doctor::{Check, Verdict, examine};
pub use error::{Error, is_usage, reason};
pub use explanation::{Answered, ExplainedDataset, Explanation, Half};
pub use failed::FailedAttempt;
pub use foresee::{Foreseen, ForeseenDataset};
pub use lesson::{KeptAsText, Lesson, Misfit, NewColumn, Unfit};
pub use question::{Answer, Asked, GrownFile, Question, WithTable};
pub use status::{
    AgentCounts, BlockCounts, Candidate, OutOfStep, Places, Status, StorageUse, UnfinishedJob, Worker,
};
pub use stderr::StderrTail;
pub use submit::new_job_id;
pub use taking_out::TakenOut;
pub use tokens::TOKEN_VALID_MAX;
pub use view_report::{ViewDataset, ViewLeftOut, ViewReport};

/// A handle on a mill; cloning is cheap.
#[derive(Clone, Debug)]
pub struct Control {
    backend: Backend,
    /// Whose the jobs are that are submitted on the stores.
    submitter: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
enum Backend {
    Stores(Arc<Stores>),
    Gateway(Remote),
}

#[derive(Debug)]
struct Stores {
    zookeeper: coordination::Config,
    store: Store,
    retention_results: Duration,
}

/// How long results live unless [`Control::with_retention`] says otherwise.
const RETENTION_RESULTS: Duration = Duration::from_secs(7 * 24 * 3600);

impl Control {
    /// A handle over open stores. ZooKeeper is connected only while a method needs it: `status`, `doctor`, `audit`.
    pub fn open(zookeeper: coordination::Config, store: Store) -> Self {
        Self {
            backend: Backend::Stores(Arc::new(Stores {
                zookeeper,
                store,
                retention_results: RETENTION_RESULTS,
            })),
            submitter: None,
        }
    }

    /// A handle over the gateways of a mill, `HOST:PORT[,HOST:PORT…]`: the first that answers is asked.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub async fn connect(addresses: &str, security: api::transport::Security) -> Result<Self, Error> {
        Ok(Self {
            backend: Backend::Gateway(Remote::connect(addresses, security).await?),
            submitter: None,
        })
    }

    /// The same, for somebody whose the jobs are that it submits. A gateway knows itself whose they are.
    #[must_use]
    pub fn submitting_for(&self, who: &str) -> Self {
        Self {
            backend: self.backend.clone(),
            submitter: Some(who.into()),
        }
    }

    /// Tells how long results are kept, so that the audit does not miss those that were removed.
    #[must_use]
    pub fn with_retention(self, results: Duration) -> Self {
        match self.backend {
            Backend::Stores(stores) => Self {
                backend: Backend::Stores(Arc::new(Stores {
                    zookeeper: stores.zookeeper.clone(),
                    store: stores.store.clone(),
                    retention_results: results,
                })),
                submitter: self.submitter,
            },
            Backend::Gateway(_) => self,
        }
    }

    fn stores(&self) -> Result<&Stores, Error> {
        match &self.backend {
            Backend::Stores(stores) => Ok(stores),
            Backend::Gateway(_) => Err(Error::NeedsStores),
        }
    }

    fn remote(&self) -> Option<&Remote> {
        match &self.backend {
            Backend::Stores(_) => None,
            Backend::Gateway(remote) => Some(remote),
        }
    }

    /// Whether a gateway is asked.
    pub fn is_remote(&self) -> bool {
        self.remote().is_some()
    }

    /// MongoDB and the block store.
    ///
    /// # Errors
    /// [`Error::NeedsStores`] where a gateway is asked.
    pub fn store(&self) -> Result<&Store, Error> {
        Ok(&self.stores()?.store)
    }

    /// How ZooKeeper is reached.
    ///
    /// # Errors
    /// [`Error::NeedsStores`] where a gateway is asked.
    pub fn zookeeper(&self) -> Result<&coordination::Config, Error> {
        Ok(&self.stores()?.zookeeper)
    }

    /// A session of its own for one look; to be closed after it.
    async fn term(&self) -> Result<Term, Error> {
        Ok(Term::begin(self.zookeeper()?).await?)
    }

    /// The job that `reference` means: a full id, a unique beginning of one, or `last`.
    ///
    /// # Errors
    /// [`Error::NoSuchJob`]; [`Error::Storage`], also when more than one job has an id that begins so.
    pub async fn job(&self, reference: &str) -> Result<Job, Error> {
        if let Some(remote) = self.remote() {
            return remote.job(reference).await;
        }
        let id = self.resolve(reference).await?;
        self.store()?.job(id).await?.ok_or_else(|| Error::NoSuchJob {
            reference: reference.to_string(),
        })
    }

    /// The id of the job that `reference` means.
    ///
    /// # Errors
    /// As [`Control::job`].
    pub async fn resolve(&self, reference: &str) -> Result<JobId, Error> {
        if let Some(remote) = self.remote() {
            return Ok(remote.job(reference).await?.id);
        }
        self.store()?
            .resolve(reference)
            .await
            .map_err(|error| match error {
                storage::Error::NotFound { .. } => Error::NoSuchJob {
                    reference: reference.to_string(),
                },
                other => other.into(),
            })
    }

    /// Jobs, the newest first.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>, Error> {
        if let Some(remote) = self.remote() {
            return remote.jobs(filter).await;
        }
        Ok(self.store()?.list(filter).await?)
    }

    /// Asks for the end of a job and gives it as it stands; the leader sees to it, usually within two seconds.
    ///
    /// # Errors
    /// As [`Control::job`]; [`Error::AlreadyEnded`] for a job that is final.
    pub async fn cancel(&self, reference: &str) -> Result<Job, Error> {
        if let Some(remote) = self.remote() {
            return remote.cancel(reference).await;
        }
        let id = self.resolve(reference).await?;
        let asked = self.store()?.request_cancel(id).await?;
        let job = self.job(&id.to_string()).await?;
        if asked {
            Ok(job)
        } else {
            Err(Error::AlreadyEnded {
                job: id,
                state: job.state,
            })
        }
    }

    /// The latest attempts of a job that ended without a result, at most `limit`, in the order in which they were recorded.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn failures(&self, job: JobId, limit: u32) -> Result<Vec<FailureRecord>, Error> {
        Ok(self.store()?.failures(job, limit).await?)
    }

    /// Removes what is older than its retention, as the leader does by itself once in a while.
    ///
    /// # Errors
    /// [`Error::Storage`]; what was removed before stays removed. Nothing is where the clock of this machine is too far from
    /// MongoDB's.
    pub async fn prune(&self, retention: Retention) -> Result<Pruned, Error> {
        let store = self.store()?;
        Ok(store.prune(store.clock().await?.agreed()?, retention).await?)
    }
}
