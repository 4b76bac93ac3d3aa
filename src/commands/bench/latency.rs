//! `sawmill bench latency`: one subtask at a time on an idle mill, from submit to final result.

use serde::Serialize;

use super::{
    args::LatencyArgs,
    report::{self, Line, Report, line, ms, step},
    rig::{Rig, Shape, with_mill},
    sample::{Sample, Spread},
    steps::{self, Steps},
    workload,
};
use crate::{config::Settings, output::Format};

/// Rounds before the clock counts.
const WARM_UP: u32 = 50;
/// Bytes of the block.
const PAYLOAD: usize = 200;

/// What was measured.
#[derive(Debug, Serialize)]
struct LatencyReport {
    rounds: u32,
    payload_bytes: usize,
    servers: String,
    /// From submit to final result.
    latency: Spread,
    /// Each synced step alone.
    steps: Steps,
    /// The sum of the medians of the steps.
    steps_p50_ms: f64,
    /// The median latency beside that sum.
    p50_of_steps: f64,
}

impl Report for LatencyReport {
    fn about(&self) -> Vec<String> {
        vec![format!(
            "{} subtasks of {PAYLOAD} bytes, one at a time, {}",
            self.rounds, self.servers
        )]
    }

    fn lines(&self) -> Vec<Line> {
        let shown = |spread: &Spread| format!("p99 {}, longest {}", ms(spread.p99_ms), ms(spread.max_ms));
        let mut lines = vec![
            line(
                "submit to final result, p50",
                ms(self.latency.p50_ms),
                shown(&self.latency),
            ),
            line(
                "steps alone, sum of p50",
                ms(self.steps_p50_ms),
                format!("the mill takes {:.2} times it", self.p50_of_steps),
            ),
        ];
        for (name, spread) in self.steps.named() {
            lines.push(line(format!("  {name}"), ms(spread.p50_ms), shown(&spread)));
        }
        lines
    }
}

/// Measures and prints.
///
/// # Errors
/// What can't be started, a job that did not end as it should.
pub(super) async fn run(args: &LatencyArgs, settings: &Settings, format: Format) -> anyhow::Result<()> {
    let rig = Rig::start(&args.servers, settings).await?;
    let measured = measure(args, &rig).await;
    let stopped = rig.stop().await;
    report::print(&measured?, format)?;
    stopped
}

async fn measure(args: &LatencyArgs, rig: &Rig) -> anyhow::Result<LatencyReport> {
    let dataset = workload::dataset(&rig.parts.store, "measured", 1, PAYLOAD).await?;
    let shape = Shape {
        slots: 2,
        nodes: 1,
        watchers: 1,
        bundles: true,
        dispatcher: true,
    };
    step("one subtask at a time");
    let mill = rig.mill(shape);
    let latency = with_mill(mill, async {
        let mut sample = Sample::default();
        for round in 0..WARM_UP + args.rounds {
            let (timed, _) = workload::time_job(&rig.control, workload::noop(&dataset)).await?;
            if round >= WARM_UP {
                sample.push(timed.took);
            }
        }
        Ok(sample.spread())
    })
    .await?;
    step("each synced step alone");
    let beside = rig.beside("alone").await?;
    steps::measure(&beside, WARM_UP, PAYLOAD).await?;
    let steps = steps::measure(&beside, args.rounds, PAYLOAD).await?;
    beside.store.drop_collections().await?;
    let steps_p50_ms = steps.sum_p50_ms();
    Ok(LatencyReport {
        rounds: args.rounds,
        payload_bytes: PAYLOAD,
        servers: rig.servers(),
        p50_of_steps: latency.p50_ms / steps_p50_ms.max(1e-9),
        latency,
        steps,
        steps_p50_ms,
    })
}
