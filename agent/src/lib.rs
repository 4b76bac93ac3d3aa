//! Ships logs from the machine that writes them: follows files, cuts blocks, keeps them in a spool, sends them.
//!
//! Promise: every line of the followed files comes into the dataset once, through rotations of the files, deaths of this
//! process and of workers, and stores that are full; what waits is in a spool of bounded size, and when that is full
//! nothing more is read. No promise for bytes that nobody can read any more when it is their turn.
//! It speaks gRPC alone, to a dispatcher that finds it a worker, and to that worker.
//!
//! Called by `sawmill agent` and `sawmill ship`.

mod block;
mod config;
mod content;
mod disk;
mod error;
mod follow;
#[doc(hidden)]
pub mod hostile;
mod journal;
mod links;
mod mark;
mod object;
mod once;
mod paths;
#[cfg(test)]
mod proof;
mod records;
mod service;
mod snapshot;
mod spool;
mod state;
mod stream;
mod uplink;
mod wake;

pub use config::{After, BLOCK_BYTES, Config, Keeping, Nodes, Sharing, Source, Timing};
pub use error::Error;
pub use follow::Fate;
pub use once::{Progress, Shipment, ship};
pub use service::run;
