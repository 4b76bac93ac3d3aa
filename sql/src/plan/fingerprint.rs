//! What happens to the blocks of a dataset, as a fingerprint.

use model::{
    processor::{Query, QueryTable},
    table::{BLOCK, ERROR, EVERYWHERE, Table},
};

use super::{Halves, digest::digest};
use crate::{Error, VERSION, block::begin_of_day};

/// Identifies, for each dataset, what happens to its blocks: two queries of one fingerprint have the same partial results.
///
/// blake3 over the version, the format of the lines, the columns that are read and the lower halves of the plan that the
/// dataset has a part in, with the content of small tables that they meet, and with the day where times have no year. None
/// for what differs from run to run, or for the same lines in another dataset.
///
/// # Errors
/// Those of [`Runtime::check`].
pub(crate) fn fingerprints(query: &Query, halves: &Halves) -> Result<Vec<Option<[u8; 32]>>, Error> {
    let tables = query.tables.iter().enumerate();
    tables
        .map(|(number, table)| fingerprint(query, halves, number, table))
        .collect()
}

fn fingerprint(
    query: &Query,
    halves: &Halves,
    number: usize,
    table: &QueryTable,
) -> Result<Option<[u8; 32]>, Error> {
    let read = &halves.projections[number];
    let place = EVERYWHERE.iter().position(|(name, _)| *name == BLOCK);
    let block = place.map(|place| table.table.columns.len() + place);
    if block.is_some_and(|block| read.contains(&block)) {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    for lower in halves.of_table(number) {
        hasher.update(&(lower.number as u64).to_be_bytes());
        if digest(&lower.plan, Some(number), &mut hasher)? {
            return Ok(None);
        }
    }
    let day = match table.table.format.is_yearless() {
        true => begin_of_day(query.now_us),
        false => 0,
    };
    hasher.update(&day.to_be_bytes());
    for part in [VERSION, &read_of(&table.table, read)?, &query.time_zone] {
        hasher.update(part.as_bytes());
        hasher.update(b"\0");
    }
    Ok(Some(*hasher.finalize().as_bytes()))
}

/// The format and the columns that are read, as text: what else a table has, and gets later, makes no difference.
fn read_of(table: &Table, projection: &[usize]) -> Result<String, Error> {
    let own = table.columns.len();
    let place = |name| EVERYWHERE.iter().position(|(known, _)| *known == name);
    // Whether a line parses shows in all its values.
    let reads_all = place(ERROR).is_some_and(|error| projection.contains(&(own + error)));
    let columns = table.columns.iter().enumerate();
    let columns: Vec<_> = columns
        .filter(|(place, _)| reads_all || projection.contains(place))
        .collect();
    let everywhere: Vec<_> = projection
        .iter()
        .filter_map(|place| place.checked_sub(own))
        .collect();
    let least = table.least.filter(|_| reads_all);
    let read = (&table.format, columns, everywhere, least);
    serde_json::to_string(&read).map_err(|error| Error::Query(error.to_string()))
}
