//! `sawmill agent list|show|pause|resume|move|remove`: the agents of a mill, from anywhere.

use clap::{Args, Subcommand};
use control::{Agent, AgentState};
use model::Name;

use super::Context;
use crate::{exit::Exit, output};

/// A report older than this says nothing of now, in milliseconds.
const FRESH_MS: i64 = 60_000;

/// What may be done with agents from anywhere.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List the agents of the mill: what they do, how far they lag, what they have shipped
    List(ListArgs),
    /// Show one agent, with its datasets
    Show(Named),
    /// Tell an agent to read and ship nothing until it is resumed
    Pause(Named),
    /// Let a paused agent go on
    Resume(Named),
    /// Have an agent ship to a worker, now and whenever that is there
    Move(MoveArgs),
    /// Forget an agent that is away; what it has shipped stays
    Remove(Named),
}

/// `sawmill agent list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Also those that shipped files once and are gone
    #[arg(long)]
    all: bool,
}

/// The name of an agent.
#[derive(Clone, Debug, Args)]
pub struct Named {
    /// Name of the agent
    agent: Name,
}

/// `sawmill agent move`.
#[derive(Clone, Debug, Args)]
pub struct MoveArgs {
    /// Name of the agent
    agent: Name,
    /// Name of the compute node, or of its worker as `sawmill status` shows it
    #[arg(long, value_name = "WORKER", required_unless_present = "anywhere")]
    to: Option<String>,
    /// Leave it to the leader again
    #[arg(long, conflicts_with = "to")]
    anywhere: bool,
}

/// Runs the command.
///
/// # Errors
/// An agent or worker that is not there; what can't be reached.
pub async fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    let control = context.control().await?;
    let agent = match command {
        Command::List(ListArgs { all }) => {
            let mut agents = control.agents().await?;
            agents.retain(|agent| all || !agent.once || agent.state != AgentState::Away);
            list(&agents, context)?;
            return Ok(Exit::Success);
        }
        Command::Show(Named { agent }) => control.agent(&agent).await?,
        Command::Pause(Named { agent }) => {
            let paused = control.pause_agent(&agent, true).await?;
            context.log("agent.pause", agent.as_str(), String::new()).await?;
            paused
        }
        Command::Resume(Named { agent }) => {
            let resumed = control.pause_agent(&agent, false).await?;
            context.log("agent.resume", agent.as_str(), String::new()).await?;
            resumed
        }
        Command::Move(MoveArgs { agent, to, .. }) => {
            let moved = control.move_agent(&agent, to.as_deref()).await?;
            let to = to.unwrap_or_default();
            context.log("agent.move", agent.as_str(), to).await?;
            moved
        }
        Command::Remove(Named { agent }) => {
            let removed = control.remove_agent(&agent).await?;
            context.log("agent.remove", agent.as_str(), String::new()).await?;
            if context.json() {
                output::json(&removed)?;
            } else {
                output::line(format_args!(
                    "agent {agent} is forgotten; what it has shipped stays"
                ))?;
            }
            return Ok(Exit::Success);
        }
    };
    if context.json() {
        output::json(&agent)?;
    } else {
        show(&agent)?;
    }
    Ok(Exit::Success)
}

fn list(agents: &[Agent], context: &Context) -> anyhow::Result<()> {
    if context.json() {
        return output::json(&agents);
    }
    if agents.is_empty() {
        return output::line("no agents");
    }
    let headings = [
        "AGENT",
        "STATE",
        "HOST",
        "ZONE",
        "NODE",
        ">LAG",
        ">RATE",
        ">TODAY",
        ">LINES TODAY",
        ">TOTAL",
        ">LINES",
        "SEEN",
    ];
    output::table(&headings, agents.iter().map(row))
}

fn row(agent: &Agent) -> Vec<String> {
    let load = agent.load.filter(|_| is_fresh(agent));
    vec![
        agent.name.to_string(),
        state(agent),
        agent.host.clone(),
        agent.zone.clone(),
        agent.node.clone().unwrap_or_default(),
        load.map(|load| output::size(load.lag_bytes)).unwrap_or_default(),
        load.map(|load| format!("{}/s", output::size(load.rate)))
            .unwrap_or_default(),
        output::size(agent.today.raw_bytes),
        output::grouped(agent.today.lines),
        output::size(agent.total.raw_bytes),
        output::grouped(agent.total.lines),
        output::ago(agent.seen_ms),
    ]
}

fn is_fresh(agent: &Agent) -> bool {
    let now = jiff::Timestamp::now().as_millisecond();
    agent.load.is_some_and(|load| now - load.at_ms < FRESH_MS)
}

fn state(agent: &Agent) -> String {
    let state = match agent.state {
        AgentState::Shipping => "shipping",
        AgentState::Waiting => "waiting",
        AgentState::Away if agent.protocol != 0 && agent.protocol != api::PROTOCOL => "refused",
        AgentState::Away => "away",
    };
    let full = agent.load.is_some_and(|load| load.spool_full) && is_fresh(agent);
    match (agent.paused, full) {
        (true, _) => format!("{state} (paused)"),
        (false, true) => format!("{state} (spool full)"),
        (false, false) => state.to_string(),
    }
}

fn show(agent: &Agent) -> anyhow::Result<()> {
    let place = match (&agent.worker, &agent.node) {
        (Some(worker), Some(node)) => format!("{node} ({worker})"),
        (Some(worker), None) => worker.clone(),
        _ => "none".to_string(),
    };
    let wanted = agent.wanted.as_ref().map_or("any", Name::as_str);
    let mut pairs = vec![
        ("agent", agent.name.to_string()),
        ("state", state(agent)),
        ("worker", place),
        ("wanted", wanted.to_string()),
        ("host", agent.host.clone()),
        ("zone", agent.zone.clone()),
        (
            "version",
            format!("{} (protocol {})", agent.version, agent.protocol),
        ),
        ("seen", output::ago(agent.seen_ms)),
    ];
    if let Some(load) = agent.load {
        let age = output::duration(std::time::Duration::from_millis(load.lag_ms));
        let full = if load.spool_full { ", full" } else { "" };
        pairs.extend([
            ("files", output::grouped(load.files)),
            ("lag", format!("{}, {age}", output::size(load.lag_bytes))),
            ("rate", format!("{}/s", output::size(load.rate))),
            ("spool", format!("{}{full}", output::size(load.spool_bytes))),
            ("reported", output::ago(load.at_ms)),
        ]);
    }
    output::pairs(&pairs)?;
    if agent.datasets.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let headings = [
        "DATASET",
        ">BLOCKS TODAY",
        ">LINES TODAY",
        ">BYTES TODAY",
        ">BLOCKS",
        ">LINES",
        ">BYTES",
        ">STORED",
        "LAST",
    ];
    let rows = agent.datasets.iter().map(|dataset| {
        let (today, total) = (dataset.today, dataset.total);
        [
            dataset.dataset.to_string(),
            output::grouped(today.blocks),
            output::grouped(today.lines),
            output::size(today.raw_bytes),
            output::grouped(total.blocks),
            output::grouped(total.lines),
            output::size(total.raw_bytes),
            output::size(total.stored_bytes),
            output::ago(dataset.at_ms),
        ]
    });
    output::table(&headings, rows)
}
