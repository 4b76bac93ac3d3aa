//! The halves of a query, on a thread that may be busy for a while.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use futures::TryStreamExt;
use model::{
    Content, Failure, FailureKind,
    answer::{KEPT_BYTES, KEPT_ROWS},
    processor::Query,
};
use storage::MergeRun;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    Answers, Blocks, Partials, Product, Source, Stop, Subtask, product::MEMORY_BYTES, source::read_failure,
};

/// Most bytes of a block, decompressed, or of all partial results of a query: they are in memory at once, and a query must
/// fail alone, not take its node along.
const MOST_BYTES: u64 = 1 << 30;

/// A block and its number in the dataset.
pub(crate) struct Block<'a> {
    pub(crate) block: &'a model::Block,
    pub(crate) number: u32,
    /// Number of the dataset among those of the query.
    pub(crate) table: usize,
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
    let (query, number, table) = (query.clone(), block.number, block.table);
    on_busy_thread(spool, cancel, async move {
        let bytes = read(source, MOST_BYTES).await?;
        let done = sql::lower(&query, table, &bytes, number, begins_file).await;
        done.map_err(|error| failure(format!("block {number}: {error}")))
    })
    .await
}

/// The upper half over all partial results. Its answer is kept as rows too, where it is small or a collection is named.
pub(crate) async fn run_merge(
    query: &Query,
    subtask: Subtask<'_>,
    store: &(impl Partials + Answers + Clone + Send + Sync + 'static),
    spool: &Path,
    cancel: &CancellationToken,
) -> Result<Product, Stop> {
    let partials = store.partials(subtask.job, subtask.index);
    let run = MergeRun {
        job: subtask.job,
        attempt: subtask.attempt,
    };
    let (query, store) = (query.clone(), store.clone());
    on_busy_thread(spool, cancel, async move {
        let bytes = read(Source::Stream(partials), MOST_BYTES).await?;
        let done = sql::upper(&query, &bytes[..]).await;
        let answer = done.map_err(|error| failure(error.to_string()))?;
        drop(bytes);
        let into = query.into.as_deref();
        let rows = || sql::rows(&answer).map_err(|error| failure(error.to_string()));
        if into.is_some() || (answer.len() <= KEPT_BYTES && rows()?.1 <= KEPT_ROWS) {
            store.keep(run, into, || rows().map(|(rows, _)| rows)).await?;
        }
        Ok(answer)
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
async fn read(source: Source, most: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    match source {
        Source::Bytes(all) => bytes = all.into(),
        Source::File { file, length, name } => {
            let wanted = length.min(most + 1);
            let read = file.take(wanted).read_to_end(&mut bytes);
            let read = read.map_err(|error| read_failure(&name, &error))?;
            if (read as u64) < wanted {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(read_failure(&name, &error));
            }
        }
        Source::Reader { reader, name } => {
            let read = reader.take(most + 1).read_to_end(&mut bytes);
            read.map_err(|error| read_failure(&name, &error))?;
        }
        Source::Stream(mut stream) => {
            while bytes.len() as u64 <= most
                && let Some(piece) = stream.try_next().await?
            {
                bytes.extend_from_slice(&piece);
            }
        }
    }
    if bytes.len() as u64 > most {
        return Err(failure(format!(
            "more than {most} bytes would be in memory at once: use smaller blocks (compressed files are one block each), \
             or have the query let fewer rows through with WHERE, GROUP BY or LIMIT"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn what_is_too_much_for_the_memory_fails_alone() {
        let sources = || {
            let reader = Source::Reader {
                reader: Box::new(io::Cursor::new(vec![b'x'; 10])),
                name: "x".into(),
            };
            let pieces = [Bytes::from_static(b"xxxxx"), Bytes::from_static(b"xxxxx")];
            let stream = Source::stream(stream::iter(pieces.map(Ok)));
            [reader, stream, Source::Bytes(Bytes::from_static(b"xxxxxxxxxx"))]
        };
        for source in sources() {
            assert_eq!(read(source, 10).await.unwrap().len(), 10);
        }
        for source in sources() {
            let refused = read(source, 9).await.unwrap_err();
            assert_eq!(refused.kind, FailureKind::Query);
        }
        let endless = Source::Reader {
            reader: Box::new(io::repeat(b'x')),
            name: "x".into(),
        };
        assert!(read(endless, 9).await.is_err());
    }
}
