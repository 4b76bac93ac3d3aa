//! Transactions, begun again until they go through.
//!
//! Promise: each try starts from nothing. One that failed is aborted before the next begins, so that it neither holds what
//! the next one writes nor keeps its session busy.

use std::time::Duration;

use mongodb::{
    ClientSession,
    error::{Error as Driver, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::{Acknowledgment, ReadConcern, TransactionOptions, WriteConcern},
};

use crate::{
    Error, Store,
    error::{INTERRUPTED, code, is_transient, is_unreachable},
};

/// How often a transaction is tried before its error is the caller's: for about five seconds, in which the transactions of
/// the dead are ended too.
pub(crate) const TRIES: u32 = 100;
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What a try of a transaction came to.
pub(crate) enum Step<T> {
    /// Commit it, and give this.
    Commit(T),
    /// Write nothing, and give this.
    Leave(T),
    /// What was read is no longer so: write nothing and begin again. The error is for the last try.
    Again(Error),
}

/// A transaction, from its first try to its last.
///
/// Dropping it half-way writes all or nothing.
pub(crate) struct Transaction<'a> {
    store: &'a Store,
    doing: &'a str,
    /// That of the try that is under way, or of the last one.
    session: Option<ClientSession>,
    /// Whether a try is under way.
    open: bool,
    tries: u32,
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // One with an open transaction is ended by the driver.
        if !self.open
            && let Some(session) = self.session.take()
        {
            self.store.give_back(session);
        }
    }
}

impl Store {
    /// A transaction that is tried within [`Store::patiently`], so that it does not wait for the dead.
    pub(crate) fn transaction<'a>(&'a self, doing: &'a str) -> Transaction<'a> {
        Transaction {
            store: self,
            doing,
            session: None,
            open: false,
            tries: 0,
        }
    }
}

impl Transaction<'_> {
    /// Begins a try, whose writes are to be made in this session. Every try is to be [ended](Self::end).
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub(crate) async fn begin(&mut self) -> Result<&mut ClientSession, Error> {
        let session = match self.session.take() {
            Some(session) => session,
            None => {
                let known = self.store.known_session().await;
                known.map_err(self.store.failed(self.doing))?
            }
        };
        let session = self.session.insert(session);
        let begun = session.start_transaction().with_options(options()).await;
        begun.map_err(self.store.failed(self.doing))?;
        self.open = true;
        Ok(session)
    }

    /// Ends a try as it says; none where another one is to follow, after a pause.
    ///
    /// # Errors
    /// That of the try when it is no conflict with others, or was the last; [`Error::Mongo`] when it can't be committed.
    pub(crate) async fn end<T>(&mut self, step: Result<Step<T>, Error>) -> Result<Option<T>, Error> {
        let Some(mut session) = self.session.take() else {
            return step.map(|_| None);
        };
        self.open = false;
        let mut is_over = true;
        let (is_conflict, error) = match step {
            Ok(Step::Commit(value)) => match commit(&mut session).await {
                Ok(()) => {
                    self.store.give_back(session);
                    return Ok(Some(value));
                }
                Err(error) => (is_transient(&error), self.store.failed(self.doing)(error)),
            },
            Ok(Step::Leave(value)) => {
                abort(&mut session).await;
                self.store.give_back(session);
                return Ok(Some(value));
            }
            Ok(Step::Again(error)) => {
                abort(&mut session).await;
                (true, error)
            }
            Err(error) => {
                // A server that is gone has forgotten it; asking would only take time.
                if error.is_unreachable() {
                    is_over = false;
                    self.store.abandon(&session);
                } else {
                    abort(&mut session).await;
                }
                (error.is_transient(), error)
            }
        };
        self.tries += 1;
        // Else the driver still takes its transaction for begun, and ends it when the session is dropped.
        self.session = is_over.then_some(session);
        if !is_conflict || self.tries >= TRIES {
            return Err(error);
        }
        tokio::time::sleep(pause(self.tries)).await;
        Ok(None)
    }
}

/// Snapshot and majority.
fn options() -> TransactionOptions {
    TransactionOptions::builder()
        .read_concern(ReadConcern::snapshot())
        .write_concern(WriteConcern::builder().w(Acknowledgment::Majority).build())
        .build()
}

/// Commits, again while the server can't say whether that worked: repeating a commit is safe.
async fn commit(session: &mut ClientSession) -> Result<(), Driver> {
    let mut tries = 0;
    loop {
        match session.commit_transaction().await {
            // When the server is gone the driver has tried a second time already.
            Err(error) if tries < TRIES && is_unknown(&error) && !is_unreachable(&error) => {
                tries += 1;
                tokio::time::sleep(pause(tries)).await;
            }
            other => return other,
        }
    }
}

/// Whether a commit may have been done. One that was interrupted, too: the next try tells.
fn is_unknown(error: &Driver) -> bool {
    error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) || code(error) == Some(INTERRUPTED)
}

/// Ends a transaction whose try is over. The server may have done so already; the driver hides what it says.
async fn abort(session: &mut ClientSession) {
    if let Err(error) = session.abort_transaction().await {
        tracing::debug!("can't abort a transaction: {error}");
    }
}

/// How long to wait before try number `tries`: doubling, and different for everybody so that two do not collide again.
pub(crate) fn pause(tries: u32) -> Duration {
    let spread = uuid::Uuid::new_v4().as_bytes()[0];
    let full = Duration::from_millis(2 << tries.min(8)).min(LONGEST_PAUSE);
    full.mul_f64(f64::from(spread) / 255.0)
}
