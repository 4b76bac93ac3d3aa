//! Running the halves.

use std::{io::Read, sync::Arc};

use datafusion::physical_plan::collect;
use model::processor::Query;

use crate::{
    BlockAt, BlockRows, ColumnCache, Error, Origin,
    block::{Lines, is_in_lines},
    cache::Keys,
    decode::{Column, decode},
    plan::{Halves, halves, memory, table_of},
    wire,
};

/// The lower half of a query over one block, before it runs.
pub struct LowerHalf {
    query: Arc<Query>,
    table: usize,
    block: BlockAt,
    halves: Arc<Halves>,
    cache: Arc<ColumnCache>,
    lines: Option<Lines>,
    /// The columns that are there, by place.
    columns: Vec<(usize, Column)>,
    /// The places of those that are not.
    missing: Vec<usize>,
}

impl LowerHalf {
    /// Over a block of the dataset with the number `table`, as far as its columns are in the cache.
    ///
    /// # Errors
    /// Those of planning.
    pub async fn new(
        query: Arc<Query>,
        table: usize,
        block: BlockAt,
        cache: Arc<ColumnCache>,
    ) -> Result<Self, Error> {
        let halves = halves(&query).await?;
        let described = &table_of(&query, table)?.table;
        let keys = Keys::new(described, block, query.now_us);
        let lines = cache.lines(&keys);
        let (mut columns, mut missing) = (Vec::new(), Vec::new());
        for &place in halves
            .projection
            .iter()
            .filter(|&&place| is_in_lines(described, place))
        {
            match cache.column(&keys, place) {
                // Without its lines a column can't be used.
                Some(column) if lines.is_some() => columns.push((place, column)),
                _ => missing.push(place),
            }
        }
        Ok(Self {
            query,
            table,
            block,
            halves,
            cache,
            lines,
            columns,
            missing,
        })
    }

    /// Whether the bytes of the block are needed, see [`LowerHalf::read`].
    pub fn needs_bytes(&self) -> bool {
        self.lines.is_none() || !self.missing.is_empty()
    }

    /// Takes the columns that are missing from the bytes of the block, and keeps them.
    ///
    /// # Errors
    /// [`Error::BadFormat`].
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let table = &table_of(&self.query, self.table)?.table;
        let origin = Origin {
            block: self.block.number,
            begins_file: self.block.begins_file,
            now_us: self.query.now_us,
        };
        let decoded = decode(table, bytes, &self.missing, origin)?;
        let keys = Keys::new(table, self.block, self.query.now_us);
        let lines = Lines::from(&decoded);
        self.cache.keep_lines(&keys, &lines);
        self.lines = Some(lines);
        for (place, column) in std::mem::take(&mut self.missing).into_iter().zip(decoded.columns) {
            self.cache.keep_column(&keys, place, &column);
            self.columns.push((place, column));
        }
        Ok(())
    }

    /// Runs it: an Arrow IPC stream. Works on the calling task until it is done; it waits for nothing outside.
    ///
    /// # Errors
    /// [`Error::Query`] for what fails on the data, such as a division by zero, and when bytes were needed and not given;
    /// never for lines that do not parse.
    pub async fn run(self) -> Result<Vec<u8>, Error> {
        let Some(lines) = self.lines else {
            return Err(Error::Query("the block was not read".into()));
        };
        let table = &table_of(&self.query, self.table)?.table;
        let projection = &self.halves.projection;
        let rows = BlockRows::assemble(table, projection, &lines, &self.columns, self.block.number)?;
        let schema = crate::schema::schema(table).project(projection)?;
        let plan = self.halves.lower(memory(schema.into(), rows.batches)?)?;
        let batches = collect(plan, self.halves.context.clone()).await?;
        wire::write(&self.halves.between, &batches, rows.tally)
    }
}

/// The lower half over the bytes of one block of the dataset with the number `table`, without a cache.
///
/// # Errors
/// As [`LowerHalf::run`].
pub async fn lower(
    query: &Query,
    table: usize,
    bytes: &[u8],
    block: u32,
    begins_file: bool,
) -> Result<Vec<u8>, Error> {
    let block = BlockAt {
        number: block,
        begins_file,
        contents: None,
    };
    let mut half = LowerHalf::new(Arc::new(query.clone()), table, block, ColumnCache::new(0)).await?;
    half.read(bytes)?;
    half.run().await
}

/// The upper half over what the lower ones gave, one stream after another: the answer, as an Arrow IPC stream.
///
/// # Errors
/// [`Error::Query`], [`Error::BadPartial`].
pub async fn upper(query: &Query, partials: impl Read) -> Result<Vec<u8>, Error> {
    let halves = halves(query).await?;
    let (_, batches, tally) = wire::read_all(partials)?;
    let plan = halves.upper(memory(halves.between.clone(), batches)?)?;
    let schema = plan.schema();
    let batches = collect(Arc::clone(&plan), halves.context.clone()).await?;
    wire::write(&schema, &batches, tally)
}
