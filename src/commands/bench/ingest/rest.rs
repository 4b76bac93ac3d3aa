//! What an agent costs while nothing is written.

use std::{fmt::Write as _, time::Duration};

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::agent::Agent;
use crate::commands::bench::{report::step, rig::Rig};

/// How long it is looked at.
const LOOK: Duration = Duration::from_secs(20);
/// Lines of each file.
const LINES: u64 = 20;

/// What was seen.
#[derive(Debug, Serialize)]
pub(super) struct Rest {
    pub(super) files: u32,
    /// Of one core.
    pub(super) cpu_percent: f64,
    pub(super) memory: Memory,
}

/// Memory of a process.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) resident_bytes: u64,
    /// What is not of files, such as the program itself.
    pub(super) own_bytes: u64,
}

pub(super) async fn measure(rig: &Rig, server: &str, files: u32) -> anyhow::Result<Rest> {
    step(format_args!("an agent at rest, {files} files"));
    let dir = rig.dir.path().join("rest");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for file in 0..files {
        let mut lines = String::new();
        for number in 0..LINES {
            let _ = writeln!(lines, "file {file} line {number}");
        }
        let path = dir.join(format!("{file}.log"));
        std::fs::write(&path, lines).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut agent = Agent::start(rig, server, "bench-rest", "rest", &dir.join("*.log")).await?;
    let wanted = u64::from(files) * LINES;
    agent
        .until("all files are registered", async |agent: &Agent| {
            Ok(agent.registered(rig).await?.lines >= wanted)
        })
        .await?;
    let (before, begin) = (cpu_time(agent.pid())?, Instant::now());
    sleep(LOOK).await;
    let (after, took) = (cpu_time(agent.pid())?, begin.elapsed());
    let memory = memory(agent.pid())?;
    agent.stop().await;
    Ok(Rest {
        files,
        cpu_percent: after.saturating_sub(before).as_secs_f64() / took.as_secs_f64() * 100.0,
        memory,
    })
}

/// Time of processors that a process has used, to a hundredth of a second or finer.
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/schedstat");
    let mut nanoseconds = 0;
    // Of the process alone it tells only the first thread.
    let tasks =
        std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("cannot read {path}"))?;
    for task in tasks {
        let stat = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let first = stat.split_whitespace().next();
        nanoseconds += first
            .and_then(|first| first.parse::<u64>().ok())
            .unwrap_or_default();
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kibibytes = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
        let kibibytes: u64 = kibibytes.and_then(|text| text.parse().ok())?;
        Some(kibibytes * 1024)
    };
    Ok(Memory {
        resident_bytes: bytes("VmRSS").with_context(|| format!("no VmRSS in {path}"))?,
        own_bytes: bytes("RssAnon").with_context(|| format!("no RssAnon in {path}"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let me = std::process::id();
        assert!(cpu_time(me).unwrap() > Duration::ZERO);
        let memory = memory(me).unwrap();
        assert!(
            memory.resident_bytes >= memory.own_bytes && memory.own_bytes > 0,
            "{memory:?}"
        );
    }
}
