//! Blocks that were made of others, and what the numbers of a dataset mean since then.
//!
//! A compaction merges the blocks with consecutive numbers into one. The new block stands at the last of these numbers; the
//! others are void: nothing is there to read. So no other block gets another number. Where blocks were taken out
//! ([`crate::amending`]) a void block stands for them, and all of their numbers are void. The document of a new block says which
//! numbers it stands for and from which generation of the dataset on; of documents that overlap the latest counts. Pages
//! and documents are never changed: a job goes on to read the generation over which it was submitted, until what it needs
//! is removed, which waits for it.

use std::{collections::BTreeMap, ops::Range};

use bson::{RawDocument, RawDocumentBuf, cstr, rawdoc};
use model::{Block, FORMAT, JobId, compaction::MOST_SPAN, parts::Edition};
use uuid::Uuid;

use crate::{
    Error, Store,
    datasets::of_page,
    rows::Query,
    schema::{self, COMPACTED, date, failure_key, key, narrow, raw_key},
};

/// A block that was made of others.
#[derive(Clone, Debug)]
pub(crate) struct Cover {
    /// The numbers that it stands for.
    pub(crate) range: Range<u32>,
    /// The one of them at which it is.
    pub(crate) at: u32,
    /// From which generation on.
    pub(crate) generation: u32,
    /// Since when, in milliseconds since 1970 UTC.
    pub(crate) since_ms: i64,
    pub(crate) block: Block,
}

impl Cover {
    /// The object with its lines.
    pub(crate) fn url(&self) -> Option<&str> {
        self.block.url()
    }

    /// The key of what is known of its block.
    pub(crate) fn stats_key(&self, dataset: Uuid) -> [u8; 24] {
        failure_key(JobId(dataset), self.at, self.generation)
    }

    pub(crate) fn key(&self, dataset: Uuid) -> [u8; 24] {
        failure_key(JobId(dataset), self.range.start, self.generation)
    }

    /// As it is written.
    pub(crate) fn document(&self, dataset: Uuid) -> Result<RawDocumentBuf, Error> {
        let block = bson::serialize_to_raw_document_buf(&self.block).map_err(|error| Error::Decode {
            what: "a block".into(),
            why: error.to_string(),
        })?;
        let mut array = bson::RawArrayBuf::new();
        array.push(block);
        let mut document = rawdoc! {};
        document.append(cstr!("_id"), raw_key(&self.key(dataset)));
        document.append(cstr!("v"), i64::from(FORMAT));
        document.append(cstr!("span"), i64::from(self.range.end - self.range.start));
        document.append(cstr!("at"), i64::from(self.at - self.range.start));
        document.append(cstr!("since"), date(self.since_ms));
        document.append(cstr!("blocks"), array);
        Ok(document)
    }

    fn read(document: &RawDocument) -> Result<Self, Error> {
        let (first, generation) = numbers(document).unwrap_or_default();
        let what = || format!("the compacted block {first} of generation {generation}");
        let bad = |why: &str| Error::Decode {
            what: what(),
            why: why.into(),
        };
        let block = of_page(document, what)?.pop();
        let span = narrow(document, "span").filter(|span| (1..=MOST_SPAN).contains(span));
        let span = span.ok_or_else(|| bad("it has no span"))?;
        let at = narrow(document, "at").filter(|at| *at < span);
        Ok(Self {
            range: first..first.saturating_add(span),
            at: first.saturating_add(at.ok_or_else(|| bad("its block lies outside"))?),
            generation,
            since_ms: document
                .get_datetime("since")
                .map_or(0, bson::DateTime::timestamp_millis),
            block: block.ok_or_else(|| bad("it has no block"))?,
        })
    }
}

/// First number and generation in a key.
fn numbers(document: &RawDocument) -> Option<(u32, u32)> {
    let Ok(Some(bson::raw::RawBsonRef::Binary(id))) = document.get("_id") else {
        return None;
    };
    let generation = id.bytes.get(20..24)?.try_into().ok().map(u32::from_be_bytes)?;
    Some((schema::index_of(document)?, generation))
}

/// The blocks of a range of numbers.
#[derive(Clone, Debug, Default)]
pub struct Numbered {
    /// For which numbers it tells; it ends early where the next block is gone.
    pub known: Range<u32>,
    /// The blocks with their numbers, in order; numbers between them are void.
    pub blocks: Vec<(u32, Block)>,
}

impl Numbered {
    /// The blocks with these numbers, void ones among them; none where it does not tell of all.
    pub fn get(&self, range: Range<u32>) -> Option<Vec<Block>> {
        if range.start < self.known.start || range.end > self.known.end {
            return None;
        }
        let mut found = Vec::with_capacity(range.len().min(1 << 16));
        let from = self.blocks.partition_point(|(number, _)| *number < range.start);
        let mut blocks = self.blocks[from..].iter().peekable();
        for number in range {
            let block = blocks.next_if(|(at, _)| *at == number);
            found.push(block.map_or_else(Block::void, |(_, block)| block.clone()));
        }
        Some(found)
    }
}

impl Store {
    /// The blocks of an edition of a dataset with a number in `range`, from the first one in order, [`Block::void`] at
    /// void numbers; fewer where it has fewer, none when the first one has left or the dataset is gone.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn blocks(&self, edition: Edition, range: Range<u32>) -> Result<Vec<Block>, Error> {
        let found = self.numbered(edition, range).await?;
        Ok(found.get(found.known.clone()).unwrap_or_default())
    }

    /// The same without the void ones, with their numbers.
    ///
    /// # Errors
    /// As [`Store::blocks`].
    pub async fn numbered(&self, edition: Edition, range: Range<u32>) -> Result<Numbered, Error> {
        let mut found = Numbered {
            known: range.start..range.start,
            blocks: Vec::new(),
        };
        for cover in self.covers(edition, range.clone()).await? {
            let gap = found.known.end..cover.range.start.min(range.end);
            if !self.add_appended(edition.dataset, gap, &mut found).await? {
                return Ok(found);
            }
            found.known.end = cover.range.end.min(range.end);
            if range.contains(&cover.at) && !cover.block.is_void() {
                found.blocks.push((cover.at, cover.block));
            }
        }
        let rest = found.known.end..range.end;
        self.add_appended(edition.dataset, rest, &mut found).await?;
        Ok(found)
    }

    /// Whether all of them were there.
    async fn add_appended(
        &self,
        dataset: Uuid,
        gap: Range<u32>,
        found: &mut Numbered,
    ) -> Result<bool, Error> {
        if gap.is_empty() {
            return Ok(true);
        }
        let blocks = self.appended(dataset, gap.clone()).await?;
        found.blocks.extend((gap.start..gap.end).zip(blocks));
        found.known.end = match found.blocks.last() {
            Some((last, _)) if *last >= gap.start => last + 1,
            _ => gap.start,
        };
        Ok(found.known.end == gap.end)
    }

    /// The void numbers of an edition within `range`, in order.
    ///
    /// # Errors
    /// As [`Store::blocks`].
    pub async fn void(&self, edition: Edition, range: Range<u32>) -> Result<Vec<Range<u32>>, Error> {
        let covers = self.covers(edition, range.clone()).await?;
        let sides = covers.into_iter().flat_map(|cover| {
            let behind = cover.at + u32::from(!cover.block.is_void());
            [cover.range.start..cover.at, behind..cover.range.end]
        });
        let within = sides.map(|void| void.start.max(range.start)..void.end.min(range.end));
        Ok(model::view::ranges::joined(within.collect()))
    }

    /// The blocks of an edition that were made of others and stand for a number in `range`, in order.
    pub(crate) async fn covers(&self, edition: Edition, range: Range<u32>) -> Result<Vec<Cover>, Error> {
        if edition.generation == 0 || range.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.all_covers(edition.dataset, range.clone()).await?;
        let counting = all
            .into_iter()
            .filter(|cover| cover.generation <= edition.generation);
        let (mut latest, mut counting) = (BTreeMap::<u32, Cover>::new(), counting.collect::<Vec<_>>());
        counting.sort_unstable_by_key(|cover| std::cmp::Reverse(cover.generation));
        for cover in counting {
            // A later one stands for all that an earlier one stood for, or for none of it.
            let before = latest.range(..cover.range.end).next_back();
            if before.is_none_or(|(_, before)| before.range.end <= cover.range.start) {
                latest.insert(cover.range.start, cover);
            }
        }
        let mut latest: Vec<Cover> = latest.into_values().collect();
        latest.retain(|cover| cover.range.end > range.start);
        Ok(latest)
    }

    /// Those of all generations that begin in `range` or within the longest span before it.
    pub(crate) async fn all_covers(&self, dataset: Uuid, range: Range<u32>) -> Result<Vec<Cover>, Error> {
        let of = |first| key(&failure_key(JobId(dataset), first, 0));
        let lowest = range.start.saturating_sub(MOST_SPAN - 1);
        let filter = bson::doc! { "_id": { "$gte": of(lowest), "$lt": of(range.end) } };
        let query = Query::new(COMPACTED, "reading compacted blocks", filter).sort("_id", 1);
        let mut rows = self.find(query.batch(10_000)).await?;
        let mut covers = Vec::new();
        while let Some(document) = rows.next().await? {
            covers.push(Cover::read(document)?);
        }
        Ok(covers)
    }
}
