//! The inside of the guard process: one thread that starts a shell, waits, and cleans up behind it.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    cmsg_space,
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, send},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::{Pid, getpid, getppid, setsid},
};

use super::{
    descendants,
    message::{PIPEFAIL, REQUEST_BYTES, Reply, Status, parts},
};

/// Serves one command after another until the lifeline closes; gives the exit code of the guard.
pub(super) fn serve(lifeline: BorrowedFd<'_>) -> i32 {
    match Process::new(lifeline).and_then(|process| process.serve()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("sawmill guard: {error}");
            1
        }
    }
}

struct Process<'a> {
    lifeline: BorrowedFd<'a>,
    deaths: SignalFd,
}

impl<'a> Process<'a> {
    fn new(lifeline: BorrowedFd<'a>) -> io::Result<Self> {
        // Blocked rather than ignored, which the shell would inherit: `pkill sawmill` or the Ctrl-C of a terminal must
        // not end the guard before it has cleaned up. The lifeline is its only reason to end.
        SigSet::all().thread_block()?;
        prctl::set_child_subreaper(true)?;
        prctl::set_name(c"sawmill-guard")?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let deaths = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { lifeline, deaths })
    }

    fn serve(&self) -> io::Result<()> {
        let mut buffer = vec![0; REQUEST_BYTES];
        while let Some((length, streams)) = receive(self.lifeline, &mut buffer)? {
            let shell = match start(&buffer[..length], streams) {
                Ok(shell) => shell,
                Err(error) => {
                    self.reply(Reply::NotStarted(
                        error.raw_os_error().unwrap_or(Errno::EIO as i32),
                    ))?;
                    continue;
                }
            };
            // A failed reply means that the node has died, which the next look at the lifeline tells as well.
            let _ = self.reply(Reply::Started(shell.as_raw()));
            let status = self.until_ended(shell)?;
            let clear = descendants::end_all(shell, &self.deaths);
            match status {
                Some(status) => self.reply(Reply::Ended { status, clear })?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// The status of the shell, which is left a zombie so that its group's number stays taken; none when the lifeline
    /// closed first.
    fn until_ended(&self, shell: Pid) -> io::Result<Option<Status>> {
        loop {
            if let Some(status) = reap_all_but(shell)? {
                return Ok(Some(status));
            }
            let mut fds = [
                PollFd::new(self.lifeline, PollFlags::POLLIN),
                PollFd::new(self.deaths.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if fds[0].any().unwrap_or(true) {
                return Ok(None);
            }
            while self.deaths.read_signal()?.is_some() {}
        }
    }

    fn reply(&self, reply: Reply) -> io::Result<()> {
        send(self.lifeline.as_raw_fd(), &reply.encode(), MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }
}

/// Reaps adopted orphans as they die; gives the shell's status once it has ended, without reaping it.
fn reap_all_but(shell: Pid) -> io::Result<Option<Status>> {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::All, look) {
            Ok(WaitStatus::Exited(pid, code)) if pid == shell => return Ok(Some(Status::Code(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == shell => {
                return Ok(Some(Status::Signal(signal as i32)));
            }
            Ok(status) => match status.pid() {
                Some(pid) => drop(waitpid(pid, None)),
                None => return Ok(None),
            },
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The length of the next request, put into `buffer`, with the three standard streams for the command; none when the lifeline has closed.
#[allow(unsafe_code)]
fn receive(lifeline: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<(usize, [OwnedFd; 3])>> {
    let mut space = cmsg_space!([i32; 3]);
    let mut fds = Vec::new();
    let length = loop {
        let mut parts = [io::IoSliceMut::new(buffer)];
        match recvmsg::<UnixAddr>(
            lifeline.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Ok(message) => {
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(received) = control {
                        // SAFETY: the kernel has just made these descriptors for this process; nobody else knows them.
                        fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    }
                }
                break message.bytes;
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let streams = fds
        .try_into()
        .map_err(|_| io::Error::other("a request came without its three streams"))?;
    Ok(Some((length, streams)))
}

/// Where bash is.
const BASH: [&str; 3] = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"];

/// The shell for a command line. The `sh` of many systems knows no pipefail, and refuses the option rather than to run without.
fn shell(pipefail: bool) -> Command {
    if !pipefail {
        return Command::new("/bin/sh");
    }
    let bash = BASH.into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(bash.unwrap_or("/bin/sh"));
    command.args(["-o", "pipefail"]);
    command
}

/// Starts the shell in a session of its own, wired to the streams; this process keeps none of them.
#[allow(unsafe_code)]
fn start(request: &[u8], [stdin, stdout, stderr]: [OwnedFd; 3]) -> io::Result<Pid> {
    let mut parts = parts(request).map(OsStr::from_bytes);
    let mut command = shell(parts.next().is_some_and(|part| part.as_bytes() == PIPEFAIL));
    command.arg("-c").arg(parts.next().unwrap_or_default());
    for variable in parts {
        let bytes = variable.as_bytes();
        let at = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
        command.env(
            OsStr::from_bytes(&bytes[..at]),
            OsStr::from_bytes(bytes.get(at + 1..).unwrap_or_default()),
        );
    }
    command
        .stdin(File::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr));
    let guard = getpid();
    // SAFETY: this process has one thread, and the closure only makes system calls.
    unsafe {
        command.pre_exec(move || {
            // Without a terminal a command that asks for a password fails instead of being stopped for ever; and with
            // a group of its own its `kill 0` reaches all that it started, and not the guard.
            setsid()?;
            // The second belt: whoever kills the guard kills the shell. The guard has no other thread whose end could
            // be mistaken for its own.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid() != guard {
                return Err(Errno::ESRCH.into());
            }
            SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
    let child = command.spawn()?;
    Ok(Pid::from_raw(child.id().cast_signed()))
}
