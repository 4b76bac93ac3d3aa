//! `sawmill bench sql`: questions over an access log, asked of the mill by the command `sawmill query` from its start to
//! its printed answer, and of others, in turns.
//!
//! For the first time nothing is decoded and nothing recorded: each round has a dataset of its own over another link to
//! the same file, which is in the page cache. The others tell their own time, without starting.

use std::{
    ffi::OsString,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use self::{
    questions::{QUESTIONS, Question},
    report::{Asked, SqlReport},
    rivals::{Database, Rows},
};
use super::{
    access_log::{self, Site, Until},
    args::SqlArgs,
    report::{print, step},
    rig::{Rig, Shape, with_mill},
    sample::Sample,
};
use crate::{
    config::{Settings, Share},
    output::{self, Format},
};

mod dispatch;
mod parsers;
mod questions;
mod report;
mod rivals;

/// Measures and prints.
///
/// # Errors
/// What can't be read or started; answers that differ from those of the others.
pub(super) async fn run(args: &SqlArgs, settings: &Settings, format: Format) -> anyhow::Result<()> {
    let mut settings = settings.clone();
    settings.cache = Share::Bytes(args.cache.0);
    let rig = Rig::start(&args.servers, &settings).await?;
    let measured = measure(args, &rig).await;
    let stopped = rig.stop().await;
    print(&measured?, format)?;
    stopped
}

async fn measure(args: &SqlArgs, rig: &Rig) -> anyhow::Result<SqlReport> {
    let file = rig.dir.path().join("access.log");
    step(format_args!(
        "writing an access log of {}",
        output::size(args.bytes.0)
    ));
    let (lines, bytes) = write_log(file.clone(), args.bytes.0).await?;
    let asker = Asker {
        rig,
        args,
        file: &file,
    };
    let mut databases = Database::start_all(&args.python, &file, args.slots).await;
    let shape = |slots, nodes| Shape {
        slots,
        nodes,
        watchers: 1,
        bundles: true,
        dispatcher: true,
    };
    let questions = with_mill(rig.mill(shape(args.slots, 1)), async {
        let mut asked = Vec::new();
        for question in &QUESTIONS {
            asked.push(asker.compare(question, &mut databases).await?);
        }
        Ok(asked)
    })
    .await?;
    drop(databases);
    let peak_memory_bytes = peak_memory();
    let dispatch = with_mill(rig.mill(shape(args.slots, 1)), dispatch::measure(&asker)).await?;
    let one = with_mill(rig.mill(shape(1, 1)), asker.alone("one")).await?;
    let two = with_mill(rig.mill(shape(1, 2)), asker.alone("two")).await?;
    step("parsing in this process");
    let parsers = tokio::task::spawn_blocking(parsers::measure).await??;
    let planning = parsers::planning().await?;
    Ok(SqlReport {
        bytes,
        lines,
        block_bytes: args.block.0,
        slots: args.slots,
        rounds: args.rounds,
        questions,
        two_nodes: one.as_secs_f64() / two.as_secs_f64(),
        dispatch,
        planning_ms: planning.as_secs_f64() * 1e3,
        peak_memory_bytes,
        cache_bytes: args.cache.0,
        memory_bytes_per_s: parsers::memory_bytes_per_s(),
        parsers,
    })
}

/// Asks the mill by the command.
struct Asker<'a> {
    rig: &'a Rig,
    args: &'a SqlArgs,
    file: &'a Path,
}

impl Asker<'_> {
    /// All in turns, after a first round that only warms up.
    async fn compare(&self, question: &Question, databases: &mut [Database]) -> anyhow::Result<Asked> {
        let (mut first, mut cached, mut reused) = (Vec::new(), Vec::new(), Vec::new());
        let mut rivals: Vec<(String, Vec<Duration>)> = vec![("GNU parallel, mawk".into(), Vec::new())];
        rivals.extend(
            databases
                .iter()
                .map(|database| (database.name.into(), Vec::new())),
        );
        for round in 0..=self.args.rounds {
            step(format_args!(
                "round {round} of {}: {}",
                self.args.rounds, question.name
            ));
            let dataset = self
                .dataset(&format!("{}-{round}", question.name.to_lowercase()))
                .await?;
            let (first_took, answer) = self.ask(question, &dataset, &[]).await?;
            let (cached_took, again) = self.ask(question, &dataset, &["--no-reuse"]).await?;
            let (reused_took, third) = self.ask(question, &dataset, &[]).await?;
            ensure!(
                again == answer && third == answer,
                "{}: other answers when asked again",
                question.name
            );
            let mut took = vec![rivals::awk(question, self.file, self.args.block.0, self.args.slots).await?];
            for database in databases.iter_mut() {
                took.push(database.ask(question).await?);
            }
            for ((name, all), (took, theirs)) in rivals.iter_mut().zip(took) {
                check(question, name, &answer, &theirs)?;
                if round > 0 {
                    all.push(took);
                }
            }
            if round > 0 {
                first.push(first_took);
                cached.push(cached_took);
                reused.push(reused_took);
            }
        }
        let rivals: Vec<(String, f64, Vec<f64>)> = rivals
            .into_iter()
            .map(|(name, all)| (name, median(&all), seconds(&all)))
            .collect();
        let best = rivals.iter().map(|(_, took, _)| *took).min_by(f64::total_cmp);
        Ok(Asked {
            name: question.name,
            about: question.about,
            first_s: median(&first),
            first_all_s: seconds(&first),
            cached_s: median(&cached),
            cached_all_s: seconds(&cached),
            reused_s: median(&reused),
            reused_all_s: seconds(&reused),
            ratio: best.map(|best| median(&first) / best),
            rivals,
        })
    }

    /// How long the first question takes for the first time.
    async fn alone(&self, name: &str) -> anyhow::Result<Duration> {
        let mut all = Vec::new();
        for round in 0..=self.args.rounds {
            let dataset = self.dataset(&format!("{name}-{round}")).await?;
            let (took, _) = self.ask(&QUESTIONS[0], &dataset, &[]).await?;
            if round > 0 {
                all.push(took);
            }
        }
        Ok(all.iter().copied().collect::<Sample>().median())
    }

    /// A dataset over a link of its own to the log.
    async fn dataset(&self, name: &str) -> anyhow::Result<String> {
        self.dataset_of(name, self.file).await
    }

    /// A dataset over a link of its own to a file.
    async fn dataset_of(&self, name: &str, file: &Path) -> anyhow::Result<String> {
        let name = name.replace('-', "_");
        let link = file.with_file_name(format!("{name}.log"));
        std::fs::hard_link(file, &link).with_context(|| format!("cannot link {}", link.display()))?;
        let block = self.args.block.0.to_string();
        let add: [OsString; 6] = [
            "dataset".into(),
            "add".into(),
            name.clone().into(),
            link.into(),
            "--block-size".into(),
            block.into(),
        ];
        self.command(&add).await?;
        Ok(name)
    }

    /// From the start of the command to its end.
    async fn ask(
        &self,
        question: &Question,
        dataset: &str,
        more: &[&str],
    ) -> anyhow::Result<(Duration, Rows)> {
        let sql = question.sawmill.replace("{table}", dataset);
        let fixed = ["query", &sql, "--output", "csv"];
        let all: Vec<OsString> = fixed.iter().chain(more).map(Into::into).collect();
        let begin = Instant::now();
        let printed = self.command(&all).await?;
        let took = begin.elapsed();
        let mut rows = rivals::rows(&printed);
        ensure!(rows.len() > 1, "{} gave no rows", question.name);
        rows.remove(0);
        Ok((took, rows))
    }

    async fn command(&self, args: &[OsString]) -> anyhow::Result<Vec<u8>> {
        let settings = &self.rig.settings;
        let program: PathBuf = std::env::current_exe()?;
        let output = tokio::process::Command::new(program)
            .args(args)
            .env("SAWMILL_ZOOKEEPER", &settings.zookeeper)
            .env("SAWMILL_MONGODB", settings.mongodb.expose())
            .env("SAWMILL_STORE", &settings.store)
            .env("SAWMILL_SCRATCH", &settings.scratch)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "{args:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }
}

/// The exact columns of the two must agree.
fn check(question: &Question, name: &str, ours: &Rows, theirs: &Rows) -> anyhow::Result<()> {
    let exact = |rows: &Rows| -> Rows {
        rows.iter()
            .map(|row| row.iter().take(question.exact_columns).cloned().collect())
            .collect()
    };
    ensure!(
        ours.len() == theirs.len() && exact(ours) == exact(theirs),
        "{} is answered by {name} with {} rows {:?}, here with {} rows {:?}",
        question.name,
        theirs.len(),
        theirs.first(),
        ours.len(),
        ours.first()
    );
    Ok(())
}

fn median(all: &[Duration]) -> f64 {
    all.iter().copied().collect::<Sample>().median().as_secs_f64()
}

fn seconds(all: &[Duration]) -> Vec<f64> {
    all.iter().map(Duration::as_secs_f64).collect()
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

/// The largest memory that this process has had, in bytes; 0 where the system does not tell.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
