//! What must last: the collections of Sawmill in MongoDB, and the bytes of log blocks and large outputs.
//!
//! Promise: [`Store::record`] counts the end of a subtask exactly once, however often and by however many recorders it
//! is given; what a method acknowledged is written with majority and read back with majority; a leader whose epoch is
//! over writes nothing; every document carries a format number, and one of a newer release is refused, not guessed at.
//!
//! No promise: nothing here knows ZooKeeper or who leads; the caller brings the epoch. A call that failed with
//! [`Error::outcome_unknown`] may have had its effect: every method may be repeated.
//!
//! Called by every role and by `control`. The only crate that knows MongoDB and `object_store`.

mod agents;
mod amending;
mod answers;
mod audit_log;
mod blocks;
mod clock;
mod codec;
mod compacted;
mod compaction;
mod config;
mod connect;
mod copies;
mod datasets;
mod error;
mod extent;
mod failures;
mod fence;
mod files;
#[doc(hidden)]
pub mod hostile;
mod jobs;
mod leadership;
mod leaving;
mod local;
mod made;
mod merging;
mod neighbours;
mod nodes;
mod objects;
mod prepare;
mod record;
mod results;
mod retention;
mod reuse;
mod rows;
mod schema;
mod sessions;
mod shipped;
mod spill;
mod split;
mod stats;
mod sweeping;
mod tokens;
mod transaction;
mod unchanged;
mod usage;
mod views;

#[cfg(test)]
mod tests;

pub use agents::{AgentLoad, AgentRecord, AgentSeen};
pub use amending::{Amendment, Revision};
pub use answers::{MergeRun, check_collection};
pub use audit_log::{CHANGES_KEPT, CHANGES_MAX, Change, ChangeFilter};
pub use blocks::BlockReader;
pub use clock::{Clock, MOST_APART};
pub use compacted::Numbered;
pub use compaction::{Compaction, Cursors, Found};
pub use config::Config;
pub use connect::{ServerInfo, Store};
pub use datasets::Dataset;
pub use error::Error;
pub use failures::FailureRecord;
pub use files::shown;
pub use jobs::JobFilter;
pub use leadership::{Epoch, Progress};
pub use leaving::{Departed, Limits};
pub use local::LocalStore;
pub use neighbours::{Kept, Missed, Neighbours};
pub use nodes::NodeReport;
pub use record::{DoneItem, Recorded};
pub use results::Partial;
pub use retention::{Pruned, Retention};
pub use shipped::{LaneMark, Registration, Shipment, Shipped, ShippedBlock, Volume};
pub use spill::Spill;
pub use tokens::{TOKENS_MAX, TokenRecord};
pub use unchanged::{Held, Since, Tail, held, version_now};
pub use usage::Usage;
