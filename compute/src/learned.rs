//! Hands on what this node learned of blocks: later queries leave out those that can't match.

use std::time::{Duration, Instant};

use engine::Engine;
use storage::Store;
use tokio::task::JoinSet;

/// While queries run, what was learned is written this often: nobody waits for it.
const INTERVAL: Duration = Duration::from_millis(500);

/// Writes in the background, one batch at a time. What can't be written is forgotten: it only spares work.
pub(crate) struct Notes {
    engine: Engine,
    store: Store,
    at: Instant,
    under_way: JoinSet<()>,
}

impl Notes {
    pub(crate) fn new(engine: Engine, store: Store) -> Self {
        Self {
            engine,
            store,
            at: Instant::now(),
            under_way: JoinSet::new(),
        }
    }

    /// Writes what there is when nothing runs, or when it is time to.
    pub(crate) fn tick(&mut self, running: usize) {
        while self.under_way.try_join_next().is_some() {}
        if !self.under_way.is_empty() || (running > 0 && self.at.elapsed() < INTERVAL) {
            return;
        }
        self.at = Instant::now();
        let learned = self.engine.take_learned();
        if learned.is_empty() {
            return;
        }
        let store = self.store.clone();
        self.under_way.spawn(async move {
            if let Err(failure) = store.keep_stats(&learned).await {
                tracing::debug!(
                    "what was learned of {} blocks was not kept: {failure}",
                    learned.len()
                );
            }
        });
    }
}
