//! What a new leader finds out before it feeds, and how a job that lost track is healed: the same comparison.
//!
//! Order matters: the tree is listed from left to right and only then is read what is recorded. Since work only moves
//! right, what this order does not show was never fed, or was deleted by hand.

use std::collections::HashMap;

use coordination::Census;
use futures::{StreamExt, TryStreamExt, stream};
use model::{
    Job, JobId,
    ledger::{Ledger, low_water_holds},
    outcome::Run,
};
use storage::{Epoch, Store};

use crate::{Error, active::Active, following::unsuccessful, leading::Leading};

/// Jobs compared at once.
const AT_ONCE: usize = 16;
/// How often a low-water mark is compared with what is recorded before everything is read.
const MARK_TRIES: u32 = 3;

impl Leading {
    /// Takes over every active job.
    pub(crate) async fn take_over(&mut self) -> Result<(), Error> {
        self.jobs.clear();
        self.turns.clear();
        self.pending.clear();
        self.reuse = crate::reuse::Reuse::default();
        let ids = self.store.active_ids().await?;
        self.store.adopt(&ids, self.epoch).await?;
        let census = self.leader.census().await?;
        self.compare(&ids, &census).await?;
        self.census = census;
        self.census_at = None;
        if !self.jobs.is_empty() {
            tracing::info!(jobs = self.jobs.len(), "took over");
        }
        Ok(())
    }

    /// Compares the tree with what is recorded of some jobs, and starts their books anew.
    pub(crate) async fn heal(&mut self, ids: &[JobId]) -> Result<(), Error> {
        let census = self.leader.census().await?;
        ids.iter().for_each(|&id| self.forget(id));
        self.compare(ids, &census).await
    }

    /// Takes up active jobs that are in no book: an admission whose reply was lost may take effect after a takeover has read
    /// which jobs are active.
    pub(crate) async fn take_up_strays(&mut self) -> Result<(), Error> {
        let mut strays = self.store.active_ids().await?;
        strays.retain(|id| !self.turns.contains_key(id));
        if strays.is_empty() {
            return Ok(());
        }
        tracing::warn!(jobs = strays.len(), "active jobs were in no book, taking them up");
        self.store.adopt(&strays, self.epoch).await?;
        self.heal(&strays).await
    }

    async fn compare(&mut self, jobs: &[JobId], census: &Census) -> Result<(), Error> {
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
        let (store, epoch) = (&self.store, self.epoch);
        let compared: Vec<Option<Active>> = stream::iter(jobs.iter().copied())
            .map(|id| {
                let in_flight = in_flight.get(&id).map(Vec::as_slice).unwrap_or_default();
                async move { compare_one(store, epoch, id, in_flight).await }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        compared.into_iter().flatten().for_each(|active| self.add(active));
        Ok(())
    }
}

async fn compare_one(
    store: &Store,
    epoch: Epoch,
    id: JobId,
    in_flight: &[(u64, Run)],
) -> Result<Option<Active>, Error> {
    let Some((mut job, mut recorded)) = recorded_above_low_water(store, id).await? else {
        return Ok(None);
    };
    if !low_water_holds(job.low_water, &recorded, &job.counts) {
        let claimed = job.low_water;
        recorded = store.result_ids_from(id, 0).await?;
        let below = recorded.partition_point(|&index| index < claimed);
        if (below as u64) < u64::from(claimed) {
            tracing::error!(
                job = %id,
                low_water = claimed,
                missing = claimed as usize - below,
                "subtasks below the low-water mark have no result, they run now"
            );
            store.reset_low_water(id, epoch).await?;
        }
        job.low_water = 0;
    }
    let unsuccessful: Vec<_> = store
        .failures_above(id, job.low_water)
        .await?
        .into_iter()
        .filter(|record| record.ordinal < job.counts.again)
        .map(unsuccessful)
        .collect();
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

/// An active job, and then which of its subtasks from its low-water mark on have a result; looked at again while the mark
/// can't be proved because subtasks end in between.
async fn recorded_above_low_water(store: &Store, id: JobId) -> Result<Option<(Job, Vec<u32>)>, Error> {
    let mut tries = 0;
    loop {
        // The counts first: an unsuccessful end that is numbered at or above them is taken note of later, by its number.
        let Some(job) = store.job(id).await?.filter(|job| job.state.is_active()) else {
            return Ok(None);
        };
        let recorded = store.result_ids_from(id, job.low_water).await?;
        tries += 1;
        if tries == MARK_TRIES || low_water_holds(job.low_water, &recorded, &job.counts) {
            return Ok(Some((job, recorded)));
        }
    }
}
