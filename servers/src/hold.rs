//! Holding a server so that it cannot outlive its starter.
//!
//! A server is not started directly but by a *holder*: a tiny `sh` script in a process group of its own, whose standard
//! input is a pipe from the starter, the *lifeline*. Nobody writes to that pipe. When the starter ends, however it ends,
//! the kernel closes the pipe, the holder sees end of file, sends TERM to the group, and KILL after five seconds. When the server ends first, the holder ends with its exit code, which is how the starter learns of it.
//!
//! This needs no signal on the death of a parent, which the kernel sends when the starting *thread* ends and which would
//! therefore kill servers at random under a thread pool. It needs a POSIX `sh`, and a
//! `sleep` that knows fractions of a second.
//!
//! Called by the servers of this crate; also usable for any other child that must not be left behind.

use crate::Error;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// Standard input is the lifeline, standard output takes the server's process id, standard error is its log. The first
/// argument is a directory to remove at the end, or empty; the rest is the server's command line.
///
/// The reader comes first, so that there is no moment at which a server is not held, and is a process of its own, so that
/// the server ends even if somebody killed the waiting half; once it has begun to end the server it is not called off.
/// The traps come last, so that a server never begins its life with a signal caught in its name and lost; and they do not
/// ignore, since an ignored signal would stay ignored in the server. `wait` is repeated because such a signal
/// interrupts it.
const SCRIPT: &str = r#"
scrap=$1
shift
exec 3<&0 4>&1 </dev/null >&2
{
  read -r nothing <&3
  trap '' TERM
  kill -TERM 0
  kill -CONT 0
  left=50
  while [ $left -gt 0 ] && kill -0 $$ 2>/dev/null; do sleep 0.1; left=$((left - 1)); done
  if [ -n "$scrap" ]; then rm -rf "$scrap"; fi
  kill -KILL 0
} 4>&- &
reader=$!
"$@" 3<&- 4>&- &
server=$!
trap : HUP INT TERM
echo $server >&4
exec 4>&-
wait $server
code=$?
while kill -0 $server 2>/dev/null; do wait $server; code=$?; done
kill -TERM $reader 2>/dev/null
exit $code
"#;

/// How long a held process gets between TERM and KILL in [`Held::stop`].
pub const GRACE: Duration = Duration::from_secs(5);

/// What to start under a holder.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable: a path, or a name looked up on the PATH.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its working directory.
    pub directory: PathBuf,
    /// Takes its output (appended), and is locked while it runs.
    pub log: PathBuf,
    /// Whether `directory` is removed when the starter ends or drops it without stopping it: for scratch data that
    /// must not be left behind by a starter that cannot clean up any more. Default false.
    pub scrap: bool,
}

impl Program {
    /// A program that works in `directory` and logs to `directory/log_name`.
    pub fn new(program: impl Into<PathBuf>, directory: impl Into<PathBuf>, log_name: &str) -> Program {
        let directory = directory.into();
        let log = directory.join(log_name);
        Program {
            program: program.into(),
            arguments: Vec::new(),
            directory,
            log,
            scrap: false,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Program {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
        self.arguments
            .extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }
}

/// A running process that ends when this value is dropped or its owner dies.
///
/// Dropping it closes the lifeline and does not wait: TERM now, KILL after [`GRACE`]. Use [`Held::stop`] or
/// [`Held::kill`] to know that it is gone.
#[derive(Debug)]
pub struct Held {
    holder: Child,
    lifeline: Option<ChildStdin>,
    pid: Pid,
    ended: Option<ExitStatus>,
}

impl Held {
    /// Starts `program` under a holder and returns when its process exists, which does not mean that it works already.
    /// Waits up to five seconds for an earlier process that still writes the same log to end.
    ///
    /// Dropping the future half-way ends what was started.
    ///
    /// # Errors
    /// [`Error::Busy`] when an earlier process with the same log still runs, [`Error::Io`] for the log or directory,
    /// [`Error::Spawn`] when there is no `sh`. A missing `program` is not an error here: it ends at once with code 127
    /// and the reason in the log.
    pub async fn start(program: &Program) -> Result<Held, Error> {
        let log = lock_log(&program.log, &program.directory).await?;
        let spawn_error = |source| Error::Spawn {
            program: program.program.to_string_lossy().into_owned(),
            source,
        };
        let mut holder = Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("sawmill-hold")
            .arg(if program.scrap {
                program.directory.as_os_str()
            } else {
                OsStr::new("")
            })
            .arg(&program.program)
            .args(&program.arguments)
            .current_dir(&program.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .process_group(0)
            .spawn()
            .map_err(spawn_error)?;
        let lifeline = holder.stdin.take();
        let mut line = String::new();
        if let Some(output) = holder.stdout.take() {
            BufReader::new(output)
                .read_line(&mut line)
                .await
                .map_err(spawn_error)?;
        }
        let pid = line.trim().parse::<i32>().map_err(|_| {
            spawn_error(std::io::Error::other(format!(
                "its holder answered {:?}",
                line.trim()
            )))
        })?;
        Ok(Held {
            holder,
            lifeline,
            pid: Pid::from_raw(pid),
            ended: None,
        })
    }

    /// The process id of the program itself (not of its holder).
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// The exit status if it has ended; never waits.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.holder.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Sends a signal; does nothing when the process has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // It may end between the look and the signal, which is what the caller wanted anyway.
            let _ = kill(self.pid, signal);
        }
    }

    /// TERM, then KILL after [`GRACE`]; returns when it is gone. May be called again.
    ///
    /// Dropping the future leaves a process that was told to end.
    pub async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
        if tokio::time::timeout(GRACE, self.wait()).await.is_err() {
            self.kill().await;
        }
    }

    /// KILL; returns when it is gone. May be called again.
    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait().await;
    }

    /// Waits until it ends by itself or by a signal. Cancel safe.
    pub async fn wait(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            // `Child::wait` closes standard input first; ours was taken out, so that waiting is not stopping.
            self.ended = self.holder.wait().await.ok();
            self.lifeline = None;
        }
        self.ended
    }
}

/// Opens the log for appending and locks it. The lock belongs to the open file, which the server inherits: it holds for
/// as long as any process of an earlier server lives, and two servers never share a data directory.
async fn lock_log(log: &Path, directory: &Path) -> Result<File, Error> {
    folders::own(directory).map_err(Error::io(directory))?;
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(Error::io(log))?;
    let deadline = tokio::time::Instant::now() + GRACE + Duration::from_secs(1);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(Error::Busy {
                    data_dir: directory.to_owned(),
                });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(Error::io(log)(source)),
        }
    }
}

/// The last lines of a log, for error messages: at most `lines` lines of its last 16 KiB.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(16 * 1024)..]).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The first executable file of this name on the PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

/// Whether this is a file that may be run.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
