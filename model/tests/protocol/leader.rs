//! The leading dispatcher: its requests to the stores, one a step, in the order of the crate `dispatcher`. What it makes
//! of the answers is the real [`Ledger`].

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use model::{
    Counts, JobState,
    ledger::{Ledger, Unsuccessful, low_water_holds},
    outcome::Run,
    retry::RetryPolicy,
};

use super::{
    Mutation, Protocol, State,
    stores::{Entry, FailureRecord},
};

/// Time stands still: a retry is due at once, and waits as long as nobody feeds it.
const NOW: Duration = Duration::ZERO;

/// What a listing has shown so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Census {
    before: u64,
    present: BTreeSet<u64>,
    /// Whether it is that of a takeover.
    takes_over: bool,
}

/// What a takeover has read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Comparison {
    in_flight: Vec<(u64, Run)>,
    counts: Counts,
    low_water: u32,
    recorded: Vec<u32>,
}

/// The next request of a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    TakeEpoch,
    CheckCandidate,
    Adopt,
    ListUnowned(Census),
    ListOwned(Census),
    ListDone(Census),
    SetLowWater(u32),
    ReadJob(Comparison),
    ReadResults(Comparison),
    ReadAllResults(Comparison),
    ResetLowWater(Comparison),
    ReadFailures(Comparison),
    ReadNewFailures,
    Admit,
    /// Between two requests: it may feed, look at the tree unless it just has, or go on with the next round.
    Choose {
        looked: bool,
    },
}

/// A leader; also one that was deposed and does not know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    pub epoch: u64,
    pub next: Next,
    pub book: Option<Ledger>,
    low_water_written: u32,
    /// What it expects `/unowned` to say.
    sequence: u64,
    version: u64,
}

impl Leader {
    pub fn elected() -> Self {
        Self {
            epoch: 0,
            next: Next::TakeEpoch,
            book: None,
            low_water_written: 0,
            sequence: 0,
            version: 0,
        }
    }

    /// One that has just admitted the job.
    pub fn in_office(epoch: u64, sequence: u64, protocol: &Protocol) -> Self {
        Self {
            epoch,
            next: Next::Choose { looked: false },
            book: Some(Ledger::fresh(protocol.blocks, protocol.merges)),
            sequence,
            ..Self::elected()
        }
    }

    /// A store did not answer: it looks at everything anew, as a new leader would, under its epoch.
    pub fn stumble(&mut self) {
        self.book = None;
        self.next = Next::Adopt;
    }

    /// Whether it may begin another look at the tree.
    pub fn may_look(&self) -> bool {
        self.next == Next::Choose { looked: false }
    }

    /// Whether it may compare the job with the stores: it lost track, or what it believes in flight does not move.
    pub fn may_heal(&self, quiet: bool) -> bool {
        let due = |book: &Ledger| book.stuck() || (quiet && book.entries_in_flight() > 0);
        self.next == Next::Choose { looked: true } && self.book.as_ref().is_some_and(due)
    }

    pub fn look(&mut self, takes_over: bool) {
        self.next = Next::ListUnowned(Census {
            takes_over,
            ..Census::default()
        });
        if takes_over {
            self.book = None;
        }
    }

    /// Feeds the next portion, of at most `most` subtasks; none where nothing can be fed.
    pub fn feed(&mut self, me: u8, most: u32, protocol: &Protocol, state: &mut State) -> Option<Fate> {
        if !matches!(self.next, Next::Choose { .. }) {
            return None;
        }
        let book = self
            .book
            .as_mut()
            .filter(|book| book.in_flight_entries() < protocol.window)?;
        let portion = book.next(NOW, most)?;
        let tree = &mut state.tree;
        if !tree.candidates.contains(&me) && protocol.mutation != Mutation::UnguardedFeed {
            return Some(Fate::Deposed);
        }
        if self.version != tree.version {
            book.put_back_portion(portion);
            (self.sequence, self.version) = (tree.next, tree.version);
            return Some(Fate::Leads);
        }
        let entry = Entry {
            run: portion.run,
            past: portion.past,
        };
        tree.unowned.insert(self.sequence, entry);
        book.fed(self.sequence, portion.run);
        self.sequence += 1;
        self.version += 1;
        (tree.next, tree.version) = (self.sequence, self.version);
        self.next = Next::Choose { looked: true };
        Some(Fate::Leads)
    }

    /// Makes the next request.
    pub fn step(&mut self, me: u8, protocol: &Protocol, state: &mut State) -> Fate {
        let (tree, db) = (&mut state.tree, &mut state.db);
        match std::mem::replace(&mut self.next, Next::Adopt) {
            Next::TakeEpoch => {
                db.epoch += 1;
                self.epoch = db.epoch;
                if protocol.mutation != Mutation::LateEpoch {
                    self.next = Next::CheckCandidate;
                }
            }
            Next::CheckCandidate => {
                if !tree.candidates.contains(&me) {
                    return Fate::Deposed;
                }
            }
            Next::Adopt => {
                if db.state.is_active() {
                    db.job_epoch = db.job_epoch.max(self.epoch);
                }
                self.look(true);
            }
            Next::ListUnowned(mut census) => {
                (self.sequence, self.version) = (tree.next, tree.version);
                census.before = self.sequence;
                match protocol.mutation {
                    Mutation::BackwardListing => census.present.extend(tree.done.keys()),
                    _ => census.present.extend(tree.unowned.keys()),
                }
                self.next = Next::ListOwned(census);
            }
            Next::ListOwned(mut census) => {
                let owned = tree.owned.values().flat_map(|folder| folder.entries.keys());
                census.present.extend(owned);
                self.next = Next::ListDone(census);
            }
            Next::ListDone(mut census) => {
                match protocol.mutation {
                    Mutation::BackwardListing => census.present.extend(tree.unowned.keys()),
                    _ => census.present.extend(tree.done.keys()),
                }
                if !census.takes_over {
                    self.note_census(census, protocol);
                    return Fate::Leads;
                }
                // The headers of what is still there. What is not is recorded, and what goes after this is as good as gone
                // between the other requests.
                let there = tree.entries();
                let in_flight = there.filter(|(sequence, _)| census.present.contains(sequence));
                self.next = Next::ReadJob(Comparison {
                    in_flight: in_flight.collect(),
                    ..Comparison::default()
                });
            }
            Next::SetLowWater(mark) => {
                self.low_water_written = mark;
                let mine = db.job_epoch <= self.epoch || protocol.mutation == Mutation::UnfencedLowWater;
                if mine && db.low_water < mark {
                    db.low_water = mark;
                }
                self.next = Next::Choose { looked: true };
            }
            Next::ReadJob(mut read) => {
                (read.counts, read.low_water) = (db.counts, db.low_water);
                self.next = match db.state.is_active() {
                    true => Next::ReadResults(read),
                    false => Next::Choose { looked: true },
                };
            }
            Next::ReadResults(mut read) => {
                let above = db.results.range(read.low_water..);
                read.recorded = above.map(|(index, _)| *index).collect();
                let holds = low_water_holds(read.low_water, &read.recorded, &read.counts);
                self.next = match holds || protocol.mutation == Mutation::TrustedLowWater {
                    true => Next::ReadFailures(read),
                    false => Next::ReadAllResults(read),
                };
            }
            Next::ReadAllResults(mut read) => {
                read.recorded = db.results.keys().copied().collect();
                let below = read.recorded.partition_point(|&index| index < read.low_water);
                let broken = (below as u64) < u64::from(read.low_water);
                self.next = match broken {
                    true => Next::ResetLowWater(read),
                    false => Next::ReadFailures(Comparison { low_water: 0, ..read }),
                };
            }
            Next::ResetLowWater(read) => {
                if db.job_epoch <= self.epoch {
                    db.low_water = 0;
                }
                self.next = Next::ReadFailures(Comparison { low_water: 0, ..read });
            }
            Next::ReadFailures(read) => {
                let above = db.failures_above(read.low_water);
                let known = above.iter().filter(|record| record.ordinal < read.counts.again);
                let failures: Vec<_> = known.map(Unsuccessful::from).collect();
                let shape = (protocol.blocks, protocol.merges);
                let Comparison {
                    in_flight,
                    counts,
                    low_water,
                    recorded,
                } = read;
                let book = Ledger::resumed(shape, counts, low_water, &in_flight, &recorded, &failures);
                self.book = Some(book);
                self.low_water_written = low_water;
                self.next = Next::Choose { looked: true };
            }
            Next::ReadNewFailures => {
                if let Some(book) = &mut self.book {
                    note_failures(book, &db.failures_from(book.ordinal()));
                }
                self.next = Next::Choose { looked: false };
            }
            Next::Admit => {
                if db.epoch != self.epoch {
                    return Fate::Deposed;
                }
                if db.state == JobState::Pending {
                    db.state = JobState::Staging;
                    db.job_epoch = self.epoch;
                }
                self.book = Some(Ledger::fresh(protocol.blocks, protocol.merges));
                self.low_water_written = 0;
                self.next = Next::Choose { looked: false };
            }
            Next::Choose { .. } => {
                self.next = Next::Choose { looked: false };
                match &mut self.book {
                    Some(book) => {
                        book.note_counts(db.counts);
                        if book.unnoted() > 0 {
                            self.next = Next::ReadNewFailures;
                        }
                    }
                    None if db.state == JobState::Pending => self.next = Next::Admit,
                    None => {}
                }
            }
        }
        Fate::Leads
    }

    fn note_census(&mut self, census: Census, protocol: &Protocol) {
        self.next = Next::Choose { looked: true };
        let Some(book) = &mut self.book else { return };
        let present: HashSet<u64> = census.present.into_iter().collect();
        book.note_census(census.before, &present);
        let mut trusted = book.clone();
        if protocol.mutation == Mutation::EarlyLowWater {
            // What it was before: the counts from before the listing are taken for those after it.
            trusted.note_counts(*book.counts());
        }
        let mark = trusted.low_water();
        if mark >= self.low_water_written + protocol.low_water_step {
            self.next = Next::SetLowWater(mark);
        }
    }
}

/// Whether a leader still believes that it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Leads,
    Deposed,
}

fn note_failures(book: &mut Ledger, records: &[FailureRecord]) {
    let retry = RetryPolicy {
        initial_ms: 0,
        ..RetryPolicy::default()
    };
    for record in records {
        if record.ordinal == book.ordinal() {
            book.note_unsuccessful(&Unsuccessful::from(record), NOW, &retry, 0.0);
        }
    }
}
