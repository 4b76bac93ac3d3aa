//! A command line that runs under a guard for as long as it likes, with streams of the caller's.
//!
//! Promise: when [`Program::ended`] has said that all is clear, when [`Program::kill`] returns, or some time after it was
//! dropped, nothing that it has started is left (but see [`crate::guard`]).
//!
//! Called by the tasks of a worker.

use std::{io, os::fd::OwnedFd};

use crate::{
    Guard,
    guard::{Request, Running, Status},
};

/// A command that runs. Dropping it kills all that it has started, without waiting for that.
#[derive(Debug)]
pub struct Program {
    running: Running,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// The end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramEnd {
    /// How.
    pub exit: Exit,
    /// Whether nothing of it is left; else its streams may never close.
    pub clear: bool,
}

impl Program {
    /// Starts `/bin/sh -c line` with these variables on top of what the guard passes on, and these standard input, output and error.
    ///
    /// Dropping the future ends what it has started.
    ///
    /// # Errors
    /// A command that is too long or has a NUL byte ([`io::ErrorKind::InvalidInput`]); a guard or shell that can't be
    /// started.
    pub async fn start(
        guard: &Guard,
        line: String,
        variables: Vec<(String, String)>,
        streams: [OwnedFd; 3],
    ) -> io::Result<Self> {
        let request = Request {
            line,
            pipefail: false,
            variables,
        };
        let running = guard.start(&request, streams).await?;
        Ok(Self { running })
    }

    /// Waits until the command has ended and what it left behind is killed. Cancel safe. To be called until it has answered
    /// once.
    ///
    /// # Errors
    /// Its guard is lost.
    pub async fn ended(&self) -> io::Result<ProgramEnd> {
        let ended = self.running.ended().await?;
        Ok(ProgramEnd {
            exit: match ended.status {
                Status::Code(code) => Exit::Code(code),
                Status::Signal(signal) => Exit::Signal(signal),
            },
            clear: ended.clear,
        })
    }

    /// Gives its guard back for the next command, once [`Program::ended`] has said that all is clear.
    pub fn release(self) {
        self.running.release();
    }

    /// Kills all that it has started and returns when that is gone, after a few seconds at the latest.
    pub async fn kill(self) {
        self.running.kill().await;
    }
}
