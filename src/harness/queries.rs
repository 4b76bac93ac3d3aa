//! The queries: their data, their submission, and the wait for their answers.

use anyhow::{Context as _, ensure};
use control::Control;
use model::{Block, JobSpec, Name, Processor};
use storage::{Progress, Store};
use tracing::info;

use super::tally::Answer;
use crate::ends;

/// Queries put at once: answers to the first come in while the rest is still put.
const BATCH: usize = 1000;

/// The dataset that query `number` asks for: dataset and group are both `number mod datasets`.
pub(super) fn dataset_of(number: u32, datasets: u32) -> Name {
    let index = number % datasets;
    Name::new(format!("{PREFIX}{index}-{index}"))
        .expect("a fixed prefix and two numbers keep the rule for names")
}

/// What the names of all datasets of the harness begin with.
pub(super) const PREFIX: &str = "harness-";

/// Makes the datasets that are not there yet.
///
/// # Errors
/// What MongoDB says, and a dataset of that name that is not of the harness.
pub(super) async fn prepare(control: &Control, queries: u32, datasets: u32) -> anyhow::Result<()> {
    let store = control.store()?;
    for index in 0..datasets.min(queries) {
        let name = dataset_of(index, datasets);
        let blocks = match store.get(&name).await? {
            Some(dataset) => dataset.blocks,
            None => {
                store.create(&name).await?;
                0
            }
        };
        if blocks == 0 {
            let text = format!("dataset {index}, group {index}\n");
            store.append_blocks(&name, vec![Block::inline(text)]).await?;
        }
        ensure!(
            blocks <= 1,
            "dataset {name} has {blocks} blocks: it is not the harness's; remove it or use another database"
        );
    }
    Ok(())
}

/// Puts all queries and returns when each has its answer. Waits for ever while nobody works on them.
///
/// # Errors
/// What MongoDB says.
pub(super) async fn put_and_wait(
    control: &Control,
    queries: u32,
    datasets: u32,
) -> anyhow::Result<Vec<Answer>> {
    let mut ids = Vec::with_capacity(queries as usize);
    let numbers: Vec<u32> = (0..queries).collect();
    for batch in numbers.chunks(BATCH) {
        let specs = batch
            .iter()
            .map(|&number| query(dataset_of(number, datasets)))
            .collect();
        ids.extend(control.submit_many(specs).await.context("putting queries")?);
    }
    info!(queries, datasets, "all queries were put");
    let ended = ends::of_all(control.store()?, &ids).await?;
    with_reasons(control.store()?, ended).await
}

fn query(dataset: Name) -> JobSpec {
    JobSpec {
        reuse: true,
        ..JobSpec::new(dataset, Processor::Noop)
    }
}

/// Adds why a query failed to those that did.
async fn with_reasons(store: &Store, answered: Vec<Progress>) -> anyhow::Result<Vec<Answer>> {
    let mut answers = Vec::with_capacity(answered.len());
    for Progress {
        id, state, counts, ..
    } in answered
    {
        let error = if counts.failed > 0 {
            store.job(id).await?.and_then(|job| job.error)
        } else {
            None
        };
        answers.push(Answer { state, counts, error });
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dataset_and_group_are_the_number_modulo_the_datasets() {
        assert_eq!(dataset_of(0, 5).as_str(), "harness-0-0");
        assert_eq!(dataset_of(13, 5).as_str(), "harness-3-3");
        assert_eq!(dataset_of(u32::MAX, 1).as_str(), "harness-0-0");
    }
}
