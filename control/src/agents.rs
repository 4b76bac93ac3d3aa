//! Agents: who ships what to which worker, how far behind, and what a user wants of them.

use std::collections::HashMap;

use coordination::{ClientView, Place, Snapshot};
use model::{Name, name::nearest};
use serde::{Deserialize, Serialize};
use storage::{AgentRecord, Shipped, Volume};

use crate::{Control, Error};

/// What an agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// It ships to a worker.
    Shipping,
    /// It waits for a worker.
    Waiting,
    /// Nothing is heard of it.
    Away,
}

impl AgentState {
    /// The word for it, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shipping => "shipping",
            Self::Waiting => "waiting",
            Self::Away => "away",
        }
    }
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its name.
    pub name: Name,
    /// What it does.
    pub state: AgentState,
    /// Whether a user has told it to read and ship nothing.
    pub paused: bool,
    /// Name of the folder of the worker that it ships to, or shipped to last.
    pub worker: Option<String>,
    /// Name of the node of that worker.
    pub node: Option<String>,
    /// The node that a user wants it to ship to.
    pub wanted: Option<Name>,
    /// Host name of its machine.
    pub host: String,
    /// Where it stands.
    pub zone: String,
    /// Version of Sawmill.
    pub version: String,
    /// The protocol it speaks.
    pub protocol: u32,
    /// When it was last heard of, in milliseconds since 1970 UTC.
    pub seen_ms: i64,
    /// How it was doing when it last told; none before it did.
    pub load: Option<AgentLoad>,
    /// What it has shipped in all.
    pub total: Amount,
    /// What it has shipped since midnight UTC.
    pub today: Amount,
    /// The same by dataset.
    pub datasets: Vec<AgentDataset>,
    /// The datasets that it ships to now, or shipped to last.
    #[serde(default)]
    pub ships_to: Vec<Name>,
    /// It ships files once, and is gone then.
    #[serde(default)]
    pub once: bool,
}

/// How an agent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentLoad {
    /// Bytes of log read and not yet registered.
    pub lag_bytes: u64,
    /// Age of the oldest line among these, in milliseconds.
    pub lag_ms: u64,
    /// Bytes in its spool.
    pub spool_bytes: u64,
    /// Whether its spool is full, so that it reads nothing.
    pub spool_full: bool,
    /// Files that it follows.
    pub files: u64,
    /// Bytes of log registered per second, lately.
    pub rate: u64,
    /// When it told so, in milliseconds since 1970 UTC.
    pub at_ms: i64,
}

/// What was shipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Blocks.
    pub blocks: u64,
    /// Lines.
    pub lines: u64,
    /// Bytes of the lines.
    pub raw_bytes: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
}

/// What an agent has shipped to a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDataset {
    /// The dataset.
    pub dataset: Name,
    /// In all.
    pub total: Amount,
    /// Since midnight UTC.
    pub today: Amount,
    /// When a block was registered last, in milliseconds since 1970 UTC.
    pub at_ms: i64,
}

impl From<Volume> for Amount {
    fn from(volume: Volume) -> Self {
        let Volume {
            blocks,
            lines,
            raw_bytes,
            stored_bytes,
        } = volume;
        Self {
            blocks,
            lines,
            raw_bytes,
            stored_bytes,
        }
    }
}

impl Control {
    /// All agents that have ever been seen and were not removed, by name.
    ///
    /// # Errors
    /// [`Error::Coordination`], [`Error::Storage`].
    pub async fn agents(&self) -> Result<Vec<Agent>, Error> {
        if let Some(remote) = self.remote() {
            return remote.agents().await;
        }
        let snapshot = self.snapshot().await?;
        let store = self.store()?;
        let records = store.agents().await?;
        let shipped = store.shipped(None).await?;
        Ok(agents(&snapshot, &records, &shipped))
    }

    /// The agent of this name.
    ///
    /// # Errors
    /// [`Error::NoSuchAgent`]; as [`Control::agents`].
    pub async fn agent(&self, name: &Name) -> Result<Agent, Error> {
        let agents = self.agents().await?;
        let found = agents.iter().find(|agent| agent.name == *name);
        found
            .cloned()
            .ok_or_else(|| no_such(name, agents.iter().map(|agent| agent.name.as_str())))
    }

    /// Tells an agent to read and ship nothing, or to go on; it hears of it within seconds, or when it comes back.
    ///
    /// # Errors
    /// As [`Control::agent`].
    pub async fn pause_agent(&self, name: &Name, paused: bool) -> Result<Agent, Error> {
        if let Some(remote) = self.remote() {
            return remote.set_agent(name, Some(paused), None).await;
        }
        self.known_agent(name).await?;
        self.store()?.pause_agent(name, paused).await?;
        self.agent(name).await
    }

    /// Has an agent ship to a node, given by its name or its worker (`worker-0000000004`), now and whenever that is there;
    /// none leaves it to the leader again.
    ///
    /// # Errors
    /// [`Error::NoSuchWorker`] where no live worker takes agents under this name; as [`Control::agent`].
    pub async fn move_agent(&self, name: &Name, to: Option<&str>) -> Result<Agent, Error> {
        if let Some(remote) = self.remote() {
            return remote.set_agent(name, None, Some(to)).await;
        }
        self.known_agent(name).await?;
        let node = match to {
            Some(to) => Some(self.receiving_node(to).await?),
            None => None,
        };
        self.store()?.want_agent_at(name, node.as_ref()).await?;
        self.agent(name).await
    }

    /// Forgets an agent that is away. What it has shipped stays; should it come back, nothing is registered twice.
    ///
    /// # Errors
    /// [`Error::AgentLives`]; as [`Control::agent`].
    pub async fn remove_agent(&self, name: &Name) -> Result<Agent, Error> {
        if let Some(remote) = self.remote() {
            return remote.remove_agent(name).await;
        }
        let agent = self.agent(name).await?;
        if agent.state != AgentState::Away {
            return Err(Error::AgentLives { name: name.clone() });
        }
        self.store()?.remove_agent(name).await?;
        Ok(agent)
    }

    /// Fails for an agent that is not in the store.
    async fn known_agent(&self, name: &Name) -> Result<(), Error> {
        if self.store()?.agent(name).await?.is_some() {
            return Ok(());
        }
        let known = self.store()?.agents().await?;
        let known = known.iter().map(|known| known.seen.agent.as_str());
        Err(no_such(name, known))
    }

    async fn receiving_node(&self, reference: &str) -> Result<Name, Error> {
        let census = self.snapshot().await?.census;
        let live = census.workers.iter().filter(|worker| worker.alive);
        let receiving: Vec<(String, Name)> = live
            .filter_map(|worker| {
                let data = worker.data.as_ref().ok()?;
                data.endpoint.as_ref()?;
                Some((worker.number.to_string(), data.node.clone()))
            })
            .collect();
        let found = receiving
            .iter()
            .find(|(worker, node)| worker == reference || node.as_str() == reference);
        match found {
            Some((_, node)) => Ok(node.clone()),
            None => Err(Error::NoSuchWorker {
                reference: reference.to_string(),
                known: receiving.into_iter().map(|(_, node)| node).collect(),
            }),
        }
    }
}

fn no_such<'a>(name: &Name, known: impl Iterator<Item = &'a str>) -> Error {
    let near = nearest(name.as_str(), known).and_then(|near| Name::new(near).ok());
    Error::NoSuchAgent {
        name: name.clone(),
        near,
    }
}

fn agents(snapshot: &Snapshot, records: &[AgentRecord], shipped: &[Shipped]) -> Vec<Agent> {
    let held: HashMap<&Name, &ClientView> = snapshot
        .clients
        .iter()
        .map(|client| (&client.name, client))
        .collect();
    let mut all: Vec<Agent> = records.iter().map(Agent::of_record).collect();
    // Those that came while MongoDB was away.
    for client in &snapshot.clients {
        if let Ok(data) = &client.data
            && !all.iter().any(|agent| agent.name == client.name)
        {
            all.push(Agent {
                host: data.host.clone(),
                zone: data.zone.clone(),
                version: data.version.clone(),
                ..Agent::unknown(client.name.clone())
            });
        }
    }
    let mut shipped_by: HashMap<&Name, Vec<&Shipped>> = HashMap::new();
    for shipped in shipped {
        shipped_by
            .entry(&shipped.shipment.agent)
            .or_default()
            .push(shipped);
    }
    for agent in &mut all {
        if let Some(client) = held.get(&agent.name) {
            agent.place(client, snapshot);
        }
        let shipped = shipped_by.remove(&agent.name).unwrap_or_default();
        shipped.into_iter().for_each(|shipped| agent.add(shipped));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

impl Agent {
    fn unknown(name: Name) -> Self {
        Self {
            name,
            state: AgentState::Away,
            paused: false,
            worker: None,
            node: None,
            wanted: None,
            host: String::new(),
            zone: String::new(),
            version: String::new(),
            protocol: 0,
            seen_ms: 0,
            load: None,
            total: Amount::default(),
            today: Amount::default(),
            datasets: Vec::new(),
            ships_to: Vec::new(),
            once: false,
        }
    }

    fn of_record(record: &AgentRecord) -> Self {
        let seen = &record.seen;
        let worker = seen.worker.as_ref();
        Self {
            paused: record.paused,
            worker: worker.map(|(worker, _)| coordination::WorkerNumber(*worker).to_string()),
            node: worker.map(|(_, node)| node.to_string()),
            wanted: record.wanted.clone(),
            host: seen.host.clone(),
            zone: seen.zone.clone(),
            version: seen.version.clone(),
            protocol: seen.protocol,
            seen_ms: record.seen_ms,
            ships_to: seen.datasets.clone(),
            once: seen.once,
            load: record.load.map(|(load, at_ms)| AgentLoad {
                lag_bytes: load.lag_bytes,
                lag_ms: load.lag_ms,
                spool_bytes: load.spool_bytes,
                spool_full: load.spool_full,
                files: load.files,
                rate: load.rate,
                at_ms,
            }),
            ..Self::unknown(seen.agent.clone())
        }
    }

    fn place(&mut self, client: &ClientView, snapshot: &Snapshot) {
        (self.state, self.worker, self.node) = match client.place {
            Place::Owned(number) => {
                let worker = snapshot
                    .census
                    .workers
                    .iter()
                    .find(|worker| worker.number == number);
                let data = worker.and_then(|worker| worker.data.as_ref().ok());
                let node = data.map(|data| data.node.to_string());
                (AgentState::Shipping, Some(number.to_string()), node)
            }
            Place::Unowned | Place::Done => (AgentState::Waiting, None, None),
        };
    }

    fn add(&mut self, shipped: &Shipped) {
        let (total, today) = (Amount::from(shipped.total), Amount::from(shipped.today));
        self.total.add(total);
        self.today.add(today);
        let dataset = &shipped.shipment.dataset;
        // Another instance of this name may have shipped to it too.
        match self.datasets.iter_mut().find(|known| known.dataset == *dataset) {
            Some(known) => {
                known.total.add(total);
                known.today.add(today);
                known.at_ms = known.at_ms.max(shipped.at_ms);
            }
            None => self.datasets.push(AgentDataset {
                dataset: dataset.clone(),
                total,
                today,
                at_ms: shipped.at_ms,
            }),
        }
    }
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.blocks = self.blocks.saturating_add(other.blocks);
        self.lines = self.lines.saturating_add(other.lines);
        self.raw_bytes = self.raw_bytes.saturating_add(other.raw_bytes);
        self.stored_bytes = self.stored_bytes.saturating_add(other.stored_bytes);
    }
}
