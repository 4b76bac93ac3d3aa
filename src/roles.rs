//! Roles of one process: any number of dispatchers, compute nodes and watchers, started together and stopped in order.
//!
//! Promise: a role that ends by itself, with an error or a panic, is named, and the others are stopped in order before
//! the error is told. Gateways stop first (nothing more is asked), then dispatchers (nothing more is fed), then compute
//! nodes (which hand back what they have not finished), watchers last (so that the ends of both are recorded). No promise
//! that a role that ignores its cancellation gets to finish: after [`STAGE_DEADLINE`] it is aborted.
//! Called by the commands that run roles, by `sawmill dev`, the bench and the harness.

use std::{collections::HashMap, time::Duration};

use anyhow::{anyhow, bail};
use control::Control;
use coordination::{Term, Waiting};
use tokio::{
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{config::Settings, listening, machine, signals::Signals};

/// How long the roles of one kind may take to stop: a compute node may give its commands time to finish.
pub const STAGE_DEADLINE: Duration = Duration::from_secs(20);

/// Fail point for tests: a watcher aborts after this many transactions, before it clears `/done`.
pub const ABORT_AFTER: &str = "SAWMILL_FAILPOINT_WATCHER_ABORT_AFTER";

/// One role with its configuration.
#[derive(Debug)]
pub enum Role {
    /// Serves what users and agents ask, on a port that is bound. Results are kept for so long.
    Gateway(Box<gateway::Gateway>, Duration),
    /// Admits, feeds, recovers, retries.
    Dispatcher(dispatcher::Config),
    /// Claims and runs; takes what agents ship on a port that is bound.
    Compute(Box<compute::Config>, Option<Box<ingest::Receiver>>),
    /// Records.
    Watcher(watcher::Config),
}

/// What every role works with.
#[derive(Clone)]
pub struct Parts {
    /// How to reach ZooKeeper.
    pub zookeeper: coordination::Config,
    /// MongoDB and the block store.
    pub store: storage::Store,
}

impl Parts {
    /// Opens MongoDB and the block store of the settings and makes their indexes, and reaches ZooKeeper.
    ///
    /// # Errors
    /// What can't be reached or used, with its address.
    pub async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let zookeeper = settings.coordination();
        let store = open_store(settings).await?;
        reach(&zookeeper).await?;
        Self::of(zookeeper, store, settings)
    }

    /// As [`Parts::open`], but waits for MongoDB and for ZooKeeper while they are away, and says so in the log.
    ///
    /// # Errors
    /// What no waiting mends: a wrong address, refused credentials, a MongoDB that is no replica set.
    pub async fn wait(settings: &Settings) -> anyhow::Result<Self> {
        let zookeeper = settings.coordination();
        let store = async {
            let opened = Waiting::until("MongoDB", storage::Error::is_retryable, || open_store(settings));
            anyhow::Ok(opened.await?)
        };
        let session = async {
            let is_away = |error: &coordination::Error| !error.is_fatal();
            let reached = Waiting::until("ZooKeeper", is_away, || reach(&zookeeper));
            anyhow::Ok(reached.await?)
        };
        // Side by side: what is wrong with one is told while the other is waited for.
        let (store, ()) = tokio::try_join!(store, session)?;
        Self::of(zookeeper, store, settings)
    }

    fn of(
        zookeeper: coordination::Config,
        store: storage::Store,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let store = listening::with_neighbours(store, settings)?;
        Ok(Self { zookeeper, store })
    }
}

async fn open_store(settings: &Settings) -> Result<storage::Store, storage::Error> {
    let store = storage::Store::open(&settings.storage()).await?;
    store.init().await?;
    Ok(store)
}

async fn reach(zookeeper: &coordination::Config) -> Result<(), coordination::Error> {
    Term::begin(zookeeper).await?.close().await;
    Ok(())
}

/// When a role stops; in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Gateways,
    Dispatchers,
    Computes,
    Watchers,
}

impl Stage {
    const IN_ORDER: [Self; 4] = [Self::Gateways, Self::Dispatchers, Self::Computes, Self::Watchers];
}

/// The version of the queries that nodes of this build answer.
fn query_version() -> Option<String> {
    #[cfg(feature = "sql")]
    return Some(sql::VERSION.to_string());
    #[cfg(not(feature = "sql"))]
    None
}

impl Role {
    /// A dispatcher as the settings say, and its gateway with the port that is bound; it may be another than `listen` says
    /// where `or_free` allows a free one.
    ///
    /// # Errors
    /// An address that can't be listened on, or may not without TLS; an identity that can't be used.
    pub async fn serving_dispatcher(
        settings: &Settings,
        or_free: bool,
    ) -> anyhow::Result<(Vec<Self>, String)> {
        let gateway = listening::gateway(settings, or_free).await?;
        let address = gateway.address();
        let mut dispatcher = Self::dispatcher(settings);
        if let Self::Dispatcher(config) = &mut dispatcher {
            config.gateway = Some(address.clone());
        }
        let gateway = Self::Gateway(Box::new(gateway), settings.retention_results);
        Ok((vec![dispatcher, gateway], address))
    }

    /// A dispatcher as the settings say, without a gateway.
    pub fn dispatcher(settings: &Settings) -> Self {
        Self::Dispatcher(dispatcher::Config {
            window_factor: settings.window_factor,
            heal_after: settings.heal_after,
            protocol: api::PROTOCOL,
            patience: settings.agent_patience,
            active_jobs: settings.active_jobs as usize,
            retention: storage::Retention {
                results: settings.retention_results,
                jobs: settings.retention_jobs,
            },
            query_version: query_version(),
            host: machine::host(),
            ..dispatcher::Config::default()
        })
    }

    /// A compute node as the settings say, which takes what agents ship on its port.
    ///
    /// # Errors
    /// An address that can't be listened on, or may not without TLS; an identity that can't be used.
    pub async fn receiving_compute(settings: &Settings) -> anyhow::Result<Self> {
        let ingest = listening::ingest(settings)?;
        let node = ingest.node.clone();
        let bound = ingest::Receiver::bind(ingest).await?;
        let mut compute = Self::compute(settings);
        if let Self::Compute(config, receiver) = &mut compute {
            config.node = node;
            *receiver = Some(Box::new(bound));
        }
        Ok(compute)
    }

    /// A compute node as the settings say, without a port for agents; commands are guarded by this program.
    pub fn compute(settings: &Settings) -> Self {
        let config = compute::Config {
            node: settings.node.clone(),
            slots: settings.slots,
            allow_exec: settings.allow_exec,
            guard: engine::Guard::default().passing(settings.pass_env.clone()),
            scratch: settings.scratch.clone(),
            locality_wait: settings.locality_wait,
            local_store: settings.local_store.clone(),
            copies_bytes: settings.block_copies,
            memory: engine::Memory {
                cache_bytes: settings.cache.of(machine::memory()),
                query_bytes: settings.query_memory.of(machine::memory()),
            },
            stop_grace: settings.stop_grace,
            host: machine::host(),
            zone: settings.zone.clone(),
        };
        Self::Compute(Box::new(config), None)
    }

    /// A watcher. Nothing of it is a setting; [`ABORT_AFTER`] is for fault tests.
    pub fn watcher(_settings: &Settings) -> Self {
        let abort_after = std::env::var(ABORT_AFTER).ok();
        Self::Watcher(watcher::Config {
            abort_after_transactions: abort_after.and_then(|transactions| transactions.parse().ok()),
            host: machine::host(),
            ..watcher::Config::default()
        })
    }

    fn stage(&self) -> Stage {
        match self {
            Self::Gateway(..) => Stage::Gateways,
            Self::Dispatcher(_) => Stage::Dispatchers,
            Self::Compute(..) => Stage::Computes,
            Self::Watcher(_) => Stage::Watchers,
        }
    }

    /// The word for it in logs and errors: `gateway`, `dispatcher`, `compute NODE`, `watcher`.
    pub fn title(&self) -> String {
        match self {
            Self::Gateway(..) => "gateway".to_owned(),
            Self::Dispatcher(_) => "dispatcher".to_owned(),
            Self::Compute(config, _) => format!("compute {}", config.node),
            Self::Watcher(_) => "watcher".to_owned(),
        }
    }

    async fn run(self, parts: Parts, cancel: CancellationToken) -> anyhow::Result<()> {
        let Parts { zookeeper, store } = parts;
        match self {
            Self::Gateway(gateway, retention) => {
                let control = Control::open(zookeeper, store).with_retention(retention);
                gateway.run(gateway::Parts { control }, cancel).await?;
            }
            Self::Dispatcher(config) => {
                dispatcher::run(config, dispatcher::Parts { zookeeper, store }, cancel).await?;
            }
            Self::Compute(config, receiver) => {
                let parts = compute::Parts {
                    zookeeper,
                    store,
                    receiver: receiver.map(|receiver| *receiver),
                };
                compute::run(*config, parts, cancel).await?
            }
            Self::Watcher(config) => {
                watcher::run(config, watcher::Parts { zookeeper, store }, cancel).await?
            }
        }
        Ok(())
    }
}

/// A role that has been started.
struct Started {
    title: String,
    stage: Stage,
    abort: AbortHandle,
}

/// Running roles. Dropping it aborts them, as a crash would; [`Mill::stop`] ends them in order.
pub struct Mill {
    tasks: JoinSet<anyhow::Result<()>>,
    started: HashMap<Id, Started>,
    stops: HashMap<Stage, CancellationToken>,
}

impl Mill {
    /// Starts the roles; returns at once. Must be called inside a runtime.
    pub fn start(roles: impl IntoIterator<Item = Role>, parts: &Parts) -> Self {
        let stops = Stage::IN_ORDER
            .map(|stage| (stage, CancellationToken::new()))
            .into();
        let mut mill = Self {
            tasks: JoinSet::new(),
            started: HashMap::new(),
            stops,
        };
        for role in roles {
            let (title, stage) = (role.title(), role.stage());
            info!(role = title, "starting");
            let cancel = mill.stops[&stage].child_token();
            let abort = mill.tasks.spawn(role.run(parts.clone(), cancel));
            mill.started.insert(abort.id(), Started { title, stage, abort });
        }
        mill
    }

    /// Waits until a role ends by itself and says which and why; never resolves while all run. Dropping the future
    /// loses nothing.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next_with_id().await {
            Some(end) => match self.ended(end) {
                Err(failure) => failure,
                Ok(title) => anyhow!("{title} ended although nobody asked it to"),
            },
            None => std::future::pending().await,
        }
    }

    /// Stops all roles in order and returns when they have ended. May be called again.
    ///
    /// # Errors
    /// The first role that ended with an error, panicked, or had to be aborted; the others are stopped nevertheless.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for stage in Stage::IN_ORDER {
            self.stops[&stage].cancel();
            let deadline = Instant::now() + STAGE_DEADLINE;
            while self.started.values().any(|role| role.stage == stage) {
                let outcome = match tokio::time::timeout_at(deadline, self.tasks.join_next_with_id()).await {
                    Ok(Some(end)) => self.ended(end).map(drop),
                    Ok(None) => break,
                    Err(_) => Err(self.abort(stage)),
                };
                if let Err(failure) = outcome {
                    error!("{failure:#}");
                    result = result.and(Err(failure));
                }
            }
        }
        result
    }

    /// Takes note of an end; the title of the role when it was an orderly one.
    fn ended(&mut self, end: Result<(Id, anyhow::Result<()>), JoinError>) -> anyhow::Result<String> {
        let id = end.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let title = self
            .started
            .remove(&id)
            .map_or_else(|| "a role".to_owned(), |role| role.title);
        match end {
            Ok((_, Ok(()))) => {
                info!(role = title, "stopped");
                Ok(title)
            }
            Ok((_, Err(failure))) => Err(failure.context(format!("{title} failed"))),
            Err(failure) if failure.is_panic() => bail!("{title} panicked: {}", panic_text(failure)),
            Err(_) => bail!("{title} was aborted"),
        }
    }

    fn abort(&mut self, stage: Stage) -> anyhow::Error {
        let late: Vec<Id> = self
            .started
            .iter()
            .filter(|(_, role)| role.stage == stage)
            .map(|(id, _)| *id)
            .collect();
        let mut titles = Vec::new();
        for id in late {
            if let Some(role) = self.started.remove(&id) {
                role.abort.abort();
                titles.push(role.title);
            }
        }
        anyhow!(
            "{} did not stop within {} s and was aborted",
            titles.join(", "),
            STAGE_DEADLINE.as_secs()
        )
    }
}

fn panic_text(failure: JoinError) -> String {
    match failure.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "without a text".to_owned()),
        Err(failure) => failure.to_string(),
    }
}

/// Waits until a signal asks to stop or a role fails, then stops all in order. A second signal while they stop ends
/// them at once.
///
/// # Errors
/// The role that failed, and why; a second signal.
pub async fn until_stopped(mill: &mut Mill, signals: &mut Signals) -> anyhow::Result<()> {
    let failure = tokio::select! {
        failure = mill.failed() => {
            error!("{failure:#}; stopping the other roles");
            Some(failure)
        }
        signal = signals.stop_asked() => {
            info!(signal, "stopping");
            None
        }
    };
    let stopped = tokio::select! {
        stopped = mill.stop() => stopped,
        signal = signals.stop_asked() => {
            warn!(signal, "asked to stop again: leaving without handing back");
            bail!("stopped by a second {signal} before everything was handed back")
        }
    };
    failure.map_or(stopped, Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mill of made-up roles.
    fn mill_of(roles: Vec<(&str, Stage, JoinedFuture)>, stops: HashMap<Stage, CancellationToken>) -> Mill {
        let mut mill = Mill {
            tasks: JoinSet::new(),
            started: HashMap::new(),
            stops,
        };
        for (title, stage, future) in roles {
            let abort = mill.tasks.spawn(future);
            mill.started.insert(
                abort.id(),
                Started {
                    title: title.to_owned(),
                    stage,
                    abort,
                },
            );
        }
        mill
    }

    type JoinedFuture = std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

    fn stops() -> HashMap<Stage, CancellationToken> {
        Stage::IN_ORDER
            .map(|stage| (stage, CancellationToken::new()))
            .into()
    }

    #[tokio::test]
    async fn watchers_outlive_compute_nodes_and_these_dispatchers() {
        let stops = stops();
        let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let roles = Stage::IN_ORDER
            .iter()
            .rev()
            .map(|stage| {
                let (cancel, order, stage) = (stops[stage].clone(), order.clone(), *stage);
                let role: JoinedFuture = Box::pin(async move {
                    cancel.cancelled().await;
                    order.lock().unwrap().push(stage);
                    Ok(())
                });
                ("role", stage, role)
            })
            .collect();
        mill_of(roles, stops.clone()).stop().await.unwrap();
        assert_eq!(*order.lock().unwrap(), Stage::IN_ORDER);
    }

    #[tokio::test]
    async fn errors_panics_and_silent_ends_are_named() {
        for (future, expected) in [
            (
                Box::pin(async { bail!("no rights") }) as JoinedFuture,
                "watcher failed: no rights",
            ),
            (
                Box::pin(async { panic!("broken {}", 7) }),
                "watcher panicked: broken 7",
            ),
            (
                Box::pin(async { Ok(()) }),
                "watcher ended although nobody asked it to",
            ),
        ] {
            let mut mill = mill_of(vec![("watcher", Stage::Watchers, future)], stops());
            assert_eq!(format!("{:#}", mill.failed().await), expected);
            mill.stop().await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_does_not_stop_is_aborted_and_the_rest_still_stops() {
        let stops = stops();
        let watch = stops[&Stage::Watchers].clone();
        let stuck: JoinedFuture = Box::pin(std::future::pending());
        let watcher: JoinedFuture = Box::pin(async move {
            watch.cancelled().await;
            Ok(())
        });
        let mut mill = mill_of(
            vec![
                ("compute a", Stage::Computes, stuck),
                ("watcher", Stage::Watchers, watcher),
            ],
            stops.clone(),
        );
        let failure = mill.stop().await.unwrap_err().to_string();
        assert!(failure.starts_with("compute a did not stop within"), "{failure}");
        assert!(stops[&Stage::Watchers].is_cancelled());
    }
}
