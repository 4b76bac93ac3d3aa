//! Blocks that leave a dataset: the oldest first, once they are past its limits.
//!
//! In two steps. The number of the first block that still counts goes up: what is asked from then on does not read what
//! is below. And what is below is removed, by whole pages: what was recorded of it, and objects that Sawmill itself
//! wrote, never those that a user added where they are. That waits until no unfinished job runs over it, and for a while:
//! somebody may just have read the dataset and be about to submit a job.
//!
//! Both steps may be repeated, and be taken by two at once.

use std::{collections::HashSet, future::IntoFuture as _};

use bson::{Bson, Document, doc, raw::RawBsonRef};
use model::{Block, Content, JobId, Name};
use object_store::{ObjectStoreExt as _, path::Path as Key};
use uuid::Uuid;

use crate::{
    Dataset, Error, Store,
    datasets::{PAGE_BLOCKS, page_key, unknown},
    jobs::{decode, over, unfinished},
    rows::Query,
    schema::{self, BLOCKS, DATASETS, JOBS, RESULTS, date, results_in, signed},
};

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

/// Folder of the block store in which blocks lie that Sawmill itself wrote, below it one of each database.
const OWN_BLOCKS: &str = "blocks";
/// How long what has left is not touched, in milliseconds: submitting a job takes no longer.
const GRACE_MS: i64 = 60_000;
/// Blocks looked at by one query.
const CHUNK: u32 = 16 * PAGE_BLOCKS as u32;

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

    /// Has blocks leave that are past the limits of their datasets, seen from `now_ms` (milliseconds since 1970 UTC), and
    /// removes what has left.
    ///
    /// Dropping it half-way does no harm.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Object`], [`Error::Newer`], [`Error::Decode`].
    pub async fn let_leave(&self, now_ms: i64) -> Result<Departed, Error> {
        let limited = ["keep_ms", "max_bytes", "leaving"].map(|field| doc! { field: { "$exists": true } });
        let query = Query::new(DATASETS, "looking for limits", doc! { "$or": limited.to_vec() });
        let mut rows = self.find(query).await?;
        let mut datasets = Vec::new();
        while let Some(dataset) = rows.next().await? {
            datasets.push(crate::datasets::decode(dataset)?);
        }
        let mut departed = Departed::default();
        for dataset in datasets {
            let first = self.first_to_stay(&dataset, now_ms).await?;
            if first > dataset.first {
                departed.blocks += self.raise_first(&dataset, first, now_ms).await?;
            }
            let rested = dataset.left_ms.is_some_and(|at| at + GRACE_MS <= now_ms);
            if dataset.first > 0 && rested {
                self.remove_left(&dataset, &mut departed).await?;
            }
        }
        Ok(departed)
    }

    /// The first block that is within the limits.
    async fn first_to_stay(&self, dataset: &Dataset, now_ms: i64) -> Result<u32, Error> {
        let Limits { keep_ms, max_bytes } = dataset.limits;
        let oldest = keep_ms.map(|keep| now_ms.saturating_sub_unsigned(keep));
        let (mut first, mut bytes) = (dataset.first, dataset.bytes);
        while first < dataset.blocks && dataset.limits.any() {
            let end = first.saturating_add(CHUNK).min(dataset.blocks);
            let blocks = self.blocks(dataset.id, first..end).await?;
            if blocks.is_empty() {
                break;
            }
            for block in &blocks {
                let is_old = oldest.is_some_and(|oldest| changed_ms(block).is_some_and(|at| at < oldest));
                if !is_old && max_bytes.is_none_or(|most| bytes <= most) {
                    return Ok(first);
                }
                bytes = bytes.saturating_sub(block.stored_bytes());
                first += 1;
            }
        }
        Ok(first)
    }

    /// Lets the blocks below `first` count no longer; gives how many that were, 0 when the dataset has changed meanwhile.
    async fn raise_first(&self, dataset: &Dataset, first: u32, now_ms: i64) -> Result<u64, Error> {
        let leaving = self.blocks(dataset.id, dataset.first..first).await?;
        let bytes = signed(leaving.iter().map(Block::stored_bytes).sum());
        let mut filter = doc! {
            "_id": dataset.name.as_str(),
            "id": bson::Uuid::from_uuid_1(dataset.id),
            "first": if dataset.first == 0 { doc! { "$exists": false }.into() } else { Bson::from(i64::from(dataset.first)) },
        };
        for (field, limit) in fields(dataset.limits) {
            let as_read = limit.map_or(doc! { "$exists": false }.into(), |limit| {
                Bson::from(signed(limit))
            });
            filter.insert(field, as_read);
        }
        let change = doc! {
            "$set": { "first": i64::from(first), "left_at": date(now_ms), "leaving": true },
            "$inc": { "bytes": -bytes, "left_bytes": bytes },
        };
        let datasets = self.documents(DATASETS);
        let raising = datasets.update_one(filter, change);
        let done = self.patiently(raising.into_future()).await;
        let done = done.map_err(self.failed(format!("letting blocks of dataset {} leave", dataset.name)))?;
        Ok(if done.matched_count > 0 {
            u64::from(first - dataset.first)
        } else {
            0
        })
    }

    /// Removes the pages of which all blocks have left, with what belongs to them.
    async fn remove_left(&self, dataset: &Dataset, departed: &mut Departed) -> Result<(), Error> {
        let end = self.first_in_use(dataset).await?.min(dataset.first);
        let own = format!("{OWN_BLOCKS}/{}/", self.mill().await?);
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
        if count > 0 {
            self.forget_results(dataset.id, below).await?;
            let pages =
                doc! { "_id": { "$gte": page_key(dataset.id, 0), "$lt": page_key(dataset.id, below) } };
            departed.objects += self.delete_unnamed(urls, &own, &pages).await?;
            let deleted = self.documents(BLOCKS).delete_many(pages).await;
            departed.pages += deleted
                .map_err(self.failed("removing blocks that left"))?
                .deleted_count;
        }
        if end == dataset.first {
            let done = doc! { "_id": dataset.name.as_str(), "first": i64::from(dataset.first) };
            let change = doc! { "$unset": { "leaving": 1 } };
            let settled = self.documents(DATASETS).update_one(done, change).await;
            settled.map_err(self.failed("removing blocks that left"))?;
        }
        Ok(())
    }

    /// The first block of a dataset that an unfinished job runs over.
    async fn first_in_use(&self, dataset: &Dataset) -> Result<u32, Error> {
        let mut filter = over(dataset.id);
        filter.insert("state", doc! { "$in": unfinished() });
        let mut rows = self
            .find(Query::new(JOBS, "looking for jobs over it", filter))
            .await?;
        let mut first = u32::MAX;
        while let Some(job) = rows.next().await? {
            let parts = decode(job)?.parts;
            first = parts
                .runs_of(dataset.id)
                .map(|(_, blocks)| blocks.start)
                .fold(first, u32::min);
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

    /// The URL of a block that Sawmill itself wrote.
    fn own_object(&self, block: &RawBsonRef<'_>, own: &str) -> Option<String> {
        let content = block.as_document()?.get_document("content").ok()?;
        let url = content.get_document("object").ok()?.get_str("url").ok()?;
        self.own_key(url, own).map(|_| url.to_string())
    }

    fn own_key(&self, url: &str, own: &str) -> Option<Key> {
        let object = url.strip_prefix(&self.root().url(""))?;
        object.starts_with(own).then(|| self.root().key(object))
    }

    /// Deletes the objects that no page names, besides those that are about to be removed.
    async fn delete_unnamed(
        &self,
        urls: HashSet<String>,
        own: &str,
        besides: &Document,
    ) -> Result<u64, Error> {
        let mut deleted = 0;
        for url in urls {
            let Some(key) = self.own_key(&url, own) else {
                continue;
            };
            let named = doc! { "blocks.content.object.url": &url, "$nor": [besides.clone()] };
            let named = self.documents(BLOCKS).find_one(named).await;
            if named
                .map_err(self.failed("looking who names an object"))?
                .is_some()
            {
                continue;
            }
            match self.root().store().delete(&key).await {
                Ok(()) => deleted += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => {
                    let doing = "can't delete";
                    let source = Box::new(source);
                    return Err(Error::Object { doing, url, source });
                }
            }
        }
        Ok(deleted)
    }
}

fn fields(limits: Limits) -> [(&'static str, Option<u64>); 2] {
    [("keep_ms", limits.keep_ms), ("max_bytes", limits.max_bytes)]
}

/// When the object of a block last changed; its lines are not younger. None where that is not known.
fn changed_ms(block: &Block) -> Option<i64> {
    match block.content {
        Content::Object { mtime_ms, .. } => Some(mtime_ms),
        Content::Inline(_) => None,
    }
}
