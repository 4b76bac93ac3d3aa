//! What can go wrong with a query.

use datafusion::{arrow::error::ArrowError, error::DataFusionError};

use crate::sentences::sentence;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The query is wrong, or failed on the data: DataFusion's own words.
    #[error("{0}")]
    Query(String),
    /// It is right but can't be split.
    #[error(
        "this query can't be reduced on the blocks: {why}; have the query filter or group the rows first, or bring them \
         together with --gather [ROWS]"
    )]
    NotSplit {
        /// What stands in the way.
        why: String,
    },
    /// More rows would be gathered than the query may.
    #[error(
        "more than {most} rows would be brought together: allow more with --gather ROWS, or have the query let fewer \
         through with WHERE, GROUP BY or LIMIT"
    )]
    TooManyRows {
        /// As many were allowed.
        most: u64,
    },
    /// A half needs more memory than there is for queries.
    #[error(
        "the query needs more memory than the node has for queries: have it let fewer rows or groups through, use \
         smaller blocks, or give the node more ({0})"
    )]
    Memory(String),
    /// A regular expression, or a separator, that can't be used.
    #[error("the format can't be used: {0}")]
    BadFormat(String),
    /// The lines of a block can't be read.
    #[error("reading the lines: {0}")]
    Read(#[from] std::io::Error),
    /// A block of more lines than fit into memory as columns.
    #[error("it has more than {most} lines: split it into smaller blocks (a compressed file is one block)")]
    TooManyLines {
        /// How many may be.
        most: u32,
    },
    /// A block whose wanted columns do not fit into memory.
    #[error(
        "its columns that are asked for take more than {most} bytes: have the query read fewer of them, or write the file \
         with smaller row groups"
    )]
    TooManyBytes {
        /// How many may be.
        most: u64,
    },
    /// A file that is no Parquet, or not one that can be read.
    #[error("it is no Parquet file that can be read: {0}")]
    BadParquet(String),
    /// Bytes that are no partial result.
    #[error("a partial result can't be read: {0}")]
    BadPartial(String),
    /// A small table whose rows are not at hand.
    #[error("the rows of the table {0} are not at hand")]
    Missing(String),
    /// A small table that can't be used.
    #[error("the table {name} can't be used: {why}")]
    BadTable {
        /// What the query calls it.
        name: String,
        /// Why.
        why: String,
    },
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
        let text = one_line(&error.find_root().strip_backtrace());
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::Memory(text),
            _ => Self::Query(text),
        }
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        Self::Query(one_line(&error.to_string()))
    }
}

/// What DataFusion says, as a sentence of one line and without the kind of error in front.
pub(crate) fn one_line(text: &str) -> String {
    const KINDS: [&str; 11] = [
        "Error during planning: ",
        "Schema error: ",
        "SQL error: ",
        "Execution error: ",
        "Arrow error: ",
        "Parser error: ",
        "Cast error: ",
        "Compute error: ",
        "Resources exhausted: ",
        "External error: ",
        "This feature is not implemented: ",
    ];
    let mut text = text.trim();
    while let Some(rest) = KINDS.iter().find_map(|kind| text.strip_prefix(kind)) {
        text = rest;
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    sentence(&lines.collect::<Vec<_>>().join(" "))
}
