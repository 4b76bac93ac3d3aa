//! What wakes the thread that follows files: the system's word of changes, room for a block, acknowledgements.
//!
//! A hint only: files are looked at regularly whether or not anything was told, as network disks tell nothing.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, event::ModifyKind};
use tracing::info;

use crate::follow::Wake;

/// Most paths that are remembered; with more, all files are looked at.
const MOST_PATHS: usize = 4096;

/// Where the thread waits.
#[derive(Default)]
pub(crate) struct Waker {
    state: Mutex<(Wake, bool)>,
    condition: Condvar,
}

impl Waker {
    /// Wakes it without a reason of its own.
    pub(crate) fn nudge(&self) {
        self.tell(|_| {});
    }

    fn tell(&self, change: impl FnOnce(&mut Wake)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state.0);
        state.1 = true;
        drop(state);
        self.condition.notify_one();
    }

    fn told(&self, event: notify::Result<notify::Event>) {
        let Ok(event) = event else {
            return self.tell(|wake| wake.scan = true);
        };
        let renames = match event.kind {
            EventKind::Access(_) => return,
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => true,
            _ => event.need_rescan(),
        };
        self.tell(|wake| {
            wake.scan |= renames || wake.paths.len() >= MOST_PATHS;
            if !wake.scan {
                wake.paths.extend(event.paths);
            }
        });
    }

    /// Waits until something is told, at most so long, and takes it.
    pub(crate) fn wait(&self, most: Duration) -> Wake {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.condition.wait_timeout_while(state, most, |(_, told)| !*told);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.1 = false;
        std::mem::take(&mut state.0)
    }
}

/// Has the system tell of changes in directories.
pub(crate) struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
}

impl Folders {
    pub(crate) fn new(waker: &Arc<Waker>) -> Self {
        let told = Arc::clone(waker);
        let watcher = notify::recommended_watcher(move |event| told.told(event));
        Self {
            watcher: watcher
                .inspect_err(|error| {
                    info!("the system tells of no changes, files are looked at regularly: {error}")
                })
                .ok(),
            watched: HashSet::new(),
        }
    }

    /// Watches these directories and no others.
    pub(crate) fn watch(&mut self, folders: HashSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in folders.difference(&self.watched) {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                info!(folder = %folder.display(), "not watched, looked at regularly: {error}");
            }
        }
        for folder in self.watched.difference(&folders) {
            // It may be gone, and its watch with it.
            watcher.unwatch(folder).unwrap_or_default();
        }
        self.watched = folders;
    }
}
