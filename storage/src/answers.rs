//! Answers as documents, one per row: in `rows` by job, or in a collection of their own that is replaced as a whole.

use std::{collections::HashSet, future::IntoFuture as _};

use bson::{Binary, Bson, DateTime, Decimal128, Document, RawDocumentBuf, doc, spec::BinarySubtype};
use model::{
    JobId, JobState,
    answer::{Rows, Value},
};
use mongodb::{ClientSession, error::Error as Driver};

use crate::{
    Error, Store,
    error::code,
    jobs::states,
    made::not_ours,
    schema::{self, ALL, JOBS, NAMESPACE_EXISTS, ROWS},
    transaction::Step,
};

/// Bytes of documents in one command; MongoDB takes 48 MB.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Documents in one command.
const BATCH: usize = 10_000;
/// What the names of collections begin with while they are filled.
const FILLING: &str = "filling_";
/// Longest name of a collection, in bytes: the name of the database stands before it, and both have 255.
const NAME_BYTES: usize = 120;
/// MongoDB's code for "there is no such collection".
const NAMESPACE_NOT_FOUND: i32 = 26;

/// A run of a merge: a later one has a higher attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeRun {
    /// Of which job.
    pub job: JobId,
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// Checks that an answer can be kept in a collection of this name: none of Sawmill's own, none that MongoDB forbids.
///
/// # Errors
/// [`Error::BadCollection`].
pub fn check_collection(name: &str) -> Result<(), Error> {
    let why = if ALL.contains(&name) {
        "Sawmill itself uses it"
    } else if name.starts_with("system.") || name.starts_with(FILLING) {
        "names that begin so are reserved"
    } else if name.is_empty() || name.len() > NAME_BYTES {
        "it must have 1 to 120 bytes"
    } else if name.contains(['$', '\0']) || name.starts_with('.') || name.ends_with('.') {
        "it must not contain $ or NUL, nor begin or end with a dot"
    } else {
        return Ok(());
    };
    Err(Error::BadCollection {
        name: name.to_string(),
        why,
    })
}

impl Store {
    /// Keeps an answer in `rows`, in one transaction, in the place of what an earlier run of this merge has kept there.
    /// Tells whether it did: false when a later run has, or the job has ended.
    ///
    /// For answers that fit into a transaction: see [`model::answer::KEPT_ROWS`].
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`] for a row that is no document; then nothing is changed.
    pub async fn keep_rows(&self, run: MergeRun, rows: Rows) -> Result<bool, Error> {
        let fields = Fields::new(rows.columns, &["_id", "job"]);
        let documents: Result<Vec<_>, Error> = (0..)
            .zip(rows.rows)
            .map(|(number, row)| {
                let key = schema::key(&schema::result_key(run.job, number));
                fields.document(doc! { "_id": key, "job": schema::uuid(run.job) }, row)
            })
            .collect();
        let documents = documents?;
        let doing = "keeping the rows of an answer";
        let keeping = async {
            let mut transaction = self.transaction(doing);
            loop {
                let tried = self.keep_once(transaction.begin().await?, run, &documents).await;
                if let Some(kept) = transaction.end(tried.map_err(self.failed(doing))).await? {
                    return Ok(kept);
                }
            }
        };
        self.patiently(keeping).await
    }

    async fn keep_once(
        &self,
        session: &mut ClientSession,
        run: MergeRun,
        documents: &[RawDocumentBuf],
    ) -> Result<Step<bool>, Driver> {
        let jobs = self.documents(JOBS);
        let (first, later) = (fence(run, true), fence(run, false));
        let mine = doc! { "$set": { "answer_attempt": i64::from(run.attempt) } };
        let begun = jobs
            .update_one(first, mine.clone())
            .session(&mut *session)
            .await?;
        if begun.matched_count == 0 {
            let begun = jobs.update_one(later, mine).session(&mut *session).await?;
            if begun.matched_count == 0 {
                return Ok(Step::Leave(false));
            }
            self.documents(ROWS)
                .delete_many(doc! { "job": schema::uuid(run.job) })
                .session(&mut *session)
                .await?;
        }
        if !documents.is_empty() {
            self.raw(ROWS).insert_many(documents).session(session).await?;
        }
        Ok(Step::Commit(true))
    }

    /// Replaces the collection `name` of this database by `rows`, as a whole: who reads sees the old rows or the new
    /// ones. One that Sawmill did not make is not replaced. `filling` names this replacement among all that may go on, as in `job-attempt`; `go_ahead` is asked when all
    /// is written, before the old rows are replaced. Gives the number of rows, none when it must not go ahead.
    ///
    /// Each row has its number, from 0, as `_id`. Indexes that somebody made on the old collection go with it. Dropping
    /// it half-way leaves a collection that is swept once its job has ended.
    ///
    /// # Errors
    /// [`Error::BadCollection`], [`Error::Taken`], [`Error::Mongo`], [`Error::Decode`] for a row that is no document.
    pub async fn replace_collection(
        &self,
        name: &str,
        filling: &str,
        rows: Rows,
        go_ahead: impl Future<Output = Result<bool, Error>>,
    ) -> Result<Option<u64>, Error> {
        check_collection(name)?;
        self.check_replaceable(name).await?;
        let filling = format!("{FILLING}{filling}");
        let doing = || format!("filling the collection {name}");
        let new = self.raw(&filling);
        new.drop().await.map_err(self.failed(doing()))?;
        // An answer may have no rows.
        let made = self.db().create_collection(&filling).await;
        made.map_err(self.failed(doing()))?;
        self.mark_made(&filling).await?;
        let fields = Fields::new(rows.columns, &["_id"]);
        let (mut batch, mut bytes, mut count) = (Vec::new(), 0, 0_i64);
        for row in rows.rows {
            let document = fields.document(doc! { "_id": count }, row)?;
            count += 1;
            bytes += document.as_bytes().len();
            batch.push(document);
            if batch.len() == BATCH || bytes >= BATCH_BYTES {
                let full = std::mem::take(&mut batch);
                bytes = 0;
                new.insert_many(full).await.map_err(self.failed(doing()))?;
            }
        }
        if !batch.is_empty() {
            new.insert_many(batch).await.map_err(self.failed(doing()))?;
        }
        if !go_ahead.await? {
            new.drop().await.map_err(self.failed(doing()))?;
            return Ok(None);
        }
        // Somebody may have made one meanwhile.
        let replaces = match self.check_replaceable(name).await {
            Ok(replaces) => replaces,
            Err(error) => {
                new.drop().await.map_err(self.failed(doing()))?;
                return Err(error);
            }
        };
        let place = |collection: &str| format!("{}.{collection}", self.database());
        let rename = doc! {
            "renameCollection": place(&filling),
            "to": place(name),
            // Where there was none and somebody makes one at this moment, MongoDB refuses.
            "dropTarget": replaces,
            "writeConcern": { "w": "majority" },
        };
        match self.client().database("admin").run_command(rename).await {
            Err(error) if code(&error) == Some(NAMESPACE_EXISTS) => return Err(not_ours(name)),
            renamed => drop(renamed.map_err(self.failed(format!("replacing the collection {name}")))?),
        }
        Ok(Some(u64::try_from(count).unwrap_or(0)))
    }

    /// Replaces the collection `name` by the answer of a job, unless a later run of its merge is about to, or has. Gives
    /// the number of rows, none when it must not be replaced.
    ///
    /// # Errors
    /// As [`Store::replace_collection`].
    pub async fn keep_collection(&self, name: &str, run: MergeRun, rows: Rows) -> Result<Option<u64>, Error> {
        let filling = format!("{}-{}", run.job, run.attempt);
        let is_latest = async {
            let mine = doc! { "$set": { "answer_attempt": i64::from(run.attempt) } };
            let jobs = self.documents(JOBS);
            let asking = jobs.update_one(fence(run, false), mine);
            let latest = self.patiently(asking.into_future()).await;
            let latest = latest.map_err(self.failed("looking whether this answer is the latest"))?;
            Ok(latest.matched_count > 0)
        };
        self.replace_collection(name, &filling, rows, is_latest).await
    }

    /// Removes what runs of the merge of a job that has ended have not put in place: from then on none of them can, however
    /// late it comes.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn end_filling(&self, job: JobId) -> Result<(), Error> {
        for name in self.filling(&format!("{FILLING}{job}-")).await? {
            self.drop_filling(&name).await?;
        }
        Ok(())
    }

    async fn filling(&self, beginning: &str) -> Result<Vec<String>, Error> {
        let filling = doc! { "name": { "$regex": format!("^{beginning}") } };
        let names = self.db().list_collection_names().filter(filling).await;
        names.map_err(self.failed("looking for collections that were being filled"))
    }

    async fn drop_filling(&self, name: &str) -> Result<(), Error> {
        match self.documents(name).drop().await {
            Err(error) if code(&error) == Some(NAMESPACE_NOT_FOUND) => Ok(()),
            dropped => dropped.map_err(self.failed("sweeping collections")),
        }
    }

    /// Removes the collections that were being filled for jobs that have ended, or are gone.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`].
    pub(crate) async fn sweep_filling(&self) -> Result<(), Error> {
        for name in self.filling(FILLING).await? {
            // A UUID has 36 characters.
            let job = name
                .strip_prefix(FILLING)
                .and_then(|rest| rest.get(..36)?.parse().ok());
            let Some(job) = job else { continue };
            if self.job(job).await?.is_some_and(|job| !job.state.is_final()) {
                continue;
            }
            self.drop_filling(&name).await?;
        }
        Ok(())
    }
}

/// The job while it runs and no later run of its merge has kept its answer; for the `first`, no other run at all.
fn fence(run: MergeRun, first: bool) -> Document {
    let attempt = if first {
        doc! { "$exists": false }
    } else {
        doc! { "$not": { "$gt": i64::from(run.attempt) } }
    };
    doc! {
        "_id": schema::uuid(run.job),
        "state": { "$in": states(&[JobState::Staging, JobState::Running]) },
        "answer_attempt": attempt,
    }
}

/// The names of the fields of rows.
struct Fields(Vec<String>);

impl Fields {
    /// Names that `find` and other programs can use: a dot would be a path, a `$` in front an operator, and of two equal
    /// ones only the last would be found. The later of equal names gets a number, also where it meets one of `taken`.
    fn new(columns: Vec<String>, taken: &[&str]) -> Self {
        let mut used: HashSet<String> = taken.iter().map(ToString::to_string).collect();
        let mut fresh = |name: String| {
            let plain = plain(&name);
            let mut field = plain.clone();
            let mut number = 2;
            while !used.insert(field.clone()) {
                field = format!("{plain}_{number}");
                number += 1;
            }
            field
        };
        Self(columns.into_iter().map(&mut fresh).collect())
    }

    fn document(&self, mut head: Document, row: Vec<Value>) -> Result<RawDocumentBuf, Error> {
        for (field, value) in self.0.iter().zip(row) {
            head.insert(field.clone(), bson(value));
        }
        RawDocumentBuf::try_from(&head).map_err(|why| Error::Decode {
            what: "a row of an answer".into(),
            why: why.to_string(),
        })
    }
}

fn plain(name: &str) -> String {
    let mut plain: String = name
        .chars()
        .map(|c| if matches!(c, '.' | '\0') { '_' } else { c })
        .collect();
    if plain.starts_with('$') {
        plain.replace_range(..1, "_");
    }
    if plain.is_empty() {
        plain.push('_');
    }
    plain
}

fn bson(value: Value) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Boolean(value) => value.into(),
        Value::Integer(value) => value.into(),
        Value::Float(value) => value.into(),
        // MongoDB's decimals have 34 digits.
        Value::Decimal(digits) => match digits.parse::<Decimal128>() {
            Ok(decimal) => Bson::Decimal128(decimal),
            Err(_) => Bson::String(digits),
        },
        Value::Text(text) => text.into(),
        Value::Bytes(bytes) => Bson::Binary(Binary {
            subtype: BinarySubtype::Generic,
            bytes,
        }),
        Value::Date(ms) => DateTime::from_millis(ms).into(),
        Value::List(values) => Bson::Array(values.into_iter().map(bson).collect()),
        Value::Struct(parts) => {
            let (names, values): (Vec<String>, Vec<Value>) = parts.into_iter().unzip();
            let fields = Fields::new(names, &[]);
            Bson::Document(fields.0.into_iter().zip(values.into_iter().map(bson)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_can_be_used_by_programs() {
        let columns = [
            "status",
            "sum(t.bytes)",
            "$x",
            "",
            "job",
            "status",
            "a_b",
            "a.b",
            "_id",
        ];
        let fields = Fields::new(columns.map(String::from).to_vec(), &["_id", "job"]);
        let expected = [
            "status",
            "sum(t_bytes)",
            "_x",
            "_",
            "job_2",
            "status_2",
            "a_b",
            "a_b_2",
            "_id_2",
        ];
        assert_eq!(fields.0, expected);
    }

    #[test]
    fn own_and_impossible_collections_are_refused() {
        for good in ["top_paths", "Top Paths", "a.b"] {
            assert!(check_collection(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "jobs",
            "rows",
            "system.views",
            "filling_x",
            "a$b",
            ".a",
            &"x".repeat(121),
        ] {
            assert!(check_collection(bad).is_err(), "{bad}");
        }
    }
}
