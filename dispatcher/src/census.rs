//! Looks after the tree: the dead are recovered, the books compared, what lost track healed.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use coordination::{Census, WorkerNumber};
use model::{JobId, znode::DoneData};

use crate::{Error, leading::Leading};

/// Low-water marks are written when they moved by this much: they only spare a new leader some reading.
const LOW_WATER_STEP: u32 = 1000;
/// Nothing in flight, nothing waiting and no end for this long: the job lost track. Short, since it can't happen
/// unless something was deleted by hand.
const STUCK_AFTER: Duration = Duration::from_secs(2);

impl Leading {
    /// Lists the tree and acts on what it shows.
    pub(crate) async fn look_after_tree(&mut self) -> Result<(), Error> {
        self.census = self.leader.census().await?;
        self.census_at = Some(Instant::now());
        self.report_strange();
        self.recover_dead().await?;
        let present = sequences(&self.census);
        for active in self.jobs.values_mut() {
            active.ledger.note_census(self.census.before, &present);
        }
        self.end_early().await?;
        self.write_low_water().await?;
        self.heal_quiet().await
    }

    fn report_strange(&mut self) {
        for strange in &self.census.strange {
            if self.reported.insert(strange.path.clone()) {
                tracing::warn!(path = %strange.path, "skipping a znode that is none of Sawmill's: {}", strange.why);
            }
        }
    }

    async fn recover_dead(&mut self) -> Result<(), Error> {
        let dead: Vec<(WorkerNumber, Option<model::Name>)> = self
            .census
            .workers
            .iter()
            .filter(|worker| !worker.alive)
            .map(|worker| {
                (
                    worker.number,
                    worker.data.as_ref().ok().map(|data| data.node.clone()),
                )
            })
            .collect();
        for (worker, node) in dead {
            let recovered = self
                .leader
                .recover(worker, |owned| DoneData::lost(owned, node.clone()))
                .await?;
            if recovered.moved > 0 {
                let node = node.map_or_else(|| "?".to_string(), |node| node.to_string());
                tracing::warn!(
                    worker = worker.0,
                    node,
                    entries = recovered.moved,
                    "recovered a dead worker's entries"
                );
            }
        }
        Ok(())
    }

    async fn write_low_water(&mut self) -> Result<(), Error> {
        let mut marks = Vec::new();
        for active in self.jobs.values_mut() {
            let mark = active.ledger.low_water();
            if mark >= active.low_water_written.saturating_add(LOW_WATER_STEP) {
                active.low_water_written = mark;
                marks.push((active.job.id, mark));
            }
        }
        if !marks.is_empty() {
            self.store.set_low_water(marks, self.epoch).await?;
        }
        Ok(())
    }

    async fn heal_quiet(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let nobody = self.census.workers.iter().all(|worker| !worker.alive);
        let quiet: Vec<JobId> = self
            .jobs
            .values()
            .filter(|active| active.ending.is_none())
            .filter(|active| {
                let patience = if active.ledger.stuck() {
                    STUCK_AFTER
                } else {
                    self.config.heal_after
                };
                active.quiet_for(now) >= patience.min(self.config.heal_after) && !nobody
            })
            .map(|active| active.job.id)
            .collect();
        for id in quiet {
            tracing::debug!(job = %id, "no progress, comparing with the stores");
            self.heal(id).await?;
        }
        Ok(())
    }
}

/// Sequences of all entries in the three places.
pub(crate) fn sequences(census: &Census) -> HashSet<u64> {
    let owned = census.workers.iter().flat_map(|worker| &worker.entries);
    census
        .unowned
        .iter()
        .chain(owned)
        .chain(&census.done)
        .map(|name| name.sequence)
        .collect()
}
