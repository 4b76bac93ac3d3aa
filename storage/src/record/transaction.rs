//! One try of the transaction, in as few commands as there can be.
//!
//! The jobs' counters come first: a collision with another recorder shows before the documents are sent.

use bson::{Document, RawArrayBuf, RawDocumentBuf, cstr, doc, raw::RawBsonRef, rawdoc};
use model::{Counts, JobId, JobState};
use mongodb::{ClientSession, error::Error as Driver};

use super::{
    ByJob,
    adding::{Standing, increments, projection, sum},
    by_job, check_reply, numbered,
};
use crate::{
    Store,
    fence::statement,
    prepare::Piece,
    schema::{self, FAILURES, JOBS, RESULTS},
};

/// Documents to insert: those of unfinished jobs, failures with their place in the order of their job.
#[derive(Default)]
struct Inserts {
    results: RawArrayBuf,
    failures: RawArrayBuf,
    some_results: bool,
    some_failures: bool,
}

impl Inserts {
    fn add(&mut self, before: &Counts, pieces: &[&Piece]) {
        let mut ordinal = before.again;
        for piece in pieces {
            if piece.is_failure() {
                self.failures.push(numbered(piece, ordinal));
                self.some_failures = true;
                ordinal += piece.adds().again;
            } else {
                self.results.push(RawBsonRef::Document(&piece.document));
                self.some_results = true;
            }
        }
    }
}

impl Store {
    /// Writes ends in a transaction; whether there was anything to write: nothing where every job has ended.
    pub(super) async fn write_ends(
        &self,
        session: &mut ClientSession,
        pieces: &[&Piece],
    ) -> Result<bool, Driver> {
        let jobs = by_job(pieces);
        let inserts = match jobs.iter().next() {
            Some((&job, pieces)) if jobs.len() == 1 => self.count_one(session, job, pieces).await,
            _ => self.count_many(session, &jobs).await,
        }?;
        if inserts.some_results {
            self.insert(session, RESULTS, inserts.results).await?;
        }
        if inserts.some_failures {
            self.insert(session, FAILURES, inserts.failures).await?;
        }
        Ok(inserts.some_results || inserts.some_failures)
    }

    /// Counts the ends of a single job: adding and reading in one command.
    async fn count_one(
        &self,
        session: &mut ClientSession,
        job: JobId,
        pieces: &[&Piece],
    ) -> Result<Inserts, Driver> {
        let added = sum(pieces);
        let command = rawdoc! {
            "findAndModify": JOBS,
            "query": active(RawBsonRef::Binary(schema::raw_uuid(job.0.as_bytes()))),
            "update": { "$inc": increments(&added) },
            "new": false,
            "fields": projection(),
        };
        let reply = self.db().run_raw_command(command).session(&mut *session).await?;
        let Some(before) = reply.get_document("value").ok() else {
            return Ok(Inserts::default());
        };
        let before = RawDocumentBuf::try_from(before).map_err(mongodb::error::Error::from)?;
        let mut inserts = Inserts::default();
        let Some(standing) = Standing::read(&before) else {
            return Ok(inserts);
        };
        let mut after = standing.counts;
        after.add(&added);
        let mut update = RawDocumentBuf::new();
        standing.add_changes(&after, pieces, &mut update);
        if !update.is_empty() {
            let filter = rawdoc! { "_id": schema::uuid_binary(job) };
            let mut statements = RawArrayBuf::new();
            statements.push(statement(&filter, &update, false));
            self.update(session, statements).await?;
        }
        inserts.add(&standing.counts, pieces);
        Ok(inserts)
    }

    /// Counts the ends of many jobs: one command to read, one to add.
    async fn count_many(&self, session: &mut ClientSession, jobs: &ByJob<'_>) -> Result<Inserts, Driver> {
        let mut ids = RawArrayBuf::new();
        for job in jobs.keys() {
            ids.push(schema::raw_uuid(job.0.as_bytes()));
        }
        let wanted = rawdoc! { "$in": ids };
        let filter = Document::try_from(active(RawBsonRef::Document(&wanted)))?;
        let fields = doc! { "blocks": 1, "merges": 1, "state": 1, "counts": 1, "error": 1 };
        // One reply for all of them.
        let size = u32::try_from(jobs.len()).unwrap_or(u32::MAX).saturating_add(1);
        let collection = self.raw(JOBS);
        let find = collection.find(filter).projection(fields).batch_size(size);
        let mut cursor = find.session(&mut *session).await?;
        let mut statements = RawArrayBuf::new();
        let mut inserts = Inserts::default();
        let mut some = false;
        while cursor.advance(session).await? {
            let document = cursor.current();
            let (Some(job), Some(standing)) = (schema::job_id(document, "_id"), Standing::read(document))
            else {
                continue;
            };
            let Some(pieces) = jobs.get(&job) else { continue };
            let mut after = standing.counts;
            let added = sum(pieces);
            after.add(&added);
            let mut update = rawdoc! { "$inc": increments(&added) };
            standing.add_changes(&after, pieces, &mut update);
            statements.push(statement(
                &rawdoc! { "_id": schema::uuid_binary(job) },
                &update,
                false,
            ));
            inserts.add(&standing.counts, pieces);
            some = true;
        }
        if some {
            self.update(session, statements).await?;
        }
        Ok(inserts)
    }

    async fn update(&self, session: &mut ClientSession, statements: RawArrayBuf) -> Result<(), Driver> {
        let command = rawdoc! { "update": JOBS, "updates": statements, "ordered": true };
        check_reply(&self.db().run_raw_command(command).session(session).await?)
    }

    async fn insert(
        &self,
        session: &mut ClientSession,
        collection: &str,
        documents: RawArrayBuf,
    ) -> Result<(), Driver> {
        let command = rawdoc! { "insert": collection, "documents": documents, "ordered": true };
        check_reply(&self.db().run_raw_command(command).session(session).await?)
    }
}

/// The filter for unfinished jobs with this id or these.
fn active(id: RawBsonRef<'_>) -> RawDocumentBuf {
    let states = rawdoc! { "$in": [JobState::Staging.as_str(), JobState::Running.as_str()] };
    let mut filter = RawDocumentBuf::new();
    filter.append(cstr!("_id"), id);
    filter.append(cstr!("state"), states);
    filter
}
