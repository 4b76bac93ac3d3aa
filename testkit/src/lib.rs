//! What the tests of Sawmill stand on: real servers, processes to kill, lines to cut, conditions to wait for.
//!
//! Promise: everything here works on real ZooKeeper and MongoDB processes, tests get names of their own so that they run
//! side by side, and nothing that a test started outlives it. A server that is not installed makes a test fail, with
//! what to install; it is never skipped.
//!
//! No promise of stability: for the tests of this workspace only (a dev-dependency), so failures here panic with what
//! went wrong instead of returning errors.
//!
//! ```no_run
//! # async fn example() {
//! use std::time::Duration;
//! use testkit::{Space, process::Process, wait};
//!
//! let space = Space::new().await; // a chroot and a database of its own, on shared servers
//! let mut watcher = Process::sawmill(&space).arg("watcher").start();
//! wait::until_true("the watcher to stand for election", Duration::from_secs(10), async || {
//!     space.tree().await.keys().any(|path| path.starts_with("/owned/watcher/"))
//! })
//! .await;
//! watcher.kill9();
//! # }
//! ```
//!
//! - [`Space`]: where one test works. [`Space::private`] has servers of its own, to kill, freeze and restart.
//! - [`logs`]: lines to ask.
//! - [`Mill`]: `sawmill dev` in such a space, and commands against it.
//! - [`picture`]: the whole tree as of one instant.
//! - [`process`]: binaries of this workspace as children.
//! - [`proxy`]: a TCP proxy with named cuts, and counts of requests.
//! - [`wait`]: waiting for conditions with a deadline.

pub mod logs;
pub mod mill;
pub mod picture;
pub mod process;
pub mod proxy;
pub mod servers;
mod space;
pub mod wait;

pub use mill::Mill;
pub use servers::Servers;
pub use space::Space;
