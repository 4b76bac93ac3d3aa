//! What was learned of the values in blocks, one small document for each block that was read.
//!
//! Columns are added as they are read; what is written again is the same, since a block never changes.

use std::{collections::BTreeMap, ops::Range};

use bson::{Bson, Document, RawDocument, doc, raw::RawBsonRef};
use model::{
    FORMAT, JobId,
    stats::{BlockStats, Bound, ColumnStats, Learned},
};
use uuid::Uuid;

use crate::{
    Error, Store,
    rows::Query,
    schema::{self, BLOCK_STATS, key, narrow, result_key},
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

    /// What is known of the blocks of an incarnation of a dataset with a number in `range`, of the columns with these
    /// keys alone; of a block of which none of these is known, nothing.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn stats(
        &self,
        dataset: Uuid,
        range: Range<u32>,
        columns: &[String],
    ) -> Result<BTreeMap<u32, BlockStats>, Error> {
        let of = |number| key(&result_key(JobId(dataset), number));
        let filter = doc! { "_id": { "$gte": of(range.start), "$lt": of(range.end) } };
        let fields: Vec<String> = columns.iter().map(|column| format!("columns.{column}")).collect();
        let fields: Vec<&str> = std::iter::once("v")
            .chain(fields.iter().map(String::as_str))
            .collect();
        let query = Query::new(BLOCK_STATS, "reading what is known of blocks", filter);
        let mut rows = self.find(query.fields(&fields).batch(10_000)).await?;
        let mut known = BTreeMap::new();
        while let Some(document) = rows.next().await? {
            if let Some((number, stats)) = decode(document) {
                known.insert(number, stats);
            }
        }
        Ok(known)
    }

    /// Forgets what is known of the blocks of a dataset with a number in `range`.
    pub(crate) async fn forget_stats(&self, dataset: Uuid, range: Range<u32>) -> Result<(), Error> {
        let of = |number| key(&result_key(JobId(dataset), number));
        let filter = doc! { "_id": { "$gte": of(range.start), "$lt": of(range.end) } };
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
    let id = key(&result_key(JobId(learned.dataset), learned.block));
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

/// What can't be read is not known, nor a block whose columns were read as other rows.
fn decode(document: &RawDocument) -> Option<(u32, BlockStats)> {
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
