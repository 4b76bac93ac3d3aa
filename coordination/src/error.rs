//! What can go wrong between a role and ZooKeeper, and the questions a caller asks about it.

use std::time::Duration;

use zookeeper_client as zk;

use crate::{layout::WorkerNumber, term::Ending};

/// Why a request to ZooKeeper gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The connection string does not parse.
    #[error("bad ZooKeeper address {connect:?}: {why}; expected HOST:PORT[,HOST:PORT…][/chroot]")]
    BadAddress {
        /// What was given.
        connect: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answered at the address.
    #[error("no ZooKeeper answers at {address} within {waited:?}: {why}")]
    Unreachable {
        /// `host:port[,host:port]`.
        address: String,
        /// How long was waited.
        waited: Duration,
        /// What was seen instead.
        why: String,
    },
    /// A certificate or key could not be used.
    #[error("the TLS file {path} can't be used: {why}")]
    BadTls {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The znode belongs to somebody else.
    #[error("no right to {path} in ZooKeeper: it belongs to others than the user of zookeeper_auth")]
    NoAuth {
        /// The znode.
        path: String,
    },
    /// The session is over, and with it the term.
    #[error("the term is over: {0}")]
    TermOver(Ending),
    /// The ephemeral or folder that made the caller who it is has gone: the term must end.
    #[error("{path} is gone from ZooKeeper: whoever held it has been replaced or removed")]
    Deposed {
        /// The znode that is gone.
        path: String,
    },
    /// The connection was lost again and again under the same request; it may have been carried out.
    #[error("the connection to ZooKeeper was lost {losses} times during a request to {path}")]
    Disconnected {
        /// Where the request went.
        path: String,
        /// How often it was sent.
        losses: u32,
    },
    /// One of the roots has been deleted; the leading dispatcher recreates it.
    #[error("{path} does not exist in ZooKeeper")]
    RootMissing {
        /// The root.
        path: String,
    },
    /// The data of a root is not what this release writes there.
    #[error("the data of {path} in ZooKeeper can't be used: {why}")]
    BadData {
        /// The znode.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Data that does not fit into a packet.
    #[error("{path} would have {bytes} bytes, more than the {limit} that fit into one transaction")]
    TooLarge {
        /// The znode.
        path: String,
        /// Bytes of its data.
        bytes: usize,
        /// The most there may be.
        limit: usize,
    },
    /// The worker is not dead.
    #[error("{0} is alive")]
    WorkerLives(WorkerNumber),
    /// Roles or agents are connected, and what was asked for is done only while none is.
    #[error(
        "roles or agents are connected ({}): stop them first; one that was killed counts until its session times out",
        first_of(.paths)
    )]
    LiveSessions {
        /// Their znodes: candidates, `alive` of workers, agents.
        paths: Vec<String>,
    },
    /// Too many others wrote the same znode at the same time.
    #[error("{path} in ZooKeeper changed {tries} times while it was being written")]
    Contended {
        /// The znode.
        path: String,
        /// How often it was tried.
        tries: u32,
    },
    /// Any other refusal of ZooKeeper.
    #[error("ZooKeeper refused a request to {path}: {source}")]
    Refused {
        /// The znode.
        path: String,
        /// What the client says.
        source: zk::Error,
    },
}

impl Error {
    /// Whether the same call may succeed later in the same term, without anybody changing anything by hand.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Disconnected { .. } | Self::RootMissing { .. } | Self::Contended { .. } => true,
            Self::Unreachable { .. } => true,
            Self::Refused { source, .. } => matches!(source, zk::Error::Throttled | zk::Error::NotReadOnly),
            _ => false,
        }
    }

    /// Whether the term is over: the session is gone, or the own ephemeral or folder. The caller begins a new term.
    pub fn session_lost(&self) -> bool {
        matches!(self, Self::TermOver(_) | Self::Deposed { .. })
    }

    /// Whether a write may have happened in spite of this error.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::TermOver(_) | Self::Disconnected { .. })
    }

    /// What a definite answer of the client about `path` means.
    pub(crate) fn refused(path: impl Into<String>, source: zk::Error) -> Self {
        let path = path.into();
        match source {
            zk::Error::NoAuth => Self::NoAuth { path },
            zk::Error::SessionExpired => Self::TermOver(Ending::Expired),
            zk::Error::AuthFailed => Self::TermOver(Ending::AuthFailed),
            zk::Error::ClientClosed => Self::TermOver(Ending::Closed),
            source => Self::Refused { path, source },
        }
    }
}

/// The first few of many, for a message.
fn first_of(paths: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = paths[..paths.len().min(SHOWN)].join(", ");
    match paths.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Whether an answer leaves open if the request was carried out.
///
/// The client gives each request that was under way the error that broke the connection, whatever that was; so all
/// that is no answer of the server counts.
pub(crate) fn is_lost_reply(failure: &zk::Error) -> bool {
    use zk::Error as E;
    matches!(
        failure,
        E::ConnectionLoss
            | E::Custom(_)
            | E::UnexpectedError(_)
            | E::UnmarshalError { .. }
            | E::Timeout
            | E::NoHosts
            | E::SessionMoved
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_questions() {
        let lost = Error::refused("/done", zk::Error::SessionExpired);
        assert!(lost.session_lost() && lost.outcome_unknown() && !lost.is_retryable());
        let stranger = Error::refused("/owned", zk::Error::NoAuth);
        assert_eq!(
            stranger.to_string(),
            "no right to /owned in ZooKeeper: it belongs to others than the user of zookeeper_auth"
        );
        assert!(!stranger.session_lost() && !stranger.outcome_unknown() && !stranger.is_retryable());
        let deposed = Error::Deposed {
            path: "/owned/dispatcher/candidate-0000000001".into(),
        };
        assert!(deposed.session_lost() && !deposed.outcome_unknown());
        assert!(Error::RootMissing { path: "/done".into() }.is_retryable());
        let living = Error::LiveSessions {
            paths: (0..7)
                .map(|number| format!("/owned/watcher/candidate-{number}"))
                .collect(),
        };
        let told = living.to_string();
        assert!(told.contains("(/owned/watcher/candidate-0, "), "{told}");
        assert!(told.contains("/owned/watcher/candidate-4 and 2 more)"), "{told}");
    }
}
