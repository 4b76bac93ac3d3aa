//! `sawmill task`: commands on one named worker, or on all of them, beside the queue.

mod follow;
mod start;

use anyhow::{Context as _, anyhow};
use api::{
    transport::{self, Channel},
    v1::{ListTasksRequest, Task, TaskRequest, TaskState, worker_client::WorkerClient},
};
use clap::{Args, Subcommand};
use model::Name;
use serde::Serialize;
use tonic::{Code, Status};

use super::Context;
use crate::{
    exit::{Exit, usage},
    listening, output,
};

const HELP: &str = "\
A task runs on the worker that is named, at once, for as long as it likes; it dies with its worker, and nothing runs it \
again. What must be done whatever dies is a job: `sawmill run`.

A TASK is NODE/ID as it was printed when it was started; of ID the beginning is enough.

Examples:
  sawmill task start web7 'journalctl -f -u nginx'
  sawmill task output --follow web7/01a2
  sawmill task start --everywhere 'df -h /var/log' --follow
  sawmill task start --everywhere 'sh -s' --input collect.sh --follow";

/// `sawmill task`.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = HELP)]
pub enum Command {
    /// Start a command on a worker, or on all of them
    Start(start::StartArgs),
    /// List the tasks that workers remember, the newest first
    List(ListArgs),
    /// Show a task
    Show(OneTask),
    /// End a task with all that it has started
    Stop(OneTask),
    /// Print what a task has printed
    Output(OutputArgs),
}

/// `sawmill task list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Those of this node alone
    #[arg(value_name = "NODE")]
    node: Option<Name>,
}

/// One task.
#[derive(Clone, Debug, Args)]
pub struct OneTask {
    /// Which
    task: String,
}

/// `sawmill task output`.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// Which
    task: String,
    /// Go on with what it prints until it ends; exits 1 when it did not exit with 0
    #[arg(short, long)]
    follow: bool,
}

type Client = WorkerClient<Channel>;

/// Runs the command.
///
/// # Errors
/// What can't be reached or found, with its place.
pub async fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    let mut client = client(context).await?;
    match command {
        Command::Start(args) => start::start(args, &mut client).await,
        Command::List(args) => list(args, &mut client, context).await,
        Command::Show(OneTask { task }) => {
            let found = client.get_task(TaskRequest { task }).await;
            show(&found.map_err(refused)?.into_inner(), context)
        }
        Command::Stop(OneTask { task }) => {
            let found = client.stop_task(TaskRequest { task }).await;
            show(&found.map_err(refused)?.into_inner(), context)
        }
        Command::Output(args) => follow::print(&mut client, args.task, args.follow).await,
    }
}

/// The gateway: the one that was given, else the one that ZooKeeper tells of.
async fn client(context: &Context) -> anyhow::Result<Client> {
    let settings = &context.settings;
    let addresses = match &settings.server {
        Some(servers) => servers.split(',').map(str::to_string).collect(),
        None => context.control().await?.gateways().await?,
    };
    if addresses.is_empty() {
        return Err(anyhow!(
            "no dispatcher serves a gateway: `sawmill status` shows who is there"
        ));
    }
    let security = listening::security(settings)?;
    let (channel, _) = transport::connect_any(&addresses, &security).await?;
    Ok(WorkerClient::new(channel))
}

fn refused(status: Status) -> anyhow::Error {
    match status.code() {
        Code::InvalidArgument => usage(status.message()),
        _ => anyhow!(transport::why(&status)),
    }
}

async fn list(args: ListArgs, client: &mut Client, context: &Context) -> anyhow::Result<Exit> {
    let worker = args.node.map(String::from).unwrap_or_default();
    let found = client.list_tasks(ListTasksRequest { worker }).await;
    let found = found.map_err(refused)?.into_inner();
    for silent in &found.silent {
        output::note(format_args!("no answer from {silent}"));
    }
    let exit = if found.silent.is_empty() {
        Exit::Success
    } else {
        Exit::Failure
    };
    if context.json() {
        let tasks: Vec<TaskView<'_>> = found.tasks.iter().map(TaskView::from).collect();
        output::json(&tasks)?;
        return Ok(exit);
    }
    let rows = found.tasks.iter().map(|task| {
        [
            task.name.clone(),
            state(task),
            task.owner.clone(),
            output::ago(task.started_ms),
            output::size(task.stdout_bytes + task.stderr_bytes),
            task.command.lines().next().unwrap_or_default().to_string(),
        ]
    });
    output::table(&["TASK", "STATE", "OF", "STARTED", ">PRINTED", "COMMAND"], rows)?;
    Ok(exit)
}

fn show(task: &Task, context: &Context) -> anyhow::Result<Exit> {
    if context.json() {
        output::json(&TaskView::from(task))?;
        return Ok(Exit::Success);
    }
    let mut pairs = vec![
        ("task", task.name.clone()),
        ("state", state(task)),
        ("command", task.command.clone()),
        ("started by", task.owner.clone()),
        ("started", output::ago(task.started_ms)),
        ("stdout", output::size(task.stdout_bytes)),
        ("stderr", output::size(task.stderr_bytes)),
    ];
    if !task.message.is_empty() {
        pairs.push(("because", task.message.clone()));
    }
    output::pairs(&pairs)?;
    Ok(Exit::Success)
}

/// In one word, with the exit code.
fn state(task: &Task) -> String {
    match (task.state(), task.exit_code, task.signal) {
        (TaskState::Exited, Some(code), _) => format!("EXITED {code}"),
        (TaskState::Signalled, _, Some(signal)) => format!("SIGNALLED {signal}"),
        (state, ..) => word(state).to_string(),
    }
}

fn word(state: TaskState) -> &'static str {
    let name = state.as_str_name();
    name.strip_prefix("TASK_STATE_").unwrap_or(name)
}

/// A task as programs get it.
#[derive(Serialize)]
struct TaskView<'a> {
    task: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    command: &'a str,
    owner: &'a str,
    started_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms: Option<i64>,
    stdout_bytes: u64,
    stderr_bytes: u64,
}

impl<'a> From<&'a Task> for TaskView<'a> {
    fn from(task: &'a Task) -> Self {
        Self {
            task: &task.name,
            state: word(task.state()),
            exit_code: task.exit_code,
            signal: task.signal,
            message: &task.message,
            command: &task.command,
            owner: &task.owner,
            started_ms: task.started_ms,
            ended_ms: task.ended_ms,
            stdout_bytes: task.stdout_bytes,
            stderr_bytes: task.stderr_bytes,
        }
    }
}

/// Reads what is to be the standard input of a task.
fn input(path: Option<&std::path::Path>) -> anyhow::Result<Vec<u8>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    std::fs::read(path).with_context(|| format!("can't read {}", path.display()))
}
