//! Why an attempt gave no result.

use model::{Failure, FailureKind};

/// Why an attempt gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It was cancelled; there is nothing to blame and nothing to record.
    Cancelled,
    /// It failed.
    Failed(Failure),
}

impl Stop {
    /// The failure, unless it was cancelled.
    pub fn failure(self) -> Option<Failure> {
        match self {
            Self::Cancelled => None,
            Self::Failed(failure) => Some(failure),
        }
    }

    pub(crate) fn failed(kind: FailureKind, message: impl Into<String>) -> Self {
        Self::Failed(Failure::new(kind, message))
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
