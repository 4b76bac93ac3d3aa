//! Local ZooKeeper and MongoDB servers as child processes.
//!
//! Promise: a server started here answers when `start` returns, keeps its port and its data over [`ZooKeeper::restart`]
//! and [`Mongo::restart`], and never outlives the process that started it, not even when that one is killed with
//! SIGKILL ([`hold`] tells how). What a server acknowledged survives the death of the server unless the options say
//! otherwise.
//!
//! No promise: these are single servers on the loopback interface without access control, for trying out, measuring
//! and testing; they are no way to run ZooKeeper or MongoDB in production.
//!
//! Called by `sawmill dev`, `sawmill bench` and by the tests (through `testkit`).

mod error;
pub mod hold;
mod mongo;
mod port;
mod zookeeper;
mod zookeeper_jars;

pub use error::Error;
pub use mongo::{Mongo, MongoOptions};
pub use port::free as free_port;
pub use zookeeper::{ZooKeeper, ZooKeeperOptions};
