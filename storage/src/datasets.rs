//! Datasets: ordered lists of blocks, kept in pages.
//!
//! A page is one document of up to 256 blocks, written once and never changed; appending writes new pages. So what a
//! job was submitted over stays as it was. Blocks that were made of others lie beside the pages and count from a
//! generation on: see [`crate::compacted`].

use std::{future::IntoFuture as _, ops::Range};

use bson::{Document, RawDocument, RawDocumentBuf, cstr, doc, raw::RawBsonRef, rawdoc};
use model::{
    Block, FORMAT, Name,
    parts::{Edition, Source},
    table::Table,
};
use mongodb::{ClientSession, error::Error as Driver};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{
    Error, Limits, Revision, Store,
    error::{DUPLICATE_KEY, code, is_transient},
    jobs::{over, unfinished},
    rows::Query,
    schema::{self, BLOCKS, DATASETS, JOBS, count, date, int, key, narrow, now_ms, raw_key, signed},
    transaction::Step,
};

/// Most blocks of a page.
pub(crate) const PAGE_BLOCKS: usize = 256;
/// A page takes no further block once it has so many bytes; far below MongoDB's 16 MiB.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of pages that one transaction appends.
const APPEND_BYTES: usize = 8 * 1024 * 1024;

/// A dataset as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Its name.
    pub name: Name,
    /// Its incarnation: removed and added anew it has another.
    pub id: Uuid,
    /// Number of its first block; those below have left.
    pub first: u32,
    /// One past the number of its last block.
    pub blocks: u32,
    /// Bytes of its blocks, as stored.
    pub bytes: u64,
    /// What it keeps.
    pub limits: Limits,
    /// Bytes of the blocks that have left.
    pub left_bytes: u64,
    /// When the last of these left, in milliseconds since 1970 UTC.
    pub left_ms: Option<i64>,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// How its lines become rows, once that is known.
    pub table: Option<Table>,
    /// Why its lines were taken for that, for people.
    pub table_why: Option<String>,
    /// How often that has changed.
    pub table_revision: u64,
    /// One past the number of the last block that was there when its lines were last looked at for that.
    pub looked_at: u32,
    /// How often blocks of it were merged into a larger one.
    pub generation: u32,
    /// Numbers from `first` on that are void since then.
    pub void: u32,
    /// Whether somebody asked to merge what can be, and it is not done yet.
    pub compacting: bool,
    /// How many numbers it had then: what comes later is not waited for.
    pub compact_below: u32,
    /// The generation in which blocks were last taken out of it; 0: never.
    pub cut: u32,
    /// What was added last, where that can be taken back.
    pub last: Option<Revision>,
}

impl Dataset {
    /// How many blocks it has.
    pub fn count(&self) -> u32 {
        self.source().count()
    }

    /// What the numbers of its blocks mean.
    pub fn edition(&self) -> Edition {
        self.source().edition()
    }

    /// What a job over it keeps of it.
    pub fn source(&self) -> Source {
        Source {
            id: self.id,
            first: self.first,
            blocks: self.blocks,
            generation: self.generation,
            void: self.void,
        }
    }
}

impl Store {
    /// Makes an empty dataset.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Mongo`].
    pub async fn create(&self, name: &Name) -> Result<Uuid, Error> {
        let id = Uuid::now_v7();
        let document = doc! {
            "_id": name.as_str(),
            "v": i64::from(FORMAT),
            "id": bson::Uuid::from_uuid_1(id),
            "blocks": 0_i64,
            "bytes": 0_i64,
            "created_at": date(now_ms()),
        };
        match self.documents(DATASETS).insert_one(document).await {
            Ok(_) => Ok(id),
            // A repeated insert whose first reply was lost finds its own.
            Err(error) if code(&error) == Some(DUPLICATE_KEY) => match self.get(name).await? {
                Some(found) if found.id == id => Ok(id),
                _ => Err(Error::Exists {
                    name: name.to_string(),
                }),
            },
            Err(error) => Err(self.failed(format!("making dataset {name}"))(error)),
        }
    }

    /// Appends blocks in this order. Large lists go in several transactions: after an error the first of them may be
    /// there, and [`Store::get`] tells how many.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Concurrent`] when others append all the time, [`Error::Mongo`].
    pub async fn append_blocks(&self, name: &Name, blocks: Vec<Block>) -> Result<(), Error> {
        for some in portions(&blocks)? {
            self.append_pages(name, &some).await?;
        }
        Ok(())
    }

    async fn append_pages(&self, name: &Name, pages: &[Page]) -> Result<(), Error> {
        let doing = format!("appending to dataset {name}");
        let appending = async {
            let mut transaction = self.transaction(&doing);
            loop {
                let dataset = self.get(name).await?.ok_or_else(|| unknown(name))?;
                let appended = self.append_in(transaction.begin().await?, &dataset, pages).await;
                let step = self.appended_step(appended, (), name, &doing);
                if let Some(()) = transaction.end(step).await? {
                    return Ok(());
                }
            }
        };
        self.patiently(appending).await
    }

    /// What a try to append came to: where another was faster, it begins again.
    pub(crate) fn appended_step<T>(
        &self,
        appended: Result<bool, Driver>,
        value: T,
        name: &Name,
        doing: &str,
    ) -> Result<Step<T>, Error> {
        match appended {
            Ok(true) => Ok(Step::Commit(value)),
            Ok(false) => Ok(Step::Again(concurrent(name))),
            Err(error) if is_transient(&error) || code(&error) == Some(DUPLICATE_KEY) => {
                tracing::debug!(dataset = %name, "{doing}: {error}");
                Ok(Step::Again(concurrent(name)))
            }
            Err(error) => Err(self.failed(doing)(error)),
        }
    }

    /// Appends pages within a transaction; false when the dataset is no longer as it was read.
    pub(crate) async fn append_in(
        &self,
        session: &mut ClientSession,
        dataset: &Dataset,
        pages: &[Page],
    ) -> Result<bool, Driver> {
        let bytes: u64 = pages.iter().map(|page| page.stored_bytes).sum();
        let blocks = dataset.blocks + Page::count(pages);
        let update = doc! { "$set": { "blocks": i64::from(blocks) }, "$inc": { "bytes": signed(bytes) } };
        self.change_in(session, dataset, pages, doc! {}, update).await
    }

    /// Appends pages within a transaction, where `filter` holds too, and updates the document of the dataset; false when the
    /// dataset is no longer as it was read.
    pub(crate) async fn change_in(
        &self,
        session: &mut ClientSession,
        dataset: &Dataset,
        pages: &[Page],
        mut filter: Document,
        update: Document,
    ) -> Result<bool, Driver> {
        let mut first = dataset.blocks;
        let mut documents = Vec::with_capacity(pages.len());
        for page in pages {
            documents.push(page.document(dataset.id, first));
            first += page.blocks;
        }
        filter.insert("_id", dataset.name.as_str());
        filter.insert("id", bson::Uuid::from_uuid_1(dataset.id));
        filter.insert("blocks", i64::from(dataset.blocks));
        let grown = self
            .documents(DATASETS)
            .update_one(filter, update)
            .session(&mut *session)
            .await?;
        if grown.matched_count == 0 {
            return Ok(false);
        }
        if !documents.is_empty() {
            self.raw(BLOCKS).insert_many(documents).session(session).await?;
        }
        Ok(true)
    }

    /// The dataset of this name.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn get(&self, name: &Name) -> Result<Option<Dataset>, Error> {
        let found = self
            .find_by_id(DATASETS, name.as_str(), &format!("reading dataset {name}"))
            .await?;
        found.map(|dataset| decode(&dataset)).transpose()
    }

    /// Keeps how the lines of a dataset become rows, and why, unless that has changed since `dataset` was read; whether
    /// it did.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`] for what does not fit into a document.
    pub async fn set_table(&self, dataset: &Dataset, table: &Table, why: &str) -> Result<bool, Error> {
        let name = &dataset.name;
        let encoded = bson::serialize_to_document(table).map_err(|why| Error::Decode {
            what: format!("the table of dataset {name}"),
            why: why.to_string(),
        })?;
        let mut filter = doc! { "_id": name.as_str(), "id": bson::Uuid::from_uuid_1(dataset.id) };
        let revision = match dataset.table_revision {
            0 => doc! { "$exists": false }.into(),
            revision => bson::Bson::Int64(signed(revision)),
        };
        filter.insert("table_revision", revision);
        let change = doc! { "$set": {
            "table": encoded, "table_why": why, "table_revision": signed(dataset.table_revision + 1),
            "looked_at": i64::from(dataset.blocks),
        } };
        let datasets = self.documents(DATASETS);
        let keeping = datasets.update_one(filter, change);
        let kept = self.patiently(keeping.into_future()).await;
        let kept = kept.map_err(self.failed(format!("keeping the table of dataset {name}")))?;
        Ok(kept.matched_count > 0)
    }

    /// Keeps that the blocks of a dataset, as it was read, were looked at and changed nothing of its table.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn note_look(&self, dataset: &Dataset) -> Result<(), Error> {
        let filter = doc! { "_id": dataset.name.as_str(), "id": bson::Uuid::from_uuid_1(dataset.id) };
        let seen = doc! { "$max": { "looked_at": i64::from(dataset.blocks) } };
        let noted = self.documents(DATASETS).update_one(filter, seen).await;
        noted.map_err(self.failed(format!("noting a look at dataset {}", dataset.name)))?;
        Ok(())
    }

    /// All datasets by name.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn list_datasets(&self) -> Result<Vec<Dataset>, Error> {
        let mut rows = self
            .find(Query::new(DATASETS, "reading datasets", doc! {}).sort("_id", 1))
            .await?;
        let mut datasets = Vec::new();
        while let Some(dataset) = rows.next().await? {
            datasets.push(decode(dataset)?);
        }
        Ok(datasets)
    }

    /// Removes a dataset and the list of its blocks, with what agents shipped to it; files that were added stay. A job that
    /// is submitted at the same moment fails for want of its blocks.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InUse`] while unfinished jobs run over it, [`Error::Mongo`].
    pub async fn remove(&self, name: &Name) -> Result<(), Error> {
        let dataset = self.get(name).await?.ok_or_else(|| unknown(name))?;
        let id = bson::Uuid::from_uuid_1(dataset.id);
        let mut using = over(dataset.id);
        using.insert("state", doc! { "$in": unfinished() });
        let jobs = self.documents(JOBS).count_documents(using.clone()).await;
        let jobs = jobs.map_err(self.failed("looking for jobs over it"))?;
        if jobs > 0 {
            let example = self.find_jobs(using, &[("_id", 1)], 1).await?;
            let example = example
                .first()
                .map(|job| format!("job {}", job.id))
                .unwrap_or_default();
            return Err(Error::InUse {
                name: name.to_string(),
                jobs,
                example,
            });
        }
        let removed = self
            .documents(DATASETS)
            .delete_one(doc! { "_id": name.as_str(), "id": id })
            .await;
        removed.map_err(self.failed(format!("removing dataset {name}")))?;
        let pages =
            doc! { "_id": { "$gte": page_key(dataset.id, 0), "$lte": page_key(dataset.id, u32::MAX) } };
        self.delete_own_objects(&pages).await?;
        self.documents(BLOCKS)
            .delete_many(pages)
            .await
            .map_err(self.failed("removing blocks"))?;
        self.remove_all_compacted(dataset.id).await?;
        self.forget_stats(dataset.id, 0..u32::MAX).await
    }

    /// The blocks of a dataset as they were appended, with an index in `range`, from the first one in order; fewer where
    /// it has fewer, none when the first one has left or the dataset is gone.
    pub(crate) async fn appended(&self, dataset: Uuid, range: Range<u32>) -> Result<Vec<Block>, Error> {
        let mut next = range.start;
        let mut found = Vec::with_capacity(range.len().min(1 << 16));
        self.pages(dataset, range.clone(), |first, blocks| {
            for (index, block) in (first..).zip(blocks) {
                if index == next && range.contains(&index) {
                    next += 1;
                    found.push(block);
                }
            }
        })
        .await?;
        Ok(found)
    }

    /// The pages that have a block with an index in `range`, in order: the index of the first of their blocks, and these.
    pub(crate) async fn pages(
        &self,
        dataset: Uuid,
        range: Range<u32>,
        mut each: impl FnMut(u32, Vec<Block>),
    ) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        // The page that holds the first one may begin a page's length before it.
        let lowest = range.start.saturating_sub(PAGE_BLOCKS as u32 - 1);
        let filter =
            doc! { "_id": { "$gte": page_key(dataset, lowest), "$lt": page_key(dataset, range.end) } };
        let mut rows = self
            .find(Query::new(BLOCKS, "reading blocks", filter).sort("_id", 1))
            .await?;
        while let Some(page) = rows.next().await? {
            let first = schema::index_of(page).unwrap_or(0);
            let blocks = of_page(page, || format!("page {first} of dataset {dataset}"))?;
            if first as usize + blocks.len() > range.start as usize {
                each(first, blocks);
            }
        }
        Ok(())
    }
}

/// The blocks in a document.
pub(crate) fn of_page(page: &RawDocument, what: impl Fn() -> String) -> Result<Vec<Block>, Error> {
    schema::check_version(page, &what)?;
    let bad = |why: String| Error::Decode { what: what(), why };
    if schema::index_of(page).is_none() {
        return Err(bad("its _id has another length".into()));
    }
    let array = page.get_array("blocks").map_err(|error| bad(error.to_string()))?;
    let mut blocks = Vec::new();
    for element in array {
        let RawBsonRef::Document(block) = element.map_err(|error| bad(error.to_string()))? else {
            return Err(bad("a block is no document".into()));
        };
        let block = bson::deserialize_from_slice(block.as_bytes());
        blocks.push(block.map_err(|error| bad(error.to_string()))?);
    }
    Ok(blocks)
}

pub(crate) fn concurrent(name: &Name) -> Error {
    Error::Concurrent {
        name: name.to_string(),
    }
}

pub(crate) fn unknown(name: &Name) -> Error {
    Error::NotFound {
        what: format!("dataset {name}"),
    }
}

fn page_bytes(dataset: Uuid, first: u32) -> [u8; 20] {
    schema::result_key(model::JobId(dataset), first)
}

pub(crate) fn page_key(dataset: Uuid, first: u32) -> bson::Binary {
    key(&page_bytes(dataset, first))
}

/// Blocks that go into one document.
pub(crate) struct Page {
    array: bson::RawArrayBuf,
    array_bytes: usize,
    blocks: u32,
    pub(crate) stored_bytes: u64,
}

impl Page {
    /// Blocks of these together.
    pub(crate) fn count(pages: &[Self]) -> u32 {
        pages.iter().map(|page| page.blocks).sum()
    }

    fn new() -> Self {
        Self {
            array: bson::RawArrayBuf::new(),
            array_bytes: 0,
            blocks: 0,
            stored_bytes: 0,
        }
    }

    fn size(&self) -> usize {
        self.array_bytes
    }

    fn is_full(&self) -> bool {
        self.blocks as usize >= PAGE_BLOCKS || self.array_bytes >= PAGE_BYTES
    }

    fn document(&self, dataset: Uuid, first: u32) -> RawDocumentBuf {
        let mut document = rawdoc! {};
        document.append(cstr!("_id"), raw_key(&page_bytes(dataset, first)));
        document.append(cstr!("v"), i64::from(FORMAT));
        document.append(cstr!("blocks"), self.array.clone());
        document
    }
}

pub(crate) fn pages(blocks: &[Block]) -> Result<Vec<Page>, Error> {
    let mut pages = Vec::new();
    let mut page = Page::new();
    for block in blocks {
        let raw = bson::serialize_to_raw_document_buf(block).map_err(|error| Error::Decode {
            what: "a block".into(),
            why: error.to_string(),
        })?;
        if page.is_full() {
            pages.push(std::mem::replace(&mut page, Page::new()));
        }
        page.array_bytes += raw.as_bytes().len();
        page.stored_bytes += block.stored_bytes();
        page.blocks += 1;
        page.array.push(raw);
    }
    if page.blocks > 0 {
        pages.push(page);
    }
    Ok(pages)
}

/// Pages, by the transaction that each goes with.
pub(crate) fn portions(blocks: &[Block]) -> Result<Vec<Vec<Page>>, Error> {
    let (mut portions, mut bytes) = (Vec::new(), 0);
    for page in pages(blocks)? {
        bytes += page.size();
        match portions.last_mut() {
            Some(portion) if bytes <= APPEND_BYTES => Vec::push(portion, page),
            _ => {
                bytes = page.size();
                portions.push(vec![page]);
            }
        }
    }
    Ok(portions)
}

pub(crate) fn decode(document: &RawDocument) -> Result<Dataset, Error> {
    let name = document.get_str("_id").unwrap_or_default();
    let what = || format!("dataset {name}");
    schema::check_version_to(document, schema::TAKEN_OUT_FORMAT, what)?;
    let bad = |why: &str| Error::Decode {
        what: what(),
        why: why.to_string(),
    };
    let id = schema::job_id(document, "id")
        .ok_or_else(|| bad("its id is no UUID"))?
        .0;
    Ok(Dataset {
        name: Name::new(name).map_err(|error| bad(&error.to_string()))?,
        id,
        first: narrow(document, "first").unwrap_or(0),
        blocks: narrow(document, "blocks").ok_or_else(|| bad("it has no number of blocks"))?,
        bytes: count(document, "bytes"),
        limits: Limits {
            keep_ms: int(document, "keep_ms").and_then(|limit| u64::try_from(limit).ok()),
            max_bytes: int(document, "max_bytes").and_then(|limit| u64::try_from(limit).ok()),
        },
        left_bytes: count(document, "left_bytes"),
        left_ms: document
            .get_datetime("left_at")
            .ok()
            .map(|at| at.timestamp_millis()),
        created_ms: document
            .get_datetime("created_at")
            .map_or(0, bson::DateTime::timestamp_millis),
        table: part(document, "table").map_err(|why| bad(&format!("its table {why}")))?,
        table_why: document.get_str("table_why").ok().map(str::to_owned),
        table_revision: count(document, "table_revision"),
        looked_at: narrow(document, "looked_at").unwrap_or(0),
        generation: narrow(document, "generation").unwrap_or(0),
        void: narrow(document, "void").unwrap_or(0),
        compacting: narrow(document, "compacting").is_some(),
        compact_below: narrow(document, "compacting").unwrap_or(0),
        cut: narrow(document, "cut").unwrap_or(0),
        last: part(document, "last").map_err(|why| bad(&format!("what was added last {why}")))?,
    })
}

fn part<T: DeserializeOwned>(document: &RawDocument, field: &str) -> Result<Option<T>, String> {
    match document.get_document(field) {
        Ok(part) => bson::deserialize_from_slice(part.as_bytes())
            .map(Some)
            .map_err(|why| format!("can't be read: {why}")),
        Err(_) => Ok(None),
    }
}
