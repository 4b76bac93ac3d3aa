//! `sawmill query`: a question in SQL over the lines of a dataset.

pub(super) mod answer;
pub(super) mod asked;
mod blocks;
pub mod explain;
mod live;
mod progress;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use control::Control;
use model::{Job, JobSpec, JobState, Name, Priority, Processor, processor::Query};
use storage::Dataset;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    answer::Target,
    asked::{Asked, Meant, Typed, With},
    progress::Watch,
};
use super::{Context, job, prompt, run};
use crate::{
    exit::{Exit, usage},
    output,
};

const HELP: &str = "\
The query names datasets as its tables. What columns a dataset has, `sawmill dataset show NAME` tells; every one has \
_raw (the line), _line and _block (where it stands), _file and _host (the file that it stood in, and the machine that it \
was shipped from), and _error (why it did not parse; null where it did).

Each block is answered where it is; what was computed for a block once is not computed again, and the very same query \
over the very same blocks gets the answer that is recorded.

Without a query it asks for them on the terminal: \\? tells what can be typed. Where standard input is no terminal, all \
queries in it are answered, each ended by a semicolon, up to the first that fails.

The rows of an answer are documents in MongoDB too: those of up to 10,000 rows in the collection `rows`, by job and for as long \
as it; those of any number in a collection of their own with --into.

Examples:
  sawmill query \"SELECT status, count(*) FROM access GROUP BY status ORDER BY 2 DESC\"
  sawmill query \"SELECT path, sum(bytes) AS sent FROM access GROUP BY path ORDER BY sent DESC LIMIT 10\"
  sawmill query \"SELECT _raw, _error FROM access WHERE _error IS NOT NULL LIMIT 5\" --output json
  sawmill query \"SELECT path, sum(bytes) AS sent FROM access GROUP BY path\" --into sent_by_path
  sawmill query \"SELECT date_bin(INTERVAL '1 hour', time) AS hour, count(*) FROM access GROUP BY 1 ORDER BY 1\" --live
  sawmill query \"SELECT country, count(*) FROM access JOIN hosts USING (host) GROUP BY country\" --with hosts=hosts.csv
  sawmill query \"SELECT host, time - lag(time) OVER (PARTITION BY host ORDER BY time) FROM access WHERE status = 500\" --gather";

/// `sawmill query`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct QueryArgs {
    /// The query; without it a prompt, or what stands in standard input
    #[arg(value_name = "SQL")]
    sql: Option<String>,
    /// 0 to 999, a higher number goes first
    #[arg(long, value_name = "N", default_value = "100", value_parser = run::priority, allow_negative_numbers = true)]
    priority: Priority,
    /// The zone of texts that name none where they become times by to_timestamp() or ::timestamptz, such as Europe/Paris or
    /// +02:00; columns, and texts that they are compared with, are in UTC
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// On a terminal, show the answer over the blocks that are done while the others are computed
    #[arg(long, conflicts_with = "no_wait")]
    live: bool,
    /// Send a small table along, to be joined: CSV or TSV with a header, or an object of JSON on each line; may be repeated,
    /// up to 16 MiB in all
    #[arg(long, value_name = "NAME=FILE")]
    with: Vec<With>,
    /// Bring up to ROWS rows together where blocks can't reduce them: for windows, joins of datasets and the like
    #[arg(long, value_name = "ROWS", num_args = 0..=1, default_missing_value = "1000000")]
    gather: Option<u64>,
    /// Leave out blocks whose file is gone, and name them, instead of failing
    #[arg(long)]
    skip_missing: bool,
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
    match &args.sql {
        Some(text) => ask(text, &args, context).await,
        None if args.to.is_some() => Err(usage("--to takes one answer: give the query on the command line")),
        None => prompt::run(&args, context).await,
    }
}

/// Asks one question and prints the answer.
///
/// # Errors
/// As [`run`].
pub(super) async fn ask(text: &str, args: &QueryArgs, context: &Context) -> anyhow::Result<Exit> {
    let wrong = |error: sql::Error| usage(error.to_string());
    if let Some(text) = sql::to_explain(text).map_err(wrong)? {
        if args.to.is_some() || args.into.is_some() || args.no_wait {
            return Err(usage(
                "an explanation is no answer: leave --to, --into and --no-wait out",
            ));
        }
        return explain::explain(text, meant(args), context).await;
    }
    let target = Target::new(context.format, args.to.clone())?;
    let typed = Typed::new(text, meant(args))?;
    let control = context.control().await?;
    refuse_view(args, &control).await?;
    let mut asked = typed.over(&control).await?;
    let question = sql::question(&asked.query).map_err(wrong)?;
    let again = !args.no_reuse && args.into.is_none();
    let recorded = async {
        match again {
            true => anyhow::Ok(control.answered(&question, &asked.datasets).await?),
            false => Ok(None),
        }
    };
    let look = !args.no_reuse && !args.skip_missing;
    let (recorded, changed) = tokio::try_join!(recorded, blocks::changed(&control, &asked.datasets, look))?;
    if let Some(why) = changed.as_ref().filter(|_| recorded.is_some()) {
        output::note(format_args!("what is recorded is not used: {why}"));
    } else if let Some(job) = recorded
        && answer_again(args, &job, &control, &target).await?
    {
        return Ok(Exit::Success);
    }
    asked.plan(Some(question).filter(|_| again)).await?;
    let Asked {
        query,
        datasets,
        runtime,
        tables,
    } = asked;
    let chosen = blocks::needed(&control, &runtime, &query, datasets.clone()).await?;
    let bytes = blocks::bytes(&chosen);
    let spec = spec_of(args, query, &datasets, changed.is_none());
    spec.processor.check().map_err(|error| usage(error.to_string()))?;
    let mut ctrl_c = signal(SignalKind::interrupt()).context("can't take over Ctrl-C")?;
    let id = control.submit_with(spec, chosen, tables).await?;
    if args.no_wait {
        output::line(id)?;
        return Ok(Exit::Success);
    }
    tracing::info!(job = %id, "submitted");
    let watch = Watch::new(&control, id, bytes, args.live.then_some(runtime)).await?;
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

/// An answer in the place of that of a view would be replaced again.
async fn refuse_view(args: &QueryArgs, control: &Control) -> anyhow::Result<()> {
    let Some(name) = args.into.as_deref().and_then(|into| Name::new(into).ok()) else {
        return Ok(());
    };
    match control.store().view(&name).await? {
        Some(_) => Err(usage(format!(
            "the collection {name} is the answer of the view {name}: name another with --into"
        ))),
        None => Ok(()),
    }
}

fn meant(args: &QueryArgs) -> Meant<'_> {
    Meant {
        time_zone: &args.time_zone,
        gather_rows: args.gather,
        with: &args.with,
        into: args.into.as_deref(),
    }
}

fn spec_of(args: &QueryArgs, query: Query, datasets: &[Dataset], unchanged: bool) -> JobSpec {
    let mut names = datasets.iter().map(|dataset| dataset.name.clone());
    let first = names.next().expect("a query reads a dataset");
    let reuse = !args.no_reuse && unchanged && query.is_reusable();
    JobSpec {
        priority: args.priority,
        also: names.collect(),
        reuse,
        skip_missing: args.skip_missing,
        ..JobSpec::new(first, Processor::Query(query))
    }
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
            Ok(bytes) => drop(target.show(&bytes, job)?),
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
