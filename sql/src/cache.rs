//! Decoded columns that a node keeps, so that the next query over the same blocks reads and parses nothing.
//!
//! Each is kept by the contents of its block and by what it was decoded to: a file that has changed, or a column of
//! another type, is another one. Bounded by the bytes that the columns take; what is used often stays longest.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use datafusion::arrow::array::Array as _;
use model::{
    cache::CacheUse,
    table::{EVERYWHERE, Format, Table},
};
use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use crate::{
    block::{Lines, begin_of_day},
    decode::Column,
};

/// What a cache is expected to hold one column in; it grows with what it holds.
const COLUMN_BYTES: u64 = 512 * 1024;
/// The part of the bytes that is left to columns that were used again. The rest is for what comes for the first time: a
/// question over a dataset must find all that it read a moment ago, however often other datasets were asked before.
const HOT: f64 = 0.5;
/// What a column takes beside its values.
const FRAME_BYTES: u64 = 256;

/// Columns of blocks in memory. Shared by all that works on a node.
#[derive(Debug)]
pub struct ColumnCache {
    kept: Cache<Key, Kept, ByBytes>,
    bytes: u64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Which block, for the cache: what is in it, and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct BlockAt {
    /// Its number in the dataset.
    pub number: u32,
    /// Whether it is the first one of its file, where a header or a byte order mark may stand.
    pub begins_file: bool,
    /// The fingerprint of its contents; none for a block of which nothing is to be kept.
    pub contents: Option<[u8; 16]>,
}

type Key = [u8; 16];

#[derive(Clone, Debug)]
enum Kept {
    Lines(Lines),
    Column(Column),
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Key, Kept> for ByBytes {
    fn weight(&self, _key: &Key, kept: &Kept) -> u64 {
        let bytes = match kept {
            Kept::Lines(lines) => size_of_val(&*lines.broken),
            Kept::Column(column) => column.array.get_array_memory_size() + size_of_val(&*column.misfits),
        };
        bytes as u64 + FRAME_BYTES
    }
}

impl ColumnCache {
    /// One that holds at most so many bytes; 0: nothing is kept.
    pub fn new(most_bytes: u64) -> Arc<Self> {
        let columns = usize::try_from(most_bytes / COLUMN_BYTES)
            .unwrap_or(usize::MAX)
            .clamp(64, 1 << 20);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(columns)
            .weight_capacity(most_bytes)
            .hot_allocation(HOT)
            .build()
            .expect("both capacities are given");
        Arc::new(Self {
            kept: Cache::with_options(
                options,
                ByBytes,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            bytes: most_bytes,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    /// How it is used.
    pub fn usage(&self) -> CacheUse {
        CacheUse {
            most_bytes: self.bytes,
            bytes: self.kept.weight(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    /// Whether anything of a block is held, for queries that take their table to be this one.
    pub fn holds(&self, table: &Table, block: BlockAt, now_us: i64) -> bool {
        let key = Keys::new(table, block, now_us).of(LINES);
        key.is_some_and(|key| self.kept.contains_key(&key))
    }

    pub(crate) fn lines(&self, keys: &Keys) -> Option<Lines> {
        match self.kept.get(&keys.of(LINES)?)? {
            Kept::Lines(lines) => Some(lines),
            Kept::Column(_) => None,
        }
    }

    pub(crate) fn column(&self, keys: &Keys, place: usize) -> Option<Column> {
        let found = keys.of(place).and_then(|key| self.kept.get(&key));
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        match found? {
            Kept::Column(column) => Some(column),
            Kept::Lines(_) => None,
        }
    }

    pub(crate) fn keep_lines(&self, keys: &Keys, lines: &Lines) {
        self.keep(keys.of(LINES), Kept::Lines(lines.clone()));
    }

    pub(crate) fn keep_column(&self, keys: &Keys, place: usize, column: &Column) {
        self.keep(keys.of(place), Kept::Column(column.clone()));
    }

    fn keep(&self, key: Option<Key>, kept: Kept) {
        if let Some(key) = key.filter(|_| self.bytes > 0) {
            self.kept.insert(key, kept);
        }
    }
}

/// Stands for the lines in the place of a column.
const LINES: usize = usize::MAX;

/// The keys of the columns of one block.
pub(crate) struct Keys<'t> {
    table: &'t Table,
    /// All that the values depend on beside the column.
    base: Option<blake3::Hasher>,
}

impl<'t> Keys<'t> {
    pub(crate) fn new(table: &'t Table, block: BlockAt, now_us: i64) -> Self {
        let base = block.contents.map(|contents| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&contents).update(&[u8::from(block.begins_file)]);
            hasher.update(format!("{:?}\0", (&table.format, table.least)).as_bytes());
            let positional = matches!(table.format, Format::Separated { .. } | Format::Regex { .. });
            if positional {
                // Which value is meant depends on the names before it.
                for column in &table.columns {
                    hasher.update(column.name.as_bytes()).update(b"\0");
                }
            }
            if table.format.is_yearless() {
                hasher.update(&begin_of_day(now_us).to_le_bytes());
            }
            hasher
        });
        Self { table, base }
    }

    fn of(&self, place: usize) -> Option<Key> {
        let mut hasher = self.base.clone()?;
        let own = self.table.columns.len();
        match (
            self.table.columns.get(place),
            place.checked_sub(own).and_then(|place| EVERYWHERE.get(place)),
        ) {
            (Some(column), _) => {
                hasher
                    .update(column.name.as_bytes())
                    .update(b"\0")
                    .update(column.kind.name().as_bytes());
            }
            (None, Some((name, _))) => {
                // Why a line does not parse depends on the types of all columns.
                hasher.update(b"\0").update(name.as_bytes());
                hasher.update(format!("{:?}", self.table.columns).as_bytes());
            }
            (None, None) => {
                hasher.update(b"\0\0lines").update(&own.to_le_bytes());
            }
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use model::processor::{Query, QueryTable};

    use super::*;
    use crate::{LowerHalf, Runtime, parse::fixed_columns, upper};

    const LOG: &[u8] = b"1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"GET /index.html HTTP/1.0\" 200 2326\n\
        1.2.3.4 - - [10/Oct/2000:13:55:37 -0700] \"GET /index.html HTTP/1.0\" 404 x\nno line\n";

    fn query(text: &str) -> Arc<Query> {
        let columns = fixed_columns(&Format::Access).unwrap();
        Arc::new(Query {
            sql: text.into(),
            tables: vec![QueryTable {
                name: "log".into(),
                table: Table {
                    format: Format::Access,
                    columns,
                    least: None,
                },
                lower_half: None,
            }],
            time_zone: "UTC".into(),
            version: crate::VERSION.into(),
            ..Query::default()
        })
    }

    fn at(number: u32) -> BlockAt {
        let mut contents = [0; 16];
        contents[..4].copy_from_slice(&number.to_le_bytes());
        BlockAt {
            number: 0,
            begins_file: true,
            contents: Some(contents),
        }
    }

    /// The answer, and whether the bytes of the block were needed.
    async fn ask(cache: &Arc<ColumnCache>, text: &str, block: BlockAt) -> (Vec<u8>, bool) {
        // One for all, so that what is asked again and again is planned once.
        static RUNTIME: LazyLock<Runtime> = LazyLock::new(Runtime::for_planning);
        let (query, runtime) = (query(text), &*RUNTIME);
        let mut half = LowerHalf::new(runtime, query.clone(), 0, block, cache.clone())
            .await
            .unwrap();
        let needed = half.needs_bytes();
        if needed {
            half.read(LOG, LOG.len() as u64).unwrap();
        }
        let partial = half.run().await.unwrap();
        (upper(runtime, &query, &partial[..]).await.unwrap(), needed)
    }

    #[tokio::test]
    async fn what_was_read_once_is_not_read_again() {
        let cache = ColumnCache::new(1 << 30);
        let by_status = "SELECT status, count(*), max(_line) FROM log GROUP BY status ORDER BY status";
        let first = ask(&cache, by_status, at(1)).await;
        assert!(first.1);
        let again = ask(&cache, by_status, at(1)).await;
        assert_eq!(again, (first.0, false));
        // Lines that do not parse are told of as before, whichever columns come from where.
        let errors = ask(&cache, "SELECT status, bytes FROM log", at(1)).await;
        assert!(errors.1);
        let uncached = ask(&ColumnCache::new(0), "SELECT status, bytes FROM log", at(1)).await;
        assert_eq!(errors, uncached);
        let table = &query(by_status).tables[0].table.clone();
        assert!(cache.holds(table, at(1), 0) && !cache.holds(table, at(2), 0));
        assert!(ask(&cache, by_status, at(2)).await.1, "other contents");
        let used = cache.usage();
        assert_eq!((used.hits, used.misses), (2, 3));
        assert!(used.bytes > 0);
    }

    #[tokio::test]
    async fn no_more_is_kept_than_allowed() {
        let cache = ColumnCache::new(64 * 1024);
        for block in 0..200 {
            ask(&cache, "SELECT host, path, status, bytes FROM log", at(block)).await;
        }
        assert!(cache.usage().bytes <= 64 * 1024, "{:?}", cache.usage());
        let none = ColumnCache::new(0);
        assert!(ask(&none, "SELECT host FROM log", at(1)).await.1);
        assert!(ask(&none, "SELECT host FROM log", at(1)).await.1);
    }

    #[tokio::test]
    async fn a_full_cache_takes_up_what_is_asked_now() {
        let cache = ColumnCache::new(1 << 20);
        let query = "SELECT host, path, status, bytes FROM log";
        for _ in 0..2 {
            for block in 0..1000 {
                ask(&cache, query, at(block)).await;
            }
        }
        let new = || (1000..1100).map(at);
        for block in new() {
            ask(&cache, query, block).await;
        }
        let mut found = 0;
        for block in new() {
            found += u32::from(!ask(&cache, query, block).await.1);
        }
        assert!(found > 80, "{found} of 100");
    }
}
