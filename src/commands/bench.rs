//! `sawmill bench`: what the mill does on this machine, beside what its parts do alone in the same run.
//!
//! Promise: everything is durable (ZooKeeper and MongoDB sync before they acknowledge), every measured job is checked to
//! have ended with all its results, and none of them was answered by reuse. Own servers are started for each run and
//! removed with their data, unless `--use-configured` names a mill's; there a chroot and a database of its own are used.
//! No promise that two machines, or two disks, compare.

mod access_log;
mod alone;
mod args;
mod gateway;
mod growth;
mod ingest;
mod latency;
mod log;
mod queue;
mod report;
mod rig;
mod sample;
mod scan;
#[cfg(feature = "sql")]
mod sql;
mod steps;
mod workload;

use std::process::ExitCode;

use anyhow::Context as _;

pub use self::args::Command;
use crate::{config::Settings, exit::Exit, output::Format, signals::Signals};

/// Runs one of the benches and prints its report. SIGTERM and Ctrl-C end it, with its servers and their data.
///
/// # Errors
/// What can't be started, a job that did not end as it should.
pub async fn run(command: Command, settings: &Settings, format: Format) -> anyhow::Result<ExitCode> {
    let bench = async {
        match &command {
            Command::Queue(args) => queue::run(args, settings, format).await,
            Command::Latency(args) => latency::run(args, settings, format).await,
            Command::Scan(args) => scan::run(args, settings, format).await,
            #[cfg(feature = "sql")]
            Command::Sql(args) => sql::run(args, settings, format).await,
            Command::Ingest(args) => ingest::run(args, settings, format).await,
            Command::Gateway(args) => gateway::run(args, settings, format).await,
            Command::Growth(args) => growth::run(args, settings, format).await,
            Command::Log(args) => log::run(args),
        }
    };
    if matches!(command, Command::Log(_)) {
        return bench.await.map(|()| ExitCode::SUCCESS);
    }
    let mut signals = Signals::install().context("cannot take over SIGTERM and SIGINT")?;
    tokio::select! {
        done = bench => done.map(|()| ExitCode::SUCCESS),
        _ = signals.stop_asked() => Ok(Exit::Interrupted.into()),
    }
}
