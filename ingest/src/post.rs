//! Where the service finds the worker of the current term, and the worker its agents.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use coordination::Worker;
use tokio::sync::watch;

/// How long agents may take to be let go of when a worker leaves.
const LEAVING: Duration = Duration::from_secs(3);

/// Connects a service, which lives as long as the process, with the worker of each term; clones share it.
#[derive(Clone, Debug)]
pub struct Post {
    worker: Arc<watch::Sender<Option<Worker>>>,
    sessions: Arc<watch::Sender<usize>>,
    /// Whether the worker leaves in an orderly way.
    leaving: Arc<AtomicBool>,
}

impl Default for Post {
    fn default() -> Self {
        Self {
            worker: Arc::new(watch::channel(None).0),
            sessions: Arc::new(watch::channel(0).0),
            leaving: Arc::default(),
        }
    }
}

impl Post {
    /// Lets agents ship to a worker until what this gives is closed or dropped.
    pub fn open(&self, worker: Worker) -> Open {
        self.leaving.store(false, Ordering::Relaxed);
        self.worker.send_replace(Some(worker));
        Open { post: self.clone() }
    }

    /// The worker of the current term.
    pub(crate) fn worker(&self) -> watch::Receiver<Option<Worker>> {
        self.worker.subscribe()
    }

    /// Agents that ship at this moment.
    pub(crate) fn sessions(&self) -> usize {
        *self.sessions.borrow()
    }

    /// Whether the worker leaves because it was asked to.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Counts one agent more until what this gives is dropped.
    pub(crate) fn session(&self) -> Counted {
        self.sessions.send_modify(|sessions| *sessions += 1);
        Counted { post: self.clone() }
    }
}

/// One agent that ships.
pub(crate) struct Counted {
    post: Post,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.post
            .sessions
            .send_modify(|sessions| *sessions = sessions.saturating_sub(1));
    }
}

/// A worker to which agents may ship. Dropping it sends them away.
#[derive(Debug)]
pub struct Open {
    post: Post,
}

impl Open {
    /// Sends the agents away, and waits until they are let go of, but not for long.
    pub async fn close(self) {
        let mut sessions = self.post.sessions.subscribe();
        self.post.leaving.store(true, Ordering::Relaxed);
        drop(self);
        let gone = sessions.wait_for(|sessions| *sessions == 0);
        let _ = tokio::time::timeout(LEAVING, gone).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.post.worker.send_replace(None);
    }
}
