//! Running one shell command under a guard: its input, its output, its limits.
//!
//! Promise: when [`Runner::run`] returns, nothing the command has started is left (but see [`crate::guard`]); memory is
//! bounded whatever it reads and prints. Dropping the future or cancelling has the same effect as a timeout: all that the
//! command has started is killed.
//!
//! Called by [`crate::Engine`].

mod collect;
mod feed;

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::{Either, select};
use model::{Failure, FailureKind, Name, Spot, job::JobId, limits::STDERR_OK_BYTES, outcome::tail};
use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;

use crate::{
    Guard, Product, Source, Stop,
    guard::{Ended, Request, Running, Status},
};

/// The exit code of a shell for a part of a pipeline that SIGPIPE ended.
const BROKEN_PIPE: i32 = 128 + Signal::SIGPIPE as i32;
/// How long the streams of an ended command may stay open because something of it could not be killed.
const STREAMS_DEADLINE: Duration = Duration::from_secs(2);

/// What one command is to do.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    /// `map` or `reduce`, for messages.
    pub role: &'static str,
    /// The command line for the shell.
    pub line: &'a str,
    /// Whether a pipeline fails with any of its parts. Not with one that is ended since the next one stopped reading, as `head`
    /// does.
    pub pipefail: bool,
    /// Exit codes that count as success, beside 0.
    pub ok_exit: &'a [u8],
    /// Variables that the user gave.
    pub env: &'a BTreeMap<String, String>,
    /// Longest run; none: no limit.
    pub timeout: Option<Duration>,
    /// Most bytes it may print.
    pub output_limit_bytes: u64,
    /// `SAWMILL_JOB`.
    pub job: JobId,
    /// `SAWMILL_DATASET`.
    pub dataset: &'a Name,
    /// `SAWMILL_BLOCK`: an index, or `merge`.
    pub spot: Spot,
    /// `SAWMILL_ATTEMPT`, from 1.
    pub attempt: u32,
}

/// What a command printed.
#[derive(Debug)]
pub struct Printed {
    /// To standard output.
    pub product: Product,
    /// The end of what it printed to standard error; empty for what is no command.
    pub stderr_tail: String,
}

impl From<Product> for Printed {
    fn from(product: Product) -> Self {
        Self {
            product,
            stderr_tail: String::new(),
        }
    }
}

/// Runs commands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runner {
    guard: Guard,
    spool: PathBuf,
}

/// A command that is stopped before its end, and why.
enum Break {
    Cancelled,
    Failed(Failure),
}

impl From<Failure> for Break {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Runner {
    /// Runs commands under `guard`; outputs over [`crate::product::MEMORY_BYTES`] go to files in the folder `spool`,
    /// which must exist when that happens.
    pub fn new(guard: Guard, spool: impl Into<PathBuf>) -> Self {
        Self {
            guard,
            spool: spool.into(),
        }
    }

    /// Feeds `source` to the command and gives what it prints. A command that stops reading early is fine.
    ///
    /// Dropping the future kills the command without waiting for its end.
    ///
    /// # Errors
    /// [`Stop::Cancelled`] when `cancel` was cancelled first, after all is killed. A [`Failure`] by kind: `Start`,
    /// `Read` and `Changed` (also when the command took no notice and exited 0), `Timeout`, `OutputLimit`, `Store` for
    /// the spool, `Exit` and `Signal`; all with the end of what it wrote to standard error.
    pub async fn run(
        &self,
        task: &Task<'_>,
        source: Source,
        cancel: &CancellationToken,
    ) -> Result<Printed, Stop> {
        if cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let start_failure = |error: io::Error| {
            Stop::failed(
                FailureKind::Start,
                format!("{} command could not be started: {error}", task.role),
            )
        };
        let (theirs, ours) = streams().map_err(start_failure)?;
        let running = self
            .guard
            .start(&task.request(), theirs)
            .await
            .map_err(start_failure)?;
        let stderr = Mutex::new(Vec::new());
        let work = self.drive(task, source, running, ours.stdin, ours.stdout, cancel);
        let keeping = collect::tail(ours.stderr, &stderr);
        // Standard error may close before, with or after the rest.
        let result = match select(std::pin::pin!(work), std::pin::pin!(keeping)).await {
            Either::Left((result, keeping)) => {
                let _ = tokio::time::timeout(STREAMS_DEADLINE, keeping).await;
                result
            }
            Either::Right(((), work)) => work.await,
        };
        let stderr = stderr.into_inner().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(product) => Ok(Printed {
                product,
                stderr_tail: tail(&stderr, STDERR_OK_BYTES),
            }),
            Err(Break::Cancelled) => Err(Stop::Cancelled),
            Err(Break::Failed(failure)) => Err(Stop::Failed(hinted(failure.with_stderr(&stderr)))),
        }
    }

    async fn drive(
        &self,
        task: &Task<'_>,
        source: Source,
        running: Running,
        stdin: OwnedFd,
        stdout: OwnedFd,
        cancel: &CancellationToken,
    ) -> Result<Product, Break> {
        let all = async {
            let fed = async { feed::feed(source, stdin).await.map_err(Break::Failed) };
            let collected = async {
                collect::output(stdout, task, &self.spool)
                    .await
                    .map_err(Break::Failed)
            };
            let work = async { tokio::try_join!(fed, collected) };
            finish(task, &running, work).await
        };
        let limit = async {
            match task.timeout {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            result = all => result,
            () = cancel.cancelled() => Err(Break::Cancelled),
            () = limit => Err(Break::Failed(task.timed_out())),
        };
        match result {
            Ok((ended, product)) => {
                if ended.clear {
                    running.release();
                } else {
                    running.kill().await;
                }
                task.judge(ended.status, &product)?;
                Ok(product)
            }
            Err(stop) => {
                running.kill().await;
                Err(stop)
            }
        }
    }
}

/// The end of the command and its output, once both are there and all input that it wanted is fed.
async fn finish(
    task: &Task<'_>,
    running: &Running,
    work: impl Future<Output = Result<((), Product), Break>>,
) -> Result<(Ended, Product), Break> {
    let lost = |error: io::Error| {
        Failure::new(
            FailureKind::Start,
            format!("{} command was lost with its guard: {error}", task.role),
        )
    };
    let ended = std::pin::pin!(running.ended());
    match select(ended, std::pin::pin!(work)).await {
        Either::Left((ended, work)) => {
            let ended = ended.map_err(lost)?;
            let product = if ended.clear {
                work.await?.1
            } else {
                let unkillable = |_| {
                    let text = format!("{} command left processes behind that can't be killed", task.role);
                    Failure::new(FailureKind::Start, text)
                };
                tokio::time::timeout(STREAMS_DEADLINE, work)
                    .await
                    .map_err(unkillable)??
                    .1
            };
            Ok((ended, product))
        }
        Either::Right((done, ended)) => {
            let ((), product) = done?;
            Ok((ended.await.map_err(lost)?, product))
        }
    }
}

impl Task<'_> {
    fn request(&self) -> Request {
        let own = [
            ("SAWMILL_JOB", self.job.to_string()),
            ("SAWMILL_DATASET", self.dataset.to_string()),
            ("SAWMILL_BLOCK", self.spot.to_string()),
            ("SAWMILL_ATTEMPT", self.attempt.to_string()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        Request {
            line: self.line.to_owned(),
            pipefail: self.pipefail,
            variables: self.env.clone().into_iter().chain(own).collect(),
        }
    }

    fn is_success(&self, code: i32) -> bool {
        code == 0
            || self.pipefail && code == BROKEN_PIPE
            || self.ok_exit.iter().any(|ok| i32::from(*ok) == code)
    }

    fn judge(&self, status: Status, product: &Product) -> Result<(), Failure> {
        match status {
            Status::Code(code) if self.is_success(code) => Ok(()),
            Status::Code(code) => {
                let without = if product.is_empty() { " without output" } else { "" };
                let text = format!("{} command exited with code {code}{without}", self.role);
                Err(Failure {
                    exit_code: Some(code),
                    ..Failure::new(FailureKind::Exit, text)
                })
            }
            Status::Signal(number) => {
                let name =
                    Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.to_string());
                let text = format!("{} command was ended by signal {name}", self.role);
                Err(Failure::new(FailureKind::Signal, text))
            }
        }
    }

    fn timed_out(&self) -> Failure {
        let limit = self.timeout.unwrap_or_default().as_secs_f64();
        let text = format!("{} command ran longer than its limit of {limit} s", self.role);
        Failure::new(FailureKind::Timeout, text)
    }
}

/// Exit code 1 of a command that complains of nothing is often no failure.
fn hinted(mut failure: Failure) -> Failure {
    if failure.exit_code == Some(1) && failure.stderr_tail.is_empty() {
        failure
            .message
            .push_str(": if that is no failure (grep finds nothing), use --ok-exit 0,1");
    }
    failure
}

/// This side's ends of the standard streams.
struct Ends {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// Three pipes, closed on exec on this side: the command's ends in order, and ours.
fn streams() -> io::Result<([OwnedFd; 3], Ends)> {
    let (stdin, to_stdin) = io::pipe()?;
    let (from_stdout, stdout) = io::pipe()?;
    let (from_stderr, stderr) = io::pipe()?;
    let ours = Ends {
        stdin: to_stdin.into(),
        stdout: from_stdout.into(),
        stderr: from_stderr.into(),
    };
    Ok(([stdin.into(), stdout.into(), stderr.into()], ours))
}
