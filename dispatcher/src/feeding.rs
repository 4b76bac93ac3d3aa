//! One round of feeding: from the books of the active jobs to entries in the tree.
//!
//! What is answered by reuse goes to `/done` at once, but counts against the bound of what is in flight like any other entry:
//! without a watcher it would else grow without one.

use std::collections::{BTreeMap, BTreeSet};

use coordination::NewEntry;
use model::{Block, Fingerprint, JobId, ledger::Portion, limits::BUNDLE_SUBTASKS, outcome::Run};

use crate::{
    Error,
    active::{Active, Turn},
    leading::Leading,
    rooms::Rooms,
};

/// Subtasks looked up for reuse in one round.
const LOOK_UPS: usize = 1000;
/// Waiting subtasks that are answered by reuse in one round.
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
    /// Most subtasks of an entry to run.
    bundle: u32,
}

/// What becomes of one subtask.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Run,
    Answered { job: JobId, index: u32 },
    Parked,
}

/// A waiting subtask whose result is recorded: what it waited for, and where that is.
#[derive(Clone, Copy)]
struct Answer {
    fingerprint: Fingerprint,
    job: JobId,
    index: u32,
}

impl Leading {
    /// Feeds what there is room for; whether anything was fed.
    pub(crate) async fn feed(&mut self) -> Result<bool, Error> {
        let mut planned = Vec::new();
        let awaited = self.reuse.awaited(LOOK_UPS);
        if awaited.is_empty() && self.due().is_empty() {
            return Ok(false);
        }
        let mut rooms = self.rooms().await?;
        self.answer_waiters(awaited, &mut rooms, &mut planned).await?;
        self.plan(&mut rooms, &mut planned).await?;
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

    /// The jobs of which something could be fed, in their order.
    fn due(&self) -> Vec<Turn> {
        let now = self.now();
        self.jobs
            .iter()
            .filter(|(_, active)| active.ending.is_none() && active.may_feed(now))
            .map(|(turn, _)| *turn)
            .collect()
    }

    async fn plan(&mut self, rooms: &mut Rooms, planned: &mut Vec<Planned>) -> Result<(), Error> {
        let now = self.now();
        let live = self.live_nodes();
        let mut candidates = Vec::new();
        let mut looked_up = 0;
        for turn in self.due() {
            let Some(active) = self.jobs.get_mut(&turn) else {
                continue;
            };
            let room = rooms.of(&active.job.spec.processor);
            let reuse = active.job.spec.reuse;
            while (room.left > 0 || (reuse && room.answers > 0)) && room.slots > 0 && looked_up < LOOK_UPS {
                let bundle = active.bundle(self.config.bundles, room.slots);
                // Answers take nobody's time: as many as an entry may have.
                let most = if reuse { BUNDLE_SUBTASKS } else { bundle };
                let Some(portion) = active.ledger.next(now, most) else {
                    break;
                };
                let portion = active.within_part(portion);
                let blocks = active.blocks(&self.store, &mut self.small, &portion).await?;
                if !active.is_complete(&portion, &blocks) {
                    break;
                }
                if reuse && portion.run.attempt == 1 && !blocks.is_empty() {
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
                        bundle,
                    });
                } else if room.left > 0 {
                    room.take();
                    let (portion, blocks) = active.trim(portion, blocks, bundle);
                    planned.push(active.entry(&portion, blocks, (room.workers, &live)));
                } else {
                    active.ledger.put_back_portion(portion);
                    break;
                }
            }
        }
        self.decide(candidates, rooms, planned).await
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
            let (id, priority) = (active.job.id, active.job.spec.priority);
            let fate = |reuse: &crate::reuse::Reuse, at: usize| {
                let print = candidate.fingerprints.get(at)?;
                Some(match recorded.get(print) {
                    Some(&(job, index)) => Fate::Answered { job, index },
                    None if reuse.should_wait(print, priority) => Fate::Parked,
                    None => Fate::Run,
                })
            };
            let first = candidate.portion.run.first;
            let portion = |from: usize, end: usize| Portion {
                run: Run {
                    first: first + from as u32,
                    count: (end - from) as u32,
                    attempt: 1,
                },
                ..candidate.portion.clone()
            };
            let mut at = 0;
            while let Some(begun) = fate(&self.reuse, at) {
                let from = at;
                match begun {
                    Fate::Parked => {
                        self.reuse.wait(candidate.fingerprints[at], id, first + at as u32);
                        active.ledger.park(first + at as u32);
                        at += 1;
                    }
                    Fate::Answered { .. } => {
                        let mut ends = Vec::new();
                        while let Some(Fate::Answered { job, index }) = fate(&self.reuse, at) {
                            ends.push((first + at as u32, job, index));
                            at += 1;
                        }
                        let portion = portion(from, at);
                        if room.answers > 0 {
                            room.answer();
                            planned.push(active.answer(&portion, &ends, false));
                        } else {
                            active.ledger.put_back_portion(portion);
                        }
                    }
                    Fate::Run if room.left > 0 => {
                        let most = from + active.fitting(&candidate.blocks[from..], candidate.bundle);
                        // Of two alike the second waits for the first.
                        while at < most && fate(&self.reuse, at) == Some(Fate::Run) {
                            self.reuse.own(candidate.fingerprints[at], id, priority);
                            at += 1;
                        }
                        room.take();
                        let blocks = candidate.blocks[from..at].to_vec();
                        planned.push(active.entry(&portion(from, at), blocks, (room.workers, &live)));
                    }
                    Fate::Run => {
                        active.ledger.put_back_portion(portion(from, from + 1));
                        at += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Answers those whose result has been recorded meanwhile, as far as there is room; those that nobody computes any more
    /// run themselves.
    async fn answer_waiters(
        &mut self,
        awaited: Vec<Fingerprint>,
        rooms: &mut Rooms,
        planned: &mut Vec<Planned>,
    ) -> Result<(), Error> {
        if awaited.is_empty() {
            return Ok(());
        }
        let recorded = self.store.find_reusable(&awaited).await?;
        let mut answers: BTreeMap<Turn, BTreeMap<u32, Answer>> = BTreeMap::new();
        let mut answered = 0;
        for fingerprint in awaited {
            let answer = recorded.get(&fingerprint).copied();
            if answer.is_none() && !self.reuse.is_orphaned(&fingerprint) {
                continue;
            }
            let most = if answer.is_some() {
                ANSWERS - answered
            } else {
                usize::MAX
            };
            for (id, index) in self.reuse.take_waiters(&fingerprint, most) {
                let Some(turn) = self.turns.get(&id) else { continue };
                let Some(active) = self.jobs.get_mut(turn) else {
                    continue;
                };
                if !active.ledger.unpark(index) {
                    continue;
                }
                match answer {
                    Some((job, of)) if active.ending.is_none() => {
                        answered += 1;
                        let answer = Answer {
                            fingerprint,
                            job,
                            index: of,
                        };
                        answers.entry(*turn).or_default().insert(index, answer);
                    }
                    _ => active.ledger.put_back(index..index + 1),
                }
            }
        }
        for (turn, answers) in answers {
            let Some(active) = self.jobs.get_mut(&turn) else {
                continue;
            };
            let room = rooms.of(&active.job.spec.processor);
            for run in runs(active, answers.keys().copied()) {
                let portion = Portion {
                    run,
                    past: Default::default(),
                    avoid: None,
                };
                let these = run
                    .indexes()
                    .filter_map(|index| Some((index, answers.get(&index)?)));
                if room.answers > 0 {
                    room.answer();
                    let ends: Vec<_> = these
                        .map(|(index, answer)| (index, answer.job, answer.index))
                        .collect();
                    planned.push(active.answer(&portion, &ends, true));
                } else {
                    for (index, answer) in these {
                        self.reuse.wait(answer.fingerprint, active.job.id, index);
                        active.ledger.park(index);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Subtasks of a job that are answered, in ascending order, as entries: each of consecutive ones of one part.
fn runs(active: &Active, indexes: impl Iterator<Item = u32>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    // How many more the last one may have.
    let mut left = 0;
    for index in indexes {
        match runs.last_mut() {
            Some(run) if run.end() == index && left > 0 => {
                run.count += 1;
                left -= 1;
            }
            _ => {
                let of_part = active.job.parts.at(index).map_or(1, |place| place.left);
                left = of_part.min(BUNDLE_SUBTASKS) - 1;
                runs.push(Run {
                    first: index,
                    count: 1,
                    attempt: 1,
                });
            }
        }
    }
    runs
}
