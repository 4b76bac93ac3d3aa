//! The watcher's side of the step *record*: reading `/done` and clearing it.
//!
//! Promise: nothing is deleted but what the caller names. No guard: recording is idempotent, and what is recorded may
//! be cleared by anybody. Handle the replies of listing and of clearing in one task, or the listing shows what has
//! been cleared.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use model::entry::EntryName;
use zookeeper_client as zk;

use crate::{
    batch::{self, Step},
    error::Error,
    layout::{DONE, Place},
    listing::{self, Listing, ReadSize},
    term::Term,
    watch::Kept,
};

/// What a watcher does in `/done`; clones share it.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    term: Term,
    /// State of `/done` (see [`state_of`]) when it was last listed.
    listed: AtomicI64,
    watch: Kept,
    size: ReadSize,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}

/// Tells whether children came or went in between.
fn state_of(stat: &zk::Stat) -> i64 {
    (i64::from(stat.cversion) << 32) | i64::from(stat.num_children)
}

impl Recorder {
    /// A recorder for this term.
    pub fn new(term: &Term) -> Self {
        let inner = Inner {
            term: term.clone(),
            listed: AtomicI64::new(i64::MIN),
            watch: Kept::default(),
            size: ReadSize::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Lists the ends that wait to be recorded; nothing where `/done` is missing.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn list_done(&self) -> Result<Listing, Error> {
        let Some((names, stat)) = listing::children(&self.inner.term, DONE).await? else {
            return Ok(Listing::default());
        };
        self.inner.listed.store(state_of(&stat), Ordering::Relaxed);
        let mut strange = Vec::new();
        let entries = listing::sort(DONE, names, &mut strange);
        Ok(Listing {
            entries,
            strange: strange.len(),
        })
    }

    /// Waits until `/done` has entries and has changed since the last listing; at once when that is so already.
    ///
    /// Cancel-safe; for one waiting caller at a time. It may return early, and where `/done` is missing it returns
    /// only at a look every second.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn until_done_changes(&self) -> Result<(), Error> {
        let Inner {
            term, listed, watch, ..
        } = &*self.inner;
        if term.wait(watch.fired()).await?.is_some() {
            return Ok(());
        }
        loop {
            let request = |client: Arc<zk::Client>| async move { client.get_and_watch_children(DONE).await };
            match term.ask(DONE, request).await? {
                Ok((names, stat, watcher)) => {
                    watch.keep(watcher);
                    let changed = state_of(&stat) != listed.load(Ordering::Relaxed);
                    if changed && names.iter().any(|name| name.parse::<EntryName>().is_ok()) {
                        return Ok(());
                    }
                    term.wait(watch.fired()).await?;
                    return Ok(());
                }
                Err(zk::Error::NoNode) => {
                    term.wait(tokio::time::sleep(std::time::Duration::from_secs(1)))
                        .await?;
                }
                Err(failure) => return Err(Error::refused(DONE, failure)),
            }
        }
    }

    /// Reads the data of ends, in their order; none for what is no longer there.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn read_done(&self, names: &[EntryName]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let paths: Vec<String> = names.iter().map(|name| Place::Done.entry(name)).collect();
        listing::read_data(&self.inner.term, &paths, &self.inner.size).await
    }

    /// Deletes recorded ends; what is gone already is fine. The first requests are sent by the call itself, the
    /// returned future waits for the replies and sends the rest. Poll it or drop it: as long as it is kept, it keeps
    /// the session from closing.
    ///
    /// # Errors
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub fn clear(&self, names: Vec<EntryName>) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        begun(async move {
            let steps: Vec<Step> = names
                .iter()
                .map(|name| Step {
                    delete: Place::Done.entry(name),
                    create: None,
                })
                .collect();
            let fates = batch::carry_out(&inner.term, None, &steps).await?;
            for (name, fate) in names.iter().zip(fates) {
                if let batch::Fate::Stuck(why) = fate {
                    tracing::warn!(%name, why, "a recorded end can't be cleared");
                }
            }
            Ok(())
        })
    }
}

/// Runs a future up to its first wait, now.
fn begun<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    future: F,
) -> impl Future<Output = T> + Send + use<T, F> {
    let mut future: Pin<Box<F>> = Box::pin(future);
    let early = match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    };
    async move {
        match early {
            Some(done) => done,
            None => future.await,
        }
    }
}
