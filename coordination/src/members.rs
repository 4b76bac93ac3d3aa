//! Workers: registering, living, being woken, resigning.
//!
//! Promise: a worker's number is never given twice while the roots stand, and `alive` is never recreated: once it is
//! gone, neither claim nor finish of that worker succeeds. Called by compute nodes.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use model::{
    JobId,
    entry::EntryName,
    znode::{self, WorkerData},
};
use zookeeper_client as zk;
use zookeeper_client::{Acl, CreateMode, EventType, MultiWriteError};

use crate::{
    batch::check_size,
    error::{Error, is_lost_reply},
    layout::{OWNED, Place, UNOWNED, WorkerNumber, alive, folder},
    listing::{self, Listing, ReadSize},
    rights::{Kind, incarnation},
    roots::{self, Counter},
    term::{Access, Term},
    watch::Kept,
};

/// How often a registration is tried against others who register at the same time.
const REGISTER_TRIES: u32 = 64;

/// One incarnation of a compute node, in its folder; clones share it.
#[derive(Clone)]
pub struct Worker {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) term: Term,
    pub(crate) number: WorkerNumber,
    pub(crate) alive: String,
    folder: String,
    /// Version of the folder's data up to which wake-ups have been reported.
    seen: Mutex<i32>,
    watch: Kept,
    size: ReadSize,
    members_size: ReadSize,
    /// Counts calls, so that the folder's owner is looked at now and then.
    looks: AtomicU32,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("number", &self.inner.number)
            .finish_non_exhaustive()
    }
}

enum Attempt {
    In,
    Raced,
    Taken,
    RootMissing,
}

impl Worker {
    /// Takes a number, makes the folder and `alive` in one transaction.
    ///
    /// Dropped half-way, there may be a folder that lives as long as the session: end the term.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`]; [`Error::Contended`] after many tries.
    pub async fn register(term: &Term, data: WorkerData) -> Result<Self, Error> {
        let encoded = znode::encode(&data);
        check_size(OWNED, &encoded)?;
        let rights = folder_rights(term).await?;
        let mut least = 0;
        for round in 1..=REGISTER_TRIES {
            let counter = match roots::read(term, OWNED).await {
                Err(Error::RootMissing { .. }) => {
                    roots::ensure(term, roots::Counters::default()).await?;
                    continue;
                }
                counter => counter?,
            };
            let number = WorkerNumber(counter.next.max(least));
            match attempt(term, number, counter, (&encoded, &rights)).await? {
                Attempt::In => return Ok(Self::at(term, number)),
                Attempt::Raced => {}
                Attempt::Taken => least = roots::behind_highest(term, OWNED).await?.max(number.0 + 1),
                Attempt::RootMissing => continue,
            }
            term.pause(round).await?;
        }
        Err(Error::Contended {
            path: OWNED.to_string(),
            tries: REGISTER_TRIES,
        })
    }

    fn at(term: &Term, number: WorkerNumber) -> Self {
        tracing::info!(%number, "registered");
        let inner = Inner {
            term: term.clone(),
            number,
            alive: alive(number),
            folder: folder(number),
            seen: Mutex::new(0),
            watch: Kept::default(),
            size: ReadSize::default(),
            members_size: ReadSize::default(),
            looks: AtomicU32::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Its number.
    pub fn number(&self) -> WorkerNumber {
        self.inner.number
    }

    /// Lists what nobody has claimed.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn list_unowned(&self) -> Result<Listing, Error> {
        let Some((names, _)) = listing::children(&self.inner.term, UNOWNED).await? else {
            // The roots were deleted by hand, most likely our folder too.
            self.check().await?;
            return Ok(Listing::default());
        };
        let mut strange = Vec::new();
        let entries = listing::sort(UNOWNED, names, &mut strange);
        Ok(Listing {
            entries,
            strange: strange.len(),
        })
    }

    /// Reads the data of entries in `/unowned`, in their order; none for what is no longer there.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn read_unowned(&self, names: &[EntryName]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let paths: Vec<String> = names.iter().map(|name| Place::Unowned.entry(name)).collect();
        listing::read_data(&self.inner.term, &paths, &self.inner.size).await
    }

    /// What is in its folder now: what is missing here was taken away by the leader.
    ///
    /// # Errors
    /// [`Error::Deposed`] when the folder is gone or no longer ours.
    pub async fn held(&self) -> Result<Vec<EntryName>, Error> {
        // The look at `alive` notices a folder of the same number made after the roots were deleted by hand.
        if self.inner.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(8) {
            self.check().await?;
        }
        match listing::children(&self.inner.term, &self.inner.folder).await? {
            Some((names, _)) => Ok(listing::sort(&self.inner.folder, names, &mut Vec::new())),
            None => Err(self.deposed()),
        }
    }

    /// The jobs of which the leader wants it to end what it has. What is in its folder after that it has to hand over itself.
    ///
    /// # Errors
    /// [`Error::Deposed`] when the folder is gone; [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn stopping(&self) -> Result<Vec<JobId>, Error> {
        let path = &self.inner.folder;
        let read = |client: Arc<zk::Client>| async move { client.get_data(path).await };
        match self.inner.term.ask(path, read).await? {
            Ok((data, _)) => {
                Ok(znode::decode::<WorkerData>(&data).map_or_else(|_| Vec::new(), |data| data.stop))
            }
            Err(zk::Error::NoNode) => Err(self.deposed()),
            Err(failure) => Err(Error::refused(path, failure)),
        }
    }

    /// Whether `alive` is there and held by this session.
    async fn check(&self) -> Result<(), Error> {
        let path = &self.inner.alive;
        match self
            .inner
            .term
            .ask(path, |client| client.check_stat(path))
            .await?
        {
            Ok(Some(stat)) if stat.ephemeral_owner == self.inner.term.session() => Ok(()),
            Ok(_) | Err(zk::Error::NoNode) => Err(self.deposed()),
            Err(failure) => Err(Error::refused(path, failure)),
        }
    }

    fn deposed(&self) -> Error {
        Error::Deposed {
            path: self.inner.alive.clone(),
        }
    }

    /// Waits for the next wake-up by the leader; several that came together may count as one, none is missed.
    ///
    /// Cancel-safe. For one waiting caller at a time.
    ///
    /// # Errors
    /// [`Error::Deposed`] when the folder is gone, [`Error::TermOver`].
    pub async fn woken(&self) -> Result<(), Error> {
        let inner = &*self.inner;
        loop {
            match inner.term.wait(inner.watch.fired()).await? {
                Some(event) if event.event_type == EventType::NodeDataChanged => {
                    // Each wake-up raises the version by one; should there have been more, arming again tells.
                    let mut seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    *seen = seen.wrapping_add(1);
                    return Ok(());
                }
                Some(event) if event.event_type == EventType::NodeDeleted => return Err(self.deposed()),
                _ => {}
            }
            let path = &inner.folder;
            let request = |client: Arc<zk::Client>| async move { client.check_and_watch_stat(path).await };
            let (stat, watcher) = match inner.term.ask(path, request).await? {
                Ok((Some(stat), watcher)) => (stat, watcher),
                Ok((None, _)) | Err(zk::Error::NoNode) => return Err(self.deposed()),
                Err(failure) => return Err(Error::refused(path, failure)),
            };
            inner.watch.keep(watcher);
            let mut seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen != stat.version {
                *seen = stat.version;
                return Ok(());
            }
        }
    }

    /// The live workers, in the order of their numbers; one with unreadable data is left out.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn members(&self) -> Result<Vec<(WorkerNumber, WorkerData)>, Error> {
        listed(&self.inner.term, &self.inner.members_size).await
    }

    /// Goes: deletes `alive`, and the folder when it is empty; what is left in it is recovered by the leader.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`].
    pub async fn resign(self) -> Result<(), Error> {
        let Inner {
            term, alive, folder, ..
        } = &*self.inner;
        self.check().await?;
        let answer = term.ask(folder, |client| async move {
            let mut writer = client.new_multi_writer();
            writer.add_delete(alive, None)?;
            writer.add_delete(folder, None)?;
            Ok(writer.commit().await?)
        });
        match answer.await? {
            Ok(_) | Err(zk::Error::NoNode) => return Ok(()),
            Err(zk::Error::NotEmpty) => {}
            Err(failure) => return Err(Error::refused(folder, failure)),
        }
        match term.ask(alive, |client| client.delete(alive, None)).await? {
            Ok(()) | Err(zk::Error::NoNode) => Ok(()),
            Err(failure) => Err(Error::refused(alive, failure)),
        }
    }
}

/// The live workers, as [`Worker::members`] gives them, for who is none.
///
/// # Errors
/// [`Error::TermOver`], [`Error::Disconnected`].
pub async fn live_workers(term: &Term) -> Result<Vec<(WorkerNumber, WorkerData)>, Error> {
    listed(term, &ReadSize::default()).await
}

async fn listed(term: &Term, size: &ReadSize) -> Result<Vec<(WorkerNumber, WorkerData)>, Error> {
    let names = listing::children(term, OWNED)
        .await?
        .map(|(names, _)| names)
        .unwrap_or_default();
    let mut numbers: Vec<WorkerNumber> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let paths: Vec<String> = numbers
        .iter()
        .flat_map(|&number| [folder(number), alive(number)])
        .collect();
    let found = listing::read_data(term, &paths, size).await?;
    let pairs = numbers.into_iter().zip(found.chunks(2));
    let living = pairs.filter_map(|(number, pair)| match pair {
        [Some(data), Some(_)] => znode::decode(data).ok().map(|data| (number, data)),
        _ => None,
    });
    Ok(living.collect())
}

/// The rights of the folder to be made. Where roles have their own users, the session becomes one more, which no other
/// worker is.
async fn folder_rights(term: &Term) -> Result<Vec<Acl>, Error> {
    Ok(match term.access() {
        Access::Open | Access::Own => term.acls(Kind::Worker).to_vec(),
        Access::Roles(granted) => {
            let (credentials, own) = incarnation();
            term.authenticate(&credentials).await?;
            granted.folder(&own)
        }
    })
}

/// Tries to register under `number`, with the data and the rights of the folder.
async fn attempt(
    term: &Term,
    number: WorkerNumber,
    counter: Counter,
    (data, rights): (&[u8], &[Acl]),
) -> Result<Attempt, Error> {
    let (folder, alive) = (folder(number), alive(number));
    let reply = {
        let client = term.client()?;
        let mut writer = client.new_multi_writer();
        let built = writer
            .add_set_data(OWNED, &roots::data(number.0 + 1), Some(counter.version))
            .and_then(|()| {
                let options = CreateMode::Persistent.with_acls(rights.into());
                writer.add_create(&folder, data, &options)
            })
            .and_then(|()| {
                let options = CreateMode::Ephemeral.with_acls(term.acls(Kind::Leaf));
                writer.add_create(&alive, b"", &options)
            });
        built.map_err(|failure| Error::refused(&folder, failure))?;
        term.wait(writer.commit()).await?
    };
    match reply {
        Ok(_) => Ok(Attempt::In),
        Err(MultiWriteError::OperationFailed { index, source }) => match (index, source) {
            (0, zk::Error::BadVersion) => Ok(Attempt::Raced),
            (0, zk::Error::NoNode) => Ok(Attempt::RootMissing),
            (1, zk::Error::NodeExists) => Ok(Attempt::Taken),
            (0, source) => Err(Error::refused(OWNED, source)),
            (_, source) => Err(Error::refused(folder, source)),
        },
        Err(MultiWriteError::RequestFailed { source }) if is_lost_reply(&source) => {
            tracing::debug!(%number, %source, "lost the reply to a registration");
            term.sync().await?;
            match term.ask(&alive, |client| client.check_stat(&alive)).await? {
                Ok(Some(stat)) if stat.ephemeral_owner == term.session() => Ok(Attempt::In),
                Ok(_) | Err(zk::Error::NoNode) => Ok(Attempt::Raced),
                Err(failure) => Err(Error::refused(alive, failure)),
            }
        }
        Err(MultiWriteError::RequestFailed { source }) => Err(Error::refused(folder, source)),
    }
}
