//! What the leader knows of one active job: what is fed, what waits, what comes next. Pure bookkeeping.
//!
//! The truth is elsewhere: what was fed and is not in ZooKeeper any more is recorded in MongoDB. Two observations keep
//! the ledger close to it, each an upper bound of what is in flight: the recorded counts, and a census of the tree.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    ops::Range,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    job::Counts,
    lifecycle,
    limits::BUNDLE_SUBTASKS,
    name::Name,
    outcome::{Outcome, Past, Run},
    retry::RetryPolicy,
};

/// Subtasks to feed as one entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Portion {
    /// Which.
    pub run: Run,
    /// What happened to them before.
    pub past: Past,
    /// Node that failed them last.
    pub avoid: Option<Name>,
}

/// An end after which subtasks must run again, as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsuccessful {
    /// Which subtasks, in which attempt.
    pub run: Run,
    /// What had happened to them before; where they were lost, that too.
    pub past: Past,
    /// Who had them.
    pub node: Option<Name>,
    /// What end.
    pub outcome: Outcome,
}

impl Unsuccessful {
    /// What their past is now.
    fn past_now(&self) -> Past {
        match self.outcome {
            Outcome::Failed(_) => Past {
                failed: self.past.failed + 1,
                ..self.past.clone()
            },
            _ => self.past.clone(),
        }
    }

    /// The next attempt.
    fn again(&self) -> Portion {
        let avoid = self
            .node
            .clone()
            .filter(|_| matches!(self.outcome, Outcome::Failed(_) | Outcome::Moved));
        Portion {
            run: Run {
                attempt: self.run.attempt + 1,
                ..self.run
            },
            past: self.past_now(),
            avoid,
        }
    }
}

/// Whether a low-water mark is true: as many subtasks have a result as there are below it and `recorded` at and above it.
/// `counts` are those read before `recorded` was; where more ended meanwhile, the answer is no although the mark may be true.
pub fn low_water_holds(low_water: u32, recorded: &[u32], counts: &Counts) -> bool {
    u64::from(low_water) + recorded.len() as u64 == counts.ok + counts.failed
}

/// The leader's book of one active job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    blocks: u32,
    merges: bool,
    /// Blocks below this have been fed or are in one of the collections below.
    cursor: u32,
    holes: VecDeque<Range<u32>>,
    retries: BTreeMap<(Duration, u32), Portion>,
    parked: BTreeSet<u32>,
    in_flight: BTreeMap<u64, Run>,
    in_flight_subtasks: u64,
    /// The least index of what has left the tree since the counts were last noted: how it ended is not known yet.
    unconfirmed: Option<u32>,
    /// Subtask runs fed in the life of the job, as far as this ledger knows.
    fed: u64,
    counts: Counts,
    /// Unsuccessful ends already taken note of.
    ordinal: u64,
    merge_taken: bool,
}

impl Ledger {
    /// The book of a job of which nothing was fed.
    pub fn fresh(blocks: u32, merges: bool) -> Self {
        Self {
            blocks,
            merges,
            cursor: 0,
            holes: VecDeque::new(),
            retries: BTreeMap::new(),
            parked: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            in_flight_subtasks: 0,
            unconfirmed: None,
            fed: 0,
            counts: Counts::default(),
            ordinal: 0,
            merge_taken: false,
        }
    }

    /// The book of a job that another leader has fed, or that lost track.
    ///
    /// `in_flight` is what a listing in takeover order showed; `recorded` (ascending) and `unsuccessful` what was then
    /// read, with majority, at and above `low_water`. What is in none of them was never fed, or was deleted by hand.
    pub fn resumed(
        (blocks, merges): (u32, bool),
        counts: Counts,
        low_water: u32,
        in_flight: &[(u64, Run)],
        recorded: &[u32],
        unsuccessful: &[Unsuccessful],
    ) -> Self {
        let mut ledger = Self::fresh(blocks, merges);
        let mut accounted: BTreeSet<u32> = recorded.iter().copied().collect();
        let mut latest: BTreeMap<u32, &Unsuccessful> = BTreeMap::new();
        for end in unsuccessful {
            for index in end
                .run
                .indexes()
                .filter(|&index| index >= low_water && !accounted.contains(&index))
            {
                let known = latest.entry(index).or_insert(end);
                if end.run.attempt > known.run.attempt {
                    *known = end;
                }
            }
        }
        for (sequence, run) in in_flight {
            // An attempt whose end is recorded may still wait to be cleared from /done: it is not in flight.
            let ended = |index| {
                latest
                    .get(&index)
                    .is_some_and(|end| end.run.attempt >= run.attempt)
            };
            if run.indexes().any(|index| !ended(index)) {
                ledger.in_flight.insert(*sequence, *run);
            }
            for index in run.indexes().filter(|&index| !ended(index)).collect::<Vec<_>>() {
                accounted.insert(index);
                latest.remove(&index);
            }
        }
        let horizon = accounted
            .last()
            .max(latest.keys().next_back())
            .map_or(low_water, |last| last + 1);
        ledger.cursor = horizon.max(low_water).min(blocks);
        for index in low_water..ledger.cursor {
            if !accounted.contains(&index) && !latest.contains_key(&index) {
                ledger.put_back(index..index + 1);
            }
        }
        for (index, end) in &latest {
            ledger.retry_one(*index, end);
        }
        ledger.merge_taken = accounted.contains(&blocks) || latest.contains_key(&blocks);
        ledger.counts = counts;
        ledger.ordinal = counts.again;
        ledger.in_flight_subtasks = ledger.in_flight.values().map(|run| u64::from(run.count)).sum();
        ledger.fed = counts.recorded() + ledger.in_flight_subtasks;
        ledger
    }

    /// Joins `index` to the retry before it where both share their past.
    fn retry_one(&mut self, index: u32, end: &Unsuccessful) {
        let mut portion = end.again();
        portion.run = Run {
            first: index,
            count: 1,
            ..portion.run
        };
        let before = self.retries.iter_mut().next_back().map(|(_, before)| before);
        if let Some(before) = before
            && before.run.end() == index
            && before.run.count < BUNDLE_SUBTASKS
            && index != self.blocks
            && (before.run.attempt, &before.past, &before.avoid)
                == (portion.run.attempt, &portion.past, &portion.avoid)
        {
            before.run.count += 1;
        } else {
            self.retries.insert((Duration::ZERO, index), portion);
        }
    }

    /// Takes out what to feed next, at most `most` subtasks; none while nothing is due.
    ///
    /// What ran before goes first. The caller says [`fed`](Self::fed), or [`put_back`](Self::put_back) for what was new.
    pub fn next(&mut self, now: Duration, most: u32) -> Option<Portion> {
        let most = most.clamp(1, BUNDLE_SUBTASKS);
        if let Some(entry) = self.retries.first_entry()
            && entry.key().0 <= now
        {
            let due = entry.key().0;
            let portion = entry.remove();
            return Some(self.cut(due, portion, most));
        }
        let run = |first, count| {
            Some(Portion {
                run: Run {
                    first,
                    count,
                    attempt: 1,
                },
                past: Past::default(),
                avoid: None,
            })
        };
        if let Some(hole) = self.holes.front_mut() {
            let first = hole.start;
            let count = (hole.end - hole.start).min(most);
            hole.start += count;
            if hole.start >= hole.end {
                self.holes.pop_front();
            }
            return run(first, count);
        }
        if self.cursor < self.blocks {
            let first = self.cursor;
            let count = (self.blocks - first).min(most);
            self.cursor += count;
            return run(first, count);
        }
        if !self.merge_taken && lifecycle::merge_due(&self.counts, self.blocks, self.merges) {
            self.merge_taken = true;
            return run(self.blocks, 1);
        }
        None
    }

    /// Takes note of the processes in which workers live: those that were taken for dead have only lost their sessions.
    pub fn acquit(&mut self, living: &HashSet<Uuid>) {
        for portion in self.retries.values_mut() {
            portion.past.acquit(living);
        }
    }

    /// Suspects run as the entry they were; after that singly. The rest may be cut to any size.
    fn cut(&mut self, due: Duration, mut portion: Portion, most: u32) -> Portion {
        let most = match portion.past.suspicion() {
            0 => most,
            1 => portion.run.count,
            _ => 1,
        };
        if portion.run.count > most {
            let mut rest = portion.clone();
            rest.run.first += most;
            rest.run.count -= most;
            portion.run.count = most;
            self.retries.insert((due, rest.run.first), rest);
        }
        portion
    }

    /// Takes note that `run` went out under `sequence`.
    pub fn fed(&mut self, sequence: u64, run: Run) {
        self.fed += u64::from(run.count);
        self.in_flight_subtasks += u64::from(run.count);
        self.in_flight.insert(sequence, run);
    }

    /// Takes back indexes that have not been fed, to be fed later without a past.
    pub fn put_back(&mut self, indexes: Range<u32>) {
        if indexes.start == self.blocks {
            self.merge_taken = false;
        } else if let Some(last) = self.holes.back_mut()
            && last.end == indexes.start
        {
            last.end = indexes.end;
        } else if !indexes.is_empty() {
            self.holes.push_back(indexes);
        }
    }

    /// Takes back a portion that could not be fed.
    pub fn put_back_portion(&mut self, portion: Portion) {
        if portion.run.attempt == 1 {
            self.put_back(portion.run.indexes());
        } else {
            self.retries.insert((Duration::ZERO, portion.run.first), portion);
        }
    }

    /// Sets `index` aside until another job's result answers it.
    pub fn park(&mut self, index: u32) {
        self.parked.insert(index);
    }

    /// Ends the wait of a parked `index`; whether it was parked. The caller feeds it, or puts it back.
    pub fn unpark(&mut self, index: u32) -> bool {
        self.parked.remove(&index)
    }

    /// Takes note of the recorded counts. They must have been read after the last census that was noted; call it also
    /// when they have not changed.
    pub fn note_counts(&mut self, counts: Counts) {
        self.counts = counts;
        self.unconfirmed = None;
        if counts.recorded() >= self.fed {
            self.fed = counts.recorded();
            self.in_flight.clear();
            self.in_flight_subtasks = 0;
        }
    }

    /// How many unsuccessful ends are recorded that this ledger has not taken note of.
    pub fn unnoted(&self) -> u64 {
        self.counts.again.saturating_sub(self.ordinal)
    }

    /// The ordinal of the first unsuccessful end to take note of.
    pub fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// Takes note of an unsuccessful end: plans the next attempt. `dice` is uniform in 0.0 to 1.0.
    pub fn note_unsuccessful(&mut self, end: &Unsuccessful, now: Duration, retry: &RetryPolicy, dice: f64) {
        self.ordinal += u64::from(end.run.count);
        let portion = end.again();
        let wait = match end.outcome {
            Outcome::Failed(_) => retry.backoff(portion.past.failed, dice),
            _ => Duration::ZERO,
        };
        self.retries.insert((now + wait, portion.run.first), portion);
    }

    /// Takes note of a listing of the three places, begun when the next sequence was `before`: what was fed before
    /// and is not `present` has been recorded, perhaps after the counts were last noted.
    pub fn note_census(&mut self, before: u64, present: &HashSet<u64>) {
        let left = self.in_flight.extract_if(.., |sequence, _| {
            *sequence < before && !present.contains(sequence)
        });
        let lowest = left.map(|(_, run)| run.first).min();
        self.unconfirmed = self.unconfirmed.into_iter().chain(lowest).min();
        self.in_flight_subtasks = self.in_flight.values().map(|run| u64::from(run.count)).sum();
    }

    /// Subtasks that may be in flight: never fewer than there are.
    pub fn in_flight_subtasks(&self) -> u64 {
        self.in_flight_subtasks
            .min(self.fed.saturating_sub(self.counts.recorded()))
    }

    /// Entries that may be in flight, estimated from the subtasks.
    pub fn in_flight_entries(&self) -> usize {
        if self.in_flight_subtasks == 0 {
            return 0;
        }
        let share = u128::from(self.in_flight_subtasks()) * self.in_flight.len() as u128;
        usize::try_from(share.div_ceil(u128::from(self.in_flight_subtasks))).unwrap_or(usize::MAX)
    }

    /// Whether the entry with this sequence may be in flight.
    pub fn is_in_flight(&self, sequence: u64) -> bool {
        self.in_flight.contains_key(&sequence)
    }

    /// What the entry with this sequence holds, if it may be in flight.
    pub fn run_of(&self, sequence: u64) -> Option<Run> {
        self.in_flight.get(&sequence).copied()
    }

    /// Entries that may be in flight, as far as the last census or the counts tell.
    pub fn entries_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Every subtask below this index has a result.
    pub fn low_water(&self) -> u32 {
        let flying = self.in_flight.values().map(|run| run.first).min();
        let retried = self.retries.values().map(|portion| portion.run.first).min();
        let holes = self.holes.iter().map(|hole| hole.start).min();
        let parked = self.parked.first().copied();
        let unnoted = (self.unnoted() > 0).then_some(0);
        [flying, retried, holes, parked, unnoted, self.unconfirmed]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(u32::MAX)
            .min(self.cursor)
    }

    /// Subtasks still to be fed, without the merge.
    pub fn left(&self) -> u64 {
        let holes: u64 = self
            .holes
            .iter()
            .map(|hole| u64::from(hole.end - hole.start))
            .sum();
        let retries: u64 = self
            .retries
            .values()
            .map(|portion| u64::from(portion.run.count))
            .sum();
        u64::from(self.blocks - self.cursor) + holes + retries
    }

    /// Whether all that could be fed has run before and waits for its time.
    pub fn only_retries(&self) -> bool {
        let merge_due = !self.merge_taken && lifecycle::merge_due(&self.counts, self.blocks, self.merges);
        self.cursor >= self.blocks && self.holes.is_empty() && !merge_due
    }

    /// Whether nothing can be fed now or later without news.
    pub fn exhausted(&self) -> bool {
        let merge_may_come =
            !self.merge_taken && lifecycle::merge_due(&self.counts, self.blocks, self.merges);
        self.left() == 0 && !merge_may_come
    }

    /// Whether nothing is fed, waits or is in flight although the job has not ended: something was lost track of.
    pub fn stuck(&self) -> bool {
        self.exhausted()
            && self.parked.is_empty()
            && self.in_flight.is_empty()
            && self.unconfirmed.is_none()
            && self.unnoted() == 0
    }

    /// When the next retry is due, on the clock given to [`next`](Self::next).
    pub fn next_retry(&self) -> Option<Duration> {
        self.retries.keys().next().map(|key| key.0)
    }

    /// Mean run time of the recorded subtasks.
    pub fn mean_run_time(&self) -> Option<Duration> {
        let runs = self.counts.ok + self.counts.failed
            - (self.counts.already + self.counts.executed).min(self.counts.ok);
        (runs > 0).then(|| Duration::from_micros(self.counts.busy_us / runs))
    }

    /// The counts last noted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::{Failure, FailureKind};

    const NOW: Duration = Duration::from_secs(1);

    fn failed(run: Run, past: Past) -> Unsuccessful {
        let outcome = Outcome::Failed(Failure::new(FailureKind::Exit, "x"));
        Unsuccessful {
            run,
            past,
            node: Name::new("n").ok(),
            outcome,
        }
    }

    fn lost(run: Run, past: Past) -> Unsuccessful {
        Unsuccessful {
            run,
            past: past.after_loss(Uuid::nil(), false, run.count),
            node: Name::new("n").ok(),
            outcome: Outcome::Lost,
        }
    }

    fn run(first: u32, count: u32, attempt: u32) -> Run {
        Run {
            first,
            count,
            attempt,
        }
    }

    #[test]
    fn feeds_blocks_then_the_merge_once_all_are_recorded() {
        let mut ledger = Ledger::fresh(5, true);
        assert_eq!(ledger.next(NOW, 3).unwrap().run, run(0, 3, 1));
        assert_eq!(ledger.next(NOW, 3).unwrap().run, run(3, 2, 1));
        ledger.fed(10, run(0, 3, 1));
        ledger.fed(11, run(3, 2, 1));
        assert_eq!(ledger.next(NOW, 3), None);
        assert_eq!(
            (
                ledger.in_flight_subtasks(),
                ledger.in_flight_entries(),
                ledger.low_water()
            ),
            (5, 2, 0)
        );
        ledger.note_census(12, &HashSet::from([11]));
        ledger.note_counts(Counts {
            ok: 3,
            ..Counts::default()
        });
        assert_eq!((ledger.in_flight_subtasks(), ledger.low_water()), (2, 3));
        ledger.note_counts(Counts {
            ok: 5,
            ..Counts::default()
        });
        assert_eq!((ledger.in_flight_subtasks(), ledger.low_water()), (0, 5));
        assert_eq!(ledger.next(NOW, 3).unwrap().run, run(5, 1, 1));
        assert_eq!(ledger.next(NOW, 3), None);
        ledger.fed(12, run(5, 1, 1));
        assert!(!ledger.stuck());
    }

    #[test]
    fn what_left_the_tree_holds_the_mark_until_its_end_is_known() {
        let mut ledger = Ledger::fresh(2000, false);
        ledger.next(NOW, 250);
        ledger.fed(1, run(0, 1, 1));
        ledger.cursor = 2000;
        // The failure of subtask 0 was recorded and cleared after the counts were read and before the tree was listed.
        ledger.note_census(2, &HashSet::new());
        assert_eq!((ledger.low_water(), ledger.stuck()), (0, false));
        let counts = Counts {
            ok: 1999,
            again: 1,
            ..Counts::default()
        };
        ledger.note_counts(counts);
        assert_eq!((ledger.low_water(), ledger.unnoted()), (0, 1));
        ledger.note_unsuccessful(
            &failed(run(0, 1, 1), Past::default()),
            NOW,
            &RetryPolicy::default(),
            0.0,
        );
        assert_eq!((ledger.low_water(), ledger.unnoted()), (0, 0));
        ledger.next(NOW + Duration::from_secs(60), 1);
        ledger.fed(2, run(0, 1, 2));
        ledger.note_census(3, &HashSet::new());
        assert_eq!(ledger.low_water(), 0);
        ledger.note_counts(Counts { ok: 2000, ..counts });
        assert_eq!(ledger.low_water(), 2000);
    }

    #[test]
    fn a_mark_above_a_subtask_without_a_result_is_found_out() {
        let counts = Counts {
            ok: 5,
            failed: 1,
            again: 9,
            ..Counts::default()
        };
        assert!(low_water_holds(4, &[4, 7], &counts));
        assert!(!low_water_holds(5, &[5, 7], &counts));
        assert!(!low_water_holds(4, &[4, 6, 7], &counts));
    }

    #[test]
    fn a_failure_waits_and_a_loss_does_not() {
        let mut ledger = Ledger::fresh(4, false);
        ledger.next(NOW, 4);
        ledger.fed(1, run(0, 4, 1));
        ledger.note_counts(Counts {
            ok: 2,
            again: 2,
            ..Counts::default()
        });
        assert_eq!((ledger.unnoted(), ledger.low_water()), (2, 0));
        let policy = RetryPolicy {
            max_attempts: 3,
            initial_ms: 100,
            max_ms: 1000,
        };
        ledger.note_unsuccessful(&failed(run(1, 1, 1), Past::default()), NOW, &policy, 1.0);
        ledger.note_unsuccessful(&lost(run(3, 1, 1), Past::default()), NOW, &policy, 1.0);
        assert_eq!((ledger.unnoted(), ledger.low_water()), (0, 1));
        let again = ledger.next(NOW, 9).unwrap();
        assert_eq!(
            (again.run, again.past.suspicion(), again.avoid),
            (run(3, 1, 2), 1, None)
        );
        assert_eq!(ledger.next(NOW, 9), None);
        assert_eq!(ledger.next_retry(), Some(NOW + Duration::from_millis(100)));
        let again = ledger.next(NOW + Duration::from_millis(100), 9).unwrap();
        assert_eq!(
            (again.run, again.past.failed, again.avoid.is_some()),
            (run(1, 1, 2), 1, true)
        );
    }

    #[test]
    fn suspects_go_out_as_they_were_and_then_singly() {
        let mut ledger = Ledger::fresh(8, false);
        ledger.next(NOW, 8);
        let policy = RetryPolicy::default();
        ledger.note_unsuccessful(&lost(run(0, 8, 1), Past::default()), NOW, &policy, 0.0);
        let suspect = ledger.next(NOW, 2).unwrap();
        assert_eq!((suspect.run, suspect.past.alone()), (run(0, 8, 2), true));
        ledger.note_unsuccessful(&lost(suspect.run, suspect.past), NOW, &policy, 0.0);
        let singles: Vec<_> = std::iter::from_fn(|| ledger.next(NOW, 4)).collect();
        assert_eq!(singles.len(), 8);
        assert!(
            singles
                .iter()
                .all(|single| single.run.count == 1 && single.past.suspicion() == 2)
        );
    }

    #[test]
    fn a_new_leader_feeds_what_is_nowhere() {
        let unsuccessful = [
            failed(run(4, 2, 1), Past::default()),
            failed(
                run(5, 1, 2),
                Past {
                    failed: 1,
                    ..Past::default()
                },
            ),
        ];
        let counts = Counts {
            ok: 4,
            again: 3,
            ..Counts::default()
        };
        let mut ledger = Ledger::resumed(
            (20, true),
            counts,
            2,
            &[(7, run(8, 2, 1))],
            &[2, 3],
            &unsuccessful,
        );
        assert_eq!(
            (ledger.low_water(), ledger.in_flight_subtasks(), ledger.unnoted()),
            (4, 2, 0)
        );
        let fed: Vec<_> = std::iter::from_fn(|| ledger.next(NOW, 100))
            .map(|p| (p.run, p.past.failed))
            .collect();
        assert_eq!(
            fed,
            [
                (run(4, 1, 2), 1),
                (run(5, 1, 3), 2),
                (run(6, 2, 1), 0),
                (run(10, 10, 1), 0)
            ]
        );
    }

    #[test]
    fn an_attempt_whose_failure_is_recorded_is_not_in_flight() {
        let counts = Counts {
            again: 1,
            ..Counts::default()
        };
        let ends = [failed(run(0, 1, 1), Past::default())];
        let mut ledger = Ledger::resumed((1, false), counts, 0, &[(7, run(0, 1, 1))], &[], &ends);
        assert_eq!(ledger.next(NOW, 1).unwrap().run, run(0, 1, 2));
        let mut ledger = Ledger::resumed((1, false), counts, 0, &[(8, run(0, 1, 2))], &[], &ends);
        assert_eq!(ledger.next(NOW, 1), None);
    }

    #[test]
    fn a_new_leader_knows_a_merge_in_flight() {
        let counts = Counts {
            ok: 3,
            ..Counts::default()
        };
        let mut ledger = Ledger::resumed((3, true), counts, 3, &[(7, run(3, 1, 1))], &[], &[]);
        assert_eq!(ledger.next(NOW, 1), None);
        let mut ledger = Ledger::resumed((3, true), counts, 3, &[], &[], &[]);
        assert_eq!(ledger.next(NOW, 1).unwrap().run, run(3, 1, 1));
    }

    proptest! {
        /// Whatever was fed, recorded, failed or forgotten before a takeover: afterwards each block is recorded,
        /// in flight, or fed exactly once.
        #[test]
        fn takeover_loses_nothing_and_repeats_nothing(fates in prop::collection::vec(0u8..4, 1..60), more in 0u32..20) {
            let blocks = fates.len() as u32 + more;
            let of = |wanted: u8| fates.iter().enumerate().filter(move |(_, fate)| **fate == wanted).map(|(i, _)| i as u32);
            let recorded: Vec<u32> = of(0).collect();
            let in_flight: Vec<_> = of(1).map(|i| (u64::from(i), run(i, 1, 1))).collect();
            let ends: Vec<_> = of(2).map(|i| failed(run(i, 1, 1), Past::default())).collect();
            let counts = Counts { ok: recorded.len() as u64, again: ends.len() as u64, ..Counts::default() };
            let mut ledger = Ledger::resumed((blocks, false), counts, 0, &in_flight, &recorded, &ends);
            let mut seen: Vec<u32> = recorded.iter().copied().chain(of(1)).collect();
            while let Some(portion) = ledger.next(NOW, 7) {
                seen.extend(portion.run.indexes());
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..blocks).collect::<Vec<_>>());
        }
    }
}
