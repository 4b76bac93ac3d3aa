//! How much a gateway plans and merges at once: what takes a processor, or has an answer in memory, waits for a place.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions that are planned and answers that are in memory at once: the dispatcher beside must go on feeding.
const PLACES: usize = 16;

/// The places; clones share them.
#[derive(Clone)]
pub(crate) struct Room {
    places: Arc<Semaphore>,
}

/// A place that is taken until this is dropped.
pub(crate) struct Taken {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES)),
        }
    }
}

impl Room {
    /// Waits for a place. Dropping the future gives the turn up.
    pub(crate) async fn take(&self) -> Taken {
        // The semaphore is never closed.
        Taken {
            _permit: self.places.clone().acquire_owned().await.ok(),
        }
    }
}
