//! How the queries were answered.

use std::fmt;

use model::{Counts, JobState};

/// A query that came to its end.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Where its job ended.
    pub(super) state: JobState,
    /// What was recorded of it.
    pub(super) counts: Counts,
    /// Why it failed.
    pub(super) error: Option<String>,
}

/// The sum over all queries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Ran over its data.
    pub(super) data: u64,
    /// Was answered from a result that was recorded before.
    pub(super) already: u64,
    /// Was answered by a run that was in flight for another query.
    pub(super) executed: u64,
    /// Why the first query that failed did.
    pub(super) first_error: Option<String>,
}

impl Tally {
    /// Adds up; a query without a result counts nowhere.
    pub(super) fn of<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Self {
        let mut tally = Self::default();
        for Answer { state, counts, error } in answers {
            if *state == JobState::Successful {
                tally.already += counts.already;
                tally.executed += counts.executed;
                tally.data += counts.ok.saturating_sub(counts.already + counts.executed);
            } else if tally.first_error.is_none() {
                tally.first_error = Some(error.clone().unwrap_or_else(|| state.to_string()));
            }
        }
        tally
    }

    /// Answered queries.
    pub(super) fn sum(&self) -> u64 {
        self.data + self.already + self.executed
    }

    /// Whether each of `queries` was answered once.
    pub(super) fn is_right(&self, queries: u32) -> bool {
        self.first_error.is_none() && self.sum() == u64::from(queries)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "return data {}", self.data)?;
        writeln!(f, "return already {}", self.already)?;
        writeln!(f, "return executed {}", self.executed)?;
        writeln!(f, "sum {}", self.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(state: JobState, ok: u64, already: u64, executed: u64) -> Answer {
        Answer {
            state,
            counts: Counts {
                ok,
                already,
                executed,
                ..Counts::default()
            },
            error: None,
        }
    }

    #[test]
    fn every_answered_query_counts_once() {
        let answers = [
            answer(JobState::Successful, 1, 0, 0),
            answer(JobState::Successful, 1, 1, 0),
            answer(JobState::Successful, 1, 0, 1),
            answer(JobState::Successful, 1, 1, 0),
        ];
        let tally = Tally::of(&answers);
        assert_eq!(
            tally.to_string(),
            "return data 1\nreturn already 2\nreturn executed 1\nsum 4\n"
        );
        assert!(tally.is_right(4) && !tally.is_right(5));
    }

    #[test]
    fn a_failed_query_makes_the_sum_wrong() {
        let tally = Tally::of(&[
            answer(JobState::Successful, 1, 0, 0),
            answer(JobState::Failed, 0, 0, 0),
        ]);
        assert_eq!(
            (tally.sum(), tally.is_right(2), tally.is_right(1)),
            (1, false, false)
        );
        assert_eq!(tally.first_error.as_deref(), Some("FAILED"));
    }
}
