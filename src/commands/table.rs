//! What the lines of a dataset are: detected once, then kept with the dataset.

use std::io::Read as _;

use anyhow::Context as _;
use control::Control;
use model::table::Table;
use sql::Detected;

use crate::exit::usage;

/// How much of a dataset is looked at to know its format.
const SAMPLE_BYTES: u64 = 256 * 1024;

/// Detects the format of a dataset from its first lines, or takes the one that is named, and keeps it.
///
/// # Errors
/// A name of no format; a first block that can't be read.
pub(super) async fn learn(
    control: &Control,
    dataset: &storage::Dataset,
    named: Option<&str>,
) -> anyhow::Result<Detected> {
    let sample = sample(control, dataset).await?;
    let detected = match named {
        Some(name) => sql::named(name, &sample).map_err(|error| usage(error.to_string()))?,
        None => sql::detect(&sample),
    };
    control.store().set_table(&dataset.name, &detected.table).await?;
    Ok(detected)
}

/// How the lines of a dataset become rows: what is kept of it, else what its first lines look like, which is kept then.
///
/// # Errors
/// A first block that can't be read.
pub(super) async fn of(control: &Control, dataset: &storage::Dataset) -> anyhow::Result<Table> {
    match &dataset.table {
        Some(table) => Ok(table.clone()),
        None => Ok(learn(control, dataset, None).await?.table),
    }
}

/// The first bytes of a dataset.
///
/// # Errors
/// A first block that can't be read.
async fn sample(control: &Control, dataset: &storage::Dataset) -> anyhow::Result<Vec<u8>> {
    let blocks = control.store().blocks(dataset.id, 0..1).await?;
    let Some(first) = blocks.first() else {
        return Ok(Vec::new());
    };
    let reader = control.store().reader(first).await?;
    let mut sample = Vec::new();
    let read = match reader {
        storage::BlockReader::File { file, remaining } => {
            file.take(remaining.min(SAMPLE_BYTES)).read_to_end(&mut sample)
        }
        storage::BlockReader::Stream(reader) => reader.take(SAMPLE_BYTES).read_to_end(&mut sample),
        storage::BlockReader::Bytes(bytes) => bytes.take(SAMPLE_BYTES).read_to_end(&mut sample),
    };
    read.with_context(|| format!("can't read the first block of dataset {}", dataset.name))?;
    Ok(sample)
}
