//! `sawmill bench scan`: a raw scan of files with a command, beside GNU parallel with the same command, block size and
//! number of jobs at once, in turns.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use control::{Adding, Source};
use futures::TryStreamExt as _;
use model::{Name, Processor, processor::Command};
use serde::Serialize;

use super::{
    access_log::{self, Site, Until},
    args::ScanArgs,
    report::{self, Line, Report, line, step},
    rig::{Rig, Shape, with_mill},
    sample::Sample,
    workload,
};
use crate::{
    config::Settings,
    output::{self, Format},
};

/// What is run when nobody says what.
const COMMANDS: [&str; 2] = ["wc -l", "awk '{print $9}' | sort | uniq -c"];

/// What was measured.
#[derive(Debug, Serialize)]
struct ScanReport {
    files: Vec<PathBuf>,
    bytes: u64,
    block_bytes: u64,
    slots: u32,
    rounds: u32,
    commands: Vec<Measured>,
}

/// One command.
#[derive(Debug, Serialize)]
struct Measured {
    map: String,
    mill_median_s: f64,
    mill_s: Vec<f64>,
    parallel_median_s: f64,
    parallel_s: Vec<f64>,
    /// The mill beside GNU parallel.
    ratio: f64,
}

impl Report for ScanReport {
    fn about(&self) -> Vec<String> {
        let load = format!("{} in {} file(s)", output::size(self.bytes), self.files.len());
        let how = format!(
            "blocks of {}, {} at once",
            output::size(self.block_bytes),
            self.slots
        );
        vec![format!("{load}, {how}; medians of {} rounds", self.rounds)]
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for measured in &self.commands {
            lines.push(line(measured.map.clone(), "", ""));
            lines.push(line(
                "  GNU parallel",
                format!("{:.3} s", measured.parallel_median_s),
                "",
            ));
            let note = format!("{:.3} of GNU parallel's time", measured.ratio);
            lines.push(line(
                "  the mill",
                format!("{:.3} s", measured.mill_median_s),
                note,
            ));
        }
        lines
    }
}

/// Measures and prints.
///
/// # Errors
/// Without GNU parallel; what can't be read or started; answers of the two that differ.
pub(super) async fn run(args: &ScanArgs, settings: &Settings, format: Format) -> anyhow::Result<()> {
    check_parallel().await?;
    let rig = Rig::start(&args.servers, settings).await?;
    let measured = measure(args, &rig).await;
    let stopped = rig.stop().await;
    report::print(&measured?, format)?;
    stopped
}

async fn measure(args: &ScanArgs, rig: &Rig) -> anyhow::Result<ScanReport> {
    let files = files(args, rig.dir.path()).await?;
    let name = Name::new("scanned")?;
    let adding = Adding {
        dataset: name.clone(),
        sources: sources(&files)?,
        block_size: args.block.0,
        format: None,
        types: Vec::new(),
        again: false,
        force: false,
    };
    rig.control.add_files(&adding).await?;
    let mut bytes = 0;
    for file in &files {
        bytes += std::fs::metadata(file)?.len();
    }
    let shape = Shape {
        slots: args.slots,
        nodes: 1,
        watchers: 1,
        bundles: true,
        dispatcher: true,
    };
    let commands = with_mill(rig.mill(shape), async {
        let given = args.map.iter().map(String::as_str);
        let all: Vec<&str> = if args.map.is_empty() {
            COMMANDS.to_vec()
        } else {
            given.collect()
        };
        let mut measured = Vec::new();
        for map in all {
            measured.push(compare(args, rig, &name, &files, map).await?);
        }
        Ok(measured)
    })
    .await?;
    let (block_bytes, slots, rounds) = (args.block.0, args.slots, args.rounds);
    Ok(ScanReport {
        files,
        bytes,
        block_bytes,
        slots,
        rounds,
        commands,
    })
}

/// Both in turns, after a first round of each that only warms up.
async fn compare(
    args: &ScanArgs,
    rig: &Rig,
    dataset: &Name,
    files: &[PathBuf],
    map: &str,
) -> anyhow::Result<Measured> {
    let (mut mill, mut parallel) = (Vec::new(), Vec::new());
    for round in 0..=args.rounds {
        step(format_args!("round {round} of {}: {map}", args.rounds));
        let (parallel_took, parallel_sum) = run_parallel(args, rig.dir.path(), files, map).await?;
        let (mill_took, mill_sum) = run_mill(rig, dataset, map).await?;
        if let (Some(a), Some(b)) = (mill_sum, parallel_sum) {
            ensure!(
                a == b,
                "the mill's first column adds up to {a}, that of GNU parallel to {b}: {map}"
            );
        }
        if round > 0 {
            mill.push(mill_took);
            parallel.push(parallel_took);
        }
    }
    let median = |all: &[Duration]| all.iter().copied().collect::<Sample>().median().as_secs_f64();
    let seconds = |all: &[Duration]| all.iter().map(Duration::as_secs_f64).collect();
    let (mill_median_s, parallel_median_s) = (median(&mill), median(&parallel));
    Ok(Measured {
        map: map.to_owned(),
        mill_median_s,
        mill_s: seconds(&mill),
        parallel_median_s,
        parallel_s: seconds(&parallel),
        ratio: mill_median_s / parallel_median_s,
    })
}

async fn run_mill(rig: &Rig, dataset: &Name, map: &str) -> anyhow::Result<(Duration, Option<u64>)> {
    let command = Command {
        map: map.to_owned(),
        ..Command::default()
    };
    let spec = workload::spec(dataset, Processor::Command(command));
    let (timed, job) = workload::time_job(&rig.control, spec).await?;
    let chunks = rig.control.output(&job).await?;
    let output: Vec<u8> = chunks
        .try_fold(Vec::new(), |mut all, chunk| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await?;
    Ok((timed.took, first_column_sum(&output)))
}

async fn run_parallel(
    args: &ScanArgs,
    dir: &Path,
    files: &[PathBuf],
    map: &str,
) -> anyhow::Result<(Duration, Option<u64>)> {
    let output = dir.join("parallel.out");
    let mut command = tokio::process::Command::new("parallel");
    command
        .env("PARALLEL_SHELL", "/bin/sh")
        .arg("--will-cite")
        .arg("--pipepart");
    command.args([
        "--block",
        &args.block.0.to_string(),
        "-j",
        &args.slots.to_string(),
    ]);
    for file in files {
        command.arg("-a").arg(file);
    }
    command
        .arg(map)
        .stdin(Stdio::null())
        .stdout(File::create(&output)?)
        .kill_on_drop(true);
    let begin = Instant::now();
    let status = command.status().await.context("cannot run GNU parallel")?;
    let took = begin.elapsed();
    ensure!(status.success(), "GNU parallel ended with {status}: {map}");
    Ok((took, first_column_sum(&std::fs::read(&output)?)))
}

/// The sum of the first words of all lines, when each is a number: `wc -l` and `uniq -c` agree on it however the lines
/// were split into blocks.
fn first_column_sum(output: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(output).ok()?;
    text.lines()
        .map(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

async fn check_parallel() -> anyhow::Result<()> {
    let found = tokio::process::Command::new("parallel")
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .await;
    match found {
        Ok(output) if output.stdout.starts_with(b"GNU parallel") => Ok(()),
        _ => bail!("this compares with GNU parallel, which was not found: apt-get install parallel"),
    }
}

/// The files to scan, absolute: those given, or a made-up log.
async fn files(args: &ScanArgs, dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !args.files.is_empty() {
        let absolute = |file: &PathBuf| {
            file.canonicalize()
                .with_context(|| format!("cannot read {}", file.display()))
        };
        return args.files.iter().map(absolute).collect();
    }
    let path = dir.join("access.log");
    step(format_args!(
        "writing an access log of {}",
        output::size(args.bytes.0)
    ));
    let (to, until) = (path.clone(), Until::Bytes(args.bytes.0));
    let write = move || {
        let mut to = BufWriter::with_capacity(1 << 20, File::create(to)?);
        access_log::write(&mut to, until, 1, Site::Small)?;
        to.flush()
    };
    tokio::task::spawn_blocking(write)
        .await?
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(vec![path])
}

fn sources(files: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let parse = |file: &PathBuf| {
        let text = file
            .to_str()
            .with_context(|| format!("{} is not UTF-8", file.display()))?;
        Ok(Source::parse(text)?)
    };
    files.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_add_up_only_when_all_are_numbers() {
        assert_eq!(first_column_sum(b"12 a\n  3 b\n"), Some(15));
        assert_eq!(first_column_sum(b"12 a\nx b\n"), None);
        assert_eq!(first_column_sum(b""), Some(0));
    }
}
