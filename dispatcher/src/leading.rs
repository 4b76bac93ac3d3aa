//! The leader's loop: follow what is recorded, admit, feed, and look after the tree.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use coordination::{Census, Leader};
use model::{Job, JobId};
use storage::{Clock, Departed, Epoch, MOST_APART, Store};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error,
    active::{Active, SmallDatasets, Turn},
    assigning::Assigning,
    compacting::Compacting,
    reuse::Reuse,
};

/// Pause after a round that moved something.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// Longest pause while there are active jobs.
const ACTIVE_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause with nothing to do: the wait of a job submitted to an idle mill, at worst.
const IDLE_PAUSE: Duration = Duration::from_millis(50);
/// The pause stays short for this long after the last thing that moved: who asks once often asks again.
const ALERT: Duration = Duration::from_millis(500);
/// How often the tree is listed.
pub(crate) const CENSUS_INTERVAL: Duration = Duration::from_millis(500);
/// The same while a job is being taken off the mill: somebody waits for it.
const ENDING_CENSUS_INTERVAL: Duration = Duration::from_millis(50);
/// How often old documents are looked for.
const RETENTION_INTERVAL: Duration = Duration::from_secs(3600);
/// How often datasets are looked at of which blocks leave.
const LEAVING_INTERVAL: Duration = Duration::from_secs(5);
/// How often active jobs are looked for that are in no book.
const STRAYS_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after a store did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The state of a leader in office.
pub(crate) struct Leading {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) leader: Leader,
    pub(crate) epoch: Epoch,
    pub(crate) begun: Instant,
    pub(crate) jobs: BTreeMap<Turn, Active>,
    pub(crate) turns: HashMap<JobId, Turn>,
    pub(crate) reuse: Reuse,
    pub(crate) small: SmallDatasets,
    pub(crate) census: Census,
    pub(crate) census_at: Option<Instant>,
    /// Strange znodes already reported.
    pub(crate) reported: std::collections::HashSet<String>,
    /// A job more urgent than all others was admitted: it may exceed a full window once.
    pub(crate) overtaking: bool,
    pub(crate) looked_at_all: Option<Instant>,
    pub(crate) looked_at_fed: Option<Instant>,
    /// Jobs in flight are not looked at before, when there are many.
    pub(crate) look_again_at: Option<Instant>,
    pub(crate) looked_at_pending: Option<Instant>,
    /// Read and not yet admitted, in the order of admission.
    pub(crate) pending: VecDeque<Job>,
    retention_at: Option<Instant>,
    left_at: Option<Instant>,
    strays_at: Option<Instant>,
    /// Whether the clocks of this machine and of MongoDB were found to be too far apart to remove anything.
    clock_apart: Option<bool>,
    pub(crate) views_at: Option<Instant>,
    pub(crate) assigning: Assigning,
    pub(crate) compacting: Compacting,
    moved_at: Instant,
    failing_since: Option<Instant>,
}

impl Leading {
    pub(crate) fn new(config: Config, store: Store, leader: Leader, epoch: Epoch) -> Self {
        Self {
            config,
            store,
            leader,
            epoch,
            begun: Instant::now(),
            jobs: BTreeMap::new(),
            turns: HashMap::new(),
            reuse: Reuse::default(),
            small: SmallDatasets::default(),
            census: Census::default(),
            census_at: None,
            reported: std::collections::HashSet::new(),
            overtaking: false,
            looked_at_all: None,
            looked_at_fed: None,
            look_again_at: None,
            looked_at_pending: None,
            pending: VecDeque::new(),
            retention_at: None,
            left_at: None,
            strays_at: None,
            clock_apart: None,
            views_at: None,
            assigning: Assigning::default(),
            compacting: Compacting::default(),
            moved_at: Instant::now(),
            failing_since: None,
        }
    }

    /// The clock of the ledgers.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Leads until `stop`, an error that ends the term, or MongoDB having been away for too long.
    pub(crate) async fn work(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let mut taken_over = false;
        let mut pause = BUSY_PAUSE;
        while !stop.is_cancelled() {
            let round = if taken_over {
                self.round().await
            } else {
                self.take_over().await.map(|()| true)
            };
            match round {
                Ok(moved) => {
                    taken_over = true;
                    self.failing_since = None;
                    pause = self.next_pause(moved, pause);
                }
                Err(failure) if failure.is_retryable() => {
                    let since = *self.failing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.config.give_up_after {
                        return Err(failure);
                    }
                    tracing::warn!("a store did not answer, looking again: {failure}");
                    // What was half done is found out by looking, as a new leader would.
                    taken_over = false;
                    pause = RETRY_PAUSE;
                }
                Err(failure) => return Err(failure),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    fn next_pause(&mut self, moved: bool, pause: Duration) -> Duration {
        if moved {
            self.moved_at = Instant::now();
        }
        if moved || self.moved_at.elapsed() < ALERT {
            BUSY_PAUSE
        } else if self.jobs.is_empty() {
            (pause * 2).min(IDLE_PAUSE)
        } else {
            (pause * 2).min(ACTIVE_PAUSE)
        }
    }

    /// One round; whether anything moved.
    async fn round(&mut self) -> Result<bool, Error> {
        let mut moved = self.follow().await?;
        moved |= self.look_after_views().await?;
        moved |= self.admit().await?;
        let ending = self.jobs.values().any(|active| active.ending.is_some());
        let interval = if ending {
            ENDING_CENSUS_INTERVAL
        } else {
            CENSUS_INTERVAL
        };
        if self.census_at.is_none_or(|at| at.elapsed() >= interval) {
            self.look_after_tree().await?;
        }
        self.assign().await?;
        moved |= self.feed().await?;
        self.keep_house().await?;
        self.compact().await?;
        Ok(moved)
    }

    async fn keep_house(&mut self) -> Result<(), Error> {
        let due = |at: Option<Instant>, interval| at.is_none_or(|at| at.elapsed() >= interval);
        if due(self.strays_at, STRAYS_INTERVAL) {
            self.strays_at = Some(Instant::now());
            self.take_up_strays().await?;
        }
        if !due(self.left_at, LEAVING_INTERVAL) {
            return Ok(());
        }
        self.left_at = Some(Instant::now());
        let clock = self.store.clock().await?;
        self.tell_of_clock(&clock).await?;
        if clock.is_apart() {
            return Ok(());
        }
        if due(self.retention_at, RETENTION_INTERVAL) {
            self.retention_at = Some(Instant::now());
            let pruned = self.store.prune(clock.now_ms, self.config.retention).await?;
            tracing::debug!(?pruned, "removed what was kept long enough");
        }
        let departed = self.store.let_leave(clock.now_ms).await?;
        if departed != Departed::default() {
            tracing::info!(
                ?departed,
                "blocks left their datasets, or what was merged is removed"
            );
        }
        Ok(())
    }

    /// Tells people when nothing is removed for the clocks of this machine and of MongoDB being apart, and when that is over.
    async fn tell_of_clock(&mut self, clock: &Clock) -> Result<(), Error> {
        let apart = clock.is_apart();
        if self.clock_apart == Some(apart) {
            return Ok(());
        }
        let ahead_ms = apart.then_some(clock.ahead_ms);
        self.store.note_leader_clock(self.epoch, ahead_ms).await?;
        if apart {
            tracing::error!(
                ahead_ms = clock.ahead_ms,
                "this machine's clock and MongoDB's are more than {MOST_APART:?} apart: no jobs, results or blocks are removed, \
                 whatever their age, until both are in step; run NTP on both machines"
            );
        } else if self.clock_apart.is_some() {
            tracing::info!("this machine's clock and MongoDB's are in step again");
        }
        self.clock_apart = Some(apart);
        Ok(())
    }

    pub(crate) fn add(&mut self, active: Active) {
        let turn = active.turn();
        self.turns.insert(active.job.id, turn);
        self.jobs.insert(turn, active);
    }

    pub(crate) fn forget(&mut self, id: JobId) {
        if let Some(turn) = self.turns.remove(&id) {
            self.jobs.remove(&turn);
            self.reuse.owner_ended(id);
        }
    }
}

/// Milliseconds since 1970 UTC by this machine's clock.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
