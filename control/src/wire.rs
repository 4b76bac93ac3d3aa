//! Messages of `sawmill.v1` made of what is told here, and back: for the gateway, and for who asks one.
//!
//! Promise: what one side tells is what the other side reads. Nothing that comes is trusted: what does not fit is
//! [`Malformed`].

mod admin;
mod dataset;
mod errors;
mod job;
mod question;
mod registry;
mod view;

use api::Malformed;
use model::Name;

pub use admin::{change, change_message, token, token_message};
pub use dataset::{
    added_message, adding, adding_message, block_size, changes, changes_message, dataset, dataset_message,
    read_added, report, report_message, source, types,
};
pub use errors::{malformed, refused, status};
pub use job::{
    attempt, attempt_message, filter, filter_message, progress, progress_message, stderr_message, stderr_tail,
};
pub use question::{asked, asked_message, question, question_message};
pub use registry::{agent_message, status_message, worker_message};
pub use view::{view, view_message, view_state, view_state_message};

/// A name in a message.
///
/// # Errors
/// What is wrong with it.
pub fn name(field: &'static str, text: &str) -> Result<Name, Malformed> {
    Name::new(text).map_err(|error| Malformed::new(field, error))
}
