//! When a node takes itself out: it fails subtasks of several jobs in a row, so it is the node and not the jobs.

use std::{collections::BTreeSet, time::Duration};

use crate::job::JobId;

/// Failures in a row that make a node doubt itself.
pub const FAILURES_IN_A_ROW: u32 = 6;
/// Different jobs among them: one job with a typing error is no reason.
pub const JOBS_IN_A_ROW: usize = 3;
/// How long a node stays out before it tries one entry again.
pub const TIME_OUT: Duration = Duration::from_secs(60);

/// The failures of a node since its last success.
#[derive(Clone, Debug, Default)]
pub struct Health {
    failures: u32,
    jobs: BTreeSet<JobId>,
}

impl Health {
    /// Notes the end of a subtask of `job` that blames the node (`failed`) or does not.
    pub fn note(&mut self, job: JobId, failed: bool) {
        if failed {
            self.failures = self.failures.saturating_add(1);
            if self.jobs.len() < JOBS_IN_A_ROW {
                self.jobs.insert(job);
            }
        } else {
            *self = Self::default();
        }
    }

    /// Whether the node should take itself out.
    pub fn is_bad(&self) -> bool {
        self.failures >= FAILURES_IN_A_ROW && self.jobs.len() >= JOBS_IN_A_ROW
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
    fn one_bad_job_is_no_bad_node() {
        let mut health = Health::default();
        (0..100).for_each(|_| health.note(job(1), true));
        assert!(!health.is_bad());
        health.note(job(2), true);
        health.note(job(3), true);
        assert!(health.is_bad());
        health.note(job(3), false);
        assert!(!health.is_bad());
    }
}
