//! Parquet: answers as files, and files as blocks of datasets.
//!
//! A block of a Parquet file is a run of whole row groups, and its range are the bytes that these take. Which they are is
//! told by the footer of the file, so that is read with each block; of the rest only the wanted columns are.
//!
//! What a file says of itself is looked at before it is believed, and a reader that panics over it all the same is an error
//! of the block.

mod footer;
mod leaves;
mod read;
mod thrift;
mod values;
mod write;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use footer::{Footer, RowGroups, footer_bytes, is_parquet};
pub(crate) use read::{decode, pieces};
pub(crate) use write::write;

use crate::Error;

/// Most bytes of the wanted columns of a block, as stored and as they are: they are in memory, and a query must fail alone, not
/// take its node along.
const MOST_BYTES: u64 = 1 << 30;

fn bad(why: impl ToString) -> Error {
    Error::BadParquet(why.to_string())
}

/// What `read` gives, where it does not panic.
fn guarded<T>(read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // Nothing of what was half read is used again.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(bad("its contents are damaged")))
}
