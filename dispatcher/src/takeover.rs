//! What a new leader finds out before it feeds, and how a job that lost track is healed: the same comparison.
//!
//! Order matters: the tree is listed from left to right and only then is read what is recorded. Since work only moves
//! right, what this order does not show was never fed, or was deleted by hand.

use std::collections::HashMap;

use coordination::Census;
use futures::{StreamExt, TryStreamExt, stream};
use model::{Job, JobId, ledger::Ledger, outcome::Run};

use crate::{Error, active::Active, following::unsuccessful, leading::Leading};

/// Jobs compared at once.
const AT_ONCE: usize = 16;

impl Leading {
    /// Takes over every active job.
    pub(crate) async fn take_over(&mut self) -> Result<(), Error> {
        self.jobs.clear();
        self.turns.clear();
        self.pending.clear();
        self.reuse = crate::reuse::Reuse::default();
        let listed = self.store.active().await?;
        let ids: Vec<JobId> = listed.iter().map(|job| job.id).collect();
        self.store.adopt(&ids, self.epoch).await?;
        let census = self.leader.census().await?;
        self.compare(listed, &census).await?;
        self.census = census;
        self.census_at = None;
        if !self.jobs.is_empty() {
            tracing::info!(jobs = self.jobs.len(), "took over");
        }
        Ok(())
    }

    /// Compares the tree with what is recorded of one job, and starts its book anew.
    pub(crate) async fn heal(&mut self, id: JobId) -> Result<(), Error> {
        let census = self.leader.census().await?;
        let Some(job) = self.store.job(id).await? else {
            return Ok(());
        };
        self.forget(id);
        if job.state.is_active() {
            self.compare(vec![job], &census).await?;
        }
        Ok(())
    }

    async fn compare(&mut self, jobs: Vec<Job>, census: &Census) -> Result<(), Error> {
        let mut in_flight: HashMap<JobId, Vec<(u64, Run)>> = HashMap::new();
        for (name, _, data) in self.leader.read_headers(census).await? {
            match data {
                Ok(data) => in_flight
                    .entry(data.job)
                    .or_default()
                    .push((name.sequence, data.run)),
                Err(why) => tracing::error!(entry = %name, "can't read this entry, leaving it there: {why}"),
            }
        }
        let store = &self.store;
        let compared: Vec<Option<Active>> = stream::iter(jobs)
            .map(|job| {
                let in_flight = in_flight.get(&job.id).map(Vec::as_slice).unwrap_or_default();
                async move { compare_one(store, job, in_flight).await }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        compared.into_iter().flatten().for_each(|active| self.add(active));
        Ok(())
    }
}

async fn compare_one(
    store: &storage::Store,
    job: Job,
    in_flight: &[(u64, Run)],
) -> Result<Option<Active>, Error> {
    // The counts first: an end that is numbered at or above them is taken note of later, by its number.
    let Some(job) = store.job(job.id).await?.filter(|job| job.state.is_active()) else {
        return Ok(None);
    };
    let unsuccessful: Vec<_> = store
        .failures_above(job.id, job.low_water)
        .await?
        .into_iter()
        .filter(|record| record.ordinal < job.counts.again)
        .map(unsuccessful)
        .collect();
    let recorded = store.result_ids_from(job.id, job.low_water).await?;
    let shape = (job.blocks, job.has_merge());
    let ledger = Ledger::resumed(
        shape,
        job.counts,
        job.low_water,
        in_flight,
        &recorded,
        &unsuccessful,
    );
    Ok(Some(Active::new(job, ledger)))
}
