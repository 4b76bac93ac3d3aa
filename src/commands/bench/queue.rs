//! `sawmill bench queue`: how many subtasks, or jobs, a second.

use std::time::Instant;

use serde::Serialize;

use super::{
    alone::{self, MongoAlone, ZooKeeperAlone},
    args::QueueArgs,
    report::{self, Line, Report, line, per_second, step},
    rig::{Rig, Shape, with_mill},
    sample::rate,
    workload,
};
use crate::{config::Settings, output::Format};

/// Subtasks of a warm-up that nobody asked for: a Java server compiles itself meanwhile.
const WARM_UP: u32 = 300_000;
/// Jobs of such a warm-up.
const WARM_UP_JOBS: u32 = 20_000;
/// Most subtasks that a mill without bundles warms up with: the servers are warm by then.
const WARM_UP_AGAIN: u32 = 20_000;
/// Most that the parts alone are measured with: their rate does not depend on it.
const ALONE: u32 = 200_000;

/// Slots of a node that nobody chose: with entries of one, enough to hide the way of one entry behind the others.
const SLOTS: u32 = 64;
/// The same for jobs of one subtask, of which no two share an entry.
const JOB_SLOTS: u32 = 512;

/// What was measured.
#[derive(Debug, Serialize)]
struct QueueReport {
    /// `subtasks` or `jobs`.
    unit: &'static str,
    count: u32,
    payload_bytes: usize,
    compute_nodes: u32,
    slots: u32,
    watchers: u32,
    servers: String,
    setup_s: f64,
    /// The mill as it is.
    mill_per_s: Option<f64>,
    /// The mill with entries of one subtask.
    without_bundles_per_s: Option<f64>,
    answered_by_reuse: u64,
    zookeeper_alone: ZooKeeperAlone,
    mongodb_alone: MongoAlone,
    /// The mill beside MongoDB alone.
    mill_of_mongodb: Option<f64>,
    /// Without bundles, beside ZooKeeper alone doing as many entries.
    without_bundles_of_zookeeper: Option<f64>,
}

impl Report for QueueReport {
    fn about(&self) -> Vec<String> {
        let Self {
            unit,
            count,
            payload_bytes,
            compute_nodes,
            slots,
            watchers,
            ..
        } = self;
        let load = match *unit {
            "jobs" => format!("{count} jobs of one subtask"),
            _ => format!("one job of {count} subtasks"),
        };
        vec![
            format!(
                "{load}, {payload_bytes} bytes each, none answered by reuse; setup {:.1} s, not measured",
                self.setup_s
            ),
            format!(
                "{compute_nodes} node(s) of {slots} slots, {watchers} watcher(s), {}",
                self.servers
            ),
        ]
    }

    fn lines(&self) -> Vec<Line> {
        let unit = self.unit;
        let mut lines = Vec::new();
        if let Some(rate) = self.mill_per_s {
            let note = format!("{:.2} of MongoDB alone", self.mill_of_mongodb.unwrap_or_default());
            lines.push(line("the mill", format!("{} {unit}", per_second(rate)), note));
        }
        if let Some(rate) = self.without_bundles_per_s {
            let beside = self.without_bundles_of_zookeeper.unwrap_or_default();
            let note = format!("{beside:.2} of ZooKeeper alone");
            lines.push(line(
                "the mill, no bundles",
                format!("{} {unit}", per_second(rate)),
                note,
            ));
        }
        let mongo = &self.mongodb_alone;
        lines.push(line(
            "MongoDB alone",
            per_second(mongo.all_per_s),
            format!("{unit}, one step after the other"),
        ));
        if unit == "jobs" {
            lines.push(line("  submit", per_second(mongo.submit_per_s), ""));
            lines.push(line("  admit", per_second(mongo.admit_per_s), ""));
            lines.push(line("  record", per_second(mongo.record_per_s), ""));
        }
        let zookeeper = &self.zookeeper_alone;
        let note = format!("{} entries, one step after the other", zookeeper.entries);
        lines.push(line("ZooKeeper alone", per_second(zookeeper.all_per_s), note));
        for (what, rate) in [
            ("  create", zookeeper.create_per_s),
            ("  move to owned", zookeeper.claim_per_s),
            ("  move to done", zookeeper.finish_per_s),
            ("  delete", zookeeper.delete_per_s),
        ] {
            lines.push(line(what, per_second(rate), ""));
        }
        lines
    }
}

/// Measures and prints.
///
/// # Errors
/// What can't be started, a job that did not end as it should.
pub(super) async fn run(args: &QueueArgs, settings: &Settings, format: Format) -> anyhow::Result<()> {
    let rig = Rig::start(&args.servers, settings).await?;
    let measured = measure(args, &rig).await;
    let stopped = rig.stop().await;
    report::print(&measured?, format)?;
    stopped
}

async fn measure(args: &QueueArgs, rig: &Rig) -> anyhow::Result<QueueReport> {
    let (unit, count) = args
        .jobs
        .map_or(("subtasks", args.subtasks), |jobs| ("jobs", jobs));
    let warm_up = args.warm_up.unwrap_or(match args.jobs {
        Some(jobs) => jobs.min(WARM_UP_JOBS),
        None => WARM_UP,
    });
    let payload = args.payload;
    let slots = args
        .slots
        .unwrap_or(if args.jobs.is_some() { JOB_SLOTS } else { SLOTS });
    let shape = |bundles| Shape {
        slots,
        nodes: args.compute_nodes,
        watchers: args.watchers,
        bundles,
        dispatcher: true,
    };
    let begin = Instant::now();
    step(format_args!("setting up {count} {unit}"));
    let load = Workload::make(rig, args, warm_up).await?;
    let setup_s = begin.elapsed().as_secs_f64();

    let (mut mill, mut without, mut reused) = (None, None, 0);
    if !args.no_bundles {
        step("the mill");
        let (rate, counts) = load.measure(rig, shape(true)).await?;
        (mill, reused) = (Some(rate), counts);
    }
    if args.jobs.is_none() {
        step("the mill, without bundles");
        let (rate, counts) = load.measure(rig, shape(false)).await?;
        without = Some(rate);
        reused += counts;
    }
    step("ZooKeeper alone");
    let beside = rig.beside("alone").await?;
    let zookeeper_alone = alone::zookeeper(&beside, count.min(ALONE), payload).await?;
    step("MongoDB alone");
    let (jobs, subtasks) = if args.jobs.is_some() {
        (count.min(ALONE), 1)
    } else {
        (1, count.min(ALONE))
    };
    let mongodb_alone = alone::mongodb(&beside.store, jobs, subtasks, payload).await?;
    beside.store.drop_collections().await?;
    Ok(QueueReport {
        unit,
        count,
        payload_bytes: payload,
        compute_nodes: args.compute_nodes,
        slots,
        watchers: args.watchers,
        servers: rig.servers(),
        setup_s,
        mill_per_s: mill,
        without_bundles_per_s: without,
        answered_by_reuse: reused,
        mill_of_mongodb: mill.map(|rate| rate / mongodb_alone.all_per_s),
        without_bundles_of_zookeeper: without.map(|rate| rate / zookeeper_alone.all_per_s),
        zookeeper_alone,
        mongodb_alone,
    })
}

/// What the mill is given: a job of many subtasks, or many jobs of one.
struct Workload {
    count: u32,
    warm_up: u32,
    jobs: bool,
    measured: model::Name,
    first: model::Name,
    again: model::Name,
}

impl Workload {
    async fn make(rig: &Rig, args: &QueueArgs, warm_up: u32) -> anyhow::Result<Self> {
        let jobs = args.jobs.is_some();
        let blocks = |count| if jobs { 1 } else { count };
        let count = args.jobs.unwrap_or(args.subtasks);
        let store = &rig.parts.store;
        let measured = workload::dataset(store, "measured", blocks(count), args.payload).await?;
        let first = workload::dataset(store, "warm-up", blocks(warm_up), args.payload).await?;
        let again = blocks(warm_up.min(WARM_UP_AGAIN));
        let again = workload::dataset(store, "warm-up-again", again, args.payload).await?;
        Ok(Self {
            count,
            warm_up,
            jobs,
            measured,
            first,
            again,
        })
    }

    /// The rate of a mill of this shape after its warm-up, and how many answers were reused.
    async fn measure(&self, rig: &Rig, shape: Shape) -> anyhow::Result<(f64, u64)> {
        with_mill(rig.mill(shape), async {
            if self.warm_up > 0 {
                let dataset = if shape.bundles { &self.first } else { &self.again };
                self.work(rig, dataset, self.warm_up).await?;
            }
            let timed = self.work(rig, &self.measured, self.count).await?;
            Ok((
                rate(self.count.into(), timed.took),
                timed.counts.already + timed.counts.executed,
            ))
        })
        .await
    }

    async fn work(&self, rig: &Rig, dataset: &model::Name, count: u32) -> anyhow::Result<workload::Timed> {
        if self.jobs {
            return workload::time_jobs(&rig.control, &rig.parts.store, dataset, count).await;
        }
        Ok(workload::time_job(&rig.control, workload::noop(dataset)).await?.0)
    }
}
