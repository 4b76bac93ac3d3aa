//! Running the halves.

use std::{io::Read, sync::Arc};

use datafusion::physical_plan::collect;
use model::processor::Query;

use crate::{
    BlockRows, Error, Origin,
    plan::{halves, memory, table_of},
    wire,
};

/// The lower half over the bytes of one block of the dataset with the number `table`: an Arrow IPC stream.
///
/// Works on the calling task until it is done; it waits for nothing outside.
///
/// # Errors
/// [`Error::Query`] for what fails on the data, such as a division by zero; never for lines that do not parse.
pub async fn lower(
    query: &Query,
    table: usize,
    bytes: &[u8],
    block: u32,
    begins_file: bool,
) -> Result<Vec<u8>, Error> {
    let halves = halves(query).await?;
    let table = &table_of(query, table)?.table;
    let origin = Origin {
        block,
        begins_file,
        now_us: query.now_us,
    };
    let rows = BlockRows::parse(table, bytes, &halves.projection, origin)?;
    let schema = crate::schema::schema(table).project(&halves.projection)?;
    let plan = halves.lower(memory(schema.into(), rows.batches)?)?;
    let batches = collect(plan, halves.context.clone()).await?;
    wire::write(&halves.between, &batches, rows.tally)
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
