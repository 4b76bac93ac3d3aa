//! Takes jobs off the mill before their end: a user cancelled them, or too much of them failed.

use coordination::WorkerNumber;
use model::{
    EntryName, FORMAT, JobId, Outcome,
    znode::{DoneData, OwnedData},
};

use crate::{Error, leading::Leading};

impl Leading {
    /// Revokes what is left of the jobs that shall end, and ends those of which nothing is left.
    pub(crate) async fn end_early(&mut self) -> Result<(), Error> {
        let ending: Vec<JobId> = self
            .jobs
            .values()
            .filter(|active| active.ending.is_some())
            .map(|active| active.job.id)
            .collect();
        for id in ending {
            self.revoke_all(id).await?;
            self.end(id).await?;
        }
        Ok(())
    }

    async fn revoke_all(&mut self, id: JobId) -> Result<(), Error> {
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
        let mut revoke: Vec<(EntryName, Option<WorkerNumber>, DoneData)> = Vec::new();
        for (name, worker) in unowned.chain(owned) {
            if let Some(run) = active.ledger.run_of(name.sequence) {
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
