//! Parquet: answers as files.

mod write;

pub(crate) use write::write;
