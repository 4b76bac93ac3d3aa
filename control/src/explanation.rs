//! What a query would do, as it is told.

use serde::{Deserialize, Serialize};

use crate::ForeseenDataset;

/// What a query would do, and what of it is known already.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// Its text.
    pub query: String,
    /// Why it is refused as it stands, and what to do; the rest is about the query with leave to gather rows.
    pub refused: Option<String>,
    /// Whether its answer may be given again.
    pub repeatable: bool,
    /// Whether what is computed for its blocks may be used again.
    pub reusable: bool,
    /// The job that has answered it.
    pub answered: Option<Answered>,
    /// Subtasks of its job, the merge among them.
    pub subtasks: u64,
    /// The datasets that it reads.
    pub datasets: Vec<ExplainedDataset>,
    /// What runs on each block.
    pub lower: Vec<Half>,
    /// What runs over all that the lower halves gave: DataFusion's plan, one node a line.
    pub upper: String,
}

/// A job that has answered the same question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// Its id.
    pub job: String,
    /// When, in milliseconds since 1970 UTC.
    pub finished_ms: Option<i64>,
}

/// A dataset of a query.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainedDataset {
    /// Its name.
    pub dataset: String,
    /// The columns that every block is parsed for.
    pub columns: Vec<String>,
    /// What a job would meet there.
    #[serde(flatten)]
    pub foreseen: ForeseenDataset,
}

/// One lower half.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Half {
    /// The datasets whose blocks it runs on.
    pub datasets: Vec<String>,
    /// The most rows that it may give over all blocks, where it does not reduce them.
    pub most_rows: Option<u64>,
    /// DataFusion's plan, one node a line.
    pub plan: String,
}
