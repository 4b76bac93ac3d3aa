//! What was learned of the values in blocks, one small document for each block that was read.
//!
//! Columns are added as they are read; what is written again is the same, since a block never changes. That of a block
//! which was made of others has the generation in its key: its number meant another block before, of which something may
//! still be learned.

use std::{collections::BTreeMap, ops::Range};

use bson::{Bson, Document, RawDocument, doc, raw::RawBsonRef};
use model::{
    FORMAT, JobId,
    parts::Edition,
    stats::{BlockStats, Bound, ColumnStats, Learned},
};
use uuid::Uuid;

use crate::{
    Error, Store,
    rows::Query,
    schema::{self, BLOCK_STATS, failure_key, key, narrow, result_key},
};

/// Blocks written by one command.
const BATCH: usize = 500;

impl Store {
    /// Adds what was learned of blocks. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Mongo`]; some of it may be there.
    pub async fn keep_stats(&self, learned: &[Learned]) -> Result<(), Error> {
        for some in learned.chunks(BATCH) {
            let updates: Vec<Document> = some.iter().map(update).collect();
            let command = doc! { "update": BLOCK_STATS, "updates": updates, "ordered": false };
            let kept = self.db().run_command(command).await;
            kept.map_err(self.failed("keeping what was learned of blocks"))?;
        }
        Ok(())
    }

    /// What is known of the blocks of an edition of a dataset with a number in `range`, of the columns with these keys
    /// alone; of a block of which none of these is known, nothing.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`].
    pub async fn stats(
        &self,
        edition: Edition,
        range: Range<u32>,
        columns: &[String],
    ) -> Result<BTreeMap<u32, BlockStats>, Error> {
        let dataset = edition.dataset;
        let of = |number| key(&result_key(JobId(dataset), number));
        let appended = doc! { "_id": { "$gte": of(range.start), "$lt": of(range.end) } };
        let mut known = self.known(appended, None, columns).await?;
        let covers = self.covers(edition, range.clone()).await?;
        if covers.is_empty() {
            return Ok(known);
        }
        let of = |number| key(&failure_key(JobId(dataset), number, 0));
        let made = doc! { "_id": { "$gte": of(range.start), "$lt": of(range.end) } };
        let generations = covers.iter().map(|cover| (cover.at, cover.generation)).collect();
        let made = self.known(made, Some(&generations), columns).await?;
        for cover in &covers {
            let replaced: Vec<u32> = known
                .range(cover.range.clone())
                .map(|(number, _)| *number)
                .collect();
            for number in replaced {
                known.remove(&number);
            }
        }
        known.extend(made);
        Ok(known)
    }

    /// What is known of appended blocks, or of those made in these generations, by number.
    async fn known(
        &self,
        filter: Document,
        generations: Option<&BTreeMap<u32, u32>>,
        columns: &[String],
    ) -> Result<BTreeMap<u32, BlockStats>, Error> {
        let fields: Vec<String> = columns.iter().map(|column| format!("columns.{column}")).collect();
        let fields: Vec<&str> = std::iter::once("v")
            .chain(fields.iter().map(String::as_str))
            .collect();
        let query = Query::new(BLOCK_STATS, "reading what is known of blocks", filter);
        let mut rows = self.find(query.fields(&fields).batch(10_000)).await?;
        let mut known = BTreeMap::new();
        while let Some(document) = rows.next().await? {
            let Some((number, stats)) = decode(document) else {
                continue;
            };
            // Which of the two kinds of keys lie in a range differs from server to server.
            let is_meant = match (generation(document), generations) {
                (None, None) => true,
                (Some(made), Some(counting)) => counting.get(&number) == Some(&made),
                _ => false,
            };
            if is_meant {
                known.insert(number, stats);
            }
        }
        Ok(known)
    }

    /// Forgets what is known of the blocks of a dataset with a number in `range`.
    pub(crate) async fn forget_stats(&self, dataset: Uuid, range: Range<u32>) -> Result<(), Error> {
        let of = |number| key(&result_key(JobId(dataset), number));
        let Some(last) = range.end.checked_sub(1) else {
            return Ok(());
        };
        let made = |number, generation| key(&failure_key(JobId(dataset), number, generation));
        let filter = doc! { "$or": [
            { "_id": { "$gte": of(range.start), "$lt": of(range.end) } },
            { "_id": { "$gte": made(range.start, 0), "$lte": made(last, u32::MAX) } },
        ] };
        let forgotten = self.documents(BLOCK_STATS).delete_many(filter).await;
        forgotten.map_err(self.failed("forgetting what is known of blocks"))?;
        Ok(())
    }
}

fn update(learned: &Learned) -> Document {
    let mut set = doc! { "v": i64::from(FORMAT) };
    for (column, stats) in &learned.stats.columns {
        // With each column, since a block read in another format has other rows.
        let mut known = doc! { "rows": i64::from(learned.stats.rows), "nulls": i64::from(stats.nulls) };
        let bounds = [("least", &stats.least), ("greatest", &stats.greatest)];
        for (name, bound) in bounds {
            if let Some(bound) = bound {
                known.insert(name, encode(bound));
            }
        }
        set.insert(format!("columns.{column}"), known);
    }
    let dataset = JobId(learned.dataset);
    let id = match learned.made {
        None => key(&result_key(dataset, learned.block)),
        Some(generation) => key(&failure_key(dataset, learned.block, generation)),
    };
    doc! { "q": { "_id": id }, "u": { "$set": set }, "upsert": true }
}

fn encode(bound: &Bound) -> Bson {
    match bound {
        Bound::Integer(value) => Bson::Int64(*value),
        Bound::Float(value) => Bson::Double(*value),
        Bound::Boolean(value) => Bson::Boolean(*value),
        Bound::Text(value) => Bson::String(value.clone()),
    }
}

/// In which generation a block was made, by the key of what is known of it.
fn generation(document: &RawDocument) -> Option<u32> {
    let Ok(Some(RawBsonRef::Binary(id))) = document.get("_id") else {
        return None;
    };
    id.bytes.get(20..24)?.try_into().ok().map(u32::from_be_bytes)
}

/// What can't be read is not known, nor a block whose columns were read as other rows.
pub(crate) fn decode(document: &RawDocument) -> Option<(u32, BlockStats)> {
    if schema::int(document, "v")? > i64::from(FORMAT) {
        return None;
    }
    let (mut rows, mut stats) = (None, BlockStats::default());
    if let Ok(columns) = document.get_document("columns") {
        for column in columns {
            let (name, value) = column.ok()?;
            let RawBsonRef::Document(known) = value else {
                continue;
            };
            if *rows.get_or_insert(narrow(known, "rows")?) != narrow(known, "rows")? {
                return None;
            }
            let bound = |name| known.get(name).ok().flatten().and_then(bound_of);
            let column = ColumnStats {
                least: bound("least"),
                greatest: bound("greatest"),
                nulls: narrow(known, "nulls")?,
            };
            stats.columns.insert(name.to_string(), column);
        }
    }
    stats.rows = rows?;
    Some((schema::index_of(document)?, stats))
}

fn bound_of(value: RawBsonRef<'_>) -> Option<Bound> {
    match value {
        RawBsonRef::Int64(value) => Some(Bound::Integer(value)),
        RawBsonRef::Int32(value) => Some(Bound::Integer(value.into())),
        RawBsonRef::Double(value) if !value.is_nan() => Some(Bound::Float(value)),
        RawBsonRef::Boolean(value) => Some(Bound::Boolean(value)),
        RawBsonRef::String(value) => Some(Bound::Text(value.to_string())),
        _ => None,
    }
}
