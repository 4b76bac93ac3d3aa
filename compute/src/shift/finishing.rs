//! How what has ended here leaves the worker's folder.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use coordination::Finished;
use model::{EntryName, FailureKind, Outcome, znode::DoneData};
use tokio::task::JoinError;

use super::{RETRY_PAUSE, SHORT, Shift};
use crate::Error;

/// Batches of finished entries under way at once.
const FINISHERS: usize = 4;
/// Longest wait for the last finishes when leaving.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);

pub(super) type FinishReply = (Vec<(EntryName, DoneData)>, Result<Finished, coordination::Error>);

impl Shift {
    /// Hands back what runs, once the grace is over, and leaves ZooKeeper without a trace.
    pub(crate) async fn leave(mut self) -> Result<(), Error> {
        let grace = Instant::now() + self.config.stop_grace;
        while !self.running.is_empty() {
            match tokio::time::timeout_at(grace.into(), self.running.join_next()).await {
                Ok(Some(Ok((name, done)))) => self.to_finish.push((name, done)),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.held.values().for_each(|held| held.stop.cancel());
        while let Some(ended) = self.running.join_next().await {
            self.to_finish.extend(ended.ok());
        }
        let deadline = Instant::now() + LEAVE_DEADLINE;
        while (!self.to_finish.is_empty() || !self.finishing.is_empty()) && Instant::now() < deadline {
            self.finish();
            if let Ok(Some(reply)) =
                tokio::time::timeout_at(deadline.into(), self.finishing.join_next()).await
            {
                self.finished(reply)?;
            }
        }
        self.woken = None;
        self.worker.resign().await?;
        tracing::info!(node = %self.config.node, "compute stopped, nothing left behind");
        Ok(())
    }

    pub(super) fn ended(&mut self, ended: Result<(EntryName, DoneData), JoinError>) {
        match ended {
            Ok((name, mut done)) => {
                if self.stopping.contains(&done.job) {
                    done.cancel_returned();
                }
                for end in &done.ends {
                    match &end.outcome {
                        // Other nodes are away: that is no fault of this one.
                        Outcome::Failed(failure) | Outcome::Dead(failure)
                            if failure.kind == FailureKind::Away => {}
                        Outcome::Failed(_) | Outcome::Dead(_) => self.health.note(done.job, true),
                        Outcome::Ok { .. } => self.health.note(done.job, false),
                        _ => {}
                    }
                }
                let took = Duration::from_micros(done.busy_us);
                let is_whole = !done
                    .ends
                    .iter()
                    .any(|end| matches!(end.outcome, Outcome::Returned));
                self.short = (is_whole && took < SHORT).then_some(done.job);
                self.to_finish.push((name, done));
            }
            // Panics are caught inside the task, and nothing aborts one.
            Err(failure) => tracing::error!("a task of this worker was lost: {failure}"),
        }
        self.look_now = true;
    }

    /// Starts finishing what has ended.
    pub(super) fn finish(&mut self) {
        if self.to_finish.is_empty() || self.finishing.len() >= FINISHERS {
            return;
        }
        let batch = std::mem::take(&mut self.to_finish);
        let worker = self.worker.clone();
        self.finishing.spawn(async move {
            let reply = worker.finish(batch.clone()).await;
            (batch, reply)
        });
    }

    pub(super) fn finished(&mut self, reply: Result<FinishReply, JoinError>) -> Result<(), Error> {
        let (batch, reply) = match reply.map_err(JoinError::try_into_panic) {
            Ok(reply) => reply,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is going down, and the leader recovers what is held.
            Err(Err(_)) => return Ok(()),
        };
        match reply {
            Ok(finished) => {
                for name in &finished.gone {
                    tracing::info!(entry = %name, "was taken from this worker before it ended here");
                }
                let stuck: HashSet<EntryName> = finished.stuck.into_iter().map(|(name, strange)| {
                    tracing::error!(entry = %name, path = %strange.path, "can't finish, trying again: {}", strange.why);
                    name
                }).collect();
                for (name, done) in batch {
                    if stuck.contains(&name) {
                        self.stuck.push((name, done));
                    } else {
                        self.held.remove(&name);
                    }
                }
                // What must run alone waits until nothing is held.
                self.look_now = true;
                Ok(())
            }
            Err(failure) if failure.is_retryable() => {
                tracing::debug!("finishing got no answer, repeating: {failure}");
                self.to_finish.extend(batch);
                self.look_at = Instant::now() + RETRY_PAUSE;
                Ok(())
            }
            Err(failure) => Err(failure.into()),
        }
    }
}
