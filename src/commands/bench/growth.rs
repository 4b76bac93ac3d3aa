//! `sawmill bench growth`: whether what a mill costs depends on how much waits or how many nodes there are.
//!
//! A long job with its dispatcher in a process of its own, whose memory is looked at; then the same number of entries
//! with few and with many compute nodes, counting ZooKeeper's requests.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use servers::{
    ZooKeeper,
    hold::{Held, Program},
};

use super::{
    args::{GrowthArgs, ServerArgs},
    report::{self, Line, Report, line, per_second, step},
    rig::{Rig, Shape, with_mill},
    sample::rate,
    workload,
};
use crate::{
    config::Settings,
    output::{self, Format},
};

/// How often the tree and the job are looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Subtasks that run before the clock starts.
const WARM_UP: u32 = 50_000;
/// Entries that go through before requests are counted.
const FEW: u32 = 1000;
/// How often a busy ZooKeeper is asked for its counters, two seconds each.
const MNTR_TRIES: u32 = 5;
/// The two numbers of compute nodes whose requests are compared.
const NODES: [u32; 2] = [5, 50];

/// What was measured.
#[derive(Debug, Serialize)]
struct GrowthReport {
    subtasks: u32,
    servers: String,
    /// The whole job.
    per_s: f64,
    first_tenth_per_s: f64,
    last_tenth_per_s: f64,
    /// Most znodes at any look, all of ZooKeeper's own included.
    znodes_max: u64,
    /// Znodes before the job.
    znodes_before: u64,
    /// Largest resident memory of the dispatcher's process.
    dispatcher_rss_bytes: u64,
    /// Entries of each of the two jobs that count requests.
    entries: u32,
    requests: [Requests; 2],
    /// Requests per entry with many nodes beside those with few.
    requests_ratio: f64,
}

/// ZooKeeper's requests for a job.
#[derive(Clone, Copy, Debug, Serialize)]
struct Requests {
    nodes: u32,
    per_entry: f64,
    per_s: f64,
}

impl Report for GrowthReport {
    fn about(&self) -> Vec<String> {
        vec![format!("one job of {} subtasks, {}", self.subtasks, self.servers)]
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = vec![
            line("rate", per_second(self.per_s), ""),
            line("  of the first tenth", per_second(self.first_tenth_per_s), ""),
            line(
                "  of the last tenth",
                per_second(self.last_tenth_per_s),
                format!(
                    "{:.2} of the first",
                    self.last_tenth_per_s / self.first_tenth_per_s
                ),
            ),
            line(
                "znodes, most",
                self.znodes_max.to_string(),
                format!("{} before", self.znodes_before),
            ),
            line(
                "dispatcher, most memory",
                output::size(self.dispatcher_rss_bytes),
                "resident, own process",
            ),
        ];
        for Requests {
            nodes,
            per_entry,
            per_s,
        } in self.requests
        {
            let note = format!(
                "ZooKeeper's, {} of one subtask, {}",
                self.entries,
                per_second(per_s)
            );
            lines.push(line(
                format!("requests per entry, {nodes} nodes"),
                format!("{per_entry:.2}"),
                note,
            ));
        }
        lines.push(line("  ratio", format!("{:.2}", self.requests_ratio), ""));
        lines
    }
}

/// Measures and prints.
///
/// # Errors
/// What can't be started, a job that did not end as it should.
pub(super) async fn run(args: &GrowthArgs, settings: &Settings, format: Format) -> anyhow::Result<()> {
    let servers = ServerArgs {
        use_configured: false,
        dir: args.dir.clone(),
    };
    let rig = Rig::start(&servers, settings).await?;
    let measured = measure(args, &rig).await;
    let stopped = rig.stop().await;
    report::print(&measured?, format)?;
    stopped
}

async fn measure(args: &GrowthArgs, rig: &Rig) -> anyhow::Result<GrowthReport> {
    let store = &rig.parts.store;
    step(format_args!("setting up {} subtasks", args.subtasks));
    workload::dataset(store, "warm-up", WARM_UP.min(args.subtasks), args.payload).await?;
    workload::dataset(store, "long", args.subtasks, args.payload).await?;
    workload::dataset(store, "entries", args.entries, args.payload).await?;
    workload::dataset(store, "few", FEW, args.payload).await?;
    step("the long job");
    let mut dispatcher = Held::start(&dispatcher_program(rig)?).await?;
    let shape = Shape {
        slots: 16,
        nodes: 1,
        watchers: 1,
        bundles: true,
        dispatcher: false,
    };
    let long = with_mill(rig.mill(shape), long_job(rig, dispatcher.pid())).await;
    dispatcher.stop().await;
    let long = long?;
    let mut requests = [Requests {
        nodes: 0,
        per_entry: 0.0,
        per_s: 0.0,
    }; 2];
    for (place, nodes) in NODES.into_iter().enumerate() {
        step(format_args!("requests with {nodes} nodes"));
        requests[place] = count_requests(rig, nodes, args.entries).await?;
    }
    Ok(GrowthReport {
        subtasks: args.subtasks,
        servers: rig.servers(),
        per_s: long.all,
        first_tenth_per_s: long.first_tenth,
        last_tenth_per_s: long.last_tenth,
        znodes_max: long.znodes_max,
        znodes_before: long.znodes_before,
        dispatcher_rss_bytes: long.dispatcher_rss_bytes,
        entries: args.entries,
        requests_ratio: requests[1].per_entry / requests[0].per_entry,
        requests,
    })
}

/// This program as a dispatcher; it ends when this process does.
fn dispatcher_program(rig: &Rig) -> anyhow::Result<Program> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    Ok(Program::new(program, rig.dir.path(), "dispatcher.log")
        .arguments(["--zookeeper", &rig.settings.zookeeper])
        .arguments(["--mongodb", rig.settings.mongodb.expose()])
        .arguments(["--store", &rig.settings.store])
        .argument("dispatcher"))
}

struct LongJob {
    all: f64,
    first_tenth: f64,
    last_tenth: f64,
    znodes_max: u64,
    znodes_before: u64,
    dispatcher_rss_bytes: u64,
}

async fn long_job(rig: &Rig, dispatcher: u32) -> anyhow::Result<LongJob> {
    let zookeeper = rig.zookeeper()?;
    let spec = |name: &str| anyhow::Ok(workload::noop(&model::Name::new(name)?));
    workload::time_job(&rig.control, spec("warm-up")?).await?;
    let znodes_before = counter(zookeeper, "zk_znode_count").await?;
    let mut znodes_max = znodes_before;
    let begin = Instant::now();
    let id = rig.control.submit(spec("long")?).await?;
    let mut course = vec![(Duration::ZERO, 0)];
    let total = loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        znodes_max = znodes_max.max(counter(zookeeper, "zk_znode_count").await?);
        let progress = rig.parts.store.progress(&[id]).await?;
        let progress = progress.first().context("the job is gone from MongoDB")?;
        course.push((begin.elapsed(), progress.counts.ok));
        if progress.state.is_final() {
            break progress.counts.ok;
        }
    };
    let job = rig.control.wait(id, None, |_| {}).await?;
    ensure!(
        job.counts.ok == job.subtasks(),
        "the long job ended as {}: {:?}",
        job.state,
        job.error
    );
    let tenth = total / 10;
    let (end, last_from) = (reached(&course, total), reached(&course, total - tenth));
    Ok(LongJob {
        all: rate(total, end),
        first_tenth: rate(tenth, reached(&course, tenth)),
        last_tenth: rate(tenth, end.saturating_sub(last_from)),
        znodes_max,
        znodes_before,
        dispatcher_rss_bytes: most_memory(dispatcher)?,
    })
}

/// When `count` was reached, between two looks in proportion.
fn reached(course: &[(Duration, u64)], count: u64) -> Duration {
    let Some(after) = course.iter().position(|&(_, seen)| seen >= count) else {
        return course.last().map_or(Duration::ZERO, |&(at, _)| at);
    };
    let (until, more) = course[after];
    let (from, less) = course[after.saturating_sub(1)];
    if more == less {
        return until;
    }
    from + (until - from).mul_f64((count - less) as f64 / (more - less) as f64)
}

async fn count_requests(rig: &Rig, nodes: u32, entries: u32) -> anyhow::Result<Requests> {
    let shape = Shape {
        slots: 2,
        nodes,
        watchers: 1,
        bundles: false,
        dispatcher: true,
    };
    let dataset = model::Name::new("entries")?;
    with_mill(rig.mill(shape), async {
        workload::time_job(&rig.control, workload::noop(&model::Name::new("few")?)).await?;
        let zookeeper = rig.zookeeper()?;
        let before = counter(zookeeper, "zk_packets_received").await?;
        let (timed, _) = workload::time_job(&rig.control, workload::noop(&dataset)).await?;
        let requests = counter(zookeeper, "zk_packets_received")
            .await?
            .saturating_sub(before);
        let per_entry = requests as f64 / f64::from(entries);
        Ok(Requests {
            nodes,
            per_entry,
            per_s: rate(entries.into(), timed.took),
        })
    })
    .await
}

/// A counter of ZooKeeper, which may be too busy to tell it at once.
async fn counter(zookeeper: &ZooKeeper, key: &str) -> anyhow::Result<u64> {
    let mut tries = 1;
    let all = loop {
        match zookeeper.mntr().await {
            Err(_) if tries < MNTR_TRIES => tries += 1,
            answer => break answer?,
        }
    };
    let value = all
        .get(key)
        .with_context(|| format!("ZooKeeper does not tell {key}"))?;
    value
        .parse()
        .with_context(|| format!("ZooKeeper's {key} is {value:?}"))
}

/// The largest resident memory that a process ever had, in bytes.
fn most_memory(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .map(str::trim);
    let kibibytes: u64 = kibibytes
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("no VmHWM in {path}"))?;
    Ok(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_between_two_looks_are_reached_in_proportion() {
        let seconds = Duration::from_secs;
        let course = [
            (seconds(0), 0),
            (seconds(2), 100),
            (seconds(4), 100),
            (seconds(6), 300),
        ];
        let at = |count| reached(&course, count).as_secs_f64();
        assert_eq!(
            [at(50), at(100), at(200), at(300), at(999)],
            [1.0, 2.0, 5.0, 6.0, 6.0]
        );
    }

    #[test]
    fn this_process_has_used_some_memory() {
        assert!(most_memory(std::process::id()).unwrap() > 1 << 20);
    }
}
