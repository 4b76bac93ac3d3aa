//! `sawmill job`: what became of jobs.

#[cfg(feature = "sql")]
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use control::Control;
use futures::StreamExt as _;
use model::{Job, JobState, Name, Processor};
use storage::{JobFilter, Retention};
use tokio::time::Instant;

use super::Context;
use crate::{
    cli,
    exit::Exit,
    output,
    view::{FailureView, JobView, StderrView},
};

const REFERENCE: &str = "A JOB is an id, a unique beginning of one, or `last` for the newest job.";

/// `sawmill job`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List jobs, the newest first
    List(ListArgs),
    /// Show a job: counts, times, what failed
    #[command(after_help = REFERENCE)]
    Show(ShowArgs),
    /// Wait until jobs have ended; exits 1 when one of them did not succeed
    #[command(after_help = REFERENCE)]
    Wait(WaitArgs),
    /// Print the result of a job
    #[command(after_help = REFERENCE)]
    Output(OutputArgs),
    /// Ask for the end of jobs
    #[command(after_help = REFERENCE)]
    Cancel(Jobs),
    /// Remove results, failures and jobs that are older than their retention
    Prune(PruneArgs),
}

/// `sawmill job list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// In this state (PENDING, STAGING, RUNNING, SUCCESSFUL, FAILED, CANCELLED); may be repeated
    #[arg(long, value_name = "STATE")]
    state: Vec<JobState>,
    /// Over this dataset
    #[arg(long, value_name = "NAME")]
    dataset: Option<Name>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
}

/// One job.
#[derive(Clone, Debug, Args)]
pub struct OneJob {
    /// Which
    job: String,
}

/// `sawmill job output`.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// Which
    job: String,
    /// Write the answer of a query to this file, in the form that its ending tells: json, csv, arrow, parquet
    #[cfg(feature = "sql")]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Some jobs.
#[derive(Clone, Debug, Args)]
pub struct Jobs {
    /// Which
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,
}

/// `sawmill job show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Which
    job: String,
    /// How many failures to show, and of how many subtasks what they printed to standard error
    #[arg(long, value_name = "N", default_value_t = 5)]
    failures: u32,
}

/// `sawmill job wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// Which
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,
    /// Give up after this long, such as 30s
    #[arg(long, value_name = "TIME", value_parser = cli::span)]
    timeout: Option<Duration>,
}

/// `sawmill job prune`.
#[derive(Clone, Debug, Args)]
pub struct PruneArgs {
    /// Remove everything of jobs that ended longer ago than this, instead of results after 7 and jobs after 30 days
    #[arg(long, value_name = "TIME", value_parser = cli::span)]
    older_than: Option<Duration>,
}

impl Command {
    /// Whether it may print the answer of a query.
    pub(crate) fn prints_answers(&self) -> bool {
        matches!(self, Self::Output(_))
    }
}

/// Runs the command.
///
/// # Errors
/// What can't be reached or found, with its place.
pub async fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    let control = context.control().await?;
    match command {
        Command::List(args) => list(args, &control, context).await,
        Command::Show(args) => show(args, &control, context).await,
        Command::Wait(args) => wait(args, &control, context).await,
        Command::Output(args) => fetch(args, &control, context).await,
        Command::Cancel(args) => cancel(args, &control, context).await,
        Command::Prune(args) => prune(args, &control, context).await,
    }
}

async fn list(args: ListArgs, control: &Control, context: &Context) -> anyhow::Result<Exit> {
    let filter = JobFilter {
        states: args.state,
        dataset: args.dataset,
        limit: Some(args.limit),
    };
    let jobs = control.jobs(&filter).await?;
    if context.json() {
        output::json(&jobs.iter().map(JobView::from).collect::<Vec<_>>())?;
        return Ok(Exit::Success);
    }
    if jobs.is_empty() {
        output::note("no jobs");
        return Ok(Exit::Success);
    }
    let rows = jobs.iter().map(|job| {
        [
            job.id.to_string(),
            state_of(job),
            job.spec.dataset.to_string(),
            job.spec.priority.get().to_string(),
            format!(
                "{}/{}",
                output::grouped(job.counts.ended()),
                output::grouped(job.subtasks())
            ),
            output::grouped(job.counts.failed),
            output::ago(job.submitted_ms),
            took(job).map(output::duration).unwrap_or_default(),
        ]
    });
    output::table(
        &[
            "JOB",
            "STATE",
            "DATASET",
            ">PRIO",
            ">ENDED",
            ">FAILED",
            "SUBMITTED",
            "TOOK",
        ],
        rows,
    )?;
    Ok(Exit::Success)
}

fn state_of(job: &Job) -> String {
    let cancelling = job.cancel_requested && !job.state.is_final();
    if cancelling {
        format!("{} (cancelling)", job.state)
    } else {
        job.state.to_string()
    }
}

fn took(job: &Job) -> Option<Duration> {
    let took = job.finished_ms? - job.submitted_ms;
    Some(Duration::from_millis(u64::try_from(took).unwrap_or(0)))
}

async fn show(args: ShowArgs, control: &Control, context: &Context) -> anyhow::Result<Exit> {
    let job = control.job(&args.job).await?;
    let failures = failures_of(control, &job, args.failures).await?;
    let stderr = stderr_of(control, &job, args.failures).await?;
    let left_out = left_out(control, &job).await;
    if context.json() {
        let shown = serde_json::json!({
            "job": JobView::from(&job),
            "failures": failures,
            "stderr": stderr,
            "left_out": left_out.1,
        });
        output::json(&shown)?;
        return Ok(Exit::Success);
    }
    let counts = &job.counts;
    let mut pairs = vec![
        ("job", job.id.to_string()),
        ("state", state_of(&job)),
        ("dataset", job.spec.dataset.to_string()),
        ("priority", job.spec.priority.get().to_string()),
    ];
    match &job.spec.processor {
        Processor::Noop => pairs.push(("processor", "noop".to_string())),
        Processor::Command(command) => {
            pairs.push(("map", command.map.clone()));
            pairs.extend(command.reduce.clone().map(|reduce| ("reduce", reduce)));
            pairs.extend(options_of(command).map(|options| ("options", options)));
        }
        Processor::Query(query) => {
            pairs.push(("query", query.sql.clone()));
            for table in &query.tables {
                pairs.push(("format", format!("{}: {}", table.name, table.table.format.name())));
            }
        }
    }
    let left = job.subtasks().saturating_sub(counts.ended());
    let numbers = [
        ("ok", counts.ok),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
        ("not ended", left),
    ];
    let numbers: Vec<String> = numbers
        .iter()
        .map(|(word, number)| format!("{} {word}", output::grouped(*number)))
        .collect();
    pairs.push((
        "subtasks",
        format!("{}: {}", output::grouped(job.subtasks()), numbers.join(", ")),
    ));
    pairs.push(("run again", output::grouped(counts.again)));
    if job.spec.reuse {
        pairs.push((
            "reused",
            format!(
                "{} already recorded, {} in flight",
                counts.already, counts.executed
            ),
        ));
    }
    pairs.push(("busy", output::duration(Duration::from_micros(counts.busy_us))));
    pairs.push(("submitted", output::time(job.submitted_ms)));
    pairs.extend(job.admitted_ms.map(|at| ("admitted", output::time(at))));
    pairs.extend(job.finished_ms.map(|at| ("finished", output::time(at))));
    pairs.extend(took(&job).map(|took| ("took", output::duration(took))));
    pairs.extend(job.error.clone().map(|error| ("error", error)));
    if !left_out.0.is_empty() {
        pairs.push(("left out", left_out.0.join("\n")));
    }
    output::pairs(&pairs)?;
    if !failures.is_empty() {
        output::line("\nfailures:")?;
        for failure in &failures {
            output::line(format_args!("  {}", failure.told().replace('\n', "\n  ")))?;
        }
    }
    if !stderr.is_empty() {
        output::line("\nstandard error of what succeeded:")?;
        for tail in &stderr {
            output::line(format_args!("  {}", tail.told().replace('\n', "\n  ")))?;
        }
    }
    Ok(Exit::Success)
}

/// How the commands of a job run, where that is not as usual. Of variables the names alone.
fn options_of(command: &model::processor::Command) -> Option<String> {
    let mut options = Vec::new();
    if !command.pipefail {
        options.push("--no-pipefail".to_string());
    }
    if !command.ok_exit.is_empty() {
        let codes: Vec<_> = command.ok_exit.iter().map(ToString::to_string).collect();
        options.push(format!("--ok-exit 0,{}", codes.join(",")));
    }
    options.extend(command.env.keys().map(|name| format!("--env {name}")));
    (!options.is_empty()).then(|| options.join(" "))
}

/// The blocks that are not in the answer of a job, for people and as JSON.
async fn left_out(control: &Control, job: &Job) -> (Vec<String>, serde_json::Value) {
    #[cfg(feature = "sql")]
    if job.spec.skip_missing && job.state == JobState::Successful {
        // What retention has removed can't be told any more.
        let answer = bytes_of(control, job).await.unwrap_or_default();
        let left_out = sql::left_out(&answer).unwrap_or_default();
        let places = left_out.iter().map(super::query::answer::place).collect();
        return (places, serde_json::json!(left_out));
    }
    let _ = (control, job);
    (Vec::new(), serde_json::json!([]))
}

/// At most so many attempts that gave no result.
async fn failures_of(control: &Control, job: &Job, limit: u32) -> anyhow::Result<Vec<FailureView>> {
    let attempts = control.failed_attempts(job, limit).await?;
    Ok(attempts.iter().map(FailureView::from).collect())
}

/// What commands that succeeded printed to standard error, of at most so many subtasks.
pub(super) async fn stderr_of(control: &Control, job: &Job, limit: u32) -> anyhow::Result<Vec<StderrView>> {
    let tails = control.stderr_tails(job, limit).await?;
    Ok(tails.into_iter().map(StderrView::from).collect())
}

async fn wait(args: WaitArgs, control: &Control, context: &Context) -> anyhow::Result<Exit> {
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut ids = Vec::new();
    for reference in &args.jobs {
        ids.push(control.resolve(reference).await?);
    }
    let mut jobs = Vec::new();
    for id in ids {
        jobs.push(control.wait(id, deadline, |_| ()).await?);
    }
    if context.json() {
        output::json(&jobs.iter().map(JobView::from).collect::<Vec<_>>())?;
    } else {
        for job in &jobs {
            output::line(format_args!("{} {}", job.id, job.state))?;
        }
    }
    let successful = jobs.iter().all(|job| job.state == JobState::Successful);
    Ok(if successful { Exit::Success } else { Exit::Failure })
}

async fn fetch(args: OutputArgs, control: &Control, context: &Context) -> anyhow::Result<Exit> {
    let job = control.job(&args.job).await?;
    #[cfg(feature = "sql")]
    if let Processor::Query(_) = &job.spec.processor {
        let target = super::query::answer::Target::new(context.format, args.to)?;
        target.print(control, &job).await?;
        return Ok(Exit::Success);
    }
    #[cfg(feature = "sql")]
    if args.to.is_some() {
        return Err(crate::exit::usage(
            "--to is for the answers of queries: send the output of commands on with `> FILE`",
        ));
    }
    if context.json() {
        let text = text_of(control, &job).await?;
        output::json(&serde_json::json!({ "job": job.id.to_string(), "state": job.state, "output": text }))?;
    } else {
        print_output(control, &job).await?;
    }
    Ok(Exit::Success)
}

async fn cancel(args: Jobs, control: &Control, context: &Context) -> anyhow::Result<Exit> {
    let mut cancelled = Vec::new();
    for reference in &args.jobs {
        let job = control.cancel(reference).await?;
        context
            .log("job.cancel", &job.id.to_string(), String::new())
            .await?;
        if !context.json() {
            output::line(format_args!("job {} is asked to end", job.id))?;
        }
        cancelled.push(JobView::from(&job));
    }
    if context.json() {
        output::json(&cancelled)?;
    }
    Ok(Exit::Success)
}

async fn prune(args: PruneArgs, control: &Control, context: &Context) -> anyhow::Result<Exit> {
    context.needs_stores()?;
    let retention = match args.older_than {
        Some(age) => Retention {
            results: age,
            jobs: age,
        },
        None => Retention {
            results: context.settings.retention_results,
            jobs: context.settings.retention_jobs,
        },
    };
    let pruned = control.prune(retention).await?;
    let details = format!("{} jobs, {} results", pruned.jobs, pruned.results);
    context.log("job.prune", "", details).await?;
    if context.json() {
        output::json(&serde_json::json!({
            "jobs": pruned.jobs,
            "results": pruned.results,
            "failures": pruned.failures,
            "objects": pruned.objects,
        }))?;
    } else {
        output::line(format_args!(
            "removed {} jobs, {} results, {} failures, {} stored outputs",
            output::grouped(pruned.jobs),
            output::grouped(pruned.results),
            output::grouped(pruned.failures),
            output::grouped(pruned.objects),
        ))?;
    }
    Ok(Exit::Success)
}

/// Writes the result of a job to standard output.
pub(super) async fn print_output(control: &Control, job: &Job) -> anyhow::Result<()> {
    let mut chunks = control.output(job).await?;
    let mut out = output::Printed::to_stdout();
    while let Some(chunk) = chunks.next().await {
        out.write(&chunk?)?;
    }
    out.end()
}

/// The result of a job as text; bytes that are no UTF-8 become `U+FFFD`.
pub(super) async fn text_of(control: &Control, job: &Job) -> anyhow::Result<String> {
    let bytes = bytes_of(control, job).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The result of a job in memory.
pub(super) async fn bytes_of(control: &Control, job: &Job) -> anyhow::Result<Vec<u8>> {
    let mut chunks = control.output(job).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

/// How many failures are told when a job fails under somebody's eyes.
const FAILURES_TOLD: u32 = 3;

/// Says on standard error why a job has no result.
pub(super) async fn tell_failure(control: &Control, job: &Job) -> anyhow::Result<()> {
    let reason = job
        .error
        .as_ref()
        .map(|error| format!(": {error}"))
        .unwrap_or_default();
    output::note(format_args!("error: job {} is {}{reason}", job.id, job.state));
    for failure in failures_of(control, job, FAILURES_TOLD).await? {
        output::note(format_args!("  {}", failure.told().replace('\n', "\n  ")));
    }
    if job.state == JobState::Failed {
        output::note(format_args!("`sawmill job show {}` tells more", job.id));
    }
    Ok(())
}
