//! Writes of the leading dispatcher that are worth nothing once another has taken office.
//!
//! The transaction also *writes* the leader's document: reading it would not conflict with a successor who takes
//! office at the same time (snapshot isolation allows that), writing it does.

use std::time::Duration;

use bson::{Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use mongodb::{
    ClientSession,
    error::{Error as Driver, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::{Acknowledgment, ReadConcern, TransactionOptions, WriteConcern},
};

use crate::{
    Epoch, Error, Store,
    error::{is_transient, is_unreachable},
    schema::{self, JOBS, LEADER, signed},
};

/// The leader's document.
pub(crate) const DISPATCHER: &str = "dispatcher";
/// How often a transaction is tried before its error is the caller's.
const TRIES: u32 = 100;
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Snapshot and majority.
pub(crate) fn transaction_options() -> TransactionOptions {
    TransactionOptions::builder()
        .read_concern(ReadConcern::snapshot())
        .write_concern(WriteConcern::builder().w(Acknowledgment::Majority).build())
        .build()
}

/// Commits, again while the server can't say whether that worked: repeating a commit is safe.
pub(crate) async fn commit(session: &mut ClientSession) -> Result<(), Driver> {
    let mut tries = 0;
    loop {
        match session.commit_transaction().await {
            // When the server is gone the driver has tried a second time already.
            Err(error)
                if tries < TRIES
                    && error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
                    && !is_unreachable(&error) =>
            {
                tries += 1;
                tokio::time::sleep(pause(tries)).await;
            }
            other => return other,
        }
    }
}

/// How long to wait before try number `tries`: doubling, and different for everybody so that two do not collide again.
pub(crate) fn pause(tries: u32) -> Duration {
    let spread = uuid::Uuid::new_v4().as_bytes()[0];
    let full = Duration::from_millis(2 << tries.min(8)).min(LONGEST_PAUSE);
    full.mul_f64(f64::from(spread) / 255.0)
}

/// A statement of a raw `update` command.
pub(crate) fn statement(filter: &RawDocumentBuf, update: &RawDocumentBuf, multi: bool) -> RawDocumentBuf {
    rawdoc! { "q": filter.clone(), "u": update.clone(), "multi": multi }
}

impl Store {
    /// Runs `statements` on the jobs in one transaction if `epoch` is still the leader's; gives how many documents
    /// changed.
    ///
    /// # Errors
    /// [`Error::Deposed`] when it is not (nothing is written), [`Error::Mongo`].
    pub(crate) async fn fenced(
        &self,
        epoch: Epoch,
        doing: &str,
        statements: RawArrayBuf,
    ) -> Result<u64, Error> {
        let command = rawdoc! { "update": JOBS, "updates": statements, "ordered": true };
        self.fenced_commands(epoch, doing, &[command]).await
    }

    /// The same with any writes, one after another; gives how many documents the first of them changed. Where it changes
    /// none, nothing is written.
    ///
    /// # Errors
    /// As [`Store::fenced`].
    pub(crate) async fn fenced_commands(
        &self,
        epoch: Epoch,
        doing: &str,
        commands: &[RawDocumentBuf],
    ) -> Result<u64, Error> {
        self.patiently(self.fenced_at_last(epoch, doing, commands)).await
    }

    async fn fenced_at_last(
        &self,
        epoch: Epoch,
        doing: &str,
        commands: &[RawDocumentBuf],
    ) -> Result<u64, Error> {
        let mut session = self.known_session().await.map_err(self.failed(doing))?;
        let mut tries = 0;
        loop {
            match self.fenced_once(&mut session, epoch, commands).await {
                Ok(Some(changed)) => return Ok(changed),
                Ok(None) => return Err(Error::Deposed { epoch: epoch.0 }),
                Err(error) if tries < TRIES && is_transient(&error) => tries += 1,
                Err(error) => return Err(self.failed(doing)(error)),
            }
            tokio::time::sleep(pause(tries)).await;
        }
    }

    async fn fenced_once(
        &self,
        session: &mut ClientSession,
        epoch: Epoch,
        commands: &[RawDocumentBuf],
    ) -> Result<Option<u64>, Driver> {
        session
            .start_transaction()
            .with_options(transaction_options())
            .await?;
        let mine = doc! { "_id": DISPATCHER, "epoch": signed(epoch.0) };
        let touch = doc! { "$inc": { "writes": 1_i64 } };
        let leader = self
            .documents(LEADER)
            .update_one(mine, touch)
            .session(&mut *session)
            .await?;
        if leader.matched_count == 0 {
            session.abort_transaction().await?;
            return Ok(None);
        }
        let mut changed = None;
        for command in commands {
            let reply = self
                .db()
                .run_raw_command(command.clone())
                .session(&mut *session)
                .await?;
            crate::record::check_reply(&reply)?;
            let first = *changed.get_or_insert_with(|| changed_by(&reply));
            if first == 0 && commands.len() > 1 {
                session.abort_transaction().await?;
                return Ok(Some(0));
            }
        }
        commit(session).await?;
        Ok(Some(changed.unwrap_or(0)))
    }
}

/// How many documents a write has changed; only updates tell those from the ones that they found.
fn changed_by(reply: &Document) -> u64 {
    let number = |key: &str| schema::number(reply.get(key)).and_then(|number| u64::try_from(number).ok());
    number("nModified").or_else(|| number("n")).unwrap_or(0)
}
