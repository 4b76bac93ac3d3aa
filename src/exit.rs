//! Exit codes: 0 done, 1 it failed, 2 it was asked for in a wrong way, 130 stopped by Ctrl-C or another signal.

use std::{fmt, process::ExitCode};

use crate::config;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success,
    /// A part was unreachable, a job failed, something was not found.
    Failure,
    /// A mistake of the one who called: a bad name, an unknown flag, a bad URL. Nothing was done.
    Usage,
    /// Stopped by Ctrl-C or another signal.
    Interrupted,
}

impl Exit {
    /// The number that the shell gets.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Interrupted => 130,
        }
    }

    /// What an error of a command means for the exit code.
    pub fn of(error: &anyhow::Error) -> Self {
        let is_usage = |cause: &(dyn std::error::Error + 'static)| {
            cause.is::<Usage>()
                || cause.is::<config::Error>()
                || cause
                    .downcast_ref::<control::Error>()
                    .is_some_and(control::Error::is_usage)
                || cause
                    .downcast_ref::<storage::Error>()
                    .is_some_and(control::is_usage)
                || cause
                    .downcast_ref::<api::transport::Error>()
                    .is_some_and(api::transport::Error::is_usage)
                || matches!(
                    cause.downcast_ref(),
                    Some(gateway::Error::Transport(error)) if error.is_usage()
                )
                || cause
                    .downcast_ref::<agent::Error>()
                    .is_some_and(agent::Error::is_usage)
                || cause
                    .downcast_ref::<pki::Error>()
                    .is_some_and(pki::Error::is_usage)
                || matches!(cause.downcast_ref(), Some(coordination::Error::BadAddress { .. }))
        };
        if error.chain().any(|cause| cause.is::<StdoutClosed>()) {
            Self::Success
        } else if error.chain().any(is_usage) {
            Self::Usage
        } else {
            Self::Failure
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A mistake of the one who called; ends with exit code 2.
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error that ends the command with exit code 2.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// What is told where `--force` would do what was refused because roles or agents are connected.
pub fn unless_forced(flag: &str, error: coordination::Error) -> anyhow::Error {
    let live = matches!(error, coordination::Error::LiveSessions { .. });
    let error = anyhow::Error::from(error);
    if live {
        error.context(format!(
            "{flag} was refused, nothing was changed; --force does it all the same"
        ))
    } else {
        error
    }
}

/// Whoever read our standard output has read enough, as `head` does: no error.
#[derive(Debug)]
pub struct StdoutClosed;

impl fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for StdoutClosed {}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_deepest_cause_decides() {
        let wrapped = Err::<(), _>(usage("bad name"))
            .context("can't submit")
            .unwrap_err();
        assert_eq!(Exit::of(&wrapped), Exit::Usage);
        assert_eq!(Exit::of(&anyhow::anyhow!("unreachable")), Exit::Failure);
        assert_eq!(Exit::of(&StdoutClosed.into()), Exit::Success);
    }
}
