//! The halves of a query, on a thread that may be busy for a while.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt, stream::BoxStream};
use model::{
    Codec, Content, Failure, FailureKind, Fingerprint,
    answer::{KEPT_BYTES, KEPT_ROWS},
    origin::{BadOrigins, Origins},
    processor::{Query, SMALL_TABLES_BYTES},
    stats::Learned,
};
use sql::{BlockAt, ColumnCache, LowerHalf, RowGroups, Runtime, Whence};
use storage::MergeRun;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Answers, Blocks, Memory, Partials, Product, Source, Stop, Subtask,
    learned::Learnt,
    lines::Lines,
    product::MEMORY_BYTES,
    row_groups::{pieces, row_groups},
};

/// Most bytes of all partial results of a query.
const MOST_BYTES: usize = 1 << 30;

/// As much of an object as tells how long its origins are.
const ORIGINS_HEAD_BYTES: u64 = 8;

/// A block and its number in the dataset.
pub(crate) struct Block<'a> {
    pub(crate) block: &'a model::Block,
    pub(crate) number: u32,
    /// Number of the dataset among those of the query.
    pub(crate) table: usize,
    /// The incarnation of the dataset, where something may be learned of its blocks.
    pub(crate) dataset: Option<Uuid>,
}

/// What queries on a node share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// Large outputs go to unnamed files in this folder.
    pub(crate) spool: PathBuf,
    pub(crate) cache: Arc<ColumnCache>,
    pub(crate) learned: Learnt,
    runtime: Runtime,
}

impl Shared {
    pub(crate) fn new(spool: PathBuf, memory: Memory) -> Self {
        let query_bytes = usize::try_from(memory.query_bytes).unwrap_or(usize::MAX);
        Self {
            runtime: Runtime::new(query_bytes, &spool),
            cache: ColumnCache::new(memory.cache_bytes),
            learned: Learnt::default(),
            spool,
        }
    }

    /// Brings the small tables of a query here that are not.
    async fn fetch_small(&self, query: &Query, blocks: &impl Blocks) -> Result<(), Failure> {
        for table in self.runtime.missing(query) {
            let source = blocks.open_stored(&table.stored).await?;
            let (runtime, table) = (self.runtime.clone(), table.clone());
            let kept = tokio::task::spawn_blocking(move || {
                let lines = Lines::new(source)?;
                let (name, mut bytes) = (lines.name(), Vec::new());
                let read = lines.take(SMALL_TABLES_BYTES).read_to_end(&mut bytes);
                read.map_err(|error| Lines::failure(&name, &error))?;
                let kept = runtime.keep(&table, &bytes);
                kept.map_err(|error| failure(error.to_string()))
            });
            let kept = kept.await;
            kept.map_err(|error| failure(format!("a table of the query: {error}")))??;
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
    let dataset = query.tables.get(table).map(|table| table.name.clone());
    let dataset = dataset.unwrap_or_default();
    let place = Place::new(&dataset, &block);
    let begin = place.name.clone();
    let failed = move |error: sql::Error| failed(&begin, &error);
    let failed_at_once = failed.clone();
    let (learned_of, learned) = (block.dataset, shared.learned.clone());
    let made = block.block.made.map(|made| made.generation);
    tokio::select! {
        fetched = shared.fetch_small(query, blocks) => fetched?,
        () = cancel.cancelled() => return Err(Stop::Cancelled),
    }
    let (query, shared) = (Arc::new(query.clone()), shared.clone());
    let (spool, as_added) = (shared.spool.clone(), block.block.clone());
    let half = on_busy_thread(cancel, async move {
        let at = now(at, &as_added);
        let half = LowerHalf::new(&shared.runtime, query, table, at, shared.cache).await;
        let half = half.map_err(&failed_at_once)?;
        if half.needs_bytes() {
            return Ok(Err(half));
        }
        product(half.run().await.map_err(&failed_at_once)?, &shared.spool).map(Ok)
    });
    let mut half = match half.await? {
        Ok(product) => return Ok(product),
        Err(half) => half,
    };
    if half.needs_whence() {
        let whence = tokio::select! {
            whence = whence(block.block, blocks, &place) => whence?,
            () = cancel.cancelled() => return Err(Stop::Cancelled),
        };
        half.come_from(whence);
    }
    let input = tokio::select! {
        input = open(&half, block.block, blocks, &failed, &place) => input?,
        () = cancel.cancelled() => return Err(Stop::Cancelled),
    };
    on_busy_thread(cancel, async move {
        match input {
            Input::Lines(source) => {
                let lines = Lines::new(source)?;
                let (name, expected) = (lines.name(), lines.expected);
                half.read(lines, expected).map_err(|error| match error {
                    sql::Error::Read(error) => Lines::failure(&name, &error),
                    other => failed(other),
                })?;
            }
            Input::Pieces(groups, pieces) => half.read_pieces(&groups, pieces).map_err(&failed)?,
        }
        if let (Some(dataset), Some(stats)) = (learned_of, half.take_learned()) {
            learned.add(Learned {
                dataset,
                block: number,
                made,
                stats,
            });
        }
        product(half.run().await.map_err(&failed)?, &spool)
    })
    .await
}

/// Where the lines of a block come from: what the object of a shipped block begins with, else the object itself.
async fn whence(block: &model::Block, blocks: &impl Blocks, place: &Place) -> Result<Whence, Failure> {
    let Content::Object { url, codec, .. } = &block.content else {
        return Ok(Whence::default());
    };
    let object = Some(url.strip_prefix("file://").unwrap_or(url).to_string());
    if *codec != Codec::Zstd {
        return Ok(Whence {
            object,
            origins: None,
        });
    }
    let source = blocks.open(&block.as_stored()).await;
    let source = source.map_err(|failure| not_open(place, failure))?;
    let origins = tokio::task::spawn_blocking(move || {
        let lines = Lines::new(source)?;
        let name = lines.name();
        origins(lines).map_err(|error| Lines::failure(&name, &error))
    });
    let origins = origins.await;
    let origins = origins.map_err(|error| failure(format!("{}{error}", place.name)))??;
    Ok(Whence { object, origins })
}

/// The origins at the beginning of an object; none where it begins otherwise.
fn origins(mut object: impl Read) -> io::Result<Option<Origins>> {
    let bad = |why: BadOrigins| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut frame = Vec::new();
    object.by_ref().take(ORIGINS_HEAD_BYTES).read_to_end(&mut frame)?;
    let Some(length) = Origins::frame_bytes(&frame).map_err(bad)? else {
        return Ok(None);
    };
    let rest = (length as u64).saturating_sub(ORIGINS_HEAD_BYTES);
    object.take(rest).read_to_end(&mut frame)?;
    Origins::of_frame(&frame).map(Some).map_err(bad)
}

/// What is read of a block.
enum Input {
    Lines(Source),
    Pieces(Box<RowGroups>, Vec<(u64, Bytes)>),
}

async fn open(
    half: &LowerHalf,
    block: &model::Block,
    blocks: &impl Blocks,
    failed: &impl Fn(sql::Error) -> Failure,
    place: &Place,
) -> Result<Input, Failure> {
    if !half.is_of_row_groups() {
        let source = blocks.open(block).await;
        return source
            .map(Input::Lines)
            .map_err(|failure| not_open(place, failure));
    }
    let groups = row_groups(blocks, block).await;
    let groups = groups.map_err(|failure| not_open(place, failure))?;
    let ranges = half.pieces(&groups).map_err(failed)?;
    let read = pieces(blocks, block, ranges).await;
    let read = read.map_err(|failure| not_open(place, failure))?;
    Ok(Input::Pieces(Box::new(groups), read))
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
            dataset: None,
        });
        cache.holds(&described.table, at, query.now_us)
    });
    held.count()
}

fn at(block: &Block<'_>) -> BlockAt {
    let (begins_file, is_kept) = match block.block.content {
        // A shipped block is of lines of several files, and begins anywhere in them.
        Content::Object { start, codec, .. } => (start == 0 && codec != Codec::Zstd, true),
        Content::Inline(_) => (true, false),
    };
    BlockAt {
        number: block.number,
        begins_file,
        contents: is_kept.then(|| Fingerprint::of_contents(block.block).0),
    }
}

/// The same where the file of the block is not what told it when it was added: columns of then and of now must not meet in
/// one row, and those of now are kept apart.
fn now(mut at: BlockAt, block: &model::Block) -> BlockAt {
    if let (Some(contents), Some(version)) = (&mut at.contents, storage::version_now(block)) {
        *contents = Fingerprint(*contents).of_version(&version).0;
    }
    at
}

/// The upper half over all partial results; of a view over its merged state, which is what it then gives. Its answer is kept as rows too, where it is small or a collection is named.
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
    let mut partials = store.partials(subtask.job, subtask.index);
    if let Some(before) = query.refresh.and_then(|refresh| refresh.before) {
        partials = store.merged(before).chain(partials).boxed();
    }
    let run = MergeRun {
        job: subtask.job,
        attempt: subtask.attempt,
    };
    let (query, store) = (query.clone(), store.clone());
    let Shared { spool, runtime, .. } = shared.clone();
    on_busy_thread(cancel, async move {
        let mut bytes = gather(partials, MOST_BYTES).await?;
        let is_refresh = query.refresh.is_some();
        if is_refresh {
            let merged = sql::merge(&runtime, &query, &bytes[..]).await;
            bytes = merged.map_err(|error| failed("", &error))?;
        }
        let done = sql::upper(&runtime, &query, &bytes[..]).await;
        let answer = done.map_err(|error| failed("", &error))?;
        if !is_refresh {
            bytes = Vec::new();
        }
        let into = query.into.as_deref();
        let rows = || sql::rows(&answer).map_err(|error| failure(error.to_string()));
        if into.is_some() || (answer.len() <= KEPT_BYTES && rows()?.1 <= KEPT_ROWS) {
            store.keep(run, into, || rows().map(|(rows, _)| rows)).await?;
        }
        // The state comes to the same answer again, and it can be added to.
        product(if is_refresh { bytes } else { answer }, &spool)
    })
    .await
}

/// A block, and how to do without its file.
struct Place {
    /// With a colon behind.
    name: String,
    /// None where no file was added.
    way_out: Option<String>,
}

impl Place {
    fn new(dataset: &str, block: &Block<'_>) -> Self {
        let url = block.block.url().filter(|_| block.block.checksum.is_none());
        Self {
            name: format!("block {} of {dataset}: ", block.number),
            way_out: url.map(|url| {
                let file = storage::shown(url);
                format!("`sawmill dataset remove {dataset} --file {file}` takes its blocks out")
            }),
        }
    }
}

fn not_open(place: &Place, failure: Failure) -> Failure {
    let mut hint = match failure.kind {
        FailureKind::Missing | FailureKind::Away => {
            "; --skip-missing leaves out blocks that are gone".to_string()
        }
        _ => String::new(),
    };
    if let (FailureKind::Missing | FailureKind::Changed, Some(way_out)) = (failure.kind, &place.way_out) {
        hint = format!("{hint}; {way_out}");
    }
    Failure {
        message: format!("{}{}{hint}", place.name, failure.message),
        ..failure
    }
}

/// Stands for the result of a block that is left out, since its file is gone.
pub(crate) fn left_out(query: &Query, block: &Block<'_>) -> Product {
    let file = match &block.block.content {
        Content::Object { url, .. } => url.strip_prefix("file://").unwrap_or(url).to_string(),
        Content::Inline(_) => String::new(),
    };
    let dataset = query.tables.get(block.table).map(|table| table.name.clone());
    let left_out = sql::LeftOut {
        dataset: dataset.unwrap_or_default(),
        block: block.number,
        file,
    };
    Product::Memory(left_out.partial())
}

fn failed(place: &str, error: &sql::Error) -> Failure {
    let kind = match error {
        sql::Error::Memory(_) => FailureKind::Memory,
        // Another node may have another build.
        sql::Error::OtherVersion { .. } => FailureKind::Start,
        // Others came in between.
        sql::Error::Missing(_) => FailureKind::Read,
        _ => FailureKind::Query,
    };
    Failure::new(kind, format!("{place}{error}"))
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
            Err(error) => {
                let message = format!("the query failed in the node: {error}");
                Err(Failure::new(FailureKind::Start, message).into())
            }
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

/// All partial results, which are in memory at once: a query must fail alone, not take its node along.
async fn gather(
    mut partials: BoxStream<'static, Result<Bytes, Failure>>,
    most: usize,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(piece) = partials.try_next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > most {
            return Err(failure(format!(
                "the partial results have more than {most} bytes: have the query let fewer rows through with WHERE, \
                 GROUP BY or LIMIT"
            )));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;

    #[tokio::test]
    async fn what_is_too_much_for_the_memory_fails_alone() {
        let pieces =
            || stream::iter([Bytes::from_static(b"xxxxx"), Bytes::from_static(b"xxxxx")].map(Ok)).boxed();
        assert_eq!(gather(pieces(), 10).await.unwrap(), b"xxxxxxxxxx");
        assert_eq!(gather(pieces(), 9).await.unwrap_err().kind, FailureKind::Query);
        let endless = stream::repeat(Bytes::from_static(b"x")).map(Ok).boxed();
        assert!(gather(endless, 9).await.is_err());
    }
}
