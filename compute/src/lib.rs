//! A compute node: claims entries by priority, locality and fit, runs the processor, finishes.
//!
//! Promise: what it runs it owns in ZooKeeper; when an entry leaves its folder without its doing, or its session is
//! lost, the work stops at once. Non-promise: that a subtask runs only once.

#![warn(missing_docs)]

mod execute;
mod learned;
mod report;
mod said;
mod shelf;
mod shift;
mod sweep;

use std::{path::PathBuf, time::Duration};

use api::v1::worker_server::WorkerServer;
use coordination::{Term, Worker, terms};
use model::{FORMAT, Name, Requirement, znode::WorkerData};
use storage::LocalStore;
use tasks::Tasks;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use uuid::Uuid;

/// How a compute node works.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the node: it survives restarts, and locality goes by it.
    pub node: Name,
    /// Entries run at once.
    pub slots: u32,
    /// Whether it runs commands.
    pub allow_exec: bool,
    /// The program that guards commands.
    pub guard: engine::Guard,
    /// Directory for temporary files.
    pub scratch: PathBuf,
    /// How long an entry is left to the worker nearest to its data.
    pub locality_wait: Duration,
    /// Directory in which it keeps blocks itself; none: it keeps none.
    pub local_store: Option<PathBuf>,
    /// Most bytes that copies of remote blocks may take on the disk.
    pub copies_bytes: u64,
    /// What queries may take; what does not fit spills into `scratch`, or fails.
    pub memory: engine::Memory,
    /// How long running work may still finish after a stop was asked; what is not done by then is handed back.
    pub stop_grace: Duration,
    /// Host name told to others.
    pub host: String,
    /// Where it stands: agents with the same label are preferred.
    pub zone: String,
}

impl Config {
    /// What it offers to processors.
    fn capabilities(&self) -> Vec<Requirement> {
        let exec = self.allow_exec.then_some(Requirement::Exec);
        let sql = engine::SQL_VERSION.map(|_| Requirement::Sql);
        exec.into_iter().chain(sql).collect()
    }

    /// The tasks that it runs beside the queue.
    fn tasks(&self) -> Result<Tasks, tasks::Error> {
        Tasks::new(tasks::Config {
            node: self.node.clone(),
            allow_exec: self.allow_exec,
            guard: self.guard.clone(),
            // Nodes of one machine may share their directory for temporary files.
            folder: self.scratch.join(format!("sawmill-tasks-{}", self.node)),
            limits: tasks::Limits::default(),
        })
    }
}

/// What the role works with.
pub struct Parts {
    /// Where ZooKeeper is.
    pub zookeeper: coordination::Config,
    /// MongoDB and the block store.
    pub store: storage::Store,
    /// Where it takes what agents ship; none: it takes nothing.
    pub receiver: Option<ingest::Receiver>,
}

/// Why a compute node ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ZooKeeper.
    #[error(transparent)]
    Coordination(#[from] coordination::Error),
    /// The directory for temporary files.
    #[error("can't use {path} for temporary files: {source}")]
    Scratch {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The port for agents.
    #[error(transparent)]
    Ingest(#[from] ingest::Error),
    /// The folder of its tasks.
    #[error(transparent)]
    Tasks(#[from] tasks::Error),
    /// The directory in which it keeps blocks.
    #[error(transparent)]
    LocalStore(storage::Error),
    /// No slots.
    #[error("a compute node needs at least one slot")]
    NoSlots,
}

impl terms::TermError for Error {
    fn is_fatal(&self) -> bool {
        match self {
            Self::Coordination(failure) => failure.is_fatal(),
            Self::Scratch { .. } | Self::NoSlots | Self::LocalStore(_) | Self::Ingest(_) | Self::Tasks(_) => {
                true
            }
        }
    }
}

/// Works until `stop` is cancelled; then hands back what it holds and leaves. Without a port it runs no tasks.
///
/// # Errors
/// Only what no waiting mends. Dropping the future kills what runs; others recover it after the session timeout.
pub async fn run(config: Config, parts: Parts, stop: CancellationToken) -> Result<(), Error> {
    let Parts {
        zookeeper,
        store,
        receiver,
    } = parts;
    if config.slots == 0 {
        return Err(Error::NoSlots);
    }
    folders::own(&config.scratch).map_err(|source| Error::Scratch {
        path: config.scratch.clone(),
        source,
    })?;
    let copies = config.scratch.join("sawmill-blocks");
    let mut store = store.with_copies(copies, config.copies_bytes);
    // Without a port nobody else would reach what it keeps.
    if let (Some(folder), Some(_)) = (&config.local_store, &receiver) {
        let local = LocalStore::open(folder, &config.node).map_err(Error::LocalStore)?;
        store = store.with_local(local);
    }
    // What it keeps in memory outlives its sessions.
    let engine = engine::Engine::new(config.guard.clone(), &config.scratch, config.memory);
    // The port outlives the sessions too.
    let agents = Agents {
        endpoint: receiver.as_ref().map(ingest::Receiver::address),
        post: ingest::Post::default(),
    };
    let process = Uuid::new_v4();
    let terms = terms::serve(&zookeeper, &stop, "compute", |term| {
        let (config, engine, agents) = (config.clone(), engine.clone(), agents.clone());
        let (store, stop) = (store.clone(), stop.clone());
        async move { serve_term(config, process, engine, store, agents, term, stop).await }
    });
    let Some(receiver) = receiver else {
        return terms.await;
    };
    let tasks = config.tasks()?;
    let beside = Routes::new(WorkerServer::new(tasks.clone()));
    // Ended only after the terms, in which agents are let go of.
    let served = CancellationToken::new();
    let _ended = served.clone().drop_guard();
    let ended = tokio::select! {
        ended = terms => ended,
        never = sweep::now_and_then(&store) => match never {},
        received = receiver.run(store.clone(), agents.post.clone(), beside, served) => received.map_err(Error::from),
    };
    tasks.stop().await;
    ended
}

/// Where agents reach this node, and how they find its worker.
#[derive(Clone)]
struct Agents {
    endpoint: Option<String>,
    post: ingest::Post,
}

async fn serve_term(
    config: Config,
    process: Uuid,
    engine: engine::Engine,
    store: storage::Store,
    agents: Agents,
    term: Term,
    stop: CancellationToken,
) -> Result<(), Error> {
    let data = WorkerData {
        v: FORMAT,
        node: config.node.clone(),
        host: config.host.clone(),
        pid: std::process::id(),
        process,
        version: env!("CARGO_PKG_VERSION").to_string(),
        slots: config.slots,
        capabilities: config.capabilities(),
        sql: engine::SQL_VERSION.map(str::to_owned),
        endpoint: agents.endpoint,
        zone: config.zone.clone(),
        protocol: api::PROTOCOL,
        local_store: store.local().is_some(),
        wake: 0,
        stop: Vec::new(),
    };
    let worker = Worker::register(&term, data).await?;
    tracing::info!(node = %config.node, worker = worker.number().0, slots = config.slots, "compute started");
    let open = agents.post.open(worker.clone());
    let mut shift = shift::Shift::new(config, engine, store, worker);
    shift.work(&stop).await?;
    open.close().await;
    shift.leave().await
}
