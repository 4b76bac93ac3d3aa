//! `sawmill explain`: what a query would do, and what of it is known already. Nothing runs.

use clap::Args;
use control::{Control, Foreseen, ForeseenDataset};
use model::{
    Job, Processor,
    processor::{DEFAULT_GATHER_ROWS, Query},
};
use serde::Serialize;

use super::{
    asked::{Meant, Typed, With},
    blocks,
};
use crate::{
    commands::Context,
    exit::{Exit, usage},
    output::{self, Format},
};

const HELP: &str = "\
Shows both halves of the query, the blocks that it would read and those that it would skip, and what is recorded already. \
Nothing is run. EXPLAIN before a query that is given to `sawmill query` does the same.

Examples:
  sawmill explain \"SELECT status, count(*) FROM access GROUP BY status\"
  sawmill explain \"SELECT count(*) FROM access WHERE time >= '2015-05-20'\" --output json";

/// `sawmill explain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = HELP)]
pub struct ExplainArgs {
    /// The query
    #[arg(value_name = "SQL")]
    sql: String,
    /// The zone of texts that name none where they become times by to_timestamp() or ::timestamptz, such as Europe/Paris or
    /// +02:00; columns, and texts that they are compared with, are in UTC
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// A small table that the query joins, as with `sawmill query`
    #[arg(long, value_name = "NAME=FILE")]
    with: Vec<With>,
    /// As with `sawmill query`: bring up to ROWS rows together where blocks can't reduce them
    #[arg(long, value_name = "ROWS", num_args = 0..=1, default_missing_value = "1000000")]
    gather: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// A query that is wrong; what can't be reached.
pub async fn run(args: ExplainArgs, context: &Context) -> anyhow::Result<Exit> {
    let meant = Meant {
        time_zone: &args.time_zone,
        gather_rows: args.gather,
        with: &args.with,
        into: None,
    };
    let wrong = |error: sql::Error| usage(error.to_string());
    let text = sql::to_explain(&args.sql).map_err(wrong)?.unwrap_or(&args.sql);
    explain(text, meant, context).await
}

/// What is told of a query.
#[derive(Debug, Serialize)]
struct View {
    query: String,
    /// Why it is refused as it stands, and what to do; the rest is about the query with leave to gather rows.
    refused: Option<String>,
    /// Whether its answer and what is computed for its blocks may be given again.
    repeatable: bool,
    reusable: bool,
    /// The job that has answered it.
    answered: Option<Answered>,
    subtasks: u64,
    datasets: Vec<DatasetView>,
    lower: Vec<sql::ExplainedHalf>,
    upper: String,
}

#[derive(Debug, Serialize)]
struct Answered {
    job: String,
    finished_ms: Option<i64>,
}

#[derive(Debug, Serialize)]
struct DatasetView {
    dataset: String,
    columns: Vec<String>,
    #[serde(flatten)]
    foreseen: ForeseenDataset,
}

/// Explains a query.
///
/// # Errors
/// As [`run`].
pub(super) async fn explain(text: &str, meant: Meant<'_>, context: &Context) -> anyhow::Result<Exit> {
    if context.format.is_for_answers() {
        return Err(usage("an explanation is printed as table or json"));
    }
    let wrong = |error: sql::Error| usage(error.to_string());
    let typed = Typed::new(text, meant)?;
    let control = context.control().await?;
    let mut asked = typed.over(&control).await?;
    let question = sql::question(&asked.query).map_err(wrong)?;
    let refused = match asked.planned(Some(question.clone())).await {
        Ok(()) => None,
        Err(error @ sql::Error::NotSplit { .. }) => {
            asked.query.gather_rows = Some(DEFAULT_GATHER_ROWS);
            asked.planned(Some(question)).await.map_err(wrong)?;
            Some(error.to_string())
        }
        Err(error) => return Err(wrong(error)),
    };
    let explained = asked.runtime.explain(&asked.query).await.map_err(wrong)?;
    let answered = match &asked.query.question {
        Some(question) if refused.is_none() => control.answered(question, &asked.datasets).await?,
        _ => None,
    };
    let foreseen = foresee(&control, &asked.runtime, &asked.query, asked.datasets).await?;
    if context.format == Format::Json {
        output::json(&view(
            &asked.query,
            refused,
            answered.as_ref(),
            foreseen,
            explained,
        ))?;
    } else {
        tell(
            &asked.query,
            refused.as_deref(),
            answered.as_ref(),
            &foreseen,
            &explained,
        )?;
    }
    Ok(Exit::Success)
}

async fn foresee(
    control: &Control,
    runtime: &sql::Runtime,
    query: &Query,
    datasets: Vec<storage::Dataset>,
) -> anyhow::Result<Foreseen> {
    let chosen = blocks::needed(control, runtime, query, datasets).await?;
    let processor = Processor::Query(query.clone());
    Ok(control.foresee(&processor, &chosen, query.is_reusable()).await?)
}

fn view(
    query: &Query,
    refused: Option<String>,
    answered: Option<&Job>,
    foreseen: Foreseen,
    explained: sql::Explained,
) -> View {
    let datasets = explained.reads.into_iter().zip(foreseen.datasets);
    View {
        query: query.sql.clone(),
        refused,
        repeatable: query.question.is_some(),
        reusable: query.is_reusable(),
        answered: answered.map(|job| Answered {
            job: job.id.to_string(),
            finished_ms: job.finished_ms,
        }),
        subtasks: foreseen.subtasks,
        datasets: datasets
            .map(|((dataset, columns), foreseen)| DatasetView {
                dataset,
                columns,
                foreseen,
            })
            .collect(),
        lower: explained.lower,
        upper: explained.upper,
    }
}

fn tell(
    query: &Query,
    refused: Option<&str>,
    answered: Option<&Job>,
    foreseen: &Foreseen,
    explained: &sql::Explained,
) -> anyhow::Result<()> {
    if let Some(refused) = refused {
        output::line(format_args!("refused as it stands: {refused}"))?;
        output::line("what follows is what it would be with --gather:\n")?;
    }
    let rows = explained
        .reads
        .iter()
        .zip(&foreseen.datasets)
        .map(|((name, _), of)| {
            [
                name.clone(),
                output::grouped(of.blocks),
                output::grouped(of.skipped),
                output::grouped(of.recorded),
                output::grouped(of.to_read),
                output::size(of.bytes_to_read),
            ]
        });
    let headings = [
        "DATASET",
        ">BLOCKS",
        ">SKIPPED",
        ">RECORDED",
        ">TO READ",
        ">BYTES",
    ];
    output::table(&headings, rows)?;
    output::line("")?;
    output::line(summary(query, answered, foreseen))?;
    output::line("")?;
    output::bytes(explained.to_string().as_bytes())
}

/// What asking would take, in a sentence or two.
fn summary(query: &Query, answered: Option<&Job>, foreseen: &Foreseen) -> String {
    let subtasks = output::counted(foreseen.subtasks, "subtask");
    let mut text = match answered {
        Some(job) => {
            let since = job.finished_ms.map(output::ago).unwrap_or_default();
            format!(
                "its answer is recorded, by job {}, {since}: nothing would run",
                job.id
            )
        }
        None if foreseen.subtasks == 1 => "nothing but the merge would run".to_string(),
        None => format!("{subtasks}, the merge among them"),
    };
    if !query.is_reusable() {
        text += "; what is computed for its blocks differs from run to run, or tells where lines stand: it is not used again";
    } else if query.question.is_none() {
        text += "; its answer depends on when it is asked and is not given again";
    }
    text
}
