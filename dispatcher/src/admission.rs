//! PENDING jobs become STAGING, durably, before anything of them is fed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use model::{Job, JobId, JobState, ledger::Ledger, lifecycle};

use crate::{Error, active::Active, leading::Leading};

/// Most jobs admitted in one round.
const BATCH: usize = 1000;
/// Most PENDING jobs held: a server may read all that wait to give the first of them.
const READ_AHEAD: usize = 10_000;
/// How often the list of PENDING jobs is read while jobs are active; without any, every round reads it.
const INTERVAL: Duration = Duration::from_millis(5);
/// The same for those more urgent than what is held.
const URGENT_INTERVAL: Duration = Duration::from_millis(50);

impl Leading {
    /// Admits what waits, as far as there is room; whether there was anything.
    pub(crate) async fn admit(&mut self) -> Result<bool, Error> {
        let room = self.config.active_jobs.saturating_sub(self.jobs.len()).min(BATCH);
        if room == 0 {
            return Ok(false);
        }
        self.read_pending().await?;
        if self.pending.is_empty() {
            return Ok(false);
        }
        let next = self.pending.drain(..room.min(self.pending.len()));
        let (cancelled, wanted): (Vec<Job>, Vec<Job>) = next.partition(|job| job.cancel_requested);
        if !cancelled.is_empty() {
            self.store.cancel_pending(self.epoch).await?;
        }
        let ids: Vec<JobId> = wanted.iter().map(|job| job.id).collect();
        self.store.admit(&ids, self.epoch).await?;
        let most_urgent = self.jobs.keys().next().map(|turn| turn.0.0);
        for mut job in wanted {
            job.state = JobState::Staging;
            let merges = job.has_merge();
            let (verdict, _) = lifecycle::verdict(&job.counts, job.blocks, merges);
            if verdict.is_final() {
                self.store
                    .end_job(job.id, self.epoch, verdict, 0, None, &job.counts)
                    .await?;
                continue;
            }
            self.overtaking |= most_urgent.is_some_and(|urgent| job.spec.priority > urgent);
            let ledger = Ledger::fresh(job.blocks, merges);
            self.add(Active::new(job, ledger));
        }
        Ok(true)
    }

    /// Reads what waits once nothing of it is held any more, and before that only what is more urgent.
    ///
    /// What is held may have been cancelled or removed meanwhile: admission leaves such jobs as they are, and
    /// following them shows it.
    async fn read_pending(&mut self) -> Result<(), Error> {
        let interval = match (self.pending.is_empty(), self.jobs.is_empty()) {
            (false, _) => URGENT_INTERVAL,
            (true, false) => INTERVAL,
            (true, true) => Duration::ZERO,
        };
        if self.looked_at_pending.is_some_and(|at| at.elapsed() < interval) {
            return Ok(());
        }
        self.looked_at_pending = Some(Instant::now());
        let above = self.pending.front().map(|job| job.spec.priority);
        let mut waiting: VecDeque<Job> = self.store.pending(READ_AHEAD, above).await?.into();
        waiting.append(&mut self.pending);
        self.pending = waiting;
        Ok(())
    }
}
