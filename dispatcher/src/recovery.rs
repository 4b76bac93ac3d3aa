//! Recovers what dead workers held, beside all else that the leader does: it needs ZooKeeper alone, and goes on while MongoDB
//! is away or a round of the leader takes long.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use coordination::{Recovery, WorkerNumber, WorkerView};
use model::znode::{DoneData, Loss};
use uuid::Uuid;

use crate::Error;

/// How often the workers are listed: deaths are noticed within this after the session ended.
const INTERVAL: Duration = Duration::from_millis(250);

/// The duty of recovering the dead.
pub(crate) struct Recovering {
    recovery: Recovery,
    /// Sessions that end up to then may have been lost to the same outage as that of this dispatcher's previous term.
    outage_until: Option<Instant>,
    /// Dead workers that were seen before.
    known: HashSet<WorkerNumber>,
}

impl Recovering {
    /// `outage_until`: until when all losses count as one, where this dispatcher itself has just lost its session.
    pub(crate) fn new(recovery: Recovery, outage_until: Option<Instant>) -> Self {
        Self {
            recovery,
            outage_until,
            known: HashSet::new(),
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
        let new = dead.iter().filter(|worker| !self.known.contains(&worker.number));
        let outage = self.outage_until.is_some_and(|until| Instant::now() < until);
        let together = outage || new.count() > 1;
        self.known = dead.iter().map(|worker| worker.number).collect();
        let living = living(&workers);
        for worker in dead {
            let (node, process) = match &worker.data {
                Ok(data) => (Some(data.node.clone()), data.process),
                Err(_) => (None, Uuid::nil()),
            };
            let loss = Loss {
                process,
                together,
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

/// The processes in which workers live.
pub(crate) fn living(workers: &[WorkerView]) -> HashSet<Uuid> {
    let alive = workers.iter().filter(|worker| worker.alive);
    alive
        .filter_map(|worker| Some(worker.data.as_ref().ok()?.process))
        .collect()
}
