//! The facade over a mill: submit jobs, watch and cancel them, fetch their outputs, see who works, check that all adds up.
//!
//! Promise: every method may be repeated; what can't be done is told with its place and leaves nothing changed, except
//! where a method says otherwise. No promise of freshness: everything is as it was when it was asked for.
//!
//! Called by the command line, the harness and the bench; it talks to both stores and to no role.

mod audit;
mod changes;
mod datasets;
mod doctor;
mod error;
mod foresee;
mod obstacles;
mod output;
mod places;
mod status;
mod submit;
mod tokens;
mod views;
mod wait;

use std::{sync::Arc, time::Duration};

use coordination::Term;
use model::{Job, JobId};
use storage::{FailureRecord, JobFilter, Pruned, Retention, Store};

pub use audit::{AuditReport, JobTally};
pub use datasets::{AddReport, Source};
pub use doctor::{Check, Verdict, examine};
pub use error::{Error, is_usage};
pub use foresee::{Foreseen, ForeseenDataset};
pub use status::{Candidate, OutOfStep, Places, Status, StorageUse, UnfinishedJob, Worker};
pub use submit::new_job_id;
pub use tokens::TOKEN_VALID_MAX;

/// A handle on a mill; cloning is cheap.
#[derive(Clone, Debug)]
pub struct Control {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
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
            inner: Arc::new(Inner {
                zookeeper,
                store,
                retention_results: RETENTION_RESULTS,
            }),
        }
    }

    /// Tells how long results are kept, so that the audit does not miss those that were removed.
    #[must_use]
    pub fn with_retention(self, results: Duration) -> Self {
        let Inner { zookeeper, store, .. } = &*self.inner;
        let (zookeeper, store) = (zookeeper.clone(), store.clone());
        Self {
            inner: Arc::new(Inner {
                zookeeper,
                store,
                retention_results: results,
            }),
        }
    }

    /// MongoDB and the block store.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// How ZooKeeper is reached.
    pub fn zookeeper(&self) -> &coordination::Config {
        &self.inner.zookeeper
    }

    /// A session of its own for one look; to be closed after it.
    async fn term(&self) -> Result<Term, Error> {
        Ok(Term::begin(&self.inner.zookeeper).await?)
    }

    /// The job that `reference` means: a full id, a unique beginning of one, or `last`.
    ///
    /// # Errors
    /// [`Error::NoSuchJob`]; [`Error::Storage`], also when more than one job has an id that begins so.
    pub async fn job(&self, reference: &str) -> Result<Job, Error> {
        let id = self.resolve(reference).await?;
        self.store().job(id).await?.ok_or_else(|| Error::NoSuchJob {
            reference: reference.to_string(),
        })
    }

    /// The id of the job that `reference` means.
    ///
    /// # Errors
    /// As [`Control::job`].
    pub async fn resolve(&self, reference: &str) -> Result<JobId, Error> {
        self.store()
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
        Ok(self.store().list(filter).await?)
    }

    /// Asks for the end of a job and gives it as it stands; the leader sees to it, usually within a second.
    ///
    /// # Errors
    /// As [`Control::job`]; [`Error::AlreadyEnded`] for a job that is final.
    pub async fn cancel(&self, reference: &str) -> Result<Job, Error> {
        let id = self.resolve(reference).await?;
        let asked = self.store().request_cancel(id).await?;
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
        Ok(self.store().failures(job, limit).await?)
    }

    /// Removes what is older than its retention, as the leader does by itself once in a while.
    ///
    /// # Errors
    /// [`Error::Storage`]; what was removed before stays removed.
    pub async fn prune(&self, retention: Retention) -> Result<Pruned, Error> {
        Ok(self.store().prune(submit::now_ms(), retention).await?)
    }
}
