//! What is asked of a mill in SQL, and what comes back at once.

use model::{Job, JobId, Name, Priority};

/// A query with all that shapes its answer.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its text.
    pub sql: String,
    /// An IANA name or an offset: the zone in which times without one are meant.
    pub time_zone: String,
    /// The most rows that may be brought together where blocks can't reduce them; none: such a query is refused.
    pub gather_rows: Option<u64>,
    /// Small tables that it joins.
    pub with: Vec<WithTable>,
    /// The collection that the answer replaces.
    pub into: Option<String>,
    /// How urgent.
    pub priority: Priority,
    /// Whether every block is computed, also where its answer is recorded.
    pub no_reuse: bool,
    /// Whether blocks whose file is gone are left out.
    pub skip_missing: bool,
    /// Whether a job is submitted also where the answer as a whole is recorded.
    pub no_recorded_answer: bool,
}

impl Question {
    /// A query with the defaults of everything else.
    pub fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            time_zone: "UTC".into(),
            gather_rows: None,
            with: Vec::new(),
            into: None,
            priority: Priority::DEFAULT,
            no_reuse: false,
            skip_missing: false,
            no_recorded_answer: false,
        }
    }
}

/// A small table that goes with a query.
#[derive(Clone, Debug)]
pub struct WithTable {
    /// What the query calls it.
    pub name: String,
    /// The ending of its file.
    pub ending: Option<String>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What became of a question.
#[derive(Debug)]
pub struct Asked {
    /// Who answers.
    pub answer: Answer,
    /// Why what is recorded is not used, where a file has changed since.
    pub changed: Option<String>,
    /// Files that have grown since they were added, as far as can be told: what came behind their ends is not in the answer.
    pub grown: Vec<GrownFile>,
    /// The database with the collection that the answer replaces.
    pub database: String,
}

/// A file that has grown since it was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrownFile {
    /// The dataset with its blocks.
    pub dataset: Name,
    /// Its path.
    pub file: String,
    /// Bytes that came behind its end.
    pub bytes: u64,
}

/// Who answers a question.
#[derive(Debug)]
pub enum Answer {
    /// The job that has answered it already.
    Recorded(Box<Job>),
    /// Nobody: it has no rows, whatever the lines are; as an Arrow IPC stream.
    NoRows(Vec<u8>),
    /// One that was submitted.
    Submitted {
        /// Its id.
        job: JobId,
        /// About how many bytes it reads.
        bytes: u64,
    },
}
