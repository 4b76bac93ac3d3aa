//! The ends of subtasks, as recorded.

use std::ops::Range;

use bson::{RawDocument, doc, raw::RawBsonRef};
use futures::{Stream, stream};
use model::{Failure, FailureKind, JobId, Output, Payload};
use uuid::Uuid;

use crate::{
    Error, Store,
    rows::Query,
    schema::{self, RESULTS, count, narrow, results_in},
};

/// Index numbers in one reply: each takes about 40 bytes.
const INDEX_BATCH: u32 = 50_000;

/// The recorded end of a subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Which subtask: a block, or the merge, whose index is the number of blocks.
    pub index: u32,
    /// In which attempt.
    pub attempt: u32,
    /// What it gave, or why it failed for good.
    pub result: Result<Output, Failure>,
}

impl Store {
    /// The indexes from `from_index` on that have a recorded end, in order, read with majority: for a takeover.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn result_ids_from(&self, job: JobId, from_index: u32) -> Result<Vec<u32>, Error> {
        let doing = format!("reading what is recorded of job {job}");
        let query = Query::new(RESULTS, doing, results_in(job, from_index..u32::MAX));
        let mut rows = self
            .find(query.fields(&["_id"]).sort("_id", 1).batch(INDEX_BATCH))
            .await?;
        let mut indexes = Vec::new();
        while let Some(document) = rows.next().await? {
            indexes.extend(schema::index_of(document));
        }
        Ok(indexes)
    }

    /// How many subtasks with an index below `index` have a recorded end.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn results_below(&self, job: JobId, index: u32) -> Result<u64, Error> {
        let results = self.documents(RESULTS);
        let counted = results.count_documents(results_in(job, 0..index));
        counted
            .await
            .map_err(self.failed(format!("counting what is recorded of job {job}")))
    }

    /// The recorded ends of the subtasks with an index in `range`, in order of index. Those that have not ended are
    /// left out: the caller compares indexes where it matters.
    ///
    /// # Errors
    /// [`Error::Mongo`]; in the stream also [`Error::Newer`] and [`Error::Decode`].
    pub async fn outputs(
        &self,
        job: JobId,
        range: Range<u32>,
    ) -> Result<impl Stream<Item = Result<Partial, Error>> + Send + Unpin + use<>, Error> {
        let doing = format!("reading results of job {job}");
        let rows = self
            .find(Query::new(RESULTS, doing, results_in(job, range)).sort("_id", 1))
            .await?;
        Ok(Box::pin(stream::try_unfold(rows, async |mut rows| {
            let partial = rows.next().await?.map(decode).transpose()?;
            Ok(partial.map(|partial| (partial, rows)))
        })))
    }

    /// The subtasks of a job that failed for good, in order, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn failed_results(&self, job: JobId, limit: u32) -> Result<Vec<(u32, Failure)>, Error> {
        let mut filter = schema::all_of(job, 20);
        filter.insert("failure", doc! { "$exists": true });
        let doing = format!("reading what failed of job {job}");
        let query = Query::new(RESULTS, doing, filter).sort("_id", 1);
        let mut rows = self.find(query.limit(limit as usize)).await?;
        let mut failed = Vec::new();
        while let Some(document) = rows.next().await? {
            let partial = decode(document)?;
            failed.extend(partial.result.err().map(|failure| (partial.index, failure)));
        }
        Ok(failed)
    }

    /// What commands that succeeded printed to standard error, of the subtasks with an index in `range`, in order, at most
    /// `limit`; where nothing is kept of a subtask it is left out.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn stderr_tails(
        &self,
        job: JobId,
        range: Range<u32>,
        limit: u32,
    ) -> Result<Vec<(u32, String)>, Error> {
        let mut filter = results_in(job, range);
        filter.insert("stderr_tail", doc! { "$exists": true });
        let doing = format!("reading what the commands of job {job} printed");
        let query = Query::new(RESULTS, doing, filter).fields(&["_id", "stderr_tail"]);
        let mut rows = self.find(query.sort("_id", 1).limit(limit as usize)).await?;
        let mut tails = Vec::new();
        while let Some(document) = rows.next().await? {
            let tail = document.get_str("stderr_tail").unwrap_or_default();
            tails.extend(schema::index_of(document).map(|index| (index, tail.to_string())));
        }
        Ok(tails)
    }

    /// The recorded end of one subtask.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn result(&self, job: JobId, index: u32) -> Result<Option<Partial>, Error> {
        let id = schema::key(&schema::result_key(job, index));
        let found = self.find_by_id(RESULTS, id, "reading a result").await?;
        found.map(|document| decode(&document)).transpose()
    }
}

/// The job in the key of a result.
pub(crate) fn job_of(document: &RawDocument) -> Option<JobId> {
    let Ok(Some(RawBsonRef::Binary(binary))) = document.get("_id") else {
        return None;
    };
    Uuid::from_slice(binary.bytes.get(..16)?).ok().map(JobId)
}

/// Whether what it held went with its block: nobody needs it any more.
pub(crate) fn is_gone(document: &RawDocument) -> bool {
    document.get_bool("gone").unwrap_or(false)
}

/// Reads a result.
pub(crate) fn decode(document: &RawDocument) -> Result<Partial, Error> {
    let what = || match (job_of(document), schema::index_of(document)) {
        (Some(job), Some(index)) => format!("result {index} of job {job}"),
        _ => "a result with a strange _id".to_string(),
    };
    schema::check_version(document, what)?;
    let bad = |why: &str| Error::Decode {
        what: what(),
        why: why.to_string(),
    };
    let index = schema::index_of(document).ok_or_else(|| bad("its _id has another length"))?;
    let result = if let Ok(failure) = document.get_document("failure") {
        Err(decode_failure(failure))
    } else if let Ok(stored) = document.get_document("stored") {
        let object = stored
            .get_str("object")
            .map_err(|_| bad("its stored output has no object"))?
            .to_string();
        Ok(Output::Stored {
            object,
            start: count(stored, "start"),
            length: count(stored, "length"),
        })
    } else if is_gone(document) {
        Ok(Output::Inline(Payload::from("")))
    } else {
        match document.get("output") {
            Ok(Some(RawBsonRef::String(text))) => Ok(Output::Inline(Payload::from(text))),
            Ok(Some(RawBsonRef::Binary(binary))) => Ok(Output::Inline(Payload(binary.bytes.to_vec()))),
            _ => return Err(bad("it has neither output nor failure")),
        }
    };
    Ok(Partial {
        index,
        attempt: narrow(document, "attempt").unwrap_or(1),
        result,
    })
}

/// Reads a failure; what is missing in it stays empty.
pub(crate) fn decode_failure(document: &RawDocument) -> Failure {
    let text = |key| document.get_str(key).unwrap_or_default().to_string();
    let kind = bson::deserialize_from_bson(bson::Bson::String(text("kind"))).unwrap_or(FailureKind::Refused);
    Failure {
        kind,
        message: text("message"),
        exit_code: schema::int(document, "exit_code").and_then(|code| i32::try_from(code).ok()),
        stderr_tail: text("stderr_tail"),
    }
}
