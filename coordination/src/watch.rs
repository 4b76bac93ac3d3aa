//! One-shot watches that outlive the call that waits for them.
//!
//! Dropping an unfired watch costs ZooKeeper a request, so a call that is cancelled leaves its watch to the next one.

use std::sync::{Mutex, PoisonError};

use futures::{FutureExt, future::BoxFuture};
use zookeeper_client::{OneshotWatcher, WatchedEvent};

/// At most one armed watch.
#[derive(Default)]
pub(crate) struct Kept {
    slot: Mutex<Option<BoxFuture<'static, WatchedEvent>>>,
}

impl Kept {
    /// Keeps a watch that was just armed.
    pub(crate) fn keep(&self, watcher: OneshotWatcher) {
        self.put(watcher.changed().boxed());
    }

    fn put(&self, watch: BoxFuture<'static, WatchedEvent>) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
    }

    /// Waits for the kept watch; none at once where there is none. Dropped half-way, the watch stays.
    pub(crate) async fn fired(&self) -> Option<WatchedEvent> {
        struct Taken<'k>(&'k Kept, Option<BoxFuture<'static, WatchedEvent>>);
        impl Drop for Taken<'_> {
            fn drop(&mut self) {
                if let Some(watch) = self.1.take() {
                    self.0.put(watch);
                }
            }
        }
        let watch = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut taken = Taken(self, watch);
        let event = taken.1.as_mut()?.await;
        taken.1 = None;
        Some(event)
    }
}
