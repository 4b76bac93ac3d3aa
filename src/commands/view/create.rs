//! `sawmill view create`.

use std::time::Duration;

use clap::Args;
use control::{Control, Question};
use model::{Name, Priority};

use crate::{
    cli,
    commands::{
        Context,
        query::with::{self, With},
        run,
    },
    exit::usage,
    output,
};

const HELP: &str = "\
The answer is the collection NAME of the database: whoever reads it sees the old rows or the new ones. `sawmill view output \
NAME` prints it. Only blocks that are added are computed: they are merged with what is kept of those before. When blocks \
leave a dataset, or it is made anew, so is the view, from what is recorded where that is still kept.

A view must give the same answer over the same blocks, whenever it is asked: now() and random() are refused, and the times \
of BSD syslog, whose year is guessed. For the last hours, group by time in the view and choose among its rows, or have \
blocks leave the dataset with `sawmill dataset set NAME --keep 30d`.

A block on which the query fails is left out, and `sawmill view show NAME` names it; `sawmill view resume NAME` tries it \
again.

Examples:
  sawmill view create by_status \"SELECT status, count(*) AS n FROM access GROUP BY status\"
  sawmill view create by_hour \"SELECT date_bin(INTERVAL '1 hour', time) AS hour, count(*) AS n FROM access GROUP BY 1\" --every 1m
  sawmill view create by_country \"SELECT country, count(*) AS n FROM access JOIN hosts USING (host) GROUP BY country\" --with hosts=hosts.csv";

/// `sawmill view create`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct CreateArgs {
    /// Of the view, and of the collection with its answer
    name: Name,
    /// The query
    #[arg(value_name = "SQL")]
    sql: String,
    /// Bring the answer up to date no more often than this
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = cli::span)]
    every: Duration,
    /// 0 to 999, a higher number goes first
    #[arg(long, value_name = "N", default_value = "100", value_parser = run::priority, allow_negative_numbers = true)]
    priority: Priority,
    /// The zone of texts that name none where they become times by to_timestamp() or ::timestamptz, such as Europe/Paris or
    /// +02:00; columns, and texts that they are compared with, are in UTC
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// Send a small table along, to be joined, as it is now; may be repeated, up to 16 MiB in all
    #[arg(long, value_name = "NAME=FILE")]
    with: Vec<With>,
    /// Bring up to ROWS rows together where blocks can't reduce them: for windows, joins of datasets and the like
    #[arg(long, value_name = "ROWS", num_args = 0..=1, default_missing_value = "1000000")]
    gather: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// A query that is wrong or can't be kept current, with the reason; a name that is taken; what can't be reached.
pub(super) async fn run(args: CreateArgs, control: &Control, context: &Context) -> anyhow::Result<()> {
    let name = &args.name;
    storage::check_collection(name.as_str()).map_err(|error| usage(error.to_string()))?;
    let question = Question {
        time_zone: args.time_zone.clone(),
        gather_rows: args.gather,
        with: with::read(&args.with)?,
        priority: args.priority,
        ..Question::new(args.sql.as_str())
    };
    let every_ms = u64::try_from(args.every.as_millis()).unwrap_or(u64::MAX);
    let database = control.create_view(name, &question, every_ms).await?;
    context
        .log("view.create", name.as_str(), args.sql.clone())
        .await?;
    if context.json() {
        return output::json(&serde_json::json!({ "view": name, "database": database }));
    }
    output::line(format_args!(
        "view {name} is made: its answer will be in the collection {name} of the database {database}, \
         `sawmill view output {name}` prints it"
    ))
}
