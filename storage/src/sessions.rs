//! Writes that do not wait for the dead: a transaction of a process that died, or froze, holds what it wrote until
//! MongoDB's own limit, a minute by default, and whoever wants to write there waits or fails.
//!
//! The sessions of transactions are known to everybody, by process. Whoever is held up says so, again and again; after a
//! while it ends the transactions of those processes that say nothing. That harms nobody who lives: one that is not
//! held up begins its transaction again. Those that are held up themselves are spared, since ending a transaction may
//! have to wait for the statement that it is in. Ending a session ends its cursors too, so sessions of transactions are
//! used for nothing else: they do not go back to where the driver takes those of reads from.
//!
//! Where MongoDB does not let its user end sessions, the wait is MongoDB's own limit.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::PoisonError,
    time::{Duration, Instant},
};

use bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use futures::TryStreamExt;
use mongodb::{
    ClientSession,
    error::Error as Driver,
    options::{Acknowledgment, ReadConcern, WriteConcern},
};

use crate::{
    Store,
    error::{code, is_unreachable},
    schema::SESSIONS,
};

/// How long a write is under way before its process says that it is held up: longer than most take.
const FIRST_SIGN: Duration = Duration::from_millis(100);
/// How often it says so again.
const SIGN_INTERVAL: Duration = Duration::from_millis(250);
/// How long somebody is held up before looking for the dead: many times what a transaction takes.
const PATIENCE: Duration = Duration::from_millis(300);
/// A process that gives no sign for this long, in which three are due, is not held up, or dead.
const SILENCE: Duration = Duration::from_millis(700);
/// How often a session that is in use is written down again.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// Sessions that have not been renewed for this long belong to nobody.
pub(crate) const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// The sessions of this process.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// Names the process in MongoDB.
    holder: bson::Uuid,
    /// Since when each is written down there.
    known: HashMap<Vec<u8>, Instant>,
    /// Those that no transaction uses now.
    spare: Vec<ClientSession>,
    /// Those whose transaction could not be aborted, as MongoDB did not answer: it may hold documents still.
    abandoned: Vec<Vec<u8>>,
    /// Whether it was told that this process can't end those of others.
    told: bool,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            holder: bson::Uuid::new(),
            known: HashMap::new(),
            spare: Vec::new(),
            abandoned: Vec::new(),
            told: false,
        }
    }
}

/// Signs of the other processes, and when they were read.
struct Signs {
    at: Instant,
    by_holder: HashMap<Vec<u8>, i64>,
}

impl Store {
    /// A session that others can end. Dropping it ends its transaction, if the process lives to do so.
    pub(crate) async fn known_session(&self) -> Result<ClientSession, Driver> {
        self.end_abandoned().await?;
        let spare = {
            let mut own = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
            own.spare.pop()
        };
        let session = match spare {
            Some(session) => session,
            // Transactions read with majority and do not follow one another.
            None => self.client().start_session().causal_consistency(false).await?,
        };
        let Some(id) = bytes(session.id(), "id") else {
            return Ok(session);
        };
        let (holder, is_known) = {
            let own = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
            let since = own.known.get(id);
            (own.holder, since.is_some_and(|since| since.elapsed() < RENEWAL))
        };
        if !is_known {
            let change = doc! {
                "$set": { "v": i64::from(model::FORMAT) },
                "$currentDate": { "at": true },
                "$addToSet": { "sessions": uuid(id.clone()) },
            };
            self.documents(SESSIONS)
                .update_one(doc! { "_id": holder }, change)
                .upsert(true)
                .await?;
            let mut own = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
            own.known.insert(id.clone(), Instant::now());
        }
        Ok(session)
    }

    /// Has a transaction ended, once MongoDB answers, that could not be aborted.
    pub(crate) fn abandon(&self, session: &ClientSession) {
        let mut own = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
        own.abandoned.extend(bytes(session.id(), "id").cloned());
    }

    async fn end_abandoned(&self) -> Result<(), Driver> {
        let abandoned = {
            let own = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
            own.abandoned.clone()
        };
        if abandoned.is_empty() {
            return Ok(());
        }
        let sessions = abandoned.iter().map(|id| doc! { "id": uuid(id.clone()) });
        match self.kill_sessions(sessions.collect()).await {
            Err(error) if is_unreachable(&error) => return Err(error),
            // MongoDB ends them by itself after a while; nothing is held up for that.
            Err(error) => tracing::debug!("can't end transactions that could not be aborted: {error}"),
            Ok(_) => {}
        }
        let mut own = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
        own.abandoned.retain(|id| !abandoned.contains(id));
        Ok(())
    }

    /// Ends sessions with their transactions; whether this user may do that.
    async fn kill_sessions(&self, sessions: Vec<Document>) -> Result<bool, Driver> {
        let command = doc! { "killSessions": sessions };
        match self.client().database("admin").run_command(command).await {
            Ok(_) => Ok(true),
            Err(error) if code(&error).is_some_and(is_forbidden) => {
                self.tell_forbidden(&error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps a session whose transaction is over for the next one.
    pub(crate) fn give_back(&self, session: ClientSession) {
        let mut own = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
        own.spare.push(session);
    }

    /// Carries a write out, and when it is held up sees to it that the dead do not hold it.
    pub(crate) async fn patiently<T>(&self, write: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = write => done,
            never = self.while_held_up() => match never {},
        }
    }

    async fn while_held_up(&self) -> Infallible {
        let begun = Instant::now();
        let mut signs = None;
        let mut pause = FIRST_SIGN;
        loop {
            tokio::time::sleep(pause).await;
            pause = SIGN_INTERVAL;
            let done = match self.give_sign().await {
                Ok(()) if begun.elapsed() >= PATIENCE => self.end_silent_transactions(&mut signs).await,
                other => other,
            };
            if let Err(failure) = done {
                tracing::debug!("can't look for transactions of the dead: {failure}");
            }
        }
    }

    async fn give_sign(&self) -> Result<(), Driver> {
        let holder = {
            let own = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
            if own.known.is_empty() {
                return Ok(());
            }
            own.holder
        };
        let sign = doc! { "$inc": { "signs": 1_i64 }, "$currentDate": { "at": true } };
        self.documents(SESSIONS)
            .update_one(doc! { "_id": holder }, sign)
            // A sign must not wait for slow members of the replica set.
            .write_concern(WriteConcern::builder().w(Acknowledgment::Nodes(1)).build())
            .await?;
        Ok(())
    }

    /// Ends the transactions of all other processes that gave no sign since `signs` was read a while ago.
    async fn end_silent_transactions(&self, signs: &mut Option<Signs>) -> Result<(), Driver> {
        if signs.as_ref().is_some_and(|signs| signs.at.elapsed() < SILENCE) {
            return Ok(());
        }
        let all: Vec<Document> = self
            .documents(SESSIONS)
            .find(doc! {})
            .read_concern(ReadConcern::local())
            .await?
            .try_collect()
            .await?;
        let own = {
            let own = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
            own.holder.bytes()
        };
        let number = |holder: &Document| holder.get_i64("signs").unwrap_or(0);
        let Some(before) = signs.take() else {
            let by_holder = all
                .iter()
                .filter_map(|holder| Some((bytes(holder, "_id")?.clone(), number(holder))));
            *signs = Some(Signs {
                at: Instant::now(),
                by_holder: by_holder.collect(),
            });
            return Ok(());
        };
        let silent = all.iter().filter(|holder| {
            bytes(holder, "_id")
                .is_some_and(|id| id[..] != own && before.by_holder.get(id) == Some(&number(holder)))
        });
        let sessions: Vec<Document> = silent
            .filter_map(|holder| holder.get_array("sessions").ok())
            .flatten()
            .map(|id| doc! { "id": id.clone() })
            .collect();
        if sessions.is_empty() {
            return Ok(());
        }
        let count = sessions.len();
        if self.kill_sessions(sessions).await? {
            tracing::warn!(
                sessions = count,
                "held up, perhaps by a transaction of a process that died: ended those of all that are silent"
            );
        }
        Ok(())
    }

    /// Says once that what the dead hold stays locked for longer.
    fn tell_forbidden(&self, error: &Driver) {
        let mut own = self.sessions().lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut own.told, true) {
            tracing::warn!(
                "MongoDB does not let this user run killSessions ({}): what a process that died inside a transaction holds \
                 stays locked until MongoDB ends that, after a minute unless transactionLifetimeLimitSeconds says otherwise",
                error.kind
            );
        }
    }
}

/// Whether MongoDB will not end sessions for us: unauthorized, no such command, not supported here, and what Atlas says of
/// commands that its shared tiers do not have.
fn is_forbidden(code: i32) -> bool {
    matches!(code, 13 | 59 | 115 | 8000)
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
