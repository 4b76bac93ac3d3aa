//! Waiting for the end of jobs.

use std::time::Duration;

use model::{Job, JobId};
use storage::Progress;
use tokio::time::{Instant, sleep};

use crate::{Control, Error};

/// First pause between two looks: short jobs end within milliseconds.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// Longest pause; a bar on a terminal needs no more than ten steps a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Each pause is this part of the time waited so far: an end is told late by that at most, and long waits cost little.
const PART: u32 = 16;
/// How many jobs one look asks for.
const LOOKED_AT: usize = 1000;

impl Control {
    /// Waits until a job is final, at most until `deadline`, and tells every change on the way.
    ///
    /// Outages of MongoDB are sat out. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::NotEnded`] at the deadline, [`Error::NoSuchJob`], [`Error::Storage`] that no waiting mends.
    pub async fn wait(
        &self,
        id: JobId,
        deadline: Option<Instant>,
        mut on_change: impl FnMut(&Progress),
    ) -> Result<Job, Error> {
        if let Some(remote) = self.remote() {
            return remote.wait(id, deadline, on_change).await;
        }
        let begin = Instant::now();
        let mut last = None;
        loop {
            // The whole job, so that its end needs no second look.
            match self.store()?.job(id).await {
                Ok(job) => {
                    let job = job.ok_or_else(|| no_such(id))?;
                    let progress = Progress::from(&job);
                    if last != Some(progress) {
                        on_change(&progress);
                        last = Some(progress);
                    }
                    if progress.state.is_final() {
                        return Ok(job);
                    }
                }
                Err(error) if error.is_retryable() => tracing::warn!("{error}; waiting on"),
                Err(error) => return Err(error.into()),
            }
            let pause = pause_after(begin);
            if deadline.is_some_and(|deadline| Instant::now() + pause > deadline) {
                let job = self.store()?.job(id).await?.ok_or_else(|| no_such(id))?;
                if job.state.is_final() {
                    return Ok(job);
                }
                return Err(not_ended(&job));
            }
            sleep(pause).await;
        }
    }

    /// Waits until all these jobs are final; they are looked at a thousand at a time, the oldest first.
    ///
    /// # Errors
    /// As [`Control::wait`], for the first job that is not final at the deadline.
    pub async fn wait_all(&self, ids: &[JobId], deadline: Option<Instant>) -> Result<(), Error> {
        let begin = Instant::now();
        let mut left = ids.to_vec();
        while !left.is_empty() {
            let looked_at = left.len().min(LOOKED_AT);
            let progress = match self.store()?.progress(&left[..looked_at]).await {
                Ok(progress) => progress,
                Err(error) if error.is_retryable() => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let ended: std::collections::HashSet<JobId> = progress
                .iter()
                .filter(|progress| progress.state.is_final())
                .map(|progress| progress.id)
                .collect();
            left.retain(|id| !ended.contains(id));
            if ended.len() == looked_at {
                continue;
            }
            if let Some(deadline) = deadline.filter(|deadline| Instant::now() > *deadline) {
                self.wait(left[0], Some(deadline), |_| ()).await?;
            }
            sleep(pause_after(begin)).await;
        }
        Ok(())
    }
}

fn pause_after(begin: Instant) -> Duration {
    (begin.elapsed() / PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

pub(crate) fn not_ended(job: &Job) -> Error {
    Error::NotEnded {
        job: job.id,
        state: job.state,
        ended: job.counts.ended(),
        subtasks: job.subtasks(),
    }
}

fn no_such(id: JobId) -> Error {
    Error::NoSuchJob {
        reference: id.to_string(),
    }
}
