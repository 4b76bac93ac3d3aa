//! Groups what was read from `/done` into transactions.

use std::collections::{HashMap, HashSet, VecDeque};

use model::{
    EntryName, JobId, Outcome,
    limits::{RECORD_BYTES, RECORD_DOCUMENTS},
    znode::DoneData,
};

/// A done entry that waits for its transaction.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) name: EntryName,
    pub(crate) data: DoneData,
    pub(crate) bytes: usize,
}

impl Item {
    /// How many documents recording it writes.
    fn documents(&self) -> usize {
        let of = |outcome: &Outcome, count: u32| match outcome {
            Outcome::Ok { .. } | Outcome::Reused { .. } | Outcome::Dead(_) | Outcome::Failed(_) => {
                count as usize
            }
            Outcome::Lost | Outcome::Returned | Outcome::Moved => 1,
            Outcome::Cancelled => 0,
        };
        self.data.ends.iter().map(|end| of(&end.outcome, end.count)).sum()
    }
}

/// What waits, by job, and which jobs are being recorded at this moment.
///
/// A job is in one transaction at a time: two on the same counter would only collide.
#[derive(Default)]
pub(crate) struct Pending {
    by_job: HashMap<JobId, VecDeque<Item>>,
    order: VecDeque<JobId>,
    busy: HashSet<JobId>,
}

impl Pending {
    pub(crate) fn add(&mut self, item: Item) {
        let job = item.data.job;
        let waiting = self.by_job.entry(job).or_default();
        if waiting.is_empty() && !self.busy.contains(&job) {
            self.order.push_back(job);
        }
        waiting.push_back(item);
    }

    /// Takes the next transaction's worth: whole entries, at most [`RECORD_DOCUMENTS`] and [`RECORD_BYTES`],
    /// at least one entry. Its jobs are busy until [`done`](Self::done).
    pub(crate) fn take(&mut self) -> Vec<Item> {
        let (mut taken, mut documents, mut bytes) = (Vec::new(), 0, 0);
        while let Some(job) = self.order.pop_front() {
            let Some(waiting) = self.by_job.get_mut(&job) else {
                continue;
            };
            let mut full = false;
            while let Some(item) = waiting.front() {
                full = !taken.is_empty()
                    && (documents + item.documents() > RECORD_DOCUMENTS || bytes + item.bytes > RECORD_BYTES);
                if full {
                    break;
                }
                documents += item.documents();
                bytes += item.bytes;
                self.busy.insert(job);
                taken.extend(waiting.pop_front());
            }
            if full {
                if !self.busy.contains(&job) {
                    self.order.push_front(job);
                }
                break;
            }
        }
        taken
    }

    /// The jobs of a transaction are free again.
    pub(crate) fn done(&mut self, jobs: impl IntoIterator<Item = JobId>) {
        for job in jobs {
            if !self.busy.remove(&job) {
                continue;
            }
            match self.by_job.get(&job) {
                Some(waiting) if !waiting.is_empty() => self.order.push_back(job),
                _ => drop(self.by_job.remove(&job)),
            }
        }
    }

    /// Whether no transaction could be begun now.
    pub(crate) fn is_idle(&self) -> bool {
        self.order.is_empty()
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.by_job.values().all(VecDeque::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use model::{
        FORMAT,
        outcome::{End, Past, Run},
        payload::{Output, Payload},
    };
    use uuid::Uuid;

    use super::*;

    fn item(job: u128, sequence: u64, count: u32) -> Item {
        let ok = Outcome::Ok {
            output: Output::Inline(Payload::default()),
            fingerprint: None,
            stderr_tail: String::new(),
        };
        let run = Run {
            first: 0,
            count,
            attempt: 1,
        };
        let ends = vec![End {
            first: 0,
            count,
            outcome: ok,
        }];
        let job = JobId(Uuid::from_u128(job));
        let data = DoneData {
            v: FORMAT,
            job,
            run,
            past: Past::default(),
            node: None,
            busy_us: 0,
            ends,
        };
        Item {
            name: format!("entry-100-d:0-{sequence:010}").parse().unwrap(),
            data,
            bytes: 10,
        }
    }

    #[test]
    fn fills_transactions_and_keeps_a_job_in_one_at_a_time() {
        let mut pending = Pending::default();
        let count = RECORD_DOCUMENTS as u32 / 4;
        for sequence in 0..6 {
            pending.add(item(1, sequence, count));
        }
        pending.add(item(2, 9, count));
        let first = pending.take();
        assert_eq!(
            first.iter().map(|item| item.name.sequence).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        let other = pending.take();
        assert_eq!(
            other.iter().map(|item| item.name.sequence).collect::<Vec<_>>(),
            [9]
        );
        assert!(pending.take().is_empty() && !pending.is_empty());
        pending.done([JobId(Uuid::from_u128(1))]);
        assert_eq!(pending.take().len(), 2);
        pending.done([1, 2].map(|job| JobId(Uuid::from_u128(job))));
        assert!(pending.is_empty());
    }

    #[test]
    fn an_entry_over_the_limit_goes_alone() {
        let mut pending = Pending::default();
        pending.add(Item {
            bytes: RECORD_BYTES + 1,
            ..item(1, 0, 1)
        });
        pending.add(item(1, 1, 1));
        assert_eq!(pending.take().len(), 1);
    }
}
