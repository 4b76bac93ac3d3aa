//! What only the leading dispatcher writes, each conditional on its epoch, and the light reads it makes all the time.

use std::future::IntoFuture as _;

use bson::{Bson, RawArrayBuf, RawDocument, RawDocumentBuf, doc, rawdoc};
use model::{Counts, Job, JobId, JobState, Priority};

use crate::{
    Error, Store,
    error::{DUPLICATE_KEY, is_transient},
    fence::{DISPATCHER, statement},
    jobs::states,
    rows::Query,
    schema::{self, JOBS, LEADER, count, date, now_ms, signed},
    transaction::pause,
};

/// The term of office of a leading dispatcher: a later one has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Jobs named in one command.
const IDS: usize = 1000;
/// Documents in one reply.
const BATCH: u32 = 10_000;
/// How often a leader tries to count up the epoch, and looks for the document that counts them.
const EPOCH_TRIES: u32 = 100;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The job.
    pub id: JobId,
    /// Where it is in its life.
    pub state: JobState,
    /// What is recorded.
    pub counts: Counts,
    /// Whether a user asked to cancel it.
    pub cancel_requested: bool,
}

impl From<&Job> for Progress {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id,
            state: job.state,
            counts: job.counts,
            cancel_requested: job.cancel_requested,
        }
    }
}

impl Store {
    /// Takes office: from now on whoever led before writes nothing. `holder` is kept for people to read.
    ///
    /// # Errors
    /// [`Error::Mongo`]; the epoch may have been counted up all the same, which costs nothing.
    pub async fn take_epoch(&self, holder: &str) -> Result<Epoch, Error> {
        let update = doc! {
            "$inc": { "epoch": 1_i64 },
            "$set": { "v": i64::from(model::FORMAT), "holder": holder, "since": date(now_ms()) },
        };
        let mut tries = 0;
        loop {
            let leader = self.documents(LEADER);
            let taken = leader
                .find_one_and_update(doc! { "_id": DISPATCHER }, update.clone())
                .return_document(mongodb::options::ReturnDocument::After);
            // The leader before may have died inside a transaction that holds the document.
            let taken = match self.patiently(taken.into_future()).await {
                Err(error) if tries < EPOCH_TRIES && is_transient(&error) => {
                    tries += 1;
                    tokio::time::sleep(pause(tries)).await;
                    continue;
                }
                taken => taken.map_err(self.failed("taking office"))?,
            };
            let epoch = taken
                .and_then(|leader| leader.get_i64("epoch").ok())
                .and_then(|epoch| u64::try_from(epoch).ok());
            if let Some(epoch) = epoch.filter(|&epoch| epoch > 0) {
                return Ok(Epoch(epoch));
            }
            tries += 1;
            if tries > EPOCH_TRIES {
                let why = "it gives no epoch".to_string();
                return Err(Error::Decode {
                    what: format!("{LEADER}/{DISPATCHER}"),
                    why,
                });
            }
            self.make_leader_document().await?;
        }
    }

    /// Makes the document that counts the epochs where it is missing: an upsert that counts as well would answer
    /// differently when two make it at once.
    async fn make_leader_document(&self) -> Result<(), Error> {
        let document = doc! { "_id": DISPATCHER, "v": i64::from(model::FORMAT), "epoch": 0_i64 };
        match self.documents(LEADER).insert_one(document).await {
            Err(error) if crate::error::code(&error) == Some(DUPLICATE_KEY) => Ok(()),
            other => other.map(drop).map_err(self.failed("taking office")),
        }
    }

    /// Jobs that wait to be admitted, at most `limit`: higher priority first, then older; with `above` only those of a
    /// higher priority than that. Those that users asked to cancel are among them.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn pending(&self, limit: usize, above: Option<Priority>) -> Result<Vec<Job>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut filter = doc! { "state": JobState::Pending.as_str() };
        if let Some(above) = above {
            filter.insert("priority", doc! { "$gt": i32::from(above.get()) });
        }
        self.find_jobs(filter, &[("priority", -1), ("_id", 1)], limit)
            .await
    }

    /// Marks pending jobs as STAGING, in one transaction per thousand; those that are no longer pending stay as they are.
    ///
    /// # Errors
    /// [`Error::Deposed`]: nothing of that thousand is written; [`Error::Mongo`].
    pub async fn admit(&self, jobs: &[JobId], epoch: Epoch) -> Result<(), Error> {
        for ids in jobs.chunks(IDS) {
            let filter = rawdoc! { "_id": { "$in": raw_ids(ids) }, "state": JobState::Pending.as_str() };
            let state = JobState::Staging.as_str();
            let set = rawdoc! { "state": state, "epoch": signed(epoch.0), "admitted_at": date(now_ms()) };
            let mut statements = RawArrayBuf::new();
            statements.push(statement(&filter, &rawdoc! { "$set": set }, true));
            self.fenced(epoch, "admitting jobs", statements).await?;
        }
        Ok(())
    }

    /// All jobs in STAGING and RUNNING, the oldest first.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn active(&self) -> Result<Vec<Job>, Error> {
        let active = states(&[JobState::Staging, JobState::Running]);
        self.find_jobs(doc! { "state": { "$in": active } }, &[("_id", 1)], 0)
            .await
    }

    /// The ids of all jobs in STAGING and RUNNING, in no particular order.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn active_ids(&self) -> Result<Vec<JobId>, Error> {
        let active = states(&[JobState::Staging, JobState::Running]);
        let query = Query::new(JOBS, "reading jobs", doc! { "state": { "$in": active } });
        let mut rows = self.find(query.fields(&["_id"]).batch(BATCH)).await?;
        let mut ids = Vec::new();
        while let Some(job) = rows.next().await? {
            ids.extend(schema::job_id(job, "_id"));
        }
        Ok(ids)
    }

    /// Takes jobs over from an earlier leader, who from then on can't write them; read them after this, not before.
    ///
    /// Needs no fence: the epoch of a job only grows, so a deposed leader's late call does no harm.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn adopt(&self, jobs: &[JobId], epoch: Epoch) -> Result<(), Error> {
        for jobs in jobs.chunks(IDS) {
            let mut statements = RawArrayBuf::new();
            for &job in jobs {
                let filter = rawdoc! { "_id": schema::uuid_binary(job), "epoch": { "$lt": signed(epoch.0) } };
                let update = rawdoc! { "$set": { "epoch": signed(epoch.0) } };
                statements.push(statement(&filter, &update, false));
            }
            self.update_each("adopting jobs", statements).await?;
        }
        Ok(())
    }

    /// Runs statements on the jobs, each by itself, in no particular order. One that changes many jobs has no place here:
    /// it would hold what it has written while it waits for a transaction that may wait for that.
    async fn update_each(&self, doing: &str, statements: RawArrayBuf) -> Result<(), Error> {
        let command = rawdoc! {
            "update": JOBS,
            "updates": statements,
            "ordered": false,
            "writeConcern": { "w": "majority" },
        };
        let reply = self
            .patiently(self.db().run_raw_command(command).into_future())
            .await;
        let reply = reply.map_err(self.failed(doing))?;
        crate::record::check_reply(&reply).map_err(self.failed(doing))
    }

    /// How far jobs are, in no particular order; those that do not exist are left out.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`].
    pub async fn progress(&self, jobs: &[JobId]) -> Result<Vec<Progress>, Error> {
        let mut all = Vec::with_capacity(jobs.len());
        for ids in jobs.chunks(BATCH as usize) {
            let filter = match ids {
                [id] => doc! { "_id": schema::uuid(*id) },
                _ => {
                    let ids: Vec<Bson> = ids.iter().map(|&id| schema::uuid(id).into()).collect();
                    doc! { "_id": { "$in": ids } }
                }
            };
            let query = Query::new(JOBS, "reading progress", filter);
            let mut rows = self
                .find(
                    query
                        .fields(&["state", "counts", "cancel_requested"])
                        .batch(BATCH),
                )
                .await?;
            while let Some(job) = rows.next().await? {
                all.push(progress(job)?);
            }
        }
        Ok(all)
    }

    /// Keeps up to which index everything has ended; it only grows, and only for jobs under `epoch` or an earlier one.
    ///
    /// # Errors
    /// [`Error::Mongo`]. A deposed leader's call changes nothing and is no error.
    pub async fn set_low_water(&self, marks: Vec<(JobId, u32)>, epoch: Epoch) -> Result<(), Error> {
        for marks in marks.chunks(IDS) {
            let mut statements = RawArrayBuf::new();
            for &(job, mark) in marks {
                let mark = i64::from(mark);
                let filter = rawdoc! {
                    "_id": schema::uuid_binary(job),
                    "epoch": { "$lte": signed(epoch.0) },
                    "low_water": { "$lt": mark },
                };
                statements.push(statement(
                    &filter,
                    &rawdoc! { "$set": { "low_water": mark } },
                    false,
                ));
            }
            self.update_each("keeping low-water marks", statements).await?;
        }
        Ok(())
    }

    /// Forgets the low-water mark of a job that is under `epoch` or an earlier one: it was found to be too high.
    ///
    /// # Errors
    /// [`Error::Mongo`]. A deposed leader's call changes nothing and is no error.
    pub async fn reset_low_water(&self, job: JobId, epoch: Epoch) -> Result<(), Error> {
        let filter = doc! { "_id": schema::uuid(job), "epoch": { "$lte": signed(epoch.0) } };
        let jobs = self.documents(JOBS);
        let resetting = jobs.update_one(filter, doc! { "$set": { "low_water": 0_i64 } });
        let reset = self.patiently(resetting.into_future()).await;
        reset.map(drop).map_err(self.failed("resetting a low-water mark"))
    }

    /// Ends a job from outside: cancelled, or failed without running the rest. Tells whether it did: false when an end
    /// has been recorded since `expected` was read, when the job is final, or when a later leader has it.
    ///
    /// `cancelled` is how many subtasks never ran; `error` says why, and none keeps the reason that is there.
    ///
    /// # Errors
    /// [`Error::Mongo`]; [`Error::Deposed`] for a job that is still pending.
    pub async fn end_job(
        &self,
        id: JobId,
        epoch: Epoch,
        state: JobState,
        cancelled: u64,
        error: Option<String>,
        expected: &Counts,
    ) -> Result<bool, Error> {
        let mut filter = doc! {
            "_id": schema::uuid(id),
            "state": { "$in": states(&[JobState::Staging, JobState::Running]) },
            "epoch": { "$lte": signed(epoch.0) },
            "counts.ok": signed(expected.ok),
            "counts.failed": signed(expected.failed),
            "counts.again": signed(expected.again),
        };
        let update = end(state, cancelled, error);
        let raw = |document: &bson::Document| {
            let invalid = |why: bson::error::Error| Error::Decode {
                what: format!("job {id}"),
                why: why.to_string(),
            };
            RawDocumentBuf::try_from(document).map_err(invalid)
        };
        let jobs = self.documents(JOBS);
        let ending = jobs.update_one(filter.clone(), update.clone());
        let done = self.patiently(ending.into_future()).await;
        if done
            .map_err(self.failed(format!("ending job {id}")))?
            .matched_count
            > 0
        {
            return Ok(true);
        }
        // A pending job has no epoch of its own to compare with.
        filter.insert("state", JobState::Pending.as_str());
        if self
            .documents(JOBS)
            .count_documents(filter.clone())
            .await
            .map_err(self.failed("reading jobs"))?
            == 0
        {
            return Ok(false);
        }
        let mut statements = RawArrayBuf::new();
        statements.push(statement(&raw(&filter)?, &raw(&update)?, false));
        Ok(self
            .fenced(epoch, &format!("ending job {id}"), statements)
            .await?
            > 0)
    }

    /// Ends the pending jobs that users asked to cancel; gives how many.
    ///
    /// # Errors
    /// [`Error::Deposed`], [`Error::Mongo`].
    pub async fn cancel_pending(&self, epoch: Epoch) -> Result<u64, Error> {
        let filter = doc! { "cancel_requested": true, "state": JobState::Pending.as_str() };
        let mut cancelled = 0;
        loop {
            let jobs = self.find_jobs(filter.clone(), &[("_id", 1)], IDS).await?;
            let mut statements = RawArrayBuf::new();
            for job in &jobs {
                let filter =
                    rawdoc! { "_id": schema::uuid_binary(job.id), "state": JobState::Pending.as_str() };
                let update = end(JobState::Cancelled, job.subtasks(), None);
                let update = RawDocumentBuf::try_from(&update).map_err(|why| Error::Decode {
                    what: format!("job {}", job.id),
                    why: why.to_string(),
                })?;
                statements.push(statement(&filter, &update, false));
            }
            if jobs.is_empty() {
                return Ok(cancelled);
            }
            cancelled += self.fenced(epoch, "cancelling jobs", statements).await?;
        }
    }
}

fn end(state: JobState, cancelled: u64, error: Option<String>) -> bson::Document {
    let mut set = doc! {
        "state": state.as_str(),
        "counts.cancelled": signed(cancelled),
    };
    if let Some(error) = error {
        set.insert("error", error);
    }
    // By MongoDB's clock: what ended long ago is removed.
    doc! { "$set": set, "$currentDate": { "finished_at": true } }
}

fn raw_ids(ids: &[JobId]) -> RawArrayBuf {
    let mut array = RawArrayBuf::new();
    for id in ids {
        array.push(schema::raw_uuid(id.0.as_bytes()));
    }
    array
}

pub(crate) fn progress(document: &RawDocument) -> Result<Progress, Error> {
    let bad = |why: &str| Error::Decode {
        what: "a job".into(),
        why: why.into(),
    };
    let id = schema::job_id(document, "_id").ok_or_else(|| bad("its _id is no UUID"))?;
    let state = document
        .get_str("state")
        .ok()
        .and_then(|state| state.parse().ok());
    Ok(Progress {
        id,
        state: state.ok_or_else(|| bad("it has no known state"))?,
        counts: counts(document),
        cancel_requested: document.get_bool("cancel_requested").unwrap_or(false),
    })
}

/// The counts of a job; missing ones are 0.
pub(crate) fn counts(job: &RawDocument) -> Counts {
    let Ok(counts) = job.get_document("counts") else {
        return Counts::default();
    };
    Counts {
        ok: count(counts, "ok"),
        failed: count(counts, "failed"),
        cancelled: count(counts, "cancelled"),
        again: count(counts, "again"),
        already: count(counts, "already"),
        executed: count(counts, "executed"),
        busy_us: count(counts, "busy_us"),
    }
}
