//! `sawmill task start`.

use std::{path::PathBuf, time::Duration};

use anyhow::anyhow;
use api::v1::{ListTasksReply, ListTasksRequest, StartTaskRequest, Task};
use clap::Args;
use futures::future::join_all;

use super::{Client, follow, refused};
use crate::{
    cli,
    exit::{Exit, usage},
    output,
};

/// `sawmill task start`.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// On which node; none with --everywhere
    #[arg(value_name = "NODE", required_unless_present = "everywhere")]
    node: Option<String>,
    /// The command line, for /bin/sh -c
    #[arg(value_name = "CMD", required_unless_present = "everywhere")]
    command: Option<String>,
    /// On every live worker that runs commands
    #[arg(long)]
    everywhere: bool,
    /// Print what it prints until it ends; exits 1 when it did not exit with 0. Of several, each line after its node
    #[arg(short, long)]
    follow: bool,
    /// End it after this long, such as 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = cli::span)]
    timeout: Option<Duration>,
    /// End it when it has printed more [default: what the worker allows]
    #[arg(long, value_name = "SIZE", value_parser = cli::size)]
    output_limit: Option<u64>,
    /// Give it this file as standard input, at most 1 MiB
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// No such worker, no right, a worker that does not answer.
pub(super) async fn start(args: StartArgs, client: &mut Client) -> anyhow::Result<Exit> {
    let (command, nodes) = match (&args.node, &args.command) {
        // Without a node the first word is the command.
        (Some(command), None) if args.everywhere => (command, everywhere(client).await?),
        (Some(node), Some(command)) if !args.everywhere => (command, vec![node.clone()]),
        (_, Some(_)) => return Err(usage("--everywhere takes no NODE")),
        _ => return Err(usage("give a command for /bin/sh -c")),
    };
    let request = StartTaskRequest {
        worker: String::new(),
        command: command.clone(),
        timeout_ms: args
            .timeout
            .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        output_limit_bytes: args.output_limit.unwrap_or(0),
        input: super::input(args.input.as_deref())?.into(),
    };
    let starting =
        nodes.iter().map(|node| {
            let (mut client, mut request) = (client.clone(), request.clone());
            request.worker.clone_from(node);
            async move {
                Ok::<Task, anyhow::Error>(client.start_task(request).await.map_err(refused)?.into_inner())
            }
        });
    let started = join_all(starting).await;
    match <[_; 1]>::try_from(started) {
        Ok([task]) if args.follow => follow::print(client, task?.name, true).await,
        Ok([task]) => {
            output::line(task?.name)?;
            Ok(Exit::Success)
        }
        Err(started) => all(&nodes, started, args.follow, client).await,
    }
}

/// Nodes with a live worker that runs commands.
async fn everywhere(client: &mut Client) -> anyhow::Result<Vec<String>> {
    let found = client.list_tasks(ListTasksRequest::default()).await;
    let ListTasksReply { nodes, silent, .. } = found.map_err(refused)?.into_inner();
    if let Some(silent) = silent.first() {
        return Err(anyhow!("not everywhere: no answer from {silent}"));
    }
    if nodes.is_empty() {
        return Err(anyhow!(
            "no live worker runs commands: start one with `sawmill compute --allow-exec`"
        ));
    }
    Ok(nodes)
}

/// Tells of each task, and follows them side by side.
async fn all(
    nodes: &[String],
    started: Vec<anyhow::Result<Task>>,
    following: bool,
    client: &Client,
) -> anyhow::Result<Exit> {
    let mut exit = Exit::Success;
    let mut tasks = Vec::new();
    for (node, task) in nodes.iter().zip(started) {
        match task {
            Ok(task) => tasks.push((node, task.name)),
            Err(why) => {
                output::note(format_args!("{node}: {why:#}"));
                exit = Exit::Failure;
            }
        }
    }
    if !following {
        tasks.iter().try_for_each(|(_, name)| output::line(name))?;
        return Ok(exit);
    }
    let width = tasks.iter().map(|(node, _)| node.len()).max().unwrap_or(0);
    let following = tasks.into_iter().map(|(node, name)| {
        let (client, prefix) = (client.clone(), format!("{node:width$} | "));
        async move { follow::beside_others(client, name, &prefix).await }
    });
    for end in join_all(following).await {
        if end? != Exit::Success {
            exit = Exit::Failure;
        }
    }
    Ok(exit)
}
