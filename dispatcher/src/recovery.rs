//! Recovers what dead workers held, beside all else that the leader does: it needs ZooKeeper alone, and goes on while MongoDB
//! is away or a round of the leader takes long.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use coordination::{Recovery, WorkerNumber, WorkerView};
use model::znode::{DoneData, Loss};
use uuid::Uuid;

use crate::Error;

/// How often the workers are listed: deaths are noticed within this after the session ended.
const INTERVAL: Duration = Duration::from_millis(250);

/// Workers that are lost within this are lost together: ZooKeeper ends sessions by its ticks, of two seconds at most by default.
const TOGETHER: Duration = Duration::from_secs(2);

/// The duty of recovering the dead.
pub(crate) struct Recovering {
    recovery: Recovery,
    /// Sessions that end up to then may have been lost to the same outage as that of this dispatcher's previous term.
    outage_until: Option<Instant>,
    /// When the workers that are still in the tree, or were a moment ago, were first seen dead.
    losses: HashMap<WorkerNumber, Instant>,
}

impl Recovering {
    /// `outage_until`: until when all losses count as one, where this dispatcher itself has just lost its session.
    pub(crate) fn new(recovery: Recovery, outage_until: Option<Instant>) -> Self {
        Self {
            recovery,
            outage_until,
            losses: HashMap::new(),
        }
    }

    /// Recovers the dead until the term ends; what ZooKeeper refuses is tried again.
    pub(crate) async fn work(mut self) -> Error {
        loop {
            match self.recover_dead().await {
                Ok(()) => {}
                Err(failure) if failure.is_retryable() => {
                    tracing::warn!("dead workers are not recovered now, trying again: {failure}");
                }
                Err(failure) => return failure.into(),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn recover_dead(&mut self) -> Result<(), coordination::Error> {
        let workers = self.recovery.workers().await?;
        let dead: Vec<&WorkerView> = workers.iter().filter(|worker| !worker.alive).collect();
        let now = Instant::now();
        self.losses.retain(|number, seen_at| {
            now.duration_since(*seen_at) < TOGETHER || dead.iter().any(|worker| worker.number == *number)
        });
        for worker in &dead {
            self.losses.entry(worker.number).or_insert(now);
        }
        let outage = self.outage_until.is_some_and(|until| now < until);
        let living = living(&workers);
        for worker in dead {
            let (node, process) = match &worker.data {
                Ok(data) => (Some(data.node.clone()), data.process),
                Err(_) => (None, Uuid::nil()),
            };
            let loss = Loss {
                process,
                together: outage || is_one_of_several(&self.losses, worker.number),
                living: &living,
            };
            let recovered = self
                .recovery
                .recover(worker.number, |owned| DoneData::lost(owned, node.clone(), &loss))
                .await?;
            if recovered.moved > 0 {
                let node = node.map_or_else(|| "?".to_string(), |node| node.to_string());
                tracing::warn!(
                    worker = worker.number.0,
                    node,
                    entries = recovered.moved,
                    "recovered a lost worker's entries"
                );
            }
        }
        Ok(())
    }
}

/// Whether other workers were lost at about the same time as this one.
fn is_one_of_several(losses: &HashMap<WorkerNumber, Instant>, number: WorkerNumber) -> bool {
    let Some(&lost_at) = losses.get(&number) else {
        return false;
    };
    losses
        .iter()
        .any(|(&other, &at)| other != number && at.max(lost_at).duration_since(at.min(lost_at)) < TOGETHER)
}

/// The processes in which workers live.
pub(crate) fn living(workers: &[WorkerView]) -> HashSet<Uuid> {
    let alive = workers.iter().filter(|worker| worker.alive);
    alive
        .filter_map(|worker| Some(worker.data.as_ref().ok()?.process))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_within_two_seconds_are_one() {
        let begun = Instant::now();
        let after = |ms| begun + Duration::from_millis(ms);
        let losses = HashMap::from([
            (WorkerNumber(1), begun),
            (WorkerNumber(2), after(1_900)),
            (WorkerNumber(3), after(9_000)),
        ]);
        let together = [1, 2, 3, 4].map(|number| is_one_of_several(&losses, WorkerNumber(number)));
        assert_eq!(together, [true, true, false, false]);
    }
}
