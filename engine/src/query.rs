//! The halves of a query, on a thread that may be busy for a while.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use model::{Content, Failure, FailureKind, processor::Query};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{Blocks, Product, Source, Stop, product::MEMORY_BYTES, source::read_failure};

/// A block and its number in the dataset.
pub(crate) struct Block<'a> {
    pub(crate) block: &'a model::Block,
    pub(crate) index: u32,
}

/// The lower half over a block. A half that runs when `cancel` is cancelled or the future dropped runs to its end, and
/// its result is thrown away: it has no effects.
pub(crate) async fn run_block(
    query: &Query,
    block: Block<'_>,
    blocks: &impl Blocks,
    spool: &Path,
    cancel: &CancellationToken,
) -> Result<Product, Stop> {
    let source = tokio::select! {
        source = blocks.open(block.block) => source?,
        () = cancel.cancelled() => return Err(Stop::Cancelled),
    };
    let begins_file = match block.block.content {
        Content::Object { start, .. } => start == 0,
        Content::Inline(_) => true,
    };
    let (query, index) = (query.clone(), block.index);
    on_busy_thread(spool, cancel, async move {
        let bytes = read(source).await?;
        let done = sql::lower(&query, &bytes, index, begins_file).await;
        done.map_err(|error| failure(format!("block {index}: {error}")))
    })
    .await
}

/// The upper half over all partial results.
pub(crate) async fn run_merge(
    query: &Query,
    partials: BoxStream<'static, Result<Bytes, Failure>>,
    spool: &Path,
    cancel: &CancellationToken,
) -> Result<Product, Stop> {
    let query = query.clone();
    on_busy_thread(spool, cancel, async move {
        let bytes = read(Source::Stream(partials)).await?;
        let done = sql::upper(&query, &bytes[..]).await;
        done.map_err(|error| failure(error.to_string()))
    })
    .await
}

fn failure(message: String) -> Failure {
    Failure::new(FailureKind::Query, message)
}

async fn on_busy_thread(
    spool: &Path,
    cancel: &CancellationToken,
    work: impl Future<Output = Result<Vec<u8>, Failure>> + Send + 'static,
) -> Result<Product, Stop> {
    let (runtime, spool) = (Handle::current(), spool.to_path_buf());
    let task = tokio::task::spawn_blocking(move || {
        let bytes = runtime.block_on(work)?;
        product(bytes, &spool).map_err(|error| {
            let message = format!("keeping a result in {}: {error}", spool.display());
            Failure::new(FailureKind::Store, message)
        })
    });
    tokio::select! {
        done = task => match done {
            Ok(product) => Ok(product?),
            Err(error) => Err(failure(format!("the query failed in the node: {error}")).into()),
        },
        () = cancel.cancelled() => Err(Stop::Cancelled),
    }
}

fn product(bytes: Vec<u8>, spool: &Path) -> io::Result<Product> {
    if bytes.len() <= MEMORY_BYTES {
        return Ok(Product::Memory(bytes));
    }
    let mut file = tempfile::tempfile_in(spool)?;
    file.write_all(&bytes)?;
    io::Seek::rewind(&mut file)?;
    Ok(Product::File {
        file,
        length: bytes.len() as u64,
    })
}

/// All of an input in memory.
async fn read(source: Source) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    match source {
        Source::Bytes(all) => bytes = all.into(),
        Source::File { file, length, name } => {
            let read = file.take(length).read_to_end(&mut bytes);
            let read = read.map_err(|error| read_failure(&name, &error))?;
            if (read as u64) < length {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(read_failure(&name, &error));
            }
        }
        Source::Reader { mut reader, name } => {
            let read = reader.read_to_end(&mut bytes);
            read.map_err(|error| read_failure(&name, &error))?;
        }
        Source::Stream(stream) => {
            let mut stream = stream.boxed();
            while let Some(piece) = stream.try_next().await? {
                bytes.extend_from_slice(&piece);
            }
        }
    }
    Ok(bytes)
}
