//! `sawmill bench ingest`: a log shipped into the mill by `sawmill ship` and by a following agent, beside rsync over
//! loopback in the same run; what an agent costs at rest; how long a new line takes into the answer of a view.
//!
//! The agent and the shipments are processes of this program that know a gateway only; dispatcher, worker and watcher run
//! in this process. All checks are on: checksums on both sides, blocks synced and, for `ship`, read back from the store.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;

use self::{live::Live, rest::Rest};
use super::{
    access_log::{self, Site, Until},
    args::IngestArgs,
    report::{self, Line, Report, line, ms, step},
    rig::{Rig, with_mill},
    sample::Sample,
};
use crate::{
    config::Settings,
    output::{self, Format},
};

mod agent;
mod live;
mod rest;
mod rivals;
mod shipment;

/// What was measured.
#[derive(Debug, Serialize)]
struct IngestReport {
    bytes: u64,
    lines: u64,
    rounds: u32,
    servers: String,
    /// Checksum and compression of the same bytes on one thread of this process, without reading or writing.
    packing_mb_per_s: f64,
    ways: Vec<Way>,
    rest: Rest,
    live: Live,
}

/// One way for the log to go.
#[derive(Debug, Serialize)]
struct Way {
    name: &'static str,
    /// Median of the rounds, in millions of bytes of log per second.
    mb_per_s: f64,
    all_s: Vec<f64>,
}

impl Way {
    fn new(name: &'static str, bytes: u64, all: &[Duration]) -> Self {
        let median = all.iter().copied().collect::<Sample>().median();
        Self {
            name,
            mb_per_s: bytes as f64 / 1e6 / median.as_secs_f64().max(1e-9),
            all_s: all.iter().map(Duration::as_secs_f64).collect(),
        }
    }
}

impl Report for IngestReport {
    fn about(&self) -> Vec<String> {
        vec![format!(
            "an access log of {} ({} lines), {}; medians of {} rounds",
            output::size(self.bytes),
            output::grouped(self.lines),
            self.servers,
            self.rounds
        )]
    }

    fn lines(&self) -> Vec<Line> {
        let rate = |rate: f64| format!("{rate:.0} MB/s");
        let rsync = self.ways.iter().find(|way| way.name == rivals::PLAIN);
        let mut lines: Vec<Line> = self
            .ways
            .iter()
            .map(|way| {
                let note = rsync.map(|rsync| format!("{:.2} of rsync's rate", way.mb_per_s / rsync.mb_per_s));
                line(way.name, rate(way.mb_per_s), note.unwrap_or_default())
            })
            .collect();
        lines.push(line(
            "checksum and compression alone",
            rate(self.packing_mb_per_s),
            "one thread",
        ));
        let Rest { files, memory, .. } = &self.rest;
        lines.push(line(
            format!("agent at rest, {files} files"),
            format!("{:.2} % CPU", self.rest.cpu_percent),
            format!(
                "of one core; {} resident, {} of it its own",
                output::size(memory.resident_bytes),
                output::size(memory.own_bytes)
            ),
        ));
        let Live { spread, age_ms, .. } = &self.live;
        lines.push(line(
            "line to answer of a view, p50",
            ms(spread.p50_ms),
            format!("blocks are {} old; p99 {}", ms(*age_ms), ms(spread.p99_ms)),
        ));
        lines
    }
}

/// Measures and prints.
///
/// # Errors
/// Without rsync; what can't be started; a log that does not arrive as a whole.
pub(super) async fn run(args: &IngestArgs, settings: &Settings, format: Format) -> anyhow::Result<()> {
    rivals::check().await?;
    let rig = Rig::start(&args.servers, settings).await?;
    let measured = measure(args, &rig).await;
    let stopped = rig.stop().await;
    report::print(&measured?, format)?;
    stopped
}

async fn measure(args: &IngestArgs, rig: &Rig) -> anyhow::Result<IngestReport> {
    let log = rig.dir.path().join("access.log");
    step(format_args!(
        "writing an access log of {}",
        output::size(args.bytes.0)
    ));
    let (lines, bytes) = write_log(log.clone(), args.bytes.0).await?;
    let packing_mb_per_s = packing(log.clone()).await?;
    let (mill, server) = rig.reachable_mill(args.slots).await?;
    let (ways, rest, live) = with_mill(mill, async {
        let ways = compare(
            args,
            rig,
            &server,
            Log {
                path: &log,
                bytes,
                lines,
            },
        )
        .await?;
        let rest = rest::measure(rig, &server, args.files).await?;
        let live = live::measure(rig, &server, args.live).await?;
        Ok((ways, rest, live))
    })
    .await?;
    Ok(IngestReport {
        bytes,
        lines,
        rounds: args.rounds,
        servers: rig.servers(),
        packing_mb_per_s,
        ways,
        rest,
        live,
    })
}

/// What is shipped.
#[derive(Clone, Copy)]
struct Log<'a> {
    path: &'a Path,
    bytes: u64,
    lines: u64,
}

/// All in turns, after a first round that only warms up.
async fn compare(args: &IngestArgs, rig: &Rig, server: &str, log: Log<'_>) -> anyhow::Result<Vec<Way>> {
    let mut rsync = rivals::Daemon::start(&rig.dir.path().join("rsync")).await?;
    let mut took: [Vec<Duration>; 4] = Default::default();
    for round in 0..=args.rounds {
        step(format_args!("round {round} of {}", args.rounds));
        let this = [
            shipment::ship(rig, server, round, log).await?,
            shipment::follow(rig, server, round, log).await?,
            rsync.copy(log.path, &[]).await?,
            rsync.copy(log.path, &rivals::COMPRESS).await?,
        ];
        if round > 0 {
            for (all, this) in took.iter_mut().zip(this) {
                all.push(this);
            }
        }
    }
    rsync.stop().await;
    let names = [
        shipment::SHIP,
        shipment::FOLLOW,
        rivals::PLAIN,
        rivals::COMPRESSED,
    ];
    Ok(names
        .into_iter()
        .zip(&took)
        .map(|(name, took)| Way::new(name, log.bytes, took))
        .collect())
}

async fn write_log(path: PathBuf, bytes: u64) -> anyhow::Result<(u64, u64)> {
    let shown = path.display().to_string();
    let write = move || {
        let mut to = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let written = access_log::write(&mut to, Until::Bytes(bytes), 1, Site::Busy)?;
        to.flush()?;
        Ok::<_, std::io::Error>(written)
    };
    let written = tokio::task::spawn_blocking(write).await?;
    written.with_context(|| format!("cannot write {shown}"))
}

/// Bytes of log packed for [`IngestReport::packing_mb_per_s`], at most.
const PACKED: u64 = 256 << 20;
/// Bytes of a block, as agents cut them unless they are told otherwise.
const BLOCK: usize = 8 << 20;

/// BLAKE3 of the lines, zstd at level 1, BLAKE3 of that: what an agent does to each block.
async fn packing(log: PathBuf) -> anyhow::Result<f64> {
    let pack = move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(File::open(log)?, PACKED), &mut bytes)?;
        let begin = std::time::Instant::now();
        for block in bytes.chunks(BLOCK) {
            let raw = blake3::hash(block);
            let packed = zstd::bulk::compress(block, 1)?;
            std::hint::black_box((raw, blake3::hash(&packed)));
        }
        let rate = bytes.len() as f64 / 1e6 / begin.elapsed().as_secs_f64();
        Ok::<_, std::io::Error>(rate)
    };
    tokio::task::spawn_blocking(pack)
        .await?
        .context("cannot read the log again")
}
