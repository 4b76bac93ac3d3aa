//! What ends an agent, or keeps it from starting.

use std::{io, path::PathBuf};

/// Why an agent can't go on. What passes by itself (nobody there, a full store) is waited for and not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the state directory that can't be read or written.
    #[error("can't use {path}: {source}")]
    State {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error(
        "the state directory {path} is in use by another process: stop it, or give this one another --name or --state"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file of the state directory that is not what it should be.
    #[error(
        "{path} can't be understood ({why}): move the directory away to begin anew, which ships again what is there"
    )]
    BadState {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A block of the spool that can't be read.
    #[error(
        "{path} can't be read ({why}), and what is in it may be shipped already, so nothing else may take its number: mend \
         that, or move the state directory away to begin anew, which ships again what is there"
    )]
    BadBlock {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The directory belongs to another mill.
    #[error(
        "the state directory {path} belongs to mill {ours}, met at {met_at}, but {server} is of mill {theirs}: nothing was \
         sent, and what waits in the spool stays; give this mill a state directory of its own with --state, or remove the \
         directory if the other mill is gone, which ships again what is there"
    )]
    OtherMill {
        /// The directory.
        path: PathBuf,
        /// Its mill.
        ours: String,
        /// The dispatcher at which that was met first.
        met_at: String,
        /// The mill that answers.
        theirs: String,
        /// The dispatcher that was asked.
        server: String,
    },
    /// The directory belongs to an agent of another name.
    #[error("the state directory {path} is that of agent {owner}: give another with --state")]
    OtherAgent {
        /// The directory.
        path: PathBuf,
        /// Its agent.
        owner: String,
    },
    /// The mill has registered more than this directory knows of.
    #[error(
        "dataset {dataset}: {registered} blocks of this agent are registered, but its state directory knows of {known} \
         only, as if it were an old copy: move it away to begin anew, which ships again what is there"
    )]
    Outdated {
        /// Which dataset.
        dataset: String,
        /// Blocks that the mill has.
        registered: u64,
        /// Blocks that the directory has cut.
        known: u64,
    },
    /// A pattern of paths that is none.
    #[error("bad pattern {pattern:?}: {why}")]
    BadPattern {
        /// As given.
        pattern: String,
        /// What is wrong.
        why: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    BadConfig(String),
    /// A file that is to be shipped and can't be.
    #[error("can't ship {path}: {why}")]
    BadFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Nobody took what was to be shipped.
    #[error("no worker took the blocks: {why}")]
    NotTaken {
        /// What was tried last.
        why: String,
    },
    /// What was to be shipped is not taken, now or later.
    #[error("the blocks are refused: {why}")]
    Refused {
        /// By whom, and why.
        why: String,
    },
    /// The system refuses a thread.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
    /// A part of the agent panicked.
    #[error("the agent broke off: {0}")]
    Panicked(String),
}

impl Error {
    /// Whether the one who called has made a mistake.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::BadPattern { .. } | Self::BadConfig(_) | Self::OtherAgent { .. } | Self::BadFile { .. }
        )
    }
}
