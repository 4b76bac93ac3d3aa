//! Tables, asked both ways: split over many blocks, and by plain DataFusion over all rows.

use std::sync::Arc;

use datafusion::{
    arrow::{array::RecordBatch, util::display::array_value_to_string},
    datasource::MemTable,
    prelude::{SessionConfig, SessionContext},
};
use model::{
    Output, Payload,
    processor::{Query, QueryTable, SmallTable},
    table::{EVERYWHERE, Table},
};
use sql::{BlockRows, Origin, Rendering, Runtime};

use crate::logs;

pub(crate) const NOW_US: i64 = 1_431_900_000_000_000;

/// A dataset in blocks.
struct Logged {
    name: &'static str,
    table: Table,
    blocks: Vec<Vec<u8>>,
    lines: u64,
}

pub(crate) struct Both {
    datasets: Vec<Logged>,
    small: Vec<(SmallTable, &'static str)>,
    plain: SessionContext,
    pub(crate) runtime: Runtime,
    /// Whether partial results become one a few at a time, as those of a view do.
    in_steps: bool,
}

impl Both {
    pub(crate) fn new() -> Self {
        Self::over(Runtime::for_planning(), false)
    }

    /// As a view is brought up to date.
    pub(crate) fn in_steps(runtime: Runtime) -> Self {
        Self::over(runtime, true)
    }

    fn over(runtime: Runtime, in_steps: bool) -> Self {
        // In one partition, so that what depends on the order of rows sees the same one.
        let plain = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let logs = [("access", logs::access(), 7), ("app", logs::app(), 3)];
        let datasets: Vec<Logged> = logs
            .into_iter()
            .map(|(name, log, blocks)| Logged::new(name, &log, blocks))
            .collect();
        for dataset in &datasets {
            let width = dataset.table.columns.len() + EVERYWHERE.len();
            register(&plain, dataset.name, &dataset.table, width, &dataset.blocks);
        }
        let small = [("codes", "csv", logs::CODES), ("hosts", "jsonl", logs::HOSTS)];
        let small = small.map(|(name, ending, text)| {
            let table = sql::small_table(name, Some(ending), text.as_bytes()).unwrap();
            let blocks = [text.as_bytes().to_vec()];
            register(&plain, name, &table, table.columns.len(), &blocks);
            let small = SmallTable {
                name: name.into(),
                table,
                checksum: sql::checksum(text.as_bytes()),
                stored: Output::Inline(Payload(Vec::new())),
            };
            runtime.keep(&small, text.as_bytes()).unwrap();
            (small, text)
        });
        Self {
            datasets,
            small: small.into(),
            plain,
            runtime,
            in_steps,
        }
    }

    pub(crate) fn query(&self, text: &str) -> Query {
        let named = sql::tables(text).unwrap_or_else(|_| vec!["access".into()]);
        let known = |name: &String| self.datasets.iter().find(|dataset| dataset.name == name);
        let tables = named.iter().filter_map(known).map(|dataset| QueryTable {
            name: dataset.name.into(),
            table: dataset.table.clone(),
            lower_half: None,
        });
        let with = self.small.iter().map(|(table, _)| table);
        Query {
            sql: text.to_string(),
            tables: tables.collect(),
            with: with
                .filter(|table| named.contains(&table.name))
                .cloned()
                .collect(),
            gather_rows: Some(1_000_000),
            time_zone: "UTC".into(),
            now_us: NOW_US,
            version: sql::VERSION.into(),
            ..Query::default()
        }
    }

    /// Whether a question needs leave to gather rows.
    pub(crate) async fn gathers(&self, text: &str) -> bool {
        let query = Query {
            gather_rows: None,
            ..self.query(text)
        };
        match self.runtime.check(&query).await {
            Ok(()) => false,
            Err(sql::Error::NotSplit { .. }) => true,
            Err(error) => panic!("{text}: {error}"),
        }
    }

    /// What the lower halves give for each block of the datasets of a query.
    pub(crate) async fn partials(&self, query: &Query) -> Result<Vec<Vec<u8>>, sql::Error> {
        let mut partials = Vec::new();
        for (number, table) in query.tables.iter().enumerate() {
            let dataset = self.datasets.iter().find(|dataset| dataset.name == table.name);
            for (block, bytes) in (0..).zip(&dataset.unwrap().blocks) {
                partials.push(sql::lower(&self.runtime, query, number, bytes, block, block == 0).await?);
            }
        }
        Ok(partials)
    }

    pub(crate) async fn split(&self, text: &str) -> Vec<Vec<String>> {
        let query = self.query(text);
        let gathers = self.gathers(text).await;
        assert_eq!(gathers, text.contains("-- gather"), "{text}: {gathers}");
        let partials = self.partials(&query).await;
        let mut partials = partials.unwrap_or_else(|error| panic!("{text}: {error}"));
        if self.in_steps {
            partials = vec![self.merged(&query, &partials).await];
        }
        let partials = partials.concat();
        let answer = sql::upper(&self.runtime, &query, &partials[..]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut arrow = Vec::new();
        let (tally, _) = sql::render(&answer, Rendering::Arrow, &mut arrow).unwrap();
        let is_read = |dataset: &&Logged| query.tables.iter().any(|table| table.name == dataset.name);
        let lines: u64 = self
            .datasets
            .iter()
            .filter(is_read)
            .map(|dataset| dataset.lines)
            .sum();
        assert_eq!(tally.rows, lines, "{text}");
        let reader = datafusion::arrow::ipc::reader::StreamReader::try_new(&arrow[..], None).unwrap();
        cells(&reader.map(Result::unwrap).collect::<Vec<_>>())
    }

    /// One partial result for all: first of nothing, then of one block, two more, three more and so on.
    async fn merged(&self, query: &Query, partials: &[Vec<u8>]) -> Vec<u8> {
        let (mut state, mut rest, mut count) = (Vec::new(), partials, 0);
        loop {
            let (some, behind) = rest.split_at(count.min(rest.len()));
            let together = [state, some.concat()].concat();
            let merged = sql::merge(&self.runtime, query, &together[..]).await;
            state = merged.unwrap_or_else(|error| panic!("{}: {error}", query.sql));
            (rest, count) = (behind, count + 1);
            if rest.is_empty() {
                return state;
            }
        }
    }

    pub(crate) async fn plain(&self, text: &str) -> Vec<Vec<String>> {
        let answer = self.plain.sql(text).await;
        let answer = answer.unwrap_or_else(|error| panic!("plain {text}: {error}"));
        let rows = answer.collect().await;
        cells(&rows.unwrap_or_else(|error| panic!("plain {text}: {error}")))
    }

    /// Compares; rows of answers that have no order of their own as a set.
    pub(crate) async fn agree(&self, text: &str) {
        let (mut split, mut plain) = (self.split(text).await, self.plain(text).await);
        let ordered = text.rfind("ORDER BY").is_some_and(|at| !text[at..].contains(')'));
        if !ordered {
            split.sort();
            plain.sort();
        }
        assert_eq!(split.len(), plain.len(), "{text}\n{split:?}\n{plain:?}");
        for (ours, theirs) in split.iter().zip(&plain) {
            let equal = ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same(a, b));
            assert!(equal, "{text}\nsplit: {ours:?}\nplain: {theirs:?}");
        }
        assert!(
            !plain.is_empty() || text.contains("-- empty"),
            "{text}: this asks for nothing"
        );
    }

    /// The one number that a question has for an answer, both ways.
    pub(crate) async fn number(&self, text: &str) -> (f64, f64) {
        let number = |rows: Vec<Vec<String>>| rows[0][0].parse::<f64>().unwrap();
        (number(self.split(text).await), number(self.plain(text).await))
    }
}

impl Logged {
    fn new(name: &'static str, log: &str, blocks: usize) -> Self {
        Self {
            name,
            table: sql::detect(log.as_bytes()).table,
            blocks: in_blocks(log, blocks),
            lines: log.lines().count() as u64,
        }
    }
}

/// Gives plain DataFusion the first columns of all rows.
fn register(plain: &SessionContext, name: &str, table: &Table, columns: usize, blocks: &[Vec<u8>]) {
    let columns: Vec<usize> = (0..columns).collect();
    let rows = (0..).zip(blocks).flat_map(|(number, block)| {
        let origin = Origin {
            block: number,
            begins_file: number == 0,
            now_us: NOW_US,
        };
        BlockRows::parse(table, block, &columns, origin).unwrap().batches
    });
    let rows: Vec<RecordBatch> = rows.collect();
    let rows = MemTable::try_new(rows[0].schema(), vec![rows]).unwrap();
    plain.register_table(name, Arc::new(rows)).unwrap();
}

/// Line-aligned parts of about equal size.
fn in_blocks(log: &str, count: usize) -> Vec<Vec<u8>> {
    let mut rest = log;
    let mut blocks = Vec::new();
    for left in (1..=count).rev() {
        let at = rest.len() / left;
        let end = rest[at.saturating_sub(1)..]
            .find('\n')
            .map_or(rest.len(), |end| at.saturating_sub(1) + end + 1);
        let (block, behind) = rest.split_at(end);
        blocks.push(block.as_bytes().to_vec());
        rest = behind;
    }
    assert!(rest.is_empty());
    blocks
}

fn cells(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let row = |batch: &RecordBatch, row| {
        let columns = batch.columns().iter();
        columns
            .map(|column| array_value_to_string(column, row).unwrap())
            .collect()
    };
    batches
        .iter()
        .flat_map(|batch| {
            (0..batch.num_rows())
                .map(|number| row(batch, number))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Sums of floats depend on their order in the last digits.
fn same(ours: &str, theirs: &str) -> bool {
    if ours == theirs {
        return true;
    }
    match (ours.parse::<f64>(), theirs.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => false,
    }
}
