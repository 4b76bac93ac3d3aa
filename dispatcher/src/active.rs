//! A job that is being worked on.

use std::{
    cmp::Reverse,
    collections::HashMap,
    ops::Range,
    time::{Duration, Instant},
};

use model::{
    Block, Job, JobId, JobState, Name, Priority, Processor, Spot,
    ledger::Ledger,
    ledger::Portion,
    parts::{Edition, Source},
};
use storage::{Numbered, Store};
use uuid::Uuid;

use crate::Error;

/// Blocks read ahead of the cursor.
const READ_AHEAD: u32 = 1000;
/// Numbers of blocks read ahead where many are void.
const READ_AHEAD_COMPACTED: u32 = 16_000;

/// The order in which jobs are fed: higher priority first, then the one submitted first.
pub(crate) type Turn = (Reverse<Priority>, JobId);

/// Why a job is being taken off the mill before its end.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) state: JobState,
    pub(crate) error: Option<String>,
    pub(crate) since: Instant,
}

impl Ending {
    /// From now on.
    pub(crate) fn new(state: JobState, error: Option<String>) -> Self {
        Self {
            state,
            error,
            since: Instant::now(),
        }
    }
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

/// What a query is guessed to take for a block; [`portions`](crate::portions) looks at how large the blocks are.
const GUESSED_RUN_TIME: Duration = Duration::from_millis(10);

/// Datasets up to this many blocks are kept, so that many small jobs over one do not each ask for it.
const SMALL_BLOCKS: u32 = 64;
/// Small datasets kept at once; all are forgotten when there are more.
const SMALL_DATASETS: usize = 256;

/// The blocks of small datasets from the first on that counts. Blocks of an edition of a dataset never change, and a removed
/// one comes back under another id.
#[derive(Default)]
pub(crate) struct SmallDatasets(HashMap<(Edition, u32), Vec<Block>>);

impl SmallDatasets {
    async fn blocks(
        &mut self,
        store: &Store,
        source: Source,
        range: Range<u32>,
    ) -> Result<Vec<Block>, Error> {
        let (edition, first) = (source.edition(), source.first);
        let known = self
            .0
            .get(&(edition, first))
            .is_some_and(|known| known.len() >= source.span() as usize);
        if !known {
            if self.0.len() >= SMALL_DATASETS {
                self.0.clear();
            }
            let all = store.blocks(edition, first..source.blocks).await?;
            self.0.insert((edition, first), all);
        }
        let blocks = self
            .0
            .get(&(edition, first))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let from = |number: u32| number.saturating_sub(first) as usize;
        Ok(blocks
            .get(from(range.start)..from(range.end))
            .unwrap_or_default()
            .to_vec())
    }
}

#[derive(Default)]
struct Ahead {
    dataset: Uuid,
    blocks: Numbered,
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

    /// The blocks of a portion within one part; none for the merge. Reads ahead, since portions mostly follow one another.
    pub(crate) async fn blocks(
        &mut self,
        store: &Store,
        small: &mut SmallDatasets,
        portion: &Portion,
    ) -> Result<Vec<Block>, Error> {
        let Some(place) = self.job.parts.at(portion.run.first) else {
            return Ok(Vec::new());
        };
        let (first, end) = (place.block, place.block + portion.run.count);
        let source = self.job.parts.sources()[place.table as usize];
        if source.span() <= SMALL_BLOCKS {
            return small.blocks(store, source, first..end).await;
        }
        if self.ahead.dataset == place.dataset
            && let Some(blocks) = self.ahead.blocks.get(first..end)
        {
            return Ok(blocks);
        }
        // Most of the numbers of a dataset with merged blocks are void.
        let ahead = match source.generation {
            0 => READ_AHEAD,
            _ => READ_AHEAD_COMPACTED,
        };
        let last = first.saturating_add(ahead).max(end).min(source.blocks);
        self.ahead = Ahead {
            dataset: place.dataset,
            blocks: store.numbered(source.edition(), first..last).await?,
        };
        Ok(self.ahead.blocks.get(first..end).unwrap_or_default())
    }

    /// Which dataset the blocks of a portion are of.
    pub(crate) fn table(&self, portion: &Portion) -> usize {
        let place = self.job.parts.at(portion.run.first);
        place.map_or(0, |place| place.table as usize)
    }

    /// What the entry of a portion is about: a dataset of the job, and a block of it. The merge is the first one's.
    pub(crate) fn subject(&self, portion: &Portion) -> (Name, Spot) {
        let spec = &self.job.spec;
        match self.job.parts.at(portion.run.first) {
            Some(place) => {
                let name = spec.datasets().nth(place.table as usize);
                (name.unwrap_or(&spec.dataset).clone(), Spot::Block(place.block))
            }
            None => (spec.dataset.clone(), Spot::Merge),
        }
    }

    /// Whether none of its subtasks has run yet, but how long they take can be guessed: a query reads so many bytes in a
    /// second, a command may do anything.
    pub(crate) fn is_guessed(&self) -> bool {
        self.ledger.mean_run_time().is_none() && matches!(self.job.spec.processor, Processor::Query(_))
    }

    /// How many subtasks the next entry should have.
    pub(crate) fn bundle(&self, bundles: bool, slots: u32) -> u32 {
        if bundles {
            let guess = self.is_guessed().then_some(GUESSED_RUN_TIME);
            let mean = self.ledger.mean_run_time().or(guess);
            model::bundle::size(mean, self.ledger.left(), slots)
        } else {
            1
        }
    }

    pub(crate) fn quiet_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.progress_at)
    }
}
