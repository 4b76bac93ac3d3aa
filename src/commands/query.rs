//! `sawmill query`: a question in SQL over the lines of a dataset.

pub(super) mod answer;
mod live;
mod progress;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use control::Control;
use model::{Job, JobSpec, JobState, Name, Priority, Processor, processor::Query, processor::QueryTable};
use tokio::signal::unix::{SignalKind, signal};

use self::{answer::Target, progress::Watch};
use super::{Context, job, run, table};
use crate::{
    exit::{Exit, usage},
    output,
};

const HELP: &str = "\
The query names the dataset as its table. What columns a dataset has, `sawmill dataset show NAME` tells; every one has \
_raw (the line), _line and _block (where it stands), and _error (why it did not parse; null where it did).

Each block is answered where it is; what was computed for a block once is not computed again, and the very same query \
over the very same blocks gets the answer that is recorded.

The rows of an answer are documents in MongoDB too: those of up to 10,000 rows in the collection `rows`, by job and for as long \
as it; those of any number in a collection of their own with --into.

Examples:
  sawmill query \"SELECT status, count(*) FROM access GROUP BY status ORDER BY 2 DESC\"
  sawmill query \"SELECT path, sum(bytes) AS sent FROM access GROUP BY path ORDER BY sent DESC LIMIT 10\"
  sawmill query \"SELECT _raw, _error FROM access WHERE _error IS NOT NULL LIMIT 5\" --output json
  sawmill query \"SELECT path, sum(bytes) AS sent FROM access GROUP BY path\" --into sent_by_path
  sawmill query \"SELECT date_bin(INTERVAL '1 hour', time) AS hour, count(*) FROM access GROUP BY 1 ORDER BY 1\" --live";

/// `sawmill query`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct QueryArgs {
    /// The query
    #[arg(value_name = "SQL")]
    sql: String,
    /// 0 to 999, a higher number goes first
    #[arg(long, value_name = "N", default_value = "100", value_parser = run::priority, allow_negative_numbers = true)]
    priority: Priority,
    /// The zone in which SQL takes times that name none, such as Europe/Paris or +02:00
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// On a terminal, show the answer over the blocks that are done while the others are computed
    #[arg(long, conflicts_with = "no_wait")]
    live: bool,
    /// Bring up to ROWS rows together where blocks can't reduce them: for windows, joins of datasets and the like
    #[arg(long, value_name = "ROWS", num_args = 0..=1, default_missing_value = "1000000")]
    gather: Option<u64>,
    /// Compute every block, also where the answer is recorded
    #[arg(long)]
    no_reuse: bool,
    /// Write the answer to this file, in the form that its ending tells: json, csv, arrow, parquet
    #[arg(long, value_name = "FILE", conflicts_with = "no_wait")]
    to: Option<PathBuf>,
    /// Keep the answer in this collection of MongoDB too, in the place of all that is in it
    #[arg(long, value_name = "COLLECTION", value_parser = collection)]
    into: Option<String>,
    /// Print the id of the job and leave; `sawmill job output ID` prints the answer
    #[arg(long)]
    no_wait: bool,
}

fn collection(name: &str) -> Result<String, String> {
    let checked = storage::check_collection(name).map_err(|error| error.to_string());
    checked.map(|()| name.to_string())
}

/// Runs the command.
///
/// # Errors
/// A query that is wrong or can't be split, with the reason; what can't be reached.
pub async fn run(args: QueryArgs, context: &Context) -> anyhow::Result<Exit> {
    let target = Target::new(context.format, args.to.clone())?;
    let tables = sql::tables(&args.sql).map_err(|error| usage(error.to_string()))?;
    let [name] = &tables[..] else {
        return Err(match tables.len() {
            0 => usage("the query reads no dataset: name one behind FROM"),
            _ => usage(format!(
                "the query reads {}: one dataset can be read at a time",
                tables.join(", ")
            )),
        });
    };
    let name = Name::new(name.as_str()).map_err(|error| usage(error.to_string()))?;
    let control = context.control().await?;
    let dataset = control.dataset(&name).await?;
    let mut query = asked(&args, &name, table::of(&control, &dataset).await?);
    let question = sql::question(&query).map_err(|error| usage(error.to_string()))?;
    let again = !args.no_reuse && args.into.is_none();
    if again
        && let Some(job) = control
            .answered(&question, std::slice::from_ref(&dataset))
            .await?
        && answer_again(&args, &job, &control, &target).await?
    {
        return Ok(Exit::Success);
    }
    let runtime = sql::Runtime::for_planning();
    plan(&mut query, Some(question).filter(|_| again), &runtime).await?;
    let spec = JobSpec {
        priority: args.priority,
        reuse: !args.no_reuse && query.is_reusable(),
        ..JobSpec::new(name, Processor::Query(query))
    };
    spec.processor.check().map_err(|error| usage(error.to_string()))?;
    let mut ctrl_c = signal(SignalKind::interrupt()).context("can't take over Ctrl-C")?;
    let id = control.submit(spec).await?;
    if args.no_wait {
        output::line(id)?;
        return Ok(Exit::Success);
    }
    tracing::info!(job = %id, "submitted");
    let watch = Watch::new(&control, id, dataset.bytes, args.live.then_some(runtime)).await?;
    let waited = run::watch_or_cancel(&control, id, &mut ctrl_c, watch.bar(), watch.run()).await?;
    let Some(job) = waited else {
        return Ok(Exit::Interrupted);
    };
    if job.state != JobState::Successful {
        job::tell_failure(&control, &job).await?;
        return Ok(Exit::Failure);
    }
    let small = target.print(&control, &job).await?;
    if let Some(collection) = &args.into {
        let database = control.store().database();
        output::note(format_args!(
            "the answer is in the collection {collection} of the database {database}"
        ));
    } else if !small {
        output::note(
            "the answer is too large to be in the collection rows of MongoDB; --into COLLECTION keeps any number of rows",
        );
    }
    Ok(Exit::Success)
}

fn asked(args: &QueryArgs, name: &Name, table: model::table::Table) -> Query {
    Query {
        sql: args.sql.clone(),
        tables: vec![QueryTable {
            name: name.to_string(),
            table,
            lower_half: None,
        }],
        with: Vec::new(),
        gather_rows: args.gather,
        time_zone: args.time_zone.clone(),
        now_us: jiff::Timestamp::now().as_microsecond(),
        version: sql::VERSION.to_string(),
        question: None,
        into: args.into.clone(),
    }
}

/// Checks the query, and tells what of it can be reused.
async fn plan(query: &mut Query, question: Option<String>, runtime: &sql::Runtime) -> anyhow::Result<()> {
    let wrong = |error: sql::Error| usage(error.to_string());
    let fingerprints = runtime.fingerprints(query).await.map_err(wrong)?;
    let repeatable = runtime.is_repeatable(query).await.map_err(wrong)?;
    for (table, fingerprint) in query.tables.iter_mut().zip(fingerprints) {
        let digits = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        table.lower_half = fingerprint.map(digits);
    }
    query.question = question.filter(|_| repeatable);
    Ok(())
}

/// Gives the answer that a job has recorded; whether it is still there.
async fn answer_again(
    args: &QueryArgs,
    job: &Job,
    control: &Control,
    target: &Target,
) -> anyhow::Result<bool> {
    if args.no_wait {
        output::line(job.id)?;
    } else {
        match job::bytes_of(control, job).await {
            Ok(bytes) => drop(target.show(&bytes)?),
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    let since = job.finished_ms.map(output::ago).unwrap_or_default();
    output::note(format_args!("answered by job {}, {since}", job.id));
    Ok(true)
}

/// Whether retention has just removed what was looked for.
fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(control::Error::ResultsGone { .. }))
}
