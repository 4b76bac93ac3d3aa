//! Jobs: what a user asked for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    entry::Priority, fingerprint::Fingerprint, name::Name, parts::Parts, processor::Processor,
    retry::RetryPolicy,
};

/// Identifies a job; ids made later sort later (UUID version 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    /// Submitted.
    Pending,
    /// Admitted, perhaps fed, nothing ended.
    Staging,
    /// At least one subtask has ended.
    Running,
    /// Every subtask gave a result.
    Successful,
    /// At least one subtask failed for good, or the job could not be run.
    Failed,
    /// Cancelled by a user.
    Cancelled,
}

impl JobState {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Staging,
        Self::Running,
        Self::Successful,
        Self::Failed,
        Self::Cancelled,
    ];

    /// As written in documents: `PENDING` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Staging => "STAGING",
            Self::Running => "RUNNING",
            Self::Successful => "SUCCESSFUL",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Successful | Self::Failed | Self::Cancelled)
    }

    /// Whether subtasks of the job may be in ZooKeeper.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Staging | Self::Running)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for JobState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = text.to_ascii_uppercase();
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == wanted)
            .ok_or_else(|| {
                let all: Vec<_> = Self::ALL.iter().map(|state| state.as_str()).collect();
                format!("no such state {text:?}: it is one of {}", all.join(", "))
            })
    }
}

/// What a user asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Over which dataset.
    pub dataset: Name,
    /// Over which datasets besides, in the order in which a query counts its tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Name>,
    /// What to do with each block.
    pub processor: Processor,
    /// How urgent.
    pub priority: Priority,
    /// How often failed subtasks are tried again.
    pub retry: RetryPolicy,
    /// Whether recorded results answer, and results are offered for reuse.
    pub reuse: bool,
    /// Final failures of subtasks after which the rest is not run any more.
    pub max_failed: u32,
    /// Whether a block of a query whose file is gone is left out of the answer, which names it, instead of failing the job.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_missing: bool,
}

impl JobSpec {
    /// A job with the defaults of everything but what to do.
    pub fn new(dataset: Name, processor: Processor) -> Self {
        Self {
            dataset,
            also: Vec::new(),
            processor,
            priority: Priority::DEFAULT,
            retry: RetryPolicy::default(),
            reuse: false,
            max_failed: DEFAULT_MAX_FAILED,
            skip_missing: false,
        }
    }

    /// The datasets, in the order in which [`Part::table`](crate::parts::Part::table) counts them.
    pub fn datasets(&self) -> impl Iterator<Item = &Name> {
        std::iter::once(&self.dataset).chain(&self.also)
    }
}

/// Default of [`JobSpec::max_failed`]: enough to see a pattern, few enough not to burn a cluster on a typing error.
pub const DEFAULT_MAX_FAILED: u32 = 20;

/// How the recorded ends of a job add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counts {
    /// Subtasks with a result.
    pub ok: u64,
    /// Subtasks that failed for good.
    pub failed: u64,
    /// Subtasks that will not run: the job was cancelled or failed before.
    pub cancelled: u64,
    /// Ends after which a subtask had to run again: failed, lost, returned, moved.
    pub again: u64,
    /// Of `ok`: answered from a result that was recorded before.
    pub already: u64,
    /// Of `ok`: answered from a result that was in flight for another job.
    pub executed: u64,
    /// Time that workers spent on it, in microseconds.
    pub busy_us: u64,
}

impl Counts {
    /// Subtasks that ended for good.
    pub fn ended(&self) -> u64 {
        self.ok + self.failed + self.cancelled
    }

    /// Ends that came out of ZooKeeper: what was fed and is no longer in flight.
    pub fn recorded(&self) -> u64 {
        self.ok + self.failed + self.again
    }

    /// Adds `other` member by member.
    pub fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.again += other.again;
        self.already += other.already;
        self.executed += other.executed;
        self.busy_us += other.busy_us;
    }
}

/// A job as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What was asked.
    pub spec: JobSpec,
    /// The blocks it runs over.
    pub parts: Parts,
    /// How many these are: the number of subtasks before the merge.
    pub blocks: u32,
    /// Where it is in its life.
    pub state: JobState,
    /// What is recorded.
    pub counts: Counts,
    /// Every subtask below this index has ended and needs nothing more.
    pub low_water: u32,
    /// Whether a user asked to cancel it.
    pub cancel_requested: bool,
    /// Why it failed.
    pub error: Option<String>,
    /// Milliseconds since 1970 UTC.
    pub submitted_ms: i64,
    /// When a leader admitted it.
    pub admitted_ms: Option<i64>,
    /// When its last end was recorded.
    pub finished_ms: Option<i64>,
    /// Who submitted it: role and name, as in the audit log. None for one of an earlier release, and for the refresh of a view.
    pub submitted_by: Option<String>,
}

impl Job {
    /// A job that is about to be submitted.
    pub fn new(id: JobId, spec: JobSpec, parts: Parts, submitted_ms: i64) -> Self {
        Self {
            id,
            spec,
            blocks: parts.blocks(),
            parts,
            state: JobState::Pending,
            counts: Counts::default(),
            low_water: 0,
            cancel_requested: false,
            error: None,
            submitted_ms,
            admitted_ms: None,
            finished_ms: None,
            submitted_by: None,
        }
    }

    /// Number of subtasks: the blocks and, where there are partial results to merge, the merge.
    pub fn subtasks(&self) -> u64 {
        u64::from(self.blocks) + u64::from(self.has_merge())
    }

    /// Whether a merge follows the blocks. A job over no blocks still merges: `wc -l` of nothing is 0.
    pub fn has_merge(&self) -> bool {
        self.spec.processor.merges()
    }

    /// Identifies its answer; none where the same question is to be computed again.
    pub fn answer_key(&self) -> Option<Fingerprint> {
        let question = self
            .spec
            .processor
            .question()
            .filter(|_| !self.spec.skip_missing)?;
        Some(Fingerprint::of_answer(question, self.parts.sources()))
    }
}
