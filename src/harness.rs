//! The harness behind the `client` binary: N queries over D datasets, counted by how they were answered.
//!
//! Query `i` asks for dataset `i mod D`, group `i mod D`. A dataset of the harness is one such pair: `harness-d-g` has
//! a single block, and a query is a no-op job over it that may be answered from recorded results.
//! Promise: `data + already + executed` is the number of answered queries; the exit code is 0 only if that is the
//! number of queries asked. No promise about other users of the same mill:
//! `--create` takes the three roots from all of them and `--flush` the data, so both are refused while any is connected.

mod args;
mod queries;
mod reset;
mod running_log;
mod tally;

use std::{path::Path, process::ExitCode, time::Instant};

use anyhow::Context as _;
use clap::Parser as _;
use control::Control;
use tracing::info;

pub use self::args::{ClientArgs, Switches};
use crate::{
    config::{Flag, Settings, Sources},
    exit::{Exit, usage},
    output,
    roles::{self, Mill, Parts, Role},
    runtime,
    signals::Signals,
};

/// The whole program: reads the command line, does what it asks for, prints its error, gives its exit code: 0 when all
/// queries were answered, 1 when something failed, 2 for a mistake on the command line.
pub fn main() -> ExitCode {
    let args = match ClientArgs::try_parse() {
        Ok(args) => args,
        Err(refused) => {
            let code = refused.exit_code();
            // Whoever closed the stream does not want to read it.
            refused.print().unwrap_or_default();
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    let result = run_to_end(&args);
    result.unwrap_or_else(|error| {
        output::note(format_args!("error: {error:#}"));
        tracing::error!("{error:#}");
        Exit::of(&error).into()
    })
}

fn run_to_end(args: &ClientArgs) -> anyhow::Result<ExitCode> {
    let switches = args.switches().map_err(usage)?;
    let settings = Settings::load(&Sources::of_process(args.config.as_deref(), flags(args)))?;
    running_log::open(Path::new(running_log::FILE))?;
    runtime::run(run(args, switches, &settings))?
}

/// The settings that were given as flags.
fn flags(args: &ClientArgs) -> Vec<Flag> {
    let given = [
        ("zookeeper", "--zookeeper", &args.zookeeper),
        ("mongodb", "--mongodb", &args.mongodb),
    ];
    let flag = |(key, flag, value): (_, _, &Option<String>)| {
        Some(Flag {
            key,
            flag,
            value: value.clone()?,
        })
    };
    given.into_iter().filter_map(flag).collect()
}

/// Runs what `client` was asked for.
///
/// # Errors
/// What can't be reached, a refused `--create` or `--flush`, a role that failed.
pub async fn run(args: &ClientArgs, switches: Switches, settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install().context("cannot take over SIGTERM and SIGINT")?;
    info!(
        ?switches,
        queries = args.queries,
        datasets = args.datasets,
        "client started"
    );
    let parts = Parts::open(settings).await?;
    reset::reset(&parts, switches, args.force).await?;
    let mut mill = Mill::start(roles_of(switches, settings), &parts);
    if switches.dispatcher {
        let control = Control::open(parts.zookeeper.clone(), parts.store.clone());
        let right = tokio::select! {
            right = put_and_count(args, &control) => right,
            failure = mill.failed() => Err(failure),
            signal = signals.stop_asked() => Err(anyhow::anyhow!("stopped by {signal} before all queries were answered")),
        };
        let stopped = mill.stop().await;
        info!("client ends");
        return match (right?, stopped?) {
            (true, ()) => Ok(ExitCode::SUCCESS),
            (false, ()) => Ok(ExitCode::FAILURE),
        };
    }
    if switches.slave || switches.watcher {
        roles::until_stopped(&mut mill, &mut signals).await?;
    }
    info!("client ends");
    Ok(ExitCode::SUCCESS)
}

fn roles_of(switches: Switches, settings: &Settings) -> Vec<Role> {
    let mut roles = Vec::new();
    if switches.watcher {
        roles.push(Role::watcher(settings));
    }
    if switches.dispatcher {
        roles.push(Role::dispatcher(settings));
    }
    if switches.slave {
        roles.push(Role::compute(settings));
    }
    roles
}

/// Puts the queries, waits for all answers, prints the counts; whether the sum is right.
async fn put_and_count(args: &ClientArgs, control: &Control) -> anyhow::Result<bool> {
    queries::prepare(control, args.queries, args.datasets).await?;
    let begin = Instant::now();
    let answered = queries::put_and_wait(control, args.queries, args.datasets).await?;
    let took = begin.elapsed();
    let tally = tally::Tally::of(&answered);
    output::line(format_args!("{tally}time used {:.3} s", took.as_secs_f64()))?;
    info!(?tally, seconds = took.as_secs_f64(), "all queries were answered");
    if !tally.is_right(args.queries) {
        output::note(format_args!(
            "error: {} of {} queries were answered",
            tally.sum(),
            args.queries
        ));
        if let Some(why) = &tally.first_error {
            output::note(format_args!("the first that was not: {why}"));
        }
    }
    Ok(tally.is_right(args.queries))
}
