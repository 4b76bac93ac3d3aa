//! The transaction that counts every end exactly once.
//!
//! It inserts the ends under keys that only one end of a subtask can have, and adds what it inserted to the counts of
//! the jobs; both happen or neither does. Repeating it meets its own keys, leaves those ends out, and so changes
//! nothing. Jobs that have ended are not touched. Called by watchers alone.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
};

use bson::{Document, RawDocumentBuf, doc};
use model::{JobId, znode::DoneData};
use mongodb::error::{Error as Driver, ErrorKind, WriteFailure};
use tokio::sync::OwnedMutexGuard;

use crate::{
    Error, Store,
    error::{DUPLICATE_KEY, code},
    prepare::{Piece, pieces},
    rows::Query,
    schema::{FAILURES, RESULTS, key},
    transaction::Step,
};

mod adding;
mod transaction;

/// An entry that came out of ZooKeeper.
#[derive(Clone, Debug)]
pub struct DoneItem {
    /// The caller's own word for it, given back when it is refused.
    pub tag: usize,
    /// How its subtasks ended.
    pub data: DoneData,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Ends that MongoDB takes in no form, by the tag of their entry, and why. Everything else is recorded.
    pub refused: Vec<(usize, String)>,
}

/// What it does, in errors.
const DOING: &str = "recording";
/// Jobs in a batch up to which it waits for its turn at each: larger batches have few ends of each, and collide rarely.
const TURNS: usize = 16;
/// Largest document, in bytes: MongoDB's limit of 16 MiB less what the command around it takes.
const DOCUMENT_BYTES: usize = 16 * 1024 * 1024 - 16 * 1024;
/// Its codes for a document that it does not take: bad value, not parsed, too large, invalid, key too long, `$` in
/// front, against the validator, transaction too large.
const REFUSALS: [i32; 10] = [2, 9, 22, 52, 121, 257, 10_334, 17_280, 17_419, 17_420];

impl Store {
    /// Records ends of any mix of jobs: results and failures, the jobs' counts, and the final state of a job with the
    /// last end. Ends of jobs that are not STAGING or RUNNING, and ends as `cancelled`, leave no trace.
    ///
    /// The caller keeps to [`model::limits::RECORD_DOCUMENTS`] and [`model::limits::RECORD_BYTES`]. May be repeated,
    /// and run by any number of recorders at once. Dropping it half-way records all or nothing of each transaction.
    ///
    /// # Errors
    /// [`Error::Mongo`]; some of the ends may be recorded. Repeat it.
    pub async fn record(&self, items: Vec<DoneItem>) -> Result<Recorded, Error> {
        let sources = self.sources(&items).await?;
        let pieces = pieces(items, &sources);
        let _turns = self.turns(&pieces).await;
        self.record_pieces(pieces).await
    }

    /// Halves what is refused until the culprit is alone.
    pub(crate) async fn record_pieces(&self, mut pieces: Vec<Piece>) -> Result<Recorded, Error> {
        let mut recorded = Recorded::default();
        let mut given_up = vec![false; pieces.len()];
        let mut todo: Vec<Range<usize>> = std::iter::once(0..pieces.len()).collect();
        while let Some(range) = todo.pop() {
            if range.is_empty() {
                continue;
            }
            let Err(why) = self.record_some(&pieces[range.clone()]).await? else {
                continue;
            };
            let middle = range.start + range.len() / 2;
            if range.len() > 1 {
                todo.push(middle..range.end);
                todo.push(range.start..middle);
            } else if given_up[middle] {
                recorded.refused.push((pieces[middle].tag, why));
            } else {
                tracing::warn!(job = %pieces[middle].job, run = ?pieces[middle].run, why, "an end was refused");
                given_up[middle] = true;
                pieces[middle] = pieces[middle].refused(&why);
                todo.push(range);
            }
        }
        Ok(recorded)
    }

    /// Records these ends in one transaction, however often it must be begun; `Err` inside when one is refused.
    async fn record_some(&self, pieces: &[Piece]) -> Result<Result<(), String>, Error> {
        if let Some(large) = pieces
            .iter()
            .find(|piece| piece.document.as_bytes().len() > DOCUMENT_BYTES)
        {
            let bytes = large.document.as_bytes().len();
            return Ok(Err(format!(
                "a document of {bytes} bytes is more than the {DOCUMENT_BYTES} that fit"
            )));
        }
        let mut left: Vec<&Piece> = pieces.iter().collect();
        let recording = async {
            let mut transaction = self.transaction(DOING);
            loop {
                let written = self.write_ends(transaction.begin().await?, &left).await;
                let are_some_there = matches!(&written, Err(error) if code(error) == Some(DUPLICATE_KEY));
                if let Some(recorded) = transaction.end(self.recorded_step(written)).await? {
                    return Ok(recorded);
                }
                if are_some_there {
                    left = self.not_there(std::mem::take(&mut left)).await?;
                }
                if left.is_empty() {
                    return Ok(Ok(()));
                }
            }
        };
        self.patiently(recording).await
    }

    /// What a try to record came to; `Err` inside when an end is refused.
    fn recorded_step(&self, written: Result<bool, Driver>) -> Result<Step<Result<(), String>>, Error> {
        match written {
            Ok(true) => Ok(Step::Commit(Ok(()))),
            // Every job has ended.
            Ok(false) => Ok(Step::Leave(Ok(()))),
            Err(error) => match code(&error) {
                Some(DUPLICATE_KEY) => Ok(Step::Again(self.failed(DOING)(error))),
                Some(code) if REFUSALS.contains(&code) => Ok(Step::Leave(Err(error.kind.to_string()))),
                _ => Err(self.failed(DOING)(error)),
            },
        }
    }

    /// Those of the ends that are not recorded yet.
    async fn not_there<'a>(&self, pieces: Vec<&'a Piece>) -> Result<Vec<&'a Piece>, Error> {
        let mut there = std::collections::HashSet::new();
        for (collection, failures) in [(RESULTS, false), (FAILURES, true)] {
            let keys: Vec<_> = pieces
                .iter()
                .filter(|piece| piece.is_failure() == failures)
                .map(|piece| key(&piece.key()))
                .collect();
            if keys.is_empty() {
                continue;
            }
            let filter = doc! { "_id": { "$in": keys } };
            let query = Query::new(collection, "reading what is recorded", filter)
                .fields(&["_id"])
                .batch(10_000);
            let mut rows = self.find(query).await?;
            while let Some(document) = rows.next().await? {
                if let Ok(id) = document.get_binary("_id") {
                    there.insert(id.bytes.to_vec());
                }
            }
        }
        Ok(pieces
            .into_iter()
            .filter(|piece| !there.contains(&piece.key()))
            .collect())
    }

    /// Waits for the turn at each of the jobs, in an order that excludes deadlock.
    async fn turns(&self, pieces: &[Piece]) -> Turns<'_> {
        let mut turns = Turns {
            store: self,
            held: Vec::new(),
        };
        let mut jobs = BTreeSet::new();
        for piece in pieces {
            jobs.insert(piece.job);
            if jobs.len() > TURNS {
                return turns;
            }
        }
        for job in jobs {
            let turn = {
                let mut all = self
                    .recording()
                    .lock()
                    .expect("nothing panics while it holds this lock");
                Arc::clone(all.entry(job).or_default())
            };
            turns.held.push((job, turn.lock_owned().await));
        }
        turns
    }
}

/// The turns at some jobs; dropping it gives them back.
struct Turns<'a> {
    store: &'a Store,
    held: Vec<(JobId, OwnedMutexGuard<()>)>,
}

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        let mut all = self
            .store
            .recording()
            .lock()
            .expect("nothing panics while it holds this lock");
        for (job, turn) in self.held.drain(..) {
            drop(turn);
            // Jobs that nobody waits for are forgotten.
            if all
                .get(&job)
                .is_some_and(|waiting| Arc::strong_count(waiting) == 1)
            {
                all.remove(&job);
            }
        }
    }
}

/// Finds the first error in the reply to a raw write command: the driver looks only at `ok`.
pub(crate) fn check_reply(reply: &Document) -> Result<(), Driver> {
    if let Ok(errors) = reply.get_array("writeErrors")
        && let Some(first) = errors.first()
    {
        return Err(match bson::deserialize_from_bson(first.clone()) {
            Ok(error) => ErrorKind::Write(WriteFailure::WriteError(error)).into(),
            Err(_) => Driver::custom(format!("the server reports {first}")),
        });
    }
    if let Ok(concern) = reply.get_document("writeConcernError") {
        return Err(match bson::deserialize_from_document(concern.clone()) {
            Ok(error) => ErrorKind::Write(WriteFailure::WriteConcernError(error)).into(),
            Err(_) => Driver::custom(format!("the server reports {concern}")),
        });
    }
    Ok(())
}

/// The documents of one job in a batch, and what is known of the job.
type ByJob<'a> = HashMap<JobId, Vec<&'a Piece>>;

/// The ends by job, in the order given.
fn by_job<'a>(pieces: &[&'a Piece]) -> ByJob<'a> {
    let mut jobs: ByJob<'a> = HashMap::new();
    for &piece in pieces {
        jobs.entry(piece.job).or_default().push(piece);
    }
    jobs
}

/// A failure's document with its place in the order of its job.
fn numbered(piece: &Piece, ordinal: u64) -> RawDocumentBuf {
    let mut document = piece.document.clone();
    document.append(bson::cstr!("ordinal"), crate::schema::signed(ordinal));
    document
}
