//! Looking at everything without changing anything; and the harness's way to begin anew.
//!
//! Promise: a listing in the order of a takeover (`/unowned`, `/owned/*`, `/done`) misses no entry, since work only
//! moves that way. Called by the leader, by `control` for status, doctor and audit, and by the harness.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use model::{
    entry::EntryName,
    znode::{self, CandidateData, OwnedData, WorkerData},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zookeeper_client as zk;

use crate::{
    batch::{self, Fate, Step},
    election,
    error::Error,
    layout::{DONE, OWNED, Office, Place, ROOTS, UNOWNED, WorkerNumber, folder, is_client},
    listing::{self, ReadSize, Strange},
    roots::{self, Counters},
    term::{Config, Term},
};

/// What is in the three places.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// The next sequence when it began: what is fed from then on need not be in it.
    pub before: u64,
    /// Entries in `/unowned`.
    pub unowned: Vec<EntryName>,
    /// All workers that have a folder, in the order of their numbers.
    pub workers: Vec<WorkerView>,
    /// Entries in `/done`.
    pub done: Vec<EntryName>,
    /// What has no business where it is; it was skipped.
    pub strange: Vec<Strange>,
}

/// A worker as seen from outside.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// Its number.
    pub number: WorkerNumber,
    /// Who it is, or why that can't be read.
    pub data: Result<WorkerData, String>,
    /// Whether it lives.
    pub alive: bool,
    /// What it holds.
    pub entries: Vec<EntryName>,
}

/// What an entry is and where: job, run and past, or why that can't be read.
pub type Header = (EntryName, Place, Result<OwnedData, String>);

impl Census {
    /// All entries with their places.
    pub fn entries(&self) -> impl Iterator<Item = (&EntryName, Place)> {
        let unowned = self.unowned.iter().map(|name| (name, Place::Unowned));
        let owned = self.workers.iter().flat_map(|worker| {
            let place = Place::Owned(worker.number);
            worker.entries.iter().map(move |name| (name, place))
        });
        unowned.chain(owned).chain(self.done.iter().map(|name| (name, Place::Done)))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.unowned.len() + self.done.len() + self.workers.iter().map(|worker| worker.entries.len()).sum::<usize>()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Leaves each entry only in the last place it was seen in: it moved while the places were listed.
    fn keep_last(&mut self) {
        let done: HashSet<u64> = self.done.iter().map(|name| name.sequence).collect();
        for worker in &mut self.workers {
            worker.entries.retain(|name| !done.contains(&name.sequence));
        }
        let owned = self.workers.iter().flat_map(|worker| &worker.entries).map(|name| name.sequence);
        let later: HashSet<u64> = owned.chain(done.iter().copied()).collect();
        self.unowned.retain(|name| !later.contains(&name.sequence));
    }
}

/// Lists the three places in the order of a takeover.
///
/// # Errors
/// [`Error::RootMissing`], [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
pub(crate) async fn census(term: &Term, before: u64) -> Result<Census, Error> {
    let mut strange = Vec::new();
    let unowned = listing::sort(UNOWNED, listing::root(term, UNOWNED).await?, &mut strange);
    let mut numbers = Vec::new();
    for name in listing::root(term, OWNED).await? {
        match name.parse::<WorkerNumber>() {
            Ok(number) => numbers.push(number),
            Err(_) if Office::ALL.iter().any(|office| office.as_str() == name) => {}
            Err(why) => strange.push(Strange { path: format!("{OWNED}/{name}"), why: why.to_string() }),
        }
    }
    numbers.sort_unstable();
    let workers = workers(term, &numbers, &mut strange).await?;
    let done = listing::sort(DONE, listing::root(term, DONE).await?, &mut strange);
    let mut census = Census { before, unowned, workers, done, strange };
    census.keep_last();
    Ok(census)
}

async fn workers(
    term: &Term,
    numbers: &[WorkerNumber],
    strange: &mut Vec<Strange>,
) -> Result<Vec<WorkerView>, Error> {
    let folders: Vec<String> = numbers.iter().map(|&number| folder(number)).collect();
    // Children before data: a folder that is gone by the second look was empty.
    let listed = term.ask_all(&folders, |client, path| client.get_children(path)).await?;
    let found = listing::read_data(term, &folders, &ReadSize::default()).await?;
    let mut views = Vec::with_capacity(numbers.len());
    for (((&number, folder), names), data) in numbers.iter().zip(&folders).zip(listed).zip(found) {
        let names = match names {
            Ok((names, _)) => names,
            Err(zk::Error::NoNode) => continue,
            Err(failure) => return Err(Error::refused(folder, failure)),
        };
        let data = match data.map(|data| znode::decode::<WorkerData>(&data)) {
            Some(Ok(data)) => Ok(data),
            Some(Err(why)) => Err(why.to_string()),
            None => continue,
        };
        if let Err(why) = &data {
            strange.push(Strange { path: folder.clone(), why: why.clone() });
        }
        let alive = names.iter().any(|name| name == crate::layout::ALIVE);
        views.push(WorkerView { number, data, alive, entries: listing::sort(folder, names, strange) });
    }
    Ok(views)
}

/// Reads job, run and past of each entry of a census, where it is now.
pub(crate) async fn read_headers(term: &Term, census: &Census) -> Result<Vec<Header>, Error> {
    let mut open: Vec<(EntryName, Place)> =
        census.entries().map(|(name, place)| (name.clone(), place)).collect();
    let mut headers = Vec::with_capacity(open.len());
    let size = ReadSize::default();
    loop {
        let paths: Vec<String> = open.iter().map(|(name, place)| place.entry(name)).collect();
        let found = listing::read_data(term, &paths, &size).await?;
        let mut moved = HashMap::new();
        for ((name, place), data) in open.into_iter().zip(found) {
            match data {
                Some(data) => {
                    let read = znode::decode::<OwnedData>(&data).map_err(|why| why.to_string());
                    headers.push((name, place, read));
                }
                // What has left `/done` is recorded.
                None if place == Place::Done => {}
                None => {
                    moved.insert(name.sequence, name);
                }
            }
        }
        if moved.is_empty() {
            return Ok(headers);
        }
        let now = self::census(term, census.before).await?;
        open = now
            .entries()
            .filter(|(name, _)| moved.get(&name.sequence) == Some(name))
            .map(|(name, place)| (name.clone(), place))
            .collect();
        if open.is_empty() {
            return Ok(headers);
        }
    }
}

/// A candidate as seen from outside.
#[derive(Clone, Debug)]
pub struct CandidateView {
    /// Name of its znode: `candidate-0000000001`.
    pub name: String,
    /// Who it is, or why that can't be read.
    pub data: Result<CandidateData, String>,
}

/// A root as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootView {
    /// Its path.
    pub path: &'static str,
    /// How many children it has; none where it does not exist.
    pub children: Option<usize>,
}

/// Everything at once, for status, doctor and audit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What is in the three places; a missing root counts as empty.
    pub census: Census,
    /// Dispatchers in the order of their sequences; the first leads.
    pub dispatchers: Vec<CandidateView>,
    /// Watchers in the order of their sequences.
    pub watchers: Vec<CandidateView>,
    /// Agents in `/unowned` that wait for a worker.
    pub clients: Vec<String>,
    /// The three roots.
    pub roots: Vec<RootView>,
}

impl Snapshot {
    /// Looks at everything.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn take(term: &Term) -> Result<Self, Error> {
        let mut views = Vec::new();
        let mut clients = Vec::new();
        for path in ROOTS {
            let found = listing::children(term, path).await?;
            if let Some((names, _)) = &found
                && path == UNOWNED
            {
                clients.extend(names.iter().filter(|name| is_client(name)).cloned());
            }
            views.push(RootView { path, children: found.map(|(names, _)| names.len()) });
        }
        let before = match roots::read(term, UNOWNED).await {
            Ok(counter) => counter.next,
            Err(Error::RootMissing { .. } | Error::BadData { .. }) => 0,
            Err(failure) => return Err(failure),
        };
        let census = match census(term, before).await {
            Err(Error::RootMissing { .. }) => Census::default(),
            census => census?,
        };
        let dispatchers = candidates(term, Office::Dispatcher).await?;
        let watchers = candidates(term, Office::Watcher).await?;
        Ok(Self { census, dispatchers, watchers, clients, roots: views })
    }

    /// Reads job, run and past of each entry, where it is now. What was recorded meanwhile is left out.
    ///
    /// # Errors
    /// As [`Snapshot::take`].
    pub async fn read_headers(&self, term: &Term) -> Result<Vec<Header>, Error> {
        read_headers(term, &self.census).await
    }
}

async fn candidates(term: &Term, office: Office) -> Result<Vec<CandidateView>, Error> {
    let all = election::listed(term, office).await?;
    let view = |candidate: election::Listed| CandidateView {
        name: candidate.name,
        data: znode::decode(&candidate.data).map_err(|why| why.to_string()),
    };
    Ok(all.into_iter().map(view).collect())
}

/// How often the tree is listed again while others add to it.
const DELETE_ROUNDS: u32 = 20;

/// Deletes the three roots with all that is in them, whoever put it there, and creates them anew.
///
/// The counters go on where they were, so that no name is used twice. Live workers and leaders notice and begin new
/// terms. Dropped half-way, some of it is deleted; repeat it.
///
/// # Errors
/// [`Error::LiveWorkers`] when a live worker holds entries and `force` is not given; nothing is changed then.
/// [`Error::Contended`] when others add faster than this deletes; [`Error::TermOver`], [`Error::Disconnected`],
/// [`Error::NoAuth`].
pub async fn recreate(term: &Term, force: bool) -> Result<(), Error> {
    match census(term, 0).await {
        Ok(census) => {
            let owning = census.workers.iter().filter(|worker| worker.alive && !worker.entries.is_empty());
            let workers: Vec<WorkerNumber> = owning.map(|worker| worker.number).collect();
            if !workers.is_empty() && !force {
                return Err(Error::LiveWorkers { workers });
            }
        }
        Err(Error::RootMissing { .. }) => {}
        Err(failure) => return Err(failure),
    }
    let counter = async |root| match roots::read(term, root).await {
        Ok(counter) => Ok(counter.next),
        Err(Error::RootMissing { .. } | Error::BadData { .. }) => Ok(0),
        Err(failure) => Err(failure),
    };
    let counters = Counters { sequence: counter(UNOWNED).await?, worker: counter(OWNED).await? };
    for _ in 0..DELETE_ROUNDS {
        let mut paths = Vec::new();
        for root in ROOTS {
            below(term, root, &mut paths).await?;
        }
        // Deepest first.
        paths.reverse();
        let steps: Vec<Step> = paths.into_iter().map(|delete| Step { delete, create: None }).collect();
        let fates = batch::carry_out(term, None, &steps).await?;
        if !fates.iter().any(|fate| matches!(fate, Fate::Stuck(_))) {
            return roots::ensure(term, counters).await;
        }
    }
    Err(Error::Contended { path: OWNED.to_string(), tries: DELETE_ROUNDS })
}

/// Adds a znode and all below it to `paths`, parents before children.
async fn below(term: &Term, top: &str, paths: &mut Vec<String>) -> Result<(), Error> {
    let mut level = vec![top.to_string()];
    while !level.is_empty() {
        let listed = term.ask_all(&level, |client, path| client.get_children(path)).await?;
        let mut next = Vec::new();
        for (path, names) in level.into_iter().zip(listed) {
            match names {
                Ok((names, _)) => {
                    next.extend(names.iter().map(|name| format!("{path}/{name}")));
                    paths.push(path);
                }
                Err(zk::Error::NoNode) => {}
                Err(failure) => return Err(Error::refused(path, failure)),
            }
        }
        level = next;
    }
    Ok(())
}

/// What a ZooKeeper server says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// For instance `3.8.0`.
    pub version: String,
    /// `standalone`, `leader` or `follower`.
    pub mode: String,
    /// How many znodes it holds.
    pub znodes: u64,
}

/// How long a server may take to answer `srvr`.
const SRVR_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks each server of the connection string about itself (the command `srvr`), without a session.
///
/// Gives address and answer, or why there is none: not allowed by the server, TLS, not reachable.
pub async fn servers(config: &Config) -> Vec<(String, Result<ServerInfo, String>)> {
    let (addresses, _) = config.split();
    let asking = addresses.split(',').map(|address| async move {
        let answer = match tokio::time::timeout(SRVR_TIMEOUT, srvr(address)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {SRVR_TIMEOUT:?}")),
        };
        (address.to_string(), answer)
    });
    futures::future::join_all(asking).await
}

async fn srvr(address: &str) -> Result<ServerInfo, String> {
    if address.starts_with("tcp+tls://") {
        return Err("the server speaks TLS, which this look does not".into());
    }
    let address = address.trim_start_matches("tcp://");
    let address = if address.contains(':') { address.to_string() } else { format!("{address}:2181") };
    let mut stream = tokio::net::TcpStream::connect(&address).await.map_err(|failure| failure.to_string())?;
    let mut answer = String::new();
    let talk = async {
        stream.write_all(b"srvr").await?;
        stream.read_to_string(&mut answer).await
    };
    talk.await.map_err(|failure| failure.to_string())?;
    parse_srvr(&answer).ok_or_else(|| format!("an answer that is none: {:?}", answer.lines().next().unwrap_or_default()))
}

fn parse_srvr(answer: &str) -> Option<ServerInfo> {
    let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let version = field("Zookeeper version:")?;
    let version = version.split(['-', ',']).next().unwrap_or(version).to_string();
    Some(ServerInfo {
        version,
        mode: field("Mode:")?.to_string(),
        znodes: field("Node count:").and_then(|count| count.parse().ok()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(sequence: u64) -> EntryName {
        format!("entry-100-d:1-{sequence:010}").parse().unwrap()
    }

    #[test]
    fn an_entry_counts_once_where_it_is_last() {
        let worker = WorkerView {
            number: WorkerNumber(1),
            data: Err(String::new()),
            alive: true,
            entries: vec![name(2), name(3)],
        };
        let mut census = Census {
            unowned: vec![name(1), name(2), name(4)],
            workers: vec![worker],
            done: vec![name(3), name(4)],
            ..Census::default()
        };
        census.keep_last();
        let places: Vec<_> = census.entries().map(|(name, place)| (name.sequence, place)).collect();
        let owned = Place::Owned(WorkerNumber(1));
        assert_eq!(places, [(1, Place::Unowned), (2, owned), (3, Place::Done), (4, Place::Done)]);
        assert_eq!(census.len(), 4);
    }

    #[test]
    fn srvr_is_read() {
        let answer = "Zookeeper version: 3.8.0-5a02a05eddb59aee6ac762f7ea82e92a68eb9c0f, built on x\n\
                      Latency min/avg/max: 0/0.0/0\nMode: standalone\nNode count: 5\n";
        let expected = ServerInfo { version: "3.8.0".into(), mode: "standalone".into(), znodes: 5 };
        assert_eq!(parse_srvr(answer), Some(expected));
        assert_eq!(parse_srvr("srvr is not executed because it is not in the whitelist."), None);
    }
}
