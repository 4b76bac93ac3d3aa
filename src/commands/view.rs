//! `sawmill view`: queries whose answer is kept current.

mod create;
mod show;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use control::Control;
use model::{Name, view::ViewState};

use super::{Context, query::answer::Target};
use crate::{exit::Exit, output};

/// How long a removal is waited for: a refresh that is under way is cancelled first.
const REMOVAL: Duration = Duration::from_secs(30);

/// `sawmill view`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Make a view: a query whose answer is kept current as blocks are added to its datasets
    Create(create::CreateArgs),
    /// List views
    List,
    /// Show a view: its query, what of its datasets is in the answer, blocks that are left out
    Show(OneView),
    /// Print the answer of a view as it stands
    Output(OutputArgs),
    /// Keep the answer of a view as it is
    Pause(OneView),
    /// Keep a view current again, and try blocks again that were left out
    Resume(OneView),
    /// Remove a view and the collection with its answer
    Remove(OneView),
}

/// One view.
#[derive(Clone, Debug, Args)]
pub struct OneView {
    /// Of the view
    name: Name,
}

/// `sawmill view output`.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// Of the view
    name: Name,
    /// Write the answer to this file, in the form that its ending tells: json, csv, arrow, parquet
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

impl Command {
    /// Whether it may print the answer of a query.
    pub(crate) fn prints_answers(&self) -> bool {
        matches!(self, Self::Output(_))
    }
}

/// Runs the command.
///
/// # Errors
/// What can't be reached, found or kept current, with the reason.
pub async fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    let control = context.control().await?;
    match command {
        Command::Create(args) => create::run(args, &control, context).await?,
        Command::List => show::list(&control, context).await?,
        Command::Show(args) => show::run(&args.name, &control, context).await?,
        Command::Output(args) => return print(args, &control, context).await,
        Command::Pause(args) => {
            change(&args.name, ViewState::Paused, "is paused", &control, context).await?;
        }
        Command::Resume(args) => {
            change(
                &args.name,
                ViewState::Active,
                "is kept current",
                &control,
                context,
            )
            .await?;
        }
        Command::Remove(args) => return remove(&args.name, &control, context).await,
    }
    Ok(Exit::Success)
}

async fn change(
    name: &Name,
    to: ViewState,
    told: &str,
    control: &Control,
    context: &Context,
) -> anyhow::Result<()> {
    let view = control.set_view_state(name, to).await?;
    context
        .log("view.set", name.as_str(), view.state.as_str().into())
        .await?;
    if view.state == ViewState::Removed {
        anyhow::bail!("view {name} is being removed");
    }
    if context.json() {
        return output::json(&serde_json::json!({ "view": name, "state": view.state.as_str() }));
    }
    output::line(format_args!("view {name} {told}"))
}

async fn remove(name: &Name, control: &Control, context: &Context) -> anyhow::Result<Exit> {
    let view = control.set_view_state(name, ViewState::Removed).await?;
    context
        .log("view.set", name.as_str(), view.state.as_str().into())
        .await?;
    let gone = control.view_is_gone(&view, REMOVAL).await?;
    if context.json() {
        output::json(&serde_json::json!({ "view": name, "removed": gone }))?;
    } else if gone {
        output::line(format_args!("view {name} is removed, with its answer"))?;
    }
    if gone {
        return Ok(Exit::Success);
    }
    output::note(format_args!(
        "error: view {name} is not removed yet: a dispatcher does that once it leads; `sawmill status` tells whether one does"
    ));
    Ok(Exit::Failure)
}

async fn print(args: OutputArgs, control: &Control, context: &Context) -> anyhow::Result<Exit> {
    let target = Target::new(context.format, args.to)?;
    target.write(&control.view_answer(&args.name).await?)?;
    Ok(Exit::Success)
}
