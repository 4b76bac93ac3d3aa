//! Agents: those that wait are offered a worker, those that a worker can't keep up with are moved.
//!
//! What decides is [`model::assignment`]; here is what it is told, and what becomes of it. Looked at more often than the
//! tree, since an agent without a worker only fills its spool.

mod unreached;

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use coordination::{WaitingClient, WorkerNumber};
use model::{
    Name,
    assignment::{self, Shipping, Trends, Waiting},
    znode::WorkerOffer,
};
use storage::{AgentRecord, NodeReport};

use self::unreached::Unreached;
use crate::{Error, leading::Leading, leading::now_ms};

/// How often it is looked for agents that wait.
const LOOK_INTERVAL: Duration = Duration::from_millis(150);
/// How often it is looked whether agents should move, and what users want of them.
const MOVE_INTERVAL: Duration = Duration::from_secs(2);
/// Reports that are older say nothing of now, in milliseconds.
const REPORT_MS: i64 = 30_000;

/// What the leader remembers of agents and their workers.
pub(crate) struct Assigning {
    begun: Instant,
    looked_at: Option<Instant>,
    moves_at: Option<Instant>,
    /// When each worker was first seen; those that were there when this leader began have been for long.
    first_seen: HashMap<WorkerNumber, Option<Instant>>,
    /// The number of the offer seen last, and since when, by agent.
    offers: HashMap<Name, (u32, Instant)>,
    /// The worker of each agent, and since when.
    stays: HashMap<Name, (WorkerNumber, Instant)>,
    trends: Trends,
    unreached: Unreached,
    agents: HashMap<Name, AgentRecord>,
    nodes: Vec<NodeReport>,
}

impl Default for Assigning {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            looked_at: None,
            moves_at: None,
            first_seen: HashMap::new(),
            offers: HashMap::new(),
            stays: HashMap::new(),
            trends: Trends::default(),
            unreached: Unreached::default(),
            agents: HashMap::new(),
            nodes: Vec::new(),
        }
    }
}

/// Workers that live for longer are treated alike.
const LONG: Duration = Duration::from_secs(24 * 3600);

impl Leading {
    /// Offers workers to agents that wait, and moves agents, when it is time to look.
    pub(crate) async fn assign(&mut self) -> Result<(), Error> {
        let due = |at: Option<Instant>, interval| at.is_none_or(|at| at.elapsed() >= interval);
        if due(self.assigning.moves_at, MOVE_INTERVAL) {
            self.assigning.moves_at = Some(Instant::now());
            self.assigning.note_workers(&self.census);
            if self.has_agents() {
                self.read_reports().await;
                self.move_agents().await?;
            }
        }
        if due(self.assigning.looked_at, LOOK_INTERVAL) {
            self.assigning.looked_at = Some(Instant::now());
            let waiting = self.leader.waiting().await?;
            if waiting.is_empty() {
                self.assigning.offers.clear();
            } else {
                self.offer_workers(waiting).await?;
            }
        }
        Ok(())
    }

    fn has_agents(&self) -> bool {
        !self.census.waiting.is_empty()
            || self
                .census
                .workers
                .iter()
                .any(|worker| !worker.clients.is_empty())
    }

    /// What is not to be had is left as it was: agents get workers without it.
    async fn read_reports(&mut self) {
        match self.store.agents().await {
            Ok(agents) => {
                let by_name = agents.into_iter().map(|agent| (agent.seen.agent.clone(), agent));
                self.assigning.agents = by_name.collect();
            }
            Err(failure) => tracing::debug!("how agents are doing is not to be had: {failure}"),
        }
        match self.store.list_nodes().await {
            Ok(nodes) => self.assigning.nodes = nodes,
            Err(failure) => tracing::debug!("how nodes are doing is not to be had: {failure}"),
        }
        self.assigning.note_lags();
    }

    async fn offer_workers(&mut self, waiting: Vec<WaitingClient>) -> Result<(), Error> {
        self.assigning.note_workers(&self.census);
        let workers = self.workers();
        let asked = self.assigning.asked(&waiting);
        for (agent, number) in assignment::offers(&workers, &asked) {
            let client = waiting.iter().find(|client| client.data.agent == agent);
            let (Some(client), Some(offer)) = (client, self.offer_of(WorkerNumber(number), client)) else {
                continue;
            };
            let offered = self.leader.offer(client, &offer).await?;
            tracing::debug!(%agent, worker = number, offered, "offered a worker");
        }
        Ok(())
    }

    fn offer_of(&self, worker: WorkerNumber, client: Option<&WaitingClient>) -> Option<WorkerOffer> {
        let view = self.census.workers.iter().find(|view| view.number == worker)?;
        let data = view.data.as_ref().ok()?;
        let before = client?.data.offer.as_ref().map_or(0, |offer| offer.number);
        Some(WorkerOffer {
            worker: worker.0,
            node: data.node.clone(),
            endpoint: data.endpoint.clone()?,
            number: before.saturating_add(1),
        })
    }

    async fn move_agents(&mut self) -> Result<(), Error> {
        let mut workers = self.workers();
        let now = self.assigning.begun.elapsed();
        let doubtful = self.assigning.unreached.doubtful(now);
        for worker in &mut workers {
            // Nobody makes room for a worker that is perhaps out of reach of all.
            worker.takes_agents &= worker.agents > 0 || !doubtful.contains(&worker.number);
        }
        let shipping: Vec<Shipping> = self
            .assigning
            .stays
            .iter()
            .filter_map(|(agent, (worker, since))| {
                let record = self.assigning.agents.get(agent);
                let wanted = record.and_then(|record| record.wanted.clone());
                // It would be sent where it could not go.
                let avoided = self.assigning.unreached.avoided(agent, now);
                let avoids_any = workers.iter().any(|worker| avoided.contains(&worker.number));
                if wanted.is_none() && avoids_any {
                    return None;
                }
                Some(Shipping {
                    agent: agent.clone(),
                    worker: worker.0,
                    zone: record.map(|record| record.seen.zone.clone()).unwrap_or_default(),
                    wanted,
                    lag_grows_for: self.assigning.trends.grows_for(agent, now),
                    stays_for: since.elapsed(),
                })
            })
            .collect();
        for (agent, worker) in assignment::moves(&workers, &shipping, self.config.patience) {
            let moved = self.leader.move_client(WorkerNumber(worker), &agent).await?;
            self.assigning.unreached.note_move(&agent, worker);
            tracing::info!(%agent, worker, moved, "moving an agent to another worker");
        }
        Ok(())
    }

    /// The live workers, as the policy looks at them.
    fn workers(&self) -> Vec<assignment::Worker> {
        let now = now_ms();
        let live = self.census.workers.iter().filter(|view| view.alive);
        live.filter_map(|view| {
            let data = view.data.as_ref().ok()?;
            let report = self
                .assigning
                .nodes
                .iter()
                .find(|report| report.worker == view.number.0 && now - report.at_ms < REPORT_MS);
            let loads = view
                .clients
                .iter()
                .filter_map(|agent| self.assigning.agents.get(agent)?.load)
                .filter(|(_, at)| now - at < REPORT_MS);
            let (rate, lag_bytes) = loads.fold((0_u64, 0_u64), |(rate, lag), (load, _)| {
                (rate.saturating_add(load.rate), lag.saturating_add(load.lag_bytes))
            });
            Some(assignment::Worker {
                number: view.number.0,
                node: data.node.clone(),
                zone: data.zone.clone(),
                takes_agents: data.endpoint.is_some() && data.protocol == self.config.protocol,
                agents: u32::try_from(view.clients.len()).unwrap_or(u32::MAX),
                rate,
                lag_bytes,
                cpu: report.map_or(0.0, |report| report.cpu),
                lives_for: self.assigning.lives_for(view.number),
            })
        })
        .collect()
    }
}

impl Assigning {
    /// Takes note of who is there, and of which agent is where.
    fn note_workers(&mut self, census: &coordination::Census) {
        let is_first = self.first_seen.is_empty();
        let live: HashSet<WorkerNumber> = census.workers.iter().map(|view| view.number).collect();
        self.first_seen.retain(|number, _| live.contains(number));
        for number in live {
            let since = (!is_first).then(Instant::now);
            self.first_seen.entry(number).or_insert(since);
        }
        let before = std::mem::take(&mut self.stays);
        for view in &census.workers {
            for agent in &view.clients {
                let known = before.get(agent).filter(|(worker, _)| *worker == view.number);
                let since = known.map_or_else(Instant::now, |(_, since)| *since);
                self.stays.insert(agent.clone(), (view.number, since));
                if known.is_none() {
                    self.unreached.note_reached(agent, view.number.0);
                }
            }
        }
    }

    fn lives_for(&self, worker: WorkerNumber) -> Duration {
        match self.first_seen.get(&worker) {
            Some(Some(since)) => since.elapsed(),
            Some(None) | None => LONG,
        }
    }

    fn note_lags(&mut self) {
        let now = self.begun.elapsed();
        let at = now_ms();
        for (agent, record) in &self.agents {
            if let Some((load, _)) = record.load.filter(|(_, said)| at - said < REPORT_MS) {
                self.trends.note(agent, now, load.lag_bytes);
            }
        }
        self.trends.forget_silent(now);
    }

    /// The agents that wait, as the policy looks at them.
    fn asked(&mut self, waiting: &[WaitingClient]) -> Vec<Waiting> {
        let before = std::mem::take(&mut self.offers);
        let now = self.begun.elapsed();
        for WaitingClient { data, .. } in waiting {
            self.unreached
                .note(&data.agent, data.incarnation, &data.avoid, now);
        }
        let asked = waiting.iter().map(|client| {
            let data = &client.data;
            let mut avoid = data.avoid.clone();
            avoid.extend(self.unreached.avoided(&data.agent, now));
            let offer = data.offer.as_ref().map(|offer| {
                let known = before.get(&data.agent);
                let since = known.filter(|(number, _)| *number == offer.number);
                let since = since.map_or_else(Instant::now, |(_, since)| *since);
                self.offers.insert(data.agent.clone(), (offer.number, since));
                (offer.worker, since.elapsed())
            });
            let record = self.agents.get(&data.agent);
            Waiting {
                agent: data.agent.clone(),
                zone: data.zone.clone(),
                avoid,
                wanted: record.and_then(|record| record.wanted.clone()),
                offer,
            }
        });
        asked.collect()
    }
}
