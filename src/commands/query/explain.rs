//! `sawmill explain`: what a query would do, and what of it is known already. Nothing runs.

use clap::Args;
use control::{Explanation, Question};

use super::with::{self, With};
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
    let wrong = |error: sql::Error| usage(error.to_string());
    let text = sql::to_explain(&args.sql).map_err(wrong)?.unwrap_or(&args.sql);
    let question = Question {
        time_zone: args.time_zone.clone(),
        gather_rows: args.gather,
        with: with::read(&args.with)?,
        ..Question::new(text)
    };
    explain(question, context).await
}

/// Explains a query.
///
/// # Errors
/// As [`run`].
pub(super) async fn explain(question: Question, context: &Context) -> anyhow::Result<Exit> {
    if context.format.is_for_answers() {
        return Err(usage("an explanation is printed as table or json"));
    }
    question.check()?;
    let explanation = context.control().await?.explain(&question).await?;
    if context.format == Format::Json {
        output::json(&explanation)?;
    } else {
        tell(&explanation)?;
    }
    Ok(Exit::Success)
}

fn tell(explanation: &Explanation) -> anyhow::Result<()> {
    if let Some(refused) = &explanation.refused {
        output::line(format_args!("refused as it stands: {refused}"))?;
        output::line("what follows is what it would be with --gather:\n")?;
    }
    let rows = explanation.datasets.iter().map(|dataset| {
        let of = &dataset.foreseen;
        [
            dataset.dataset.clone(),
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
    output::line(summary(explanation))?;
    output::line("")?;
    output::bytes(halves(explanation).to_string().as_bytes())
}

/// The halves, as DataFusion's plans are written.
fn halves(explanation: &Explanation) -> sql::Explained {
    let reads = explanation.datasets.iter();
    let lower = explanation.lower.iter().map(|half| sql::ExplainedHalf {
        datasets: half.datasets.clone(),
        most_rows: half.most_rows,
        plan: half.plan.clone(),
    });
    sql::Explained {
        reads: reads
            .map(|dataset| (dataset.dataset.clone(), dataset.columns.clone()))
            .collect(),
        lower: lower.collect(),
        upper: explanation.upper.clone(),
    }
}

/// What asking would take, in a sentence or two.
fn summary(explanation: &Explanation) -> String {
    let subtasks = output::counted(explanation.subtasks, "subtask");
    let mut text = match &explanation.answered {
        Some(answered) => {
            let since = answered.finished_ms.map(output::ago).unwrap_or_default();
            format!(
                "its answer is recorded, by job {}, {since}: nothing would run",
                answered.job
            )
        }
        None if explanation.subtasks == 1 => "nothing but the merge would run".to_string(),
        None => format!("{subtasks}, the merge among them"),
    };
    if !explanation.reusable {
        text += "; what is computed for its blocks differs from run to run, or tells where lines stand: it is not used again";
    } else if !explanation.repeatable {
        text += "; its answer depends on when it is asked and is not given again";
    }
    text
}
