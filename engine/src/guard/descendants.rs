//! Ending everything a command has started, wherever it hides.
//!
//! The guard is the reaper of its descendants: a daemon that forks twice and begins its own session is still below it in
//! the tree of processes. So killing until there is no child left is complete.

use std::{
    collections::HashMap,
    fs,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill, killpg},
        signalfd::SignalFd,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid},
};

/// How long killing may take; a process in an uninterruptible call (a dead network file system) may outlast it.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// How often to look again for processes that were being forked during the last look, in milliseconds.
const LOOK_AGAIN_MS: u16 = 10;

/// Kills the group, then every other descendant, and reaps them. False when some are left at the deadline.
///
/// The leader of the group must not have been reaped yet: else the number could be somebody else's.
pub(super) fn end_all(group: Pid, deaths: &SignalFd) -> bool {
    let deadline = Instant::now() + DEADLINE;
    // Atomic: no member can fork its way out of this one.
    let _ = killpg(group, Signal::SIGKILL);
    let mut first = true;
    loop {
        if reap() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        // The first round only waits for what the group's kill has just ended.
        if !first {
            for pid in descendants(getpid()) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        let mut fds = [PollFd::new(deaths.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(if first { 1 } else { LOOK_AGAIN_MS }));
        while matches!(deaths.read_signal(), Ok(Some(_))) {}
        first = false;
    }
}

/// Reaps the dead; true when no child is left, dead or alive.
fn reap() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return false,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return true,
        }
    }
}

/// All processes below `ancestor`.
fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Gone meanwhile: nothing to kill.
        let Ok(stat) = fs::read(entry.path().join("stat")) else {
            continue;
        };
        if let Some(parent) = parent_in(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![ancestor.as_raw()];
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(Pid::from_raw(child));
            next.push(child);
        }
    }
    found
}

/// The parent in `/proc/PID/stat`: `pid (name) state parent …`, where the name may contain anything.
fn parent_in(stat: &[u8]) -> Option<i32> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    std::str::from_utf8(stat.get(name_end + 1..)?)
        .ok()?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in(b"12 (a) b) (c) S 7 12 12 0 -1"), Some(7));
        assert_eq!(parent_in(b"12 (\xff\xfe) R 8 12"), Some(8));
        assert_eq!(parent_in(b"12"), None);
        let own = fs::read("/proc/self/stat").unwrap();
        assert_eq!(
            parent_in(&own),
            Some(std::os::unix::process::parent_id().cast_signed())
        );
    }

    #[test]
    fn children_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(descendants(getpid()).contains(&Pid::from_raw(child.id().cast_signed())));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
