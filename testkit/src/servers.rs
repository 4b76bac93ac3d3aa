//! The two real servers that tests work on.
//!
//! `scripts/test` starts one pair for the whole run (the binary `testkit-servers`) and names it in [`ZOOKEEPER`] and
//! [`MONGODB`]. Where these are not set (`cargo nextest run -p …` by hand), each test process starts a pair of its own at
//! its first [`crate::Space::new`], which costs it two seconds; it ends with the process, whatever ends that.

use servers::{Mongo, MongoOptions, ZooKeeper, ZooKeeperOptions};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::OnceCell;

/// The environment variable with the `host:port` of the ZooKeeper of this run.
pub const ZOOKEEPER: &str = "SAWMILL_TEST_ZOOKEEPER";
/// The environment variable with the connection string of the MongoDB of this run, without a database.
pub const MONGODB: &str = "SAWMILL_TEST_MONGODB";

/// Sessions may be as short as this on the servers of the tests.
pub const MIN_SESSION_TIMEOUT: Duration = Duration::from_millis(500);

/// Where the shared servers are.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// `host:port`.
    pub zookeeper: String,
    /// A connection string without a database.
    pub mongodb: String,
}

/// A pair of servers of one's own, both durable. Dropping it ends them; their data goes with them.
#[derive(Debug)]
pub struct Servers {
    /// The ZooKeeper: kill, freeze, restart it.
    pub zookeeper: ZooKeeper,
    /// The MongoDB: kill, freeze, restart it.
    pub mongo: Mongo,
}

impl Servers {
    /// Starts both, side by side.
    ///
    /// # Panics
    /// When one is not installed or does not start.
    pub async fn start() -> Servers {
        Servers::start_with(zookeeper_options(), mongo_options()).await
    }

    /// Starts both with options of the caller; begin with [`zookeeper_options`] and [`mongo_options`].
    ///
    /// # Panics
    /// When one is not installed or does not start.
    pub async fn start_with(zookeeper: ZooKeeperOptions, mongo: MongoOptions) -> Servers {
        let (zookeeper, mongo) = tokio::join!(ZooKeeper::start(zookeeper), Mongo::start(mongo));
        match (zookeeper, mongo) {
            (Ok(zookeeper), Ok(mongo)) => Servers { zookeeper, mongo },
            (Err(error), _) | (_, Err(error)) => panic!("a server for the tests: {error}"),
        }
    }

    /// Where they are.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            zookeeper: self.zookeeper.address(),
            mongodb: self.mongo.uri(),
        }
    }

    /// Ends both and returns when they are gone, with their data.
    pub async fn stop(mut self) {
        tokio::join!(self.zookeeper.stop(), self.mongo.stop());
        for directory in [self.zookeeper.data_dir(), self.mongo.data_dir()] {
            // A temporary directory: whoever cleans those removes what we could not.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

/// A ZooKeeper for tests: a fresh directory that goes with the server, sessions of 0.5 to 60 s in steps of 0.1 s, and a
/// Java that starts fast.
pub fn zookeeper_options() -> ZooKeeperOptions {
    let mut options = ZooKeeperOptions::new(scratch("zookeeper"));
    options.scrap = true;
    options.tick = Duration::from_millis(100);
    options.min_session_timeout = MIN_SESSION_TIMEOUT;
    options.heap = "512m".to_owned();
    options
        .java_options
        .extend(["-XX:TieredStopAtLevel=1", "-Xshare:auto"].map(str::to_owned));
    options
}

/// A MongoDB for tests: a fresh directory that goes with the server, and a small cache.
pub fn mongo_options() -> MongoOptions {
    let mut options = MongoOptions::new(scratch("mongodb"));
    options.scrap = true;
    options.cache_mib = 512;
    options
}

/// The shared servers: those of the environment, else a pair for this process.
///
/// # Panics
/// When they have to be started and cannot.
pub async fn shared() -> Addresses {
    static OWN: OnceCell<Servers> = OnceCell::const_new();
    match (std::env::var(ZOOKEEPER), std::env::var(MONGODB)) {
        (Ok(zookeeper), Ok(mongodb)) => Addresses { zookeeper, mongodb },
        _ => OWN.get_or_init(Servers::start).await.addresses(),
    }
}

/// A fresh directory that nobody removes but the server that works in it.
fn scratch(name: &str) -> PathBuf {
    let prefix = format!("sawmill-test-{name}-");
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir()
        .expect("a temporary directory")
        .keep()
}
