//! Attempts that ended without an end for the subtask: failed, lost, returned, moved.

use bson::{Document, RawDocument, doc};
use model::{
    JobId, Name, Outcome,
    outcome::{Death, Evidence, Past, Run},
};

use crate::{
    Error, Store, results,
    rows::Query,
    schema::{self, FAILURES, count, key, narrow},
};

/// One unsuccessful attempt of one subtask or of a run of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRecord {
    /// How many such ends of subtasks of the job were recorded before this one; the next record has `ordinal +
    /// run.count`, and after the last one that is the job's `counts.again`.
    pub ordinal: u64,
    /// Which subtasks, in which attempt.
    pub run: Run,
    /// What had happened to them before.
    pub past: Past,
    /// Name of the node that had them; none for what came straight from the leader.
    pub node: Option<Name>,
    /// Failed, lost, returned or moved.
    pub outcome: Outcome,
    /// When it was recorded, in milliseconds since 1970 UTC.
    pub at_ms: i64,
}

impl Store {
    /// The failures of a job with this ordinal or a higher one, in order: what a leader that knows
    /// `counts.again == ordinal` has not seen.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn failures_from(&self, job: JobId, ordinal: u64) -> Result<Vec<FailureRecord>, Error> {
        let filter = doc! { "job": schema::uuid(job), "ordinal": { "$gte": schema::signed(ordinal) } };
        self.find_failures(job, filter, ("ordinal", 1), 0).await
    }

    /// The failures of a job that concern a subtask with an index of at least `index`, in order of ordinal: for a
    /// takeover.
    ///
    /// # Errors
    /// As [`Store::failures_from`].
    pub async fn failures_above(&self, job: JobId, index: u32) -> Result<Vec<FailureRecord>, Error> {
        // An entry that begins below the index may reach above it.
        let lowest = index.saturating_sub(model::limits::BUNDLE_SUBTASKS);
        let mut filter = schema::all_of(job, 24);
        let from = key(&schema::failure_key(job, lowest, 0));
        filter
            .get_document_mut("_id")
            .expect("all_of is a filter by _id")
            .insert("$gte", from);
        let mut found = self.find_failures(job, filter, ("_id", 1), 0).await?;
        found.retain(|failure| failure.run.end() > index);
        found.sort_unstable_by_key(|failure| failure.ordinal);
        Ok(found)
    }

    /// The latest failures of a job, at most `limit`, in order of ordinal.
    ///
    /// # Errors
    /// As [`Store::failures_from`].
    pub async fn failures(&self, job: JobId, limit: u32) -> Result<Vec<FailureRecord>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let filter = doc! { "job": schema::uuid(job) };
        let mut found = self
            .find_failures(job, filter, ("ordinal", -1), limit as usize)
            .await?;
        found.reverse();
        Ok(found)
    }

    async fn find_failures(
        &self,
        job: JobId,
        filter: Document,
        sort: (&str, i32),
        limit: usize,
    ) -> Result<Vec<FailureRecord>, Error> {
        let query = Query::new(FAILURES, format!("reading failures of job {job}"), filter);
        let mut rows = self
            .find(query.sort(sort.0, sort.1).limit(limit).batch(10_000))
            .await?;
        let mut found = Vec::new();
        while let Some(document) = rows.next().await? {
            found.push(decode(job, document)?);
        }
        Ok(found)
    }
}

/// The deaths in a past; what is no death is left out.
fn deaths(past: &RawDocument) -> Vec<Death> {
    let Ok(deaths) = past.get_array("deaths") else {
        return Vec::new();
    };
    let documents = deaths
        .into_iter()
        .flatten()
        .filter_map(|death| death.as_document());
    let death = |document: &RawDocument| {
        Some(Death {
            process: schema::job_id(document, "process")?.0,
            evidence: Evidence::from_word(document.get_str("evidence").ok()?)?,
        })
    };
    documents.filter_map(death).collect()
}

pub(crate) fn decode(job: JobId, document: &RawDocument) -> Result<FailureRecord, Error> {
    let what = || {
        format!(
            "failure of job {job} at {}",
            schema::index_of(document).unwrap_or(0)
        )
    };
    schema::check_version(document, what)?;
    let bad = |why: &str| Error::Decode {
        what: what(),
        why: why.to_string(),
    };
    let field = |name: &str| narrow(document, name).ok_or_else(|| bad(&format!("it has no {name}")));
    let run = Run {
        first: field("first")?,
        count: field("count")?,
        attempt: field("attempt")?,
    };
    let past = document
        .get_document("past")
        .map_or(Past::default(), |past| Past {
            failed: narrow(past, "failed").unwrap_or(0),
            deaths: deaths(past),
        });
    let outcome = match document.get_str("outcome") {
        Ok("failed") => {
            let failure = document
                .get_document("failure")
                .map_err(|_| bad("it says not why"))?;
            Outcome::Failed(results::decode_failure(failure))
        }
        Ok("lost") => Outcome::Lost,
        Ok("returned") => Outcome::Returned,
        Ok("moved") => Outcome::Moved,
        other => return Err(bad(&format!("its outcome is {other:?}"))),
    };
    let at_ms = document
        .get_datetime("at")
        .map_or(0, bson::DateTime::timestamp_millis);
    let node = document
        .get_str("node")
        .ok()
        .and_then(|node| Name::new(node).ok());
    Ok(FailureRecord {
        ordinal: count(document, "ordinal"),
        run,
        past,
        node,
        outcome,
        at_ms,
    })
}
