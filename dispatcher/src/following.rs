//! Follows what the watchers record.

use std::time::{Duration, Instant};

use model::{JobId, JobState, ledger::Unsuccessful};
use rand::RngExt;
use storage::{FailureRecord, Progress};

use crate::{
    Error,
    active::{Active, Ending},
    leading::Leading,
};

/// How often jobs of which nothing is in flight are looked at, too: for cancel requests.
const LOOK_AT_ALL: Duration = Duration::from_millis(250);
/// How often jobs are looked at of which all is fed: nothing but a retry waits for their ends.
const LOOK_AT_FED: Duration = Duration::from_millis(10);
/// Between two looks at the jobs in flight pass so many times what the last one took: reading how far thousands of jobs
/// are competes with recording them.
const PAUSE_PER_LOOK: u32 = 3;
/// Up to so many jobs are looked at in every round.
const FEW_JOBS: usize = 16;

/// An unsuccessful end as the ledger wants it.
pub(crate) fn unsuccessful(record: FailureRecord) -> Unsuccessful {
    Unsuccessful {
        run: record.run,
        past: record.past,
        node: record.node,
        outcome: record.outcome,
    }
}

impl Leading {
    /// Reads what is recorded of the active jobs; whether anything went forward.
    pub(crate) async fn follow(&mut self) -> Result<bool, Error> {
        let all = self.looked_at_all.is_none_or(|at| at.elapsed() >= LOOK_AT_ALL);
        if all {
            self.looked_at_all = Some(Instant::now());
        }
        let fed = all || self.looked_at_fed.is_none_or(|at| at.elapsed() >= LOOK_AT_FED);
        if fed {
            self.looked_at_fed = Some(Instant::now());
        }
        let wanted = |active: &Active| {
            let moving = active.ledger.in_flight_subtasks() > 0 || active.ledger.unnoted() > 0;
            let awaited = active.job.has_merge() || active.ledger.left() > 0;
            all || (moving && (fed || awaited))
        };
        let ids: Vec<JobId> = self
            .jobs
            .values()
            .filter(|active| wanted(active))
            .map(|active| active.job.id)
            .collect();
        if ids.is_empty() || (!all && ids.len() > FEW_JOBS && self.look_again_at > Some(Instant::now())) {
            return Ok(false);
        }
        let begun = Instant::now();
        let progress = self.store.progress(&ids).await?;
        self.look_again_at = Some(Instant::now() + begun.elapsed() * PAUSE_PER_LOOK);
        let known = progress.len();
        let mut moved = false;
        for progress in progress {
            moved |= self.note(progress).await?;
        }
        if all && known < ids.len() {
            self.forget_removed(&ids).await?;
        }
        Ok(moved)
    }

    async fn note(&mut self, progress: Progress) -> Result<bool, Error> {
        let Some(turn) = self.turns.get(&progress.id) else {
            return Ok(false);
        };
        let Some(active) = self.jobs.get_mut(turn) else {
            return Ok(false);
        };
        if progress.state.is_final() {
            self.forget(progress.id);
            return Ok(true);
        }
        let moved = *active.ledger.counts() != progress.counts;
        active.ledger.note_counts(progress.counts);
        if moved {
            active.progress_at = Instant::now();
        }
        if active.ending.is_none() {
            if progress.cancel_requested {
                active.ending = Some(Ending::new(JobState::Cancelled, None));
            } else if progress.counts.failed > u64::from(active.job.spec.max_failed) {
                let error = format!(
                    "more than {} subtasks failed for good, the rest was not run",
                    active.job.spec.max_failed
                );
                active.ending = Some(Ending::new(JobState::Failed, Some(error)));
            }
        }
        if active.ledger.unnoted() > 0 {
            let records = self
                .store
                .failures_from(progress.id, active.ledger.ordinal())
                .await?;
            let now = self.begun.elapsed();
            for record in records {
                if record.ordinal != active.ledger.ordinal() {
                    continue;
                }
                let dice = rand::rng().random_range(0.0..1.0);
                active
                    .ledger
                    .note_unsuccessful(&unsuccessful(record), now, &active.job.spec.retry, dice);
            }
        }
        Ok(moved)
    }

    /// A job whose document somebody removed is none any more.
    async fn forget_removed(&mut self, ids: &[JobId]) -> Result<(), Error> {
        for id in ids {
            if self.turns.contains_key(id) && self.store.job(*id).await?.is_none() {
                tracing::error!(job = %id, "the document of this job is gone, forgetting the job");
                self.forget(*id);
            }
        }
        Ok(())
    }
}
