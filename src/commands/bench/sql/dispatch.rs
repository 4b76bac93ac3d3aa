//! What a query costs besides the work on its blocks: once, and for each block.

use std::{io::Write as _, path::Path, time::Duration};

use anyhow::Context as _;
use serde::Serialize;

use super::{super::sample::Sample, Asker, questions::QUESTIONS};

/// The time of the slots that was not spent on blocks, in the first question for the first time.
#[derive(Debug, Serialize)]
pub(super) struct Dispatch {
    /// Over a single block, from the start of the command to its end, in milliseconds.
    pub(super) once_ms: f64,
    /// What each further block adds, in microseconds.
    pub(super) us_per_block: f64,
    /// That beside the time spent on a block.
    pub(super) share: f64,
}

/// Asks in turns over one block and over all.
pub(super) async fn measure(asker: &Asker<'_>) -> anyhow::Result<Dispatch> {
    let one = asker.file.with_file_name("one-block.log");
    let whole = asker.file.to_path_buf();
    let (to, bytes) = (one.clone(), asker.args.block.0);
    tokio::task::spawn_blocking(move || first_lines(&whole, &to, bytes)).await??;
    let (mut once, mut further, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=asker.args.rounds {
        let single = idle(asker, &format!("single-{round}"), &one).await?;
        let all = idle(asker, &format!("all-{round}"), asker.file).await?;
        if round == 0 {
            continue;
        }
        let blocks = all.blocks.saturating_sub(single.blocks).max(1);
        let more = all.idle.saturating_sub(single.idle) / blocks;
        once.push(single.took);
        further.push(more);
        shares.push(more.as_secs_f64() / (all.busy / all.blocks.max(1)).as_secs_f64().max(1e-9));
    }
    shares.sort_by(f64::total_cmp);
    let median = |all: Vec<Duration>| all.into_iter().collect::<Sample>().median().as_secs_f64();
    Ok(Dispatch {
        once_ms: median(once) * 1e3,
        us_per_block: median(further) * 1e6,
        share: shares[shares.len() / 2],
    })
}

struct Idle {
    took: Duration,
    busy: Duration,
    idle: Duration,
    blocks: u32,
}

async fn idle(asker: &Asker<'_>, name: &str, file: &Path) -> anyhow::Result<Idle> {
    let dataset = asker.dataset_of(name, file).await?;
    let (took, _) = asker.ask(&QUESTIONS[0], &dataset, &[]).await?;
    let latest = storage::JobFilter {
        limit: Some(1),
        ..Default::default()
    };
    let jobs = asker.rig.control.jobs(&latest).await?;
    let job = jobs.first().context("the query left no job")?;
    let busy = Duration::from_micros(job.counts.busy_us);
    // A single block keeps one slot busy: the others have nothing to wait for.
    let slots = asker.args.slots.min(job.blocks);
    Ok(Idle {
        took,
        busy,
        idle: (took * slots).saturating_sub(busy),
        blocks: job.blocks,
    })
}

/// Whole lines of the beginning of a file.
fn first_lines(from: &Path, to: &Path, bytes: u64) -> anyhow::Result<()> {
    let unread = || format!("cannot read {}", from.display());
    let mut lines = std::fs::File::open(from).with_context(unread)?;
    let mut head = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(&mut lines, bytes), &mut head)
        .with_context(unread)?;
    let end = head
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    let unwritten = || format!("cannot write {}", to.display());
    let mut file = std::fs::File::create(to).with_context(unwritten)?;
    file.write_all(&head[..end]).with_context(unwritten)
}
