//! Which blocks a query reads, by what is known of their values.

use std::{collections::BTreeMap, ops::Range};

use model::{processor::Query, view::ranges::joined};
use storage::Dataset;

use super::{Chosen, wrong};
use crate::{Control, Error};

/// Of datasets with more blocks none are left out: reading what is known of them all would cost more than it spares.
const MOST_BLOCKS: u32 = 200_000;

/// Files of datasets with more blocks together are not looked at before a recorded answer is given: it would take longer
/// than the answer.
const MOST_LOOKED_AT: u32 = 4096;

/// The first file behind the datasets that has changed or is gone, as far as this machine can tell, with what is wrong with
/// it; nothing without `look`.
///
/// # Errors
/// What MongoDB says.
pub(super) async fn changed(
    control: &Control,
    datasets: &[Dataset],
    look: bool,
) -> Result<Option<String>, Error> {
    let blocks = datasets.iter().map(Dataset::count).fold(0, u32::saturating_add);
    if !look || blocks > MOST_LOOKED_AT {
        return Ok(None);
    }
    for dataset in datasets {
        let range = dataset.first..dataset.blocks;
        if let Some(why) = control.store()?.first_changed(dataset.edition(), range).await? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// The datasets of a query in their order, each with the ranges of its blocks that may have a row that is asked for.
///
/// # Errors
/// What MongoDB says.
pub(super) async fn needed(
    control: &Control,
    runtime: &sql::Runtime,
    query: &Query,
    datasets: Vec<Dataset>,
) -> Result<Chosen, Error> {
    let mut needed = Vec::with_capacity(datasets.len());
    for (number, dataset) in datasets.into_iter().enumerate() {
        let ranges = of_dataset(control, runtime, query, number, &dataset).await?;
        let ranges = control.without_void(&dataset, joined(ranges)).await?;
        needed.push((dataset, ranges));
    }
    Ok(needed)
}

/// About how many bytes the chosen blocks have.
pub(super) fn bytes(chosen: &[(Dataset, Vec<Range<u32>>)]) -> u64 {
    let of = |(dataset, ranges): &(Dataset, Vec<Range<u32>>)| {
        let first = dataset.first;
        let counted = |range: &Range<u32>| u64::from(range.end.saturating_sub(range.start.max(first)));
        let blocks: u64 = ranges.iter().map(counted).sum();
        dataset.bytes / u64::from(dataset.count().max(1)) * blocks
    };
    chosen.iter().map(of).sum()
}

async fn of_dataset(
    control: &Control,
    runtime: &sql::Runtime,
    query: &Query,
    number: usize,
    dataset: &Dataset,
) -> Result<Vec<Range<u32>>, Error> {
    let all = dataset.first..dataset.blocks;
    let pruner = runtime.pruner(query, number).await;
    let Some(pruner) = pruner.map_err(wrong)? else {
        return Ok(vec![all]);
    };
    if dataset.count() > MOST_BLOCKS {
        return Ok(vec![all]);
    }
    let columns = pruner.columns();
    let known = if columns.is_empty() {
        BTreeMap::new()
    } else {
        control
            .store()?
            .stats(dataset.edition(), all.clone(), &columns)
            .await?
    };
    Ok(pruner.needed(all, &known))
}
