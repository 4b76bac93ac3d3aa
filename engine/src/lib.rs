//! What a subtask does to a block, and how partial results merge.
//!
//! Promise: one attempt of one subtask, bounded in memory, time and output as its processor says; when the attempt is
//! over, however it ended, no process that it started is left. Not promised: that an attempt has no effects outside
//! (a command may write where it likes), retries, or recording: those belong to the roles.
//!
//! Called by compute nodes, through [`Engine`]. Every program that does so calls [`guard::run_if_asked`] first of all.

pub mod command;
pub mod guard;
#[doc(hidden)]
pub mod hostile;
#[cfg(feature = "sql")]
mod learned;
#[cfg(feature = "sql")]
mod lines;
pub mod noop;
pub mod processor;
pub mod product;
pub mod program;
#[cfg(feature = "sql")]
mod query;
#[cfg(feature = "sql")]
pub mod row_groups;
pub mod source;
pub mod stop;
mod stored;

/// The version of the halves of queries that this build runs; none where it answers none.
#[cfg(feature = "sql")]
pub const SQL_VERSION: Option<&str> = Some(sql::VERSION);
/// The version of the halves of queries that this build runs; none where it answers none.
#[cfg(not(feature = "sql"))]
pub const SQL_VERSION: Option<&str> = None;

pub use command::Printed;
pub use guard::Guard;
pub use processor::{Engine, Memory, Subtask};
pub use product::Product;
pub use program::Program;
pub use source::{Answers, Blocks, Partials, Source};
pub use stop::Stop;
