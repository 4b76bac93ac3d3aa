//! Jobs, beside what [`api`] makes of them.

use api::{Malformed, v1};
use model::{Job, JobId, outcome::Run};
use storage::{JobFilter, Progress};

use crate::{FailedAttempt, StderrTail};

/// Jobs that are listed where nobody says how many.
const DEFAULT_LISTED: u32 = 20;

/// Which jobs to list.
pub fn filter_message(filter: &JobFilter) -> v1::ListJobsRequest {
    let states = filter
        .states
        .iter()
        .map(|state| v1::JobState::from(*state).into());
    v1::ListJobsRequest {
        states: states.collect(),
        dataset: filter.dataset.as_ref().map(ToString::to_string),
        limit: Some(filter.limit.unwrap_or(u32::MAX)),
    }
}

/// Which jobs to list.
///
/// # Errors
/// A state that is none; a bad name.
pub fn filter(message: &v1::ListJobsRequest) -> Result<JobFilter, Malformed> {
    let states = message.states.iter().map(|state| api::state(*state));
    let dataset = message.dataset.as_deref();
    Ok(JobFilter {
        states: states.collect::<Result<_, _>>()?,
        dataset: dataset
            .map(|dataset| super::name("dataset", dataset))
            .transpose()?,
        limit: Some(message.limit.unwrap_or(DEFAULT_LISTED)),
    })
}

/// How far a job of so many subtasks is.
pub fn progress_message(progress: &Progress, subtasks: u64) -> v1::JobProgress {
    v1::JobProgress {
        job: progress.id.to_string(),
        state: v1::JobState::from(progress.state).into(),
        counts: Some(progress.counts.into()),
        subtasks,
        cancel_requested: progress.cancel_requested,
        ended: None,
    }
}

/// How far a job is; and the job, once it has ended.
///
/// # Errors
/// What does not fit.
pub fn progress(message: v1::JobProgress) -> Result<(Progress, Option<Job>), Malformed> {
    let id = message
        .job
        .parse()
        .map_err(|error| Malformed::new("job", error))?;
    let progress = Progress {
        id: JobId(id),
        state: api::state(message.state)?,
        counts: message.counts.unwrap_or_default().into(),
        cancel_requested: message.cancel_requested,
    };
    Ok((progress, message.ended.map(Job::try_from).transpose()?))
}

/// An attempt that gave no result.
pub fn attempt_message(attempt: &FailedAttempt) -> v1::FailedAttempt {
    v1::FailedAttempt {
        first: attempt.run.first,
        count: attempt.run.count,
        attempt: attempt.run.attempt,
        end: attempt.end.clone(),
        node: attempt.node.as_ref().map(ToString::to_string),
        message: attempt.message.clone(),
        exit_code: attempt.exit_code,
        stderr_tail: attempt.stderr_tail.clone(),
        at_ms: attempt.at_ms,
    }
}

/// An attempt that gave no result.
///
/// # Errors
/// A bad name.
pub fn attempt(message: v1::FailedAttempt) -> Result<FailedAttempt, Malformed> {
    let node = message.node.as_deref();
    Ok(FailedAttempt {
        run: Run {
            first: message.first,
            count: message.count,
            attempt: message.attempt,
        },
        node: node.map(|node| super::name("node", node)).transpose()?,
        end: message.end,
        message: message.message,
        exit_code: message.exit_code,
        stderr_tail: message.stderr_tail,
        at_ms: message.at_ms,
    })
}

/// What a command that succeeded printed to standard error.
pub fn stderr_message(tail: StderrTail) -> v1::StderrTail {
    v1::StderrTail {
        subtask: tail.subtask,
        tail: tail.tail,
    }
}

/// What a command that succeeded printed to standard error.
pub fn stderr_tail(message: v1::StderrTail) -> StderrTail {
    StderrTail {
        subtask: message.subtask,
        tail: message.tail,
    }
}

#[cfg(test)]
mod tests {
    use model::{JobState, Name};

    use super::*;

    #[test]
    fn attempts_and_filters_come_back_as_they_were() {
        let failed = FailedAttempt {
            run: Run {
                first: 1,
                count: 2,
                attempt: 3,
            },
            end: "failed".into(),
            node: Some(Name::new("web7").unwrap()),
            message: "exit 3".into(),
            exit_code: Some(-3),
            stderr_tail: "last\nwords".into(),
            at_ms: Some(-5),
        };
        assert_eq!(attempt(attempt_message(&failed)).unwrap(), failed);
        let some = JobFilter {
            states: vec![JobState::Failed, JobState::Pending],
            dataset: Some(Name::new("access").unwrap()),
            limit: Some(7),
        };
        let back = filter(&filter_message(&some)).unwrap();
        assert_eq!(
            (back.states, back.dataset, back.limit),
            (some.states, some.dataset, some.limit)
        );
        assert!(
            filter(&v1::ListJobsRequest {
                states: vec![0],
                ..Default::default()
            })
            .is_err()
        );
    }
}
