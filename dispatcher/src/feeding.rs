//! One round of feeding: from the books of the active jobs to entries in the tree.

use std::collections::BTreeSet;

use coordination::NewEntry;
use model::{Block, Fingerprint, JobId, ledger::Portion, outcome::Run};

use crate::{Error, active::Turn, leading::Leading, rooms::Rooms};

/// Subtasks looked up for reuse in one round.
const LOOK_UPS: usize = 1000;
/// Entries of one round that are answered by reuse.
const ANSWERS: usize = 1000;

/// An entry to be fed, and whose book it is in.
pub(crate) struct Planned {
    pub(crate) turn: Turn,
    pub(crate) run: Run,
    pub(crate) entry: NewEntry,
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
        let live = self.live_nodes();
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
                let portion = active.within_part(portion);
                let blocks = active.blocks(&self.store, &mut self.small, &portion).await?;
                if !active.is_complete(&portion, &blocks) {
                    break;
                }
                let (portion, blocks) = active.trim(portion, blocks);
                let fresh = portion.run.attempt == 1 && !blocks.is_empty();
                if active.job.spec.reuse && fresh {
                    let processor = &active.job.spec.processor;
                    let table = active.table(&portion);
                    let fingerprints: Vec<_> = blocks
                        .iter()
                        .map(|block| Fingerprint::of(processor, table, block))
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
                    planned.push(active.entry(&portion, blocks, (room.workers, &live)));
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
        let live = self.live_nodes();
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
                        planned.push(active.entry(&portion, blocks, (room.workers, &live)));
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
}

impl Fate {
    /// Whether two neighbours go into the same entry.
    fn joins(&self, next: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(next)
    }
}
