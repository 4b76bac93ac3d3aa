//! Views: queries whose answer is kept current in a collection of its own.
//!
//! Users make them and say what they want of them; the leader writes what is computed, each write in one transaction with
//! the job that it submits, under its epoch. Both replace a document only as they have read it, by its revision.

use std::{future::IntoFuture as _, ops::Range};

use bson::{DateTime, Document, RawArrayBuf, RawDocument, RawDocumentBuf, doc, rawdoc};
use model::{
    FORMAT, Job, JobId, Name, Priority, View,
    processor::{Merged, Query},
    view::{Covered, LeftOut, Seen, Standing, ViewState},
};
use serde::{Deserialize, Serialize};

use crate::{
    Epoch, Error, Store, check_collection,
    error::{DUPLICATE_KEY, code},
    fence::statement,
    jobs,
    rows::Query as Wanted,
    schema::{self, JOBS, VIEWS, date, signed},
};

impl Store {
    /// Keeps a new view.
    ///
    /// # Errors
    /// [`Error::BadCollection`] for a name that no collection can have, [`Error::Taken`] where there is a view or a
    /// collection of this name, [`Error::Mongo`], [`Error::Decode`].
    pub async fn create_view(&self, view: &View) -> Result<(), Error> {
        let name = view.name.as_str();
        check_collection(name)?;
        let taken = |what: &str| Error::Taken {
            what: format!("{what} {name}"),
        };
        let doing = || format!("making view {name}");
        let there = self
            .db()
            .list_collection_names()
            .filter(doc! { "name": name })
            .await;
        if !there.map_err(self.failed(doing()))?.is_empty() {
            let known = self.view(&view.name).await?;
            return Err(taken(if known.is_some() { "a view" } else { "a collection" }));
        }
        match self.raw(VIEWS).insert_one(encode(view)?).await {
            Ok(_) => Ok(()),
            // A repeated insert whose first reply was lost finds its own.
            Err(error) if code(&error) == Some(DUPLICATE_KEY) => match self.view(&view.name).await? {
                Some(found) if found.id == view.id => Ok(()),
                _ => Err(taken("a view")),
            },
            Err(error) => Err(self.failed(doing())(error)),
        }
    }

    /// The view of this name.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn view(&self, name: &Name) -> Result<Option<View>, Error> {
        let doing = format!("reading view {name}");
        let found = self.find_by_id(VIEWS, name.as_str(), &doing).await?;
        found.map(|view| decode(&view)).transpose()
    }

    /// All views by name; one that can't be read is an error of its own.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn views(&self) -> Result<Vec<Result<View, Error>>, Error> {
        let mut rows = self
            .find(Wanted::new(VIEWS, "reading views", doc! {}).sort("_id", 1))
            .await?;
        let mut views = Vec::new();
        while let Some(view) = rows.next().await? {
            views.push(decode(view));
        }
        Ok(views)
    }

    /// Puts a view that was read and changed in its place; false when it has changed meanwhile, or is gone.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`].
    pub async fn replace_view(&self, view: &View) -> Result<bool, Error> {
        let views = self.raw(VIEWS);
        let replacing = views.replace_one(as_read(view), next(view)?);
        let done = self.patiently(replacing.into_future()).await;
        let done = done.map_err(self.failed(format!("changing view {}", view.name)))?;
        Ok(done.matched_count > 0)
    }

    /// The same by the leader, with the job that it submits for the view: both or neither.
    ///
    /// # Errors
    /// [`Error::Deposed`]: nothing is written; [`Error::Mongo`], [`Error::Decode`].
    pub async fn keep_view(&self, epoch: Epoch, view: &View, job: Option<&Job>) -> Result<bool, Error> {
        let mut statements = RawArrayBuf::new();
        statements.push(statement(&raw(&as_read(view), view)?, &next(view)?, false));
        let mut commands = vec![rawdoc! { "update": VIEWS, "updates": statements }];
        if let Some(job) = job {
            let mut documents = RawArrayBuf::new();
            documents.push(jobs::encode(job)?);
            commands.push(rawdoc! { "insert": JOBS, "documents": documents });
        }
        let doing = format!("keeping view {}", view.name);
        Ok(self.fenced_commands(epoch, &doing, &commands).await? > 0)
    }

    /// Removes a view with its answer and what is stored with it; false when it has changed meanwhile, or is gone. Dropping
    /// it half-way leaves a view that is still to be removed.
    ///
    /// # Errors
    /// As [`Store::keep_view`]; [`Error::Object`].
    pub async fn remove_view(&self, epoch: Epoch, view: &View) -> Result<bool, Error> {
        // Who leads no longer must not drop what may have been made anew.
        if !self.keep_view(epoch, view, None).await? {
            return Ok(false);
        }
        let name = view.name.as_str();
        match self.check_replaceable(name).await {
            Ok(_) => {
                let dropped = self.documents(name).drop().await;
                dropped.map_err(self.failed(format!("removing the answer of view {name}")))?;
            }
            Err(Error::Taken { what }) => tracing::warn!(view = name, "{what} is in its place, and stays"),
            Err(error) => return Err(error),
        }
        self.delete_job_outputs(JobId(view.id)).await?;
        let mut last = view.clone();
        last.revision += 1;
        let mut statements = RawArrayBuf::new();
        statements.push(rawdoc! { "q": raw(&as_read(&last), view)?, "limit": 1 });
        let command = rawdoc! { "delete": VIEWS, "deletes": statements };
        let doing = format!("removing view {name}");
        Ok(self.fenced_commands(epoch, &doing, &[command]).await? > 0)
    }

    /// The datasets of a view as they stand.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn seen_by(&self, view: &View) -> Result<Vec<Seen>, Error> {
        let mut seen = Vec::with_capacity(view.covered.len());
        for covered in &view.covered {
            let Some(dataset) = self.get(&covered.dataset).await? else {
                seen.push(None);
                continue;
            };
            let void = self
                .void(dataset.edition(), dataset.first..dataset.blocks)
                .await?;
            seen.push(Some(Standing {
                source: dataset.source(),
                cut: dataset.cut,
                table: dataset.table,
                void,
            }));
        }
        Ok(seen)
    }

    /// How many rows the answer of a view has.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn view_rows(&self, name: &Name) -> Result<u64, Error> {
        let counted = self.documents(name.as_str()).count_documents(doc! {}).await;
        counted.map_err(self.failed(format!("counting the rows of view {name}")))
    }

    /// The jobs whose results views need, and the ids under which things are stored with views.
    pub(crate) async fn needed_by_views(&self) -> Result<(Vec<JobId>, Vec<JobId>), Error> {
        let query = Wanted::new(VIEWS, "reading views", doc! {}).fields(&["id", "merged", "under_way"]);
        let mut rows = self.find(query).await?;
        let (mut jobs, mut ids) = (Vec::new(), Vec::new());
        while let Some(view) = rows.next().await? {
            ids.extend(schema::job_id(view, "id"));
            jobs.extend(schema::job_id(view, "under_way"));
            let merged = view.get_document("merged").ok();
            jobs.extend(merged.and_then(|merged| schema::job_id(merged, "job")));
        }
        Ok((jobs, ids))
    }
}

/// The filter for a view as it was read.
fn as_read(view: &View) -> Document {
    doc! {
        "_id": view.name.as_str(),
        "id": bson::Uuid::from_uuid_1(view.id),
        "revision": signed(view.revision),
    }
}

/// How it is written in the place of what was read.
fn next(view: &View) -> Result<RawDocumentBuf, Error> {
    let mut next = view.clone();
    next.revision += 1;
    encode(&next)
}

fn raw(document: &Document, view: &View) -> Result<RawDocumentBuf, Error> {
    RawDocumentBuf::try_from(document).map_err(|why| undecodable(&view.name, &why))
}

fn undecodable(name: &impl ToString, why: &impl ToString) -> Error {
    Error::Decode {
        what: format!("view {}", name.to_string()),
        why: why.to_string(),
    }
}

#[derive(Serialize, Deserialize)]
struct ViewDocument {
    #[serde(rename = "_id")]
    name: Name,
    v: u32,
    id: bson::Uuid,
    query: Query,
    priority: Priority,
    every_ms: i64,
    state: String,
    datasets: Vec<CoveredDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    merged: Option<MergedDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    under_way: Option<bson::Uuid>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<LeftOutDocument>,
    #[serde(default)]
    failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    created_at: DateTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tried_at: Option<DateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refreshed_at: Option<DateTime>,
    revision: i64,
}

#[derive(Serialize, Deserialize)]
struct CoveredDocument {
    name: Name,
    id: bson::Uuid,
    /// First and one past the last block, of one range after another.
    blocks: Vec<u32>,
    /// Left out where it says nothing, as it always was.
    #[serde(default, skip_serializing_if = "is_none")]
    generation: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(generation: &u32) -> bool {
    *generation == 0
}

#[derive(Serialize, Deserialize)]
struct MergedDocument {
    job: bson::Uuid,
    index: u32,
}

#[derive(Serialize, Deserialize)]
struct LeftOutDocument {
    table: u32,
    dataset: bson::Uuid,
    block: u32,
    why: String,
}

fn encode(view: &View) -> Result<RawDocumentBuf, Error> {
    let covered = view.covered.iter().map(|covered| CoveredDocument {
        name: covered.dataset.clone(),
        id: bson::Uuid::from_uuid_1(covered.id),
        blocks: covered
            .blocks
            .iter()
            .flat_map(|range| [range.start, range.end])
            .collect(),
        generation: covered.generation,
    });
    let left_out = view.left_out.iter().map(|out| LeftOutDocument {
        table: out.table,
        dataset: bson::Uuid::from_uuid_1(out.dataset),
        block: out.block,
        why: out.why.clone(),
    });
    let document = ViewDocument {
        name: view.name.clone(),
        v: FORMAT,
        id: bson::Uuid::from_uuid_1(view.id),
        query: view.query.clone(),
        priority: view.priority,
        every_ms: signed(view.every_ms),
        state: view.state.as_str().to_string(),
        datasets: covered.collect(),
        merged: view.merged.map(|merged| MergedDocument {
            job: schema::uuid(merged.job),
            index: merged.index,
        }),
        under_way: view.under_way.map(schema::uuid),
        left_out: left_out.collect(),
        failures: view.failures,
        error: view.error.clone(),
        created_at: date(view.created_ms),
        tried_at: view.tried_ms.map(date),
        refreshed_at: view.refreshed_ms.map(date),
        revision: signed(view.revision),
    };
    bson::serialize_to_raw_document_buf(&document).map_err(|why| undecodable(&view.name, &why))
}

pub(crate) fn decode(raw: &RawDocument) -> Result<View, Error> {
    let name = raw.get_str("_id").unwrap_or_default();
    schema::check_version(raw, || format!("view {name}"))?;
    let document: ViewDocument =
        bson::deserialize_from_slice(raw.as_bytes()).map_err(|why| undecodable(&name, &why))?;
    let state = ViewState::read(&document.state);
    let ranges = |blocks: Vec<u32>| -> Vec<Range<u32>> {
        blocks.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect()
    };
    let covered = document.datasets.into_iter().map(|covered| Covered {
        dataset: covered.name,
        id: covered.id.to_uuid_1(),
        blocks: ranges(covered.blocks),
        generation: covered.generation,
    });
    let left_out = document.left_out.into_iter().map(|out| LeftOut {
        table: out.table,
        dataset: out.dataset.to_uuid_1(),
        block: out.block,
        why: out.why,
    });
    Ok(View {
        state: state.ok_or_else(|| undecodable(&name, &"it has no known state"))?,
        name: document.name,
        id: document.id.to_uuid_1(),
        query: document.query,
        priority: document.priority,
        every_ms: u64::try_from(document.every_ms).unwrap_or(0),
        covered: covered.collect(),
        merged: document.merged.map(|merged| Merged {
            job: JobId(merged.job.to_uuid_1()),
            index: merged.index,
        }),
        under_way: document.under_way.map(|job| JobId(job.to_uuid_1())),
        left_out: left_out.collect(),
        failures: document.failures,
        error: document.error,
        created_ms: document.created_at.timestamp_millis(),
        tried_ms: document.tried_at.map(DateTime::timestamp_millis),
        refreshed_ms: document.refreshed_at.map(DateTime::timestamp_millis),
        revision: u64::try_from(document.revision).unwrap_or(0),
    })
}
