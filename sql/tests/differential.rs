//! The same questions, split over many blocks and asked of plain DataFusion over all rows: the answers must agree.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, sync::Arc};

use datafusion::{
    arrow::{array::RecordBatch, util::display::array_value_to_string},
    datasource::MemTable,
    prelude::SessionContext,
};
use model::{
    processor::{Query, QueryTable},
    table::Table,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sql::{BlockRows, Origin, Rendering, Runtime};

const NOW_US: i64 = 1_431_900_000_000_000;
const LINES: u32 = 3000;
const BLOCKS: usize = 7;

/// An access log with lines that do not parse, empty columns and hosts of uneven weight.
fn access_log() -> String {
    let mut dice = StdRng::seed_from_u64(7);
    let mut log = String::new();
    for number in 0..LINES {
        if number % 97 == 13 {
            log += "this is no line of an access log\n";
            continue;
        }
        let host = dice.random_range(0..40u32) * dice.random_range(0..3u32);
        let path = dice.random_range(0..25u32);
        let status = [200, 200, 200, 304, 404, 500][dice.random_range(0..6usize)];
        let bytes = match dice.random_range(0..10u32) {
            0 => "-".to_string(),
            _ => dice.random_range(0..100_000u32).to_string(),
        };
        let (hour, minute, second) = (number / 600 % 24, number / 10 % 60, number % 10 * 6);
        let method = ["GET", "GET", "POST"][dice.random_range(0..3usize)];
        writeln!(
            log,
            "10.0.0.{host} - - [17/May/2015:{hour:02}:{minute:02}:{second:02} +0000] \"{method} /p/{path} HTTP/1.1\" \
             {status} {bytes} \"-\" \"agent {}\" 0.{:03}",
            host % 5,
            dice.random_range(0..1000u32)
        )
        .unwrap();
    }
    log
}

/// Line-aligned parts of about equal size.
fn blocks(log: &str) -> Vec<&str> {
    let mut rest = log;
    let mut blocks = Vec::new();
    for left in (1..=BLOCKS).rev() {
        let at = rest.len() / left;
        let end = rest[at.saturating_sub(1)..]
            .find('\n')
            .map_or(rest.len(), |end| at.saturating_sub(1) + end + 1);
        let (block, behind) = rest.split_at(end);
        blocks.push(block);
        rest = behind;
    }
    assert!(rest.is_empty());
    blocks
}

struct Both {
    table: Table,
    blocks: Vec<Vec<u8>>,
    plain: SessionContext,
    runtime: Runtime,
}

impl Both {
    async fn over(log: &str) -> Self {
        let table = sql::detect(log.as_bytes()).table;
        let blocks: Vec<Vec<u8>> = blocks(log)
            .into_iter()
            .map(|block| block.as_bytes().to_vec())
            .collect();
        let width = table.columns.len() + 4;
        let all: Vec<usize> = (0..width).collect();
        let mut batches = Vec::new();
        for (number, block) in (0..).zip(&blocks) {
            let origin = Origin {
                block: number,
                begins_file: number == 0,
                now_us: NOW_US,
            };
            batches.extend(BlockRows::parse(&table, block, &all, origin).unwrap().batches);
        }
        let plain = SessionContext::new();
        let lines = MemTable::try_new(batches[0].schema(), vec![batches]).unwrap();
        plain.register_table("access", Arc::new(lines)).unwrap();
        let runtime = Runtime::for_planning();
        Self {
            table,
            blocks,
            plain,
            runtime,
        }
    }

    fn query(&self, text: &str) -> Query {
        Query {
            sql: text.to_string(),
            tables: vec![QueryTable {
                name: "access".into(),
                table: self.table.clone(),
                lower_half: None,
            }],
            gather_rows: Some(1_000_000),
            time_zone: "UTC".into(),
            now_us: NOW_US,
            version: sql::VERSION.into(),
            ..Query::default()
        }
    }

    async fn split(&self, text: &str) -> Vec<Vec<String>> {
        let query = self.query(text);
        let mut partials = Vec::new();
        for (number, block) in (0..).zip(&self.blocks) {
            let lower = sql::lower(&self.runtime, &query, 0, block, number, number == 0).await;
            partials.extend(lower.unwrap_or_else(|error| panic!("{text}: {error}")));
        }
        let answer = sql::upper(&self.runtime, &query, &partials[..]).await;
        let answer = answer.unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut csv = Vec::new();
        let (tally, _) = sql::render(&answer, Rendering::Arrow, &mut csv).unwrap();
        assert_eq!(tally.rows, u64::from(LINES), "{text}");
        let reader = datafusion::arrow::ipc::reader::StreamReader::try_new(&csv[..], None).unwrap();
        cells(&reader.map(Result::unwrap).collect::<Vec<_>>())
    }

    async fn plain(&self, text: &str) -> Vec<Vec<String>> {
        let answer = self
            .plain
            .sql(text)
            .await
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        cells(
            &answer
                .collect()
                .await
                .unwrap_or_else(|error| panic!("{text}: {error}")),
        )
    }

    /// Compares; rows of answers that have no order of their own as a set.
    async fn agree(&self, text: &str) {
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

/// What reads the dataset in more than one place, or what blocks can't reduce.
const GATHERED: &[&str] = &[
    "SELECT count(*) FROM access a JOIN access b ON a.host = b.host AND a._line = b._line AND a._block = b._block",
    "SELECT status, count(*) FROM access WHERE bytes > (SELECT avg(bytes) FROM access) GROUP BY status",
    "SELECT count(*) FROM access WHERE status = 200 AND bytes > (SELECT avg(bytes) FROM access WHERE status = 404)",
    "SELECT count(*) FROM access WHERE host IN (SELECT host FROM access WHERE status = 500 AND bytes > 90000)",
    "SELECT count(*) FROM access WHERE host NOT IN (SELECT host FROM access WHERE status = 500)",
    "SELECT count(*) FROM access WHERE bytes NOT IN (SELECT bytes FROM access WHERE status = 500) -- a null among them",
    "SELECT a.host, count(*) FROM access a WHERE EXISTS (SELECT 1 FROM access b WHERE b.host = a.host AND b.status = 500) GROUP BY 1",
    "SELECT a.path, a.n, b.n FROM (SELECT path, count(*) AS n FROM access GROUP BY path) a JOIN (SELECT path, count(*) AS n FROM access WHERE status = 500 GROUP BY path) b ON a.path = b.path",
    "SELECT a.path, a.n, b.n FROM (SELECT path, count(*) AS n FROM access GROUP BY path) a LEFT JOIN (SELECT path, count(*) AS n FROM access WHERE bytes > 99000 GROUP BY path) b ON a.path = b.path",
    "SELECT a.path, b.path FROM (SELECT DISTINCT path FROM access WHERE bytes > 98000) a FULL JOIN (SELECT DISTINCT path FROM access WHERE bytes < 1000) b ON a.path = b.path",
    "SELECT status, count(*) FROM access GROUP BY status UNION ALL SELECT bytes % 3, sum(status) FROM access GROUP BY 1",
    "SELECT status FROM access WHERE bytes > 50000 UNION SELECT bytes % 3 FROM access",
    "SELECT host FROM access WHERE status = 500 UNION ALL SELECT path FROM access WHERE status = 404",
    "SELECT x, count(*) FROM (SELECT host AS x FROM access UNION ALL SELECT path FROM access) GROUP BY x",
    "SELECT host FROM access WHERE status = 500 INTERSECT SELECT host FROM access WHERE status = 404",
    "SELECT path FROM access EXCEPT SELECT path FROM access WHERE bytes > 95000",
    "WITH s AS (SELECT status, count(*) AS n FROM access GROUP BY status) SELECT status FROM s WHERE n > (SELECT avg(n) FROM s)",
    "WITH s AS (SELECT status, count(*) AS n FROM access GROUP BY status) SELECT a.status, b.status FROM s a JOIN s b ON a.n < b.n",
    "SELECT (SELECT max(bytes) FROM access), min(bytes) FROM access",
    "SELECT count(*) FROM (SELECT host FROM access LIMIT 10)",
    "SELECT sum(bytes) FROM (SELECT bytes FROM access ORDER BY bytes DESC NULLS LAST LIMIT 10)",
    "SELECT count(*) FROM (SELECT host FROM access OFFSET 10)",
    "SELECT host, bytes FROM access ORDER BY bytes, host, time, path, method, status",
    "SELECT status, host, bytes, sum(bytes) OVER (PARTITION BY host ORDER BY _block, _line) FROM access WHERE status = 404",
    "SELECT DISTINCT ON (status) status, host, time FROM access ORDER BY status, time, host, path, bytes",
    "SELECT status, path FROM (SELECT status, path, row_number() OVER (PARTITION BY status ORDER BY bytes DESC, time, host, path) AS r FROM access WHERE bytes IS NOT NULL) WHERE r <= 3",
    "SELECT count(*) FROM access, (VALUES (1), (2)) v(x) WHERE status > x * 200",
    "SELECT v.name, count(*) FROM access JOIN (VALUES (200, 'fine'), (404, 'gone')) v(code, name) ON status = v.code GROUP BY v.name",
    "SELECT v.name, count(*) FROM access LEFT JOIN (VALUES (200, 'fine'), (404, 'gone')) v(code, name) ON status = v.code GROUP BY v.name",
    "SELECT v.name, count(*) FROM access RIGHT JOIN (VALUES (200, 'fine'), (999, 'never')) v(code, name) ON status = v.code GROUP BY v.name",
    "SELECT v.name, count(*) FROM access FULL JOIN (VALUES (200, 'fine'), (999, 'never')) v(code, name) ON status = v.code GROUP BY v.name",
    "SELECT v.name, count(status) FROM (VALUES (200, 'fine'), (999, 'never')) v(code, name) LEFT JOIN access ON status = v.code GROUP BY v.name",
    "SELECT count(*) FROM access WHERE status IN (SELECT code FROM (VALUES (200), (404)) v(code))",
    "SELECT count(*) FROM access WHERE status NOT IN (SELECT code FROM (VALUES (200), (404)) v(code))",
    "SELECT count(*) FROM access WHERE status NOT IN (SELECT code FROM (VALUES (200), (NULL)) v(code))",
    "SELECT count(*) FROM access WHERE status = 500 OR status IN (SELECT code FROM (VALUES (200)) v(code))",
    "SELECT count(*) FROM access WHERE bytes > (SELECT max(x) FROM (VALUES (1000), (2000)) v(x))",
    "SELECT (SELECT max(x) FROM (VALUES (1), (2)) v(x)) AS top, count(*) FROM access",
    "SELECT v.x, count(*) FROM access JOIN (VALUES (10000), (50000)) v(x) ON bytes > v.x AND bytes < v.x + 10000 GROUP BY 1",
    "SELECT code FROM (VALUES (200), (999)) v(code) WHERE NOT EXISTS (SELECT 1 FROM access WHERE status = code)",
    "SELECT code FROM (VALUES (200), (999)) v(code) WHERE code NOT IN (SELECT status FROM access WHERE status IS NOT NULL)",
    "SELECT g.value, count(*) FROM access JOIN generate_series(100, 600, 100) g ON status = g.value GROUP BY 1",
    "WITH RECURSIVE n(x) AS (SELECT 200 UNION ALL SELECT x + 104 FROM n WHERE x < 500) SELECT x, count(*) FROM access JOIN n ON status = x GROUP BY x",
    "SELECT count(*) FROM access WHERE 1 = 0",
    "SELECT host FROM access WHERE 1 = 0 -- empty",
    "SELECT unnest([status, bytes]) AS x, count(*) FROM access GROUP BY x",
    "SELECT status, first_value(path ORDER BY status, time, path, host, bytes) FROM access GROUP BY status ORDER BY status",
    "SELECT host, array_agg(bytes ORDER BY host, bytes) FROM access WHERE status = 500 GROUP BY host ORDER BY host",
    "SELECT status, method, last_value(host ORDER BY method, time, host, path, bytes) FROM access GROUP BY status, method",
    "SELECT DISTINCT status FROM access LIMIT 100",
    "SELECT host, max(time) FROM access GROUP BY host ORDER BY max(time) DESC, host LIMIT 5",
    "SELECT host, max(bytes) AS m FROM access WHERE bytes IS NOT NULL GROUP BY host ORDER BY m DESC LIMIT 3",
    "SELECT status, count(*) FROM access WHERE status = 500 GROUP BY status ORDER BY status",
    "SELECT lag(n) OVER (ORDER BY status), status, n FROM (SELECT status, count(*) AS n FROM access GROUP BY status)",
    "SELECT a.host, (SELECT max(b.bytes) FROM access b WHERE b.host = a.host) FROM access a WHERE a.status = 500 AND a.bytes > 90000",
    "SELECT count(*) FROM access TABLESAMPLE BERNOULLI (100)",
];

#[tokio::test]
async fn queries_of_several_cuts_agree() {
    let both = Both::over(&access_log()).await;
    for text in GATHERED {
        both.agree(text).await;
    }
}

const WRITTEN: &[&str] = &[
    "SELECT count(*) FROM access",
    "SELECT count(*), count(bytes), count(DISTINCT host), min(time), max(time) FROM access",
    "SELECT status, count(*) FROM access GROUP BY status",
    "SELECT status, count(*) AS n FROM access GROUP BY status ORDER BY n DESC, status",
    "SELECT path, sum(bytes) AS sent FROM access GROUP BY path ORDER BY sent DESC NULLS LAST, path LIMIT 10",
    "SELECT date_bin(INTERVAL '1 minute', time) AS minute, count(*), max(request_time) FROM access GROUP BY 1 ORDER BY 1",
    "SELECT status, count(DISTINCT host) FROM access GROUP BY status ORDER BY status",
    "SELECT path, count(*) FROM access WHERE status >= 500 AND regexp_like(path, '^/p/1') GROUP BY path ORDER BY 2 DESC, 1",
    "SELECT DISTINCT method FROM access",
    "SELECT DISTINCT status, method FROM access ORDER BY status, method",
    "SELECT host, path FROM access WHERE status = 404 ORDER BY host, path, time LIMIT 7",
    "SELECT host, path FROM access WHERE status = 404 ORDER BY host, path, time LIMIT 7 OFFSET 3",
    "SELECT _block, _line, _raw, _error FROM access WHERE _error IS NOT NULL",
    "SELECT _error, count(*) FROM access GROUP BY _error",
    "SELECT avg(bytes), stddev(bytes), var_pop(bytes), corr(bytes, request_time) FROM access",
    "SELECT median(bytes) FROM access",
    "SELECT method, bool_and(status < 600), bit_or(status) FROM access GROUP BY method",
    "SELECT upper(method) || '!' AS m, sum(CASE WHEN status >= 500 THEN 1 ELSE 0 END) FROM access GROUP BY 1",
    "SELECT status, count(*) FILTER (WHERE bytes > 1000) FROM access GROUP BY status",
    "SELECT status FROM access GROUP BY status HAVING count(*) > 400",
    "WITH slow AS (SELECT host, request_time FROM access WHERE request_time > 0.9) SELECT host, count(*) FROM slow GROUP BY host",
    "SELECT n, count(*) FROM (SELECT host, count(*) AS n FROM access GROUP BY host) GROUP BY n",
    "SELECT max(n) FROM (SELECT host, count(*) AS n FROM access GROUP BY host)",
    "SELECT host, status, row_number() OVER (PARTITION BY status ORDER BY time, host, path, bytes) AS r FROM access WHERE host = '10.0.0.7'",
    "SELECT status, rank() OVER (ORDER BY n DESC) FROM (SELECT status, count(*) AS n FROM access GROUP BY status)",
    "SELECT count(*) FROM access WHERE path LIKE '/p/2%' AND method <> 'POST'",
    "SELECT count(*) FROM access WHERE host IN ('10.0.0.1', '10.0.0.2') OR bytes IS NULL",
    "SELECT sum(bytes) FROM access WHERE status = 999",
    "SELECT host FROM access WHERE status = 999 -- empty",
    "SELECT status FROM access GROUP BY status HAVING count(*) > 40000 -- empty",
    "SELECT date_trunc('hour', time) AS hour, approx_distinct(host) > 0 FROM access GROUP BY 1 ORDER BY 1",
    "SELECT extract(minute FROM time) % 10 AS m, avg(request_time) FROM access GROUP BY 1",
    "SELECT status, host, count(*) FROM access GROUP BY ROLLUP (status, host)",
    "SELECT method, status, sum(bytes) FROM access GROUP BY CUBE (method, status)",
    "SELECT array_agg(DISTINCT method ORDER BY method) FROM access",
    "SELECT string_agg(DISTINCT method, ',' ORDER BY method) FROM access",
    "SELECT first_value(path ORDER BY time, path, host, bytes) FROM access WHERE status = 500",
    "SELECT count(*) FROM access WHERE time > now() - INTERVAL '40 years' -- the rows are all younger",
    "SELECT coalesce(bytes, -1) AS b, count(*) FROM access GROUP BY b ORDER BY 2 DESC, 1 LIMIT 5",
    "SELECT * FROM access ORDER BY _block DESC, _line DESC LIMIT 3",
    "SELECT sum(request_time * bytes) / sum(bytes) FROM access",
    "SELECT length(_raw) AS l, count(*) FROM access GROUP BY l",
];

#[tokio::test]
async fn written_queries_agree() {
    let both = Both::over(&access_log()).await;
    for text in WRITTEN {
        both.agree(text).await;
    }
}

#[tokio::test]
async fn made_up_queries_agree() {
    let both = Both::over(&access_log()).await;
    let keys = [
        "status",
        "method",
        "host",
        "path, status",
        "substr(path, 1, 4)",
        "_block",
        "bytes % 7",
    ];
    let aggregates = [
        "count(*)",
        "sum(bytes), min(bytes)",
        "avg(request_time), max(path)",
        "count(DISTINCT path), count(bytes)",
        "stddev_pop(bytes), sum(status)",
    ];
    let conditions = [
        "",
        "WHERE status < 400",
        "WHERE bytes BETWEEN 1000 AND 50000 AND method = 'GET'",
        "WHERE NOT (host LIKE '%1')",
    ];
    let ends = ["", "HAVING count(*) > 3", "ORDER BY 1 DESC, 2 LIMIT 4"];
    for key in keys {
        for aggregate in aggregates {
            for condition in conditions {
                for end in ends {
                    // With two keys the second sorts as well, and ties are none.
                    both.agree(&format!(
                        "SELECT {key}, {aggregate} FROM access {condition} GROUP BY {key} {end}"
                    ))
                    .await;
                }
            }
        }
    }
}

#[tokio::test]
async fn approximations_are_within_their_error() {
    let both = Both::over(&access_log()).await;
    for (exact, approximate, error) in [
        ("count(DISTINCT path)", "approx_distinct(path)", 0.05),
        ("count(DISTINCT bytes)", "approx_distinct(bytes)", 0.05),
        ("median(bytes)", "approx_percentile_cont(bytes, 0.5)", 0.03),
        ("median(request_time)", "approx_median(request_time)", 0.03),
    ] {
        let number = |rows: Vec<Vec<String>>| rows[0][0].parse::<f64>().unwrap();
        let exact = number(both.plain(&format!("SELECT {exact} FROM access")).await);
        let ours = number(both.split(&format!("SELECT {approximate} FROM access")).await);
        assert!(
            (ours - exact).abs() <= error * exact,
            "{approximate}: {ours}, exact {exact}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_split_or_is_wrong_says_so() {
    let both = Both::over(&access_log()).await;
    for (text, told) in [
        ("SELECT nothing FROM access", "no column named nothing"),
        ("SELECT statu FROM access", "did you mean status?"),
        ("SELECT a.statu FROM access a", "did you mean status?"),
        ("SELECT status FROM acces", "did you mean access?"),
        ("INSERT INTO access VALUES (1)", "no question"),
        ("EXPLAIN SELECT status FROM access", "sawmill explain"),
        ("SELECT status + host FROM access", "Cannot coerce"),
        ("SELECT status FROM elsewhere", "elsewhere"),
        ("SELEKT", "SELEKT"),
        ("DROP TABLE access", "DROP TABLE"),
        ("SELECT cuont(*) FROM access", "Did you mean"),
    ] {
        let error = both
            .runtime
            .check(&both.query(text))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(told), "{text}: {error}");
    }
    let other = Query {
        version: "0".into(),
        ..both.query("SELECT count(*) FROM access")
    };
    assert!(
        both.runtime
            .check(&other)
            .await
            .unwrap_err()
            .to_string()
            .contains("bring all nodes")
    );
}

#[tokio::test]
async fn fingerprints_are_of_the_lower_half() {
    let both = Both::over(&access_log()).await;
    let of = async |text: &str| both.runtime.fingerprints(&both.query(text)).await.unwrap()[0];
    let base = of("SELECT status, count(*) FROM access GROUP BY status").await;
    assert!(base.is_some());
    let same =
        "select STATUS, count(*) AS n from access group by status having count(*) > 5 order by n limit 3";
    assert_eq!(of(same).await, base);
    for other in [
        "SELECT status, sum(bytes) FROM access GROUP BY status",
        "SELECT status, count(*) FROM access WHERE status > 1 GROUP BY status",
        "SELECT method, count(*) FROM access GROUP BY method",
    ] {
        assert_ne!(of(other).await, base, "{other}");
    }
    assert_eq!(of("SELECT count(*) FROM access WHERE random() < 0.5").await, None);
    // Two that look the same but for the types of their literals, whose partial results do not fit each other.
    let numbers =
        of("SELECT CASE WHEN status > 400 THEN 1 ELSE 2 END, count(*) FROM access GROUP BY 1").await;
    let texts =
        of("SELECT CASE WHEN status > 400 THEN '1' ELSE '2' END, count(*) FROM access GROUP BY 1").await;
    assert_ne!(numbers, texts);
    // The same lines may be another block of another dataset.
    assert_eq!(of("SELECT _block, count(*) FROM access GROUP BY 1").await, None);
}
