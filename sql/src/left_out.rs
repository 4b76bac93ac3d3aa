//! Blocks that are left out of an answer, since nothing can be read of them.

use serde::{Deserialize, Serialize};

use crate::{Error, wire};

/// A block that is not in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The dataset, as the query calls it.
    pub dataset: String,
    /// The number of the block in it.
    pub block: u32,
    /// Where its bytes were.
    pub file: String,
}

impl LeftOut {
    /// Stands for what the lower halves would have given for the block.
    pub fn partial(&self) -> Vec<u8> {
        let mut frames = wire::Frames::new(wire::Tally::default());
        frames.push_left_out(std::slice::from_ref(self));
        frames.finish()
    }
}

/// The blocks that are not in an answer that [`crate::upper`] gave, in their order.
///
/// # Errors
/// [`Error::BadPartial`].
pub fn left_out(answer: &[u8]) -> Result<Vec<LeftOut>, Error> {
    wire::read_left_out(answer)
}
