//! Running the halves.

use std::{io::Read, ops::Range, sync::Arc};

use bytes::Bytes;
use datafusion::physical_plan::collect;
use model::{processor::Query, stats::BlockStats, table::Format};

use crate::{
    BlockAt, BlockRows, ColumnCache, Error, Origin, Runtime, Whence,
    block::{Lines, everywhere, is_in_lines, is_of_origin},
    cache::Keys,
    decode::{Column, Decoded, decode},
    parquet::{self, RowGroups},
    plan::{Halves, plan, table_of},
    stats::{column_key, of_column},
    wire,
};

/// The lower halves of a query over one block, before they run.
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
    /// The places of those that are not and that tell where the lines come from.
    missing_origins: Vec<usize>,
    whence: Whence,
    learned: BlockStats,
}

impl LowerHalf {
    /// Over a block of the dataset with the number `table`, as far as its columns are in the cache.
    ///
    /// # Errors
    /// Those of planning; [`Error::Missing`] for a small table that is to be [kept](Runtime::keep) first.
    pub async fn new(
        runtime: &Runtime,
        query: Arc<Query>,
        table: usize,
        block: BlockAt,
        cache: Arc<ColumnCache>,
    ) -> Result<Self, Error> {
        let halves = runtime.halves(&query).await?;
        let described = &table_of(&query, table)?.table;
        let keys = Keys::new(described, block, query.now_us);
        let lines = cache.lines(&keys);
        let (mut columns, mut missing, mut missing_origins) = (Vec::new(), Vec::new(), Vec::new());
        for &place in &halves.projections[table] {
            let is_of_origin = is_of_origin(described, place);
            if !is_of_origin && !is_in_lines(described, place) {
                continue;
            }
            match cache.column(&keys, place) {
                // Without its lines a column can't be used.
                Some(column) if lines.is_some() => columns.push((place, column)),
                _ if is_of_origin => missing_origins.push(place),
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
            missing_origins,
            whence: Whence::default(),
            learned: BlockStats::default(),
        })
    }

    /// Whether the bytes of the block are needed, see [`LowerHalf::read`].
    pub fn needs_bytes(&self) -> bool {
        self.lines.is_none() || !self.missing.is_empty() || !self.missing_origins.is_empty()
    }

    /// Whether it is asked where the lines come from: to be told by [`LowerHalf::come_from`] before they are read.
    pub fn needs_whence(&self) -> bool {
        !self.missing_origins.is_empty()
    }

    /// Takes where the lines come from.
    pub fn come_from(&mut self, whence: Whence) {
        self.whence = whence;
    }

    /// Takes the columns that are missing from the lines of the block, about so many bytes, and keeps them.
    ///
    /// # Errors
    /// [`Error::BadFormat`], [`Error::Read`], [`Error::TooManyLines`].
    pub fn read(&mut self, lines: impl Read, bytes_expected: u64) -> Result<(), Error> {
        let table = &table_of(&self.query, self.table)?.table;
        let origin = Origin {
            block: self.block.number,
            begins_file: self.block.begins_file,
            now_us: self.query.now_us,
        };
        let decoded = decode(table, lines, &self.missing, origin, bytes_expected)?;
        self.keep(decoded)
    }

    /// Whether the block is read by [`LowerHalf::read_pieces`], since it has no lines.
    pub fn is_of_row_groups(&self) -> bool {
        table_of(&self.query, self.table).is_ok_and(|table| table.table.format == Format::Parquet)
    }

    /// The ranges of the file that the missing columns need.
    ///
    /// # Errors
    /// [`Error::BadParquet`], [`Error::TooManyBytes`].
    pub fn pieces(&self, groups: &RowGroups) -> Result<Vec<Range<u64>>, Error> {
        let table = &table_of(&self.query, self.table)?.table;
        parquet::pieces(table, groups, &self.missing)
    }

    /// Takes the columns that are missing from the [pieces](LowerHalf::pieces) of the file that they need, each with where
    /// it begins, and keeps them.
    ///
    /// # Errors
    /// [`Error::BadParquet`], [`Error::TooManyBytes`].
    pub fn read_pieces(&mut self, groups: &RowGroups, pieces: Vec<(u64, Bytes)>) -> Result<(), Error> {
        let table = &table_of(&self.query, self.table)?.table;
        let decoded = parquet::decode(table, groups, pieces, &self.missing)?;
        self.keep(decoded)
    }

    fn keep(&mut self, decoded: Decoded) -> Result<(), Error> {
        let table = &table_of(&self.query, self.table)?.table;
        let keys = Keys::new(table, self.block, self.query.now_us);
        let lines = Lines::from(&decoded);
        self.cache.keep_lines(&keys, &lines);
        self.learned.rows = lines.rows;
        self.lines = Some(lines);
        for (place, column) in std::mem::take(&mut self.missing).into_iter().zip(decoded.columns) {
            if let Some(key) = column_key(table, place, self.query.now_us) {
                self.learned.columns.insert(key, of_column(&column.array));
            }
            self.cache.keep_column(&keys, place, &column);
            self.columns.push((place, column));
        }
        for place in std::mem::take(&mut self.missing_origins) {
            let name = everywhere(table, place).unwrap_or_default();
            let column = self.whence.column(name, self.learned.rows, &decoded.no_rows);
            self.cache.keep_column(&keys, place, &column);
            self.columns.push((place, column));
        }
        Ok(())
    }

    /// Takes what was learned of the block while it was read; none where nothing was.
    pub fn take_learned(&mut self) -> Option<BlockStats> {
        let learned = std::mem::take(&mut self.learned);
        (!learned.columns.is_empty()).then_some(learned)
    }

    /// Runs them: what they gave, in frames. Works on the calling task until it is done; it waits for nothing outside.
    ///
    /// # Errors
    /// [`Error::Query`] for what fails on the data, such as a division by zero, and when bytes were needed and not given;
    /// never for lines that do not parse. [`Error::TooManyRows`], [`Error::Memory`].
    pub async fn run(self) -> Result<Vec<u8>, Error> {
        let Some(lines) = self.lines else {
            return Err(Error::Query("the block was not read".into()));
        };
        let table = &table_of(&self.query, self.table)?.table;
        let projection = &self.halves.projections[self.table];
        let rows = BlockRows::assemble(table, projection, &lines, &self.columns, self.block.number)?;
        let mut frames = wire::Frames::new(rows.tally);
        for lower in self.halves.of_table(self.table) {
            let plan = self.halves.lower_plan(lower, self.table, &rows.batches)?;
            let batches = collect(plan, self.halves.context.clone()).await?;
            within(lower.most_rows, wire::count(&batches))?;
            frames.push(lower.number, &lower.between, &batches)?;
        }
        Ok(frames.finish())
    }
}

/// The lower halves over the bytes of one block of the dataset with the number `table`, without a cache.
///
/// # Errors
/// As [`LowerHalf::run`].
pub async fn lower(
    runtime: &Runtime,
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
    let (query, cache) = (Arc::new(query.clone()), ColumnCache::new(0));
    let mut half = LowerHalf::new(runtime, query, table, block, cache).await?;
    half.read(bytes, bytes.len() as u64)?;
    half.run().await
}

/// The upper half over what the lower ones gave for all blocks, one after another: the answer, as an Arrow IPC stream.
///
/// # Errors
/// [`Error::Query`], [`Error::BadPartial`], [`Error::TooManyRows`], [`Error::Memory`], [`Error::Missing`].
pub async fn upper(runtime: &Runtime, query: &Query, partials: &[u8]) -> Result<Vec<u8>, Error> {
    let mut halves = runtime.halves(query).await?;
    if halves.runs_once()? {
        halves = Arc::new(plan(query, runtime).await?);
    }
    let wire::Gathered {
        partials,
        tally,
        left_out,
    } = wire::read_frames(partials, halves.lower.len())?;
    let (mut most, mut gathered) = (None, 0);
    for (lower, batches) in halves.lower.iter().zip(&partials) {
        if lower.most_rows.is_some() {
            most = lower.most_rows;
            gathered += wire::count(batches);
        }
    }
    within(most, gathered)?;
    let plan = halves.upper_plan(&partials)?;
    drop(partials);
    let schema = plan.schema();
    let batches = collect(Arc::clone(&plan), halves.context.clone()).await?;
    wire::write(&schema, &batches, tally, &left_out)
}

/// One partial result that stands for all of these: the upper half over it gives what it gives over them, and it can be
/// merged with others again.
///
/// # Errors
/// As [`upper`].
pub async fn merge(runtime: &Runtime, query: &Query, partials: &[u8]) -> Result<Vec<u8>, Error> {
    let halves = runtime.halves(query).await?;
    let wire::Gathered {
        partials,
        tally,
        left_out,
    } = wire::read_frames(partials, halves.lower.len())?;
    let mut frames = wire::Frames::new(tally);
    if !left_out.is_empty() {
        frames.push_left_out(&left_out);
    }
    for (lower, batches) in halves.lower.iter().zip(partials) {
        let merged = match lower.merging_plan(batches.clone())? {
            Some(plan) => {
                drop(batches);
                collect(plan, halves.context.clone()).await?
            }
            None => batches,
        };
        frames.push(lower.number, &lower.between, &merged)?;
    }
    Ok(frames.finish())
}

fn within(most: Option<u64>, rows: usize) -> Result<(), Error> {
    match most {
        Some(most) if rows as u64 > most => Err(Error::TooManyRows { most }),
        _ => Ok(()),
    }
}
