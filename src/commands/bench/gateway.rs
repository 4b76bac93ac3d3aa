//! `sawmill bench gateway`: what submitting costs over a gateway beside writing to MongoDB itself, in turns.
//!
//! No leader works meanwhile, so that only submitting is measured.

use std::time::{Duration, Instant};

use anyhow::ensure;
use api::transport::Security;
use control::Control;
use model::Name;
use serde::Serialize;
use storage::JobFilter;

use super::{
    args::GatewayArgs,
    report::{self, Line, Report, line, ms, per_second, step},
    rig::{Rig, with_mill},
    sample::{Sample, Spread, rate},
    workload,
};
use crate::{config::Settings, output::Format};

/// Jobs submitted by one call.
const TOGETHER: usize = 1000;

/// What was measured.
#[derive(Debug, Serialize)]
struct GatewayReport {
    jobs: u32,
    singles: u32,
    rounds: u32,
    servers: String,
    direct: Submitted,
    gateway: Submitted,
    /// Rate over the gateway beside the other.
    stream_ratio: f64,
    /// What the gateway adds to the median of one.
    adds_p50_ms: f64,
}

/// Submitting in one way.
#[derive(Debug, Serialize)]
struct Submitted {
    per_s: f64,
    all_s: Vec<f64>,
    single: Spread,
}

impl Report for GatewayReport {
    fn about(&self) -> Vec<String> {
        vec![format!(
            "{} jobs in batches of {TOGETHER}, medians of {} rounds; {} one at a time; {}",
            self.jobs, self.rounds, self.singles, self.servers
        )]
    }

    fn lines(&self) -> Vec<Line> {
        let p99 = |way: &Submitted| format!("p99 {}", ms(way.single.p99_ms));
        vec![
            line(
                "jobs submitted to MongoDB itself",
                per_second(self.direct.per_s),
                "",
            ),
            line(
                "  over a gateway",
                per_second(self.gateway.per_s),
                format!("{:.2} of that", self.stream_ratio),
            ),
            line(
                "one job to MongoDB itself, p50",
                ms(self.direct.single.p50_ms),
                p99(&self.direct),
            ),
            line(
                "  over a gateway, p50",
                ms(self.gateway.single.p50_ms),
                format!("{} more; {}", ms(self.adds_p50_ms), p99(&self.gateway)),
            ),
        ]
    }
}

/// Measures and prints.
///
/// # Errors
/// What can't be started; a job that is not there afterwards.
pub(super) async fn run(args: &GatewayArgs, settings: &Settings, format: Format) -> anyhow::Result<()> {
    let rig = Rig::start(&args.servers, settings).await?;
    let measured = measure(args, &rig).await;
    let stopped = rig.stop().await;
    report::print(&measured?, format)?;
    stopped
}

/// What is measured of one way.
struct Way<'a> {
    control: &'a Control,
    streams: Vec<Duration>,
    singles: Sample,
}

async fn measure(args: &GatewayArgs, rig: &Rig) -> anyhow::Result<GatewayReport> {
    let dataset = workload::dataset(&rig.parts.store, "submitted", 1, 32).await?;
    let (mill, server) = rig.gateway_alone().await?;
    let [direct, gateway] = with_mill(mill, async {
        let remote = Control::connect(&server, Security::Plain).await?;
        let mut ways = [&rig.control, &remote].map(|control| Way {
            control,
            streams: Vec::new(),
            singles: Sample::default(),
        });
        for round in 0..=args.rounds {
            step(format_args!("round {round} of {}", args.rounds));
            for way in &mut ways {
                let took = stream(way.control, &dataset, args.jobs).await?;
                if round > 0 {
                    way.streams.push(took);
                }
            }
        }
        step("one at a time");
        for _ in 0..args.singles {
            for way in &mut ways {
                let begin = Instant::now();
                way.control.submit(workload::noop(&dataset)).await?;
                way.singles.push(begin.elapsed());
            }
        }
        Ok(ways.map(|way| submitted(args.jobs, way.streams, &way.singles)))
    })
    .await?;
    let wanted = 2 * (u64::from(args.jobs) * u64::from(args.rounds + 1) + u64::from(args.singles));
    let limit = u32::try_from(wanted + 1).unwrap_or(u32::MAX);
    let filter = JobFilter {
        limit: Some(limit),
        ..JobFilter::default()
    };
    let found = rig.control.jobs(&filter).await?.len() as u64;
    ensure!(found == wanted, "{found} jobs are there of {wanted}");
    Ok(GatewayReport {
        jobs: args.jobs,
        singles: args.singles,
        rounds: args.rounds,
        servers: rig.servers(),
        stream_ratio: gateway.per_s / direct.per_s,
        adds_p50_ms: gateway.single.p50_ms - direct.single.p50_ms,
        direct,
        gateway,
    })
}

async fn stream(control: &Control, dataset: &Name, jobs: u32) -> anyhow::Result<Duration> {
    let specs = vec![workload::noop(dataset); jobs as usize];
    let begin = Instant::now();
    let ids = control.submit_many(specs).await?;
    let took = begin.elapsed();
    ensure!(
        ids.len() == jobs as usize,
        "{} of {jobs} jobs were submitted",
        ids.len()
    );
    Ok(took)
}

fn submitted(jobs: u32, streams: Vec<Duration>, singles: &Sample) -> Submitted {
    let all_s = streams.iter().map(Duration::as_secs_f64).collect();
    let median = streams.into_iter().collect::<Sample>().median();
    Submitted {
        per_s: rate(jobs.into(), median),
        all_s,
        single: singles.spread(),
    }
}
