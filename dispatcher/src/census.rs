//! Looks after the tree: the books are compared with it, and what lost track is healed.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use coordination::Census;
use model::JobId;

use crate::{Error, leading::Leading, recovery::living};

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
        let present = sequences(&self.census);
        let living = living(&self.census.workers);
        for active in self.jobs.values_mut() {
            active.ledger.note_census(self.census.before, &present);
            active.ledger.acquit(&living);
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
                    STUCK_AFTER.min(self.config.heal_after)
                } else if active.ledger.entries_in_flight() > 0 {
                    self.config.heal_after
                } else {
                    // It waits for its turn: there is nothing in the tree that could have been lost.
                    return false;
                };
                active.quiet_for(now) >= patience && !nobody
            })
            .map(|active| active.job.id)
            .collect();
        if quiet.is_empty() {
            return Ok(());
        }
        tracing::debug!(jobs = quiet.len(), "no progress, comparing with the stores");
        self.heal(&quiet).await
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
