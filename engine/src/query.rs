//! The halves of a query, on a thread that may be busy for a while.

use std::{
    cell::Cell,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::TryStreamExt;
use model::{
    Content, Failure, FailureKind, Fingerprint,
    answer::{KEPT_BYTES, KEPT_ROWS},
    processor::{Query, SMALL_TABLES_BYTES},
};
use sql::{BlockAt, ColumnCache, LowerHalf, Runtime};
use storage::MergeRun;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    Answers, Blocks, Memory, Partials, Product, Source, Stop, Subtask, product::MEMORY_BYTES,
    source::read_failure,
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

/// What queries on a node share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// Large outputs go to unnamed files in this folder.
    pub(crate) spool: PathBuf,
    pub(crate) cache: Arc<ColumnCache>,
    runtime: Runtime,
}

impl Shared {
    pub(crate) fn new(spool: PathBuf, memory: Memory) -> Self {
        let query_bytes = usize::try_from(memory.query_bytes).unwrap_or(usize::MAX);
        Self {
            runtime: Runtime::new(query_bytes, &spool),
            cache: ColumnCache::new(memory.cache_bytes),
            spool,
        }
    }

    /// Brings the small tables of a query here that are not.
    async fn fetch_small(&self, query: &Query, blocks: &impl Blocks) -> Result<(), Failure> {
        for table in self.runtime.missing(query) {
            let source = blocks.open(&table.block).await?;
            let (runtime, table) = (self.runtime.clone(), table.clone());
            let mut bytes = Vec::new();
            read(source, SMALL_TABLES_BYTES, &mut bytes).await?;
            let kept = tokio::task::spawn_blocking(move || runtime.keep(&table, &bytes)).await;
            let kept = kept.map_err(|error| failure(format!("a table of the query: {error}")))?;
            kept.map_err(|error| failure(error.to_string()))?;
        }
        Ok(())
    }
}

/// The lower half over a block, which is opened only when columns of it are not in the cache. A half that runs when `cancel`
/// is cancelled or the future dropped runs to its end, and its result is thrown away: it has no effects.
pub(crate) async fn run_block(
    query: &Query,
    block: Block<'_>,
    blocks: &impl Blocks,
    shared: &Shared,
    cancel: &CancellationToken,
) -> Result<Product, Stop> {
    let (number, table, at) = (block.number, block.table, at(&block));
    let failed = move |error: sql::Error| failure(format!("block {number}: {error}"));
    tokio::select! {
        fetched = shared.fetch_small(query, blocks) => fetched?,
        () = cancel.cancelled() => return Err(Stop::Cancelled),
    }
    let (query, shared) = (Arc::new(query.clone()), shared.clone());
    let spool = shared.spool.clone();
    let planned = async move {
        let half = LowerHalf::new(&shared.runtime, query, table, at, shared.cache).await;
        half.map_err(failed)
    };
    let mut half = on_busy_thread(cancel, planned).await?;
    let source = if half.needs_bytes() {
        Some(tokio::select! {
            source = blocks.open(block.block) => source?,
            () = cancel.cancelled() => return Err(Stop::Cancelled),
        })
    } else {
        None
    };
    on_busy_thread(cancel, async move {
        if let Some(source) = source {
            let mut bytes = LAST.take();
            read(source, MOST_BYTES, &mut bytes).await?;
            half.read(&bytes).map_err(failed)?;
            if bytes.capacity() <= USED_AGAIN_BYTES {
                LAST.set(bytes);
            }
        }
        product(half.run().await.map_err(failed)?, &spool)
    })
    .await
}

/// Memory up to this size is used for the next block again: fresh pages cost a good part of reading into them.
const USED_AGAIN_BYTES: usize = 32 << 20;

thread_local! {
    /// The memory of the last block that was read on this thread.
    static LAST: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How many of these blocks, which follow one another in the dataset with the number `table`, have columns in the cache.
pub(crate) fn held(query: &Query, table: usize, blocks: &[model::Block], cache: &ColumnCache) -> usize {
    let Some(described) = query.tables.get(table) else {
        return 0;
    };
    let held = blocks.iter().filter(|block| {
        let at = at(&Block {
            block,
            number: 0,
            table,
        });
        cache.holds(&described.table, at, query.now_us)
    });
    held.count()
}

fn at(block: &Block<'_>) -> BlockAt {
    let (begins_file, is_kept) = match block.block.content {
        Content::Object { start, .. } => (start == 0, true),
        Content::Inline(_) => (true, false),
    };
    BlockAt {
        number: block.number,
        begins_file,
        contents: is_kept.then(|| Fingerprint::of_contents(block.block).0),
    }
}

/// The upper half over all partial results. Its answer is kept as rows too, where it is small or a collection is named.
pub(crate) async fn run_merge(
    query: &Query,
    subtask: Subtask<'_>,
    store: &(impl Partials + Answers + Blocks + Clone + Send + Sync + 'static),
    shared: &Shared,
    cancel: &CancellationToken,
) -> Result<Product, Stop> {
    tokio::select! {
        fetched = shared.fetch_small(query, store) => fetched?,
        () = cancel.cancelled() => return Err(Stop::Cancelled),
    }
    let partials = store.partials(subtask.job, subtask.index);
    let run = MergeRun {
        job: subtask.job,
        attempt: subtask.attempt,
    };
    let (query, store) = (query.clone(), store.clone());
    let Shared { spool, runtime, .. } = shared.clone();
    on_busy_thread(cancel, async move {
        let mut bytes = Vec::new();
        read(Source::Stream(partials), MOST_BYTES, &mut bytes).await?;
        let done = sql::upper(&runtime, &query, &bytes[..]).await;
        let answer = done.map_err(|error| failure(error.to_string()))?;
        drop(bytes);
        let into = query.into.as_deref();
        let rows = || sql::rows(&answer).map_err(|error| failure(error.to_string()));
        if into.is_some() || (answer.len() <= KEPT_BYTES && rows()?.1 <= KEPT_ROWS) {
            store.keep(run, into, || rows().map(|(rows, _)| rows)).await?;
        }
        product(answer, &spool)
    })
    .await
}

fn failure(message: String) -> Failure {
    Failure::new(FailureKind::Query, message)
}

async fn on_busy_thread<T: Send + 'static>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Stop> {
    let runtime = Handle::current();
    let task = tokio::task::spawn_blocking(move || runtime.block_on(work));
    tokio::select! {
        done = task => match done {
            Ok(done) => Ok(done?),
            Err(error) => Err(failure(format!("the query failed in the node: {error}")).into()),
        },
        () = cancel.cancelled() => Err(Stop::Cancelled),
    }
}

fn product(bytes: Vec<u8>, spool: &Path) -> Result<Product, Failure> {
    if bytes.len() <= MEMORY_BYTES {
        return Ok(Product::Memory(bytes));
    }
    let file = tempfile::tempfile_in(spool).and_then(|mut file| {
        file.write_all(&bytes)?;
        io::Seek::rewind(&mut file)?;
        Ok(file)
    });
    let file = file.map_err(|error| {
        let message = format!("keeping a result in {}: {error}", spool.display());
        Failure::new(FailureKind::Store, message)
    })?;
    Ok(Product::File {
        file,
        length: bytes.len() as u64,
    })
}

/// All of an input in memory, in place of what `bytes` held.
async fn read(source: Source, most: u64, bytes: &mut Vec<u8>) -> Result<(), Failure> {
    bytes.clear();
    match source {
        Source::Bytes(all) => bytes.extend_from_slice(&all),
        Source::File { file, length, name } => {
            let wanted = length.min(most + 1);
            bytes.reserve(usize::try_from(wanted).unwrap_or_default());
            let read = file.take(wanted).read_to_end(bytes);
            let read = read.map_err(|error| read_failure(&name, &error))?;
            if (read as u64) < wanted {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(read_failure(&name, &error));
            }
        }
        Source::Reader { reader, name } => {
            let read = reader.take(most + 1).read_to_end(bytes);
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
    Ok(())
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
        let mut bytes = vec![1; 30];
        for source in sources() {
            read(source, 10, &mut bytes).await.unwrap();
            assert_eq!(bytes, b"xxxxxxxxxx");
        }
        for source in sources() {
            let refused = read(source, 9, &mut bytes).await.unwrap_err();
            assert_eq!(refused.kind, FailureKind::Query);
        }
        let endless = Source::Reader {
            reader: Box::new(io::repeat(b'x')),
            name: "x".into(),
        };
        assert!(read(endless, 9, &mut bytes).await.is_err());
    }
}
