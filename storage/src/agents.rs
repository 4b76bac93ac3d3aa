//! Agents: who they are, how they are doing, and what a user wants of them.
//!
//! Where an agent is held is ZooKeeper's business; here is what lasts. Written by the dispatchers and workers that agents
//! talk to, read by the leader and by `control`.

use std::collections::HashSet;

use bson::{Document, RawDocument, doc};
use model::Name;
use uuid::Uuid;

use crate::{
    Error, Store,
    rows::Query,
    schema::{self, AGENTS, count, date, narrow, now_ms, signed},
};

/// What is known of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentRecord {
    /// Who it was when it was last seen.
    pub seen: AgentSeen,
    /// When that was, in milliseconds since 1970 UTC.
    pub seen_ms: i64,
    /// When it was first seen, in milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// Whether a user wants it to read and ship nothing.
    pub paused: bool,
    /// The node that a user wants it to ship to.
    pub wanted: Option<Name>,
    /// How it was doing, and when it said so, in milliseconds since 1970 UTC.
    pub load: Option<(AgentLoad, i64)>,
}

/// Who an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSeen {
    /// Its name.
    pub agent: Name,
    /// Identifies its state directory.
    pub instance: Uuid,
    /// Rises with every connection of the instance.
    pub incarnation: u64,
    /// Host name of its machine.
    pub host: String,
    /// Version of Sawmill.
    pub version: String,
    /// The protocol it speaks.
    pub protocol: u32,
    /// Where it stands.
    pub zone: String,
    /// The number and node of the worker that it ships to; none while it waits for one.
    pub worker: Option<(u64, Name)>,
    /// The datasets that it ships to.
    pub datasets: Vec<Name>,
    /// It ships files once, and is gone then.
    pub once: bool,
}

/// How an agent is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

fn unknown(agent: &Name) -> Error {
    Error::NotFound {
        what: format!("agent {agent}"),
    }
}

impl Store {
    /// Notes that an agent has been seen, and where it ships to.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn note_agent(&self, seen: &AgentSeen) -> Result<(), Error> {
        let now = now_ms();
        let mut set = doc! {
            "v": i64::from(model::FORMAT),
            "instance": seen.instance.to_string(),
            "incarnation": signed(seen.incarnation),
            "host": &seen.host,
            "version": &seen.version,
            "protocol": i64::from(seen.protocol),
            "zone": &seen.zone,
            "datasets": seen.datasets.iter().map(Name::as_str).collect::<Vec<_>>(),
            "once": seen.once,
            "seen_at": date(now),
        };
        let mut change = doc! { "$setOnInsert": { "created_at": date(now) } };
        match &seen.worker {
            Some((worker, node)) => {
                set.insert("worker", signed(*worker));
                set.insert("node", node.as_str());
            }
            None => drop(change.insert("$unset", doc! { "worker": 1, "node": 1 })),
        }
        change.insert("$set", set);
        let agents = self.documents(AGENTS);
        let noting = agents.update_one(doc! { "_id": seen.agent.as_str() }, change);
        let done = noting.upsert(true).await;
        done.map_err(self.failed(format!("noting agent {}", seen.agent)))?;
        Ok(())
    }

    /// Notes how an agent is doing; nothing when another instance has its name by now.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn note_agent_load(&self, agent: &Name, instance: Uuid, load: &AgentLoad) -> Result<(), Error> {
        let now = date(now_ms());
        let set = doc! {
            "lag_bytes": signed(load.lag_bytes),
            "lag_ms": signed(load.lag_ms),
            "spool_bytes": signed(load.spool_bytes),
            "spool_full": load.spool_full,
            "files": signed(load.files),
            "rate": signed(load.rate),
            "reported_at": now,
            "seen_at": now,
        };
        let filter = doc! { "_id": agent.as_str(), "instance": instance.to_string() };
        let done = self
            .documents(AGENTS)
            .update_one(filter, doc! { "$set": set })
            .await;
        done.map_err(self.failed(format!("noting the load of agent {agent}")))?;
        Ok(())
    }

    /// All agents, by name.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn agents(&self) -> Result<Vec<AgentRecord>, Error> {
        let query = Query::new(AGENTS, "reading agents", doc! {}).sort("_id", 1);
        let mut rows = self.find(query).await?;
        let mut agents = Vec::new();
        while let Some(document) = rows.next().await? {
            agents.push(decode(document)?);
        }
        Ok(agents)
    }

    /// The agent of this name.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn agent(&self, agent: &Name) -> Result<Option<AgentRecord>, Error> {
        let doing = format!("reading agent {agent}");
        let found = self.find_by_id(AGENTS, agent.as_str(), &doing).await?;
        found.map(|document| decode(&document)).transpose()
    }

    /// The agents that are to read and ship nothing.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn paused_agents(&self) -> Result<HashSet<Name>, Error> {
        let query = Query::new(AGENTS, "looking for paused agents", doc! { "paused": true });
        let mut rows = self.find(query.fields(&["_id"])).await?;
        let mut paused = HashSet::new();
        while let Some(document) = rows.next().await? {
            paused.extend(document.get_str("_id").ok().and_then(|name| Name::new(name).ok()));
        }
        Ok(paused)
    }

    /// Says whether an agent is to read and ship nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Mongo`].
    pub async fn pause_agent(&self, agent: &Name, paused: bool) -> Result<(), Error> {
        let change = match paused {
            true => doc! { "$set": { "paused": true } },
            false => doc! { "$unset": { "paused": 1 } },
        };
        self.change_agent(agent, "pausing", change).await
    }

    /// Says to which node an agent is to ship; none leaves that to the leader.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Mongo`].
    pub async fn want_agent_at(&self, agent: &Name, node: Option<&Name>) -> Result<(), Error> {
        let change = match node {
            Some(node) => doc! { "$set": { "wanted": node.as_str() } },
            None => doc! { "$unset": { "wanted": 1 } },
        };
        self.change_agent(agent, "moving", change).await
    }

    async fn change_agent(&self, agent: &Name, doing: &str, change: Document) -> Result<(), Error> {
        let filter = doc! { "_id": agent.as_str() };
        let done = self.documents(AGENTS).update_one(filter, change).await;
        let done = done.map_err(self.failed(format!("{doing} agent {agent}")))?;
        if done.matched_count == 0 {
            return Err(unknown(agent));
        }
        Ok(())
    }

    /// Forgets an agent, with what was wanted of it. What it has shipped stays, and so do its marks: should it come back,
    /// nothing is registered twice.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Mongo`].
    pub async fn remove_agent(&self, agent: &Name) -> Result<(), Error> {
        let filter = doc! { "_id": agent.as_str() };
        let done = self.documents(AGENTS).delete_one(filter).await;
        let done = done.map_err(self.failed(format!("removing agent {agent}")))?;
        if done.deleted_count == 0 {
            return Err(unknown(agent));
        }
        Ok(())
    }
}

pub(crate) fn decode(document: &RawDocument) -> Result<AgentRecord, Error> {
    let name = document.get_str("_id").unwrap_or_default();
    let what = || format!("agent {name}");
    schema::check_version(document, what)?;
    let bad = |why: String| Error::Decode { what: what(), why };
    let text = |key: &str| document.get_str(key).unwrap_or_default().to_string();
    let name_in = |key: &str| document.get_str(key).ok().and_then(|name| Name::new(name).ok());
    let at = |key: &str| {
        document
            .get_datetime(key)
            .ok()
            .map(bson::DateTime::timestamp_millis)
    };
    let instance = text("instance");
    let seen = AgentSeen {
        agent: Name::new(name).map_err(|error| bad(error.to_string()))?,
        instance: Uuid::parse_str(&instance).map_err(|error| bad(format!("its instance: {error}")))?,
        incarnation: count(document, "incarnation"),
        host: text("host"),
        version: text("version"),
        protocol: narrow(document, "protocol").unwrap_or(0),
        zone: text("zone"),
        worker: match document.get("worker") {
            Ok(Some(_)) => name_in("node").map(|node| (count(document, "worker"), node)),
            _ => None,
        },
        datasets: datasets(document),
        once: document.get_bool("once").unwrap_or(false),
    };
    let load = AgentLoad {
        lag_bytes: count(document, "lag_bytes"),
        lag_ms: count(document, "lag_ms"),
        spool_bytes: count(document, "spool_bytes"),
        spool_full: document.get_bool("spool_full").unwrap_or(false),
        files: count(document, "files"),
        rate: count(document, "rate"),
    };
    Ok(AgentRecord {
        seen,
        seen_ms: at("seen_at").unwrap_or(0),
        created_ms: at("created_at").unwrap_or(0),
        paused: document.get_bool("paused").unwrap_or(false),
        wanted: name_in("wanted"),
        load: at("reported_at").map(|at| (load, at)),
    })
}

fn datasets(document: &RawDocument) -> Vec<Name> {
    let names = document
        .get_array("datasets")
        .map(|names| names.into_iter().flatten());
    let names = names.into_iter().flatten();
    names.filter_map(|name| Name::new(name.as_str()?).ok()).collect()
}
