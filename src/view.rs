//! Jobs as `--output json` shows them; fields are only ever added.

use control::{FailedAttempt, StderrTail};
use model::{Counts, Job, Processor};
use serde::Serialize;

use crate::output;

/// A job.
#[derive(Clone, Debug, Serialize)]
pub struct JobView {
    /// Its id.
    pub id: String,
    /// `PENDING` and so on.
    pub state: &'static str,
    /// Over which dataset.
    pub dataset: String,
    /// 0 to 999.
    pub priority: u16,
    /// `command`, `query` or `noop`.
    pub processor: &'static str,
    /// The command over each block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<String>,
    /// The command over the partial results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduce: Option<String>,
    /// The query, in SQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// Whether recorded results may answer.
    pub reuse: bool,
    /// Failed attempts that end a subtask.
    pub max_attempts: u32,
    /// All subtasks, the merge among them.
    pub subtasks: u64,
    /// How the recorded ends add up.
    pub counts: Counts,
    /// Whether somebody asked to cancel it.
    pub cancel_requested: bool,
    /// Why it failed.
    pub error: Option<String>,
    /// Who submitted it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitted_by: Option<String>,
    /// RFC 3339, UTC.
    pub submitted_at: String,
    /// When a leader admitted it.
    pub admitted_at: Option<String>,
    /// When its last end was recorded.
    pub finished_at: Option<String>,
}

impl From<&Job> for JobView {
    fn from(job: &Job) -> Self {
        let (processor, map, reduce, sql) = match &job.spec.processor {
            Processor::Noop => ("noop", None, None, None),
            Processor::Command(command) => {
                let (map, reduce) = (command.map.clone(), command.reduce.clone());
                ("command", Some(map), reduce, None)
            }
            Processor::Query(query) => ("query", None, None, Some(query.sql.clone())),
        };
        Self {
            id: job.id.to_string(),
            state: job.state.as_str(),
            dataset: job.spec.dataset.to_string(),
            priority: job.spec.priority.get(),
            processor,
            map,
            reduce,
            sql,
            reuse: job.spec.reuse,
            max_attempts: job.spec.retry.max_attempts,
            subtasks: job.subtasks(),
            counts: job.counts,
            cancel_requested: job.cancel_requested,
            error: job.error.clone(),
            submitted_by: job.submitted_by.clone(),
            submitted_at: output::time(job.submitted_ms),
            admitted_at: job.admitted_ms.map(output::time),
            finished_at: job.finished_ms.map(output::time),
        }
    }
}

/// An attempt that did not give a result, or a subtask that failed for good.
#[derive(Clone, Debug, Serialize)]
pub struct FailureView {
    /// First subtask.
    pub first: u32,
    /// How many consecutive subtasks.
    pub count: u32,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// `failed`, `lost`, `returned`, `moved`, or `dead` for the final failure of a subtask.
    pub end: String,
    /// On which node.
    pub node: Option<String>,
    /// What was wrong.
    pub message: String,
    /// Exit code of the command.
    pub exit_code: Option<i32>,
    /// The end of what it wrote to standard error.
    pub stderr_tail: String,
    /// RFC 3339, UTC.
    pub at: Option<String>,
}

impl From<&FailedAttempt> for FailureView {
    fn from(attempt: &FailedAttempt) -> Self {
        Self {
            first: attempt.run.first,
            count: attempt.run.count,
            attempt: attempt.run.attempt,
            end: attempt.end.clone(),
            node: attempt.node.as_ref().map(ToString::to_string),
            message: attempt.message.clone(),
            exit_code: attempt.exit_code,
            stderr_tail: attempt.stderr_tail.clone(),
            at: attempt.at_ms.map(output::time),
        }
    }
}

/// What a command that succeeded printed to standard error.
#[derive(Clone, Debug, Serialize)]
pub struct StderrView {
    /// Index of the subtask; that of the merge is the number of blocks.
    pub subtask: u32,
    /// The end of what it wrote there.
    pub stderr_tail: String,
}

impl From<StderrTail> for StderrView {
    fn from(tail: StderrTail) -> Self {
        Self {
            subtask: tail.subtask,
            stderr_tail: tail.tail,
        }
    }
}

impl StderrView {
    /// The subtask, with its lines indented below it.
    pub fn told(&self) -> String {
        let lines = self.stderr_tail.replace('\n', "\n    ");
        format!("subtask {}:\n    {lines}", self.subtask)
    }
}

impl FailureView {
    /// In a line, with the end of standard error indented below it.
    pub fn told(&self) -> String {
        let subtasks = match self.count {
            1 => format!("subtask {}", self.first),
            count => format!("subtasks {} to {}", self.first, self.first + count - 1),
        };
        let node = self
            .node
            .as_ref()
            .map(|node| format!(" on {node}"))
            .unwrap_or_default();
        let mut text = format!(
            "{subtasks}, attempt {}{node}: {}: {}",
            self.attempt, self.end, self.message
        );
        for line in self.stderr_tail.lines() {
            text.push_str("\n    ");
            text.push_str(line);
        }
        text
    }
}
