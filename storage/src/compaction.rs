//! Compactions: runs of small shipped blocks become one block.
//!
//! The leader has a run looked for and its lines put into a new object ([`Store::find_compaction`]), which nothing names
//! yet; then one transaction puts the block in the place of the run ([`Store::compact`]), conditional on the dataset being
//! as it was read, and on the leader's epoch. Dying before that leaves an object that nobody names, dying after it the new
//! block. What was replaced stays until no job reads it ([`Store::clean_compacted`]).
//!
//! The object's name has the epoch in it: a leader removes what those before it left ([`Store::sweep_compacted`]), which by
//! then can't come to be named any more, and never what one after it has just written.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use bson::{Bson, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::{
    Block, Codec, Content, Made,
    compaction::{self, Piece, Policy, Walls},
    table::Format,
};
use object_store::{ObjectStoreExt as _, PutPayload, path::Path as Key};
use uuid::Uuid;

use crate::{
    Dataset, Epoch, Error, Store,
    compacted::Cover,
    fence::statement,
    leaving::own_folder,
    merging::{self, Large, Merged, Small},
    objects,
    schema::{COMPACTED, COMPACTED_FORMAT, DATASETS, key, signed},
};

/// Folder of the new objects, in that of all that Sawmill wrote: no dataset can have such a name.
const FOLDER: &str = "_compacted";
/// Numbers of a dataset that are looked at together.
const WINDOW: u32 = 8192;
/// Numbers that are looked at before the caller hears of it.
const MOST_LOOKED_AT: u32 = 16 * WINDOW;
/// How long a dataset without a run is not looked at again, in milliseconds.
const LOOK_AGAIN_MS: i64 = 10_000;
/// The same of one of which something can't be read.
const LOOK_AGAIN_FAILED_MS: i64 = 600_000;
/// How often datasets are looked through from their first block on, in milliseconds: views may have gone on.
const LOOK_THROUGH_MS: i64 = 3_600_000;
/// What a shipped block of which it is not known has of lines, for each stored byte.
const GUESSED_RATIO: u64 = 8;
/// Objects that are read at once.
const READ_AT_ONCE: usize = 8;

/// A run of blocks, and the block that has their lines; nothing names that yet.
#[derive(Clone, Debug)]
pub struct Compaction {
    dataset: Dataset,
    pieces: Vec<Piece>,
    stored_bytes: u64,
    cover: Cover,
}

impl Compaction {
    /// The dataset as it was read.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// How many blocks become one.
    pub fn blocks(&self) -> u32 {
        self.pieces.iter().map(|piece| piece.occupied.len() as u32).sum()
    }

    /// Bytes of their lines.
    pub fn raw_bytes(&self) -> u64 {
        self.cover.block.raw_bytes.unwrap_or(0)
    }

    /// Their numbers.
    pub fn range(&self) -> Range<u32> {
        self.cover.range.clone()
    }

    fn url(&self) -> &str {
        self.cover.url().unwrap_or_default()
    }
}

/// What came of looking for a run.
#[derive(Debug, Default)]
pub struct Found {
    /// A run to be replaced.
    pub compaction: Option<Compaction>,
    /// Datasets that somebody asked to compact, and that have no run.
    pub done: Vec<Dataset>,
    /// Whether there is more to look at.
    pub more: bool,
}

/// How far datasets were looked through. A leader's own: a new one looks at all.
#[derive(Debug, Default)]
pub struct Cursors {
    cursors: HashMap<Uuid, Cursor>,
    begun_ms: i64,
    /// Whether the last run was of a dataset that somebody asked to compact: the others come next.
    others_first: bool,
}

#[derive(Debug, Default)]
struct Cursor {
    next: u32,
    not_before_ms: i64,
    /// Up to where somebody asked to compact it, and what of that is next.
    asked: (u32, u32),
    /// What can't be merged.
    unfit: Vec<Range<u32>>,
}

/// A piece with its blocks.
type Candidate = (Piece, Vec<Block>);

impl Cursor {
    fn next_asked(&mut self, dataset: &Dataset) -> u32 {
        if self.asked.0 != dataset.compact_below {
            self.asked = (dataset.compact_below, dataset.first);
        }
        self.asked.1 = self.asked.1.max(dataset.first);
        self.asked.1
    }
}

impl Cursors {
    fn forget_old(&mut self, datasets: &[Dataset], now_ms: i64) {
        if now_ms - self.begun_ms > LOOK_THROUGH_MS {
            *self = Self {
                begun_ms: now_ms,
                ..Self::default()
            };
        }
        let there: HashSet<Uuid> = datasets.iter().map(|dataset| dataset.id).collect();
        self.cursors.retain(|id, _| there.contains(id));
    }

    /// Notes that a run is not to be replaced now: views have gone on meanwhile.
    pub fn put_off(&mut self, compaction: &Compaction, now_ms: i64) {
        let cursor = self.cursors.entry(compaction.dataset.id).or_default();
        cursor.not_before_ms = now_ms + LOOK_AGAIN_MS;
    }
}

impl Store {
    /// Looks for a run to merge, seen from `now_ms` (milliseconds since 1970 UTC), and puts its lines into a new object.
    /// Datasets that somebody asked to compact take turns with the others.
    ///
    /// Dropping it half-way may leave an object that nobody names. Takes memory for a few times
    /// [`compaction::TARGET_BYTES`].
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Object`]: a store that does not answer.
    pub async fn find_compaction(
        &self,
        epoch: Epoch,
        cursors: &mut Cursors,
        now_ms: i64,
    ) -> Result<Found, Error> {
        let mut datasets = self.list_datasets().await?;
        cursors.forget_old(&datasets, now_ms);
        datasets.sort_by_key(|dataset| dataset.compacting == cursors.others_first);
        let (mut found, mut looked_at) = (Found::default(), 0);
        for dataset in datasets {
            let cursor = cursors.cursors.entry(dataset.id).or_default();
            cursor.next = cursor.next.max(dataset.first);
            if !dataset.compacting && (cursor.not_before_ms > now_ms || cursor.next >= dataset.blocks) {
                continue;
            }
            if looked_at >= MOST_LOOKED_AT {
                found.more = true;
                break;
            }
            let looked = self.look_through(&dataset, epoch, cursor, now_ms, &mut looked_at);
            found.compaction = match looked.await {
                Ok(compaction) => compaction,
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => {
                    tracing::warn!(dataset = %dataset.name, "it is not compacted for now: {error}");
                    cursor.not_before_ms = now_ms + LOOK_AGAIN_FAILED_MS;
                    if dataset.compacting {
                        found.done.push(dataset);
                    }
                    continue;
                }
            };
            if found.compaction.is_some() {
                found.more = true;
                cursors.others_first = dataset.compacting;
                break;
            }
            cursor.not_before_ms = now_ms + LOOK_AGAIN_MS;
            if dataset.compacting {
                cursor.asked = (0, 0);
                found.done.push(dataset);
            }
        }
        Ok(found)
    }

    async fn look_through(
        &self,
        dataset: &Dataset,
        epoch: Epoch,
        cursor: &mut Cursor,
        now_ms: i64,
        looked_at: &mut u32,
    ) -> Result<Option<Compaction>, Error> {
        let table = dataset.table.as_ref();
        if table.is_some_and(|table| matches!(table.format, Format::Parquet)) {
            // No lines.
            cursor.next = dataset.blocks;
            return Ok(None);
        }
        let (policy, mut next, end) = match dataset.compacting {
            true => (Policy::asked(), cursor.next_asked(dataset), dataset.compact_below),
            false => (Policy::usual(now_ms), cursor.next, dataset.blocks),
        };
        let policy = policy.keeping(dataset.limits.keep_ms, dataset.limits.max_bytes);
        let end = end.min(dataset.blocks);
        while next < end {
            let window = next..end.min(next.saturating_add(WINDOW));
            *looked_at += WINDOW;
            let candidates = self.candidates(dataset, window.clone()).await?;
            let pieces: Vec<Piece> = candidates.iter().map(|(piece, _)| piece.clone()).collect();
            loop {
                let mut walls = self.walls(dataset.id).await?;
                walls.closed.extend(cursor.unfit.iter().cloned());
                let Some(run) = compaction::choose(&pieces, &walls, policy) else {
                    break;
                };
                match self.prepare(dataset, epoch, &candidates[run]).await? {
                    Ok(compaction) => return Ok(Some(compaction)),
                    Err(unfit) => cursor.unfit.extend(unfit),
                }
            }
            let open = pieces.iter().rev().take_while(|piece| piece.is_open(policy));
            let open = open.last().map_or(window.end, |piece| piece.range.start);
            let is_last = window.end >= end;
            next = if open > next || is_last { open } else { window.end };
            match dataset.compacting {
                true => cursor.asked.1 = next,
                false => cursor.next = next,
            }
            if is_last {
                break;
            }
        }
        Ok(None)
    }

    /// The pieces of a dataset that begin within a window, with their blocks.
    async fn candidates(&self, dataset: &Dataset, window: Range<u32>) -> Result<Vec<Candidate>, Error> {
        let own = own_folder(self.mill().await?);
        let mut found = Vec::new();
        let piece = |range: Range<u32>, occupied: Range<u32>, blocks: Vec<Block>| {
            let of = |block: &Block| block.raw_bytes.unwrap_or(block.stored_bytes() * GUESSED_RATIO);
            let piece = Piece {
                range,
                occupied,
                raw_bytes: blocks.iter().map(of).fold(0, u64::saturating_add),
                newest_ms: blocks
                    .iter()
                    // Nothing is to come where blocks were taken out.
                    .filter_map(|block| block.newest_ms().or_else(|| block.is_void().then_some(0)))
                    .max()
                    .unwrap_or(i64::MAX),
                is_ours: blocks.iter().all(|block| self.is_mergeable(block, &own)),
            };
            (piece, blocks)
        };
        let mut next = window.start;
        for cover in self.covers(dataset.edition(), window.clone()).await? {
            let gap = next..cover.range.start;
            self.pages(dataset.id, gap.clone(), |first, blocks| {
                let range = first..first + blocks.len() as u32;
                if first >= gap.start {
                    found.push(piece(range.clone(), range, blocks));
                }
            })
            .await?;
            next = cover.range.end;
            if cover.range.start >= window.start {
                found.push(piece(cover.range, cover.at..cover.at + 1, vec![cover.block]));
            }
        }
        let rest = next..window.end;
        self.pages(dataset.id, rest.clone(), |first, blocks| {
            let range = first..first + blocks.len() as u32;
            if first >= rest.start {
                found.push(piece(range.clone(), range, blocks));
            }
        })
        .await?;
        Ok(found)
    }

    /// Whether a block is a whole object that Sawmill itself wrote.
    fn is_mergeable(&self, block: &Block, own: &str) -> bool {
        match &block.content {
            Content::Object {
                url,
                start: 0,
                end,
                codec: Codec::Zstd,
                size,
                ..
            } => end == size && block.checksum.is_some() && self.own_key(url, own).is_some(),
            _ => false,
        }
    }

    /// What views, as they are now, let be merged of a dataset.
    async fn walls(&self, dataset: Uuid) -> Result<Walls, Error> {
        let mut walls = Walls::default();
        for view in self.views().await? {
            // Of one that can't be read nobody knows what it covers.
            let view = match view {
                Ok(view) => view,
                Err(error) if error.is_retryable() => return Err(error),
                Err(_) => {
                    walls.closed.push(0..u32::MAX);
                    continue;
                }
            };
            let covered = view.covered.iter().filter(|covered| covered.id == dataset);
            walls
                .covered
                .extend(covered.map(|covered| covered.blocks.clone()));
            let out = view.left_out.iter().filter(|out| out.dataset == dataset);
            walls
                .closed
                .extend(out.map(|out| out.block..out.block.saturating_add(1)));
            if let Some(job) = view.under_way
                && let Some(job) = self.job(job).await?
            {
                let runs = job.parts.runs_of(dataset);
                walls.closed.extend(runs.map(|(_, blocks)| blocks));
            }
        }
        Ok(walls)
    }

    /// Puts the lines of a run into a new object; what of it can't be merged where that is so.
    async fn prepare(
        &self,
        dataset: &Dataset,
        epoch: Epoch,
        run: &[Candidate],
    ) -> Result<Result<Compaction, Vec<Range<u32>>>, Error> {
        let mut reading = Vec::new();
        for (_, blocks) in run {
            reading.extend(blocks.iter().map(|block| (self.clone(), block.clone())));
        }
        let reading = stream::iter(reading).map(|(store, block)| async move { store.small(&block).await });
        let mut smalls = reading.buffered(READ_AT_ONCE);
        let mut pieces = Vec::with_capacity(run.len());
        for (piece, blocks) in run {
            let mut of_piece = Vec::with_capacity(blocks.len());
            for _ in blocks {
                match smalls.try_next().await {
                    Ok(small) => of_piece.extend(small),
                    Err(error) if is_gone(&error) || !error.is_retryable() => {
                        tracing::warn!(dataset = %dataset.name, "blocks can't be compacted: {error}");
                        return Ok(Err(vec![piece.range.clone()]));
                    }
                    Err(error) => return Err(error),
                }
            }
            pieces.push(of_piece);
        }
        drop(smalls);
        let merging = tokio::task::spawn_blocking(move || merging::merged(&pieces));
        let range_of = |at: usize| run[at].0.range.clone();
        let unfit = match merging.await {
            Ok(Ok(Merged::Large(large))) => {
                return self.put_large(dataset, epoch, run, large).await.map(Ok);
            }
            Ok(Ok(Merged::Open(places))) => places.into_iter().map(range_of).collect(),
            Ok(Err((url, why))) => {
                tracing::warn!(dataset = %dataset.name, url, "a block can't be compacted: {why}");
                let has = |blocks: &[Block]| blocks.iter().any(|block| block.url() == Some(&url));
                let of = run.iter().position(|(_, blocks)| has(blocks));
                vec![range_of(of.unwrap_or(0))]
            }
            Err(error) => {
                tracing::warn!(dataset = %dataset.name, "blocks can't be compacted: {error}");
                (0..run.len()).map(range_of).collect()
            }
        };
        Ok(Err(unfit))
    }

    async fn small(&self, block: &Block) -> Result<Small, Error> {
        let url = block.url().unwrap_or_default().to_string();
        let key = self.own_key(&url, &own_folder(self.mill().await?));
        let failed = |source| objects::unreadable(&url, source);
        let key = key.ok_or_else(|| Error::BadUrl {
            url: url.clone(),
            why: "it is not in the block store".into(),
        })?;
        let found = self.root().store().get(&key).await.map_err(failed)?;
        let stored: Bytes = found.bytes().await.map_err(failed)?;
        Ok(Small {
            checksum: block.checksum.clone(),
            stored,
            url,
        })
    }

    async fn put_large(
        &self,
        dataset: &Dataset,
        epoch: Epoch,
        run: &[Candidate],
        large: Large,
    ) -> Result<Compaction, Error> {
        let run = &run[..large.pieces];
        let pieces: Vec<Piece> = run.iter().map(|(piece, _)| piece.clone()).collect();
        let (first, last) = (&pieces[0], &pieces[pieces.len() - 1]);
        let (range, at) = (first.range.start..last.range.end, last.occupied.end - 1);
        let own = own_folder(self.mill().await?);
        let object = format!(
            "{own}{FOLDER}/{:016}/{}/{}-{}-{}.zst",
            epoch.0,
            dataset.id,
            range.start,
            range.end,
            Uuid::now_v7()
        );
        let (key, url) = (self.root().key(&object), self.root().url(&object));
        let (store, length) = (self.root().store(), large.stored.len() as u64);
        let failed = |source| Error::Object {
            doing: "can't write",
            url: url.clone(),
            source: Box::new(source),
        };
        let payload = PutPayload::from(large.stored);
        store.put(&key, payload).await.map_err(failed)?;
        // What it replaces is removed later: it is looked at once more.
        if !self.is_there(&object, large.checksum).await? {
            return Err(Error::Corrupt { url });
        }
        let (size, mtime_ms) = objects::head(&**store, &key, &url).await?.size_and_mtime;
        let generation = dataset.generation + 1;
        let newest_ms = pieces
            .iter()
            .map(|piece| piece.newest_ms)
            .max()
            .unwrap_or(mtime_ms);
        let block = Block {
            content: Content::Object {
                url,
                start: 0,
                end: length,
                codec: Codec::Zstd,
                size,
                mtime_ms,
                mark: None,
            },
            checksum: Some(large.checksum.to_hex().to_string()),
            raw_bytes: Some(large.raw_bytes),
            made: Some(Made {
                generation,
                newest_ms,
            }),
            registered_ms: None,
        };
        let replaced = run.iter().flat_map(|(_, blocks)| blocks);
        Ok(Compaction {
            dataset: dataset.clone(),
            stored_bytes: replaced.map(Block::stored_bytes).sum(),
            pieces,
            cover: Cover {
                range,
                at,
                generation,
                // Known once it takes their place.
                since_ms: 0,
                block,
            },
        })
    }

    /// Puts the new block in the place of the run, in one transaction; false when the dataset or a view has changed
    /// meanwhile: then the new object is removed.
    ///
    /// Only the leader calls it, and does nothing else for views at the same time.
    ///
    /// # Errors
    /// [`Error::Deposed`]: nothing is written; [`Error::Mongo`]: perhaps it is done, and the object stays.
    pub async fn compact(&self, epoch: Epoch, compaction: &Compaction) -> Result<bool, Error> {
        let Compaction {
            dataset,
            pieces,
            stored_bytes,
            cover,
        } = compaction;
        let walls = self.walls(dataset.id).await?;
        if !compaction::still_fits(pieces, &walls) {
            self.discard(compaction).await?;
            return Ok(false);
        }
        let as_read = |number: u32| match number {
            0 => rawdoc! { "$exists": false }.into(),
            number => bson::RawBson::Int64(i64::from(number)),
        };
        let filter = rawdoc! {
            "_id": dataset.name.as_str(),
            "id": crate::schema::uuid_binary(model::JobId(dataset.id)),
            "generation": as_read(dataset.generation),
            "first": as_read(dataset.first),
        };
        let more = i64::from(compaction.blocks()) - 1;
        let bytes = signed(cover.block.stored_bytes()) - signed(*stored_bytes);
        // Until now what it replaces was read.
        let mut cover = cover.clone();
        cover.since_ms = self.now_ms().await?;
        let change = rawdoc! {
            "$set": { "generation": i64::from(cover.generation) },
            "$max": { "v": COMPACTED_FORMAT },
            "$inc": { "void": more, "bytes": bytes },
        };
        let mut statements = RawArrayBuf::new();
        statements.push(statement(&filter, &change, false));
        let mut documents = RawArrayBuf::new();
        documents.push(cover.document(dataset.id)?);
        let commands: [RawDocumentBuf; 2] = [
            rawdoc! { "update": DATASETS, "updates": statements },
            rawdoc! { "insert": COMPACTED, "documents": documents },
        ];
        let doing = format!("compacting dataset {}", dataset.name);
        // A try whose commit was not heard of may have done it.
        if self.fenced_commands(epoch, &doing, &commands).await? > 0 || self.is_done(compaction).await? {
            return Ok(true);
        }
        self.discard(compaction).await?;
        Ok(false)
    }

    async fn is_done(&self, compaction: &Compaction) -> Result<bool, Error> {
        let id = compaction.cover.key(compaction.dataset.id);
        let doing = format!("reading dataset {}", compaction.dataset.name);
        let found = self.find_by_id(COMPACTED, key(&id), &doing).await?;
        Ok(found.is_some_and(|found| urls(&found).iter().any(|url| url == compaction.url())))
    }

    /// Removes the object of a compaction that is not to be.
    async fn discard(&self, compaction: &Compaction) -> Result<(), Error> {
        let own = own_folder(self.mill().await?);
        if let Some(key) = self.own_key(compaction.url(), &own) {
            self.delete_keys(vec![key]).await?;
        }
        Ok(())
    }

    /// Removes objects of compactions that leaders before this one have left behind and nobody names. None of them can come
    /// to be named any more.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Object`].
    pub async fn sweep_compacted(&self, epoch: Epoch) -> Result<u64, Error> {
        let folder = format!("{}{FOLDER}/", own_folder(self.mill().await?));
        let prefix = self.root().key(&folder);
        let failed = |source| Error::Object {
            doing: "can't list",
            url: self.root().url(&folder),
            source: Box::new(source),
        };
        let mut written: HashMap<String, Key> = HashMap::new();
        let mut objects = self.root().store().list(Some(&prefix));
        while let Some(meta) = objects.try_next().await.map_err(failed)? {
            let object = self.root().object(&meta.location).unwrap_or_default();
            let of = object
                .strip_prefix(&folder)
                .and_then(|rest| rest.split('/').next());
            let of = of.and_then(|epoch| epoch.parse::<u64>().ok());
            // What this leader or a later one has written may be about to be named.
            if of.is_some_and(|of| of < epoch.0) {
                written.insert(self.root().url(&object), meta.location);
            }
        }
        drop(objects);
        if written.is_empty() {
            return Ok(0);
        }
        // Read after listing: what is named by then stays named until it is cleaned.
        let query = crate::rows::Query::new(COMPACTED, "looking who names an object", doc! {});
        let mut rows = self.find(query.fields(&["blocks.content.object.url"])).await?;
        while let Some(document) = rows.next().await? {
            for url in urls(document) {
                written.remove(&url);
            }
        }
        let unnamed: Vec<Key> = written.into_values().collect();
        self.delete_keys(unnamed).await
    }

    /// Keeps that nothing is left to be compacted of a dataset that somebody asked to.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn end_compacting(&self, dataset: &Dataset) -> Result<(), Error> {
        self.set_compacting(dataset, false).await.map(drop)
    }

    /// Asks to compact a dataset as it was read, whatever becomes fewer blocks; [`Dataset::compacting`] until that is done.
    /// Whether it was there.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn ask_to_compact(&self, dataset: &Dataset) -> Result<bool, Error> {
        self.set_compacting(dataset, true).await
    }

    async fn set_compacting(&self, dataset: &Dataset, is_asked: bool) -> Result<bool, Error> {
        let filter = doc! { "_id": dataset.name.as_str(), "id": bson::Uuid::from_uuid_1(dataset.id) };
        let change = match is_asked {
            true => doc! { "$set": { "compacting": i64::from(dataset.blocks) } },
            false => doc! { "$unset": { "compacting": Bson::Int32(1) } },
        };
        let done = self.documents(DATASETS).update_one(filter, change).await;
        let done = done.map_err(self.failed(format!("asking to compact dataset {}", dataset.name)))?;
        Ok(done.matched_count > 0)
    }
}

/// The objects that a page or a compacted block names.
pub(crate) fn urls(document: &bson::RawDocument) -> Vec<String> {
    let blocks = document
        .get_array("blocks")
        .map(|blocks| blocks.into_iter().flatten());
    let blocks = blocks.into_iter().flatten();
    let url = |block: bson::raw::RawBsonRef<'_>| {
        let content = block.as_document()?.get_document("content").ok()?;
        let object = content.get_document("object").ok()?;
        object.get_str("url").ok().map(str::to_string)
    };
    blocks.filter_map(url).collect()
}

fn is_gone(error: &Error) -> bool {
    match error {
        Error::Object { source, .. } => matches!(**source, object_store::Error::NotFound { .. }),
        Error::BadUrl { .. } => true,
        _ => false,
    }
}
