//! From a line written to a log until it is in the answer of a view.

use std::{
    ffi::OsString,
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use model::Name;
use serde::Serialize;
use tokio::time::sleep;

use super::agent::{self, Agent};
use crate::commands::bench::{
    report::step,
    rig::Rig,
    sample::{Sample, Spread},
};

/// Age at which a following agent cuts a block, unless it is told otherwise.
const AGE: Duration = Duration::from_secs(2);
/// How long a line may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at the view.
const PAUSE: Duration = Duration::from_millis(5);
/// The dataset, and the view over it: as many rows as lines.
const DATASET: &str = "live";
const VIEW: &str = "live_lines";
/// Lines before the clock counts.
const WARM_UP: u32 = 2;

/// How long lines took.
#[derive(Debug, Serialize)]
pub(super) struct Live {
    pub(super) lines: u32,
    pub(super) age_ms: f64,
    pub(super) spread: Spread,
}

pub(super) async fn measure(rig: &Rig, server: &str, lines: u32) -> anyhow::Result<Live> {
    step(format_args!("{lines} lines into a view, one at a time"));
    let dir = rig.dir.path().join("live-logs");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join("live.log");
    let mut log = std::fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let agent = Agent::start(rig, server, "bench-live", DATASET, &dir.join("*.log")).await?;
    let mut write = |number: u32| {
        log.write_all(format!("{{\"number\":{number}}}\n").as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    };
    write(0)?;
    let mut agent = agent;
    agent
        .until("the first line is registered", async |agent: &Agent| {
            Ok(agent.registered(rig).await?.lines > 0)
        })
        .await?;
    let view: [OsString; 4] = [
        "view".into(),
        "create".into(),
        VIEW.into(),
        format!("SELECT number, count(*) AS lines FROM {DATASET} GROUP BY number").into(),
    ];
    agent::command(server, &view).await?;
    seen(rig, 1).await?;
    let mut sample = Sample::default();
    for number in 1..=WARM_UP + lines {
        let begin = Instant::now();
        write(number)?;
        seen(rig, u64::from(number) + 1).await?;
        if number > WARM_UP {
            sample.push(begin.elapsed());
        }
    }
    agent.stop().await;
    Ok(Live {
        lines,
        age_ms: AGE.as_secs_f64() * 1e3,
        spread: sample.spread(),
    })
}

/// Until the view has so many rows.
async fn seen(rig: &Rig, rows: u64) -> anyhow::Result<()> {
    let (view, deadline) = (Name::new(VIEW)?, Instant::now() + PATIENCE);
    loop {
        let report = rig.control.view_report(&view).await?;
        if report.rows.is_some_and(|found| found >= rows) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "line {rows} is not in the view after {} s: {:?}",
            PATIENCE.as_secs(),
            report.error
        );
        sleep(PAUSE).await;
    }
}
