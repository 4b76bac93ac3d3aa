//! What the halves of queries share on one node: memory, plans, small tables.

use std::{
    collections::VecDeque,
    fmt,
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use datafusion::execution::{
    disk_manager::{DiskManagerBuilder, DiskManagerMode},
    memory_pool::{FairSpillPool, TrackConsumersPool},
    runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
};
use model::processor::{Query, SmallTable};

use crate::{
    Error, Explained, Pruner,
    plan::{self, Halves},
    small::SmallRows,
    spill::Unnamed,
};

/// Plans that are kept: a node works on the blocks of few queries at a time.
const PLANS: usize = 32;
/// Most bytes of small tables that are kept besides the latest one: some queries' worth.
const SMALL_BYTES: usize = 64 << 20;
/// How many of those that hold the most memory are named when it is used up.
const NAMED: NonZeroUsize = NonZeroUsize::new(3).expect("three is not zero");

/// What the halves of queries share on one node. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Shared>);

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Runtime").field(&self.0.env.memory_pool).finish()
    }
}

struct Shared {
    env: Arc<RuntimeEnv>,
    plans: Mutex<VecDeque<(Query, Arc<Halves>)>>,
    /// The latest first.
    small: Mutex<VecDeque<Arc<SmallRows>>>,
}

impl Runtime {
    /// For a node: halves that run at the same time share `memory_bytes`. What does not fit spills into files in the
    /// folder `spool`, or fails with [`Error::Memory`].
    pub fn new(memory_bytes: usize, spool: &Path) -> Self {
        let pool = TrackConsumersPool::new(FairSpillPool::new(memory_bytes), NAMED);
        let folder = spool.to_path_buf();
        let disk = DiskManagerMode::Custom(Arc::new(Unnamed { folder }));
        let env = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(disk))
            .build_arc();
        // Only folders of its own making can fail, and it makes none.
        Self::over(env.expect("nothing is opened yet"))
    }

    /// For planning alone: no limit of memory, no files.
    pub fn for_planning() -> Self {
        Self::over(Arc::default())
    }

    fn over(env: Arc<RuntimeEnv>) -> Self {
        Self(Arc::new(Shared {
            env,
            plans: Mutex::default(),
            small: Mutex::default(),
        }))
    }

    pub(crate) fn env(&self) -> Arc<RuntimeEnv> {
        self.0.env.clone()
    }

    /// The halves of a query, planned anew only when they are not among the latest: planning may take as long as a block.
    pub(crate) async fn halves(&self, query: &Query) -> Result<Arc<Halves>, Error> {
        let same = |(known, _): &&(Query, Arc<Halves>)| known == query;
        let known = lock(&self.0.plans)
            .iter()
            .find(same)
            .map(|(_, halves)| halves.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        let halves = Arc::new(plan::plan(query, self).await?);
        let mut plans = lock(&self.0.plans);
        // A plan holds its small tables.
        let most = if query.with.is_empty() { PLANS } else { PLANS / 8 };
        plans.truncate(most - 1);
        plans.push_front((query.clone(), halves.clone()));
        Ok(halves)
    }

    /// Checks that a query can be answered.
    ///
    /// # Errors
    /// [`Error::Query`] in DataFusion's words, [`Error::NotSplit`], [`Error::Missing`].
    pub async fn check(&self, query: &Query) -> Result<(), Error> {
        self.halves(query).await.map(drop)
    }

    /// Identifies, for each dataset of a query, what happens to its blocks; see [`crate::plan`].
    ///
    /// # Errors
    /// Those of [`Runtime::check`].
    pub async fn fingerprints(&self, query: &Query) -> Result<Vec<Option<[u8; 32]>>, Error> {
        plan::fingerprints(query, &*self.halves(query).await?)
    }

    /// Whether a query gives the same answer whenever it is asked over the same blocks.
    ///
    /// # Errors
    /// Those of [`Runtime::check`].
    pub async fn is_repeatable(&self, query: &Query) -> Result<bool, Error> {
        Ok(self.halves(query).await?.repeatable)
    }

    /// The answer of a query that gives no rows, whatever the lines are; none for any other.
    ///
    /// # Errors
    /// Those of [`Runtime::check`].
    pub async fn no_rows(&self, query: &Query) -> Result<Option<Vec<u8>>, Error> {
        if !self.halves(query).await?.is_empty() {
            return Ok(None);
        }
        crate::upper(self, query, &[]).await.map(Some)
    }

    /// Tells which blocks of the dataset with the number `table` a query needs; none: all.
    ///
    /// # Errors
    /// Those of [`Runtime::check`].
    pub async fn pruner(&self, query: &Query, table: usize) -> Result<Option<Pruner>, Error> {
        plan::pruner(query, &*self.halves(query).await?, table)
    }

    /// What a query does, and where.
    ///
    /// # Errors
    /// Those of [`Runtime::check`].
    pub async fn explain(&self, query: &Query) -> Result<Explained, Error> {
        Ok(plan::explain(query, &*self.halves(query).await?))
    }

    /// The small tables of a query whose rows are not at hand.
    pub fn missing<'q>(&self, query: &'q Query) -> Vec<&'q SmallTable> {
        let small = lock(&self.0.small);
        let is_here = |table: &SmallTable| small.iter().any(|rows| rows.are_of(table));
        query.with.iter().filter(|table| !is_here(table)).collect()
    }

    /// Takes the bytes of a small table. It may be forgotten again when many others come.
    ///
    /// # Errors
    /// [`Error::BadTable`] for other bytes than those that are meant, or lines that do not parse.
    pub fn keep(&self, table: &SmallTable, bytes: &[u8]) -> Result<(), Error> {
        let rows = Arc::new(SmallRows::parse(table, bytes)?);
        let mut small = lock(&self.0.small);
        small.retain(|rows| !rows.are_of(table));
        small.push_front(rows);
        let mut held = 0;
        small.retain(|rows| {
            let keep = held == 0 || held + rows.bytes() <= SMALL_BYTES;
            held += rows.bytes();
            keep
        });
        Ok(())
    }

    /// The rows of a small table.
    pub(crate) fn small(&self, table: &SmallTable) -> Result<Arc<SmallRows>, Error> {
        let mut small = lock(&self.0.small);
        let at = small.iter().position(|rows| rows.are_of(table));
        let found = at.and_then(|at| small.remove(at));
        let found = found.ok_or_else(|| Error::Missing(table.name.clone()))?;
        small.push_front(found.clone());
        Ok(found)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
