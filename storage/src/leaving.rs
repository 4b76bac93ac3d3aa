//! Blocks that leave a dataset: the oldest first, once they are past its limits.
//!
//! In two steps. The number of the first block that still counts goes up: what is asked from then on does not read what
//! is below. And what is below is removed, by whole pages: what was recorded and learned of it, and objects that Sawmill
//! itself wrote, never those that a user added where they are. That waits until no unfinished job runs over it, and for a
//! while: somebody may just have read the dataset and be about to submit a job. A mark says below which block they rest
//! since when; what leaves meanwhile gets the next mark, or a dataset that loses a block each minute would keep them all.
//!
//! Both steps may be repeated, and be taken by two at once. What compactions replaced is removed here too: see
//! [`cleaning`].

mod cleaning;
mod objects;

use std::{collections::HashSet, future::IntoFuture as _};

use bson::{Bson, Document, RawDocument, doc};
use model::{JobId, Name};
use uuid::Uuid;

use crate::{
    Dataset, Error, Store,
    datasets::{PAGE_BLOCKS, page_key, unknown},
    jobs::{decode, over, unfinished},
    rows::Query,
    schema::{self, BLOCKS, DATASETS, JOBS, RESULTS, date, narrow, results_in, signed},
};

pub(crate) use objects::folder as own_folder;

/// What a dataset keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Blocks whose newest line is older, in milliseconds, leave.
    pub keep_ms: Option<u64>,
    /// Where the blocks have more bytes together, the oldest leave.
    pub max_bytes: Option<u64>,
}

/// What left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departed {
    /// Blocks that no longer count.
    pub blocks: u64,
    /// Pages of blocks that were removed.
    pub pages: u64,
    /// Objects of Sawmill's own that were removed.
    pub objects: u64,
}

/// How long what has left is not touched, in milliseconds: submitting a job takes no longer.
const GRACE_MS: i64 = 60_000;
/// Blocks looked at by one query.
const CHUNK: u32 = 16 * PAGE_BLOCKS as u32;

/// A dataset of which blocks leave, or may.
struct Losing {
    dataset: Dataset,
    /// Whether something that has left may still be there.
    leaving: bool,
    resting: Option<Resting>,
}

/// The blocks below `first` are let alone for a while, from `at_ms` on.
#[derive(Clone, Copy)]
struct Resting {
    first: u32,
    at_ms: i64,
}

impl Limits {
    /// Whether anything ever leaves.
    pub fn any(&self) -> bool {
        self.keep_ms.is_some() || self.max_bytes.is_some()
    }
}

impl Store {
    /// Sets what a dataset keeps from now on.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Mongo`].
    pub async fn set_limits(&self, name: &Name, limits: Limits) -> Result<(), Error> {
        let (mut set, mut unset) = (Document::new(), Document::new());
        for (field, limit) in fields(limits) {
            match limit {
                Some(limit) => drop(set.insert(field, signed(limit))),
                None => drop(unset.insert(field, 1)),
            }
        }
        let mut change = Document::new();
        for (operator, fields) in [("$set", set), ("$unset", unset)] {
            if !fields.is_empty() {
                change.insert(operator, fields);
            }
        }
        let datasets = self.documents(DATASETS);
        let setting = datasets.update_one(doc! { "_id": name.as_str() }, change);
        let done = self.patiently(setting.into_future()).await;
        let done = done.map_err(self.failed(format!("setting the limits of dataset {name}")))?;
        if done.matched_count == 0 {
            return Err(unknown(name));
        }
        Ok(())
    }

    /// Has blocks leave that are past the limits of their datasets, seen from `now_ms` ([`Clock::now_ms`](crate::Clock::now_ms)),
    /// and removes what has left. A dataset where that can't be done is logged, and does not keep the others from it.
    ///
    /// Dropping it half-way does no harm.
    ///
    /// # Errors
    /// [`Error::Mongo`] when MongoDB does not answer.
    pub async fn let_leave(&self, now_ms: i64) -> Result<Departed, Error> {
        let limited = ["keep_ms", "max_bytes", "leaving"].map(|field| doc! { field: { "$exists": true } });
        let query = Query::new(DATASETS, "looking for limits", doc! { "$or": limited.to_vec() });
        let mut rows = self.find(query).await?;
        let mut datasets = Vec::new();
        while let Some(dataset) = rows.next().await? {
            match losing(dataset) {
                Ok(dataset) => datasets.push(dataset),
                Err(error) => tracing::warn!("no blocks leave a dataset: {error}"),
            }
        }
        let mut departed = Departed::default();
        for losing in datasets {
            let name = losing.dataset.name.clone();
            match self.let_leave_one(losing, now_ms, &mut departed).await {
                Ok(()) => {}
                Err(error) if matches!(error, Error::Mongo { .. }) && error.is_retryable() => {
                    return Err(error);
                }
                Err(error) => tracing::warn!("what left dataset {name} stays for now: {error}"),
            }
        }
        match self.clean_compacted(now_ms, &mut departed).await {
            Err(error) if matches!(error, Error::Mongo { .. }) && error.is_retryable() => return Err(error),
            Err(error) => tracing::warn!("what was compacted stays for now: {error}"),
            Ok(()) => {}
        }
        Ok(departed)
    }

    async fn let_leave_one(&self, losing: Losing, now_ms: i64, departed: &mut Departed) -> Result<(), Error> {
        let Losing {
            mut dataset,
            mut leaving,
            resting,
        } = losing;
        let first = self.first_to_stay(&dataset, now_ms).await?;
        if first > dataset.first {
            let left = self.raise_first(&dataset, first, now_ms).await?;
            if left > 0 {
                (dataset.first, leaving) = (first, true);
                departed.blocks += left;
            }
        }
        match resting {
            Some(resting) if resting.at_ms + GRACE_MS <= now_ms => {
                if self.remove_left(&dataset, resting.first, departed).await? {
                    self.rest(&dataset, Some(resting), now_ms).await?;
                }
                Ok(())
            }
            None if leaving => self.rest(&dataset, None, now_ms).await,
            _ => Ok(()),
        }
    }

    /// The first block that is within the limits.
    async fn first_to_stay(&self, dataset: &Dataset, now_ms: i64) -> Result<u32, Error> {
        let Limits { keep_ms, max_bytes } = dataset.limits;
        let oldest = keep_ms.map(|keep| now_ms.saturating_sub_unsigned(keep));
        let (mut first, mut looked_at, mut bytes) = (dataset.first, dataset.first, dataset.bytes);
        while looked_at < dataset.blocks && dataset.limits.any() {
            let end = looked_at.saturating_add(CHUNK).min(dataset.blocks);
            let found = self.numbered(dataset.edition(), looked_at..end).await?;
            if found.known.is_empty() {
                break;
            }
            looked_at = found.known.end;
            // Void numbers leave with the block behind them that leaves.
            for (number, block) in &found.blocks {
                let is_old = oldest.is_some_and(|oldest| block.newest_ms().is_some_and(|at| at < oldest));
                if !is_old && max_bytes.is_none_or(|most| bytes <= most) {
                    return Ok(first);
                }
                bytes = bytes.saturating_sub(block.stored_bytes());
                first = number + 1;
            }
        }
        Ok(first)
    }

    /// Lets the blocks below `first` count no longer; gives how many that were, 0 when the dataset has changed meanwhile.
    async fn raise_first(&self, dataset: &Dataset, first: u32, now_ms: i64) -> Result<u64, Error> {
        let leaving = self.numbered(dataset.edition(), dataset.first..first).await?;
        let bytes = leaving.blocks.iter().map(|(_, block)| block.stored_bytes());
        let (bytes, count) = (signed(bytes.sum()), leaving.blocks.len() as u64);
        let void = i64::from(first - dataset.first) - signed(count);
        let mut filter = doc! {
            "_id": dataset.name.as_str(),
            "id": bson::Uuid::from_uuid_1(dataset.id),
            "first": as_read(dataset.first),
        };
        filter.insert("generation", as_read(dataset.generation));
        for (field, limit) in fields(dataset.limits) {
            let as_read = limit.map_or(doc! { "$exists": false }.into(), |limit| {
                Bson::from(signed(limit))
            });
            filter.insert(field, as_read);
        }
        let change = doc! {
            "$set": { "first": i64::from(first), "left_at": date(now_ms), "leaving": true },
            "$inc": { "bytes": -bytes, "left_bytes": bytes, "void": -void },
        };
        let datasets = self.documents(DATASETS);
        let raising = datasets.update_one(filter, change);
        let done = self.patiently(raising.into_future()).await;
        let done = done.map_err(self.failed(format!("letting blocks of dataset {} leave", dataset.name)))?;
        Ok(if done.matched_count > 0 { count } else { 0 })
    }

    /// Marks what has left by now as resting, in place of `before`; nothing when that is all that has left. Does nothing
    /// where another was faster.
    async fn rest(&self, dataset: &Dataset, before: Option<Resting>, now_ms: i64) -> Result<(), Error> {
        let mut filter = doc! { "_id": dataset.name.as_str(), "id": bson::Uuid::from_uuid_1(dataset.id) };
        let marked = before.map_or(doc! { "$exists": false }.into(), |before| {
            Bson::from(i64::from(before.first))
        });
        filter.insert("resting_first", marked);
        let first = i64::from(dataset.first);
        let change = if before.is_some_and(|before| before.first == dataset.first) {
            filter.insert("first", first);
            doc! { "$unset": { "leaving": 1, "resting_first": 1, "resting_at": 1 } }
        } else {
            doc! { "$set": { "resting_first": first, "resting_at": date(now_ms) } }
        };
        let marking = self.documents(DATASETS).update_one(filter, change).await;
        marking.map_err(self.failed(format!("marking what left dataset {}", dataset.name)))?;
        Ok(())
    }

    /// Removes the pages of which all blocks are below `rested`, with what belongs to them; gives whether no job keeps
    /// some of them.
    async fn remove_left(
        &self,
        dataset: &Dataset,
        rested: u32,
        departed: &mut Departed,
    ) -> Result<bool, Error> {
        let end = self.first_in_use(dataset).await?.min(rested);
        let own = objects::folder(self.mill().await?);
        let filter = doc! { "_id": { "$gte": page_key(dataset.id, 0), "$lt": page_key(dataset.id, end) } };
        let query = Query::new(BLOCKS, "looking for blocks that left", filter).sort("_id", 1);
        let mut pages = self.find(query).await?;
        let (mut below, mut count, mut urls) = (0, 0, HashSet::new());
        while let Some(page) = pages.next().await? {
            let first = schema::index_of(page).unwrap_or(u32::MAX);
            let blocks = page
                .get_array("blocks")
                .map(|blocks| blocks.into_iter().flatten());
            let blocks: Vec<_> = blocks.into_iter().flatten().collect();
            let past = first.saturating_add(u32::try_from(blocks.len()).unwrap_or(u32::MAX));
            if past > end {
                break;
            }
            (below, count) = (past, count + 1);
            urls.extend(blocks.iter().filter_map(|block| self.own_object(block, &own)));
        }
        let covers = self.covers_below(dataset.id, end).await?;
        below = covers.iter().map(|cover| cover.range.end).fold(below, u32::max);
        if count > 0 || !covers.is_empty() {
            self.forget_results(dataset.id, below).await?;
            self.forget_stats(dataset.id, 0..below).await?;
            let pages =
                doc! { "_id": { "$gte": page_key(dataset.id, 0), "$lt": page_key(dataset.id, below) } };
            departed.objects += self.delete_unnamed(urls, &own, &pages).await?;
            let deleted = self.documents(BLOCKS).delete_many(pages).await;
            departed.pages += deleted
                .map_err(self.failed("removing blocks that left"))?
                .deleted_count;
            departed.objects += self.remove_covers(dataset.id, &covers).await?;
            departed.pages += covers.len() as u64;
        }
        Ok(end == rested)
    }

    /// The first block of a dataset that the sources of an unfinished job have: small ones are read from there on, even
    /// where the job runs over later blocks alone.
    async fn first_in_use(&self, dataset: &Dataset) -> Result<u32, Error> {
        let mut filter = over(dataset.id);
        filter.insert("state", doc! { "$in": unfinished() });
        let mut rows = self
            .find(Query::new(JOBS, "looking for jobs over it", filter))
            .await?;
        let mut first = u32::MAX;
        while let Some(job) = rows.next().await? {
            let parts = decode(job)?.parts;
            let sources = parts.sources().iter().filter(|source| source.id == dataset.id);
            first = sources.map(|source| source.first).fold(first, u32::min);
        }
        Ok(first)
    }

    /// Offers nothing any more that was recorded of the blocks below `end`. Partial results of what is merged go, those
    /// that are the output of their job stay with it.
    async fn forget_results(&self, dataset: Uuid, end: u32) -> Result<(), Error> {
        let mut filter = over(dataset);
        filter.insert("pruned", doc! { "$ne": true });
        let mut rows = self
            .find(Query::new(JOBS, "looking for jobs over it", filter))
            .await?;
        while let Some(job) = rows.next().await? {
            let job = decode(job)?;
            let forget = if job.has_merge() {
                doc! { "$set": { "gone": true }, "$unset": { "fingerprint": 1, "output": 1, "stored": 1 } }
            } else {
                doc! { "$unset": { "fingerprint": 1 } }
            };
            for (first, blocks) in job.parts.runs_of(dataset) {
                let count = end.min(blocks.end).saturating_sub(blocks.start);
                if count > 0 {
                    self.forget_range(job.id, first, count, forget.clone()).await?;
                }
            }
        }
        Ok(())
    }

    async fn forget_range(&self, job: JobId, first: u32, count: u32, forget: Document) -> Result<(), Error> {
        let mut range = results_in(job, first..first.saturating_add(count));
        // Failures are told for as long as their job is.
        range.insert("failure", doc! { "$exists": false });
        let results = self.documents(RESULTS);
        let forgetting = results.update_many(range, forget);
        let done = self.patiently(forgetting.into_future()).await;
        done.map(drop)
            .map_err(self.failed(format!("forgetting results of job {job}")))
    }
}

/// The filter for a number that is not written where it is 0.
pub(crate) fn as_read(number: u32) -> Bson {
    match number {
        0 => doc! { "$exists": false }.into(),
        number => Bson::from(i64::from(number)),
    }
}

fn losing(document: &RawDocument) -> Result<Losing, Error> {
    let at = document.get_datetime("resting_at").ok();
    let resting = narrow(document, "resting_first").zip(at);
    Ok(Losing {
        dataset: crate::datasets::decode(document)?,
        leaving: document.get_bool("leaving").unwrap_or(false),
        resting: resting.map(|(first, at)| Resting {
            first,
            at_ms: at.timestamp_millis(),
        }),
    })
}

fn fields(limits: Limits) -> [(&'static str, Option<u64>); 2] {
    [("keep_ms", limits.keep_ms), ("max_bytes", limits.max_bytes)]
}
