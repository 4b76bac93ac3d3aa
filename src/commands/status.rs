//! `sawmill status`: who leads, who works, what waits.

use control::{AgentCounts, BlockCounts, Candidate, Status, Worker};

use super::Context;
use crate::{exit::Exit, output};

/// Unfinished jobs in the table; JSON has more.
const JOBS_SHOWN: usize = 20;
/// Strange znodes in the table.
const STRANGE_SHOWN: usize = 10;

/// Runs the command.
///
/// # Errors
/// What can't be reached, with its address.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    let status = context.control().await?.status().await?;
    if context.json() {
        output::json(&status)?;
    } else {
        tell(&status)?;
    }
    Ok(Exit::Success)
}

fn tell(status: &Status) -> anyhow::Result<()> {
    let places = &status.entries;
    let list = |candidates: &[Candidate]| match candidates {
        [] => "none".to_string(),
        some => some.iter().map(candidate).collect::<Vec<_>>().join("\n"),
    };
    let leader = status
        .leader
        .as_ref()
        .map_or_else(|| "none: nothing is fed".to_string(), candidate);
    output::pairs(&[
        ("leader", leader),
        ("standby", list(&status.standby)),
        ("watchers", list(&status.watchers)),
        ("agents", agents(status)),
        (
            "entries",
            format!(
                "{} unowned, {} owned, {} done",
                places.unowned, places.owned, places.done
            ),
        ),
        ("blocks", blocks(status)),
        ("mongodb", storage_line(status)),
    ])?;
    output::line("")?;
    if status.workers.is_empty() {
        output::line("no workers")?;
    } else {
        let headings = [
            "WORKER", "NODE", "HOST", ">PID", ">SLOTS", ">ENTRIES", ">CPU", ">MEMORY", "CACHE", "COMMANDS",
        ];
        output::table(&headings, status.workers.iter().map(worker))?;
    }
    out_of_step(status)?;
    if let Some(ahead_ms) = status.leader_clock_ahead_ms {
        output::line(format_args!(
            "\nnothing is removed for its age: the leader's clock is {} s {} MongoDB's; keep both in step with NTP",
            ahead_ms.unsigned_abs().div_ceil(1000),
            if ahead_ms < 0 { "behind" } else { "ahead of" }
        ))?;
    }
    output::line("")?;
    if status.jobs.is_empty() {
        output::line("no unfinished jobs")?;
    } else {
        let rows = status.jobs.iter().take(JOBS_SHOWN).map(|job| {
            let cancelling = if job.cancel_requested { " (cancelling)" } else { "" };
            [
                job.id.clone(),
                format!("{}{cancelling}", job.state),
                job.dataset.clone(),
                job.priority.to_string(),
                format!("{}/{}", output::grouped(job.ended), output::grouped(job.subtasks)),
                output::grouped(job.failed),
                output::ago(job.submitted_ms),
            ]
        });
        output::table(
            &[
                "JOB",
                "STATE",
                "DATASET",
                ">PRIO",
                ">ENDED",
                ">FAILED",
                "SUBMITTED",
            ],
            rows,
        )?;
        if status.jobs.len() > JOBS_SHOWN {
            output::line(format_args!("… and {} more", status.jobs.len() - JOBS_SHOWN))?;
        }
    }
    for strange in status.strange.iter().take(STRANGE_SHOWN) {
        output::line(format_args!("skipped: {strange}"))?;
    }
    if status.strange.len() > STRANGE_SHOWN {
        output::line(format_args!(
            "skipped: {} znodes more",
            status.strange.len() - STRANGE_SHOWN
        ))?;
    }
    Ok(())
}

/// Who runs another version than the leader.
fn out_of_step(status: &Status) -> anyhow::Result<()> {
    let Some(leader) = status.leader.as_ref().filter(|_| !status.out_of_step.is_empty()) else {
        return Ok(());
    };
    output::line(format_args!(
        "\nout of step with the leader, which runs version {}; queries are answered by nodes of one version alone:",
        leader.version
    ))?;
    for one in &status.out_of_step {
        let process = match one.pid {
            0 => String::new(),
            pid => format!(", pid {pid}"),
        };
        output::line(format_args!(
            "  {} {} (host {}{process}) runs {}",
            one.role, one.name, one.host, one.version
        ))?;
    }
    Ok(())
}

fn agents(status: &Status) -> String {
    let AgentCounts {
        shipping,
        waiting,
        away,
    } = status.agents;
    match (shipping, waiting, away) {
        (0, 0, 0) => "none".to_string(),
        _ => format!("{shipping} shipping, {waiting} waiting, {away} away"),
    }
}

fn blocks(status: &Status) -> String {
    let BlockCounts { blocks, compacted } = status.blocks;
    match compacted {
        0 => output::grouped(blocks),
        _ => format!(
            "{}, {} small ones became part of them",
            output::grouped(blocks),
            output::grouped(compacted)
        ),
    }
}

fn storage_line(status: &Status) -> String {
    match &status.storage {
        Some(usage) => format!(
            "{} on disk, {} documents",
            output::size(usage.disk_bytes),
            output::grouped(usage.documents)
        ),
        None => "unknown".to_string(),
    }
}

fn candidate(candidate: &Candidate) -> String {
    if candidate.version.is_empty() {
        return candidate.name.clone();
    }
    format!(
        "{} (host {}, pid {}, version {})",
        candidate.name, candidate.host, candidate.pid, candidate.version
    )
}

fn worker(worker: &Worker) -> [String; 10] {
    let dead = if worker.alive { "" } else { " (dead)" };
    [
        format!("{}{dead}", worker.name),
        worker.node.clone(),
        worker.host.clone(),
        worker.pid.to_string(),
        worker.slots.to_string(),
        worker.entries.to_string(),
        worker
            .cpu
            .map(|cpu| format!("{:.0}%", cpu * 100.0))
            .unwrap_or_default(),
        worker.memory_bytes.map(output::size).unwrap_or_default(),
        cache(worker),
        if worker.allow_exec { "yes" } else { "no" }.to_string(),
    ]
}

/// Bytes of columns that it keeps, and how often queries found theirs.
fn cache(worker: &Worker) -> String {
    let held = worker.cache_bytes.map(output::size).unwrap_or_default();
    match worker.cache_hit_rate {
        Some(rate) => format!("{held}, {:.0}% hits", rate * 100.0),
        None => held,
    }
}
