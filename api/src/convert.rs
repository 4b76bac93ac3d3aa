//! Messages made of what the model has, and back.
//!
//! Promise: what is made of a message is what the message was made of. Nothing of a message is trusted: what does not fit is
//! [`Malformed`], never a panic.

mod dataset;
mod job;
mod placement;

pub use job::{priority, state};

/// A message that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad {field}: {why}")]
pub struct Malformed {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Malformed {
    /// A field and what is wrong with it.
    pub fn new(field: &'static str, why: impl ToString) -> Self {
        Self {
            field,
            why: why.to_string(),
        }
    }

    /// A field that must be there.
    pub(crate) fn missing(field: &'static str) -> Self {
        Self::new(field, "it is missing")
    }
}
