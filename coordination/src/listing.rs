//! Listing a place and reading many znodes, each in few requests.

use std::sync::atomic::{AtomicUsize, Ordering};

use model::{
    entry::EntryName,
    limits::{ENTRY_BYTES, MULTI_BYTES},
};
use zookeeper_client as zk;
use zookeeper_client::{MultiReadResult, Stat};

use crate::{
    batch::IN_FLIGHT,
    error::{Error, is_lost_reply},
    layout::{ALIVE, is_client},
    term::Term,
};

/// The entries of a place, in no order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<EntryName>,
    /// How many other znodes are there that have no business there.
    pub strange: usize,
}

/// A znode that is not what belongs there; it is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strange {
    /// Where it is.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

/// Sorts the names under `folder` into entries and what is strange; agents and `alive` are neither.
pub(crate) fn sort(folder: &str, names: Vec<String>, strange: &mut Vec<Strange>) -> Vec<EntryName> {
    let mut entries = Vec::with_capacity(names.len());
    for name in names {
        match name.parse::<EntryName>() {
            Ok(entry) => entries.push(entry),
            Err(_) if is_client(&name) || name == ALIVE => {}
            Err(why) => strange.push(Strange {
                path: format!("{folder}/{name}"),
                why: why.to_string(),
            }),
        }
    }
    entries
}

/// Names and stat of a folder; none where it does not exist.
pub(crate) async fn children(term: &Term, folder: &str) -> Result<Option<(Vec<String>, Stat)>, Error> {
    match term.ask(folder, |client| client.get_children(folder)).await? {
        Ok(found) => Ok(Some(found)),
        Err(zk::Error::NoNode) => Ok(None),
        Err(failure) => Err(Error::refused(folder, failure)),
    }
}

/// Names of a root that must exist.
pub(crate) async fn root(term: &Term, path: &str) -> Result<Vec<String>, Error> {
    match children(term, path).await? {
        Some((names, _)) => Ok(names),
        None => Err(Error::RootMissing {
            path: path.to_string(),
        }),
    }
}

/// A znode that was found below another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: String,
    /// The session that it ends with; 0 for one that stays.
    pub(crate) owner: i64,
    /// Version of its data.
    pub(crate) version: i32,
}

/// Adds a znode and all below it to `found`, parents before children.
pub(crate) async fn below(term: &Term, top: &str, found: &mut Vec<Found>) -> Result<(), Error> {
    let mut level = vec![top.to_string()];
    while !level.is_empty() {
        let listed = term
            .ask_all(&level, |client, path| client.get_children(path))
            .await?;
        let mut next = Vec::new();
        for (path, names) in level.into_iter().zip(listed) {
            match names {
                Ok((names, stat)) => {
                    next.extend(names.iter().map(|name| format!("{path}/{name}")));
                    found.push(Found {
                        path,
                        owner: stat.ephemeral_owner,
                        version: stat.version,
                    });
                }
                Err(zk::Error::NoNode) => {}
                Err(failure) => return Err(Error::refused(path, failure)),
            }
        }
        level = next;
    }
    Ok(())
}

/// Most znodes read in one request.
const MOST_PER_READ: usize = 256;

/// How large the znodes of a place have been lately, so that a reply stays below the size of a packet.
#[derive(Debug)]
pub(crate) struct ReadSize {
    expected_bytes: AtomicUsize,
}

impl Default for ReadSize {
    fn default() -> Self {
        Self {
            expected_bytes: AtomicUsize::new(ENTRY_BYTES),
        }
    }
}

impl ReadSize {
    fn per_request(&self) -> usize {
        let bytes = self.expected_bytes.load(Ordering::Relaxed).max(1);
        (MULTI_BYTES / bytes).clamp(1, MOST_PER_READ)
    }

    /// Learns quickly that znodes are large, and slowly that they are small.
    fn learn(&self, largest: usize) {
        let before = self.expected_bytes.load(Ordering::Relaxed);
        self.expected_bytes
            .store(largest.saturating_add(128).max(before / 4), Ordering::Relaxed);
    }
}

/// Data and stat of each path, in their order; none where there is no such znode.
pub(crate) async fn read(
    term: &Term,
    paths: &[String],
    size: &ReadSize,
) -> Result<Vec<Option<(Vec<u8>, Stat)>>, Error> {
    let mut found = Vec::with_capacity(paths.len());
    let mut losses = 0;
    while found.len() < paths.len() {
        let round = found.len();
        let (mut largest, mut lost) = (0, None);
        {
            let client = term.client()?;
            let mut sent = Vec::new();
            for chunk in paths[round..].chunks(size.per_request()).take(IN_FLIGHT) {
                let mut reader = client.new_multi_reader();
                for path in chunk {
                    reader
                        .add_get_data(path)
                        .map_err(|failure| Error::refused(path, failure))?;
                }
                sent.push((chunk, reader.commit()));
            }
            for (chunk, reply) in sent {
                match term.wait(reply).await? {
                    Ok(results) => {
                        for (path, result) in chunk.iter().zip(results) {
                            found.push(data_of(path, result)?);
                            largest =
                                largest.max(found.last().and_then(Option::as_ref).map_or(0, |f| f.0.len()));
                        }
                    }
                    Err(failure) if is_lost_reply(&failure) => {
                        lost = Some(failure);
                        break;
                    }
                    Err(failure) => return Err(Error::refused(&chunk[0], failure)),
                }
            }
        }
        size.learn(largest);
        if let Some(failure) = lost {
            term.after_loss(&mut losses, &paths[found.len()], &failure)
                .await?;
        }
    }
    Ok(found)
}

fn data_of(path: &str, result: MultiReadResult) -> Result<Option<(Vec<u8>, Stat)>, Error> {
    match result {
        MultiReadResult::Data { data, stat } => Ok(Some((data, stat))),
        MultiReadResult::Error {
            err: zk::Error::NoNode,
        } => Ok(None),
        MultiReadResult::Error { err } => Err(Error::refused(path, err)),
        other => {
            let failure = zk::Error::UnexpectedError(format!("a read of data was answered by {other:?}"));
            Err(Error::refused(path, failure))
        }
    }
}

/// As [`read`], without the stats.
pub(crate) async fn read_data(
    term: &Term,
    paths: &[String],
    size: &ReadSize,
) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let found = read(term, paths, size).await?;
    Ok(found.into_iter().map(|item| item.map(|(data, _)| data)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_stays_small() {
        let size = ReadSize::default();
        assert_eq!(size.per_request(), 4, "nothing is known yet");
        for _ in 0..10 {
            size.learn(300);
        }
        assert_eq!(size.per_request(), MOST_PER_READ);
        size.learn(ENTRY_BYTES);
        assert_eq!(size.per_request(), 3);
    }

    #[test]
    fn garbage_is_sorted_out() {
        let names = [
            "entry-100-d:1-0000000007",
            "client-web7",
            "alive",
            "hello",
            "entry-1-d:1-0000000007",
        ];
        let mut strange = Vec::new();
        let entries = sort("/unowned", names.map(String::from).to_vec(), &mut strange);
        assert_eq!(entries.len(), 1);
        let paths: Vec<_> = strange.iter().map(|strange| strange.path.as_str()).collect();
        assert_eq!(paths, ["/unowned/hello", "/unowned/entry-1-d:1-0000000007"]);
    }
}
