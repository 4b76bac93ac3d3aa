//! Guards: small processes between a node and the commands it runs, so that no command outlives either.
//!
//! A guard is the node's own program, executed again with a hidden argument ([`run_if_asked`]). It holds one end of a
//! socket pair, the *lifeline*; the node alone holds the other. Over it the node sends a command line with the three
//! standard streams of the command (the guard copies no byte of them), and hears how it ended. When the command ends,
//! the guard kills whatever the command has left running. When the lifeline closes, because the node wants the command
//! ended or because the node is dead, even of `kill -9`, the guard kills everything and ends. It finds daemons too: it
//! is the reaper of its descendants. A guard whose command ended cleanly serves the next one, so that a command costs
//! little more than its shell.
//!
//! Not promised: that a process in an uninterruptible system call, or one of another user, dies in time (then the guard
//! is given up after a few seconds and never used again); that daemons end when somebody kills the guard itself with
//! `kill -9` (the shell and its process group do end).
//!
//! This needs Linux. No signal on the death of a parent is used towards the node: the kernel sends it when the starting
//! *thread* ends, which kills commands at random under a pool of threads.
//!
//! Called by the command processor of this crate and [`crate::Program`]; [`run_if_asked`] by every program that uses it.

mod descendants;
pub(crate) mod message;
mod process;

use std::{
    ffi::OsStr,
    fs::File,
    io,
    net::Shutdown,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, killpg},
        socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair},
    },
    unistd::Pid,
};
use tokio::{
    net::UnixDatagram,
    process::{Child, Command},
};

use message::{REPLY_BYTES, Reply};
pub(crate) use message::{Request, Status};

/// The argument that makes a program a guard.
const ARGUMENT: &str = "--sawmill-guard";
/// How long a guard may take to end after its lifeline closed: its own deadline and some.
const END_DEADLINE: Duration = descendants::DEADLINE.saturating_add(Duration::from_secs(2));
/// The variables of the node that commands get, beside those that begin with [`LOCALE`]. Others may be secrets.
const PASSED: [&str; 8] = ["PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR"];
/// What variables for parts of the locale begin with.
const LOCALE: &str = "LC_";

/// Becomes a guard and never returns, when the program was started as one; else does nothing.
///
/// To be called first of all in `main`, before any thread or runtime starts: the cheaper the start, the cheaper commands.
pub fn run_if_asked() {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == ARGUMENT)
    {
        std::process::exit(process::serve(io::stdin().as_fd()));
    }
}

/// Starts commands under guards. Cheap to clone; clones share their idle guards.
///
/// Idle guards, at most as many as commands ran at once, end with the last clone or with the process.
#[derive(Clone, Debug)]
pub struct Guard {
    program: Arc<PathBuf>,
    /// Further variables of the node that commands get.
    passed: Arc<[String]>,
    idle: Arc<Mutex<Vec<Lifeline>>>,
}

impl Default for Guard {
    fn default() -> Self {
        Self::new("/proc/self/exe")
    }
}

impl Guard {
    /// Guards that are executed from `program`, whose `main` must call [`run_if_asked`].
    ///
    /// The default is the running program, by a path that stays right when the file is replaced.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: Arc::new(program.into()),
            passed: Arc::default(),
            idle: Arc::default(),
        }
    }

    /// Guards of the same program, for commands that also get these variables of the node.
    #[must_use]
    pub fn passing(self, names: impl IntoIterator<Item = String>) -> Self {
        Self {
            passed: names.into_iter().collect(),
            idle: Arc::default(),
            ..self
        }
    }

    fn passes(&self, name: &OsStr) -> bool {
        name.to_str().is_some_and(|name| {
            PASSED.contains(&name)
                || name.starts_with(LOCALE)
                || self.passed.iter().any(|other| other == name)
        })
    }

    /// Process ids of the guards that wait for a command.
    pub fn idle(&self) -> Vec<u32> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter().filter_map(|lifeline| lifeline.guard.id()).collect()
    }

    /// Starts a command with these standard input, output and error.
    ///
    /// Dropping the future ends what it has started.
    pub(crate) async fn start(&self, request: &Request, streams: [OwnedFd; 3]) -> io::Result<Running> {
        let message = request.encode()?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let used = idle.is_some();
            let lifeline = match idle {
                Some(lifeline) => lifeline,
                None => self.spawn()?,
            };
            match lifeline.begin(&message, &streams).await {
                Ok(shell) => {
                    return Ok(Running {
                        lifeline,
                        shell,
                        pool: self.clone(),
                    });
                }
                // Somebody killed it while it was idle; another one has not had this chance.
                Err(Begin::GuardGone) if used => {}
                Err(Begin::GuardGone) => {
                    let text = format!("the guard {} ended before the command", self.program.display());
                    return Err(io::Error::other(text));
                }
                Err(Begin::NotStarted(error)) => {
                    self.keep(lifeline);
                    return Err(error);
                }
                Err(Begin::Io(error)) => return Err(error),
            }
        }
    }

    fn spawn(&self) -> io::Result<Lifeline> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let mut command = Command::new(self.program.as_path());
        command
            .arg0("sawmill")
            .arg(ARGUMENT)
            .stdin(File::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| self.passes(name)));
        let guard = command.spawn().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("starting the guard {}: {error}", self.program.display()),
            )
        })?;
        // The type for datagrams, since the one for packets in order with an end does not exist; the calls are the same.
        let socket = std::os::unix::net::UnixDatagram::from(ours);
        socket.set_nonblocking(true)?;
        Ok(Lifeline {
            socket: UnixDatagram::from_std(socket)?,
            guard,
        })
    }

    fn keep(&self, lifeline: Lifeline) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(lifeline);
    }
}

/// Why a command did not begin.
enum Begin {
    GuardGone,
    NotStarted(io::Error),
    Io(io::Error),
}

/// The node's end of a guard. Dropping it makes the guard kill what it guards and end; the runtime reaps it.
#[derive(Debug)]
struct Lifeline {
    socket: UnixDatagram,
    guard: Child,
}

impl Lifeline {
    async fn begin(&self, message: &[u8], streams: &[OwnedFd; 3]) -> Result<Pid, Begin> {
        let fds = streams.each_ref().map(|stream| stream.as_raw_fd());
        let parts = [io::IoSlice::new(message)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let socket = self.socket.as_raw_fd();
        match sendmsg::<()>(socket, &parts, &[ControlMessage::ScmRights(&fds)], flags, None) {
            Ok(_) => {}
            Err(nix::Error::EPIPE | nix::Error::ECONNRESET) => return Err(Begin::GuardGone),
            Err(error) => return Err(Begin::Io(error.into())),
        }
        match self.reply().await.map_err(Begin::Io)? {
            Some(Reply::Started(pid)) => Ok(Pid::from_raw(pid)),
            Some(Reply::NotStarted(errno)) => Err(Begin::NotStarted(io::Error::from_raw_os_error(errno))),
            Some(Reply::Ended { .. }) => Err(Begin::Io(io::Error::other("the guard spoke out of turn"))),
            None => Err(Begin::GuardGone),
        }
    }

    /// The next reply; none when the guard is gone. Cancel safe.
    async fn reply(&self) -> io::Result<Option<Reply>> {
        let mut bytes = [0; REPLY_BYTES];
        match self.socket.recv(&mut bytes).await {
            Ok(0) => Ok(None),
            Ok(length) => match Reply::decode(&bytes[..length]) {
                Some(reply) => Ok(Some(reply)),
                None => Err(io::Error::other("the guard said what nobody understands")),
            },
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A command that runs. Dropping it makes the guard kill everything the command has started, without waiting for that.
#[derive(Debug)]
pub(crate) struct Running {
    lifeline: Lifeline,
    shell: Pid,
    pool: Guard,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: Status,
    /// Whether nothing of it is left; else the command's streams may never close.
    pub(crate) clear: bool,
}

impl Running {
    /// Waits until the command has ended and what it left behind is killed. Cancel safe. To be called until it has
    /// answered once.
    ///
    /// A guard that died (somebody killed it, which kills the shell as well) counts as an end by `SIGKILL`.
    pub(crate) async fn ended(&self) -> io::Result<Ended> {
        match self.lifeline.reply().await? {
            Some(Reply::Ended { status, clear }) => Ok(Ended { status, clear }),
            Some(_) => Err(io::Error::other("the guard spoke out of turn")),
            None => {
                let _ = killpg(self.shell, Signal::SIGKILL);
                Ok(Ended {
                    status: Status::Signal(Signal::SIGKILL as i32),
                    clear: false,
                })
            }
        }
    }

    /// Gives the guard back for the next command, once [`Running::ended`] has said that all is clear.
    pub(crate) fn release(self) {
        self.pool.keep(self.lifeline);
    }

    /// Kills everything the command has started and returns when it is gone, after a few seconds at the latest.
    ///
    /// Dropping the future leaves it to the guard alone.
    pub(crate) async fn kill(mut self) {
        let _ = self.lifeline.socket.shutdown(Shutdown::Write);
        if tokio::time::timeout(END_DEADLINE, self.lifeline.guard.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                shell = self.shell.as_raw(),
                "the guard of a killed command does not end"
            );
            // Stopped by somebody, or waiting for what can't be killed; the shell dies with it.
            let _ = self.lifeline.guard.start_kill();
            let _ = killpg(self.shell, Signal::SIGKILL);
        }
    }
}
