//! A worker's side of agents: taking one over, letting go, noticing that it was taken away.

use std::sync::Arc;

use model::{
    Name,
    znode::{self, ClientData},
};
use zookeeper_client as zk;

use super::{Answer, Found, Refusal, SLOW_LOOK, TRIES, Verdict, delete, look, replace};
use crate::{
    error::Error,
    layout::{Place, client_name, folder},
    listing::{self, ReadSize},
    members::Worker,
    watch::Kept,
};

/// What became of [`Worker::accept`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Held by this worker.
    Held,
    /// Not held.
    Refused(Refusal),
}

/// Why a worker holds an agent no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The leader has moved it, or it asks a dispatcher again.
    Moved,
    /// A newer connection of it is held here.
    Replaced,
    /// The session is over, or ZooKeeper refuses.
    Session,
}

/// What is to be done to hold an agent.
enum Plan {
    Nothing,
    /// These are to be deleted.
    Take(Vec<(String, i32)>),
    Refuse(Refusal),
}

impl Worker {
    /// Takes over an agent that the leader has offered this worker, in one transaction; an older connection of the same
    /// instance to this worker is replaced without an offer.
    ///
    /// Dropped half-way, the worker may hold it: [`Worker::release`] it.
    ///
    /// # Errors
    /// [`Error::Deposed`] when `alive` is gone; [`Error::Contended`] while others move the agent all the time;
    /// [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn accept(&self, data: &ClientData) -> Result<Acceptance, Error> {
        let (term, alive) = (&self.inner.term, &self.inner.alive);
        let data = ClientData {
            offer: None,
            ..data.clone()
        };
        let path = self.client(&data.agent);
        let encoded = znode::encode(&data);
        crate::batch::check_size(&path, &encoded)?;
        let deposed = || Error::Deposed { path: alive.clone() };
        let mut losses = 0;
        for round in 1..=TRIES {
            let old = match self.plan(&data).await? {
                Plan::Nothing => return Ok(Acceptance::Held),
                Plan::Refuse(why) => return Ok(Acceptance::Refused(why)),
                Plan::Take(old) => old,
            };
            match replace(term, Some(alive), &old, (&path, &encoded), &mut losses).await? {
                Answer::Done => return Ok(Acceptance::Held),
                Answer::Unguarded | Answer::NoParent => return Err(deposed()),
                Answer::LookAgain => term.pause(round).await?,
            }
        }
        Err(Error::Contended { path, tries: TRIES })
    }

    fn client(&self, name: &Name) -> String {
        Place::Owned(self.inner.number).client(name)
    }

    async fn plan(&self, data: &ClientData) -> Result<Plan, Error> {
        let term = &self.inner.term;
        term.sync().await?;
        let (waiting, own) = (Place::Unowned.client(&data.agent), self.client(&data.agent));
        let mut old = Vec::new();
        let mut offered = false;
        for mut found in look(term, vec![waiting.clone(), own], &ReadSize::default()).await? {
            // The connection that the offer came by may be the one that the agent counts this one with.
            found.ours |= found.path == waiting;
            match found.judge(data) {
                Verdict::Refused(why) => return Ok(Plan::Refuse(why)),
                Verdict::Same if found.path != waiting => return Ok(Plan::Nothing),
                Verdict::Same | Verdict::Older => {}
            }
            offered |= found.path != waiting || self.is_offered(&found);
            old.push((found.path, found.version));
        }
        // An agent that asks for a worker again while it is held here has been offered another, or none yet.
        let is_waiting = old.iter().any(|(path, _)| *path == waiting);
        let stays = !is_waiting && !old.is_empty();
        Ok(if stays || (is_waiting && offered) {
            Plan::Take(old)
        } else {
            Plan::Refuse(Refusal::NotOffered)
        })
    }

    fn is_offered(&self, found: &Found) -> bool {
        let offer = found.data.as_ref().ok().and_then(|data| data.offer.as_ref());
        offer.is_some_and(|offer| offer.worker == self.inner.number.0)
    }

    /// Lets go of an agent; nothing where it is held no more, or by a newer connection.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`]: the znode goes with the session.
    pub async fn release(&self, data: &ClientData) -> Result<(), Error> {
        let path = self.client(&data.agent);
        let found = look(&self.inner.term, vec![path.clone()], &ReadSize::default()).await?;
        for found in found {
            if found.ours && matches!(found.judge(data), Verdict::Same) {
                delete(&self.inner.term, &path, found.version).await?;
            }
        }
        Ok(())
    }

    /// The agents in its folder, in no order.
    ///
    /// # Errors
    /// [`Error::Deposed`] when the folder is gone; [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn clients(&self) -> Result<Vec<Name>, Error> {
        let folder = folder(self.inner.number);
        match listing::children(&self.inner.term, &folder).await? {
            Some((names, _)) => Ok(names.iter().filter_map(|name| client_name(name)).collect()),
            None => Err(Error::Deposed {
                path: self.inner.alive.clone(),
            }),
        }
    }

    /// Resolves when this connection of an agent is held here no more. Cancel-safe.
    pub async fn client_lost(&self, data: &ClientData) -> Lost {
        let (term, path) = (&self.inner.term, &self.client(&data.agent));
        let watch = Kept::default();
        loop {
            let request = |client: Arc<zk::Client>| async move { client.get_and_watch_data(path).await };
            match term.ask(path, request).await {
                Ok(Ok((found, stat, watcher))) => {
                    watch.keep(watcher);
                    let found = Found::of(term, path, (found, stat));
                    if !found.ours || !matches!(found.judge(data), Verdict::Same) {
                        return Lost::Replaced;
                    }
                }
                Ok(Err(zk::Error::NoNode)) => return Lost::Moved,
                Err(failure) if failure.is_retryable() => continue,
                Ok(Err(_)) | Err(_) => return Lost::Session,
            }
            let fired = tokio::time::timeout(SLOW_LOOK, watch.fired());
            if term.wait(fired).await.is_err() {
                return Lost::Session;
            }
        }
    }
}
