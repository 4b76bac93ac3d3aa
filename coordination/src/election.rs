//! Who holds an office: the live candidate with the lowest sequence.
//!
//! Promise: a candidate that leads has seen that every candidate before it is gone; each watches only its
//! predecessor, so a death wakes one. Not promised: that a leader knows at once that it leads no more; its writes fail
//! instead (see [`crate::Leader`]). Called by the dispatcher and the watcher.
//!
//! Source: the leader election recipe of the ZooKeeper documentation.

use std::time::{Duration, Instant};

use futures::FutureExt;
use model::znode::{self, CandidateData};
use zookeeper_client as zk;
use zookeeper_client::CreateMode;

use crate::{
    error::{Error, is_lost_reply},
    layout::{Office, candidate, candidate_prefix, candidate_sequence},
    listing::{self, ReadSize},
    rights::Kind,
    roots,
    term::Term,
    watch::Kept,
};

/// Between two looks behind a watch, in case it is lost.
const SLOW_LOOK: Duration = Duration::from_secs(5);
/// The same for all who stand for an office.
const PEERS_LOOK: Duration = Duration::from_secs(1);

/// An ephemeral znode that stands for an office. One per session and office.
///
/// It ends with the term, or with [`Candidacy::withdraw`]; dropping it leaves the znode to the session.
#[derive(Clone, Debug)]
pub struct Candidacy {
    term: Term,
    office: Office,
    name: String,
}

/// Who stands for an office, followed as they come and go: a watch tells when, and a slow full look stands behind it.
pub struct Peers {
    candidacy: Candidacy,
    names: Vec<String>,
    watch: Kept,
    /// None when there is news.
    looked_at: Option<Instant>,
}

impl Peers {
    /// Nothing is known before the first [`Peers::refresh`].
    pub fn new(candidacy: &Candidacy) -> Self {
        Self {
            candidacy: candidacy.clone(),
            names: Vec::new(),
            watch: Kept::default(),
            looked_at: None,
        }
    }

    /// Names of the live candidates as of the last look, in the order of their sequences.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Looks who stands for the office where there is news, or where the last look is a second ago; whether it is others
    /// than before. Dropped half-way, the next call looks again.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn refresh(&mut self) -> Result<bool, Error> {
        let due = |at: Instant| at.elapsed() >= PEERS_LOOK;
        match self.watch.fired().now_or_never() {
            None if self.looked_at.is_some_and(|at| !due(at)) => return Ok(false),
            None => {}
            Some(_) => {
                self.looked_at = None;
                self.watch.keep(self.armed().await?);
            }
        }
        let names = self.candidacy.peers().await?;
        self.looked_at = Some(Instant::now());
        let changed = names != self.names;
        self.names = names;
        Ok(changed)
    }

    async fn armed(&self) -> Result<zk::OneshotWatcher, Error> {
        let folder = self.candidacy.office.path();
        let request =
            |client: std::sync::Arc<zk::Client>| async move { client.get_and_watch_children(folder).await };
        match self.candidacy.term.ask(folder, request).await? {
            Ok((_, _, watcher)) => Ok(watcher),
            Err(zk::Error::NoNode) => Err(Error::RootMissing {
                path: folder.to_string(),
            }),
            Err(failure) => Err(Error::refused(folder, failure)),
        }
    }

    /// Waits until somebody has come or gone since the last look. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.looked_at.is_some() && self.watch.fired().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.looked_at = None;
    }
}

/// A candidate as listed.
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) owner: i64,
    pub(crate) data: Vec<u8>,
}

impl Candidacy {
    /// Stands for an office.
    ///
    /// Dropped half-way, the session may stand for it nevertheless: end the term.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn enter(term: &Term, office: Office, data: &CandidateData) -> Result<Self, Error> {
        let data = znode::encode(data);
        let prefix = candidate_prefix(office);
        let options = CreateMode::EphemeralSequential.with_acls(term.acls(Kind::Leaf));
        let mut losses = 0;
        loop {
            let answer = {
                let client = term.client()?;
                term.wait(client.create(&prefix, &data, &options)).await?
            };
            match answer {
                Ok((_, sequence)) => return Ok(Self::named(term, office, format!("candidate-{sequence}"))),
                Err(zk::Error::NoNode) => {
                    roots::ensure(term, roots::Counters::default()).await?;
                    term.after_loss(&mut losses, &prefix, &zk::Error::NoNode).await?;
                }
                Err(failure) if is_lost_reply(&failure) => {
                    term.after_loss(&mut losses, &prefix, &failure).await?;
                    term.sync().await?;
                    let mine = listed(term, office)
                        .await?
                        .into_iter()
                        .find(|other| other.owner == term.session());
                    if let Some(mine) = mine {
                        return Ok(Self::named(term, office, mine.name));
                    }
                }
                Err(failure) => return Err(Error::refused(prefix, failure)),
            }
        }
    }

    fn named(term: &Term, office: Office, name: String) -> Self {
        tracing::info!(%office, name, "stands for election");
        Self {
            term: term.clone(),
            office,
            name,
        }
    }

    /// Name of the znode: `candidate-0000000001`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of the znode.
    pub fn path(&self) -> String {
        candidate(self.office, &self.name)
    }

    /// Waits until no live candidate is before this one. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Deposed`] when the own znode is gone; [`Error::TermOver`].
    pub async fn until_leading(&self) -> Result<(), Error> {
        loop {
            let mut before = self.before().await?;
            loop {
                let Some(other) = before.pop() else { return Ok(()) };
                let path = candidate(self.office, &other);
                match self.watch(&path).await? {
                    // A znode that is no ephemeral was put there by hand and never goes: look at the one before it.
                    (Some(stat), _) if stat.ephemeral_owner == 0 => {}
                    (Some(_), watcher) => {
                        let fired = tokio::time::timeout(SLOW_LOOK, watcher.changed());
                        let _ = self.term.wait(fired).await?;
                        break;
                    }
                    (None, _) => break,
                }
            }
        }
    }

    /// Names of the candidates before this one, the nearest last.
    async fn before(&self) -> Result<Vec<String>, Error> {
        let mut all = sequences(&self.term, self.office).await?;
        match all.iter().position(|(_, name)| *name == self.name) {
            Some(at) => {
                all.truncate(at);
                Ok(all.into_iter().map(|(_, name)| name).collect())
            }
            None => Err(Error::Deposed { path: self.path() }),
        }
    }

    async fn watch(&self, path: &str) -> Result<(Option<zk::Stat>, zk::OneshotWatcher), Error> {
        let request =
            |client: std::sync::Arc<zk::Client>| async move { client.check_and_watch_stat(path).await };
        self.term
            .ask(path, request)
            .await?
            .map_err(|failure| Error::refused(path, failure))
    }

    /// Whether the own znode is still there and held by this session.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let path = self.path();
        match self.term.ask(&path, |client| client.check_stat(&path)).await? {
            Ok(Some(stat)) if stat.ephemeral_owner == self.term.session() => Ok(()),
            Ok(_) | Err(zk::Error::NoNode) => Err(Error::Deposed { path }),
            Err(failure) => Err(Error::refused(path, failure)),
        }
    }

    /// Resolves when the own znode is gone or the term is over. Cancel-safe.
    pub async fn lost(&self) {
        let path = self.path();
        loop {
            match self.watch(&path).await {
                Ok((Some(stat), watcher)) if stat.ephemeral_owner == self.term.session() => {
                    let fired = tokio::time::timeout(SLOW_LOOK, watcher.changed());
                    if self.term.wait(fired).await.is_err() {
                        return;
                    }
                }
                Ok(_) => return,
                Err(failure) if failure.is_retryable() => {}
                Err(_) => return,
            }
        }
    }

    /// Gives the candidacy up: deletes the znode. What goes wrong is left to the end of the session.
    pub async fn withdraw(self) {
        let path = self.path();
        if self.check().await.is_ok() {
            let deleted = self.term.ask(&path, |client| client.delete(&path, None)).await;
            if let Ok(Err(failure)) = deleted
                && failure != zk::Error::NoNode
            {
                tracing::warn!(path, %failure, "the candidacy could not be withdrawn; it ends with the session");
            }
        }
    }

    /// Names of the live candidates of the office, in the order of their sequences; this one among them.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn peers(&self) -> Result<Vec<String>, Error> {
        let all = listed(&self.term, self.office).await?;
        Ok(all.into_iter().map(|candidate| candidate.name).collect())
    }
}

/// Sequences and names of what looks like a candidate, sorted.
async fn sequences(term: &Term, office: Office) -> Result<Vec<(u64, String)>, Error> {
    let names = listing::children(term, office.path())
        .await?
        .map(|(names, _)| names)
        .unwrap_or_default();
    let mut all: Vec<_> = names
        .into_iter()
        .filter_map(|name| candidate_sequence(&name).map(|sequence| (sequence, name)))
        .collect();
    all.sort_unstable();
    Ok(all)
}

/// The live candidates of an office, sorted.
pub(crate) async fn listed(term: &Term, office: Office) -> Result<Vec<Listed>, Error> {
    let names: Vec<String> = sequences(term, office)
        .await?
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    let paths: Vec<String> = names.iter().map(|name| candidate(office, name)).collect();
    let found = listing::read(term, &paths, &ReadSize::default()).await?;
    let all = names.into_iter().zip(found).filter_map(|(name, found)| {
        let (data, stat) = found?;
        (stat.ephemeral_owner != 0).then_some(Listed {
            name,
            owner: stat.ephemeral_owner,
            data,
        })
    });
    Ok(all.collect())
}
