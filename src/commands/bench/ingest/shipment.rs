//! The log into the mill: by a command from its start to its end, and by an agent that finds a finished file.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use model::Name;
use storage::Volume;

use super::{BLOCK, Log, agent};
use crate::commands::bench::rig::Rig;

/// By `sawmill ship`.
pub(super) const SHIP: &str = "sawmill ship, stored, read back, registered";
/// By `sawmill agent`.
pub(super) const FOLLOW: &str = "a following agent, stored and registered";

/// The name that shipments have; each dataset is one's own.
const SHIPPER: &str = "bench-ship";

/// From the start of the command to its end.
pub(super) async fn ship(rig: &Rig, server: &str, round: u32, log: Log<'_>) -> anyhow::Result<Duration> {
    let dataset = format!("shipped_{round}");
    let state = rig.dir.path().join(format!("ship-{round}"));
    let args: [OsString; 8] = [
        "ship".into(),
        "--dataset".into(),
        dataset.clone().into(),
        "--name".into(),
        SHIPPER.into(),
        "--state".into(),
        state.into(),
        log.path.into(),
    ];
    let took = agent::command(server, &args).await?;
    let shipped = rig.parts.store.shipped(Some(&Name::new(SHIPPER)?)).await?;
    let arrived = shipped
        .iter()
        .find(|shipped| shipped.shipment.dataset.as_str() == dataset)
        .context("nothing has arrived")?;
    check(&arrived.total, log)?;
    remove(rig, &dataset).await?;
    Ok(took)
}

/// From the moment the file is there to the registration of all its bytes but the last block's, which waits for its age;
/// in proportion to the whole.
pub(super) async fn follow(rig: &Rig, server: &str, round: u32, log: Log<'_>) -> anyhow::Result<Duration> {
    let (name, dataset) = (format!("bench-follow-{round}"), format!("followed_{round}"));
    let dir = rig.dir.path().join(format!("logs-{round}"));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut agent = agent::Agent::start(rig, server, &name, &dataset, &dir.join("*.log")).await?;
    let link = dir.join("access.log");
    let enough = log.bytes.saturating_sub(BLOCK as u64).max(1);
    let begin = Instant::now();
    std::fs::hard_link(log.path, &link).with_context(|| format!("cannot link {}", link.display()))?;
    agent
        .until("the log is registered", async |agent: &agent::Agent| {
            Ok(agent.registered(rig).await?.raw_bytes >= enough)
        })
        .await?;
    let (took, arrived) = (begin.elapsed(), agent.registered(rig).await?.raw_bytes);
    agent
        .until("the last line is registered", async |agent: &agent::Agent| {
            Ok(agent.registered(rig).await?.raw_bytes >= log.bytes)
        })
        .await?;
    check(&agent.registered(rig).await?, log)?;
    agent.stop().await;
    std::fs::remove_file(&link).with_context(|| format!("cannot remove {}", link.display()))?;
    remove(rig, &dataset).await?;
    Ok(took.mul_f64(log.bytes as f64 / arrived.max(1) as f64))
}

fn check(arrived: &Volume, log: Log<'_>) -> anyhow::Result<()> {
    ensure!(
        (arrived.lines, arrived.raw_bytes) == (log.lines, log.bytes),
        "{} lines of {} bytes have arrived instead of {} of {}",
        arrived.lines,
        arrived.raw_bytes,
        log.lines,
        log.bytes
    );
    Ok(())
}

/// So that the disk does not fill.
async fn remove(rig: &Rig, dataset: &str) -> anyhow::Result<()> {
    rig.control.remove_dataset(&Name::new(dataset)?).await?;
    Ok(())
}
