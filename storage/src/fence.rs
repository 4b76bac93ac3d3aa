//! Writes of the leading dispatcher that are worth nothing once another has taken office.
//!
//! The transaction also *writes* the leader's document: reading it would not conflict with a successor who takes
//! office at the same time (snapshot isolation allows that), writing it does.

use bson::{Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use mongodb::{ClientSession, error::Error as Driver};

use crate::{
    Epoch, Error, Store,
    schema::{self, JOBS, LEADER, signed},
    transaction::Step,
};

/// The leader's document.
pub(crate) const DISPATCHER: &str = "dispatcher";

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
        let writing = async {
            let mut transaction = self.transaction(doing);
            loop {
                let tried = self
                    .fenced_once(transaction.begin().await?, epoch, commands)
                    .await;
                if let Some(written) = transaction.end(tried.map_err(self.failed(doing))).await? {
                    return written.ok_or(Error::Deposed { epoch: epoch.0 });
                }
            }
        };
        self.patiently(writing).await
    }

    /// One try; none where the epoch is over.
    async fn fenced_once(
        &self,
        session: &mut ClientSession,
        epoch: Epoch,
        commands: &[RawDocumentBuf],
    ) -> Result<Step<Option<u64>>, Driver> {
        let mine = doc! { "_id": DISPATCHER, "epoch": signed(epoch.0) };
        let touch = doc! { "$inc": { "writes": 1_i64 } };
        let leader = self
            .documents(LEADER)
            .update_one(mine, touch)
            .session(&mut *session)
            .await?;
        if leader.matched_count == 0 {
            return Ok(Step::Leave(None));
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
                return Ok(Step::Leave(Some(0)));
            }
        }
        Ok(Step::Commit(Some(changed.unwrap_or(0))))
    }
}

/// How many documents a write has changed; only updates tell those from the ones that they found.
fn changed_by(reply: &Document) -> u64 {
    let number = |key: &str| schema::number(reply.get(key)).and_then(|number| u64::try_from(number).ok());
    number("nModified").or_else(|| number("n")).unwrap_or(0)
}
