//! Tells MongoDB, not ZooKeeper, how the node is doing: every write to ZooKeeper is a quorum write.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use coordination::WorkerNumber;
use engine::Engine;
use model::cache::CacheUse;
use storage::{NodeReport, Store};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::task::JoinSet;

use crate::Config;

/// How often a node reports.
const INTERVAL: Duration = Duration::from_secs(5);

/// Sends reports in the background, one at a time; a report that fails is followed by the next.
pub(crate) struct Reporter {
    store: Store,
    report: NodeReport,
    engine: Engine,
    at: Option<Instant>,
    under_way: JoinSet<()>,
}

impl Reporter {
    pub(crate) fn new(config: &Config, worker: WorkerNumber, store: Store, engine: Engine) -> Self {
        let report = NodeReport {
            node: config.node.clone(),
            worker: worker.0,
            host: config.host.clone(),
            running: 0,
            cpu: 0.0,
            memory_bytes: 0,
            cache: CacheUse::default(),
            out: false,
            at_ms: 0,
        };
        Self {
            store,
            report,
            engine,
            at: None,
            under_way: JoinSet::new(),
        }
    }

    /// Reports when it is time to.
    pub(crate) fn tick(&mut self, running: usize, out: bool) {
        let due = self.at.is_none_or(|at| at.elapsed() >= INTERVAL) || out != self.report.out;
        while self.under_way.try_join_next().is_some() {}
        if !due || !self.under_way.is_empty() {
            return;
        }
        self.at = Some(Instant::now());
        self.report.running = u32::try_from(running).unwrap_or(u32::MAX);
        self.report.out = out;
        self.report.cache = self.engine.cache_use();
        let (store, mut report) = (self.store.clone(), self.report.clone());
        self.under_way.spawn(async move {
            if let Ok((cpu, memory_bytes)) = tokio::task::spawn_blocking(load).await {
                (report.cpu, report.memory_bytes) = (cpu, memory_bytes);
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            report.at_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
            if let Err(failure) = store.report(&report).await {
                tracing::debug!("the report of this node was not kept: {failure}");
            }
        });
    }
}

/// Part of the machine's processors in use, by the load of the last minute, and the memory of this process; 0 where the
/// system does not tell.
fn load() -> (f64, u64) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let cpu = System::load_average().map_or(0.0, |load| (load.one / cores).min(1.0));
    let pid = Pid::from_u32(std::process::id());
    let Ok(mut system) = System::new() else {
        return (cpu, 0);
    };
    let memory = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, memory);
    (cpu, system.process(pid).map_or(0, sysinfo::Process::memory))
}
