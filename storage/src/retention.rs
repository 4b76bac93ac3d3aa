//! What is removed when: results a while after their job has ended, jobs and failures later.
//!
//! By job and not by a TTL index, which would take results of a job that still runs.

use std::time::Duration;

use bson::{Bson, Document, doc};
use model::{JobId, JobState};

use crate::{
    CHANGES_KEPT, Error, Store,
    jobs::states,
    rows::Query,
    schema::{self, FAILURES, JOBS, RESULTS, ROWS, SESSIONS, date},
    sessions::LIFETIME,
};

/// How long things stay after their job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Results, and what was spilled of them.
    pub results: Duration,
    /// Jobs, their failures and the rows of their answers.
    pub jobs: Duration,
}

impl Default for Retention {
    /// Seven days and thirty.
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            results: 7 * day,
            jobs: 30 * day,
        }
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Result documents.
    pub results: u64,
    /// Failure documents.
    pub failures: u64,
    /// Job documents.
    pub jobs: u64,
    /// Objects in the block store.
    pub objects: u64,
}

/// Jobs looked at by one query.
const BATCH: usize = 1000;

impl Store {
    /// Removes what is past its time, seen from `now_ms` ([`Clock::now_ms`](crate::Clock::now_ms)), and sweeps the block
    /// store.
    /// Only ever touches jobs that have ended, and none that a view needs. Dropping it half-way, or a second one at the same time, does no harm.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Object`].
    pub async fn prune(&self, now_ms: i64, retention: Retention) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        let (needed, _) = self.needed_by_views().await?;
        let needed: Vec<Bson> = needed.into_iter().map(|job| schema::uuid(job).into()).collect();
        let before =
            |age: Duration| date(now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
        // The longer-lived of the two goes by what is shorter: a job without a document would leave results behind.
        let ended = states(&[JobState::Successful, JobState::Failed, JobState::Cancelled]);
        // What ended before a time was submitted before it, and ids begin with the time of submission: an index of ends,
        // which every end would pay for, is not needed.
        let submitted_before = |age: Duration| {
            let millis = u64::try_from(now_ms).unwrap_or_default();
            let time = Duration::from_millis(millis).saturating_sub(age);
            let stamp = uuid::Timestamp::from_unix_time(time.as_secs(), time.subsec_nanos(), 0, 0);
            schema::uuid(JobId(uuid::Uuid::new_v7(stamp)))
        };
        let results_age = retention.results.min(retention.jobs);
        let old = doc! {
            "_id": { "$lt": submitted_before(results_age), "$nin": &needed },
            "finished_at": { "$lt": before(results_age) },
            "state": { "$in": &ended },
            "pruned": { "$ne": true },
        };
        loop {
            let jobs = self.ended_jobs(old.clone()).await?;
            for &job in &jobs {
                pruned.objects += self.delete_job_outputs(job).await?;
                pruned.results += self.delete(RESULTS, schema::all_of(job, 20)).await?;
                let mark = doc! { "$set": { "pruned": true } };
                let marked = self
                    .documents(JOBS)
                    .update_one(doc! { "_id": schema::uuid(job) }, mark)
                    .await;
                marked.map_err(self.failed("pruning"))?;
            }
            if jobs.is_empty() {
                break;
            }
        }
        let older = doc! {
            "_id": { "$lt": submitted_before(retention.jobs), "$nin": &needed },
            "finished_at": { "$lt": before(retention.jobs) },
            "state": { "$in": &ended },
        };
        loop {
            let jobs = self.ended_jobs(older.clone()).await?;
            for &job in &jobs {
                pruned.failures += self.delete(FAILURES, schema::all_of(job, 24)).await?;
                self.delete(ROWS, doc! { "job": schema::uuid(job) }).await?;
                pruned.jobs += self.delete(JOBS, doc! { "_id": schema::uuid(job) }).await?;
            }
            if jobs.is_empty() {
                break;
            }
        }
        pruned.objects += self.sweep(now_ms).await?;
        self.sweep_filling().await?;
        let kept = i64::try_from(CHANGES_KEPT.as_millis()).unwrap_or(i64::MAX);
        self.forget_changes(now_ms.saturating_sub(kept)).await?;
        self.delete(SESSIONS, doc! { "at": { "$lt": before(LIFETIME) } })
            .await?;
        Ok(pruned)
    }

    async fn ended_jobs(&self, filter: Document) -> Result<Vec<JobId>, Error> {
        let query = Query::new(JOBS, "pruning", filter).fields(&["_id"]).limit(BATCH);
        let mut rows = self.find(query).await?;
        let mut jobs = Vec::new();
        while let Some(job) = rows.next().await? {
            jobs.extend(schema::job_id(job, "_id"));
        }
        Ok(jobs)
    }

    async fn delete(&self, collection: &str, filter: Document) -> Result<u64, Error> {
        let deleted = self.documents(collection).delete_many(filter).await;
        Ok(deleted
            .map_err(self.failed(format!("pruning {collection}")))?
            .deleted_count)
    }
}
