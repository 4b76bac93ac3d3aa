//! Names of the collections, their indexes, the keys of documents, and the format number.
//!
//! Keys of results and failures are one binary each: the job first, so that all of a job lie together and its
//! retention is a range delete; then big-endian numbers, so that they sort.

use std::ops::Range;

use bson::{
    Binary, DateTime, Document, RawBinaryRef, RawDocument, Uuid, doc, raw::RawBsonRef, spec::BinarySubtype,
};
use model::{FORMAT, JobId};
use mongodb::{Collection, IndexModel, options::IndexOptions};

use crate::{Error, Store};

/// One document: the format of the whole database.
pub(crate) const META: &str = "meta";
pub(crate) const LEADER: &str = "leader";
pub(crate) const DATASETS: &str = "datasets";
pub(crate) const BLOCKS: &str = "blocks";
pub(crate) const JOBS: &str = "jobs";
pub(crate) const RESULTS: &str = "results";
pub(crate) const FAILURES: &str = "failures";
pub(crate) const NODES: &str = "nodes";
/// Sessions of transactions, so that others can end those of the dead.
pub(crate) const SESSIONS: &str = "sessions";

/// The rows of answers, one document each.
pub(crate) const ROWS: &str = "rows";
/// What is known of the values in blocks.
pub(crate) const BLOCK_STATS: &str = "block_stats";

/// Blocks that were made of others, and which numbers they stand for.
pub(crate) const COMPACTED: &str = "compacted";

/// Queries whose answer is kept current.
pub(crate) const VIEWS: &str = "views";

/// Agents: who they are and how they are doing.
pub(crate) const AGENTS: &str = "agents";
/// What agents have shipped: a mark for each of their datasets.
pub(crate) const SHIPPED: &str = "shipped";

/// What scripts show instead of certificates, by hash.
pub(crate) const TOKENS: &str = "tokens";

/// Who changed what.
pub(crate) const AUDIT: &str = "audit";

pub(crate) const ALL: [&str; 17] = [
    META,
    LEADER,
    DATASETS,
    BLOCKS,
    JOBS,
    RESULTS,
    FAILURES,
    NODES,
    SESSIONS,
    ROWS,
    BLOCK_STATS,
    COMPACTED,
    VIEWS,
    TOKENS,
    AUDIT,
    AGENTS,
    SHIPPED,
];
/// What fences and names, and so outlives an emptying.
const LASTING: [&str; 3] = [META, LEADER, SESSIONS];

/// MongoDB's code for "there is a collection of that name already".
pub(crate) const NAMESPACE_EXISTS: i32 = 48;

impl Store {
    /// Makes the collections and their indexes. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Newer`] for a database of a newer release, [`Error::Mongo`] also for missing rights.
    pub async fn init(&self) -> Result<(), Error> {
        self.check_format().await?;
        // Transactions of older servers can't make collections, and a first transaction should not have to.
        for name in ALL {
            match self.db().create_collection(name).await {
                Err(error) if crate::error::code(&error) == Some(NAMESPACE_EXISTS) => {}
                other => other.map_err(self.failed(format!("creating {name}")))?,
            }
        }
        let wanted = [
            (JOBS, doc! { "state": 1, "priority": -1, "_id": 1 }, false),
            (FAILURES, doc! { "job": 1, "ordinal": 1 }, false),
            (RESULTS, doc! { "fingerprint": 1 }, true),
            (JOBS, doc! { "answer": 1 }, true),
            (ROWS, doc! { "job": 1 }, false),
        ];
        for (collection, keys, sparse) in wanted {
            let options = IndexOptions::builder().sparse(sparse.then_some(true)).build();
            let index = IndexModel::builder().keys(keys).options(options).build();
            self.documents(collection)
                .create_index(index)
                .await
                .map_err(self.failed(format!("indexing {collection}")))?;
        }
        // Of a database that has one, it is left as it is: an older release must not be shut out by a role that looks in.
        let meta = doc! { "$setOnInsert": { "v": i64::from(FORMAT) } };
        self.documents(META)
            .update_one(doc! { "_id": "format" }, meta)
            .upsert(true)
            .await
            .map_err(self.failed("writing meta"))?;
        Ok(())
    }

    /// The format of the database: all documents in it are of this one or an older. None before [`Store::init`].
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn format(&self) -> Result<Option<u32>, Error> {
        let meta = self.documents(META).find_one(doc! { "_id": "format" }).await;
        let meta = meta.map_err(self.failed("reading meta"))?;
        let found = meta.and_then(|meta| number(meta.get("v")));
        Ok(found.and_then(|found| u32::try_from(found).ok()))
    }

    /// Refuses a database that a newer release has written.
    pub(crate) async fn check_format(&self) -> Result<(), Error> {
        let meta = self.documents(META).find_one(doc! { "_id": "format" }).await;
        let found = meta
            .map_err(self.failed("reading meta"))?
            .and_then(|meta| number(meta.get("v")));
        match found {
            Some(found) if found > i64::from(FORMAT) => Err(Error::Newer {
                what: format!("the database {}", self.db().name()),
                found,
            }),
            _ => Ok(()),
        }
    }

    /// Removes every collection of Sawmill with all that is in it, and makes them anew; spilled outputs stay until a
    /// sweep. What fences and names stays: the epoch, which a live leader may hold, the identity of the database, and sessions.
    /// For tests and for the harness: what runs loses its ground.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn drop_collections(&self) -> Result<(), Error> {
        for name in ALL.into_iter().filter(|name| !LASTING.contains(name)) {
            self.documents(name)
                .drop()
                .await
                .map_err(self.failed(format!("dropping {name}")))?;
        }
        self.init().await
    }

    pub(crate) fn documents(&self, name: &str) -> Collection<Document> {
        self.db().collection(name)
    }
}

/// The format of datasets of which blocks were merged: a release that knows nothing of that must not read their pages.
pub(crate) const COMPACTED_FORMAT: i64 = 2;
/// The same where blocks were taken out: a release before that would take void blocks for empty ones.
pub(crate) const TAKEN_OUT_FORMAT: i64 = 3;

/// A whole number of whatever width; none for anything else.
pub(crate) fn number(value: Option<&bson::Bson>) -> Option<i64> {
    value.and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from)))
}

/// Refuses a document of a newer release.
pub(crate) fn check_version(document: &RawDocument, what: impl FnOnce() -> String) -> Result<(), Error> {
    check_version_to(document, i64::from(FORMAT), what)
}

/// Refuses a document of a newer format than `newest`.
pub(crate) fn check_version_to(
    document: &RawDocument,
    newest: i64,
    what: impl FnOnce() -> String,
) -> Result<(), Error> {
    match int(document, "v") {
        Some(found) if found > newest => Err(Error::Newer { what: what(), found }),
        _ => Ok(()),
    }
}

/// An integer field of whatever width; none when missing or no number.
pub(crate) fn int(document: &RawDocument, key: &str) -> Option<i64> {
    match document.get(key) {
        Ok(Some(RawBsonRef::Int64(value))) => Some(value),
        Ok(Some(RawBsonRef::Int32(value))) => Some(i64::from(value)),
        // A shell writes numbers as doubles.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "counts and dates are far below 2^53"
        )]
        Ok(Some(RawBsonRef::Double(value))) if value.fract() == 0.0 => Some(value as i64),
        _ => None,
    }
}

/// A count; missing or negative ones are 0.
pub(crate) fn count(document: &RawDocument, key: &str) -> u64 {
    int(document, key)
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(0)
}

/// A 32-bit number; none when missing or out of range.
pub(crate) fn narrow(document: &RawDocument, key: &str) -> Option<u32> {
    int(document, key).and_then(|value| u32::try_from(value).ok())
}

/// How counts are written: MongoDB has no unsigned integers.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A job's id as it is written.
pub(crate) fn uuid(job: JobId) -> Uuid {
    Uuid::from_uuid_1(job.0)
}

/// A job's id where a raw document owns its values.
pub(crate) fn uuid_binary(job: JobId) -> Binary {
    Binary {
        subtype: BinarySubtype::Uuid,
        bytes: job.0.as_bytes().to_vec(),
    }
}

/// A job's id as a value of a raw document.
pub(crate) fn raw_uuid(bytes: &[u8; 16]) -> RawBinaryRef<'_> {
    RawBinaryRef {
        subtype: BinarySubtype::Uuid,
        bytes,
    }
}

/// Reads a job's id.
pub(crate) fn job_id(document: &RawDocument, key: &str) -> Option<JobId> {
    let Ok(Some(RawBsonRef::Binary(binary))) = document.get(key) else {
        return None;
    };
    uuid::Uuid::from_slice(binary.bytes).ok().map(JobId)
}

/// Key of a result: the job and the index of the subtask.
pub(crate) fn result_key(job: JobId, index: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(job.0.as_bytes());
    key[16..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Key of a failed attempt: the job, the first index of the run and the attempt.
pub(crate) fn failure_key(job: JobId, first: u32, attempt: u32) -> [u8; 24] {
    let mut key = [0; 24];
    key[..20].copy_from_slice(&result_key(job, first));
    key[20..].copy_from_slice(&attempt.to_be_bytes());
    key
}

/// A key as a value of a raw document.
pub(crate) fn raw_key(bytes: &[u8]) -> RawBinaryRef<'_> {
    RawBinaryRef {
        subtype: BinarySubtype::Generic,
        bytes,
    }
}

/// A key as a value of a document.
pub(crate) fn key(bytes: &[u8]) -> Binary {
    Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.to_vec(),
    }
}

/// The filter for results of `job` with an index in `range`.
pub(crate) fn results_in(job: JobId, range: Range<u32>) -> Document {
    doc! { "_id": { "$gte": key(&result_key(job, range.start)), "$lt": key(&result_key(job, range.end)) } }
}

/// The filter for all results, or all failures, of `job`.
pub(crate) fn all_of(job: JobId, key_bytes: usize) -> Document {
    let mut first = vec![0; key_bytes];
    first[..16].copy_from_slice(job.0.as_bytes());
    let mut last = vec![0xff; key_bytes];
    last[..16].copy_from_slice(job.0.as_bytes());
    doc! { "_id": { "$gte": key(&first), "$lte": key(&last) } }
}

/// The index in the key of a result, or of the first subtask in that of a failure.
pub(crate) fn index_of(document: &RawDocument) -> Option<u32> {
    let Ok(Some(RawBsonRef::Binary(binary))) = document.get("_id") else {
        return None;
    };
    binary.bytes.get(16..20)?.try_into().ok().map(u32::from_be_bytes)
}

/// A point in time as it is written.
pub(crate) fn date(ms: i64) -> DateTime {
    DateTime::from_millis(ms)
}

/// Milliseconds since 1970 UTC by this machine's clock.
pub(crate) fn now_ms() -> i64 {
    DateTime::now().timestamp_millis()
}
