//! What can go wrong with a query.

use datafusion::{arrow::error::ArrowError, error::DataFusionError};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The query is wrong, or failed on the data: DataFusion's own words.
    #[error("{0}")]
    Query(String),
    /// It is right but can't be split.
    #[error("this query can't be split over blocks: {why}; {hint}")]
    NotSplit {
        /// What stands in the way.
        why: String,
        /// What to write instead.
        hint: &'static str,
    },
    /// A regular expression, or a separator, that can't be used.
    #[error("the format can't be used: {0}")]
    BadFormat(String),
    /// Bytes that are no partial result.
    #[error("a partial result can't be read: {0}")]
    BadPartial(String),
    /// The job is of a build whose halves do not fit this one's.
    #[error(
        "the query was planned by version {theirs}, this node runs {ours}: bring all nodes to one version"
    )]
    OtherVersion {
        /// The job's.
        theirs: String,
        /// This build's.
        ours: &'static str,
    },
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        Self::Query(error.strip_backtrace())
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        Self::Query(error.to_string())
    }
}
