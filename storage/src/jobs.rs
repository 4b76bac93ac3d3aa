//! Jobs as users see them: submitted, looked up, listed, asked to be cancelled.

use std::future::IntoFuture as _;

use bson::{DateTime, Document, RawDocument, RawDocumentBuf, doc};
use model::{
    Counts, FORMAT, Fingerprint, Job, JobId, JobSpec, JobState, Name, Priority, Processor,
    job::DEFAULT_MAX_FAILED, retry::RetryPolicy,
};
use mongodb::error::ErrorKind;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Error, Store,
    error::DUPLICATE_KEY,
    extent::Extent,
    rows::Query,
    schema::{self, JOBS},
};

/// Jobs inserted by one command; more gain nothing.
const SUBMIT_BATCH: usize = 1000;
/// How many jobs an ambiguous prefix names.
const SHOWN_MATCHES: usize = 5;

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// In one of these states; empty: in any.
    pub states: Vec<JobState>,
    /// Over this dataset.
    pub dataset: Option<Name>,
    /// At most so many, the newest first.
    pub limit: Option<u32>,
}

impl Store {
    /// Writes new jobs as they are given. Repeating it with the same jobs changes nothing.
    ///
    /// Dropping it half-way leaves any of the jobs submitted.
    ///
    /// # Errors
    /// [`Error::Mongo`]; some of the jobs may be there.
    pub async fn submit(&self, jobs: Vec<Job>) -> Result<(), Error> {
        for batch in jobs.chunks(SUBMIT_BATCH) {
            let documents: Vec<RawDocumentBuf> = batch.iter().map(encode).collect::<Result<_, _>>()?;
            match self.raw(JOBS).insert_many(documents).ordered(false).await {
                Err(error) if only_duplicates(&error) => {}
                other => drop(other.map_err(self.failed("submitting jobs"))?),
            }
        }
        Ok(())
    }

    /// The job with this id.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        let found = self
            .find_by_id(JOBS, schema::uuid(id), &format!("reading job {id}"))
            .await?;
        found.map(|document| decode(&document)).transpose()
    }

    /// The job that `prefix` means: the first digits of an id, with or without hyphens, or `last` for the newest.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`], [`Error::Mongo`].
    pub async fn resolve(&self, prefix: &str) -> Result<JobId, Error> {
        let not_found = || Error::NotFound {
            what: format!("job {prefix:?}"),
        };
        let filter = if prefix == "last" {
            doc! {}
        } else {
            let (first, last) = id_range(prefix).ok_or_else(not_found)?;
            doc! { "_id": { "$gte": schema::uuid(first), "$lte": schema::uuid(last) } }
        };
        let limit = if prefix == "last" { 1 } else { SHOWN_MATCHES };
        let query = Query::new(JOBS, "looking for a job", filter)
            .fields(&["_id"])
            .sort("_id", -1)
            .limit(limit);
        let mut rows = self.find(query).await?;
        let mut ids = Vec::new();
        while let Some(job) = rows.next().await? {
            ids.extend(schema::job_id(job, "_id"));
        }
        match ids[..] {
            [] => Err(not_found()),
            [id] => Ok(id),
            _ => {
                let matches = ids.iter().map(ToString::to_string).collect();
                Err(Error::Ambiguous {
                    prefix: prefix.to_string(),
                    matches,
                })
            }
        }
    }

    /// Jobs, the newest first.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn list(&self, filter: &JobFilter) -> Result<Vec<Job>, Error> {
        let mut wanted = Document::new();
        if !filter.states.is_empty() {
            wanted.insert("state", doc! { "$in": states(&filter.states) });
        }
        if let Some(dataset) = &filter.dataset {
            let name = dataset.as_str();
            wanted.insert("$or", vec![doc! { "dataset": name }, doc! { "also": name }]);
        }
        let limit = filter.limit.map_or(0, |limit| limit as usize);
        if filter.limit == Some(0) {
            return Ok(Vec::new());
        }
        self.find_jobs(wanted, &[("_id", -1)], limit).await
    }

    /// The newest successful job with this answer whose results are still there.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn answered(&self, answer: &Fingerprint) -> Result<Option<Job>, Error> {
        let wanted = doc! {
            "answer": schema::key(&answer.0),
            "state": JobState::Successful.as_str(),
            "pruned": { "$ne": true },
        };
        Ok(self.find_jobs(wanted, &[("_id", -1)], 1).await?.pop())
    }

    /// Asks for the end of a job; the leader sees to it. Tells whether there is anything to cancel: false for a job that
    /// has ended.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Mongo`].
    pub async fn request_cancel(&self, id: JobId) -> Result<bool, Error> {
        let unfinished = [JobState::Pending, JobState::Staging, JobState::Running];
        let filter = doc! { "_id": schema::uuid(id), "state": { "$in": states(&unfinished) } };
        let update = doc! { "$set": { "cancel_requested": true } };
        let jobs = self.documents(JOBS);
        let asking = jobs.update_one(filter, update);
        let done = self.patiently(asking.into_future()).await;
        if done
            .map_err(self.failed(format!("cancelling job {id}")))?
            .matched_count
            > 0
        {
            return Ok(true);
        }
        match self.job(id).await? {
            Some(_) => Ok(false),
            None => Err(Error::NotFound {
                what: format!("job {id}"),
            }),
        }
    }

    /// Whole jobs, at most `limit`; 0: all.
    pub(crate) async fn find_jobs(
        &self,
        filter: Document,
        sort: &[(&str, i32)],
        limit: usize,
    ) -> Result<Vec<Job>, Error> {
        let query = Query::new(JOBS, "reading jobs", filter)
            .limit(limit)
            .batch(10_000);
        let query = sort
            .iter()
            .fold(query, |query, (key, direction)| query.sort(key, *direction));
        let mut rows = self.find(query).await?;
        let mut jobs = Vec::new();
        while let Some(job) = rows.next().await? {
            jobs.push(decode(job)?);
        }
        Ok(jobs)
    }
}

fn only_duplicates(error: &mongodb::error::Error) -> bool {
    let ErrorKind::InsertMany(many) = &*error.kind else {
        return false;
    };
    many.write_concern_error.is_none()
        && many
            .write_errors
            .as_ref()
            .is_some_and(|all| all.iter().all(|error| error.code == DUPLICATE_KEY))
}

/// The lowest and highest id that starts with these hexadecimal digits.
fn id_range(prefix: &str) -> Option<(JobId, JobId)> {
    let digits: String = prefix.chars().filter(|&c| c != '-').collect();
    if digits.is_empty() || digits.len() > 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let bound = |fill: &str| {
        Uuid::try_parse(&format!("{digits}{}", fill.repeat(32 - digits.len())))
            .ok()
            .map(JobId)
    };
    Some((bound("0")?, bound("f")?))
}

/// The states of jobs that have not ended.
pub(crate) fn unfinished() -> Vec<&'static str> {
    states(&[JobState::Pending, JobState::Staging, JobState::Running])
}

/// The filter for jobs over an incarnation of a dataset.
pub(crate) fn over(dataset: Uuid) -> Document {
    let id = bson::Uuid::from_uuid_1(dataset);
    doc! { "$or": [{ "dataset_id": id }, { "also_ids": id }] }
}

pub(crate) fn states(states: &[JobState]) -> Vec<&'static str> {
    states.iter().map(|state| state.as_str()).collect()
}

/// How a job is written. What the recorder adds up it finds without reading the rest: `merges` repeats what the
/// processor says.
#[derive(Serialize, Deserialize)]
struct JobDocument {
    #[serde(rename = "_id")]
    id: bson::Uuid,
    v: u32,
    dataset: Name,
    dataset_id: bson::Uuid,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    also: Vec<Name>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    also_ids: Vec<bson::Uuid>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    firsts: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    of_blocks: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parts: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    packed: Option<bson::Binary>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    generations: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voids: Vec<u32>,
    processor: Processor,
    merges: bool,
    priority: Priority,
    retry: RetryPolicy,
    #[serde(default)]
    reuse: bool,
    #[serde(default = "default_max_failed")]
    max_failed: u32,
    /// Absent where nobody may be answered from it, which keeps its sparse index small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<bson::Binary>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    skip_missing: bool,
    blocks: u32,
    state: JobState,
    #[serde(default)]
    counts: Counts,
    #[serde(default)]
    low_water: u32,
    /// Absent until asked for, which keeps its sparse index small.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cancel_requested: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    submitted_at: DateTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admitted_at: Option<DateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished_at: Option<DateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    submitted_by: Option<String>,
    #[serde(default)]
    epoch: i64,
}

fn default_max_failed() -> u32 {
    DEFAULT_MAX_FAILED
}

/// Writes a whole job.
pub(crate) fn encode(job: &Job) -> Result<RawDocumentBuf, Error> {
    let first = job.parts.sources().first();
    let extent = Extent::of(&job.parts);
    let document = JobDocument {
        id: schema::uuid(job.id),
        v: FORMAT,
        dataset: job.spec.dataset.clone(),
        dataset_id: bson::Uuid::from_uuid_1(first.map_or(Uuid::nil(), |source| source.id)),
        also: job.spec.also.clone(),
        also_ids: extent.also_ids,
        firsts: extent.firsts,
        of_blocks: extent.of_blocks,
        parts: extent.parts,
        packed: extent.packed,
        generations: extent.generations,
        voids: extent.voids,
        processor: job.spec.processor.clone(),
        merges: job.has_merge(),
        priority: job.spec.priority,
        retry: job.spec.retry,
        reuse: job.spec.reuse,
        max_failed: job.spec.max_failed,
        answer: job.answer_key().map(|key| schema::key(&key.0)),
        skip_missing: job.spec.skip_missing,
        blocks: job.blocks,
        state: job.state,
        counts: job.counts,
        low_water: job.low_water,
        cancel_requested: job.cancel_requested,
        error: job.error.clone(),
        submitted_at: schema::date(job.submitted_ms),
        admitted_at: job.admitted_ms.map(schema::date),
        finished_at: job.finished_ms.map(schema::date),
        submitted_by: job.submitted_by.clone(),
        epoch: 0,
    };
    bson::serialize_to_raw_document_buf(&document).map_err(|error| Error::Decode {
        what: format!("job {}", job.id),
        why: error.to_string(),
    })
}

/// Reads a whole job.
pub(crate) fn decode(raw: &RawDocument) -> Result<Job, Error> {
    let what = || match schema::job_id(raw, "_id") {
        Some(id) => format!("job {id}"),
        None => "a job without an id".to_string(),
    };
    schema::check_version(raw, what)?;
    let document: JobDocument =
        bson::deserialize_from_slice(raw.as_bytes()).map_err(|error| Error::Decode {
            what: what(),
            why: error.to_string(),
        })?;
    let extent = Extent {
        also_ids: document.also_ids,
        firsts: document.firsts,
        of_blocks: document.of_blocks,
        parts: document.parts,
        packed: document.packed,
        generations: document.generations,
        voids: document.voids,
    };
    let parts = extent
        .read(document.dataset_id, document.blocks)
        .map_err(|why| Error::Decode {
            what: what(),
            why: why.to_string(),
        })?;
    Ok(Job {
        id: JobId(document.id.to_uuid_1()),
        spec: JobSpec {
            dataset: document.dataset,
            also: document.also,
            processor: document.processor,
            priority: document.priority,
            retry: document.retry,
            reuse: document.reuse,
            max_failed: document.max_failed,
            skip_missing: document.skip_missing,
        },
        parts,
        blocks: document.blocks,
        state: document.state,
        counts: document.counts,
        low_water: document.low_water,
        cancel_requested: document.cancel_requested,
        error: document.error,
        submitted_ms: document.submitted_at.timestamp_millis(),
        admitted_ms: document.admitted_at.map(DateTime::timestamp_millis),
        finished_ms: document.finished_at.map(DateTime::timestamp_millis),
        submitted_by: document.submitted_by,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_become_ranges() {
        let (first, last) = id_range("0198-aB").unwrap();
        assert_eq!(first.to_string(), "0198ab00-0000-0000-0000-000000000000");
        assert_eq!(last.to_string(), "0198abff-ffff-ffff-ffff-ffffffffffff");
        let whole = "0198ab00-0000-7000-8000-000000000001";
        assert_eq!(
            id_range(whole).map(|(a, b)| (a == b, a.to_string())),
            Some((true, whole.to_string()))
        );
        for bad in ["", "-", "xyz", &"0".repeat(33)] {
            assert_eq!(id_range(bad), None, "{bad:?}");
        }
    }
}
