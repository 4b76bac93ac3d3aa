//! Who takes part.

use api::v1;

use crate::{Agent, Candidate, Status, Worker};

/// A mill at a glance.
pub fn status_message(status: &Status) -> v1::StatusReply {
    v1::StatusReply {
        leader: status.leader.as_ref().map(candidate_message),
        standby: status.standby.iter().map(candidate_message).collect(),
        watchers: status.watchers.iter().map(candidate_message).collect(),
        workers: status.workers.iter().map(worker_message).collect(),
        unowned: status.entries.unowned as u64,
        owned: status.entries.owned as u64,
        done: status.entries.done as u64,
        // Texts and numbers, which JSON always takes.
        document_json: serde_json::to_string(status).unwrap_or_default(),
        leader_clock_ahead_ms: status.leader_clock_ahead_ms,
    }
}

fn candidate_message(candidate: &Candidate) -> v1::CandidateInfo {
    v1::CandidateInfo {
        name: candidate.name.clone(),
        host: candidate.host.clone(),
        pid: candidate.pid,
        version: candidate.version.clone(),
    }
}

/// A worker.
pub fn worker_message(worker: &Worker) -> v1::WorkerInfo {
    v1::WorkerInfo {
        name: worker.name.clone(),
        node: worker.node.clone(),
        host: worker.host.clone(),
        pid: worker.pid,
        version: worker.version.clone(),
        alive: worker.alive,
        slots: worker.slots,
        allow_exec: worker.allow_exec,
        entries: worker.entries as u64,
        cpu: worker.cpu,
        memory_bytes: worker.memory_bytes,
    }
}

/// An agent.
pub fn agent_message(agent: &Agent) -> v1::AgentInfo {
    v1::AgentInfo {
        name: agent.name.to_string(),
        state: agent.state.as_str().to_string(),
        paused: agent.paused,
        worker: agent.worker.clone().unwrap_or_default(),
        node: agent.node.clone().unwrap_or_default(),
        host: agent.host.clone(),
        version: agent.version.clone(),
        protocol: agent.protocol,
        seen_ms: agent.seen_ms,
        report: agent.load.map(|load| v1::AgentReport {
            lag_bytes: load.lag_bytes,
            lag_ms: load.lag_ms,
            spool_bytes: load.spool_bytes,
            spool_full: load.spool_full,
            files: load.files,
            rate: load.rate,
        }),
        blocks: agent.total.blocks,
        lines: agent.total.lines,
        raw_bytes: agent.total.raw_bytes,
        // Texts and numbers, which JSON always takes.
        document_json: serde_json::to_string(agent).unwrap_or_default(),
    }
}
