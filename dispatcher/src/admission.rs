//! PENDING jobs become STAGING, durably, before anything of them is fed.

use std::time::{Duration, Instant};

use model::{Job, JobId, JobState, ledger::Ledger, lifecycle};

use crate::{Error, active::Active, leading::Leading};

/// Most jobs admitted in one round.
const BATCH: usize = 1000;
/// How often the list of PENDING jobs is read while jobs are active; without any, every round reads it.
const INTERVAL: Duration = Duration::from_millis(5);

impl Leading {
    /// Admits what waits, as far as there is room; whether there was anything.
    pub(crate) async fn admit(&mut self) -> Result<bool, Error> {
        let room = self.config.active_jobs.saturating_sub(self.jobs.len()).min(BATCH);
        let lately = self.looked_at_pending.is_some_and(|at| at.elapsed() < INTERVAL);
        if room == 0 || (lately && !self.jobs.is_empty()) {
            return Ok(false);
        }
        self.looked_at_pending = Some(Instant::now());
        let pending = self.store.pending(room).await?;
        if pending.is_empty() {
            return Ok(false);
        }
        let (cancelled, wanted): (Vec<Job>, Vec<Job>) =
            pending.into_iter().partition(|job| job.cancel_requested);
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
}
