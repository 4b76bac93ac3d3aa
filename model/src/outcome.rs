//! How subtasks end.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{job::JobId, limits::STDERR_TAIL_BYTES, payload::Output};

/// Consecutive subtasks of one job in the same attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Run {
    /// Index of the first subtask.
    pub first: u32,
    /// How many; at least 1.
    pub count: u32,
    /// Which attempt of each, from 1.
    pub attempt: u32,
}

impl Run {
    /// One past the last index.
    pub fn end(&self) -> u32 {
        self.first.saturating_add(self.count)
    }

    /// The indexes in order.
    pub fn indexes(&self) -> std::ops::Range<u32> {
        self.first..self.end()
    }
}

/// What happened to subtasks in their earlier attempts; one for all subtasks of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Past {
    /// Attempts that failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u32,
    /// Workers that were lost while they had the entry and have not come back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deaths: Vec<Death>,
    /// Workers that had the entry, lost their sessions while others kept theirs, and came back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stalls: u32,
}

/// A worker that was lost while it had an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Death {
    /// The process that the worker ran in, see [`WorkerData::process`](crate::znode::WorkerData::process).
    pub process: Uuid,
    /// What it says of the entry.
    pub evidence: Evidence,
}

/// What the loss of a worker says of an entry that it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Nothing: several workers were lost at the same time.
    None,
    /// The entry, or another one that the worker had, may have killed it.
    Suspect,
    /// Nothing but this subtask ran on the worker.
    Alone,
}

impl Evidence {
    /// The word for it in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Suspect => "suspect",
            Self::Alone => "alone",
        }
    }

    /// What the word says; none for another word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::None, Self::Suspect, Self::Alone]
            .into_iter()
            .find(|evidence| evidence.word() == word)
    }
}

/// Losses of several workers at the same time that say nothing of an entry. More of them do: subtasks that kill their
/// workers may do so at the same time.
const EXCUSED_LOSSES: usize = 3;

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Past {
    /// How many deaths make the entry a suspect: 0 none; 1 the entry runs alone; 2 or more each of its subtasks runs alone.
    pub fn suspicion(&self) -> usize {
        self.deaths.len() - self.count(Evidence::None)
    }

    /// Whether the entry must be the only one on its worker.
    pub fn alone(&self) -> bool {
        self.suspicion() > 0
    }

    /// Deaths of a worker while the subtask was the only thing that ran on it.
    pub fn deaths_alone(&self) -> usize {
        self.count(Evidence::Alone)
    }

    fn count(&self, evidence: Evidence) -> usize {
        let of_it = self.deaths.iter().filter(|death| death.evidence == evidence);
        of_it.count()
    }

    /// What the past is once the worker in `process` was lost with an entry of `count` subtasks, at about the same time as
    /// others where `together`.
    #[must_use]
    pub fn after_loss(mut self, process: Uuid, together: bool, count: u32) -> Self {
        let evidence = if together && self.count(Evidence::None) < EXCUSED_LOSSES {
            Evidence::None
        } else if self.alone() && count == 1 {
            Evidence::Alone
        } else {
            Evidence::Suspect
        };
        self.deaths.push(Death { process, evidence });
        self
    }

    /// Strikes out the deaths of processes that are among the `living`: these had only lost their sessions.
    pub fn acquit(&mut self, living: &HashSet<Uuid>) {
        let lived = |death: &mut Death| living.contains(&death.process);
        let stalled = self
            .deaths
            .extract_if(.., lived)
            .filter(|death| death.evidence != Evidence::None);
        self.stalls = self.stalls.saturating_add(stalled.count() as u32);
    }
}

/// Why an attempt failed, in a word that programs can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The command exited with a code other than 0.
    Exit,
    /// The command was ended by a signal.
    Signal,
    /// The command ran longer than its limit.
    Timeout,
    /// The command printed more than its limit.
    OutputLimit,
    /// The command could not be started.
    Start,
    /// The block could not be read.
    Read,
    /// The file of the block is not there.
    Missing,
    /// The nodes that keep the block are away, or have no good copy of it.
    Away,
    /// The block is no longer what it was when it was added.
    Changed,
    /// The output could not be stored.
    Store,
    /// A query failed on the data, as it would each time.
    Query,
    /// A query needs more memory than there is for queries.
    Memory,
    /// Workers died while the subtask ran alone on them.
    Deaths,
    /// What came back could not be recorded or decoded.
    Refused,
}

impl FailureKind {
    /// Whether another attempt can end otherwise.
    pub fn is_worth_another(self) -> bool {
        !matches!(self, Self::Query)
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In a word.
    pub kind: FailureKind,
    /// In a sentence that says what was wrong and where.
    pub message: String,
    /// Exit code of the command, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The end of what the command wrote to standard error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr_tail: String,
}

impl Failure {
    /// A failure without exit code and standard error.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            exit_code: None,
            stderr_tail: String::new(),
        }
    }

    /// Keeps the end of `stderr`, cut at a character and marked where it was cut.
    #[must_use]
    pub fn with_stderr(mut self, stderr: &[u8]) -> Self {
        self.stderr_tail = tail(stderr, STDERR_TAIL_BYTES);
        self
    }

    /// Whether the node rather than the data or the command is the likely culprit.
    pub fn blames_node(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::Start | FailureKind::Read | FailureKind::Missing | FailureKind::Store
        ) || matches!(self.exit_code, Some(126 | 127))
    }
}

/// The last `most` bytes of what a command wrote to standard error, cut at a character and marked where it was cut.
pub fn tail(stderr: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim_end();
    let mut from = text.len().saturating_sub(most);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    if from == 0 {
        text.to_string()
    } else {
        format!("…{}", &text[from..])
    }
}

/// The end that subtasks met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A partial result.
    Ok {
        /// What the subtask gave.
        output: Output,
        /// Hex fingerprint, where the job offers its results for reuse.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<String>,
        /// The end of what the command wrote to standard error, where that is kept.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        stderr_tail: String,
    },
    /// A partial result that is already recorded elsewhere.
    Reused {
        /// The job that has it.
        job: JobId,
        /// The subtask of that job.
        index: u32,
        /// Whether it was in flight when this one was due.
        waited: bool,
    },
    /// A failed attempt; another follows after the backoff.
    Failed(Failure),
    /// A final failure.
    Dead(Failure),
    /// Its worker died.
    Lost,
    /// Its worker handed it back when it was told to stop.
    Returned,
    /// The leader took it from its worker to give it to another.
    Moved,
    /// Its job was cancelled.
    Cancelled,
}

impl Outcome {
    /// Whether the subtask needs no further attempt.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Ok { .. } | Self::Reused { .. } | Self::Dead(_) | Self::Cancelled
        )
    }

    /// The word for it in documents and tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ok { .. } => "ok",
            Self::Reused { .. } => "reused",
            Self::Failed(_) => "failed",
            Self::Dead(_) => "dead",
            Self::Lost => "lost",
            Self::Returned => "returned",
            Self::Moved => "moved",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The end of one subtask or of a run of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Index of the first subtask.
    #[serde(rename = "i")]
    pub first: u32,
    /// How many consecutive subtasks met it.
    #[serde(rename = "n", default = "one", skip_serializing_if = "is_one")]
    pub count: u32,
    /// What end.
    #[serde(rename = "end")]
    pub outcome: Outcome,
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: [Uuid; 2] = [Uuid::from_u128(1), Uuid::from_u128(2)];

    #[test]
    fn only_a_death_while_alone_counts() {
        let first = Past::default().after_loss(PROCESS[0], false, 200);
        assert_eq!(
            (first.suspicion(), first.deaths_alone(), first.alone()),
            (1, 0, true)
        );
        let second = first.after_loss(PROCESS[0], false, 200);
        assert_eq!((second.suspicion(), second.deaths_alone()), (2, 0));
        let third = second.after_loss(PROCESS[0], false, 1);
        assert_eq!((third.suspicion(), third.deaths_alone()), (3, 1));
        let innocent = Past::default().after_loss(PROCESS[0], false, 1);
        assert_eq!(innocent.deaths_alone(), 0);
    }

    #[test]
    fn a_process_that_comes_back_has_not_died() {
        let mut past = Past::default()
            .after_loss(PROCESS[0], false, 1)
            .after_loss(PROCESS[1], false, 1);
        past.acquit(&HashSet::from([PROCESS[1]]));
        assert_eq!((past.suspicion(), past.deaths_alone()), (1, 0));
        past.acquit(&HashSet::from(PROCESS));
        assert_eq!((past.deaths.len(), past.stalls), (0, 2));
    }

    #[test]
    fn losses_together_say_nothing_unless_they_go_on() {
        let mut past = Past::default();
        for _ in 0..EXCUSED_LOSSES {
            past = past.after_loss(PROCESS[0], true, 1);
            assert!(!past.alone());
        }
        let deaths = (0..5).map(|_| {
            past = past.clone().after_loss(PROCESS[0], true, 1);
            past.deaths_alone()
        });
        assert_eq!(deaths.collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn keeps_the_tail_of_standard_error() {
        let long = "ä".repeat(3000) + "the end\n";
        let failure = Failure::new(FailureKind::Exit, "x").with_stderr(long.as_bytes());
        assert!(failure.stderr_tail.starts_with('…') && failure.stderr_tail.ends_with("the end"));
        assert!(failure.stderr_tail.len() <= STDERR_TAIL_BYTES + 3);
    }
}
