//! Attempts that gave no result, as they are told.

use model::{Job, Name, Outcome, outcome::Run};
use storage::FailureRecord;

use crate::{Control, Error};

/// An attempt that did not give a result, or a subtask that failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Which subtasks, in which attempt.
    pub run: Run,
    /// `failed`, `lost`, `returned`, `moved`, or `dead` for the final failure of a subtask.
    pub end: String,
    /// On which node.
    pub node: Option<Name>,
    /// What was wrong.
    pub message: String,
    /// Exit code of the command.
    pub exit_code: Option<i32>,
    /// The end of what it wrote to standard error.
    pub stderr_tail: String,
    /// When it was recorded, in milliseconds since 1970 UTC.
    pub at_ms: Option<i64>,
}

impl From<&FailureRecord> for FailedAttempt {
    fn from(record: &FailureRecord) -> Self {
        let failure = match &record.outcome {
            Outcome::Failed(failure) | Outcome::Dead(failure) => Some(failure),
            _ => None,
        };
        let message = match &record.outcome {
            Outcome::Lost => "its worker died".to_string(),
            Outcome::Returned => "its worker was told to stop and handed it back".to_string(),
            Outcome::Moved => "it was taken from its worker to be given to another".to_string(),
            other => failure.map_or_else(|| other.word().to_string(), |failure| failure.message.clone()),
        };
        Self {
            run: record.run,
            end: record.outcome.word().to_string(),
            node: record.node.clone(),
            message,
            exit_code: failure.and_then(|failure| failure.exit_code),
            stderr_tail: failure
                .map(|failure| failure.stderr_tail.clone())
                .unwrap_or_default(),
            at_ms: Some(record.at_ms),
        }
    }
}

impl FailedAttempt {
    /// The final failure of a subtask.
    fn dead(index: u32, attempt: u32, failure: &model::Failure) -> Self {
        Self {
            run: Run {
                first: index,
                count: 1,
                attempt,
            },
            end: "dead".into(),
            node: None,
            message: failure.message.clone(),
            exit_code: failure.exit_code,
            stderr_tail: failure.stderr_tail.clone(),
            at_ms: None,
        }
    }
}

impl Control {
    /// Final failures first, then attempts that were tried again; `limit` together.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn failed_attempts(&self, job: &Job, limit: u32) -> Result<Vec<FailedAttempt>, Error> {
        if let Some(remote) = self.remote() {
            return remote.failed_attempts(job.id, limit).await;
        }
        let dead = self.dead(job, limit).await?;
        let mut attempts: Vec<FailedAttempt> = dead
            .iter()
            .filter_map(|partial| {
                let failure = partial.result.as_ref().err()?;
                Some(FailedAttempt::dead(partial.index, partial.attempt, failure))
            })
            .collect();
        let left = limit.saturating_sub(u32::try_from(attempts.len()).unwrap_or(u32::MAX));
        if left > 0 && job.counts.again > 0 {
            let again = self.failures(job.id, left).await?;
            attempts.extend(again.iter().map(FailedAttempt::from));
        }
        Ok(attempts)
    }
}
