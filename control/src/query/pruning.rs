//! Which blocks a query reads, by what is known of their values.

use std::{collections::BTreeMap, ops::Range};

use model::{processor::Query, view::ranges::joined};
use storage::{Dataset, Since, held};

use super::{Chosen, wrong};
use crate::{Control, Error, GrownFile};

/// Of datasets with more blocks none are left out: reading what is known of them all would cost more than it spares.
const MOST_BLOCKS: u32 = 200_000;

/// Files of datasets with more blocks together are not looked at before a query: it could take longer than the answer.
const MOST_LOOKED_AT: u32 = 4096;

/// What has become of the files behind the datasets, as far as this machine can tell.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What is wrong with the first that has changed or is gone.
    pub(super) changed: Option<String>,
    /// Those that have grown.
    pub(super) grown: Vec<GrownFile>,
}

/// Looks at the files behind the datasets, unless they are too many.
///
/// # Errors
/// What MongoDB says.
pub(super) async fn look(control: &Control, datasets: &[Dataset]) -> Result<Looked, Error> {
    let mut looked = Looked::default();
    let blocks = datasets.iter().map(Dataset::count).fold(0, u32::saturating_add);
    if blocks > MOST_LOOKED_AT {
        return Ok(looked);
    }
    let store = control.store()?;
    for dataset in datasets {
        let blocks = store
            .numbered(dataset.edition(), dataset.first..dataset.blocks)
            .await?;
        for file in store.look(held(blocks.blocks), false).await {
            let grown = |bytes| GrownFile {
                dataset: dataset.name.clone(),
                file: file.place(),
                bytes,
            };
            match &file.since {
                Since::Grown(bytes) => looked.grown.push(grown(*bytes)),
                Since::Changed(why) | Since::Gone(why) if looked.changed.is_none() => {
                    looked.changed = Some(why.clone());
                }
                _ => {}
            }
        }
    }
    Ok(looked)
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
