//! Agents: who holds one, and how it goes from a dispatcher to a worker.
//!
//! `/unowned/client-NAME` is the ephemeral of the dispatcher that an agent asks for a worker,
//! `/owned/worker-N/client-NAME` that of the worker that it ships to. Promise: at any instant an agent is held once, by
//! its highest incarnation; a second live agent of the same name is refused. Not promised: that who held an agent knows
//! at once that another took it over; it is told by its watch, and what it registers is guarded by sequences.
//! Called by the gateway ([`attach`]), the leader ([`Leader::offer`](crate::Leader::offer)) and the receiving side of workers
//! ([`Worker::accept`](crate::Worker::accept)).

mod accept;
mod offer;

use std::{fmt, sync::Arc, time::Duration};

use model::{
    Name,
    znode::{self, ClientData, WorkerOffer},
};
use zookeeper_client as zk;
use zookeeper_client::{CreateMode, MultiWriteError, Stat};

pub use accept::{Acceptance, Lost};
pub use offer::WaitingClient;

use crate::{
    error::{Error, is_lost_reply},
    layout::{OWNED, Place, WorkerNumber},
    listing::{self, ReadSize},
    rights::Kind,
    roots,
    term::Term,
    watch::Kept,
};

/// How often an agent is reached for while others move it.
const TRIES: u32 = 32;
/// Between two looks behind a watch, in case it is lost.
const SLOW_LOOK: Duration = Duration::from_secs(5);

/// Why an agent is not held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another instance of the same name lives: two agents must not have one name.
    OtherInstance {
        /// Where it is held.
        path: String,
        /// Host name of its machine.
        host: String,
    },
    /// A newer connection of the same instance lives: this one is over.
    Newer {
        /// Where it is held.
        path: String,
    },
    /// The leader has not offered this worker to the agent, or no longer.
    NotOffered,
    /// What stands under the name can't be read, so it is left alone.
    Unreadable {
        /// Where.
        path: String,
        /// Why not.
        why: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherInstance { path, host } => write!(
                f,
                "another agent of this name lives on {host} ({path}): give one of them another name"
            ),
            Self::Newer { path } => write!(f, "a newer connection of this agent lives ({path})"),
            Self::NotOffered => f.write_str("the leader has not offered this worker to the agent"),
            Self::Unreadable { path, why } => write!(f, "{path} can't be read: {why}"),
        }
    }
}

/// What became of [`attach`].
#[derive(Debug)]
pub enum Attachment {
    /// Held in `/unowned`.
    Attached(Box<Attached>),
    /// Not held.
    Refused(Refusal),
}

/// An agent that this session holds in `/unowned`.
///
/// It ends with the term, with [`Attached::detach`], or when a worker takes the agent; dropping it leaves the znode to the
/// session.
pub struct Attached {
    term: Term,
    path: String,
    data: ClientData,
    /// The transaction that created the znode: one that was created by another is not this one.
    created: i64,
    /// Number of the offer told last.
    told: u32,
    watch: Kept,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What happened to an agent that is held in `/unowned`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The leader offers a worker.
    Offered(WorkerOffer),
    /// It is held here no more: a worker took it, or a newer connection.
    Gone,
}

/// A znode of an agent.
struct Found {
    path: String,
    version: i32,
    /// The transaction that created it.
    created: i64,
    /// Whether this session owns it.
    ours: bool,
    data: Result<ClientData, String>,
}

enum Verdict {
    /// Of this very connection.
    Same,
    /// Of an older connection, to be replaced.
    Older,
    Refused(Refusal),
}

impl Found {
    fn of(term: &Term, path: &str, (data, stat): (Vec<u8>, Stat)) -> Self {
        Self {
            path: path.to_string(),
            version: stat.version,
            created: stat.czxid,
            ours: stat.ephemeral_owner == term.session(),
            data: znode::decode(&data).map_err(|why| why.to_string()),
        }
    }

    /// What this means for a connection that says `mine` of itself.
    fn judge(&self, mine: &ClientData) -> Verdict {
        let path = self.path.clone();
        let held = match &self.data {
            Ok(held) => held,
            Err(why) => {
                let why = why.clone();
                return Verdict::Refused(Refusal::Unreadable { path, why });
            }
        };
        if held.instance != mine.instance {
            let host = held.host.clone();
            return Verdict::Refused(Refusal::OtherInstance { path, host });
        }
        match held.incarnation.cmp(&mine.incarnation) {
            std::cmp::Ordering::Less => Verdict::Older,
            std::cmp::Ordering::Equal if self.ours => Verdict::Same,
            _ => Verdict::Refused(Refusal::Newer { path }),
        }
    }
}

/// The znodes of an agent: `/unowned` is looked at first, since agents move from there to workers.
async fn find(term: &Term, name: &Name) -> Result<Vec<Found>, Error> {
    let size = ReadSize::default();
    let waiting = Place::Unowned.client(name);
    let mut found = look(term, vec![waiting], &size).await?;
    let names = listing::children(term, OWNED)
        .await?
        .map(|(names, _)| names)
        .unwrap_or_default();
    let held = names
        .iter()
        .filter_map(|name| name.parse::<WorkerNumber>().ok())
        .map(|worker| Place::Owned(worker).client(name))
        .collect();
    found.extend(look(term, held, &size).await?);
    Ok(found)
}

async fn look(term: &Term, paths: Vec<String>, size: &ReadSize) -> Result<Vec<Found>, Error> {
    let read = listing::read(term, &paths, size).await?;
    let both = paths.iter().zip(read);
    Ok(both
        .filter_map(|(path, found)| Some(Found::of(term, path, found?)))
        .collect())
}

/// How one transaction over an agent ended.
enum Answer {
    Done,
    /// Something has moved, or the reply is lost: look again.
    LookAgain,
    /// The znode that guards it is gone.
    Unguarded,
    /// What the agent was to be created in is gone.
    NoParent,
}

/// Deletes what is `old` and creates the agent at `path`, if `guard` exists.
async fn replace(
    term: &Term,
    guard: Option<&str>,
    old: &[(String, i32)],
    (path, data): (&str, &[u8]),
    losses: &mut u32,
) -> Result<Answer, Error> {
    let reply = {
        let client = term.client()?;
        let mut writer = client.new_multi_writer();
        if let Some(guard) = guard {
            writer
                .add_check_version(guard, crate::batch::ANY_VERSION)
                .map_err(|failure| Error::refused(guard, failure))?;
        }
        for (path, version) in old {
            writer
                .add_delete(path, Some(*version))
                .map_err(|failure| Error::refused(path, failure))?;
        }
        let ephemeral = CreateMode::Ephemeral.with_acls(term.acls(Kind::of(path)));
        writer
            .add_create(path, data, &ephemeral)
            .map_err(|failure| Error::refused(path, failure))?;
        term.wait(writer.commit()).await?
    };
    match reply {
        Ok(_) => Ok(Answer::Done),
        Err(MultiWriteError::OperationFailed { index, source }) => {
            let guarded = usize::from(guard.is_some());
            match source {
                zk::Error::NoNode if index < guarded => Ok(Answer::Unguarded),
                zk::Error::NoNode if index == guarded + old.len() => Ok(Answer::NoParent),
                zk::Error::NoNode | zk::Error::BadVersion | zk::Error::NodeExists => Ok(Answer::LookAgain),
                source => Err(Error::refused(path, source)),
            }
        }
        Err(MultiWriteError::RequestFailed { source }) if is_lost_reply(&source) => {
            term.after_loss(losses, path, &source).await?;
            Ok(Answer::LookAgain)
        }
        Err(MultiWriteError::RequestFailed { source }) => Err(Error::refused(path, source)),
    }
}

/// Deletes a znode of an agent in this version; false when it has changed meanwhile.
async fn delete(term: &Term, path: &str, version: i32) -> Result<bool, Error> {
    match term
        .ask(path, |client| client.delete(path, Some(version)))
        .await?
    {
        Ok(()) | Err(zk::Error::NoNode) => Ok(true),
        Err(zk::Error::BadVersion) => Ok(false),
        Err(failure) => Err(Error::refused(path, failure)),
    }
}

/// Holds an agent in `/unowned` until a worker takes it. An older connection of the same instance is replaced, wherever it
/// is held.
///
/// Dropped half-way, the session may hold it nevertheless: a newer connection replaces it.
///
/// # Errors
/// [`Error::Contended`] while others move the agent all the time; [`Error::TermOver`], [`Error::Disconnected`],
/// [`Error::NoAuth`].
pub async fn attach(term: &Term, data: &ClientData) -> Result<Attachment, Error> {
    let path = Place::Unowned.client(&data.agent);
    let encoded = znode::encode(data);
    crate::batch::check_size(&path, &encoded)?;
    let mut losses = 0;
    for round in 1..=TRIES {
        term.sync().await?;
        let (mut mine, mut old, mut refused) = (None, Vec::new(), None);
        for found in find(term, &data.agent).await? {
            match found.judge(data) {
                Verdict::Same => mine = Some((found.version, found.created)),
                Verdict::Older => old.push((found.path, found.version)),
                Verdict::Refused(why) => refused = Some(why),
            }
        }
        if let Some(why) = refused {
            if let Some((version, _)) = mine {
                delete(term, &path, version).await?;
            }
            return Ok(Attachment::Refused(why));
        }
        // What was created is looked at once more: a worker may have taken another agent of this name in between.
        if let Some((version, created)) = mine {
            if old.is_empty() {
                let attached = Attached::new(term, path, data, created);
                return Ok(Attachment::Attached(Box::new(attached)));
            }
            old.push((path.clone(), version));
        }
        match replace(term, None, &old, (&path, &encoded), &mut losses).await? {
            Answer::Done => continue,
            Answer::NoParent => roots::ensure(term, roots::Counters::default()).await?,
            Answer::LookAgain | Answer::Unguarded => {}
        }
        term.pause(round).await?;
    }
    Err(Error::Contended { path, tries: TRIES })
}

impl Attached {
    fn new(term: &Term, path: String, data: &ClientData, created: i64) -> Self {
        Self {
            term: term.clone(),
            path,
            data: data.clone(),
            created,
            told: 0,
            watch: Kept::default(),
        }
    }

    /// Waits for the next offer, or until the agent is held here no more. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn changed(&mut self) -> Result<Change, Error> {
        loop {
            let path = &self.path;
            let request = |client: Arc<zk::Client>| async move { client.get_and_watch_data(path).await };
            let (found, watcher) = match self.term.ask(path, request).await? {
                Ok((data, stat, watcher)) => (Found::of(&self.term, path, (data, stat)), watcher),
                Err(zk::Error::NoNode) => return Ok(Change::Gone),
                Err(failure) => return Err(Error::refused(path, failure)),
            };
            self.watch.keep(watcher);
            if !self.is_own(&found) {
                return Ok(Change::Gone);
            }
            match (found.judge(&self.data), found.data) {
                (Verdict::Same, Ok(data)) => {
                    if let Some(offer) = data.offer.filter(|offer| offer.number > self.told) {
                        self.told = offer.number;
                        return Ok(Change::Offered(offer));
                    }
                }
                // An offer that was made to a connection before this one has overwritten it.
                _ => self.write_anew(found.version).await?,
            }
            let fired = tokio::time::timeout(SLOW_LOOK, self.watch.fired());
            let _ = self.term.wait(fired).await?;
        }
    }

    fn is_own(&self, found: &Found) -> bool {
        found.ours && found.created == self.created
    }

    async fn write_anew(&self, version: i32) -> Result<(), Error> {
        let (path, data) = (&self.path, znode::encode(&self.data));
        let answer = self
            .term
            .ask(path, |client| client.set_data(path, &data, Some(version)));
        match answer.await? {
            Ok(_) | Err(zk::Error::NoNode | zk::Error::BadVersion) => Ok(()),
            Err(failure) => Err(Error::refused(path, failure)),
        }
    }

    /// Lets go of the agent; nothing where a worker or a newer connection holds it.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`]: the znode goes with the session.
    pub async fn detach(self) -> Result<(), Error> {
        // Each offer in between changes the version.
        for _ in 0..TRIES {
            let found = look(&self.term, vec![self.path.clone()], &ReadSize::default()).await?;
            match found.first().filter(|found| self.is_own(found)) {
                Some(found) if !delete(&self.term, &self.path, found.version).await? => {}
                _ => break,
            }
        }
        Ok(())
    }
}
