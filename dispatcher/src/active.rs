//! A job that is being worked on.

use std::{
    cmp::Reverse,
    collections::HashMap,
    ops::Range,
    time::{Duration, Instant},
};

use model::{Block, Job, JobId, JobState, Priority, Spot, ledger::Ledger, ledger::Portion};
use storage::Store;
use uuid::Uuid;

use crate::Error;

/// Blocks read ahead of the cursor.
const READ_AHEAD: u32 = 1000;

/// The order in which jobs are fed: higher priority first, then the one submitted first.
pub(crate) type Turn = (Reverse<Priority>, JobId);

/// Why a job is being taken off the mill before its end.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) state: JobState,
    pub(crate) error: Option<String>,
}

/// An admitted job: its book and its blocks.
pub(crate) struct Active {
    pub(crate) job: Job,
    pub(crate) ledger: Ledger,
    /// Set once it shall end early.
    pub(crate) ending: Option<Ending>,
    /// When something last went forward.
    pub(crate) progress_at: Instant,
    pub(crate) low_water_written: u32,
    ahead: Ahead,
}

/// Datasets up to this many blocks are kept, so that many small jobs over one do not each ask for it.
const SMALL_BLOCKS: u32 = 64;
/// Small datasets kept at once; all are forgotten when there are more.
const SMALL_DATASETS: usize = 256;

/// The blocks of small datasets. Blocks of a dataset never change, and a removed one comes back under another id.
#[derive(Default)]
pub(crate) struct SmallDatasets(HashMap<Uuid, Vec<Block>>);

impl SmallDatasets {
    async fn blocks(&mut self, store: &Store, job: &Job, range: Range<u32>) -> Result<Vec<Block>, Error> {
        let known = self
            .0
            .get(&job.dataset_id)
            .is_some_and(|blocks| blocks.len() >= job.blocks as usize);
        if !known {
            if self.0.len() >= SMALL_DATASETS {
                self.0.clear();
            }
            let blocks = store.blocks(job.dataset_id, 0..job.blocks).await?;
            self.0.insert(job.dataset_id, blocks);
        }
        let blocks = self.0.get(&job.dataset_id).map(Vec::as_slice).unwrap_or_default();
        Ok(blocks
            .get(range.start as usize..range.end as usize)
            .unwrap_or_default()
            .to_vec())
    }
}

#[derive(Default)]
struct Ahead {
    first: u32,
    blocks: Vec<Block>,
}

impl Active {
    pub(crate) fn new(job: Job, ledger: Ledger) -> Self {
        let low_water_written = job.low_water;
        Self {
            job,
            ledger,
            ending: None,
            progress_at: Instant::now(),
            low_water_written,
            ahead: Ahead::default(),
        }
    }

    pub(crate) fn turn(&self) -> Turn {
        (Reverse(self.job.spec.priority), self.job.id)
    }

    /// The blocks of a portion; none for the merge. Reads ahead, since portions mostly follow one another.
    pub(crate) async fn blocks(
        &mut self,
        store: &Store,
        small: &mut SmallDatasets,
        portion: &Portion,
    ) -> Result<Vec<Block>, Error> {
        let run = portion.run;
        if run.first == self.job.blocks {
            return Ok(Vec::new());
        }
        if self.job.blocks <= SMALL_BLOCKS {
            return small.blocks(store, &self.job, run.indexes()).await;
        }
        let held = self.ahead.first..self.ahead.first + self.ahead.blocks.len() as u32;
        if !(held.contains(&run.first) && run.end() <= held.end) {
            let last = run
                .first
                .saturating_add(READ_AHEAD)
                .max(run.end())
                .min(self.job.blocks);
            let blocks = store.blocks(self.job.dataset_id, run.first..last).await?;
            self.ahead = Ahead {
                first: run.first,
                blocks,
            };
        }
        let from = (run.first - self.ahead.first) as usize;
        Ok(self
            .ahead
            .blocks
            .get(from..from + run.count as usize)
            .unwrap_or_default()
            .to_vec())
    }

    /// What the entry of a portion is about.
    pub(crate) fn spot(&self, portion: &Portion) -> Spot {
        if portion.run.first == self.job.blocks {
            Spot::Merge
        } else {
            Spot::Block(portion.run.first)
        }
    }

    /// How many subtasks the next entry should have.
    pub(crate) fn bundle(&self, bundles: bool, slots: u32) -> u32 {
        if bundles {
            model::bundle::size(self.ledger.mean_run_time(), self.ledger.left(), slots)
        } else {
            1
        }
    }

    pub(crate) fn quiet_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.progress_at)
    }
}
