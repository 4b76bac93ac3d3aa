//! Tasks: commands that run on one named worker, for as long as they like, beside the queue.
//!
//! Promise: what a task prints is kept on the disk of its worker and can be read from its start by any number of readers,
//! each at its own speed and none of them holding the task up; memory is bounded whatever it prints; when a task has ended,
//! or the worker has, nothing that it started is left. Non-promise: a task dies with its worker, and nothing runs it again;
//! that is what jobs are for.
//!
//! Called by compute nodes, which serve [`Tasks`] as `sawmill.v1.Worker`.

mod board;
mod follow;
mod record;
mod run;
mod service;

use std::path::PathBuf;

use model::Name;

pub use board::Tasks;

/// How a worker keeps tasks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the node.
    pub node: Name,
    /// Whether it runs commands at all.
    pub allow_exec: bool,
    /// The program that guards them.
    pub guard: engine::Guard,
    /// Folder for what they print; emptied at the start.
    pub folder: PathBuf,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of the tasks of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tasks that run at once.
    pub running: usize,
    /// Ended tasks that are remembered with what they printed; the oldest are forgotten.
    pub ended: usize,
    /// Bytes that one task may print, unless it asks for less.
    pub output_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            running: 64,
            ended: 100,
            output_bytes: 1 << 30,
        }
    }
}

/// Why a task can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node runs no commands.
    #[error("node {node} runs no commands: start it with --allow-exec where it may")]
    NoExec {
        /// Its name.
        node: Name,
    },
    /// Too many at once.
    #[error("node {node} runs {most} tasks already, as many as it may: stop one, or wait")]
    Full {
        /// Its name.
        node: Name,
        /// How many it may run.
        most: usize,
    },
    /// A command that is none.
    #[error("the command can't be run: {why}")]
    BadCommand {
        /// What is wrong with it.
        why: String,
    },
    /// A task that is not there, or no longer.
    #[error("no such task: {task}; `sawmill task list` shows those that are remembered")]
    NoSuchTask {
        /// As it was given.
        task: String,
    },
    /// More than one task has an id that begins so.
    #[error("{task} is the beginning of several tasks: give more of it")]
    Ambiguous {
        /// As it was given.
        task: String,
    },
    /// The folder, or a pipe.
    #[error("can't {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
}
