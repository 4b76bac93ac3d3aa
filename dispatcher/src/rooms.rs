//! How much there is room for in the tree, and whom to wake for what is fed.

use std::collections::BTreeSet;

use coordination::{Place, WorkerNumber};
use model::{
    Name, Processor, Requirement,
    feed::{allowance, bounds},
    rendezvous,
    znode::WorkerData,
};

use crate::{Error, feeding::Planned, leading::Leading};

/// Room for entries of one class of requirements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// For entries that workers run.
    pub(crate) left: usize,
    /// For entries that are answered by reuse: they do not wait in `/unowned`, but all entries in flight are bounded.
    pub(crate) answers: usize,
    pub(crate) slots: u32,
    pub(crate) workers: usize,
}

impl Room {
    /// An entry to run takes its place.
    pub(crate) fn take(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.answers = self.answers.saturating_sub(1);
    }

    /// An entry that is answered takes its place.
    pub(crate) fn answer(&mut self) {
        self.answers = self.answers.saturating_sub(1);
        self.left = self.left.min(self.answers);
    }
}

/// What jobs ask of a worker: those of one class fit the same workers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Class {
    wanted: &'static [Requirement],
    sql: Option<String>,
}

impl Class {
    fn of(processor: &Processor) -> Self {
        Self {
            wanted: processor.requirements(),
            sql: processor.sql_version().map(str::to_owned),
        }
    }

    fn is_of(&self, processor: &Processor) -> bool {
        self.wanted == processor.requirements() && self.sql.as_deref() == processor.sql_version()
    }
}

/// What there is of the jobs of a class.
struct Standing<'a> {
    processor: &'a Processor,
    /// Entries in flight.
    flying: usize,
}

/// Room by class.
pub(crate) struct Rooms(Vec<(Class, Room)>);

impl Rooms {
    pub(crate) fn of(&mut self, processor: &Processor) -> &mut Room {
        let known = self.0.iter().position(|(class, _)| class.is_of(processor));
        let at = known.unwrap_or_else(|| {
            let none = Room {
                left: 0,
                answers: 0,
                slots: 0,
                workers: 0,
            };
            self.0.push((Class::of(processor), none));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }
}

impl Leading {
    /// How much there is room for, by class of requirements.
    pub(crate) async fn rooms(&mut self) -> Result<Rooms, Error> {
        let mut classes: Vec<(Class, Standing<'_>)> = Vec::new();
        for active in self.jobs.values() {
            let processor = &active.job.spec.processor;
            let known = classes.iter().position(|(class, _)| class.is_of(processor));
            let at = known.unwrap_or_else(|| {
                let standing = Standing { processor, flying: 0 };
                classes.push((Class::of(processor), standing));
                classes.len() - 1
            });
            classes[at].1.flying += active.ledger.in_flight_entries();
        }
        // Nothing waits of what was never fed.
        let waiting = if classes.iter().all(|(_, standing)| standing.flying == 0) {
            0
        } else {
            self.leader.unowned_count().await?
        };
        let overtaking = self.overtaking;
        let alone = classes.len() == 1;
        let room = |standing: &Standing<'_>| {
            let fitting = self
                .census
                .workers
                .iter()
                .filter(|worker| worker.alive)
                .filter_map(|worker| {
                    let data = worker.data.as_ref().ok()?;
                    standing.processor.fits(data.offer()).then_some(data.slots)
                });
            let (workers, slots) =
                fitting.fold((0, 0u32), |(n, sum), slots| (n + 1, sum.saturating_add(slots)));
            let waiting = if alone {
                waiting
            } else {
                standing.flying.saturating_sub(slots as usize).min(waiting)
            };
            let bounds = bounds(slots, self.config.window_factor);
            Room {
                left: allowance(bounds, waiting, standing.flying, overtaking),
                answers: bounds.in_flight.saturating_sub(standing.flying),
                slots,
                workers,
            }
        };
        let rooms = classes
            .iter()
            .map(|(class, standing)| (class.clone(), room(standing)));
        let rooms = Rooms(rooms.collect());
        self.overtaking = false;
        Ok(rooms)
    }

    /// The nodes of live workers.
    pub(crate) fn live_nodes(&self) -> Vec<Name> {
        let live = self.census.workers.iter().filter(|worker| worker.alive);
        live.filter_map(|worker| Some(worker.data.as_ref().ok()?.node.clone()))
            .collect()
    }

    /// The workers to wake: the nearest to each entry, or the one that keeps its blocks, and where that one was full, the nearest with room.
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
            let active = self.jobs.get(&plan.turn);
            let fits =
                |data: &WorkerData| active.is_none_or(|active| active.job.spec.processor.fits(data.offer()));
            let host = plan.entry.host.as_ref();
            let keeps = |data: &WorkerData| host == Some(&data.node);
            let is_kept = live.iter().any(|(_, data)| fits(data) && keeps(data));
            let nearest = |only_with_room: bool| {
                live.iter()
                    .filter(|(_, data)| fits(data) && (only_with_room || !is_kept || keeps(data)))
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
