//! Looking at processes through `/proc`: which descend from one, which are left.

use crate::wait;
use std::path::Path;
use std::time::Duration;

/// A process that was seen in `/proc`, told apart from a later one with the same id by its start time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Its process id.
    pub pid: u32,
    /// Its command line, for messages.
    pub command: String,
    started: u64,
}

impl Seen {
    /// The process with this id, if it lives.
    pub fn look(pid: u32) -> Option<Seen> {
        let stat = stat(pid).filter(|stat| !matches!(stat.state, 'Z' | 'X'))?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command)
            .replace('\0', " ")
            .trim()
            .to_owned();
        Some(Seen {
            pid,
            command,
            started: stat.started,
        })
    }

    /// Whether it still lives: neither gone nor a zombie that nobody has waited for.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X'))
    }
}

/// The state of a process as `/proc` has it, `T` where it was stopped by a signal; none when it is gone.
pub fn state(pid: u32) -> Option<char> {
    stat(pid).map(|stat| stat.state)
}

/// Whether a process has a handler for a signal; not for a moment after its start.
pub fn catches(pid: u32, signal: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// All living processes that descend from `pid`, without itself. One whose parent has died no longer descends from it:
/// take this list before killing the parent.
pub fn descendants(pid: u32) -> Vec<Seen> {
    let all = all();
    let mut found = Vec::new();
    let mut todo = vec![pid];
    while let Some(parent) = todo.pop() {
        for (child, stat) in all.iter().filter(|(_, stat)| stat.parent == parent) {
            todo.push(*child);
            found.extend(Seen::look(*child).filter(|seen| seen.started == stat.started));
        }
    }
    found
}

/// All living processes of a process group.
pub fn group(group: u32) -> Vec<Seen> {
    let members = all().into_iter().filter(|(_, stat)| stat.group == group);
    members.filter_map(|(pid, _)| Seen::look(pid)).collect()
}

/// All living processes whose command line contains `text`, but this one: for asserting that none is left, look for
/// something that only this test uses, like a path in its temporary directory.
pub fn with_command(text: &str) -> Vec<Seen> {
    let seen = all()
        .into_iter()
        .filter(|(pid, _)| *pid != std::process::id())
        .filter_map(|(pid, _)| Seen::look(pid));
    seen.filter(|seen| seen.command.contains(text)).collect()
}

/// Waits until all these processes are gone.
///
/// # Panics
/// At the deadline, with those that are left.
#[track_caller]
pub fn gone(processes: &[Seen], deadline: Duration) -> impl Future<Output = ()> {
    wait::until_ok("processes to be gone", deadline, async move || {
        let left: Vec<&Seen> = processes.iter().filter(|process| process.is_alive()).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
}

pub(super) struct Stat {
    pub(super) state: char,
    parent: u32,
    group: u32,
    started: u64,
}

/// `/proc/PID/stat`; the name in parentheses may hold anything, so fields are counted behind the last one.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    const STARTED: usize = 19;
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(STARTED)?.parse().ok()?,
    })
}

fn all() -> Vec<(u32, Stat)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}
