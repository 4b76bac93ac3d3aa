//! Which state may follow which, and what the recorded ends make of a job.

use crate::job::{Counts, JobState};

/// Whether a job may go from one state to the other.
pub fn may_follow(from: JobState, to: JobState) -> bool {
    use JobState::{Cancelled, Failed, Pending, Running, Staging, Successful};
    matches!(
        (from, to),
        (Pending, Staging | Failed | Cancelled)
            | (Staging, Running | Successful | Failed | Cancelled)
            | (Running, Successful | Failed | Cancelled)
    )
}

/// What a job with these recorded ends is: the state, and how many subtasks will never run.
///
/// `blocks` is the number of subtasks before the merge. A job without anything to run is successful.
/// With a failed block the merge does not run: it counts as cancelled.
///
/// `counts` may hold more ends than there are subtasks, while a recorder does not know yet which of its ends are recorded
/// already; what it writes by that is aborted.
pub fn verdict(counts: &Counts, blocks: u32, merges: bool) -> (JobState, u64) {
    let blocks = u64::from(blocks);
    let total = blocks + u64::from(merges);
    if counts.ok == total {
        return (JobState::Successful, 0);
    }
    let ended = counts.ok + counts.failed;
    if counts.failed > 0 && ended >= blocks {
        return (JobState::Failed, total.saturating_sub(ended));
    }
    if ended + counts.again == 0 {
        (JobState::Staging, 0)
    } else {
        (JobState::Running, 0)
    }
}

/// Whether the merge is due: every block has its result and the merge has not ended.
pub fn merge_due(counts: &Counts, blocks: u32, merges: bool) -> bool {
    merges && counts.ok == u64::from(blocks) && counts.failed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks every sequence of ends of small jobs: the state only ever moves along legal transitions,
    /// ends exactly when nothing can run any more, and the numbers then add up.
    #[test]
    fn every_short_life_is_legal_and_adds_up() {
        for blocks in 0..4u32 {
            for merges in [false, true] {
                walk(Counts::default(), blocks, merges, JobState::Pending, 6);
            }
        }
    }

    fn walk(counts: Counts, blocks: u32, merges: bool, before: JobState, depth: u32) {
        let (state, never) = verdict(&counts, blocks, merges);
        let before = if before == JobState::Pending {
            JobState::Staging
        } else {
            before
        };
        assert!(
            state == before || may_follow(before, state),
            "{before} to {state} at {counts:?}"
        );
        let total = u64::from(blocks) + u64::from(merges);
        if state.is_final() {
            assert_eq!(counts.ok + counts.failed + never, total, "{counts:?}");
            return;
        }
        assert_eq!(never, 0);
        let merging = merge_due(&counts, blocks, merges);
        let runnable = counts.ok + counts.failed < u64::from(blocks) || merging;
        assert!(
            runnable,
            "nothing left to run, and yet {state}: {counts:?} of {blocks} {merges}"
        );
        if depth == 0 {
            return;
        }
        walk(
            Counts {
                ok: counts.ok + 1,
                ..counts
            },
            blocks,
            merges,
            state,
            depth - 1,
        );
        walk(
            Counts {
                failed: counts.failed + 1,
                ..counts
            },
            blocks,
            merges,
            state,
            depth - 1,
        );
        walk(
            Counts {
                again: counts.again + 1,
                ..counts
            },
            blocks,
            merges,
            state,
            depth - 1,
        );
    }

    #[test]
    fn final_states_have_no_successor() {
        for from in JobState::ALL.into_iter().filter(|state| state.is_final()) {
            for to in JobState::ALL {
                assert!(!may_follow(from, to));
            }
        }
        assert!(!may_follow(JobState::Staging, JobState::Pending));
    }
}
