//! Running the processor of a job on one of its subtasks.

use std::{path::PathBuf, time::Duration};

use model::{
    Block, FailureKind, Name, Processor, Spot, cache::CacheUse, job::JobId, processor::Command,
    stats::Learned,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Answers, Blocks, Guard, Partials, Product, Source, Stop,
    command::{Printed, Runner, Task},
    noop,
};

#[cfg(not(feature = "sql"))]
fn without_sql() -> Stop {
    let why = "this compute node was built without SQL: build it with the feature `sql`";
    Stop::Failed(model::Failure::new(FailureKind::Query, why))
}

/// Which attempt of which subtask runs.
#[derive(Clone, Copy, Debug)]
pub struct Subtask<'a> {
    /// Of which job.
    pub job: JobId,
    /// On which dataset.
    pub dataset: &'a Name,
    /// Which of the datasets of the job that is, from 0.
    pub table: u32,
    /// The incarnation of the dataset, where something may be learned of its blocks.
    pub incarnation: Option<Uuid>,
    /// Number of the block in the dataset; of no meaning for the merge.
    pub block: u32,
    /// Index of the subtask in its job; of the merge: the number of subtasks before it.
    pub index: u32,
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// Runs processors; one for each compute node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    commands: Runner,
    #[cfg(feature = "sql")]
    queries: crate::query::Shared,
}

/// How much memory an engine may use for queries, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// For columns of blocks that queries have read.
    pub cache_bytes: u64,
    /// For the halves that run at the same time, together.
    pub query_bytes: u64,
}

impl Engine {
    /// Runs commands under `guard`, and keeps large outputs in unnamed files in the folder `spool`, where queries spill
    /// what does not fit into `memory`.
    pub fn new(guard: Guard, spool: impl Into<PathBuf>, memory: Memory) -> Self {
        let spool = spool.into();
        #[cfg(not(feature = "sql"))]
        let _ = memory;
        Self {
            commands: Runner::new(guard, &spool),
            #[cfg(feature = "sql")]
            queries: crate::query::Shared::new(spool, memory),
        }
    }

    /// How many of these blocks, of the dataset with the number `table` among those of the job, have columns in memory.
    pub fn held(&self, processor: &Processor, table: usize, blocks: &[Block]) -> usize {
        match processor {
            #[cfg(feature = "sql")]
            Processor::Query(query) => crate::query::held(query, table, blocks, &self.queries.cache),
            _ => {
                let _ = (table, blocks);
                0
            }
        }
    }

    /// Takes what queries have learned of the values in blocks since it was asked last.
    pub fn take_learned(&self) -> Vec<Learned> {
        #[cfg(feature = "sql")]
        return self.queries.learned.take();
        #[cfg(not(feature = "sql"))]
        Vec::new()
    }

    /// How the columns that queries have read are used.
    pub fn cache_use(&self) -> CacheUse {
        #[cfg(feature = "sql")]
        {
            self.queries.cache.usage()
        }
        #[cfg(not(feature = "sql"))]
        CacheUse::default()
    }

    /// Runs the processor on a block.
    ///
    /// Dropping the future kills what runs; cancelling `cancel` also waits for that.
    ///
    /// # Errors
    /// [`Stop`]: see [`Runner::run`].
    pub async fn run_block(
        &self,
        subtask: Subtask<'_>,
        processor: &Processor,
        block: &Block,
        blocks: &impl Blocks,
        cancel: &CancellationToken,
    ) -> Result<Printed, Stop> {
        let command = match processor {
            Processor::Noop => return Ok(noop::run(block).into()),
            Processor::Command(command) => command,
            #[cfg(feature = "sql")]
            Processor::Query(query) => {
                let block = crate::query::Block {
                    block,
                    number: subtask.block,
                    table: subtask.table as usize,
                    dataset: subtask.incarnation,
                };
                let product = crate::query::run_block(query, block, blocks, &self.queries, cancel).await;
                return product.map(Printed::from);
            }
            #[cfg(not(feature = "sql"))]
            Processor::Query(_) => return Err(without_sql()),
        };
        let source = tokio::select! {
            source = blocks.open(block) => source?,
            () = cancel.cancelled() => return Err(Stop::Cancelled),
        };
        let task = task(subtask, "map", &command.map, command, Spot::Block(subtask.block));
        self.commands.run(&task, source, cancel).await
    }

    /// What stands for the result of a block that is left out, since its file is gone; none for a processor whose results
    /// can't tell that.
    pub fn left_out(&self, subtask: Subtask<'_>, processor: &Processor, block: &Block) -> Option<Product> {
        match processor {
            #[cfg(feature = "sql")]
            Processor::Query(query) => {
                let block = crate::query::Block {
                    block,
                    number: subtask.block,
                    table: subtask.table as usize,
                    dataset: None,
                };
                Some(crate::query::left_out(query, &block))
            }
            _ => {
                let _ = (subtask, block);
                None
            }
        }
    }

    /// Merges the partial results of the job into its final result; the answer of a query is also kept as rows.
    ///
    /// Dropping the future kills what runs; cancelling `cancel` also waits for that.
    ///
    /// # Errors
    /// [`Stop`]: see [`Runner::run`]; `Refused` for a processor that merges nothing.
    pub async fn run_merge(
        &self,
        subtask: Subtask<'_>,
        processor: &Processor,
        store: &(impl Partials + Answers + Blocks + Clone + Send + Sync + 'static),
        cancel: &CancellationToken,
    ) -> Result<Printed, Stop> {
        #[cfg(feature = "sql")]
        if let Processor::Query(query) = processor {
            let product = crate::query::run_merge(query, subtask, store, &self.queries, cancel).await;
            return product.map(Printed::from);
        }
        #[cfg(not(feature = "sql"))]
        if let Processor::Query(_) = processor {
            return Err(without_sql());
        }
        let Processor::Command(
            command @ Command {
                reduce: Some(reduce), ..
            },
        ) = processor
        else {
            let text = format!("job {} has nothing to merge with", subtask.job);
            return Err(Stop::failed(FailureKind::Refused, text));
        };
        let source = Source::Stream(store.partials(subtask.job, subtask.index));
        let task = task(subtask, "reduce", reduce, command, Spot::Merge);
        self.commands.run(&task, source, cancel).await
    }
}

fn task<'a>(
    subtask: Subtask<'a>,
    role: &'static str,
    line: &'a str,
    command: &'a Command,
    spot: Spot,
) -> Task<'a> {
    Task {
        role,
        line,
        pipefail: command.pipefail,
        ok_exit: &command.ok_exit,
        env: &command.env,
        timeout: command.timeout_ms.map(Duration::from_millis),
        output_limit_bytes: command.output_limit_bytes,
        job: subtask.job,
        dataset: subtask.dataset,
        spot,
        attempt: subtask.attempt,
    }
}
