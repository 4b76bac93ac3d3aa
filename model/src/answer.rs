//! The rows of an answer as plain values, between what computes them and what keeps them.

/// Most rows of an answer that are kept as documents of their own unless asked for: a page through which people look,
/// and a fraction of the time that the query takes.
pub const KEPT_ROWS: usize = 10_000;
/// Most bytes of an answer, as it is recorded, that are kept as rows unless asked for: they are written in one
/// transaction.
pub const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Boolean(bool),
    /// Signed, 64 bits.
    Integer(i64),
    /// Double precision.
    Float(f64),
    /// An exact number in decimal digits, such as `-12.50`.
    Decimal(String),
    /// UTF-8.
    Text(String),
    /// Any bytes.
    Bytes(Vec<u8>),
    /// Milliseconds since 1970 UTC.
    Date(i64),
    /// Values in their order.
    List(Vec<Value>),
    /// Named values in their order.
    Struct(Vec<(String, Value)>),
}

/// Rows that are made one after another.
pub struct Rows {
    /// The names of the columns, as the query gave them: some may be equal.
    pub columns: Vec<String>,
    /// The rows in their order, each with a value per column.
    pub rows: Box<dyn Iterator<Item = Vec<Value>> + Send>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows")
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}
