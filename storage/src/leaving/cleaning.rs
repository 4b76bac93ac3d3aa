//! What compactions have replaced is removed once nobody reads it.
//!
//! A job reads the generation over which it was submitted; what a later one replaced stays until the job has ended. And for
//! a while beyond: somebody may just have read the dataset and be about to submit a job.

use std::collections::HashSet;

use bson::{Bson, Document, doc};
use uuid::Uuid;

use super::{Departed, GRACE_MS, objects};
use crate::{
    Dataset, Error, Store,
    compacted::Cover,
    datasets::{self, page_key},
    jobs::{decode, over, unfinished},
    rows::Query,
    schema::{BLOCK_STATS, BLOCKS, COMPACTED, DATASETS, JOBS, key, narrow},
};

/// Compactions of a dataset that are cleaned up after together.
const TOGETHER: usize = 64;

impl Store {
    /// Removes what compactions replaced and nobody reads any more: pages, compacted blocks and objects. Costs a query
    /// where there is nothing. Repeating it, also by two at once, does no harm.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Object`].
    pub(super) async fn clean_compacted(&self, now_ms: i64, departed: &mut Departed) -> Result<(), Error> {
        let compacted = doc! { "generation": { "$exists": true } };
        let query = Query::new(DATASETS, "looking for compacted datasets", compacted);
        let mut rows = self.find(query).await?;
        let mut datasets = Vec::new();
        while let Some(document) = rows.next().await? {
            let cleaned = narrow(document, "cleaned").unwrap_or(0);
            match datasets::decode(document) {
                Ok(dataset) if dataset.generation > cleaned => datasets.push((dataset, cleaned)),
                Ok(_) => {}
                Err(error) => tracing::warn!("a compacted dataset is not cleaned up: {error}"),
            }
        }
        for (dataset, cleaned) in datasets {
            match self.clean_one(&dataset, cleaned, now_ms, departed).await {
                Ok(()) => {}
                Err(error) if matches!(error, Error::Mongo { .. }) && error.is_retryable() => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!(dataset = %dataset.name, "what was compacted stays for now: {error}");
                }
            }
        }
        Ok(())
    }

    async fn clean_one(
        &self,
        dataset: &Dataset,
        cleaned: u32,
        now_ms: i64,
        departed: &mut Departed,
    ) -> Result<(), Error> {
        let in_use = self.oldest_in_use(dataset.id).await?;
        let covers = self.all_covers(dataset.id, 0..dataset.blocks).await?;
        let mut new: Vec<&Cover> = covers
            .iter()
            .filter(|cover| cover.generation > cleaned && cover.generation <= in_use)
            .collect();
        new.sort_unstable_by_key(|cover| cover.generation);
        let rested = new.iter().take_while(|cover| cover.since_ms + GRACE_MS <= now_ms);
        new.truncate(rested.count().min(TOGETHER));
        let Some(last) = new.last() else { return Ok(()) };
        let own = objects::folder(self.mill().await?);
        // Blocks that were taken out share their pages with others, and may come back.
        let made = new.iter().filter(|cover| cover.block.made.is_some());
        let replaced: Vec<Document> = made
            .map(|cover| {
                let page = |number| page_key(dataset.id, number);
                doc! { "_id": { "$gte": page(cover.range.start), "$lt": page(cover.range.end) } }
            })
            .collect();
        let pages = match replaced.is_empty() {
            true => doc! { "_id": Bson::Null },
            false => doc! { "$or": replaced },
        };
        let older = covers.iter().filter(|cover| {
            let mut later = new.iter().filter(|new| new.generation > cover.generation);
            later.any(|new| new.range.start <= cover.range.start && cover.range.end <= new.range.end)
        });
        let older: Vec<Cover> = older.cloned().collect();
        let mut named = self
            .find(Query::new(
                BLOCKS,
                "looking for what was compacted",
                pages.clone(),
            ))
            .await?;
        let mut urls = HashSet::new();
        while let Some(page) = named.next().await? {
            let of_page = crate::compaction::urls(page).into_iter();
            urls.extend(of_page.filter(|url| self.own_key(url, &own).is_some()));
        }
        departed.objects += self.delete_unnamed(urls, &own, &pages).await?;
        let deleted = self.documents(BLOCKS).delete_many(pages.clone()).await;
        departed.pages += deleted
            .map_err(self.failed("removing what was compacted"))?
            .deleted_count;
        let forgotten = self.documents(BLOCK_STATS).delete_many(pages).await;
        forgotten.map_err(self.failed("forgetting what is known of blocks"))?;
        departed.pages += older.len() as u64;
        departed.objects += self.remove_covers(dataset.id, &older).await?;
        let cleaned = doc! { "$max": { "cleaned": i64::from(last.generation) } };
        let filter = doc! { "_id": dataset.name.as_str(), "id": bson::Uuid::from_uuid_1(dataset.id) };
        let done = self.documents(DATASETS).update_one(filter, cleaned).await;
        done.map_err(self.failed(format!("cleaning up dataset {}", dataset.name)))?;
        Ok(())
    }

    /// The least generation of a dataset that an unfinished job reads.
    async fn oldest_in_use(&self, dataset: Uuid) -> Result<u32, Error> {
        let mut filter = over(dataset);
        filter.insert("state", doc! { "$in": unfinished() });
        let query = Query::new(JOBS, "looking for jobs over it", filter);
        let mut rows = self.find(query).await?;
        let mut oldest = u32::MAX;
        while let Some(job) = rows.next().await? {
            let parts = decode(job)?.parts;
            let sources = parts.sources().iter().filter(|source| source.id == dataset);
            oldest = sources.map(|source| source.generation).fold(oldest, u32::min);
        }
        Ok(oldest)
    }

    /// Compacted blocks, of all generations, of which all numbers are below `end`.
    pub(super) async fn covers_below(&self, dataset: Uuid, end: u32) -> Result<Vec<Cover>, Error> {
        let mut covers = self.all_covers(dataset, 0..end).await?;
        covers.retain(|cover| cover.range.end <= end);
        Ok(covers)
    }

    /// Removes compacted blocks with their objects and what is known of them; gives how many objects.
    pub(super) async fn remove_covers(&self, dataset: Uuid, covers: &[Cover]) -> Result<u64, Error> {
        if covers.is_empty() {
            return Ok(0);
        }
        let own = objects::folder(self.mill().await?);
        let urls = covers.iter().filter_map(Cover::url).map(str::to_string);
        let urls = urls.filter(|url| self.own_key(url, &own).is_some());
        let nothing = doc! { "_id": Bson::Null };
        let deleted = self.delete_unnamed(urls.collect(), &own, &nothing).await?;
        let ids = |key_of: fn(&Cover, Uuid) -> [u8; 24]| -> Document {
            let ids: Vec<_> = covers.iter().map(|cover| key(&key_of(cover, dataset))).collect();
            doc! { "_id": { "$in": ids } }
        };
        let known = self
            .documents(BLOCK_STATS)
            .delete_many(ids(Cover::stats_key))
            .await;
        known.map_err(self.failed("forgetting what is known of blocks"))?;
        let removed = self.documents(COMPACTED).delete_many(ids(Cover::key)).await;
        removed.map_err(self.failed("removing compacted blocks"))?;
        Ok(deleted)
    }

    /// Removes all compacted blocks of a dataset that is gone.
    pub(crate) async fn remove_all_compacted(&self, dataset: Uuid) -> Result<(), Error> {
        let covers = self.all_covers(dataset, 0..u32::MAX).await?;
        self.remove_covers(dataset, &covers).await.map(drop)
    }
}
