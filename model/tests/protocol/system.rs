//! The cluster: its state, what can happen next, and what must never be.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use model::{
    Counts, FORMAT, JobId, JobState,
    outcome::{Past, Run},
    znode::{DoneData, Loss, OwnedData},
};
use uuid::Uuid;

use super::{
    leader::{Fate, Leader, Next},
    stores::{Database, Done, Entry, Folder, How, Tree},
};

/// Where the protocol is made wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Nowhere.
    None,
    /// A worker hands in what it no longer holds: `alive` is not checked, and nothing need be deleted.
    UnguardedFinish,
    /// A worker hands in what is still in its folder, without a check of `alive`.
    FinishWithoutAlive,
    /// A leader feeds without a check of its candidate.
    UnguardedFeed,
    /// A leader writes low-water marks whoever has the job.
    UnfencedLowWater,
    /// What has left the tree after the counts were read no longer holds the low-water mark.
    EarlyLowWater,
    /// A takeover does not compare the low-water mark with the counts.
    TrustedLowWater,
    /// The tree is listed from right to left.
    BackwardListing,
    /// A leader does not look for its candidate once it has its epoch, which may then be higher than its successor's.
    LateEpoch,
    /// The ends that a watcher inserts have no keys of their own.
    UnkeyedRecord,
}

/// What is explored.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub blocks: u32,
    pub merges: bool,
    /// Sizes of the entries that may be fed.
    pub bundles: &'static [u32],
    /// Entries in flight above which nothing is fed.
    pub window: usize,
    /// Entries that a worker holds at most.
    pub slots: usize,
    pub workers: u8,
    pub max_attempts: u32,
    pub low_water_step: u32,
    /// Ends with a failure that may happen.
    pub failures: u8,
    /// Faults that may happen.
    pub faults: u8,
    pub kinds: &'static [Fault],
    /// Whether a leader has admitted the job already.
    pub admitted: bool,
    /// A low-water mark above 0 that an earlier release left: subtask 0 failed once, the others below it have results.
    pub wrong_low_water: u32,
    pub mutation: Mutation,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The session of the leader ends, but it does not know.
    LeaderLost,
    /// A request of the leader is not answered, whether it was carried out or not.
    LeaderStumbles,
    /// The session of a worker ends, but it does not know.
    WorkerLost,
    /// The answer to a finish is lost: it may be sent again.
    FinishUnanswered,
    /// A watcher that has read an entry is slow: another one records and clears it before.
    WatcherSlow,
}

/// A finish that may still arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Late {
    worker: u8,
    sequence: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub tree: Tree,
    pub db: Database,
    /// Those that lead or believe so.
    leaders: BTreeMap<u8, Leader>,
    next_worker: u8,
    late: BTreeMap<Late, Entry>,
    /// What slow watchers have read.
    in_hand: BTreeMap<u64, Done>,
    /// Sequences of the entries of which a watcher has recorded the ends.
    recorded: BTreeSet<u64>,
    faults: u8,
    failures: u8,
}

/// What can happen. Leaders and workers are named by their number, entries by their sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Elect(u8),
    Lead(u8),
    Look(u8),
    Heal(u8),
    Feed(u8, u32),
    Recover(u8, u8),
    Register,
    Claim(u8, u64),
    Finish(u8, u64, How),
    Record(u64),
    Clear(u64),
    LeaderLost(u8),
    LeaderStumbles(u8),
    WorkerLost(u8),
    FinishUnanswered(u8, u64, How),
    ClearBeforeSlow(u64),
    LateFinish(Late, How),
    LateRecord(u64),
}

impl Protocol {
    pub fn start(&self) -> State {
        let folder = Folder {
            alive: true,
            entries: BTreeMap::new(),
        };
        let mut state = State {
            tree: Tree {
                next: 1,
                version: 0,
                candidates: (0..=self.faults).collect(),
                unowned: BTreeMap::new(),
                owned: (0..self.workers).map(|worker| (worker, folder.clone())).collect(),
                done: BTreeMap::new(),
            },
            db: self.database(),
            leaders: BTreeMap::new(),
            next_worker: self.workers,
            late: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            recorded: BTreeSet::new(),
            faults: self.faults,
            failures: self.failures,
        };
        if self.admitted {
            (state.db.epoch, state.db.job_epoch, state.db.state) = (1, 1, JobState::Staging);
            let leader = Leader::in_office(1, state.tree.next, self);
            state.leaders.insert(0, leader);
        }
        state
    }

    fn database(&self) -> Database {
        let mut db = Database {
            epoch: 0,
            job_epoch: 0,
            state: JobState::Pending,
            counts: Counts::default(),
            low_water: self.wrong_low_water,
            results: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        if self.wrong_low_water > 0 {
            db.state = JobState::Staging;
            let ends = (0..self.wrong_low_water)
                .map(|first| (first, if first == 0 { How::Failed } else { How::Ok }));
            for (first, how) in ends {
                let run = Run {
                    first,
                    count: 1,
                    attempt: 1,
                };
                let past = Past::default();
                let done = Done {
                    entry: Entry { run, past },
                    how,
                };
                db.record(&done, self.max_attempts, (self.blocks, self.merges), true);
            }
        }
        db
    }

    /// Whether the job has ended.
    pub fn ended(&self, state: &State) -> bool {
        state.db.state.is_final()
    }

    /// Whether the cluster could do without: a fault, or the doing of somebody who was thrown out.
    pub fn is_fault(&self, state: &State, action: Action) -> bool {
        match action {
            Action::Elect(me)
            | Action::Lead(me)
            | Action::Look(me)
            | Action::Heal(me)
            | Action::Recover(me, _)
            | Action::Feed(me, _) => !state.tree.candidates.contains(&me),
            Action::Finish(_, _, how) => how != How::Ok,
            Action::Register | Action::Claim(..) | Action::Record(_) | Action::Clear(_) => false,
            _ => true,
        }
    }

    /// All that may be possible; [`step`](Self::step) tells whether it is.
    pub fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if self.ended(state) {
            return;
        }
        let tree = &state.tree;
        let may = |fault| state.faults > 0 && self.kinds.contains(&fault);
        if let Some(&first) = tree.candidates.first()
            && !state.leaders.contains_key(&first)
        {
            actions.push(Action::Elect(first));
        }
        for (&me, leader) in &state.leaders {
            actions.push(Action::Lead(me));
            if leader.may_look() {
                actions.push(Action::Look(me));
            }
            if leader.may_heal(self.is_quiet(state)) {
                actions.push(Action::Heal(me));
            }
            let dead = tree.owned.iter().filter(|(_, folder)| !folder.alive);
            actions.extend(dead.map(|(&worker, _)| Action::Recover(me, worker)));
            actions.extend(self.bundles.iter().map(|&most| Action::Feed(me, most)));
            if may(Fault::LeaderLost) && tree.candidates.contains(&me) {
                actions.push(Action::LeaderLost(me));
            }
            if may(Fault::LeaderStumbles)
                && !matches!(leader.next, Next::TakeEpoch | Next::CheckCandidate | Next::Adopt)
            {
                actions.push(Action::LeaderStumbles(me));
            }
        }
        if tree.owned.values().all(|folder| !folder.alive) {
            actions.push(Action::Register);
        }
        for (&worker, folder) in tree.owned.iter().filter(|(_, folder)| folder.alive) {
            if folder.entries.len() < self.slots {
                actions.extend(
                    tree.unowned
                        .keys()
                        .map(|&sequence| Action::Claim(worker, sequence)),
                );
            }
            for (&sequence, entry) in &folder.entries {
                for how in self.ways_to_end(state, entry) {
                    actions.push(Action::Finish(worker, sequence, how));
                    if may(Fault::FinishUnanswered) {
                        actions.push(Action::FinishUnanswered(worker, sequence, how));
                    }
                }
            }
            if may(Fault::WorkerLost) {
                actions.push(Action::WorkerLost(worker));
            }
        }
        for &sequence in tree.done.keys() {
            if state.recorded.contains(&sequence) {
                actions.push(Action::Clear(sequence));
                if may(Fault::WatcherSlow) {
                    actions.push(Action::ClearBeforeSlow(sequence));
                }
            } else {
                actions.push(Action::Record(sequence));
            }
        }
        for (&late, entry) in &state.late {
            let ways = self.ways_to_end(state, entry).into_iter();
            actions.extend(ways.map(|how| Action::LateFinish(late, how)));
        }
        actions.extend(state.in_hand.keys().map(|&sequence| Action::LateRecord(sequence)));
    }

    /// Nothing is under way of which the leader does not know the end.
    fn is_quiet(&self, state: &State) -> bool {
        state.unrecorded().next().is_none()
    }

    fn ways_to_end(&self, state: &State, entry: &Entry) -> Vec<How> {
        let mut ways = vec![How::Ok];
        if state.failures > 0 {
            ways.push(How::Failed);
            if entry.run.count > 1 {
                ways.push(How::FirstOk);
            }
        }
        ways
    }

    /// The state after `action`; none where it is not possible, or changes nothing.
    pub fn step(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        let shape = (self.blocks, self.merges);
        let keyed = self.mutation != Mutation::UnkeyedRecord;
        match action {
            Action::Elect(me) => {
                state.leaders.insert(me, Leader::elected());
            }
            Action::Lead(me) => {
                self.lead(&mut state, me, |leader, state| Some(leader.step(me, self, state)))?
            }
            Action::Feed(me, most) => {
                self.lead(&mut state, me, |leader, state| leader.feed(me, most, self, state))?
            }
            Action::Look(me) => state.leaders.get_mut(&me)?.look(false),
            Action::Heal(me) => state.leaders.get_mut(&me)?.look(true),
            Action::Recover(me, worker) => {
                if !state.tree.candidates.contains(&me) {
                    return None;
                }
                recover(&mut state.tree, worker)?;
            }
            Action::Register => {
                let folder = Folder {
                    alive: true,
                    entries: BTreeMap::new(),
                };
                state.tree.owned.insert(state.next_worker, folder);
                state.next_worker += 1;
            }
            Action::Claim(worker, sequence) => {
                let folder = state.tree.owned.get_mut(&worker).filter(|folder| folder.alive)?;
                let entry = state.tree.unowned.remove(&sequence)?;
                folder.entries.insert(sequence, entry);
            }
            Action::Finish(worker, sequence, how) => self.finish(&mut state, worker, sequence, None, how)?,
            Action::FinishUnanswered(worker, sequence, how) => {
                let entry = state.tree.owned.get(&worker)?.entries.get(&sequence)?.clone();
                self.finish(&mut state, worker, sequence, None, how)?;
                state.late.insert(Late { worker, sequence }, entry);
                state.faults -= 1;
            }
            Action::Record(sequence) => {
                let done = state.tree.done.get(&sequence)?.clone();
                state.db.record(&done, self.max_attempts, shape, keyed);
                state.recorded.insert(sequence);
            }
            Action::Clear(sequence) => {
                state.tree.done.remove(&sequence)?;
            }
            Action::LeaderLost(me) => {
                state.tree.candidates.remove(&me);
                state.faults -= 1;
            }
            Action::LeaderStumbles(me) => {
                state.leaders.get_mut(&me)?.stumble();
                state.faults -= 1;
            }
            Action::WorkerLost(worker) => {
                let folder = state.tree.owned.get_mut(&worker)?;
                folder.alive = false;
                let held = folder.entries.iter();
                let held = held.map(|(&sequence, entry)| (Late { worker, sequence }, entry.clone()));
                state.late.extend(held);
                state.faults -= 1;
            }
            Action::ClearBeforeSlow(sequence) => {
                let done = state.tree.done.remove(&sequence)?;
                state.in_hand.insert(sequence, done);
                state.faults -= 1;
            }
            Action::LateFinish(late, how) => {
                let entry = state.late.remove(&late)?;
                self.finish(&mut state, late.worker, late.sequence, Some(entry), how)?;
            }
            Action::LateRecord(sequence) => {
                let done = state.in_hand.remove(&sequence)?;
                state.db.record(&done, self.max_attempts, shape, keyed);
            }
        }
        (state != *before).then_some(state)
    }

    fn lead(
        &self,
        state: &mut State,
        me: u8,
        act: impl FnOnce(&mut Leader, &mut State) -> Option<Fate>,
    ) -> Option<()> {
        let mut leader = state.leaders.remove(&me)?;
        if act(&mut leader, state)? == Fate::Leads {
            state.leaders.insert(me, leader);
        }
        Some(())
    }

    /// The transaction of a worker: deletes the entry from its folder and creates it in `/done`, while `alive` exists.
    /// `late` is what a worker remembers of an entry that is perhaps no longer its own.
    fn finish(
        &self,
        state: &mut State,
        worker: u8,
        sequence: u64,
        late: Option<Entry>,
        how: How,
    ) -> Option<()> {
        let folder = state.tree.owned.get_mut(&worker);
        let unguarded = self.mutation == Mutation::UnguardedFinish;
        let alive = folder.as_ref().is_some_and(|folder| folder.alive);
        if !alive && !unguarded && self.mutation != Mutation::FinishWithoutAlive {
            return None;
        }
        let held = folder.and_then(|folder| folder.entries.remove(&sequence));
        let entry = held.or(late.filter(|_| unguarded))?;
        if state.tree.done.contains_key(&sequence) {
            return None;
        }
        state.tree.done.insert(sequence, Done { entry, how });
        state.recorded.remove(&sequence);
        state.failures -= u8::from(how != How::Ok);
        Some(())
    }

    /// The rule that a state breaks.
    pub fn violation(&self, state: &State) -> Option<String> {
        let State { tree, db, .. } = state;
        let mut places = BTreeSet::new();
        for (sequence, _) in tree.entries() {
            if !places.insert(sequence) {
                return Some(format!("entry {sequence} is in two places"));
            }
        }
        if let Some((index, times)) = db.results.iter().find(|(_, times)| **times > 1) {
            return Some(format!("subtask {index} is recorded {times} times"));
        }
        let again: u64 = db
            .failures
            .values()
            .map(|record| u64::from(record.run.count))
            .sum();
        let ended = db.results.len() as u64;
        if (db.counts.ok + db.counts.failed, db.counts.again) != (ended, again) {
            return Some(format!("{:?} of {ended} results and {again} failures", db.counts));
        }
        if db.low_water != self.wrong_low_water
            && let Some(index) = (0..db.low_water).find(|index| !db.results.contains_key(index))
        {
            return Some(format!(
                "the low-water mark {} is above subtask {index}, which has no result",
                db.low_water
            ));
        }
        if db.state.is_final() {
            return None;
        }
        let mut open = BTreeSet::new();
        for run in state.unrecorded() {
            for index in run.indexes() {
                if db.results.contains_key(&index) {
                    return Some(format!("subtask {index} has a result and is run again"));
                }
                if !open.insert(index) {
                    return Some(format!("subtask {index} is in two entries"));
                }
            }
        }
        let leading = tree.candidates.first().and_then(|first| state.leaders.get(first));
        let believed = leading
            .and_then(|leader| leader.book.as_ref())
            .map(|book| book.in_flight_subtasks());
        match believed {
            Some(believed) if believed < open.len() as u64 => Some(format!(
                "the leader believes that {believed} subtasks are in flight: there are {}",
                open.len()
            )),
            _ => None,
        }
    }

    /// What happens, in words.
    pub fn describe(&self, state: &State, action: Action) -> String {
        let past = |past: &Past| if *past == Past::default() { "" } else { ", again" };
        let run = |run: Run| format!("subtasks {}..{} attempt {}", run.first, run.end(), run.attempt);
        match action {
            Action::Lead(me) => match state.leaders.get(&me).map(|leader| &leader.next) {
                Some(Next::Choose { .. }) => format!("leader {me}: reads the counts, {:?}", state.db.counts),
                Some(next) => format!("leader {me}: {next:?}"),
                None => format!("leader {me}: is gone"),
            },
            Action::Claim(worker, sequence) => match state.tree.unowned.get(&sequence) {
                Some(entry) => format!(
                    "worker {worker}: claims entry {sequence}, {}{}",
                    run(entry.run),
                    past(&entry.past)
                ),
                None => format!("worker {worker}: claims entry {sequence}"),
            },
            other => format!("{other:?}"),
        }
    }
}

/// The transaction of the leader: moves what a dead worker held to `/done`, and deletes its folder.
fn recover(tree: &mut Tree, worker: u8) -> Option<()> {
    let folder = tree.owned.remove(&worker).filter(|folder| !folder.alive)?;
    let loss = Loss {
        process: Uuid::from_u128(worker.into()),
        together: false,
        living: &HashSet::new(),
    };
    for (sequence, Entry { run, past }) in folder.entries {
        let owned = OwnedData {
            v: FORMAT,
            job: JobId(Uuid::nil()),
            run,
            past,
        };
        let entry = Entry {
            run,
            past: DoneData::lost(&owned, None, &loss).past,
        };
        let how = How::Lost;
        tree.done.insert(sequence, Done { entry, how });
    }
    Some(())
}

impl State {
    /// The runs of the entries whose ends are not recorded.
    fn unrecorded(&self) -> impl Iterator<Item = Run> {
        let open = self
            .tree
            .entries()
            .filter(|(sequence, _)| !self.recorded.contains(sequence));
        open.map(|(_, run)| run)
    }
}
