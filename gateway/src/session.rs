//! The gateway's session in ZooKeeper: what it holds there for others, it holds by this.
//!
//! Promise: [`Session::term`] gives the term that lives, if there is one. No promise that it lives on: whoever works with it
//! watches its end.

use std::sync::Arc;

use coordination::{Term, terms};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The current term; clones share it.
#[derive(Clone)]
pub(crate) struct Session {
    term: Arc<watch::Sender<Option<Term>>>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            term: Arc::new(watch::channel(None).0),
        }
    }
}

/// Why the session can't be held.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Lost(#[from] coordination::Error);

impl terms::TermError for Lost {
    fn is_fatal(&self) -> bool {
        self.0.is_fatal()
    }
}

impl Session {
    /// The living term; none while ZooKeeper is away.
    pub(crate) fn term(&self) -> Option<Term> {
        let term = self.term.borrow().clone();
        term.filter(|term| !term.ended().is_cancelled())
    }

    /// Holds term after term until `stop`.
    ///
    /// # Errors
    /// What no waiting mends.
    pub(crate) async fn hold(
        &self,
        zookeeper: &coordination::Config,
        stop: &CancellationToken,
    ) -> Result<(), coordination::Error> {
        let held = terms::serve(zookeeper, stop, "gateway", |term| {
            self.term.send_replace(Some(term));
            let stop = stop.clone();
            async move {
                stop.cancelled().await;
                Ok::<(), Lost>(())
            }
        });
        let held = held.await;
        self.term.send_replace(None);
        held.map_err(|lost| lost.0)?;
        // The server ends by itself, once what is under way has.
        std::future::pending().await
    }
}
