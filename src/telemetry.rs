//! Log lines on standard error.
//!
//! Roles log what they do, other commands only what is wrong; `-v` and `-vv` tell more, and `RUST_LOG` decides alone where
//! it is set. Standard output is never written to.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

/// The crates of Sawmill, and the audit log: what `-v` is about.
const OURS: [&str; 16] = [
    "sawmill",
    "agent",
    "api",
    "audit",
    "gateway",
    "ingest",
    "tasks",
    "pki",
    "control",
    "coordination",
    "storage",
    "engine",
    "dispatcher",
    "compute",
    "watcher",
    "servers",
];

/// Starts logging; to be called once, before the first line.
pub fn start(verbosity: u8, is_role: bool) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter(verbosity, is_role)));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(verbosity > 0)
        .log_internal_errors(false)
        .finish();
    // A second start in one process (tests of the library) keeps the first.
    tracing::subscriber::set_global_default(subscriber).unwrap_or_default();
}

fn filter(verbosity: u8, is_role: bool) -> String {
    let (ours, others) = match verbosity + u8::from(is_role) {
        0 => ("warn", "error"),
        1 => ("info", "error"),
        2 => ("debug", "warn"),
        _ => ("trace", "debug"),
    };
    OURS.iter().fold(others.to_string(), |filter, ours_name| {
        format!("{filter},{ours_name}={ours}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_that_logs_is_ours() {
        let manifest = include_str!("../Cargo.toml");
        let members = manifest.lines().find_map(|line| line.strip_prefix("members = "));
        let silent = ["folders", "hostile", "model", "sql", "testkit"];
        for member in members.unwrap().split('"').skip(1).step_by(2) {
            assert!(OURS.contains(&member) || silent.contains(&member), "{member}");
        }
    }

    #[test]
    fn roles_tell_more() {
        assert!(filter(0, true).starts_with("error,sawmill=info,"));
        assert!(filter(0, false).contains(",watcher=warn"));
        assert!(filter(1, true).contains("storage=debug"));
        assert!(filter(9, true).parse::<EnvFilter>().is_ok());
    }
}
