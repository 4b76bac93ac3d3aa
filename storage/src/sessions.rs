//! Sessions of transactions, known to everybody: a transaction of a process that died holds what it wrote until
//! MongoDB's own limit, a minute by default, and nobody else can write there. Whoever is blocked for long ends the
//! transactions of all others. That harms nobody: one that lives begins its transaction again.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use futures::TryStreamExt;
use mongodb::{ClientSession, error::Error as Driver};

use crate::{
    Store,
    schema::{SESSIONS, date, now_ms},
};

/// How long somebody bears with collisions before ending the transactions of others: many times what one takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// How often a session that is in use says so again.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// Sessions that have not been renewed for this long belong to nobody.
pub(crate) const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

impl Store {
    /// A session that others can end. Dropping it ends its transaction, if the process lives to do so.
    pub(crate) async fn known_session(&self) -> Result<ClientSession, Driver> {
        let session = self.client().start_session().await?;
        let Some(id) = bytes(session.id(), "id") else {
            return Ok(session);
        };
        let is_known = {
            let known = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
            known.get(id).is_some_and(|since| since.elapsed() < RENEWAL)
        };
        if !is_known {
            let filter = doc! { "_id": uuid(id.clone()) };
            let change = doc! { "$set": { "v": i64::from(model::FORMAT), "at": date(now_ms()) } };
            self.documents(SESSIONS)
                .update_one(filter, change)
                .upsert(true)
                .await?;
            let mut known = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(id.clone(), Instant::now());
        }
        Ok(session)
    }

    /// Ends the transactions of all other processes.
    pub(crate) async fn end_other_transactions(&self) -> Result<(), Driver> {
        let all: Vec<Document> = self
            .documents(SESSIONS)
            .find(doc! {})
            .await?
            .try_collect()
            .await?;
        let others: Vec<Document> = {
            let known = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
            let ids = all.iter().filter_map(|session| bytes(session, "_id"));
            ids.filter(|id| !known.contains_key(*id))
                .map(|id| doc! { "id": uuid(id.clone()) })
                .collect()
        };
        if others.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            sessions = others.len(),
            "blocked by the transaction of another: ending those of all others"
        );
        let command = doc! { "killSessions": others };
        self.client().database("admin").run_command(command).await?;
        Ok(())
    }
}

fn bytes<'a>(document: &'a Document, key: &str) -> Option<&'a Vec<u8>> {
    match document.get(key) {
        Some(Bson::Binary(binary)) => Some(&binary.bytes),
        _ => None,
    }
}

fn uuid(bytes: Vec<u8>) -> Binary {
    Binary {
        subtype: BinarySubtype::Uuid,
        bytes,
    }
}
