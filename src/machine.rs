//! What this machine is: its name, its cores, its memory.

use sysinfo::System;

/// Its name as the system tells it.
pub(crate) fn host() -> String {
    System::host_name().unwrap_or_else(|_| "localhost".to_owned())
}

/// Threads that run at once.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Memory that this process may use, in bytes: that of the machine, or less where a control group limits it; 0 where the
/// system does not tell.
pub(crate) fn memory() -> u64 {
    let Ok(mut system) = System::new() else {
        return 0;
    };
    system.refresh_memory();
    let all = system.total_memory();
    let limits = system.cgroup_limits();
    limits.map_or(all, |limits| limits.total_memory.min(all))
}

/// The user whom this process runs as; its number where it has no name.
pub(crate) fn user() -> String {
    let id = nix::unistd::getuid();
    let found = nix::unistd::User::from_uid(id).ok().flatten();
    found.map_or_else(|| id.to_string(), |user| user.name)
}
