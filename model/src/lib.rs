//! What a queue of log batches *is*: names, states, policies and the decisions of every role as pure functions.
//!
//! Promise: no I/O, no clock, no async, no randomness of its own; time and dice are arguments.
//! Every other crate builds on this one; it builds on none of them.

pub mod answer;
pub mod assignment;
pub mod audit;
pub mod block;
pub mod bundle;
pub mod cache;
pub mod claim;
pub mod compaction;
pub mod entry;
pub mod feed;
pub mod fingerprint;
pub mod health;
pub mod job;
pub mod ledger;
pub mod lifecycle;
pub mod limits;
pub mod name;
pub mod origin;
pub mod outcome;
pub mod parts;
pub mod payload;
pub mod place;
pub mod printable;
pub mod processor;
pub mod rendezvous;
pub mod retry;
pub mod stats;
pub mod table;
pub mod view;
pub mod znode;

pub use block::{Block, Codec, Content, Ends, Made, Mark};
pub use entry::{EntryName, Priority, Spot};
pub use fingerprint::Fingerprint;
pub use job::{Counts, Job, JobId, JobSpec, JobState};
pub use name::Name;
pub use outcome::{End, Failure, FailureKind, Outcome, Run};
pub use parts::Parts;
pub use payload::{Output, Payload};
pub use processor::{Processor, Requirement};
pub use view::View;

/// The format number written into every document and znode of this release.
///
/// A reader refuses what carries a higher number: it was written by a newer Sawmill.
pub const FORMAT: u32 = 1;
