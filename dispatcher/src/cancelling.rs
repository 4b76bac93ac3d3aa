//! Takes jobs off the mill before their end: a user cancelled them, or too much of them failed.
//!
//! Promise: a job has ended only when nothing of it runs any more. A worker is told to end what it has, and finishes that
//! once its processes are gone; what one does not finish in time is taken from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use coordination::WorkerNumber;
use model::{
    EntryName, FORMAT, JobId, Outcome,
    znode::{DoneData, OwnedData},
};

use crate::{Error, leading::Leading};

/// How long a worker may take to end what it has of a job: it looks each second what it is to end, and gives up processes that
/// can't be killed after seven.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// What workers are told to end.
type Asked = BTreeMap<WorkerNumber, BTreeSet<JobId>>;

impl Leading {
    /// Revokes what nobody runs of the jobs that shall end, has workers end the rest, and ends the jobs of which nothing is left.
    pub(crate) async fn end_early(&mut self) -> Result<(), Error> {
        let ending: Vec<JobId> = self
            .jobs
            .values()
            .filter(|active| active.ending.is_some())
            .map(|active| active.job.id)
            .collect();
        let mut asked = Asked::new();
        for id in ending {
            self.take_back(id, &mut asked).await?;
            self.end(id).await?;
        }
        let asked = asked
            .into_iter()
            .map(|(worker, jobs)| (worker, jobs.into_iter().collect()));
        self.leader.stop_jobs(asked.collect()).await?;
        Ok(())
    }

    /// Revokes what is in `/unowned`, and what a worker did not end in time; what workers have to end is added to `asked`.
    async fn take_back(&mut self, id: JobId, asked: &mut Asked) -> Result<(), Error> {
        let Some(active) = self.turns.get(&id).and_then(|turn| self.jobs.get(turn)) else {
            return Ok(());
        };
        let unowned = self.census.unowned.iter().map(|name| (name, None));
        let owned = self
            .census
            .workers
            .iter()
            .filter(|worker| worker.alive)
            .flat_map(|worker| worker.entries.iter().map(|name| (name, Some(worker.number))));
        let is_late = active
            .ending
            .as_ref()
            .is_some_and(|ending| ending.since.elapsed() >= STOP_PATIENCE);
        let mut revoke: Vec<(EntryName, Option<WorkerNumber>, DoneData)> = Vec::new();
        for (name, worker) in unowned.chain(owned) {
            if let Some(run) = active.ledger.run_of(name.sequence) {
                if let Some(worker) = worker {
                    if !is_late {
                        asked.entry(worker).or_default().insert(id);
                        continue;
                    }
                    tracing::warn!(job = %id, entry = %name, %worker, "the worker does not end it: taken away, it may still run");
                }
                let owned = OwnedData {
                    v: FORMAT,
                    job: id,
                    run,
                    past: model::outcome::Past::default(),
                };
                revoke.push((
                    name.clone(),
                    worker,
                    DoneData::all(&owned, None, Outcome::Cancelled),
                ));
            }
        }
        if !revoke.is_empty() {
            let moved = self.leader.revoke(revoke).await?;
            tracing::info!(job = %id, entries = moved.len(), "revoked");
        }
        Ok(())
    }

    /// Ends a job of which the last census showed nothing any more.
    async fn end(&mut self, id: JobId) -> Result<(), Error> {
        let Some(active) = self.turns.get(&id).and_then(|turn| self.jobs.get(turn)) else {
            return Ok(());
        };
        let Some(ending) = &active.ending else {
            return Ok(());
        };
        if active.ledger.entries_in_flight() > 0 {
            return Ok(());
        }
        let Some(job) = self.store.job(id).await? else {
            self.forget(id);
            return Ok(());
        };
        let cancelled = job.subtasks().saturating_sub(job.counts.ok + job.counts.failed);
        let error = ending.error.clone().or_else(|| job.error.clone());
        let ended = self
            .store
            .end_job(id, self.epoch, ending.state, cancelled, error, &job.counts)
            .await?;
        if ended || job.state.is_final() {
            self.forget(id);
        }
        Ok(())
    }
}
