//! Views: what may be one, and the answer that a merged state comes to.

use futures::{StreamExt as _, TryStreamExt as _};
use model::{Job, Name, Processor, View, processor::Query, view::Covered};
use storage::Partial;
use uuid::Uuid;

use super::planned::{Planned, Typed};
use crate::{Control, Error, Question, submit::now_ms};

/// How many partial results are looked at to know how many lines a block has.
const SAMPLE: usize = 8;

/// Makes a view of a question.
pub(crate) async fn create_view(
    control: &Control,
    name: &Name,
    question: &Question,
    every_ms: u64,
) -> Result<(), Error> {
    storage::check_collection(name.as_str())?;
    let question = Question {
        into: Some(name.to_string()),
        ..question.clone()
    };
    let mut planned = Typed::new(&question)?.over(control).await?;
    planned.plan(None).await?;
    check(&planned).await?;
    let Planned {
        query,
        datasets,
        tables,
        ..
    } = planned;
    let covered = datasets.iter().map(|dataset| Covered {
        dataset: dataset.name.clone(),
        id: dataset.id,
        blocks: Vec::new(),
        generation: 0,
    });
    let view = View {
        priority: question.priority,
        every_ms,
        ..View::new(name.clone(), Uuid::now_v7(), query, covered.collect(), now_ms())
    };
    control.keep_new_view(view, tables).await
}

/// Whether the query gives the same answer over the same blocks, whenever it is asked.
async fn check(planned: &Planned) -> Result<(), Error> {
    let Planned { query, runtime, .. } = planned;
    if !runtime.is_repeatable(query).await? {
        return Err(Error::Usage(
            "a view can't contain now(), random() or another function that differs from call to call: what is merged once \
             can't be taken back. Have the view group by time, as in date_bin(INTERVAL '1 hour', time), and choose the last \
             hours among its rows, or have old blocks leave with `sawmill dataset set NAME --keep 30d`"
                .into(),
        ));
    }
    let explained = runtime.explain(query).await?;
    for (table, (name, columns)) in query.tables.iter().zip(&explained.reads) {
        if table.table.format.is_yearless() && columns.iter().any(|column| column == "time") {
            return Err(Error::Usage(format!(
                "a view can't read the column time of {name}: its times have no year, and which one is meant depends on when \
                 it is asked. Have the logs written with the year, or leave time out of the view",
            )));
        }
    }
    Ok(())
}

/// The answer of a view as it stands.
pub(crate) async fn view_answer(control: &Control, name: &Name) -> Result<Vec<u8>, Error> {
    let view = control.view(name).await?;
    let Some(merged) = view.merged else {
        let why = view.error.map(|error| format!(": {error}")).unwrap_or_default();
        return Err(Error::Failed(format!(
            "view {} has no answer yet{why}",
            view.name
        )));
    };
    let state = control.merged_state(merged).await?;
    of_state(control, &view.query, &state).await
}

/// The answer of a job: of one that brought a view up to date the answer that its merged state comes to.
pub(crate) async fn answer(control: &Control, job: &Job) -> Result<Vec<u8>, Error> {
    let mut chunks = control.output(job).await?;
    let mut recorded = Vec::new();
    while let Some(chunk) = chunks.next().await {
        recorded.extend_from_slice(&chunk?);
    }
    match &job.spec.processor {
        Processor::Query(query) if query.refresh.is_some() => of_state(control, query, &recorded).await,
        _ => Ok(recorded),
    }
}

/// The answer that a merged state comes to; not of one that another version of Sawmill has made.
async fn of_state(control: &Control, query: &Query, state: &[u8]) -> Result<Vec<u8>, Error> {
    let runtime = runtime_of(control, query).await?;
    Ok(sql::upper(&runtime, query, state).await?)
}

/// What merges a query that was planned before: it knows its small tables.
pub(super) async fn runtime_of(control: &Control, query: &Query) -> Result<sql::Runtime, Error> {
    let runtime = sql::Runtime::for_planning();
    for table in &query.with {
        let stored = Partial {
            index: 0,
            attempt: 1,
            result: Ok(table.stored.clone()),
        };
        runtime.keep(table, &control.partial_bytes(stored).await?)?;
    }
    Ok(runtime)
}

/// How many of the first recorded blocks of a query were looked at, and how many lines these had.
pub(crate) async fn lines_of(control: &Control, job: &Job) -> Result<(u64, u64), Error> {
    let results = control.store()?.outputs(job.id, 0..job.blocks).await?;
    let (mut blocks, mut lines) = (0, 0);
    let mut results = results.take(SAMPLE);
    while let Some(partial) = results.try_next().await? {
        let bytes = control.partial_bytes(partial).await?;
        if let Ok(tally) = sql::tally(&bytes) {
            blocks += 1;
            lines += tally.rows;
        }
    }
    Ok((blocks, lines))
}
