//! Real binaries of this workspace as child processes, with real signals.

mod seen;
mod terminal;

pub use seen::{Seen, catches, descendants, gone, group, state, with_command};
pub use terminal::Terminal;

use crate::{Space, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seen::stat;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How much of an output a panic shows.
const SHOWN_BYTES: usize = 8 * 1024;

/// The path of a binary of this workspace: `SAWMILL_TEST_BIN_<name>` or what cargo or nextest say in the environment,
/// else the file in the target directory that this test was built into.
///
/// # Panics
/// When there is none: `cargo build --workspace --bins` makes them (`scripts/test` does it).
pub fn binary(name: &str) -> PathBuf {
    let told = [
        format!("SAWMILL_TEST_BIN_{name}"),
        format!("NEXTEST_BIN_EXE_{name}"),
        format!("CARGO_BIN_EXE_{name}"),
    ];
    if let Some(path) = told.iter().find_map(std::env::var_os) {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("the path of this test");
    let folders = test.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!(
                "no binary {name} beside {}; run `cargo build --workspace --bins` first",
                test.display()
            )
        })
}

/// What to run; [`Recipe::start`] runs it.
#[derive(Debug)]
pub struct Recipe {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: Option<PathBuf>,
    input: Option<PathBuf>,
    log: Option<PathBuf>,
}

impl Recipe {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Recipe {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Recipe {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Recipe {
        self.environment
            .insert(key.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets the working directory. Default: a fresh empty one, so that no configuration file is met by accident.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Recipe {
        self.directory = Some(directory.into());
        self
    }

    /// Gives a file as standard input. Default: empty.
    #[must_use]
    pub fn input(mut self, file: impl Into<PathBuf>) -> Recipe {
        self.input = Some(file.into());
        self
    }

    /// Appends what it writes to standard error to this file, which outlives it. Default: a file that goes with it.
    #[must_use]
    pub fn log(mut self, file: impl Into<PathBuf>) -> Recipe {
        self.log = Some(file.into());
        self
    }

    /// Starts it. Its output goes to files, so it never blocks on a reader.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(self) -> Process {
        let input = match &self.input {
            Some(path) => Stdio::from(File::open(path).expect("the file for standard input")),
            None => Stdio::null(),
        };
        let log = self.log.clone();
        self.spawn(input, |path| match &log {
            Some(log) if path.ends_with("stderr") => {
                std::os::unix::fs::symlink(log, path).expect("a link to the log");
                let file = File::options().create(true).append(true).open(log);
                file.expect("a file for the log").into()
            }
            _ => File::create(path).expect("a file for output").into(),
        })
    }

    /// Starts it with this input, and what `output` gives for each of its outputs, which are named by a file.
    fn spawn(self, input: Stdio, output: impl Fn(&Path) -> Stdio) -> Process {
        let files = tempfile::Builder::new()
            .prefix("sawmill-test-process-")
            .tempdir()
            .expect("a directory");
        let work = files.path().join("work");
        std::fs::create_dir(&work).expect("a working directory");
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(&self.environment)
            .current_dir(self.directory.as_deref().unwrap_or(&work))
            .stdin(input)
            .stdout(output(&files.path().join("stdout")))
            .stderr(output(&files.path().join("stderr")))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        let shown: Vec<_> = self
            .arguments
            .iter()
            .map(|argument| argument.to_string_lossy())
            .collect();
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        Process {
            name: format!("{name} {}", shown.join(" ")),
            child,
            files,
            ended: None,
        }
    }

    /// Starts it and waits until it has ended by itself.
    ///
    /// # Panics
    /// When it cannot be started or still runs at the deadline.
    pub async fn output(self, deadline: Duration) -> Output {
        let mut process = self.start();
        let status = process.wait_exit(deadline).await;
        Output {
            status,
            stdout: process.stdout(),
            stderr: process.stderr(),
        }
    }
}

/// What a process that has ended left.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to standard output.
    pub stdout: String,
    /// All it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Itself, if it exited with this code.
    ///
    /// # Panics
    /// Otherwise, with both outputs.
    #[must_use]
    #[track_caller]
    pub fn code(self, expected: i32) -> Output {
        assert_eq!(
            self.status.code(),
            Some(expected),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

/// A running child process. Dropping it kills it and what it started.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    files: TempDir,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Something to run: a path, or a name looked up on the PATH.
    pub fn of(program: impl Into<PathBuf>) -> Recipe {
        Recipe {
            program: program.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            directory: None,
            input: None,
            log: None,
        }
    }

    /// A binary of this workspace by its name; see [`binary`].
    pub fn binary(name: &str) -> Recipe {
        Process::of(binary(name))
    }

    /// The `sawmill` command, told of the space by `SAWMILL_ZOOKEEPER` and `SAWMILL_MONGODB`.
    pub fn sawmill(space: &Space) -> Recipe {
        Process::binary("sawmill")
            .env("SAWMILL_ZOOKEEPER", space.zookeeper())
            .env("SAWMILL_MONGODB", space.mongodb())
            // Many run side by side.
            .env("SAWMILL_LISTEN", "127.0.0.1:0")
    }

    /// The `client` harness, told of the space likewise.
    pub fn client(space: &Space) -> Recipe {
        Process::binary("client")
            .env("SAWMILL_ZOOKEEPER", space.zookeeper())
            .env("SAWMILL_MONGODB", space.mongodb())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status if it has ended; never waits.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("asking for a child");
        }
        self.ended
    }

    /// SIGKILL, as `kill -9` does; returns when it is gone. What it had started is not touched: that is for the test to
    /// look at ([`descendants`] before, [`gone`] after).
    pub fn kill9(&mut self) -> ExitStatus {
        self.signal(Signal::SIGKILL);
        let status = self.child.wait().expect("waiting for a killed child");
        *self.ended.insert(status)
    }

    /// SIGTERM; does not wait.
    pub fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
    }

    /// SIGINT, as Ctrl-C does; does not wait.
    pub fn interrupt(&mut self) {
        self.signal(Signal::SIGINT);
    }

    /// SIGSTOP; returns when the whole process stands still.
    pub fn freeze(&mut self) {
        self.signal(Signal::SIGSTOP);
        while self.ended().is_none() && !stat(self.pid()).is_some_and(|stat| matches!(stat.state, 'T' | 't'))
        {
            std::thread::yield_now();
        }
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    /// Sends a signal; does nothing when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = kill(Pid::from_raw(self.pid().cast_signed()), signal);
        }
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// At the deadline, with the end of its outputs.
    #[track_caller]
    pub fn wait_exit(&mut self, deadline: Duration) -> impl Future<Output = ExitStatus> {
        let name = self.name.clone();
        wait::until_ok(format!("{name} to end"), deadline, async move || {
            self.ended().ok_or_else(|| self.shown())
        })
    }

    /// All it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// All it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    /// Waits for a line that contains `pattern` on either output and returns that line.
    ///
    /// # Panics
    /// At the deadline, or when it ends without such a line, with the end of its outputs.
    #[track_caller]
    pub fn wait_for_line(&mut self, pattern: &str, deadline: Duration) -> impl Future<Output = String> {
        let name = self.name.clone();
        wait::until_ok(
            format!("a line with {pattern:?} of {name}"),
            deadline,
            async move || {
                let ended = self.ended();
                // Only whole lines: the last one may still be growing.
                let found = [self.stdout(), self.stderr()].iter().find_map(|text| {
                    let whole = if ended.is_some() {
                        text.len()
                    } else {
                        text.rfind('\n').unwrap_or(0)
                    };
                    text[..whole]
                        .lines()
                        .find(|line| line.contains(pattern))
                        .map(str::to_owned)
                });
                match (found, ended) {
                    (None, Some(status)) => panic!(
                        "{} ended ({status}) without a line with {pattern:?}\n{}",
                        self.name,
                        self.shown()
                    ),
                    (found, _) => found.ok_or_else(|| self.shown()),
                }
            },
        )
    }

    /// The directory that is its working directory unless [`Recipe::directory`] said another.
    pub fn directory(&self) -> PathBuf {
        self.files.path().join("work")
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.files.path().join(name)).unwrap_or_default()).into_owned()
    }

    fn shown(&self) -> String {
        let end = |text: String| {
            let from = text.len().saturating_sub(SHOWN_BYTES);
            let from = (from..text.len())
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(0);
            text[from..].to_owned()
        };
        format!(
            "it wrote\n--- stdout\n{}\n--- stderr\n{}",
            end(self.stdout()),
            end(self.stderr())
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: {}", self.name, self.shown());
        }
        if self.ended().is_none() {
            let started = descendants(self.pid());
            self.kill9();
            for process in started.iter().filter(|process| process.is_alive()) {
                let _ = kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGKILL);
            }
        }
    }
}

/// The signal that ended a process, by number, if one did.
pub fn signal_of(status: ExitStatus) -> Option<i32> {
    status.signal()
}
