//! The chroot, the three roots and the folders of the offices: creating them, reading their counters.
//!
//! Creating is safe to repeat: what exists is left as it is.

use std::time::Duration;

use model::{
    FORMAT,
    entry::EntryName,
    znode::{self, BadData, RootData},
};
use zookeeper_client as zk;

use crate::{
    error::{Error, is_lost_reply},
    layout::{DONE, OWNED, Office, RIGHTS, ROOTS, UNOWNED, WorkerNumber},
    rights::{Granted, Kind, Users, bad_users},
    term::{Access, Term},
};

/// How often `/rights` is asked for while replies are lost.
const TRIES: u32 = 5;

/// To whom what this session creates is open, as `/rights` says; where that is missing, as it was `known` before.
///
/// # Errors
/// [`Error::NoAuth`] for a stranger; [`Error::BadData`], [`Error::Unreachable`].
pub(crate) async fn access(
    client: &zk::Client,
    timeout: Duration,
    known: Option<&Users>,
) -> Result<Access, Error> {
    let mut tries = 0;
    let users = loop {
        let answer = tokio::time::timeout(timeout, client.get_data(RIGHTS)).await;
        match answer.unwrap_or(Err(zk::Error::Timeout)) {
            Ok((data, _)) => {
                let users: Users = znode::decode(&data).map_err(bad_users)?;
                if !users.are_valid() {
                    return Err(bad_users("it holds no users of the digest scheme"));
                }
                break Some(users);
            }
            Err(zk::Error::NoNode) => break known.cloned(),
            Err(failure) if is_lost_reply(&failure) && tries < TRIES => tries += 1,
            Err(failure) if is_lost_reply(&failure) => {
                return Err(Error::Disconnected {
                    path: RIGHTS.to_string(),
                    losses: tries,
                });
            }
            Err(failure) => return Err(Error::refused(RIGHTS, failure)),
        }
    };
    Ok(users.map_or(Access::Own, |users| Access::Roles(Box::new(Granted::to(&users)))))
}

/// What the counters of newly created roots begin with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Next sequence of an entry.
    pub(crate) sequence: u64,
    /// Next number of a worker.
    pub(crate) worker: u64,
}

/// A counter in the data of a root, and the version to write it back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counter {
    pub(crate) next: u64,
    pub(crate) version: i32,
}

/// The data of a root with this counter.
pub(crate) fn data(next: u64) -> Vec<u8> {
    znode::encode(&RootData { v: FORMAT, next })
}

/// Roots and offices with their data, parents before children.
pub(crate) fn all(counters: Counters) -> [(&'static str, Vec<u8>); 5] {
    [
        (UNOWNED, data(counters.sequence)),
        (OWNED, data(counters.worker)),
        (DONE, data(0)),
        (Office::Dispatcher.path(), Vec::new()),
        (Office::Watcher.path(), Vec::new()),
    ]
}

/// Creates what is missing of the chroot, the roots and the offices.
pub(crate) async fn ensure(term: &Term, counters: Counters) -> Result<(), Error> {
    if !create_all(term, counters).await? {
        create_chroot(term).await?;
        if !create_all(term, counters).await? {
            return Err(Error::RootMissing {
                path: term.chroot().to_string(),
            });
        }
    }
    Ok(())
}

/// Creates roots and offices at once; false when the chroot is missing.
async fn create_all(term: &Term, counters: Counters) -> Result<bool, Error> {
    if let Some(users) = term.users()
        && !create(term, RIGHTS, &znode::encode(users)).await?
    {
        return Ok(false);
    }
    for (path, data) in &all(counters) {
        if !create(term, path, data).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn create_chroot(term: &Term) -> Result<(), Error> {
    let chroot = term.chroot();
    let ends = chroot
        .match_indices('/')
        .skip(1)
        .map(|(at, _)| at)
        .chain([chroot.len()]);
    for end in ends.filter(|&end| end > 1) {
        let part = &chroot[..end];
        let options = term.persistent(if end < chroot.len() {
            Kind::Above
        } else {
            Kind::Chroot
        });
        let answer = term.ask(part, |client| {
            let options = options.clone();
            async move {
                let bare = (*client).clone().chroot("/").map_err(|_| zk::Error::NoNode)?;
                bare.create(part, b"", &options).await.map(drop)
            }
        });
        match answer.await? {
            Ok(()) | Err(zk::Error::NodeExists) => {}
            // Somebody may use parts that they may not create in.
            Err(zk::Error::NoAuth) if end < chroot.len() => {}
            Err(failure) => return Err(Error::refused(part, failure)),
        }
    }
    Ok(())
}

/// Creates one znode where it is missing; false when its parent is.
async fn create(term: &Term, path: &str, data: &[u8]) -> Result<bool, Error> {
    let options = term.persistent(Kind::of(path));
    let exists = term.ask(path, |client| client.check_stat(path)).await?;
    match exists {
        Ok(Some(_)) => return Ok(true),
        Ok(None) | Err(zk::Error::NoNode) => {}
        Err(failure) => return Err(Error::refused(path, failure)),
    }
    let answer = term.ask(path, |client| {
        let options = options.clone();
        async move { client.create(path, data, &options).await.map(drop) }
    });
    match answer.await? {
        Ok(()) | Err(zk::Error::NodeExists) => Ok(true),
        Err(zk::Error::NoNode) => Ok(false),
        // A dispatcher creates it soon.
        Err(zk::Error::NoAuth) if term.users().is_some() => Err(Error::RootMissing {
            path: path.to_string(),
        }),
        Err(failure) => Err(Error::refused(path, failure)),
    }
}

/// Fails with the path of the first root that may not be read.
pub(crate) async fn check_rights(term: &Term) -> Result<(), Error> {
    let roots = ROOTS.map(str::to_string);
    let answers = term.ask_all(&roots, |client, path| client.get_data(path)).await?;
    for (path, answer) in roots.into_iter().zip(answers) {
        match answer {
            // Deleted by somebody this very moment: whoever needs it creates it.
            Ok(_) | Err(zk::Error::NoNode) => {}
            Err(failure) => return Err(Error::refused(path, failure)),
        }
    }
    Ok(())
}

/// Reads the counter of a root.
///
/// Data that is no counter (written by hand) counts from behind the highest number in use.
///
/// # Errors
/// [`Error::RootMissing`]; [`Error::BadData`] for a newer format.
pub(crate) async fn read(term: &Term, root: &str) -> Result<Counter, Error> {
    let answer = term.ask(root, |client| client.get_data(root)).await?;
    let (data, stat) = match answer {
        Ok(found) => found,
        Err(zk::Error::NoNode) => {
            return Err(Error::RootMissing {
                path: root.to_string(),
            });
        }
        Err(failure) => return Err(Error::refused(root, failure)),
    };
    let next = match znode::decode::<RootData>(&data) {
        Ok(read) => read.next,
        Err(newer @ BadData::Newer(_)) => {
            return Err(Error::BadData {
                path: root.to_string(),
                why: newer.to_string(),
            });
        }
        Err(BadData::Json(why)) => {
            tracing::warn!(root, %why, "the counter is not readable; counting on from the highest number in use");
            0
        }
    };
    let fresh = next == 0;
    let next = if fresh {
        next.max(behind_highest(term, root).await?)
    } else {
        next
    };
    Ok(Counter {
        next,
        version: stat.version,
    })
}

/// One more than the highest sequence or worker number in use; 0 when there is none.
pub(crate) async fn behind_highest(term: &Term, root: &str) -> Result<u64, Error> {
    if root == OWNED {
        let workers = workers(term).await?;
        return Ok(workers
            .iter()
            .max()
            .map_or(0, |worker| worker.0.saturating_add(1)));
    }
    let mut folders = vec![UNOWNED.to_string(), DONE.to_string()];
    folders.extend(workers(term).await?.into_iter().map(crate::layout::folder));
    let answers = term
        .ask_all(&folders, |client, path| client.get_children(path))
        .await?;
    let names = answers.into_iter().flatten().flat_map(|(names, _)| names);
    let sequences = names
        .filter_map(|name| name.parse::<EntryName>().ok())
        .map(|name| name.sequence);
    Ok(sequences.max().map_or(0, |highest| highest.saturating_add(1)))
}

async fn workers(term: &Term) -> Result<Vec<WorkerNumber>, Error> {
    match term.ask(OWNED, |client| client.get_children(OWNED)).await? {
        Ok((names, _)) => Ok(names.iter().filter_map(|name| name.parse().ok()).collect()),
        Err(zk::Error::NoNode) => Ok(Vec::new()),
        Err(failure) => Err(Error::refused(OWNED, failure)),
    }
}
