//! Outputs too large for a document: objects in the block store that documents refer to.
//!
//! An object is written and synced before a document names it. What an attempt wrote and nobody recorded is swept by
//! [`Store::sweep`].

use std::{collections::HashSet, fs::File};

use bson::doc;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use model::{JobId, JobState, Output};
use object_store::{ObjectStore, ObjectStoreExt, buffered::BufWriter, path::Path as Key};
use uuid::Uuid;

use crate::{
    BlockReader, Error, Store,
    error::{DUPLICATE_KEY, code},
    objects,
    rows::Query,
    schema::{self, JOBS, META, RESULTS},
};

/// What to keep.
#[derive(Debug)]
pub enum Spill {
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// A file from where it stands to its end.
    File(File),
}

/// The folder of all outputs; below it one of each database, and below that one of each job.
const OUTPUTS: &str = "outputs";
/// The beginning of the names of small tables that travel with a job: nothing but the job names them.
const TABLE: &str = "table-";
/// How long an object that nothing names is left alone, in milliseconds: it may be about to be named.
const GRACE_MS: i64 = 3_600_000;

impl Store {
    /// The folder of this database's outputs. Named by its identity, so that mills which share a block store sweep nothing
    /// of each other.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`].
    async fn outputs_folder(&self) -> Result<String, Error> {
        Ok(format!("{OUTPUTS}/{}", self.mill().await?))
    }

    /// The identity of this mill, a UUID: its database is given it once, and a backup of that has it too.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`].
    pub async fn mill(&self) -> Result<&str, Error> {
        let find = || async {
            let mine = doc! { "_id": "identity" };
            let fresh = doc! { "$setOnInsert": { "v": i64::from(model::FORMAT), "mill": Uuid::now_v7().to_string() } };
            let meta = self.documents(META);
            match meta.update_one(mine.clone(), fresh).upsert(true).await {
                // Somebody else gave it one at the same time.
                Err(error) if code(&error) == Some(DUPLICATE_KEY) => {}
                given => drop(given.map_err(self.failed("writing meta"))?),
            }
            let found = meta.find_one(mine).await.map_err(self.failed("reading meta"))?;
            let mill = found.and_then(|found| found.get_str("mill").ok().map(str::to_owned));
            let mill = mill.ok_or_else(|| Error::Decode {
                what: "meta".into(),
                why: "the identity of the database is missing".into(),
            })?;
            Ok(mill)
        };
        self.mill_cell().get_or_try_init(find).await.map(String::as_str)
    }

    /// The identity that the database has at this moment, whatever [`Store::mill`] remembers; none where it has none.
    pub(crate) async fn mill_now(&self) -> Result<Option<String>, Error> {
        let found = self.documents(META).find_one(doc! { "_id": "identity" }).await;
        let found = found.map_err(self.failed("reading meta"))?;
        Ok(found.and_then(|found| found.get_str("mill").ok().map(str::to_owned)))
    }

    /// Keeps an output under the folder of its job, synced; `name` must be unique within the job (index and attempt make
    /// it so). The same name again replaces it. Dropping it half-way leaves nothing, or parts that the store expires.
    ///
    /// # Errors
    /// [`Error::Object`], [`Error::Io`].
    pub async fn put_output(&self, job: JobId, name: &str, what: Spill) -> Result<Output, Error> {
        let object = format!("{}/{job}/{}", self.outputs_folder().await?, Key::from(name));
        let key = self.root().key(&object);
        let failed = |source| self.unwritable(&object, source);
        let length = match what {
            Spill::Bytes(bytes) => {
                let length = bytes.len() as u64;
                self.root()
                    .store()
                    .put(&key, Bytes::from(bytes).into())
                    .await
                    .map_err(failed)?;
                length
            }
            Spill::File(file) => {
                let mut writer = BufWriter::new(self.root().store().clone(), key);
                let copied = tokio::io::copy(&mut tokio::fs::File::from_std(file), &mut writer).await;
                let written = match copied {
                    Ok(length) => tokio::io::AsyncWriteExt::shutdown(&mut writer)
                        .await
                        .map(|()| length),
                    Err(error) => {
                        // The first error tells more than what becomes of the rest.
                        let _ = writer.abort().await;
                        Err(error)
                    }
                };
                let failed = |source| Error::Io {
                    doing: "can't write",
                    path: self.root().url(&object).into(),
                    source,
                };
                written.map_err(failed)?
            }
        };
        Ok(Output::Stored {
            object,
            start: 0,
            length,
        })
    }

    /// Keeps a small table that travels with a job, as long as the outputs of the job; `number` is its own among those of
    /// the job.
    ///
    /// # Errors
    /// As [`Store::put_output`].
    pub async fn put_table(&self, job: JobId, number: usize, bytes: Vec<u8>) -> Result<Output, Error> {
        let name = format!("{TABLE}{number}");
        self.put_output(job, &name, Spill::Bytes(bytes)).await
    }

    /// Opens an output for reading, wherever it is.
    ///
    /// # Errors
    /// [`Error::Object`], [`Error::Io`], [`Error::BadUrl`].
    pub async fn read_output(&self, output: &Output) -> Result<BlockReader, Error> {
        match output {
            Output::Inline(payload) => Ok(BlockReader::bytes(payload.0.clone())),
            Output::Stored {
                object,
                start,
                length,
            } => {
                let range = *start..start.saturating_add(*length);
                let key = self.root().key(object);
                objects::fetch(&**self.root().store(), &key, range, &self.root().url(object)).await
            }
        }
    }

    /// Removes what was spilled of a job; gives how many objects.
    ///
    /// # Errors
    /// [`Error::Object`]; some may be gone.
    pub async fn delete_job_outputs(&self, job: JobId) -> Result<u64, Error> {
        let of_job = format!("{}/{job}", self.outputs_folder().await?);
        let folder = self.root().key(&of_job);
        let listed: Vec<Key> = self
            .root()
            .store()
            .list(Some(&folder))
            .map_ok(|meta| meta.location)
            .try_collect()
            .await
            .map_err(|source| self.unwritable(&of_job, source))?;
        self.delete_keys(listed).await
    }

    /// Removes the objects that nothing names: of jobs that are gone or have lost their results, and of lost attempts
    /// of jobs that have ended; the tables that came with a job or a view stay with it. Objects younger than an hour, and all of unfinished jobs, stay. Gives how many.
    ///
    /// # Errors
    /// [`Error::Object`], [`Error::Mongo`].
    pub async fn sweep(&self, now_ms: i64) -> Result<u64, Error> {
        let outputs = self.outputs_folder().await?;
        let outputs = outputs.as_str();
        let (_, views) = self.needed_by_views().await?;
        let failed = |source| self.unwritable(outputs, source);
        let folder = self.root().key(outputs);
        let jobs = self
            .root()
            .store()
            .list_with_delimiter(Some(&folder))
            .await
            .map_err(failed)?;
        let mut swept = 0;
        for prefix in jobs.common_prefixes {
            let Some(job) = prefix.filename().and_then(|name| name.parse::<JobId>().ok()) else {
                continue;
            };
            if views.contains(&job) {
                continue;
            }
            let found = self.find_by_id(JOBS, schema::uuid(job), "sweeping").await?;
            let state = found.map(|job| {
                job.get_str("state")
                    .ok()
                    .and_then(|state| state.parse::<JobState>().ok())
            });
            // A state that can't be read is no leave to delete.
            if state.is_some_and(|state| !state.is_some_and(JobState::is_final)) {
                continue;
            }
            let named = if state.is_some() {
                self.named_objects(job).await?
            } else {
                HashSet::new()
            };
            let mut unnamed = Vec::new();
            let mut objects = self.root().store().list(Some(&prefix));
            while let Some(meta) = objects.try_next().await.map_err(failed)? {
                let is_table = meta
                    .location
                    .filename()
                    .is_some_and(|name| name.starts_with(TABLE));
                let is_named = self
                    .root()
                    .object(&meta.location)
                    .is_some_and(|object| named.contains(&object) || (is_table && state.is_some()));
                if !is_named && meta.last_modified.timestamp_millis() < now_ms - GRACE_MS {
                    unnamed.push(meta.location);
                }
            }
            swept += self.delete_keys(unnamed).await?;
        }
        Ok(swept)
    }

    /// The objects that the results of a job refer to.
    async fn named_objects(&self, job: JobId) -> Result<HashSet<String>, Error> {
        let mut filter = schema::all_of(job, 20);
        filter.insert("stored", doc! { "$exists": true });
        let mut rows = self
            .find(Query::new(RESULTS, "sweeping", filter).fields(&["stored"]))
            .await?;
        let mut named = HashSet::new();
        while let Some(document) = rows.next().await? {
            let stored = document.get_document("stored").ok();
            named.extend(
                stored
                    .and_then(|stored| stored.get_str("object").ok())
                    .map(str::to_string),
            );
        }
        Ok(named)
    }

    /// Deletes objects of the block store; gives how many there were.
    pub(crate) async fn delete_keys(&self, keys: Vec<Key>) -> Result<u64, Error> {
        let mut deleted = 0;
        let keys = futures::stream::iter(keys.into_iter().map(Ok)).boxed();
        let mut done = self.root().store().delete_stream(keys);
        while let Some(one) = done.next().await {
            match one {
                Ok(_) => deleted += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(self.unwritable(OUTPUTS, source)),
            }
        }
        Ok(deleted)
    }

    /// Gives `user` a copy of its own of an output of another job. Where that fails the reference is shared, which lasts
    /// as long as the other job's results.
    pub(crate) async fn copy_output(&self, output: &Output, user: JobId, source: (JobId, u32)) -> Output {
        let Output::Stored {
            object,
            start,
            length,
        } = output
        else {
            return output.clone();
        };
        let Ok(outputs) = self.outputs_folder().await else {
            return output.clone();
        };
        let copy = format!("{outputs}/{user}/from-{}-{}", source.0, source.1);
        let (from, to) = (self.root().key(object), self.root().key(&copy));
        match self.root().store().copy(&from, &to).await {
            Ok(()) => Output::Stored {
                object: copy,
                start: *start,
                length: *length,
            },
            Err(error) => {
                tracing::warn!(%error, object, "can't copy a reused output, so it is shared with its job");
                output.clone()
            }
        }
    }

    fn unwritable(&self, object: &str, source: object_store::Error) -> Error {
        Error::Object {
            doing: "can't change",
            url: self.root().url(object),
            source: Box::new(source),
        }
    }
}
