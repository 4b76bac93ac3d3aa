//! The JSON in the znodes, each with a format number; readable in `zkCli`.

use std::collections::HashSet;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    FORMAT,
    block::Block,
    job::JobId,
    limits::{DEATHS_ALONE, STALLS},
    name::Name,
    outcome::{End, Failure, FailureKind, Outcome, Past, Run},
    processor::{Offer, Processor, Requirement},
};

/// Data of `/unowned/entry-…`: all that a worker needs to run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryData {
    /// Format number.
    pub v: u32,
    /// Whose subtasks.
    pub job: JobId,
    /// Which subtasks.
    pub run: Run,
    /// What happened to them before.
    #[serde(default)]
    pub past: Past,
    /// What to do.
    pub processor: Processor,
    /// Failed attempts that end a subtask for good.
    pub max_attempts: u32,
    /// Whether results carry their fingerprint.
    #[serde(default)]
    pub reuse: bool,
    /// Whether a block whose file is gone is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_missing: bool,
    /// Nodes that failed it, passed over while another fits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<Name>,
    /// Where the first of the blocks stands; none: in the first dataset, under the index of its subtask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
    /// One block per subtask of the run, as they follow one another in their dataset; none for the merge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Block>,
}

/// Where the first block of an entry stands among the datasets of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// Which dataset, as in [`Part::table`](crate::parts::Part::table).
    #[serde(default, skip_serializing_if = "is_first")]
    pub table: u32,
    /// Number of the block in the dataset.
    pub block: u32,
    /// The incarnation of the dataset, where something may be learned of its blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Uuid>,
}

fn is_first(table: &u32) -> bool {
    *table == 0
}

impl WorkerData {
    /// What it offers to processors.
    pub fn offer(&self) -> Offer<'_> {
        Offer {
            capabilities: &self.capabilities,
            sql: self.sql.as_deref(),
        }
    }
}

impl EntryData {
    /// Whether this is the merge of its job.
    pub fn is_merge(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Where the first block stands.
    pub fn at(&self) -> At {
        self.at.unwrap_or(At {
            table: 0,
            block: self.run.first,
            dataset: None,
        })
    }
}

/// Data of `/owned/worker-…/entry-…`: what must be known if the worker dies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnedData {
    /// Format number.
    pub v: u32,
    /// Whose subtasks.
    pub job: JobId,
    /// Which subtasks.
    pub run: Run,
    /// What happened to them before.
    #[serde(default)]
    pub past: Past,
}

impl From<&EntryData> for OwnedData {
    fn from(entry: &EntryData) -> Self {
        Self {
            v: FORMAT,
            job: entry.job,
            run: entry.run,
            past: entry.past.clone(),
        }
    }
}

/// Data of `/done/entry-…`: how the subtasks of an entry ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoneData {
    /// Format number.
    pub v: u32,
    /// Whose subtasks.
    pub job: JobId,
    /// Which subtasks.
    pub run: Run,
    /// What had happened to them before this attempt; where they were lost, that too.
    #[serde(default)]
    pub past: Past,
    /// Name of the node that had it; none for what came straight from the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// Time spent running, in microseconds, all subtasks together.
    #[serde(default)]
    pub busy_us: u64,
    /// The ends, in order of index, together covering the run.
    pub ends: Vec<End>,
}

/// How a worker was lost.
#[derive(Clone, Copy, Debug)]
pub struct Loss<'a> {
    /// The process that it ran in.
    pub process: Uuid,
    /// Whether other workers were lost at about the same time.
    pub together: bool,
    /// The processes in which workers live now.
    pub living: &'a HashSet<Uuid>,
}

impl DoneData {
    /// All subtasks of `owned` met the same end without running to it.
    pub fn all(owned: &OwnedData, node: Option<Name>, outcome: Outcome) -> Self {
        let OwnedData { v: _, job, run, past } = owned.clone();
        let ends = vec![End {
            first: run.first,
            count: run.count,
            outcome,
        }];
        Self {
            v: FORMAT,
            job,
            run,
            past,
            node,
            busy_us: 0,
            ends,
        }
    }

    /// The worker that had `owned` was lost: its subtasks run again, or have failed for good after too many deaths of workers
    /// while they ran alone. The past includes this loss.
    pub fn lost(owned: &OwnedData, node: Option<Name>, loss: &Loss<'_>) -> Self {
        let past = owned.past.clone();
        let mut past = past.after_loss(loss.process, loss.together, owned.run.count);
        past.acquit(loss.living);
        let deaths = past.deaths_alone();
        let outcome = if deaths >= DEATHS_ALONE {
            let message = format!("the worker died each of {deaths} times that this subtask ran alone on it");
            Outcome::Dead(Failure::new(FailureKind::Deaths, message))
        } else if past.stalls >= STALLS {
            let message = format!(
                "the worker lost its ZooKeeper session {} times while it had this subtask, and others kept theirs",
                past.stalls
            );
            Outcome::Dead(Failure::new(FailureKind::Deaths, message))
        } else {
            Outcome::Lost
        };
        Self {
            past,
            ..Self::all(owned, node, outcome)
        }
    }

    /// What would run again is cancelled: its job is being ended.
    pub fn cancel_returned(&mut self) {
        for end in &mut self.ends {
            if end.outcome == Outcome::Returned {
                end.outcome = Outcome::Cancelled;
            }
        }
    }

    /// Whether the ends cover the run exactly, in order.
    pub fn is_whole(&self) -> bool {
        let mut next = self.run.first;
        for end in &self.ends {
            if end.first != next || end.count == 0 {
                return false;
            }
            next = end.first.saturating_add(end.count);
        }
        next == self.run.end()
    }
}

/// Data of `/owned/worker-…`: who it is, and its wake-up counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerData {
    /// Format number.
    pub v: u32,
    /// Name of the node; survives the incarnations.
    pub node: Name,
    /// Host name of the machine.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// Identifies the process: the same in all incarnations of the worker until the process ends.
    #[serde(default)]
    pub process: Uuid,
    /// Version of Sawmill.
    pub version: String,
    /// How many entries it runs at once.
    pub slots: u32,
    /// What it offers.
    pub capabilities: Vec<Requirement>,
    /// The version of the halves of queries that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// `HOST:PORT` where it takes blocks of agents; none: it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Where it stands; agents with the same label are preferred.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The protocol that it speaks with agents.
    #[serde(default)]
    pub protocol: u32,
    /// Whether it keeps blocks in a directory of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local_store: bool,
    /// Counts the leader's wake-ups.
    #[serde(default)]
    pub wake: u64,
    /// The jobs of which the leader wants the worker to end what it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<JobId>,
}

/// Data of `/unowned/client-…` and `/owned/worker-…/client-…`: an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientData {
    /// Format number.
    pub v: u32,
    /// Name of the agent.
    pub agent: Name,
    /// Identifies its state directory.
    pub instance: Uuid,
    /// Rises with every connection of the instance.
    pub incarnation: u64,
    /// Host name of its machine.
    pub host: String,
    /// Version of Sawmill.
    pub version: String,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Numbers of workers that it is not to get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<u64>,
    /// What the leader has offered, in `/unowned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<WorkerOffer>,
}

/// A worker offered to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerOffer {
    /// Its number.
    pub worker: u64,
    /// Name of its node.
    pub node: Name,
    /// `HOST:PORT` where it takes blocks.
    pub endpoint: String,
    /// Counts the offers to this agent: each is another.
    pub number: u32,
}

/// Data of a candidate under `/owned/dispatcher` and `/owned/watcher`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateData {
    /// Format number.
    pub v: u32,
    /// Host name of the machine.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// Version of Sawmill.
    pub version: String,
    /// `HOST:PORT` of the gateway of a dispatcher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

/// Data of the roots: counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootData {
    /// Format number.
    pub v: u32,
    /// Next sequence of an entry (`/unowned`) or number of a worker (`/owned`).
    #[serde(default)]
    pub next: u64,
}

/// Data of a znode that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadData {
    /// Not the JSON that belongs there.
    #[error("not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer Sawmill.
    #[error("format {0} is newer than {FORMAT}, the newest that this release of Sawmill knows: upgrade it")]
    Newer(u32),
}

#[derive(Deserialize)]
struct JustFormat {
    v: u32,
}

/// Reads the data of a znode.
///
/// # Errors
/// [`BadData::Newer`] for a format number above [`FORMAT`], else [`BadData::Json`].
pub fn decode<T: Formatted>(data: &[u8]) -> Result<T, BadData> {
    match serde_json::from_slice::<T>(data) {
        Ok(read) if read.format() <= FORMAT => Ok(read),
        Ok(read) => Err(BadData::Newer(read.format())),
        Err(failure) => match serde_json::from_slice::<JustFormat>(data) {
            Ok(JustFormat { v }) if v > FORMAT => Err(BadData::Newer(v)),
            _ => Err(BadData::Json(failure)),
        },
    }
}

/// Data that carries a format number.
pub trait Formatted: DeserializeOwned {
    /// The format number it was written with.
    fn format(&self) -> u32;
}

macro_rules! formatted {
    ($($name:ty),+) => { $(impl Formatted for $name { fn format(&self) -> u32 { self.v } })+ };
}
formatted!(
    EntryData,
    OwnedData,
    DoneData,
    WorkerData,
    CandidateData,
    ClientData,
    RootData
);

/// Writes the data of a znode.
pub fn encode<T: Serialize>(data: &T) -> Vec<u8> {
    serde_json::to_vec(data).expect("plain structs with string keys always become JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_formats_and_garbage_are_told_apart() {
        assert!(matches!(
            decode::<RootData>(br#"{"v":1,"next":7}"#),
            Ok(RootData { v: 1, next: 7 })
        ));
        assert!(matches!(
            decode::<RootData>(br#"{"v":9,"next":{"deep":1}}"#),
            Err(BadData::Newer(9))
        ));
        assert!(matches!(
            decode::<RootData>(br#"{"v":9}"#),
            Err(BadData::Newer(9))
        ));
        assert!(matches!(decode::<RootData>(b"hello"), Err(BadData::Json(_))));
        assert!(matches!(
            decode::<OwnedData>(br#"{"v":1}"#),
            Err(BadData::Json(_))
        ));
    }
}
