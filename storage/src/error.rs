//! What can go wrong in MongoDB and in the block store, told so that a caller can act on it.

use std::path::PathBuf;

use mongodb::error::{
    Error as Driver, ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT, WriteFailure,
};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// MongoDB did not answer, or answered with an error.
    #[error("MongoDB at {address}, {doing}: {}", sentence(.source))]
    Mongo {
        /// Hosts of the connection string, without user and password.
        address: String,
        /// What was asked of it.
        doing: String,
        /// What the driver says.
        source: Box<Driver>,
    },
    /// The connection string can't be used.
    #[error("bad MongoDB address {address:?}: {why}")]
    BadUri {
        /// The connection string without its password.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// A MongoDB without transactions.
    #[error(
        "MongoDB at {address} is no replica set, which transactions need: start mongod with --replSet rs0 and run \
         rs.initiate() once (one member is enough)"
    )]
    NoReplicaSet {
        /// Hosts of the connection string.
        address: String,
    },
    /// Written by a newer Sawmill.
    #[error(
        "{what} has format {found}, newer than {}, the newest that Sawmill {} knows: upgrade it, everywhere to the newest release \
         that is in use",
        model::FORMAT,
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The collection, and the document where it is a single one.
        what: String,
        /// Its format number.
        found: i64,
    },
    /// A document that is not what belongs there.
    #[error("can't read {what}: {why}")]
    Decode {
        /// The collection and the document.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// No such job, dataset or result.
    #[error("no such {what}")]
    NotFound {
        /// What was looked for, as in `job 0198…`.
        what: String,
    },
    /// More than one job has an id that starts so.
    #[error("{prefix:?} may be any of {}", .matches.join(", "))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// Some of the jobs it may mean.
        matches: Vec<String>,
    },
    /// A name that is taken.
    #[error("dataset {name} exists already")]
    Exists {
        /// The dataset.
        name: String,
    },
    /// A name that something else has.
    #[error("{what} exists already: choose another name, or remove what has it")]
    Taken {
        /// What has it.
        what: String,
    },
    /// A dataset that unfinished jobs use.
    #[error("dataset {name} is in use by {jobs} unfinished jobs, {example} among them")]
    InUse {
        /// The dataset.
        name: String,
        /// How many jobs.
        jobs: u64,
        /// One of them.
        example: String,
    },
    /// What was added last to a dataset can't be taken back.
    #[error("what was added last to dataset {name} can't be taken back: {why}")]
    Irrevocable {
        /// The dataset.
        name: String,
        /// What is in the way.
        why: &'static str,
    },
    /// Somebody else has been appending to the dataset.
    #[error("dataset {name} was changed by somebody else at the same time")]
    Concurrent {
        /// The dataset.
        name: String,
    },
    /// A later leader has taken office; nothing was written.
    #[error("epoch {epoch} is over: another dispatcher has taken office")]
    Deposed {
        /// The epoch that is over.
        epoch: u64,
    },
    /// This machine's clock or MongoDB's is wrong: nothing is removed by age.
    #[error(
        "nothing was removed: this machine's clock is {} s {} MongoDB's, and it is not known which of them is right; keep both in step \
         with NTP",
        .ahead_ms.unsigned_abs().div_ceil(1000),
        if *.ahead_ms < 0 { "behind" } else { "ahead of" }
    )]
    ClocksApart {
        /// How far this machine's is ahead, in milliseconds.
        ahead_ms: i64,
    },
    /// A file or object is no longer what it was when it was added.
    #[error("{url} has changed since it was added: it was {was}, it is {is}")]
    Changed {
        /// The file or object.
        url: String,
        /// Size and time then.
        was: String,
        /// Size and time now.
        is: String,
    },
    /// Something that can't be split into lines.
    #[error("{path} is {what}, not a file")]
    NotAFile {
        /// Its path.
        path: String,
        /// What it is, with an article.
        what: &'static str,
    },
    /// The operating system said no.
    #[error("{doing} {}: {source}", .path.display())]
    Io {
        /// What was tried, as in `can't read`.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The block store said no.
    #[error("{doing} {url}: {source}")]
    Object {
        /// What was tried, as in `can't read`.
        doing: &'static str,
        /// On which object.
        url: String,
        /// What the store says.
        source: Box<object_store::Error>,
    },
    /// An object that was read back is not what was written.
    #[error("{url} is not what was written to it: the block store gives back other bytes")]
    Corrupt {
        /// The object.
        url: String,
    },
    /// A block that only nodes keep is corrupted on some of them, and no other gives a good copy.
    #[error(
        "block {key} is corrupted, and no node gives a good copy of it: {why}; bring back a node that has one, or put one in its \
         place from a backup"
    )]
    Broken {
        /// What they keep it under.
        key: String,
        /// What each of them said.
        why: String,
    },
    /// No node has a block that only nodes keep: all that were to keep it are away or do not have it.
    #[error("no node gives block {key}: {why}")]
    NoHost {
        /// What they keep it under.
        key: String,
        /// What each of them said.
        why: String,
    },
    /// There are no nodes for a block.
    #[error(transparent)]
    Misplaced(#[from] model::place::Misplaced),
    /// A node that was to keep a block does not.
    #[error("can't place block {key}: {why}")]
    Unplaced {
        /// What it was to be kept under.
        key: String,
        /// The node, and what it said.
        why: String,
    },
    /// A directory in which another node keeps blocks.
    #[error(
        "{} holds the blocks of node {owner}: give each node a directory of its own; if this is that node, start it with --name \
         and that name", .path.display()
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// A name that no collection of an answer can have.
    #[error("an answer can't be kept in a collection {name:?}: {why}")]
    BadCollection {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A URL that leads nowhere.
    #[error("bad URL {url:?}: {why}")]
    BadUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Mongo { source, .. } => {
                is_unreachable(source) || is_transient(source) || code(source).is_some_and(passes_by)
            }
            Self::Concurrent { .. } => true,
            Self::Object { source, .. } => matches!(**source, object_store::Error::Generic { .. }),
            _ => false,
        }
    }

    /// Whether the nodes that keep a block do not give it.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::NoHost { .. })
    }

    /// Whether a file or an object is not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Object { source, .. } => matches!(**source, object_store::Error::NotFound { .. }),
            _ => false,
        }
    }

    /// Whether MongoDB could not be reached at all.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Mongo { source, .. } if is_unreachable(source))
    }

    /// Whether a transaction should be tried again from its beginning at once.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Mongo { source, .. } if is_transient(source))
    }

    /// Whether the call may have had its effect although it failed.
    pub fn outcome_unknown(&self) -> bool {
        let Self::Mongo { source, .. } = self else {
            return false;
        };
        matches!(
            *source.kind,
            ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. }
        ) || source.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
            || code(source) == Some(INTERRUPTED)
    }
}

/// The server's or the driver's own words, without the debug output around them.
fn sentence(error: &Driver) -> String {
    match &*error.kind {
        ErrorKind::Command(command) => format!("{} (code {})", command.message, command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => {
            format!("{} (code {})", write.message, write.code)
        }
        ErrorKind::ServerSelection { message, .. } => {
            // "Server selection timeout: No available servers. Topology: {…}" and a page of topology.
            let cause = message.split_once("Error: ").map(|(_, cause)| {
                let cause = cause.split_once(", labels: ").map_or(cause, |(cause, _)| cause);
                cause
                    .trim_start_matches("Kind: ")
                    .trim_end_matches([' ', '}', ']'])
            });
            format!(
                "no server answers{}",
                cause.map(|cause| format!(" ({cause})")).unwrap_or_default()
            )
        }
        other => other.to_string(),
    }
}

pub(crate) fn is_unreachable(error: &Driver) -> bool {
    matches!(
        *error.kind,
        ErrorKind::Io(_)
            | ErrorKind::ServerSelection { .. }
            | ErrorKind::ConnectionPoolCleared { .. }
            | ErrorKind::DnsResolve { .. }
    )
}

/// Whether a transaction should be tried again from its beginning at once. Not where the server is gone, which the
/// driver calls transient too: how long to wait for it is the caller's business.
///
/// MongoDB puts its label on conflicts and on transactions that it ended itself, not on those that somebody else ended
/// while a statement of theirs was under way.
pub(crate) fn is_transient(error: &Driver) -> bool {
    let known = |code| matches!(code, WRITE_CONFLICT | NO_SUCH_TRANSACTION) || is_ended(code);
    let is_so = error.contains_label(TRANSIENT_TRANSACTION_ERROR) || code(error).is_some_and(known);
    is_so && !is_unreachable(error)
}

/// Whether somebody ended what the server was doing: a session was killed, an operation, a cursor, or the server became a
/// secondary. Reading anew gives what was to be read.
pub(crate) fn is_ended(code: i32) -> bool {
    matches!(
        code,
        CURSOR_NOT_FOUND | QUERY_PLAN_KILLED | CURSOR_KILLED | INTERRUPTED
    )
}

const WRITE_CONFLICT: i32 = 112;
const NO_SUCH_TRANSACTION: i32 = 251;
const CURSOR_NOT_FOUND: i32 = 43;
const QUERY_PLAN_KILLED: i32 = 175;
const CURSOR_KILLED: i32 = 237;
/// MongoDB's code for what was going on in a session, or an operation, that somebody ended.
pub(crate) const INTERRUPTED: i32 = 11_601;
/// MongoDB's code for a key that is there already.
pub(crate) const DUPLICATE_KEY: i32 = 11_000;

/// Not primary, shutting down, stepping down, host unreachable, network timeout, a conflict, the time limit.
pub(crate) fn passes_by(code: i32) -> bool {
    is_ended(code)
        || matches!(
            code,
            6 | 7
                | 24
                | 50
                | 89
                | 91
                | 112
                | 189
                | 251
                | 262
                | 9001
                | 10_107
                | 11_600
                | 11_602
                | 13_435
                | 13_436
        )
}

/// The server's number for what went wrong.
pub(crate) fn code(error: &Driver) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Some(concern.code),
        ErrorKind::InsertMany(many) => many
            .write_errors
            .as_ref()
            .and_then(|errors| errors.first())
            .map(|error| error.code),
        _ => None,
    }
}
