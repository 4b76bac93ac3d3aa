//! What a job would meet if it were submitted now.

use std::ops::Range;

use model::{Fingerprint, Parts, Processor};
use serde::{Deserialize, Serialize};
use storage::Dataset;

use crate::{Control, Error};

/// Blocks that are looked up together.
const TOGETHER: u32 = 1000;

/// What a job would meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreseen {
    /// All its subtasks, the merge among them.
    pub subtasks: u64,
    /// Its datasets, in their order.
    pub datasets: Vec<ForeseenDataset>,
}

/// What a job would meet in one of its datasets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeseenDataset {
    /// Blocks of the dataset.
    pub blocks: u64,
    /// Of these, left out of the job.
    pub skipped: u64,
    /// Of the others, answered from results that are recorded.
    pub recorded: u64,
    /// What is left to run over.
    pub to_read: u64,
    /// Bytes of that, as stored.
    pub bytes_to_read: u64,
}

impl Control {
    /// Looks up what a job over the chosen blocks would meet, as [`Control::submit_over`] takes them; nothing is looked up
    /// for reuse where `reuse` is not asked for.
    ///
    /// Costs two queries for each thousand blocks.
    ///
    /// # Errors
    /// [`Error::BadParts`], [`Error::Storage`].
    pub async fn foresee(
        &self,
        processor: &Processor,
        chosen: &[(Dataset, Vec<Range<u32>>)],
        reuse: bool,
    ) -> Result<Foreseen, Error> {
        let sources: Vec<_> = chosen.iter().map(|(dataset, _)| dataset.source()).collect();
        let ranges = chosen.iter().map(|(_, ranges)| ranges.clone()).collect();
        let parts = Parts::selected(sources.clone(), ranges)?;
        let of_source = |source: &model::parts::Source| ForeseenDataset {
            blocks: u64::from(source.count()),
            skipped: u64::from(source.count()),
            ..ForeseenDataset::default()
        };
        let mut datasets: Vec<ForeseenDataset> = sources.iter().map(of_source).collect();
        for part in parts.parts() {
            let table = part.table as usize;
            let found = &mut datasets[table];
            for first in part.range().step_by(TOGETHER as usize) {
                let range = first..part.range().end.min(first.saturating_add(TOGETHER));
                let blocks = self.store()?.blocks(sources[table].edition(), range).await?;
                let prints: Vec<Fingerprint> = blocks
                    .iter()
                    .map(|block| Fingerprint::of(processor, table, block))
                    .collect();
                let recorded = match reuse {
                    true => self.store()?.find_reusable(&prints).await?,
                    false => Default::default(),
                };
                for (block, print) in blocks.iter().zip(&prints) {
                    found.skipped = found.skipped.saturating_sub(1);
                    if recorded.contains_key(print) {
                        found.recorded += 1;
                    } else {
                        found.to_read += 1;
                        found.bytes_to_read += block.stored_bytes();
                    }
                }
            }
        }
        Ok(Foreseen {
            subtasks: u64::from(parts.blocks()) + u64::from(processor.merges()),
            datasets,
        })
    }
}
