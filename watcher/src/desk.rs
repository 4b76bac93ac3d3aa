//! One term of recording: read `/done`, commit, clear. Listing and clearing are in one task, one after the other,
//! so that a listing never shows again what has just been cleared.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use coordination::{Candidacy, Peers, Recorder, Term};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use model::{EntryName, JobId, rendezvous, znode, znode::DoneData};
use storage::{DoneItem, Store};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error,
    batch::{Item, Pending},
};

/// Transactions under way at once: one commits while the next is prepared.
const COMMITTERS: usize = 2;
/// Entries in hand at once; each has at most 128 KiB.
const IN_HAND: usize = 512;
/// Entries read in one step.
const READ_AT_ONCE: usize = 256;
/// How often `/done` is looked at without a watch firing.
const SLOW_LOOK: Duration = Duration::from_secs(1);
/// How soon `/done` is looked at again while transactions are under way.
const LOOK_WHILE_BUSY: Duration = Duration::from_millis(3);
/// Pause before a failed transaction is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

struct Committed {
    names: Vec<EntryName>,
    recorded: Result<storage::Recorded, storage::Error>,
}

type Cleared = (Vec<EntryName>, Result<(), coordination::Error>);

/// An entry of another watcher's share.
struct Other {
    job: JobId,
    since: Instant,
}

pub(crate) struct Desk {
    config: Config,
    store: Store,
    recorder: Recorder,
    pending: Arc<Mutex<Pending>>,
    in_hand: HashSet<EntryName>,
    /// Undecodable entries: reported once, left where they are.
    bad: HashSet<EntryName>,
    others: HashMap<EntryName, Other>,
    committers: JoinSet<()>,
    committed: mpsc::UnboundedReceiver<Committed>,
    report: mpsc::UnboundedSender<Committed>,
    clears: FuturesUnordered<BoxFuture<'static, Cleared>>,
    me: String,
    peers: Peers,
    failing_since: Option<Instant>,
    transactions: u32,
}

impl Desk {
    pub(crate) fn new(config: Config, store: Store, term: &Term, candidacy: &Candidacy) -> Self {
        let (report, committed) = mpsc::unbounded_channel();
        Self {
            config,
            store,
            recorder: Recorder::new(term),
            pending: Arc::default(),
            in_hand: HashSet::new(),
            bad: HashSet::new(),
            others: HashMap::new(),
            committers: JoinSet::new(),
            committed,
            report,
            clears: FuturesUnordered::new(),
            me: candidacy.name().to_string(),
            peers: Peers::new(candidacy),
            failing_since: None,
            transactions: 0,
        }
    }

    /// Works until `stop`, then finishes what is in hand.
    pub(crate) async fn work(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        while !stop.is_cancelled() {
            self.share().await?;
            let took = self.read_new().await?;
            self.commit()?;
            if !took {
                self.wait(stop).await?;
            }
            self.settle().await?;
        }
        while !self.in_hand.is_empty() {
            self.commit()?;
            self.wait(&CancellationToken::new()).await?;
            self.settle().await?;
        }
        Ok(())
    }

    /// Divides the entries anew where watchers have come or gone: the share of the dead falls to the others at once.
    async fn share(&mut self) -> Result<(), Error> {
        if self.peers.refresh().await? {
            let (peers, me) = (&self.peers, &self.me);
            self.others.retain(|_, other| !is_mine(peers, me, other.job));
        }
        Ok(())
    }

    /// Lists, reads and decodes what is new; whether there was anything.
    async fn read_new(&mut self) -> Result<bool, Error> {
        if self.in_hand.len() >= IN_HAND {
            return Ok(false);
        }
        let listed = self.recorder.list_done().await?.entries;
        if !self.bad.is_empty() || !self.others.is_empty() {
            let present: HashSet<&EntryName> = listed.iter().collect();
            self.bad.retain(|name| present.contains(name));
            self.others.retain(|name, _| present.contains(name));
        }
        let now = Instant::now();
        let mut new: Vec<EntryName> = listed
            .into_iter()
            .filter(|name| !self.in_hand.contains(name) && !self.bad.contains(name))
            .filter(|name| {
                self.others
                    .get(name)
                    .is_none_or(|other| now - other.since >= self.config.take_over_after)
            })
            .collect();
        new.sort_unstable_by_key(|name| name.sequence);
        new.truncate(READ_AT_ONCE.min(IN_HAND - self.in_hand.len()));
        if new.is_empty() {
            return Ok(false);
        }
        let read = self.recorder.read_done(&new).await?;
        for (name, data) in new.into_iter().zip(read) {
            if let Some(data) = data {
                self.take(name, &data);
            }
        }
        Ok(true)
    }

    fn take(&mut self, name: EntryName, bytes: &[u8]) {
        let data = match znode::decode::<DoneData>(bytes) {
            Ok(data) if data.is_whole() => data,
            Ok(data) => return self.leave(name, &format!("its ends do not cover {:?}", data.run)),
            Err(failure) => return self.leave(name, &failure.to_string()),
        };
        let waited_for = self.others.contains_key(&name);
        if !waited_for && !is_mine(&self.peers, &self.me, data.job) {
            let (job, since) = (data.job, Instant::now());
            self.others.insert(name, Other { job, since });
            return;
        }
        self.others.remove(&name);
        self.in_hand.insert(name.clone());
        lock(&self.pending).add(Item {
            name,
            data,
            bytes: bytes.len(),
        });
    }

    fn leave(&mut self, name: EntryName, why: &str) {
        tracing::error!(entry = %name, "can't read this entry of /done, leaving it there: {why}");
        self.bad.insert(name);
    }

    /// Starts committers while there is work for them. Each goes on by itself, so that a transaction does not wait for
    /// the next look at `/done`; it ends when nothing waits.
    fn commit(&mut self) -> Result<(), Error> {
        while let Some(ended) = self.committers.try_join_next() {
            ended?;
        }
        let failing = self.failing_since.is_some();
        let most = if failing { 1 } else { COMMITTERS };
        if self.committers.len() >= most || lock(&self.pending).is_idle() {
            return Ok(());
        }
        let (store, pending, report) = (self.store.clone(), self.pending.clone(), self.report.clone());
        self.committers.spawn(async move {
            if failing {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            loop {
                let items = lock(&pending).take();
                if items.is_empty() {
                    return;
                }
                let jobs: HashSet<JobId> = items.iter().map(|item| item.data.job).collect();
                let of = |(tag, item): (usize, Item)| (item.name, DoneItem { tag, data: item.data });
                let (names, batch): (Vec<_>, Vec<_>) = items.into_iter().enumerate().map(of).unzip();
                let recorded = store.record(batch).await;
                lock(&pending).done(jobs);
                let failed = recorded.is_err();
                if report.send(Committed { names, recorded }).is_err() || failed {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Waits for something to do. A watch is only armed while nothing is in hand: its own clearing would fire it.
    async fn wait(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        if self.in_hand.is_empty() {
            return tokio::select! {
                () = stop.cancelled() => Ok(()),
                changed = self.recorder.until_done_changes() => Ok(changed?),
                () = self.peers.changed() => Ok(()),
                () = tokio::time::sleep(SLOW_LOOK) => Ok(()),
            };
        }
        let look = if self.in_hand.len() < IN_HAND {
            LOOK_WHILE_BUSY
        } else {
            SLOW_LOOK
        };
        tokio::select! {
            Some(committed) = self.committed.recv() => self.note(committed),
            Some((names, cleared)) = self.clears.next() => self.cleared(&names, cleared),
            () = tokio::time::sleep(look) => Ok(()),
        }
    }

    /// Takes note of everything that has ended meanwhile, without waiting.
    async fn settle(&mut self) -> Result<(), Error> {
        while let Ok(committed) = self.committed.try_recv() {
            self.note(committed)?;
        }
        while let Some(Some((names, cleared))) = self.clears.next().now_or_never() {
            self.cleared(&names, cleared)?;
        }
        Ok(())
    }

    fn note(&mut self, Committed { names, recorded }: Committed) -> Result<(), Error> {
        match recorded {
            Ok(recorded) => {
                self.failing_since = None;
                self.transactions += 1;
                if self.config.abort_after_transactions == Some(self.transactions) {
                    tracing::error!("aborting after transaction {}, as asked", self.transactions);
                    std::process::abort();
                }
                let refused: HashMap<usize, String> = recorded.refused.into_iter().collect();
                let mut clear = Vec::with_capacity(names.len());
                for (tag, name) in names.into_iter().enumerate() {
                    match refused.get(&tag) {
                        Some(why) => {
                            self.in_hand.remove(&name);
                            self.leave(name, why);
                        }
                        None => clear.push(name),
                    }
                }
                self.clear(clear);
                Ok(())
            }
            Err(failure) => {
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.config.give_up_after {
                    return Err(failure.into());
                }
                tracing::warn!("recording failed, its entries will be read again: {failure}");
                self.in_hand.retain(|name| !names.contains(name));
                Ok(())
            }
        }
    }

    fn clear(&mut self, names: Vec<EntryName>) {
        let cleared = self.recorder.clear(names.clone());
        self.clears.push(async move { (names, cleared.await) }.boxed());
    }

    /// What could not be cleared shows up in a later listing and is recorded once more, which changes nothing.
    fn cleared(
        &mut self,
        names: &[EntryName],
        cleared: Result<(), coordination::Error>,
    ) -> Result<(), Error> {
        for name in names {
            self.in_hand.remove(name);
        }
        match cleared {
            Err(failure) if !failure.is_retryable() => Err(failure.into()),
            Err(failure) => {
                tracing::warn!("clearing /done failed, its entries will be looked at again: {failure}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Whether the ends of a job are for the watcher `me` to record.
fn is_mine(peers: &Peers, me: &str, job: JobId) -> bool {
    rendezvous::nearest(job.0.as_bytes(), peers.names()).is_none_or(|nearest| nearest == me)
}

/// No holder of the lock can leave it half changed.
fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
