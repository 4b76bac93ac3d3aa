//! `sawmill audit`: who changed what, and when.

use clap::{Args, Subcommand};
use serde::Serialize;
use storage::{Change, ChangeFilter};

use super::Context;
use crate::{config::Span, exit::Exit, output};

/// `sawmill audit`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List changes, the newest first; they are kept for 400 days
    List(ListArgs),
}

/// `sawmill audit list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Not older than this
    #[arg(long, value_name = "TIME")]
    since: Option<Span>,
    /// By one alone, as it is written there: 'user anna'
    #[arg(long, value_name = "WHO")]
    who: Option<String>,
    /// So many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

/// A change as `--output json` shows it; fields are only ever added.
#[derive(Serialize)]
struct Shown {
    at: String,
    who: String,
    what: String,
    subject: String,
    details: String,
}

impl From<Change> for Shown {
    fn from(change: Change) -> Self {
        Self {
            at: output::time(change.at_ms),
            who: change.who,
            what: change.what,
            subject: change.subject,
            details: change.details,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What can't be reached.
pub async fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    let Command::List(args) = command;
    let now = jiff::Timestamp::now().as_millisecond();
    let since = |span: Span| now.saturating_sub(i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX));
    let filter = ChangeFilter {
        since_ms: args.since.map(since),
        who: args.who,
        limit: args.limit as usize,
    };
    let changes = context.control().await?.changes(&filter).await?;
    let shown = changes.into_iter().map(Shown::from);
    if context.json() {
        output::json(&shown.collect::<Vec<_>>())?;
    } else {
        let rows = shown.map(|change| [change.at, change.who, change.what, change.subject, change.details]);
        output::table(&["AT", "WHO", "WHAT", "SUBJECT", "DETAILS"], rows)?;
    }
    Ok(Exit::Success)
}
