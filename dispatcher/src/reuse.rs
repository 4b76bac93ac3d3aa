//! Who computes what for whom: subtasks of equal fingerprint are never knowingly run twice at once.

use std::collections::{HashMap, HashSet};

use model::{Fingerprint, JobId, Priority};

/// The subtask that computes a result which others may wait for.
#[derive(Clone, Copy, Debug)]
struct Owner {
    job: JobId,
    priority: Priority,
}

/// What is being computed, and who waits for it.
#[derive(Default)]
pub(crate) struct Reuse {
    owners: HashMap<Fingerprint, Owner>,
    owned_by: HashMap<JobId, Vec<Fingerprint>>,
    waiters: HashMap<Fingerprint, Vec<(JobId, u32)>>,
    /// Fingerprints with waiters whose owner has ended or given up.
    orphaned: HashSet<Fingerprint>,
}

impl Reuse {
    /// Whether a subtask of `job` should wait for the one that computes `fingerprint` now: for one of its own job or
    /// of no lower priority.
    pub(crate) fn should_wait(&self, fingerprint: &Fingerprint, priority: Priority) -> bool {
        self.owners
            .get(fingerprint)
            .is_some_and(|owner| owner.priority >= priority)
    }

    /// Takes note that `job` computes `fingerprint` from now on.
    pub(crate) fn own(&mut self, fingerprint: Fingerprint, job: JobId, priority: Priority) {
        self.owners.insert(fingerprint, Owner { job, priority });
        self.owned_by.entry(job).or_default().push(fingerprint);
    }

    pub(crate) fn wait(&mut self, fingerprint: Fingerprint, job: JobId, index: u32) {
        if !self.owners.contains_key(&fingerprint) {
            self.orphaned.insert(fingerprint);
        }
        self.waiters.entry(fingerprint).or_default().push((job, index));
    }

    /// The owner ended, was cancelled or forgotten: what it did not leave behind is computed by a waiter.
    pub(crate) fn owner_ended(&mut self, job: JobId) {
        for fingerprint in self.owned_by.remove(&job).unwrap_or_default() {
            if self
                .owners
                .get(&fingerprint)
                .is_some_and(|owner| owner.job == job)
            {
                self.owners.remove(&fingerprint);
                if self.waiters.contains_key(&fingerprint) {
                    self.orphaned.insert(fingerprint);
                }
            }
        }
    }

    /// Fingerprints that somebody waits for, at most `most`; first those of which the owner is gone.
    pub(crate) fn awaited(&self, most: usize) -> Vec<Fingerprint> {
        let owned = self.waiters.keys().filter(|print| !self.orphaned.contains(print));
        self.orphaned.iter().chain(owned).take(most).copied().collect()
    }

    /// Takes up to `most` waiters for `fingerprint`.
    pub(crate) fn take_waiters(&mut self, fingerprint: &Fingerprint, most: usize) -> Vec<(JobId, u32)> {
        let Some(waiting) = self.waiters.get_mut(fingerprint) else {
            return Vec::new();
        };
        let taken = waiting.split_off(waiting.len().saturating_sub(most));
        if waiting.is_empty() {
            self.waiters.remove(fingerprint);
            self.orphaned.remove(fingerprint);
        }
        taken
    }

    /// Whether nobody computes `fingerprint` any more although somebody waits for it.
    pub(crate) fn is_orphaned(&self, fingerprint: &Fingerprint) -> bool {
        self.orphaned.contains(fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn job(number: u128) -> JobId {
        JobId(Uuid::from_u128(number))
    }

    #[test]
    fn waits_for_what_is_as_urgent_and_takes_over_when_the_owner_is_gone() {
        let (print, urgent) = (Fingerprint([1; 16]), Priority::new(500).unwrap());
        let mut reuse = Reuse::default();
        assert!(!reuse.should_wait(&print, Priority::DEFAULT));
        reuse.own(print, job(1), Priority::DEFAULT);
        assert!(reuse.should_wait(&print, Priority::DEFAULT));
        assert!(!reuse.should_wait(&print, urgent));
        reuse.wait(print, job(2), 0);
        reuse.wait(print, job(3), 0);
        assert!(!reuse.is_orphaned(&print));
        let other = Fingerprint([2; 16]);
        reuse.own(other, job(4), Priority::DEFAULT);
        reuse.wait(other, job(2), 1);
        reuse.owner_ended(job(1));
        assert!(reuse.is_orphaned(&print) && !reuse.is_orphaned(&other));
        assert_eq!(reuse.awaited(1), [print], "first what nobody computes");
        assert_eq!(reuse.take_waiters(&print, 1).len(), 1);
        assert_eq!(reuse.awaited(10), [print, other]);
        assert_eq!(reuse.take_waiters(&print, 9).len(), 1);
        assert_eq!(reuse.awaited(10), [other]);
        reuse.wait(print, job(3), 0);
        assert!(reuse.is_orphaned(&print), "nobody computes it");
    }
}
