//! Looks after the tree: the books are compared with it, and what lost track is healed.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use coordination::Census;
use model::{JobId, ledger::Ledger};

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
                let patience = patience(&active.ledger, self.config.heal_after);
                patience.is_some_and(|patience| active.quiet_for(now) >= patience) && !nobody
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

/// After how long without news a job is compared with the stores; none while it waits for its turn, as there is nothing in
/// the tree that could have been lost.
fn patience(ledger: &Ledger, heal_after: Duration) -> Option<Duration> {
    if ledger.stuck() {
        Some(STUCK_AFTER.min(heal_after))
    } else {
        (ledger.entries_in_flight() > 0).then_some(heal_after)
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

#[cfg(test)]
mod tests {
    use model::outcome::Run;

    use super::*;

    #[test]
    fn only_what_could_have_been_lost_is_healed() {
        let minute = Duration::from_secs(60);
        let mut ledger = Ledger::fresh(1, false);
        assert_eq!(patience(&ledger, minute), None, "it waits for its turn");
        ledger.next(Duration::ZERO, 1);
        let run = Run {
            first: 0,
            count: 1,
            attempt: 1,
        };
        ledger.fed(7, run);
        assert_eq!(patience(&ledger, minute), Some(minute));
        ledger.note_census(8, &HashSet::new());
        assert_eq!(patience(&ledger, minute), None, "its end is not known yet");
        ledger.note_counts(model::Counts::default());
        assert_eq!(patience(&ledger, minute), Some(STUCK_AFTER));
    }
}
