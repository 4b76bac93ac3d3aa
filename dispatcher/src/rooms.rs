//! How much there is room for in the tree, and whom to wake for what is fed.

use std::collections::BTreeSet;

use coordination::{Place, WorkerNumber};
use model::{
    Processor, Requirement,
    feed::{allowance, bounds},
    rendezvous,
};

use crate::{Error, feeding::Planned, leading::Leading};

/// Room for entries of one class of requirements.
pub(crate) struct Room {
    pub(crate) left: usize,
    pub(crate) slots: u32,
    pub(crate) workers: usize,
}

/// Room by class.
pub(crate) struct Rooms([Room; CLASSES.len()]);

/// What processors may ask of a worker.
const CLASSES: [&[Requirement]; 3] = [&[], &[Requirement::Exec], &[Requirement::Sql]];

impl Rooms {
    pub(crate) fn of(&mut self, processor: &Processor) -> &mut Room {
        &mut self.0[class(processor)]
    }
}

fn class(processor: &Processor) -> usize {
    let wanted = processor.requirements();
    CLASSES
        .iter()
        .position(|class| *class == wanted)
        .unwrap_or_default()
}

impl Leading {
    /// How much there is room for, by class of requirements.
    pub(crate) async fn rooms(&mut self) -> Result<Rooms, Error> {
        let mut flying = [0; CLASSES.len()];
        let mut jobs = [0; CLASSES.len()];
        for active in self.jobs.values() {
            let class = class(&active.job.spec.processor);
            flying[class] += active.ledger.in_flight_entries();
            jobs[class] += 1;
        }
        // Nothing waits of what was never fed.
        let waiting = if flying.iter().all(|&entries| entries == 0) {
            0
        } else {
            self.leader.unowned_count().await?
        };
        let overtaking = std::mem::take(&mut self.overtaking);
        let room = |class: usize| {
            let fitting = self
                .census
                .workers
                .iter()
                .filter(|worker| worker.alive)
                .filter_map(|worker| {
                    let data = worker.data.as_ref().ok()?;
                    CLASSES[class]
                        .iter()
                        .all(|needed| data.capabilities.contains(needed))
                        .then_some(data.slots)
                });
            let (workers, slots) =
                fitting.fold((0, 0u32), |(n, sum), slots| (n + 1, sum.saturating_add(slots)));
            let alone = jobs.iter().sum::<usize>() == jobs[class];
            let waiting = if alone {
                waiting
            } else {
                flying[class].saturating_sub(slots as usize).min(waiting)
            };
            let bounds = bounds(slots, self.config.window_factor);
            Room {
                left: allowance(bounds, waiting, flying[class], overtaking),
                slots,
                workers,
            }
        };
        Ok(Rooms(std::array::from_fn(room)))
    }

    /// The workers to wake: the nearest to each entry, and where that one was full, the nearest with room.
    pub(crate) fn to_wake(&self, planned: &[Planned]) -> Vec<WorkerNumber> {
        let live: Vec<_> = self
            .census
            .workers
            .iter()
            .filter(|worker| worker.alive)
            .filter_map(|worker| Some((worker, worker.data.as_ref().ok()?)))
            .collect();
        let mut wake = BTreeSet::new();
        for plan in planned.iter().filter(|plan| plan.entry.place == Place::Unowned) {
            if wake.len() >= live.len() {
                break;
            }
            let key = format!("{}:{}", plan.entry.dataset, plan.entry.spot);
            let nearest = |only_with_room: bool| {
                live.iter()
                    .filter(|(view, data)| !only_with_room || view.entries.len() < data.slots as usize)
                    .max_by_key(|(_, data)| rendezvous::weight(key.as_bytes(), data.node.as_str()))
                    .map(|(view, data)| (view.number, view.entries.len() < data.slots as usize))
            };
            if let Some((number, has_room)) = nearest(false) {
                wake.insert(number);
                if !has_room {
                    wake.extend(nearest(true).map(|(number, _)| number));
                }
            }
        }
        wake.into_iter().collect()
    }
}
