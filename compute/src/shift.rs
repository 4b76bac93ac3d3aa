//! One term of a worker: look, claim, run, finish.

mod finishing;

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use coordination::{Claimed, Worker};
use engine::Engine;
use futures::{FutureExt, future::BoxFuture};
use model::{
    EntryName, JobId, Requirement,
    claim::{Admission, admit},
    health::{Health, TIME_OUT},
    processor::Offer,
    znode::{self, DoneData, EntryData, OwnedData},
};
use storage::Store;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::finishing::FinishReply;
use crate::{Config, Error, execute, learned::Notes, report::Reporter, said::Said, shelf::Shelf};

/// A slow full look stands behind every watch.
const SLOW_LOOK: Duration = Duration::from_secs(1);
/// How often a worker looks at who else lives, and one that holds nothing at its folder: both only cost time when stale.
const IDLE_LOOK: Duration = Duration::from_secs(5);
/// The data of so many entries per slot is read at once, in the order in which they will be claimed.
const READ_AHEAD: usize = 4;
/// After an entry of a job that took less than this, more of this job are claimed before a slot is free: it would wait for
/// the claim about as long as for their work.
const SHORT: Duration = Duration::from_millis(60);
/// What was claimed ahead of a slot is handed back when what runs there takes this long: others may be idle.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause after ZooKeeper did not answer; the term's own clock decides how often.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

struct Held {
    job: JobId,
    stop: CancellationToken,
    alone: bool,
}

pub(crate) struct Shift {
    config: Arc<Config>,
    engine: Engine,
    store: Store,
    worker: Worker,
    shelf: Shelf,
    capabilities: Vec<Requirement>,
    /// What runs or is being finished.
    held: HashMap<EntryName, Held>,
    /// The jobs that the leader wants ended, as last told.
    stopping: HashSet<JobId>,
    said: Said,
    /// With those that wait for a slot.
    running: JoinSet<(EntryName, DoneData)>,
    slots: Arc<Semaphore>,
    /// The job of which an entry ended last, if that was a short one.
    short: Option<JobId>,
    to_finish: Vec<(EntryName, DoneData)>,
    /// Ends that could not move on because something foreign is in their place in `/done`.
    stuck: Vec<(EntryName, DoneData)>,
    /// On their own, so that a look does not hold them up.
    finishing: JoinSet<FinishReply>,
    /// Claims of which the reply was lost.
    uncertain: HashMap<EntryName, EntryData>,
    woken: Option<BoxFuture<'static, Result<(), coordination::Error>>>,
    look_now: bool,
    /// When `/unowned` was last listed; none once there is news of it.
    listed_at: Option<Instant>,
    /// Whether that listing held nothing for this worker beyond what it could take at once.
    exhausted: bool,
    look_at: Instant,
    checked_at: Instant,
    members_at: Instant,
    health: Health,
    out_until: Option<Instant>,
    reporter: Reporter,
    notes: Notes,
}

impl Shift {
    pub(crate) fn new(config: Config, engine: Engine, store: Store, worker: Worker) -> Self {
        let now = Instant::now();
        let reporter = Reporter::new(&config, worker.number(), store.clone(), engine.clone());
        let notes = Notes::new(engine.clone(), store.clone());
        Self {
            capabilities: config.capabilities(),
            slots: Arc::new(Semaphore::new(config.slots as usize)),
            short: None,
            config: Arc::new(config),
            engine,
            store,
            worker,
            shelf: Shelf::default(),
            held: HashMap::new(),
            stopping: HashSet::new(),
            said: Said::default(),
            running: JoinSet::new(),
            to_finish: Vec::new(),
            stuck: Vec::new(),
            finishing: JoinSet::new(),
            uncertain: HashMap::new(),
            woken: None,
            look_now: true,
            listed_at: None,
            exhausted: false,
            look_at: now,
            checked_at: now - IDLE_LOOK,
            members_at: now - IDLE_LOOK,
            health: Health::default(),
            out_until: None,
            reporter,
            notes,
        }
    }

    /// Works until `stop`.
    pub(crate) async fn work(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        while !stop.is_cancelled() {
            let busy = self.running.len().min(self.config.slots as usize);
            self.reporter.tick(busy, self.out_until.is_some());
            self.finish();
            self.notes.tick(self.running.len());
            match self.look_and_check().await {
                Err(failure) if failure.is_retryable() => {
                    tracing::debug!("ZooKeeper did not answer, looking again: {failure}");
                    self.woken = None;
                    self.look_at = Instant::now() + RETRY_PAUSE;
                }
                other => other?,
            }
            self.wait(stop).await?;
        }
        Ok(())
    }

    async fn wait(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        if self.look_now && self.room() > 0 {
            return Ok(());
        }
        if self.woken.is_none() && self.room() > 0 {
            let worker = self.worker.clone();
            self.woken = Some(async move { worker.woken().await }.boxed());
        }
        let Self {
            running,
            finishing,
            woken,
            look_at,
            ..
        } = self;
        let (mut ended, mut reply, mut wake) = (None, None, None);
        tokio::select! {
            () = stop.cancelled() => {}
            Some(one) = running.join_next() => ended = Some(one),
            Some(one) = finishing.join_next() => reply = Some(one),
            one = async { match woken { Some(woken) => woken.await, None => std::future::pending().await } } => wake = Some(one),
            () = tokio::time::sleep_until((*look_at).into()) => self.look_now = true,
        }
        if let Some(wake) = wake {
            self.woken = None;
            self.look_now = true;
            self.listed_at = None;
            match wake {
                Err(failure) if !failure.is_retryable() => return Err(failure.into()),
                Err(_) => self.look_at = Instant::now() + RETRY_PAUSE,
                Ok(()) => {}
            }
        }
        if let Some(reply) = reply {
            self.finished(reply)?;
        }
        let mut next = ended;
        while let Some(ended) = next {
            self.ended(ended);
            next = self.running.try_join_next();
        }
        Ok(())
    }

    fn room(&self) -> usize {
        if self.held.values().any(|held| held.alone) {
            return 0;
        }
        let slots = self.config.slots as usize;
        let ahead = if self.short.is_some() { slots } else { 0 };
        (slots + ahead).saturating_sub(self.running.len())
    }

    /// What may be claimed of any job.
    fn free(&self) -> usize {
        (self.config.slots as usize).saturating_sub(self.running.len())
    }

    async fn look_and_check(&mut self) -> Result<(), coordination::Error> {
        let idle = self.held.is_empty() && self.uncertain.is_empty();
        if self.checked_at.elapsed() >= if idle { IDLE_LOOK } else { SLOW_LOOK } {
            self.check_folder().await?;
            self.checked_at = Instant::now();
        }
        if self.members_at.elapsed() >= IDLE_LOOK {
            let members = self.worker.members().await?;
            self.shelf.nodes = members.into_iter().map(|(_, data)| data.node).collect();
            self.members_at = Instant::now();
        }
        if self.look_now && self.room() > 0 {
            self.look_now = false;
            self.look_at = Instant::now() + SLOW_LOOK;
            if !self.is_out() {
                self.look().await?;
            }
        } else if self.room() == 0 {
            self.look_at = Instant::now() + SLOW_LOOK;
        }
        Ok(())
    }

    /// Compares what it runs with what is in its folder: stops what was taken away or is to end, takes up what it did not know
    /// of.
    async fn check_folder(&mut self) -> Result<(), coordination::Error> {
        let folder: HashSet<EntryName> = self.worker.held().await?.into_iter().collect();
        if !self.held.is_empty() {
            self.stopping = self.worker.stopping().await?.into_iter().collect();
        }
        for (name, held) in &self.held {
            if !folder.contains(name) || self.stopping.contains(&held.job) {
                held.stop.cancel();
            }
        }
        // A claim that got no answer may still be on its way, so what is not there yet is kept.
        let (arrived, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.uncertain)
            .into_iter()
            .partition(|(name, _)| folder.contains(name));
        self.uncertain = waiting.into_iter().collect();
        for (name, data) in arrived {
            if !self.held.contains_key(&name) {
                self.start(name, data);
            }
        }
        self.to_finish.append(&mut self.stuck);
        Ok(())
    }

    /// Whether this node has taken itself out; notices when it should, and when that is over.
    fn is_out(&mut self) -> bool {
        if let Some(until) = self.out_until {
            if Instant::now() < until {
                return true;
            }
            self.out_until = None;
            self.health = Health::default();
            tracing::warn!(node = %self.config.node, "trying again after time out");
        }
        if self.health.is_bad() && self.shelf.nodes.len() > 1 {
            self.out_until = Some(Instant::now() + TIME_OUT);
            tracing::error!(
                node = %self.config.node,
                "subtasks of several jobs failed here in a row: this node takes itself out for {} s; look at its \
                 disk, memory and tools",
                TIME_OUT.as_secs()
            );
            return true;
        }
        false
    }

    /// Chooses, after a listing where the shelf does not fill the room, reads and claims.
    async fn look(&mut self) -> Result<(), coordination::Error> {
        let room = self.room();
        let ahead = room.max(READ_AHEAD * self.config.slots as usize);
        let wait = self.config.locality_wait;
        let mut now = Instant::now();
        let mut names = self.shelf.choose_own(ahead, wait, now);
        // What is fed comes with a wake-up, so a listing that held nothing more for this worker is not soon repeated.
        let pause = if names.len() >= room {
            SLOW_LOOK
        } else if self.exhausted {
            wait
        } else {
            Duration::ZERO
        };
        let due_at = self.listed_at.map_or(now, |at| at + pause);
        if due_at > now {
            self.look_at = self.look_at.min(due_at);
        } else {
            let listing = self.worker.list_unowned().await?;
            now = Instant::now();
            self.listed_at = Some(now);
            self.shelf.list(listing.entries, &self.config.node, now);
            let again_in;
            (names, again_in) = self.shelf.choose(ahead, wait, now);
            self.exhausted = names.len() <= room;
            if let Some(again_in) = again_in {
                let again_in = if self.exhausted {
                    again_in.max(wait)
                } else {
                    again_in
                };
                self.look_at = self.look_at.min(now + again_in + Duration::from_millis(1));
            }
        }
        let known = names.iter().filter(|name| self.shelf.data(name).is_some());
        if known.count() < room.min(names.len()) {
            self.read(&names).await?;
        }
        let claims = self.admit(self.held_first(names), room, now);
        if claims.is_empty() {
            return Ok(());
        }
        let owned: Vec<(EntryName, OwnedData)> = claims
            .iter()
            .map(|(name, data)| (name.clone(), OwnedData::from(data)))
            .collect();
        match self.worker.claim(owned).await {
            Ok(Claimed { won, .. }) => {
                let won: HashSet<EntryName> = won.into_iter().collect();
                // What was won is all there was, or all there is room for.
                self.look_now = won.len() < claims.len();
                for (name, data) in claims {
                    if won.contains(&name) {
                        self.start(name, data);
                    }
                }
                Ok(())
            }
            Err(failure) => {
                self.uncertain.extend(claims);
                Err(failure)
            }
        }
    }

    async fn read(&mut self, names: &[EntryName]) -> Result<(), coordination::Error> {
        let unread: Vec<EntryName> = names
            .iter()
            .filter(|name| self.shelf.data(name).is_none())
            .cloned()
            .collect();
        if unread.is_empty() {
            return Ok(());
        }
        let read = self.worker.read_unowned(&unread).await?;
        for (name, bytes) in unread.iter().zip(read) {
            let Some(bytes) = bytes else {
                self.shelf.take(name);
                continue;
            };
            match znode::decode::<EntryData>(&bytes) {
                Ok(data) => self.shelf.keep_data(name, data),
                Err(failure) => {
                    tracing::error!(entry = %name, "can't read this entry of /unowned, leaving it there: {failure}");
                    self.shelf.pass_over(name);
                }
            }
        }
        Ok(())
    }

    /// Among entries of one priority those come first of which most blocks are in memory here.
    fn held_first(&self, mut names: Vec<EntryName>) -> Vec<EntryName> {
        let is_held = |name: &EntryName| {
            self.shelf.data(name).is_some_and(|data| {
                let table = data.at.map_or(0, |at| at.table as usize);
                let held = self.engine.held(&data.processor, table, &data.blocks);
                held > data.blocks.len() / 2
            })
        };
        names.sort_by_cached_key(|name| (Reverse(name.priority), !is_held(name)));
        names
    }

    /// What of `names` to claim now, at most `room`. A suspect runs alone: it is claimed when nothing runs, and until then nothing else.
    fn admit(&mut self, names: Vec<EntryName>, room: usize, now: Instant) -> Vec<(EntryName, EntryData)> {
        let mut claims: Vec<(EntryName, EntryData)> = Vec::new();
        let offer = Offer {
            capabilities: &self.capabilities,
            sql: engine::SQL_VERSION,
        };
        for name in names {
            if claims.len() == room {
                break;
            }
            let Some(data) = self.shelf.data(&name) else {
                continue;
            };
            let is_ahead = claims.len() >= self.free();
            if is_ahead && (self.short != Some(data.job) || data.blocks.is_empty()) {
                continue;
            }
            let idle = self.held.is_empty() && claims.is_empty();
            let age = self.shelf.age(&name, now);
            let entry = (&data.processor, &data.past, &data.avoid[..]);
            match admit(&self.config.node, offer, idle, age, entry) {
                Admission::Leave => {
                    if !data.processor.fits(offer) {
                        self.shelf.pass_over(&name);
                    }
                }
                Admission::WhenIdle => break,
                Admission::Take => {
                    let alone = data.past.alone();
                    if let Some(data) = self.shelf.take(&name) {
                        claims.push((name, data));
                    }
                    if alone {
                        break;
                    }
                }
            }
        }
        claims
    }

    fn start(&mut self, name: EntryName, data: EntryData) {
        let stop = CancellationToken::new();
        self.held.insert(
            name.clone(),
            Held {
                job: data.job,
                stop: stop.clone(),
                alone: data.past.alone(),
            },
        );
        let (engine, store, node) = (self.engine.clone(), self.store.clone(), self.config.node.clone());
        let (slots, said) = (self.slots.clone(), self.said.clone());
        self.running.spawn(async move {
            // What is to stop needs none: it is handed back.
            let _slot = tokio::select! {
                slot = slots.acquire_owned() => slot.ok(),
                () = stop.cancelled() => None,
                () = tokio::time::sleep(PATIENCE) => {
                    stop.cancel();
                    None
                }
            };
            let failed = execute::panicked(&data, &node);
            let run = AssertUnwindSafe(execute::entry(&engine, (&store, &said), &name, data, node, stop));
            let done = run.catch_unwind().await.unwrap_or(failed);
            (name, done)
        });
    }
}
