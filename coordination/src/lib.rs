//! The three places in ZooKeeper: `/unowned`, `/owned`, `/done`, and the steps between them.
//!
//! What this crate does not promise, first:
//! - A step whose reply is lost may have happened. The crate looks and repeats by itself while the term lasts; when the
//!   term ends first, [`Error::outcome_unknown`] says that nobody knows.
//! - Dropping a future does not take its request back: the client has queued it and sends it, even after a
//!   reconnect. Each step is therefore guarded by the ephemeral of its author, or safe to repeat.
//! - A [`Term`] may end by its own clock while the session could have been saved.
//!
//! What it promises:
//! - At any instant an entry is in exactly one place, and so is an agent; each step moves it in one atomic transaction.
//! - A worker that has lost `alive` can neither claim nor finish; a dispatcher that has lost its candidate can neither
//!   feed nor recover nor revoke.
//! - No packet exceeds the size that ZooKeeper takes, whatever the load.
//! - What others put under the roots is skipped and reported, never deleted, and never ends a role.
//!
//! Called by the roles and by `control`; the only user of `zookeeper-client`.

mod batch;
pub mod census;
pub mod claim;
pub mod clients;
mod connect;
pub mod election;
pub mod error;
pub mod feed;
pub mod finish;
pub mod inspect;
pub mod layout;
pub mod leader;
mod listing;
pub mod members;
pub mod record;
pub mod recover;
pub mod reset;
pub mod revoke;
pub mod rights;
mod roots;
pub mod servers;
pub mod term;
pub mod terms;
mod waiting;
mod wake;
mod watch;

pub use census::{Census, Header, WorkerView};
pub use claim::Claimed;
pub use clients::{Acceptance, Attached, Attachment, Change, Lost, Refusal, WaitingClient};
pub use election::{Candidacy, Peers};
pub use error::Error;
pub use feed::NewEntry;
pub use finish::Finished;
pub use inspect::{CandidateView, ClientView, RootView, Snapshot};
pub use layout::{Office, Place, WorkerNumber};
pub use leader::Leader;
pub use listing::{Listing, Strange};
pub use members::{Worker, live_workers};
pub use record::Recorder;
pub use recover::{Recovered, Recovery};
pub use reset::{check_idle, recreate};
pub use rights::{UserId, Users};
pub use servers::{ServerInfo, servers};
pub use term::{Config, Ending, Term, TlsConfig};
pub use waiting::Waiting;
