//! Where everything is: the only place that builds or parses a path.
//!
//! ```text
//! /unowned/entry-100-nginx:42-0000000017
//! /unowned/client-web7
//! /owned/dispatcher/candidate-0000000001
//! /owned/watcher/candidate-0000000002
//! /owned/worker-0000000004/alive
//! /owned/worker-0000000004/entry-100-nginx:42-0000000017
//! /owned/worker-0000000004/client-web8
//! /done/entry-100-nginx:42-0000000017
//! /rights
//! ```
//!
//! Paths are relative to the chroot of the connection string.

use std::{fmt, str::FromStr};

use model::{Name, entry::EntryName};

/// Entries nobody has claimed; data: the next sequence.
pub const UNOWNED: &str = "/unowned";
/// Who leads, who lives, who owns what; data: the next worker number.
pub const OWNED: &str = "/owned";
/// Ends that no watcher has recorded.
pub const DONE: &str = "/done";
/// Whose users each role has, where `sawmill init --acl` has given each its own.
pub const RIGHTS: &str = "/rights";
/// The three roots.
pub const ROOTS: [&str; 3] = [UNOWNED, OWNED, DONE];

/// The znode in a worker's folder that tells that it lives.
pub(crate) const ALIVE: &str = "alive";
const WORKER_PREFIX: &str = "worker-";
const CANDIDATE_PREFIX: &str = "candidate-";
const CLIENT_PREFIX: &str = "client-";

/// What somebody can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Office {
    /// Leads: feeds, recovers, revokes.
    Dispatcher,
    /// Records.
    Watcher,
}

impl Office {
    /// Both offices.
    pub const ALL: [Self; 2] = [Self::Dispatcher, Self::Watcher];

    /// The word for it: `dispatcher`, `watcher`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dispatcher => "dispatcher",
            Self::Watcher => "watcher",
        }
    }

    /// The folder of its candidates.
    pub fn path(self) -> &'static str {
        match self {
            Self::Dispatcher => "/owned/dispatcher",
            Self::Watcher => "/owned/watcher",
        }
    }
}

impl fmt::Display for Office {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Identifies one incarnation of a compute node; printed as the name of its folder, `worker-0000000004`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerNumber(pub u64);

impl fmt::Display for WorkerNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{WORKER_PREFIX}{:010}", self.0)
    }
}

/// A znode name that is no worker's folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no worker: expected worker-NNNNNNNNNN")]
pub struct BadWorkerName(pub String);

impl FromStr for WorkerNumber {
    type Err = BadWorkerName;

    fn from_str(text: &str) -> Result<Self, BadWorkerName> {
        numbered(text, WORKER_PREFIX)
            .map(Self)
            .ok_or_else(|| BadWorkerName(text.to_string()))
    }
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In `/unowned`.
    Unowned,
    /// In the folder of a worker.
    Owned(WorkerNumber),
    /// In `/done`.
    Done,
}

impl Place {
    /// The folder.
    pub fn path(self) -> String {
        match self {
            Self::Unowned => UNOWNED.to_string(),
            Self::Owned(worker) => folder(worker),
            Self::Done => DONE.to_string(),
        }
    }

    /// The path of an agent there; none are in `/done`.
    pub fn client(self, name: &Name) -> String {
        format!("{}/{CLIENT_PREFIX}{name}", self.path())
    }

    /// The path of an entry there.
    pub fn entry(self, name: &EntryName) -> String {
        match self {
            Self::Unowned => format!("{UNOWNED}/{name}"),
            Self::Owned(worker) => format!("{OWNED}/{worker}/{name}"),
            Self::Done => format!("{DONE}/{name}"),
        }
    }
}

/// The folder of a worker.
pub fn folder(worker: WorkerNumber) -> String {
    format!("{OWNED}/{worker}")
}

/// The znode that tells that a worker lives.
pub fn alive(worker: WorkerNumber) -> String {
    format!("{OWNED}/{worker}/{ALIVE}")
}

/// The path of a candidate.
pub fn candidate(office: Office, name: &str) -> String {
    format!("{}/{name}", office.path())
}

/// The path that ZooKeeper completes with a sequence.
pub(crate) fn candidate_prefix(office: Office) -> String {
    candidate(office, CANDIDATE_PREFIX)
}

/// The sequence of a candidate by the name of its znode; none for other znodes.
pub fn candidate_sequence(name: &str) -> Option<u64> {
    numbered(name, CANDIDATE_PREFIX)
}

/// Whether a znode name is that of an agent.
pub fn is_client(name: &str) -> bool {
    name.strip_prefix(CLIENT_PREFIX)
        .is_some_and(|rest| !rest.is_empty())
}

/// The agent that a znode stands for; none for other znodes.
pub fn client_name(name: &str) -> Option<Name> {
    Name::new(name.strip_prefix(CLIENT_PREFIX)?).ok()
}

/// The parent of a path.
pub(crate) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}

/// `{prefix}{number:010}`, and nothing else that a number could be written as.
fn numbered(text: &str, prefix: &str) -> Option<u64> {
    let digits = text.strip_prefix(prefix)?;
    let canonical = digits.len() == 10 || (digits.len() > 10 && !digits.starts_with('0'));
    if canonical && digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_print_and_parse_back() {
        for number in [0, 4, 9_999_999_999, 10_000_000_000, u64::MAX] {
            let worker = WorkerNumber(number);
            assert_eq!(worker.to_string().parse(), Ok(worker));
        }
        for bad in [
            "worker-4",
            "worker-+000000004",
            "worker-00000000004",
            "worker-",
            "alive",
            "worker-000000000x",
        ] {
            assert!(bad.parse::<WorkerNumber>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_as_documented() {
        let entry: EntryName = "entry-100-nginx:42-0000000017".parse().unwrap();
        let worker = WorkerNumber(4);
        assert_eq!(
            Place::Unowned.entry(&entry),
            "/unowned/entry-100-nginx:42-0000000017"
        );
        assert_eq!(
            Place::Owned(worker).entry(&entry),
            "/owned/worker-0000000004/entry-100-nginx:42-0000000017"
        );
        assert_eq!(Place::Done.entry(&entry), "/done/entry-100-nginx:42-0000000017");
        assert_eq!(alive(worker), "/owned/worker-0000000004/alive");
        assert_eq!(
            candidate_prefix(Office::Dispatcher),
            "/owned/dispatcher/candidate-"
        );
        assert_eq!(candidate_sequence("candidate-0000000012"), Some(12));
        assert_eq!(candidate_sequence("candidate-x"), None);
        assert_eq!(parent("/owned/worker-0000000004"), "/owned");
        assert_eq!(parent("/owned"), "/");
        assert!(is_client("client-web7") && !is_client("client-"));
        let web7 = Name::new("web7").unwrap();
        assert_eq!(Place::Unowned.client(&web7), "/unowned/client-web7");
        assert_eq!(
            Place::Owned(worker).client(&web7),
            "/owned/worker-0000000004/client-web7"
        );
        assert_eq!(client_name("client-web7"), Some(web7));
        assert_eq!(client_name("client-a b"), None);
    }
}
