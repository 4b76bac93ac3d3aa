//! `sawmill run`: one job from its submission to its result.

use std::{
    convert::Infallible,
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use control::{Control, reason};
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
    output,
    view::JobView,
};

const HELP: &str = "\
CMD is given to `sh -c`. The map command gets the raw lines of one block on standard input; what it prints is the \
partial result. The reduce command gets all partial results in the order of the blocks; what it prints is the result. \
Without one, the result is all partial results in that order.

Commands find the job, the dataset, the number of the block and of the attempt in SAWMILL_JOB, SAWMILL_DATASET, \
SAWMILL_BLOCK and SAWMILL_ATTEMPT.

Examples:
  sawmill run --dataset access --map 'wc -l' --reduce \"awk '{n += \\$1} END {print n}'\"
  sawmill run --dataset access --map \"awk '{print \\$9}' | sort | uniq -c\" \\
      --reduce \"awk '{n[\\$2] += \\$1} END {for (s in n) print n[s], s}' | sort -rn\"
  sawmill run --dataset access --map 'grep -F 10.0.0.7 || true' --no-wait";

/// How long a job may stand still before the command looks for the reason.
const STANDSTILL: Duration = Duration::from_secs(5);

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

impl RunArgs {
    fn spec(&self) -> JobSpec {
        debug_assert_eq!(
            DEFAULT_OUTPUT_LIMIT_BYTES,
            1 << 30,
            "the default of --output-limit says 1GiB"
        );
        let processor = Processor::Command(Command {
            map: self.map.clone(),
            reduce: self.reduce.clone(),
            timeout_ms: self
                .timeout
                .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            output_limit_bytes: self.output_limit,
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
    // Before the job exists: from then on Ctrl-C means the job.
    let mut ctrl_c = signal(SignalKind::interrupt()).context("can't take over Ctrl-C")?;
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
    tracing::info!(job = %id, "submitted");
    let Some(job) = wait_or_cancel(&control, id, &mut ctrl_c).await? else {
        return Ok(Exit::Interrupted);
    };
    finish(&control, &job, context).await
}

/// Prints the result, or why there is none.
async fn finish(control: &Control, job: &Job, context: &Context) -> anyhow::Result<Exit> {
    let successful = job.state == JobState::Successful;
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
            "details": JobView::from(job),
        }))?;
    } else if successful {
        job::print_output(control, job).await?;
    }
    if !successful {
        job::tell_failure(control, job).await?;
        return Ok(Exit::Failure);
    }
    Ok(Exit::Success)
}

/// Waits with a bar; on Ctrl-C asks to cancel the job and gives none. A second Ctrl-C leaves at once.
pub(super) async fn wait_or_cancel(
    control: &Control,
    id: JobId,
    ctrl_c: &mut Signal,
) -> anyhow::Result<Option<Job>> {
    let job = control.job(&id.to_string()).await?;
    let bar = bar(job.subtasks());
    watch_or_cancel(control, id, ctrl_c, &bar, std::future::pending()).await
}

/// As [`wait_or_cancel`] with a bar of the caller's, and with something that goes on beside until the job has ended.
pub(super) async fn watch_or_cancel(
    control: &Control,
    id: JobId,
    ctrl_c: &mut Signal,
    bar: &ProgressBar,
    beside: impl Future<Output = Infallible>,
) -> anyhow::Result<Option<Job>> {
    let waited = tokio::select! {
        waited = wait(control, id, bar) => waited.map(Some),
        _ = ctrl_c.recv() => Ok(None),
        never = beside => match never {},
    };
    bar.finish_and_clear();
    if let Some(job) = waited? {
        return Ok(Some(job));
    }
    tokio::select! {
        cancelled = cancel(control, id) => cancelled?,
        _ = ctrl_c.recv() => output::note(format_args!("left; `sawmill job show {id}` tells what becomes of it")),
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
