//! `sawmill view`: queries whose answer is kept current.

mod create;
mod show;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use control::Control;
use model::{Name, View, processor::Query, view::ViewState};
use storage::Partial;

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
            let pause = |view: &mut View| view.state = ViewState::Paused;
            change(&args.name, pause, "is paused", &control, context).await?;
        }
        Command::Resume(args) => {
            change(&args.name, View::resume, "is kept current", &control, context).await?;
        }
        Command::Remove(args) => return remove(&args.name, &control, context).await,
    }
    Ok(Exit::Success)
}

async fn change(
    name: &Name,
    to: impl Fn(&mut View),
    told: &str,
    control: &Control,
    context: &Context,
) -> anyhow::Result<()> {
    let view = control.change_view(name, |view| {
        // What is to be removed stays so.
        if view.state != ViewState::Removed {
            to(view);
        }
    });
    let view = view.await?;
    if view.state == ViewState::Removed {
        anyhow::bail!("view {name} is being removed");
    }
    if context.json() {
        return output::json(&serde_json::json!({ "view": name, "state": view.state.as_str() }));
    }
    output::line(format_args!("view {name} {told}"))
}

async fn remove(name: &Name, control: &Control, context: &Context) -> anyhow::Result<Exit> {
    let removed = |view: &mut View| view.state = ViewState::Removed;
    let view = control.change_view(name, removed).await?;
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
    let view = control.view(&args.name).await?;
    let Some(merged) = view.merged else {
        let why = view.error.map(|error| format!(": {error}")).unwrap_or_default();
        anyhow::bail!("view {} has no answer yet{why}", view.name);
    };
    let state = control.merged_state(merged).await?;
    target.write(&answer(control, &view.query, &state).await?)?;
    Ok(Exit::Success)
}

/// The answer that a merged state comes to.
///
/// # Errors
/// What can't be read; a state that another version of Sawmill has made.
pub(super) async fn answer(control: &Control, query: &Query, state: &[u8]) -> anyhow::Result<Vec<u8>> {
    let runtime = sql::Runtime::for_planning();
    for table in &query.with {
        let stored = Partial {
            index: 0,
            attempt: 1,
            result: Ok(table.stored.clone()),
        };
        runtime.keep(table, &control.partial_bytes(stored).await?)?;
    }
    Ok(sql::upper(&runtime, query, state).await?)
}
