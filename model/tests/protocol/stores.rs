//! The two stores, as far as the protocol of one job needs them: each method is one atomic request.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Counts, Failure, FailureKind, JobState, Outcome,
    ledger::Unsuccessful,
    lifecycle,
    outcome::{Past, Run},
};

/// Data of an entry in `/unowned` and `/owned/*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub run: Run,
    pub past: Past,
}

/// How the subtasks of an entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    Ok,
    Failed,
    /// The first succeeded, the rest failed.
    FirstOk,
    Lost,
}

/// Data of an entry in `/done`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Done {
    pub entry: Entry,
    pub how: How,
}

/// The folder of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Folder {
    pub alive: bool,
    pub entries: BTreeMap<u64, Entry>,
}

/// ZooKeeper. Entries are keyed by their sequence, workers and candidates by their number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tree {
    pub next: u64,
    /// Version of `/unowned`.
    pub version: u64,
    pub candidates: BTreeSet<u8>,
    pub unowned: BTreeMap<u64, Entry>,
    pub owned: BTreeMap<u8, Folder>,
    pub done: BTreeMap<u64, Done>,
}

impl Tree {
    /// All entries with the subtasks that they hold; one that is in two places is listed twice.
    pub fn entries(&self) -> impl Iterator<Item = (u64, Run)> {
        let owned = self.owned.values().flat_map(|folder| &folder.entries);
        let open = self.unowned.iter().chain(owned);
        let done = self
            .done
            .iter()
            .map(|(sequence, done)| (*sequence, done.entry.run));
        open.map(|(sequence, entry)| (*sequence, entry.run)).chain(done)
    }
}

/// A document of `failures`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FailureRecord {
    pub ordinal: u64,
    pub run: Run,
    pub past: Past,
    pub lost: bool,
}

impl From<&FailureRecord> for Unsuccessful {
    fn from(record: &FailureRecord) -> Self {
        let outcome = match record.lost {
            true => Outcome::Lost,
            false => Outcome::Failed(Failure::new(FailureKind::Exit, "")),
        };
        Self {
            run: record.run,
            past: record.past.clone(),
            node: None,
            outcome,
        }
    }
}

/// MongoDB, with one job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    /// The epoch of the leader in office.
    pub epoch: u64,
    /// The epoch of the leader that has the job.
    pub job_epoch: u64,
    pub state: JobState,
    pub counts: Counts,
    pub low_water: u32,
    /// How often each subtask's result was inserted.
    pub results: BTreeMap<u32, u8>,
    /// By first subtask and attempt.
    pub failures: BTreeMap<(u32, u32), FailureRecord>,
}

impl Database {
    /// The transaction of a watcher. With `keyed`, an end that is there already is left out.
    pub fn record(&mut self, done: &Done, max_attempts: u32, shape: (u32, bool), keyed: bool) {
        if !self.state.is_active() {
            return;
        }
        let run = done.entry.run;
        let (ended, again) = match done.how {
            How::Ok => (run.count, 0),
            How::FirstOk => (1, run.count - 1),
            How::Failed | How::Lost => (0, run.count),
        };
        for index in run.first..run.first + ended {
            self.insert_result(index, keyed, true);
        }
        let first = run.first + ended;
        if again > 0 && done.how != How::Lost && done.entry.past.failed + 1 >= max_attempts {
            for index in first..run.end() {
                self.insert_result(index, keyed, false);
            }
        } else if again > 0 && !(keyed && self.failures.contains_key(&(first, run.attempt))) {
            let record = FailureRecord {
                ordinal: self.counts.again,
                run: Run {
                    first,
                    count: again,
                    attempt: run.attempt,
                },
                past: done.entry.past.clone(),
                lost: done.how == How::Lost,
            };
            self.failures.insert((first, run.attempt), record);
            self.counts.again += u64::from(again);
        }
        self.state = lifecycle::verdict(&self.counts, shape.0, shape.1).0;
    }

    fn insert_result(&mut self, index: u32, keyed: bool, ok: bool) {
        let times = self.results.entry(index).or_default();
        if keyed && *times > 0 {
            return;
        }
        *times += 1;
        match ok {
            true => self.counts.ok += 1,
            false => self.counts.failed += 1,
        }
    }

    /// What a takeover reads of `failures`.
    pub fn failures_above(&self, index: u32) -> Vec<FailureRecord> {
        let above = self.failures.values().filter(|record| record.run.end() > index);
        let mut found: Vec<_> = above.cloned().collect();
        found.sort_unstable_by_key(|record| record.ordinal);
        found
    }

    /// What a leader reads that has taken note of those below `ordinal`.
    pub fn failures_from(&self, ordinal: u64) -> Vec<FailureRecord> {
        let mut found = self.failures_above(0);
        found.retain(|record| record.ordinal >= ordinal);
        found
    }
}
