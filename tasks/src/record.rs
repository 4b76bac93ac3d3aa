//! What is known of one task.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use api::v1::{self, TaskState};
use model::Name;
use pki::Peer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// One task, running or ended.
pub(crate) struct Record {
    pub(crate) id: Uuid,
    pub(crate) node: Name,
    pub(crate) command: String,
    pub(crate) owner: Peer,
    pub(crate) started_ms: i64,
    /// What it printed: standard output, standard error.
    pub(crate) files: [PathBuf; 2],
    /// Told to everybody who follows it.
    pub(crate) progress: watch::Sender<Progress>,
    /// Somebody wants it ended.
    pub(crate) stop: CancellationToken,
}

/// How far a task is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Bytes printed: standard output, standard error. They are in the files.
    pub(crate) printed: [u64; 2],
    pub(crate) end: Option<End>,
}

/// How a task ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) state: TaskState,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) message: String,
    pub(crate) ended_ms: i64,
}

impl End {
    pub(crate) fn new(state: TaskState, message: impl Into<String>) -> Self {
        Self {
            state,
            exit_code: None,
            signal: None,
            message: message.into(),
            ended_ms: now_ms(),
        }
    }
}

impl Record {
    /// `NODE/ID`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.node, self.id.simple())
    }

    /// Whether it is of this peer, or the peer an administrator.
    pub(crate) fn is_open_to(&self, peer: &Peer) -> bool {
        peer.role == pki::Role::Admin || (peer.role, &peer.name) == (self.owner.role, &self.owner.name)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.progress.borrow().end.is_none()
    }

    pub(crate) fn message(&self) -> v1::Task {
        let Progress { printed, end } = self.progress.borrow().clone();
        v1::Task {
            name: self.name(),
            command: self.command.clone(),
            owner: self.owner.to_string(),
            state: end.as_ref().map_or(TaskState::Running, |end| end.state).into(),
            exit_code: end.as_ref().and_then(|end| end.exit_code),
            signal: end.as_ref().and_then(|end| end.signal),
            ended_ms: end.as_ref().map(|end| end.ended_ms),
            message: end.map(|end| end.message).unwrap_or_default(),
            started_ms: self.started_ms,
            stdout_bytes: printed[0],
            stderr_bytes: printed[1],
        }
    }
}

/// Milliseconds since 1970 UTC.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
