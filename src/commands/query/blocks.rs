//! Which blocks a query reads, by what is known of their values.

use std::{collections::BTreeMap, ops::Range};

use control::Control;
use model::processor::Query;
use storage::Dataset;

use crate::exit::usage;

/// Of datasets with more blocks none are left out: reading what is known of them all would cost more than it spares.
const MOST_BLOCKS: u32 = 200_000;

/// The datasets of a query in their order, each with the ranges of its blocks that may have a row that is asked for.
///
/// # Errors
/// What MongoDB says.
pub(super) async fn needed(
    control: &Control,
    runtime: &sql::Runtime,
    query: &Query,
    datasets: Vec<Dataset>,
) -> anyhow::Result<Vec<(Dataset, Vec<Range<u32>>)>> {
    let mut needed = Vec::with_capacity(datasets.len());
    for (number, dataset) in datasets.into_iter().enumerate() {
        let ranges = of_dataset(control, runtime, query, number, &dataset).await?;
        needed.push((dataset, ranges));
    }
    Ok(needed)
}

async fn of_dataset(
    control: &Control,
    runtime: &sql::Runtime,
    query: &Query,
    number: usize,
    dataset: &Dataset,
) -> anyhow::Result<Vec<Range<u32>>> {
    let all = 0..dataset.blocks;
    let pruner = runtime.pruner(query, number).await;
    let Some(pruner) = pruner.map_err(|error| usage(error.to_string()))? else {
        return Ok(vec![all]);
    };
    if dataset.blocks > MOST_BLOCKS {
        return Ok(vec![all]);
    }
    let columns = pruner.columns();
    let known = if columns.is_empty() {
        BTreeMap::new()
    } else {
        control.store().stats(dataset.id, all, &columns).await?
    };
    Ok(pruner.needed(dataset.blocks, &known))
}
