//! `sawmill query`: a question in SQL over the lines of a dataset.

pub(super) mod answer;
pub mod explain;
mod live;
mod progress;
pub(super) mod with;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use control::{Answer, Control, GrownFile, Question, reason};
use model::{Job, JobState, Priority};

use self::{answer::Target, progress::Watch, with::With};
use super::{Context, job, prompt, run};
use crate::{
    exit::{Exit, usage},
    output,
};

const HELP: &str = "\
The query names datasets as its tables. What columns a dataset has, `sawmill dataset schema NAME` tells; every one has \
_raw (the line), _line and _block (where it stands), _file and _host (the file that it stood in, and the machine that it \
was shipped from), and _error (why it did not parse; null where it did). These are selected by name: * leaves them out. \
SHOW TABLES and DESCRIBE NAME list datasets and columns.

Each block is answered where it is; what was computed for a block once is not computed again, and the very same query \
over the very same blocks gets the answer that is recorded.

Without a query it asks for them on the terminal: help tells what can be typed. Where standard input is no terminal, all \
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
    /// Leave out blocks whose file is gone, and name them, instead of failing; corrupted ones fail all the same
    #[arg(long)]
    skip_missing: bool,
    /// Compute every block, also where the answer is recorded
    #[arg(long)]
    no_reuse: bool,
    /// Write the answer to this file, in the form that its ending tells: json, csv, arrow, parquet
    #[arg(long, value_name = "FILE", conflicts_with = "no_wait")]
    to: Option<PathBuf>,
    /// Keep the answer in this collection of MongoDB too, however many rows it has, in the place of all that is in it; one
    /// that Sawmill did not make is refused
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
    if let Some(list) = prompt::Meta::in_words(text).filter(prompt::Meta::is_list) {
        if args.to.is_some() || args.into.is_some() || args.no_wait {
            return Err(usage("a list is no answer: leave --to, --into and --no-wait out"));
        }
        prompt::list(list, context).await?;
        return Ok(Exit::Success);
    }
    if let Some(text) = sql::to_explain(text).map_err(wrong)? {
        if args.to.is_some() || args.into.is_some() || args.no_wait {
            return Err(usage(
                "an explanation is no answer: leave --to, --into and --no-wait out",
            ));
        }
        return explain::explain(question_of(text, args)?, context).await;
    }
    let target = Target::new(context.format, args.to.clone())?;
    let mut question = question_of(text, args)?;
    question.check()?;
    let control = context.control().await?;
    // Before the job exists: from then on Ctrl-C means the job.
    let mut leaving = run::Leaving::install(true).context("can't take over signals")?;
    let mut asked = control.ask(&question).await?;
    if let Some(why) = &asked.changed {
        output::note(format_args!("what is recorded is not used: {why}"));
    }
    for grown in &asked.grown {
        let GrownFile { dataset, file, bytes } = grown;
        output::note(format_args!(
            "warning: {file} has grown by {} since it was added, which the answer does not count: `sawmill dataset refresh \
             {dataset}` adds that; `sawmill agent` follows logs that are written to",
            output::size(*bytes)
        ));
    }
    if let Answer::Recorded(job) = &asked.answer {
        if answer_again(args, job, &control, &target).await? {
            return Ok(Exit::Success);
        }
        question.no_recorded_answer = true;
        asked = control.ask(&question).await?;
    }
    let (id, bytes) = match asked.answer {
        Answer::Submitted { job, bytes } => (job, bytes),
        Answer::NoRows(answer) => {
            target.write(&answer)?;
            return Ok(Exit::Success);
        }
        Answer::Recorded(_) => anyhow::bail!("a recorded answer was given where none was wanted"),
    };
    if args.no_wait {
        output::line(id)?;
        return Ok(Exit::Success);
    }
    tracing::info!(job = %id, "submitted");
    let watch = Watch::new(&control, id, bytes, args.live).await?;
    let waited = run::watch_or_cancel(&control, id, &mut leaving, watch.bar(), watch.run()).await?;
    let Some(job) = waited else {
        return Ok(Exit::Interrupted);
    };
    if job.state != JobState::Successful {
        job::tell_failure(&control, &job).await?;
        return Ok(Exit::Failure);
    }
    let small = target.print(&control, &job).await?;
    if let Some(collection) = &args.into {
        let database = asked.database;
        output::note(format_args!(
            "the answer is in the collection {collection} of the database {database}"
        ));
    } else if !small {
        tracing::info!(
            "the answer has too many rows for the collection rows of MongoDB; --into keeps any number"
        );
    }
    Ok(Exit::Success)
}

fn question_of(text: &str, args: &QueryArgs) -> anyhow::Result<Question> {
    Ok(Question {
        time_zone: args.time_zone.clone(),
        gather_rows: args.gather,
        with: with::read(&args.with)?,
        into: args.into.clone(),
        priority: args.priority,
        no_reuse: args.no_reuse,
        skip_missing: args.skip_missing,
        ..Question::new(text)
    })
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
    let error = error.downcast_ref::<control::Error>();
    error.is_some_and(|error| error.is(reason::RESULTS_GONE))
}
