//! What is known of the values in a block: enough to see that none of its rows can match.

use std::collections::BTreeMap;

use uuid::Uuid;

/// The least or the greatest value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// An integer; of a timestamp the microseconds since 1970 UTC.
    Integer(i64),
    /// A number that is not NaN.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// Text, perhaps shortened: then a lower bound is less, and an upper one greater, than any value.
    Text(String),
}

/// What is known of a column of a block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnStats {
    /// No value is less; none: nothing is known.
    pub least: Option<Bound>,
    /// No value is greater; none: nothing is known.
    pub greatest: Option<Bound>,
    /// Rows without a value.
    pub nulls: u32,
}

/// What is known of a block. Columns go by a key that stands for their name, their type and how lines are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockStats {
    /// Number of its rows.
    pub rows: u32,
    /// What is known of its columns, by their keys.
    pub columns: BTreeMap<String, ColumnStats>,
}

/// What was learned of a block while it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// The incarnation of the dataset.
    pub dataset: Uuid,
    /// The number of the block in it.
    pub block: u32,
    /// Of a block that was made of others, since which generation it stands there: before, the number meant another.
    pub made: Option<u32>,
    /// What is known of it now, of some columns.
    pub stats: BlockStats,
}
