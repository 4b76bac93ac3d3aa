//! The servers that a bench measures on, and mills on them.
//!
//! Promise: own servers sync before they acknowledge and are gone with their data after [`Rig::stop`], or soon after the
//! process has ended in any way. What is used of a configured mill is a database of its own, emptied at the end, and a
//! chroot of its own, of which the empty roots stay.

use std::path::PathBuf;

use anyhow::Context as _;
use control::Control;
use model::Name;
use servers::{Mongo, MongoOptions, ZooKeeper, ZooKeeperOptions};
use tempfile::TempDir;
use uuid::Uuid;

use super::{args::ServerArgs, report::step};
use crate::{
    config::{Secret, Settings},
    roles::{Mill, Parts, Role},
};

/// The database of the mills, also where the servers are those of another mill.
const DATABASE: &str = "sawmill_bench";
/// The cache of the own MongoDB: one that holds what a bench writes, as that of a server for itself would.
const MONGO_CACHE_MIB: u32 = 4096;

/// What a mill for a bench is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Slots of each compute node.
    pub(super) slots: u32,
    /// Compute nodes.
    pub(super) nodes: u32,
    /// Watchers.
    pub(super) watchers: u32,
    /// Whether entries may hold several subtasks.
    pub(super) bundles: bool,
    /// Whether a dispatcher runs in this process.
    pub(super) dispatcher: bool,
}

/// Servers to measure on.
pub(super) struct Rig {
    /// The settings with their addresses.
    pub(super) settings: Settings,
    /// What roles work with.
    pub(super) parts: Parts,
    /// The facade.
    pub(super) control: Control,
    // Before the directory: what is dropped first stops writing into it.
    servers: Option<(ZooKeeper, Mongo)>,
    /// Where own servers keep their data, and files are made.
    pub(super) dir: TempDir,
}

impl Rig {
    /// Starts own servers, or opens the configured ones.
    ///
    /// # Errors
    /// What is not installed, does not start or does not answer.
    pub(super) async fn start(args: &ServerArgs, settings: &Settings) -> anyhow::Result<Self> {
        let dir = work_dir(args.dir.clone())?;
        let mut settings = settings.clone();
        settings.scratch = dir.path().join("scratch");
        settings.store = format!("file://{}", dir.path().join("store").display());
        let mut servers = None;
        if args.use_configured {
            let run = Uuid::now_v7().simple().to_string();
            settings.zookeeper = format!("{}/bench-{run}", settings.zookeeper.trim_end_matches('/'));
        } else {
            step(format_args!(
                "starting ZooKeeper and MongoDB over {}",
                dir.path().display()
            ));
            // Scrap: their data goes even when this process is killed.
            let zookeeper = ZooKeeperOptions {
                scrap: true,
                ..ZooKeeperOptions::new(dir.path().join("zookeeper"))
            };
            let mongo = MongoOptions {
                scrap: true,
                cache_mib: MONGO_CACHE_MIB,
                ..MongoOptions::new(dir.path().join("mongodb"))
            };
            let (zookeeper, mongo) = tokio::join!(ZooKeeper::start(zookeeper), Mongo::start(mongo));
            let (zookeeper, mongo) = (zookeeper?, mongo?);
            settings.zookeeper = format!("{}/bench", zookeeper.address());
            settings.mongodb = Secret::new(mongo.uri_of(DATABASE));
            servers = Some((zookeeper, mongo));
        }
        let parts = parts_in(&settings, DATABASE).await?;
        let control = Control::open(parts.zookeeper.clone(), parts.store.clone());
        Ok(Self {
            settings,
            parts,
            control,
            dir,
            servers,
        })
    }

    /// Another chroot and database on the same servers, where no role works.
    ///
    /// # Errors
    /// What does not answer.
    pub(super) async fn beside(&self, what: &str) -> anyhow::Result<Parts> {
        let mut parts = parts_in(&self.settings, &format!("{DATABASE}_{what}")).await?;
        parts.zookeeper.connect = format!("{}-{what}", self.settings.zookeeper);
        Ok(parts)
    }

    /// The own ZooKeeper.
    ///
    /// # Errors
    /// Without an own one.
    pub(super) fn zookeeper(&self) -> anyhow::Result<&ZooKeeper> {
        self.servers
            .as_ref()
            .map(|(zookeeper, _)| zookeeper)
            .context("this needs an own ZooKeeper")
    }

    /// Who serves, in a few words.
    pub(super) fn servers(&self) -> String {
        match &self.servers {
            Some((_, mongo)) => format!("own ZooKeeper and {} (each write synced)", mongo.program()),
            None => "the configured ones".to_owned(),
        }
    }

    /// Starts a mill on these servers.
    pub(super) fn mill(&self, shape: Shape) -> Mill {
        let mut roles: Vec<Role> = (0..shape.watchers)
            .map(|_| Role::watcher(&self.settings))
            .collect();
        if shape.dispatcher {
            roles.push(match Role::dispatcher(&self.settings) {
                Role::Dispatcher(config) => Role::Dispatcher(dispatcher::Config {
                    bundles: shape.bundles,
                    ..config
                }),
                other => other,
            });
        }
        for number in 1..=shape.nodes {
            let node = Name::new(format!("bench-{number}")).expect("a fixed word and a number keep the rule");
            let mut settings = self.settings.clone();
            (settings.node, settings.slots, settings.allow_exec) = (node, shape.slots, true);
            roles.push(Role::compute(&settings));
        }
        Mill::start(roles, &self.parts)
    }

    /// Starts a mill that is reached by a gateway on a free port of loopback, and gives its address: a dispatcher, a watcher
    /// and a compute node that takes what agents ship.
    ///
    /// # Errors
    /// A port that can't be bound.
    pub(super) async fn reachable_mill(&self, slots: u32) -> anyhow::Result<(Mill, String)> {
        let mut settings = self.loopback();
        (settings.node, settings.slots) = (Name::new("bench-1")?, slots);
        let (mut roles, address) = Role::serving_dispatcher(&settings, true).await?;
        roles.push(Role::watcher(&settings));
        roles.push(Role::receiving_compute(&settings).await?);
        Ok((Mill::start(roles, &self.parts), address))
    }

    /// Starts a gateway on a free port of loopback, and nothing else of a mill; gives its address.
    ///
    /// # Errors
    /// A port that can't be bound.
    pub(super) async fn gateway_alone(&self) -> anyhow::Result<(Mill, String)> {
        let (roles, address) = Role::serving_dispatcher(&self.loopback(), true).await?;
        let gateway = roles.into_iter().filter(|role| matches!(role, Role::Gateway(..)));
        Ok((Mill::start(gateway, &self.parts), address))
    }

    /// The settings of what is reached on free ports of loopback.
    fn loopback(&self) -> Settings {
        let mut settings = self.settings.clone();
        (settings.listen, settings.worker_listen) = ("127.0.0.1:0".into(), "127.0.0.1:0".into());
        (settings.identity, settings.advertise) = (None, None);
        settings
    }

    /// Ends the own servers, or empties what was used of the configured ones.
    ///
    /// # Errors
    /// What can't be emptied.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        match self.servers {
            Some((mut zookeeper, mut mongo)) => {
                tokio::join!(zookeeper.stop(), mongo.stop());
                Ok(())
            }
            None => Ok(self.parts.store.drop_collections().await?),
        }
    }
}

/// Runs `work` with a mill and stops it afterwards; a role that fails in between ends the work.
///
/// # Errors
/// Those of the work, of a role, of stopping.
pub(super) async fn with_mill<T>(
    mut mill: Mill,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let worked = tokio::select! {
        worked = work => worked,
        failure = mill.failed() => Err(failure),
    };
    let stopped = mill.stop().await;
    let worked = worked?;
    stopped?;
    Ok(worked)
}

async fn parts_in(settings: &Settings, database: &str) -> anyhow::Result<Parts> {
    let mut config = settings.storage();
    config.database = Some(database.to_owned());
    let store = storage::Store::open(&config).await?;
    store.init().await?;
    Ok(Parts {
        zookeeper: settings.coordination(),
        store,
    })
}

fn work_dir(wanted: Option<PathBuf>) -> anyhow::Result<TempDir> {
    let within = wanted.unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new()
        .prefix("sawmill-bench-")
        .tempdir_in(&within);
    dir.with_context(|| format!("cannot make a directory in {}", within.display()))
}
