//! What a query would do, and what of it is known already. Nothing runs.

use model::{
    Processor,
    processor::{DEFAULT_GATHER_ROWS, Query},
};

use super::{
    planned::{Planned, Typed},
    pruning, wrong,
};
use crate::{
    Control, Error, Foreseen, Question,
    explanation::{Answered, ExplainedDataset, Explanation, Half},
};

/// Explains a query.
pub(crate) async fn explain(control: &Control, question: &Question) -> Result<Explanation, Error> {
    let mut planned = Typed::new(question)?.over(control).await?;
    let identity = sql::question(&planned.query).map_err(wrong)?;
    let refused = match planned.planned(Some(identity.clone())).await {
        Ok(()) => None,
        Err(error @ sql::Error::NotSplit { .. }) => {
            planned.query.gather_rows = Some(DEFAULT_GATHER_ROWS);
            planned.planned(Some(identity)).await.map_err(wrong)?;
            Some(error.to_string())
        }
        Err(error) => return Err(wrong(error)),
    };
    let explained = planned.runtime.explain(&planned.query).await.map_err(wrong)?;
    let answered = match &planned.query.question {
        Some(question) if refused.is_none() => control.answered(question, &planned.datasets).await?,
        _ => None,
    };
    let Planned {
        query,
        datasets,
        runtime,
        ..
    } = planned;
    let foreseen = foresee(control, &runtime, &query, datasets).await?;
    let of_datasets = explained.reads.into_iter().zip(foreseen.datasets);
    Ok(Explanation {
        query: query.sql.clone(),
        refused,
        repeatable: query.question.is_some(),
        reusable: query.is_reusable(),
        answered: answered.map(|job| Answered {
            job: job.id.to_string(),
            finished_ms: job.finished_ms,
        }),
        subtasks: foreseen.subtasks,
        datasets: of_datasets
            .map(|((dataset, columns), foreseen)| ExplainedDataset {
                dataset,
                columns,
                foreseen,
            })
            .collect(),
        lower: explained.lower.into_iter().map(half).collect(),
        upper: explained.upper,
    })
}

fn half(half: sql::ExplainedHalf) -> Half {
    Half {
        datasets: half.datasets,
        most_rows: half.most_rows,
        plan: half.plan,
    }
}

async fn foresee(
    control: &Control,
    runtime: &sql::Runtime,
    query: &Query,
    datasets: Vec<storage::Dataset>,
) -> Result<Foreseen, Error> {
    let chosen = pruning::needed(control, runtime, query, datasets).await?;
    let processor = Processor::Query(query.clone());
    control.foresee(&processor, &chosen, query.is_reusable()).await
}
