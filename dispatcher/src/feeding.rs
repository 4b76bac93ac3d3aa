//! One round of feeding: from the books of the active jobs to entries in the tree.

use std::collections::BTreeSet;

use coordination::{NewEntry, Place, WorkerNumber};
use model::{
    Block, End, FORMAT, Fingerprint, JobId, JobState, Name, Outcome, Processor, Requirement,
    feed::{allowance, bounds},
    ledger::Portion,
    limits::{COMMAND_BYTES, ENTRY_BYTES},
    outcome::Run,
    rendezvous, znode,
    znode::{DoneData, EntryData},
};

use crate::{
    Error,
    active::{Active, Ending, Turn},
    leading::Leading,
};

/// Subtasks looked up for reuse in one round.
const LOOK_UPS: usize = 1000;
/// Entries of one round that are answered by reuse.
const ANSWERS: usize = 1000;
/// What blocks may take of an entry; the rest is for the processor and the frame.
const BLOCK_BYTES: usize = ENTRY_BYTES - COMMAND_BYTES - 8 * 1024;
/// What a block takes in an entry beside its own bytes and URL.
const BLOCK_FRAME_BYTES: usize = 160;

/// An entry to be fed, and whose book it is in.
struct Planned {
    turn: Turn,
    run: Run,
    entry: NewEntry,
}

/// A portion whose fingerprints must be looked up before it is known what becomes of it.
struct Candidate {
    turn: Turn,
    portion: Portion,
    blocks: Vec<Block>,
    fingerprints: Vec<Fingerprint>,
}

/// What becomes of one subtask.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Run,
    Answered { job: JobId, index: u32 },
    Parked,
}

impl Leading {
    /// Feeds what there is room for; whether anything was fed.
    pub(crate) async fn feed(&mut self) -> Result<bool, Error> {
        let mut planned = Vec::new();
        self.answer_waiters(&mut planned).await?;
        self.plan(&mut planned).await?;
        if planned.is_empty() {
            return Ok(false);
        }
        let wake = self.to_wake(&planned);
        let (places, entries): (Vec<_>, Vec<_>) = planned
            .into_iter()
            .map(|plan| ((plan.turn, plan.run), plan.entry))
            .unzip();
        let names = self.leader.feed(entries, &wake).await?;
        for ((turn, run), name) in places.into_iter().zip(names) {
            if let Some(active) = self.jobs.get_mut(&turn) {
                active.ledger.fed(name.sequence, run);
            }
        }
        Ok(true)
    }

    async fn plan(&mut self, planned: &mut Vec<Planned>) -> Result<(), Error> {
        let now = self.now();
        let due: Vec<Turn> = self
            .jobs
            .iter()
            .filter(|(_, active)| active.ending.is_none() && active.may_feed(now))
            .map(|(turn, _)| *turn)
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let mut rooms = self.rooms().await?;
        let mut candidates = Vec::new();
        let mut looked_up = 0;
        for turn in due {
            let Some(active) = self.jobs.get_mut(&turn) else {
                continue;
            };
            let room = rooms.of(&active.job.spec.processor);
            while (room.left > 0 || active.job.spec.reuse) && room.slots > 0 && looked_up < LOOK_UPS {
                let bundle = active.bundle(self.config.bundles, room.slots);
                let Some(portion) = active.ledger.next(now, bundle) else {
                    break;
                };
                let blocks = active.blocks(&self.store, &mut self.small, &portion).await?;
                if !active.is_complete(&portion, &blocks) {
                    break;
                }
                let (portion, blocks) = active.trim(portion, blocks);
                let fresh = portion.run.attempt == 1 && !blocks.is_empty();
                if active.job.spec.reuse && fresh {
                    let processor = &active.job.spec.processor;
                    let fingerprints: Vec<_> = blocks
                        .iter()
                        .map(|block| Fingerprint::of(processor, 0, block))
                        .collect();
                    looked_up += fingerprints.len();
                    candidates.push(Candidate {
                        turn,
                        portion,
                        blocks,
                        fingerprints,
                    });
                } else if room.left > 0 {
                    room.left -= 1;
                    planned.push(active.entry(&portion, blocks, room.workers));
                } else {
                    active.ledger.put_back_portion(portion);
                    break;
                }
            }
        }
        self.decide(candidates, &mut rooms, planned).await
    }

    /// Looks up what is recorded already, and decides what becomes of the candidates.
    async fn decide(
        &mut self,
        candidates: Vec<Candidate>,
        rooms: &mut Rooms,
        planned: &mut Vec<Planned>,
    ) -> Result<(), Error> {
        if candidates.is_empty() {
            return Ok(());
        }
        let wanted: BTreeSet<Fingerprint> = candidates
            .iter()
            .flat_map(|candidate| &candidate.fingerprints)
            .copied()
            .collect();
        let wanted: Vec<Fingerprint> = wanted.into_iter().collect();
        let recorded = self.store.find_reusable(&wanted).await?;
        for candidate in candidates {
            let Some(active) = self.jobs.get_mut(&candidate.turn) else {
                continue;
            };
            let room = rooms.of(&active.job.spec.processor);
            let first = candidate.portion.run.first;
            let mut position = 0;
            while position < candidate.fingerprints.len() {
                let fate = |at: usize, reuse: &crate::reuse::Reuse| {
                    let print = &candidate.fingerprints[at];
                    match recorded.get(print) {
                        Some(&(job, index)) => Fate::Answered { job, index },
                        None if reuse.should_wait(print, active.job.spec.priority) => Fate::Parked,
                        None => Fate::Run,
                    }
                };
                let begun = fate(position, &self.reuse);
                let from = position;
                let mut ends = Vec::new();
                loop {
                    let index = first + position as u32;
                    match fate(position, &self.reuse) {
                        Fate::Parked => {
                            self.reuse
                                .wait(candidate.fingerprints[position], active.job.id, index);
                            active.ledger.park(index);
                        }
                        Fate::Run if room.left > 0 => {
                            let priority = active.job.spec.priority;
                            self.reuse
                                .own(candidate.fingerprints[position], active.job.id, priority);
                        }
                        Fate::Run => active.ledger.put_back(index..index + 1),
                        Fate::Answered { job, index: of } => {
                            ends.push((index, job, of));
                        }
                    }
                    position += 1;
                    let more = position < candidate.fingerprints.len();
                    if !more || !begun.joins(&fate(position, &self.reuse)) {
                        break;
                    }
                }
                let run = Run {
                    first: first + from as u32,
                    count: (position - from) as u32,
                    attempt: 1,
                };
                let portion = Portion {
                    run,
                    ..candidate.portion.clone()
                };
                match begun {
                    Fate::Run if room.left > 0 => {
                        room.left -= 1;
                        let blocks = candidate.blocks[from..position].to_vec();
                        planned.push(active.entry(&portion, blocks, room.workers));
                    }
                    Fate::Answered { .. } => planned.push(active.answer(&portion, &ends, false)),
                    Fate::Run | Fate::Parked => {}
                }
            }
        }
        Ok(())
    }

    /// Answers those whose result has been recorded meanwhile; those that nobody computes any more run themselves.
    async fn answer_waiters(&mut self, planned: &mut Vec<Planned>) -> Result<(), Error> {
        let awaited = self.reuse.awaited(LOOK_UPS);
        if awaited.is_empty() {
            return Ok(());
        }
        let orphaned = self.reuse.take_orphaned();
        let recorded = self.store.find_reusable(&awaited).await?;
        for fingerprint in awaited {
            let answer = recorded.get(&fingerprint).copied();
            if answer.is_none() && !orphaned.contains(&fingerprint) {
                continue;
            }
            let most = if answer.is_some() {
                ANSWERS.saturating_sub(planned.len())
            } else {
                usize::MAX
            };
            for (id, index) in self.reuse.take_waiters(&fingerprint, most) {
                let Some(active) = self.turns.get(&id).and_then(|turn| self.jobs.get_mut(turn)) else {
                    continue;
                };
                if !active.ledger.unpark(index) {
                    continue;
                }
                let run = Run {
                    first: index,
                    count: 1,
                    attempt: 1,
                };
                match answer {
                    Some((job, of)) if active.ending.is_none() => {
                        let portion = Portion {
                            run,
                            past: Default::default(),
                            avoid: None,
                        };
                        planned.push(active.answer(&portion, &[(index, job, of)], true));
                    }
                    _ => active.ledger.put_back(run.indexes()),
                }
            }
        }
        Ok(())
    }

    /// How much there is room for, by class of requirements.
    async fn rooms(&mut self) -> Result<Rooms, Error> {
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
    fn to_wake(&self, planned: &[Planned]) -> Vec<WorkerNumber> {
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

impl Fate {
    /// Whether two neighbours go into the same entry.
    fn joins(&self, next: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(next)
    }
}

/// Room for entries of one class of requirements.
struct Room {
    left: usize,
    slots: u32,
    workers: usize,
}

/// Room by class.
struct Rooms([Room; CLASSES.len()]);

/// What processors may ask of a worker.
const CLASSES: [&[Requirement]; 3] = [&[], &[Requirement::Exec], &[Requirement::Sql]];

impl Rooms {
    fn of(&mut self, processor: &Processor) -> &mut Room {
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

impl Active {
    /// Whether something could be fed.
    fn may_feed(&self, now: std::time::Duration) -> bool {
        self.ledger.next_retry().is_some_and(|due| due <= now) || !self.ledger.only_retries()
    }

    /// Whether all blocks of a portion are there; without them the job can't go on, and is ended with the reason.
    fn is_complete(&mut self, portion: &Portion, blocks: &[Block]) -> bool {
        let run = portion.run;
        let is_merge = run.first == self.job.blocks;
        if is_merge || blocks.len() == run.count as usize {
            return true;
        }
        let (first, last) = (run.first, run.end() - 1);
        let error = format!(
            "blocks {first} to {last} of dataset {} are gone from MongoDB",
            self.job.spec.dataset
        );
        self.ending = Some(Ending {
            state: JobState::Failed,
            error: Some(error),
        });
        false
    }

    /// Shortens a portion whose blocks do not fit into one entry.
    fn trim(&mut self, portion: Portion, mut blocks: Vec<Block>) -> (Portion, Vec<Block>) {
        let mut bytes = 0;
        let fitting = blocks.iter().take_while(|block| {
            bytes += BLOCK_FRAME_BYTES + block.written_bytes();
            bytes <= BLOCK_BYTES
        });
        let count = fitting.count().max(1);
        if count >= blocks.len() || portion.past.alone() {
            return (portion, blocks);
        }
        blocks.truncate(count);
        let count = count as u32;
        let rest = Run {
            first: portion.run.first + count,
            count: portion.run.count - count,
            ..portion.run
        };
        self.ledger.put_back_portion(Portion {
            run: rest,
            ..portion.clone()
        });
        (
            Portion {
                run: Run { count, ..portion.run },
                ..portion
            },
            blocks,
        )
    }

    /// The entry of a portion, for `/unowned`.
    fn entry(&self, portion: &Portion, blocks: Vec<Block>, workers: usize) -> Planned {
        let avoid: Vec<Name> = portion.avoid.iter().filter(|_| workers > 1).cloned().collect();
        let data = EntryData {
            v: FORMAT,
            job: self.job.id,
            run: portion.run,
            past: portion.past,
            processor: self.job.spec.processor.clone(),
            max_attempts: self.job.spec.retry.max_attempts,
            reuse: self.job.spec.reuse,
            avoid,
            blocks,
        };
        self.planned(portion, Place::Unowned, znode::encode(&data))
    }

    /// The entry of a portion that is answered by recorded results, for `/done`.
    fn answer(&self, portion: &Portion, ends: &[(u32, JobId, u32)], waited: bool) -> Planned {
        let ends = ends
            .iter()
            .map(|&(first, job, index)| End {
                first,
                count: 1,
                outcome: Outcome::Reused { job, index, waited },
            })
            .collect();
        let data = DoneData {
            v: FORMAT,
            job: self.job.id,
            run: portion.run,
            past: portion.past,
            node: None,
            busy_us: 0,
            ends,
        };
        self.planned(portion, Place::Done, znode::encode(&data))
    }

    fn planned(&self, portion: &Portion, place: Place, data: Vec<u8>) -> Planned {
        let spec = &self.job.spec;
        let (priority, dataset, spot) = (spec.priority, spec.dataset.clone(), self.spot(portion));
        let entry = NewEntry {
            priority,
            dataset,
            spot,
            place,
            data,
        };
        Planned {
            turn: self.turn(),
            run: portion.run,
            entry,
        }
    }
}
