//! Who leads, who works, what waits.

use coordination::{CandidateView, ClientView, Place, Snapshot, WorkerView};
use model::{Job, JobState, Requirement};
use serde::{Deserialize, Serialize};
use storage::{AgentRecord, JobFilter, NodeReport};

use crate::{Control, Error, submit::now_ms};

/// A mill at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The dispatcher that leads.
    pub leader: Option<Candidate>,
    /// Dispatchers that stand by, the next leader first.
    pub standby: Vec<Candidate>,
    /// Those that record.
    pub watchers: Vec<Candidate>,
    /// Compute nodes; dead ones whose entries have not been recovered yet too.
    pub workers: Vec<Worker>,
    /// How many agents there are.
    #[serde(default)]
    pub agents: AgentCounts,
    /// Entries in the three places.
    pub entries: Places,
    /// Who runs another version than the leader.
    pub out_of_step: Vec<OutOfStep>,
    /// What does not belong under the three roots: path and why it was skipped.
    pub strange: Vec<String>,
    /// Unfinished jobs: active ones, then pending ones in the order of admission; at most a thousand.
    pub jobs: Vec<UnfinishedJob>,
    /// What the mill takes in MongoDB; none where MongoDB does not tell.
    pub storage: Option<StorageUse>,
    /// Blocks of all datasets.
    #[serde(default)]
    pub blocks: BlockCounts,
    /// How far the leader's clock is ahead of MongoDB's, in milliseconds, where that keeps it from removing anything for its
    /// age.
    #[serde(default)]
    pub leader_clock_ahead_ms: Option<i64>,
    /// How long the look took, in milliseconds.
    pub took_ms: u64,
}

/// Somebody who stands for an office.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Name of its znode.
    pub name: String,
    /// Host name of its machine; empty when its data can't be read.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// Version of Sawmill.
    pub version: String,
}

/// Somebody who runs another version than the leader. Queries are answered by compute nodes of one version alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfStep {
    /// `dispatcher`, `compute`, `watcher` or `agent`.
    pub role: String,
    /// Name of the node of a compute node, of others that of their znode.
    pub name: String,
    /// Host name of its machine.
    pub host: String,
    /// Process id; 0 of an agent.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// A worker: one incarnation of a compute node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// Name of its folder.
    pub name: String,
    /// Name of its node.
    pub node: String,
    /// Host name of its machine.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// Version of Sawmill.
    pub version: String,
    /// The version of the halves of queries that it runs; none: it answers no queries.
    pub sql: Option<String>,
    /// `HOST:PORT` where it takes blocks of agents and runs tasks; none: it does neither.
    pub endpoint: Option<String>,
    /// Where it stands.
    pub zone: String,
    /// Whether it lives.
    pub alive: bool,
    /// Entries that it runs at once.
    pub slots: u32,
    /// Whether it runs commands.
    pub allow_exec: bool,
    /// Entries that it holds.
    pub entries: usize,
    /// Part of the machine's processors in use, 0.0 to 1.0; none without a fresh report.
    pub cpu: Option<f64>,
    /// Memory of its process, in bytes; none without a fresh report.
    pub memory_bytes: Option<u64>,
    /// Bytes of columns that it keeps for queries; none without a fresh report.
    pub cache_bytes: Option<u64>,
    /// Part of the columns that queries found there, 0.0 to 1.0, since it started; none when nothing was looked for.
    pub cache_hit_rate: Option<f64>,
}

/// Blocks of all datasets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCounts {
    /// Those that are read.
    pub blocks: u64,
    /// Small ones that have become part of these.
    pub compacted: u64,
}

/// Agents by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCounts {
    /// Ship to a worker.
    pub shipping: usize,
    /// Wait for one.
    pub waiting: usize,
    /// Are not there.
    pub away: usize,
}

/// Entries by place.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Places {
    /// In `/unowned`.
    pub unowned: usize,
    /// In the folders of workers.
    pub owned: usize,
    /// In `/done`.
    pub done: usize,
}

/// What the mill takes in MongoDB.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct StorageUse {
    /// Documents in all collections.
    pub documents: u64,
    /// Bytes on disk of collections and indexes.
    pub disk_bytes: u64,
}

/// A job that has not ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnfinishedJob {
    /// Its id.
    pub id: String,
    /// `PENDING`, `STAGING` or `RUNNING`.
    pub state: JobState,
    /// Over which dataset.
    pub dataset: String,
    /// 0 to 999.
    pub priority: u16,
    /// Subtasks that have ended.
    pub ended: u64,
    /// Of these, failed for good.
    pub failed: u64,
    /// All its subtasks.
    pub subtasks: u64,
    /// Whether somebody asked to cancel it.
    pub cancel_requested: bool,
    /// Milliseconds since 1970 UTC.
    pub submitted_ms: i64,
}

/// Most unfinished jobs that are looked at.
const MOST_JOBS: usize = 1000;
/// A report older than this says nothing of now, in milliseconds.
const FRESH_MS: i64 = 60_000;

impl Control {
    /// Who leads, who works, what waits.
    ///
    /// # Errors
    /// [`Error::Coordination`], [`Error::Storage`].
    pub async fn status(&self) -> Result<Status, Error> {
        if let Some(remote) = self.remote() {
            return remote.status().await;
        }
        let begin = std::time::Instant::now();
        let term = self.term().await?;
        let snapshot = Snapshot::take(&term).await;
        term.close().await;
        let snapshot = snapshot?;
        let reports = self.store()?.list_nodes().await?;
        let mut jobs = self.store()?.active().await?;
        let room = MOST_JOBS.saturating_sub(jobs.len());
        jobs.extend(self.pending(room).await?);
        jobs.truncate(MOST_JOBS);
        let usage = self.store()?.usage().await.ok();
        let mut status = of_snapshot(&snapshot, &reports, now_ms());
        let agents = self.store()?.agents().await?;
        status.agents = AgentCounts::of(&snapshot.clients, &agents);
        status.out_of_step.extend(agents_out_of_step(&agents, now_ms()));
        status.jobs = jobs.iter().map(UnfinishedJob::from).collect();
        status.storage = usage.map(|usage| StorageUse {
            documents: usage.documents,
            disk_bytes: usage.disk_bytes,
        });
        for dataset in self.store()?.list_datasets().await? {
            status.blocks.blocks += u64::from(dataset.count());
            status.blocks.compacted += u64::from(dataset.void);
        }
        status.leader_clock_ahead_ms = self.store()?.leader_clock().await?;
        status.took_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(status)
    }

    /// Pending jobs in the order of admission, then those that somebody asked to cancel before.
    async fn pending(&self, limit: usize) -> Result<Vec<Job>, Error> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let filter = JobFilter {
            states: vec![JobState::Pending],
            limit: Some(limit),
            ..JobFilter::default()
        };
        let mut pending = self.store()?.list(&filter).await?;
        pending.sort_by_key(|job| (job.cancel_requested, std::cmp::Reverse(job.spec.priority), job.id));
        Ok(pending)
    }
}

fn of_snapshot(snapshot: &Snapshot, reports: &[NodeReport], now_ms: i64) -> Status {
    let census = &snapshot.census;
    let mut dispatchers = snapshot.dispatchers.iter().map(Candidate::from);
    let leader = dispatchers.next();
    let standby: Vec<Candidate> = dispatchers.collect();
    let watchers: Vec<Candidate> = snapshot.watchers.iter().map(Candidate::from).collect();
    let workers = census.workers.iter().map(|view| worker(view, reports, now_ms));
    let workers: Vec<Worker> = workers.collect();
    Status {
        out_of_step: out_of_step(leader.as_ref(), &standby, &watchers, &workers),
        leader,
        standby,
        watchers,
        workers,
        agents: AgentCounts::default(),
        entries: Places {
            unowned: census.unowned.len(),
            owned: census.workers.iter().map(|worker| worker.entries.len()).sum(),
            done: census.done.len(),
        },
        strange: census
            .strange
            .iter()
            .map(|strange| format!("{}: {}", strange.path, strange.why))
            .collect(),
        jobs: Vec::new(),
        storage: None,
        blocks: BlockCounts::default(),
        leader_clock_ahead_ms: None,
        took_ms: 0,
    }
}

/// Who lives and runs another version than the leader; nobody where that is not known.
fn out_of_step(
    leader: Option<&Candidate>,
    standby: &[Candidate],
    watchers: &[Candidate],
    workers: &[Worker],
) -> Vec<OutOfStep> {
    let Some(leader) = leader.filter(|leader| !leader.version.is_empty()) else {
        return Vec::new();
    };
    let candidate = |role: &'static str| {
        move |candidate: &Candidate| OutOfStep {
            role: role.to_string(),
            name: candidate.name.clone(),
            host: candidate.host.clone(),
            pid: candidate.pid,
            version: candidate.version.clone(),
        }
    };
    let compute = workers
        .iter()
        .filter(|worker| worker.alive)
        .map(|worker| OutOfStep {
            role: "compute".to_string(),
            name: worker.node.clone(),
            host: worker.host.clone(),
            pid: worker.pid,
            version: worker.version.clone(),
        });
    let all = standby
        .iter()
        .map(candidate("dispatcher"))
        .chain(compute)
        .chain(watchers.iter().map(candidate("watcher")));
    all.filter(|one| !one.version.is_empty() && one.version != leader.version)
        .collect()
}

impl AgentCounts {
    fn of(held: &[ClientView], known: &[AgentRecord]) -> Self {
        let waiting = held
            .iter()
            .filter(|client| client.place == Place::Unowned)
            .count();
        let is_held = |record: &&AgentRecord| held.iter().any(|client| client.name == record.seen.agent);
        // What was shipped once is missed by nobody.
        let is_away = |record: &&AgentRecord| !is_held(record) && !record.seen.once;
        Self {
            shipping: held.len() - waiting,
            waiting,
            away: known.iter().filter(is_away).count(),
        }
    }
}

/// Agents that speak another protocol and still try: they are told so and get no worker.
fn agents_out_of_step(agents: &[AgentRecord], now_ms: i64) -> impl Iterator<Item = OutOfStep> {
    let lately = move |agent: &&AgentRecord| now_ms - agent.seen_ms < FRESH_MS;
    let others = agents
        .iter()
        .filter(lately)
        .filter(|agent| agent.seen.protocol != api::PROTOCOL);
    others.map(|agent| OutOfStep {
        role: "agent".to_string(),
        name: agent.seen.agent.to_string(),
        host: agent.seen.host.clone(),
        pid: 0,
        version: format!("{} (protocol {})", agent.seen.version, agent.seen.protocol),
    })
}

impl From<&CandidateView> for Candidate {
    fn from(view: &CandidateView) -> Self {
        let data = view.data.as_ref().ok();
        Self {
            name: view.name.clone(),
            host: data.map(|data| data.host.clone()).unwrap_or_default(),
            pid: data.map_or(0, |data| data.pid),
            version: data.map(|data| data.version.clone()).unwrap_or_default(),
        }
    }
}

pub(crate) fn worker(view: &WorkerView, reports: &[NodeReport], now_ms: i64) -> Worker {
    let data = view.data.as_ref().ok();
    let report = reports
        .iter()
        .find(|report| report.worker == view.number.0 && now_ms - report.at_ms < FRESH_MS);
    Worker {
        name: view.number.to_string(),
        node: data.map(|data| data.node.to_string()).unwrap_or_default(),
        host: data.map(|data| data.host.clone()).unwrap_or_default(),
        pid: data.map_or(0, |data| data.pid),
        version: data.map(|data| data.version.clone()).unwrap_or_default(),
        sql: data.and_then(|data| data.sql.clone()),
        endpoint: data.and_then(|data| data.endpoint.clone()),
        zone: data.map(|data| data.zone.clone()).unwrap_or_default(),
        alive: view.alive,
        slots: data.map_or(0, |data| data.slots),
        allow_exec: data.is_some_and(|data| data.capabilities.contains(&Requirement::Exec)),
        entries: view.entries.len(),
        cpu: report.map(|report| report.cpu),
        memory_bytes: report.map(|report| report.memory_bytes),
        cache_bytes: report.map(|report| report.cache.bytes),
        cache_hit_rate: report.and_then(|report| report.cache.hit_rate()),
    }
}

impl From<&Job> for UnfinishedJob {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id.to_string(),
            state: job.state,
            dataset: job.spec.dataset.to_string(),
            priority: job.spec.priority.get(),
            ended: job.counts.ended(),
            failed: job.counts.failed,
            subtasks: job.subtasks(),
            cancel_requested: job.cancel_requested,
            submitted_ms: job.submitted_ms,
        }
    }
}
