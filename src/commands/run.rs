//! `sawmill run`: one job from its submission to its result.

use std::{
    collections::{BTreeSet, HashSet},
    convert::Infallible,
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use control::{Control, reason};
use futures::{FutureExt as _, future::select_all};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use model::{
    Job, JobId, JobSpec, JobState, Name, Priority, Processor,
    job::DEFAULT_MAX_FAILED,
    processor::{Command, DEFAULT_OUTPUT_LIMIT_BYTES},
    retry::RetryPolicy,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep},
};

use super::{Context, job};
use crate::{
    cli,
    exit::{Exit, usage},
    output, signals,
    view::{JobView, StderrView},
};

const HELP: &str = "\
CMD is given to `bash -o pipefail -c`, or to `sh -c` with --no-pipefail. The map command gets the raw lines of one block \
on standard input; what it prints is the partial result. The reduce command gets all partial results in the order of the \
blocks; what it prints is the result. Without one, the result is all partial results in that order. A partial result of \
text that does not end with a line feed gets one.

A command succeeds when it exits with 0, or with a code of --ok-exit. A pipeline exits with the code of the last of its \
parts that fails, except for one that is ended because the next one stopped reading, as `head` does.

Commands get PATH, HOME, LANG, LC_*, TZ, USER, LOGNAME, SHELL and TMPDIR of their node, what its setting pass_env names, \
and what --env says. They find the job, the dataset, the number of the block and of the attempt in SAWMILL_JOB, \
SAWMILL_DATASET, SAWMILL_BLOCK and SAWMILL_ATTEMPT. Values of --env are kept with the job, as readable as the commands: \
no place for secrets.

Ctrl-C cancels the job. A client that ends in another way leaves it running, unless --cancel-on-exit is given; \
`sawmill job wait JOB` follows it.

Examples:
  sawmill run --dataset access --map 'wc -l' --reduce \"awk '{n += \\$1} END {print n}'\"
  sawmill run --dataset access --map \"awk '{print \\$9}' | sort | uniq -c\" \\
      --reduce \"awk '{n[\\$2] += \\$1} END {for (s in n) print n[s], s}' | sort -rn\"
  sawmill run --dataset access --map 'grep -F 10.0.0.7' --ok-exit 0,1 --no-wait";

/// How long a job may stand still before the command looks for the reason.
const STANDSTILL: Duration = Duration::from_secs(5);

/// How many lines of what the commands printed to standard error are told at the end.
const STDERR_LINES: usize = 10;

/// `sawmill run`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct RunArgs {
    /// Over which dataset
    #[arg(long, value_name = "NAME")]
    dataset: Name,
    /// Command over each block
    #[arg(long, value_name = "CMD")]
    map: String,
    /// Command over the partial results
    #[arg(long, value_name = "CMD")]
    reduce: Option<String>,
    /// 0 to 999, a higher number goes first
    #[arg(long, value_name = "N", default_value = "100", value_parser = priority, allow_negative_numbers = true)]
    priority: Priority,
    /// Answer from results of the same command over the same blocks where they are recorded
    #[arg(long)]
    reuse: bool,
    /// Print the id of the job and leave
    #[arg(long)]
    no_wait: bool,
    /// Cancel the job, too, when this command is ended by SIGTERM or by the end of its terminal
    #[arg(long, conflicts_with = "no_wait")]
    cancel_on_exit: bool,
    /// Let a pipeline succeed when its last part does, whatever the others do
    #[arg(long)]
    no_pipefail: bool,
    /// Exit codes of the commands that count as success, such as 0,1; 0 always does
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    ok_exit: Vec<u8>,
    /// Give the commands this variable; without a value that of this environment. May be repeated
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Longest run of the command over one block, such as 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    timeout: Option<Duration>,
    /// How often a block is tried again after a failure
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=1000))]
    retries: u32,
    /// Stop after so many blocks have failed for good
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_FAILED, value_parser = clap::value_parser!(u32).range(1..))]
    max_failed: u32,
    /// Most bytes that one command may print
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = output_limit)]
    output_limit: u64,
}

pub(super) fn priority(text: &str) -> Result<Priority, String> {
    let bad = || format!("{text:?} is no priority: it must be 0 to 999, a higher number goes first");
    text.parse()
        .ok()
        .and_then(|number| Priority::new(number).ok())
        .ok_or_else(bad)
}

fn timeout(text: &str) -> Result<Duration, String> {
    let least = Duration::from_millis(1);
    cli::span(text).and_then(|span| {
        if span < least {
            Err("it must be at least 1ms".to_string())
        } else {
            Ok(span)
        }
    })
}

fn output_limit(text: &str) -> Result<u64, String> {
    cli::size(text).and_then(|bytes| {
        if bytes == 0 {
            Err("it must be at least 1 byte".to_string())
        } else {
            Ok(bytes)
        }
    })
}

fn variable(text: &str) -> Result<(String, String), String> {
    if let Some((name, value)) = text.split_once('=') {
        return Ok((name.to_string(), value.to_string()));
    }
    match std::env::var(text) {
        Ok(value) => Ok((text.to_string(), value)),
        Err(error) => Err(format!("{text} of this environment can't be used: {error}")),
    }
}

impl RunArgs {
    fn spec(&self) -> JobSpec {
        debug_assert_eq!(
            DEFAULT_OUTPUT_LIMIT_BYTES,
            1 << 30,
            "the default of --output-limit says 1GiB"
        );
        let ok_exit: BTreeSet<u8> = self.ok_exit.iter().copied().filter(|code| *code != 0).collect();
        let processor = Processor::Command(Command {
            map: self.map.clone(),
            reduce: self.reduce.clone(),
            timeout_ms: self
                .timeout
                .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            output_limit_bytes: self.output_limit,
            pipefail: !self.no_pipefail,
            ok_exit: ok_exit.into_iter().collect(),
            env: self.env.iter().cloned().collect(),
        });
        JobSpec {
            priority: self.priority,
            retry: RetryPolicy {
                max_attempts: self.retries + 1,
                ..RetryPolicy::default()
            },
            reuse: self.reuse,
            max_failed: self.max_failed,
            ..JobSpec::new(self.dataset.clone(), processor)
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What can't be reached or found, with its place.
pub async fn run(args: RunArgs, context: &Context) -> anyhow::Result<Exit> {
    let spec = args.spec();
    spec.processor.check().map_err(|error| usage(error.to_string()))?;
    let control = context.control().await?;
    let mut leaving = Leaving::install(args.cancel_on_exit).context("can't take over signals")?;
    let details = format!("over {}: {}", spec.dataset, args.map);
    let id = control.submit(spec).await?;
    context.log("job.submit", &id.to_string(), details).await?;
    if args.no_wait {
        if context.json() {
            output::json(&serde_json::json!({ "job": id.to_string(), "state": JobState::Pending }))?;
        } else {
            output::line(id)?;
        }
        return Ok(Exit::Success);
    }
    output::note(format_args!("job {id}: {}", follow_by(id)));
    let Some(job) = wait_or_cancel(&control, id, &mut leaving).await? else {
        return Ok(Exit::Interrupted);
    };
    finish(&control, &job, context).await
}

/// Prints the result, or why there is none.
async fn finish(control: &Control, job: &Job, context: &Context) -> anyhow::Result<Exit> {
    let successful = job.state == JobState::Successful;
    let tails = job::stderr_of(control, job, if successful { STDERR_SUBTASKS } else { 0 }).await?;
    if context.json() {
        let text = if successful {
            Some(job::text_of(control, job).await?)
        } else {
            None
        };
        output::json(&serde_json::json!({
            "job": job.id.to_string(),
            "state": job.state,
            "output": text,
            "error": job.error,
            "stderr": tails,
            "details": JobView::from(job),
        }))?;
    } else if successful {
        job::print_output(control, job).await?;
        tell_stderr(&tails, job.id);
    }
    if !successful {
        job::tell_failure(control, job).await?;
        return Ok(Exit::Failure);
    }
    Ok(Exit::Success)
}

/// Subtasks of which standard error is looked at.
const STDERR_SUBTASKS: u32 = 100;

/// Says what commands that succeeded printed to standard error: each line once, and not too many.
fn tell_stderr(tails: &[StderrView], id: JobId) {
    let mut seen = HashSet::new();
    let lines = tails.iter().flat_map(|tail| tail.stderr_tail.lines());
    let lines: Vec<&str> = lines.filter(|line| seen.insert(*line)).collect();
    if lines.is_empty() {
        return;
    }
    output::note("standard error of the commands:");
    for line in lines.iter().take(STDERR_LINES) {
        output::note(format_args!("  {line}"));
    }
    if lines.len() > STDERR_LINES {
        let more = lines.len() - STDERR_LINES;
        output::note(format_args!(
            "  and {more} other lines: `sawmill job show {id}` tells more"
        ));
    }
}

/// What follows a job whose client is gone.
fn follow_by(id: JobId) -> String {
    format!("`sawmill job wait {id}` follows it, `sawmill job output {id}` prints its result")
}

/// The signals that end a command which waits for a job. To be installed before the job exists: from then on they mean the job.
pub(super) struct Leaving {
    interrupt: Signal,
    others: Vec<Signal>,
    /// Whether the others cancel the job, too.
    cancels: bool,
}

impl Leaving {
    /// Takes Ctrl-C and SIGTERM over, and with `cancels` the end of the terminal, unless that is ignored as under `nohup`.
    ///
    /// # Errors
    /// What the system says when it refuses a signal handler.
    pub(super) fn install(cancels: bool) -> std::io::Result<Self> {
        let mut others = vec![signal(SignalKind::terminate())?];
        if cancels && !signals::ignores_hangup() {
            others.push(signal(SignalKind::hangup())?);
        }
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            others,
            cancels,
        })
    }

    /// Waits for the next signal; whether the job is to be cancelled for it.
    async fn asked(&mut self) -> bool {
        let others = self.others.iter_mut().map(|signal| signal.recv().boxed());
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = select_all(others) => self.cancels,
        }
    }
}

/// Waits with a bar. A signal that means the job asks to cancel it, another one leaves it running; either gives none. A second one
/// leaves at once.
pub(super) async fn wait_or_cancel(
    control: &Control,
    id: JobId,
    leaving: &mut Leaving,
) -> anyhow::Result<Option<Job>> {
    let job = control.job(&id.to_string()).await?;
    let bar = bar(job.subtasks());
    watch_or_cancel(control, id, leaving, &bar, std::future::pending()).await
}

/// As [`wait_or_cancel`] with a bar of the caller's, and with something that goes on beside until the job has ended.
pub(super) async fn watch_or_cancel(
    control: &Control,
    id: JobId,
    leaving: &mut Leaving,
    bar: &ProgressBar,
    beside: impl Future<Output = Infallible>,
) -> anyhow::Result<Option<Job>> {
    let cancels = tokio::select! {
        waited = wait(control, id, bar) => {
            bar.finish_and_clear();
            return waited.map(Some);
        }
        cancels = leaving.asked() => cancels,
        never = beside => match never {},
    };
    bar.finish_and_clear();
    if !cancels {
        output::note(format_args!("job {id} goes on: {}", follow_by(id)));
        return Ok(None);
    }
    tokio::select! {
        cancelled = cancel(control, id) => cancelled?,
        _ = leaving.asked() => output::note(format_args!("left; `sawmill job show {id}` tells what becomes of it")),
    }
    Ok(None)
}

/// Asks to cancel the job and gives the leader a while to do it.
async fn cancel(control: &Control, id: JobId) -> anyhow::Result<()> {
    let ended = match control.cancel(&id.to_string()).await {
        Ok(_) => {
            output::note(format_args!(
                "cancelling job {id}; Ctrl-C again does not wait for it"
            ));
            control
                .wait(id, Some(Instant::now() + 2 * STANDSTILL), |_| ())
                .await
        }
        Err(error) if error.is(reason::ALREADY_ENDED) => control.job(&id.to_string()).await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(job) => output::note(format_args!("job {id} is {}", job.state)),
        Err(error) if error.is(reason::NOT_ENDED) => {
            output::note(format_args!(
                "job {id} is asked to end; `sawmill job show {id}` tells when it has"
            ));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Waits, and after a standstill says once what it may wait for.
async fn wait(control: &Control, id: JobId, bar: &ProgressBar) -> anyhow::Result<Job> {
    let (moved, mut moves) = tokio::sync::watch::channel(());
    let waiting = control.wait(id, None, |progress| {
        bar.set_position(progress.counts.ended());
        bar.set_prefix(progress.state.as_str());
        moved.send_replace(());
    });
    let explaining = async {
        loop {
            tokio::select! {
                _ = moves.changed() => {}
                () = sleep(STANDSTILL) => break,
            }
        }
        for obstacle in control.obstacles(id).await.unwrap_or_default() {
            bar.suspend(|| output::note(format_args!("waiting: {obstacle}")));
        }
        std::future::pending().await
    };
    tokio::select! {
        job = waiting => Ok(job?),
        () = explaining => unreachable!("it pends for ever"),
    }
}

/// done/total, rate and the time left, on standard error, only where that is a terminal.
fn bar(subtasks: u64) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(subtasks), ProgressDrawTarget::stderr_with_hz(10));
    let style =
        ProgressStyle::with_template("{prefix:10} [{wide_bar}] {human_pos}/{human_len}  {rate}  {eta} left");
    let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        // A bar that can't be drawn is no reason to stop waiting.
        write!(text, "{:.1}/s", state.per_sec()).unwrap_or_default();
    };
    bar.set_style(
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", rate)
            .progress_chars("=> "),
    );
    bar
}
