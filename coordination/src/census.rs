//! Listing the three places.
//!
//! Promise: a listing in the order of a takeover (`/unowned`, `/owned/*`, `/done`) misses no entry, since work only
//! moves that way. Called by the leader and by [`crate::inspect`].

use std::collections::{HashMap, HashSet};

use model::{
    Name,
    entry::EntryName,
    znode::{self, OwnedData, WorkerData},
};
use zookeeper_client as zk;

use crate::{
    error::Error,
    layout::{ALIVE, DONE, OWNED, Office, Place, UNOWNED, WorkerNumber, client_name, folder},
    listing::{self, ReadSize, Strange},
    term::Term,
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
    /// Agents in `/unowned` that wait for a worker.
    pub waiting: Vec<Name>,
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
    /// Agents that ship to it.
    pub clients: Vec<Name>,
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
        unowned
            .chain(owned)
            .chain(self.done.iter().map(|name| (name, Place::Done)))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.unowned.len()
            + self.done.len()
            + self
                .workers
                .iter()
                .map(|worker| worker.entries.len())
                .sum::<usize>()
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
        let owned = self
            .workers
            .iter()
            .flat_map(|worker| &worker.entries)
            .map(|name| name.sequence);
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
    let unowned = listing::root(term, UNOWNED).await?;
    let waiting = clients(&unowned);
    let unowned = listing::sort(UNOWNED, unowned, &mut strange);
    let workers = workers(term, &mut strange).await?;
    let done = listing::sort(DONE, listing::root(term, DONE).await?, &mut strange);
    let mut census = Census {
        before,
        unowned,
        workers,
        done,
        waiting,
        strange,
    };
    census.keep_last();
    Ok(census)
}

/// The agents among the names of a place.
fn clients(names: &[String]) -> Vec<Name> {
    names.iter().filter_map(|name| client_name(name)).collect()
}

/// The workers that have a folder, in the order of their numbers.
pub(crate) async fn workers(term: &Term, strange: &mut Vec<Strange>) -> Result<Vec<WorkerView>, Error> {
    let mut numbers = Vec::new();
    for name in listing::root(term, OWNED).await? {
        match name.parse::<WorkerNumber>() {
            Ok(number) => numbers.push(number),
            Err(_) if Office::ALL.iter().any(|office| office.as_str() == name) => {}
            Err(why) => strange.push(Strange {
                path: format!("{OWNED}/{name}"),
                why: why.to_string(),
            }),
        }
    }
    numbers.sort_unstable();
    let folders: Vec<String> = numbers.iter().map(|&number| folder(number)).collect();
    // Children before data: a folder that is gone by the second look was empty.
    let listed = term
        .ask_all(&folders, |client, path| client.get_children(path))
        .await?;
    let found = listing::read_data(term, &folders, &ReadSize::default()).await?;
    let mut views = Vec::with_capacity(numbers.len());
    for (((number, folder), names), data) in numbers.iter().copied().zip(&folders).zip(listed).zip(found) {
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
            strange.push(Strange {
                path: folder.clone(),
                why: why.clone(),
            });
        }
        let alive = names.iter().any(|name| name == ALIVE);
        views.push(WorkerView {
            number,
            data,
            alive,
            clients: clients(&names),
            entries: listing::sort(folder, names, strange),
        });
    }
    Ok(views)
}

/// Reads job, run and past of each entry of a census, where it is now.
pub(crate) async fn read_headers(term: &Term, census: &Census) -> Result<Vec<Header>, Error> {
    let mut open: Vec<(EntryName, Place)> = census
        .entries()
        .map(|(name, place)| (name.clone(), place))
        .collect();
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
            clients: Vec::new(),
        };
        let mut census = Census {
            unowned: vec![name(1), name(2), name(4)],
            workers: vec![worker],
            done: vec![name(3), name(4)],
            ..Census::default()
        };
        census.keep_last();
        let places: Vec<_> = census
            .entries()
            .map(|(name, place)| (name.sequence, place))
            .collect();
        let owned = Place::Owned(WorkerNumber(1));
        assert_eq!(
            places,
            [
                (1, Place::Unowned),
                (2, owned),
                (3, Place::Done),
                (4, Place::Done)
            ]
        );
        assert_eq!(census.len(), 4);
    }
}
