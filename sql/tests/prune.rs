//! No block that is left out has a row that is asked for: made up data, made up conditions.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use model::{
    processor::{Query, QueryTable},
    stats::BlockStats,
    table::{Column, ColumnType, Format, Table},
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use sql::{BlockAt, ColumnCache, LowerHalf, Rendering, Runtime};

const NOW_US: i64 = 1_714_550_400_000_000;
const BLOCKS: u32 = 40;
const CONDITIONS: u32 = 250;

fn table() -> Table {
    let columns = [
        ("i", ColumnType::Integer),
        ("f", ColumnType::Float),
        ("b", ColumnType::Boolean),
        ("s", ColumnType::Text),
        ("t", ColumnType::Timestamp),
    ];
    let columns = columns.map(|(name, kind)| Column {
        name: name.into(),
        kind,
    });
    Table {
        format: Format::Logfmt,
        columns: columns.into(),
        least: None,
    }
}

/// Blocks of which each has its own range of values, some with nothing in a column, some with what does not parse.
fn blocks(dice: &mut StdRng, count: u32) -> Vec<String> {
    let block = |number: u32| {
        let (mut text, base) = (String::new(), i64::from(number % 10) * 10 - 50);
        let without: Vec<&str> = ["i", "f", "b", "s", "t"]
            .into_iter()
            .filter(|_| dice.random_bool(0.1))
            .collect();
        let only = dice.random_bool(0.3).then(|| dice.random_bool(0.5));
        for _ in 0..dice.random_range(0..12) {
            if dice.random_bool(0.03) {
                text += "no pairs here\n";
                continue;
            }
            let near = base + dice.random_range(0..=i64::from(number / 10) * 3);
            let day = number % 25 + dice.random_range(1..4);
            let mut value = |name: &str, value: String| {
                if !without.contains(&name) && !dice.random_bool(0.1) {
                    write!(text, "{name}={value} ").unwrap();
                }
            };
            value("i", if near == 0 { "x".into() } else { near.to_string() });
            let float = ["nan", "-0.0", "0.0", "inf", "1e300"];
            let odd = float.get((near.unsigned_abs() % 17) as usize);
            value(
                "f",
                odd.map_or((near as f64 / 2.0).to_string(), |odd| (*odd).into()),
            );
            value("b", only.unwrap_or(near % 3 == 0).to_string());
            let long = if near % 4 == 0 {
                "/long".repeat(12)
            } else {
                String::new()
            };
            value(
                "s",
                format!("{}{near}{long}é", ["a", "b", "foo"][(number % 3) as usize]),
            );
            value("t", format!("2024-03-{day:02}T{:02}:00:00Z", near.rem_euclid(24)));
            text.push('\n');
        }
        text
    };
    (0..count).map(block).collect()
}

fn condition(dice: &mut StdRng, depth: u32) -> String {
    if depth > 0 && dice.random_bool(0.5) {
        let (left, right) = (condition(dice, depth - 1), condition(dice, depth - 1));
        return match dice.random_range(0..4) {
            0 => format!("(({left}) OR ({right}))"),
            1 => format!("(NOT ({left}) AND ({right}))"),
            _ => format!("(({left}) AND ({right}))"),
        };
    }
    let operator = *[
        "=",
        "<>",
        "<",
        "<=",
        ">",
        ">=",
        "IS DISTINCT FROM",
        "IS NOT DISTINCT FROM",
    ]
    .choose(dice)
    .unwrap();
    let number = dice.random_range(-60..60);
    let texts = ["'a-50é'", "'foo1é'", "'b'", "''", "'foo4/long/long'", "'zzz'"];
    let text = *texts.choose(dice).unwrap();
    let patterns = [
        "'foo%'",
        "'a-4%'",
        "'%é'",
        "'b_0%'",
        "'foo'",
        "'/%'",
        "'foo4/long/long/long/long/long/long%'",
    ];
    let pattern = *patterns.choose(dice).unwrap();
    let time = format!(
        "'2024-03-{:02}T{:02}:00:00Z'",
        dice.random_range(1..29),
        dice.random_range(0..24)
    );
    let any = ["i", "f", "b", "s", "t", "_error"].choose(dice).unwrap();
    match dice.random_range(0..26) {
        0..4 => format!("i {operator} {number}"),
        4 => format!("f {operator} {}.5", number / 2),
        5 => format!("f {operator} 0.0"),
        6 => format!("f {operator} i"),
        7..9 => format!("s {operator} {text}"),
        9 => format!(
            "s {} {pattern}",
            ["LIKE", "NOT LIKE", "ILIKE"].choose(dice).unwrap()
        ),
        10..12 => format!("t {operator} {time}"),
        12 => format!(
            "CAST(t AS DATE) {operator} '2024-03-{:02}'",
            dice.random_range(1..29)
        ),
        13 => format!(
            "CAST(t AS TIME) {operator} '{:02}:00:00'",
            dice.random_range(0..24)
        ),
        14 => format!("CAST(t AT TIME ZONE 'Europe/Paris' AS TIMESTAMP) {operator} '2024-03-14T05:00:00'"),
        15 => format!("CAST(i AS BOOLEAN) {operator} {}", dice.random_bool(0.5)),
        16 => format!("CAST(i AS TEXT) {operator} '{number}'"),
        17 => format!("TRY_CAST(s AS BIGINT) {operator} {number}"),
        18 => format!("CAST(f AS BIGINT) {operator} {number}"),
        19 => format!("- i {operator} {number}"),
        20 => ["b", "NOT b", "b = false", "b IS NOT TRUE", "b IS UNKNOWN"]
            .choose(dice)
            .unwrap()
            .to_string(),
        21 => format!("i IN ({number}, {}, NULL)", number + 7),
        22 => format!("i NOT IN ({number}, {})", number + 1),
        23 => format!("{any} IS {}NULL", ["", "NOT "].choose(dice).unwrap()),
        24 => format!("i BETWEEN {number} AND {}", number + 15),
        _ => format!(
            "(_block % 7 = 3 OR (_block {operator} {}) OR _line > 9)",
            number / 2
        ),
    }
}

fn query(text: String) -> Query {
    over(&["lines"], text)
}

fn over(names: &[&str], text: String) -> Query {
    let described = names.iter().map(|name| QueryTable {
        name: (*name).into(),
        table: table(),
        lower_half: None,
    });
    Query {
        sql: text,
        tables: described.collect(),
        gather_rows: Some(1_000_000),
        time_zone: "UTC".into(),
        now_us: NOW_US,
        version: sql::VERSION.into(),
        ..Query::default()
    }
}

/// What is known of each block once all columns were read.
async fn learned(blocks: &[String]) -> BTreeMap<u32, BlockStats> {
    let query = Arc::new(query("SELECT *, _block, _line, _error FROM lines".into()));
    let mut known = BTreeMap::new();
    for (number, block) in (0..).zip(blocks) {
        let at = BlockAt {
            number,
            begins_file: false,
            contents: None,
        };
        let mut half = LowerHalf::new(
            &Runtime::for_planning(),
            query.clone(),
            0,
            at,
            ColumnCache::new(0),
        )
        .await
        .unwrap();
        half.read(block.as_bytes(), block.len() as u64).unwrap();
        // Of one in ten nothing is known.
        if let Some(stats) = half.take_learned().filter(|_| number % 10 != 9) {
            known.insert(number, stats);
        }
    }
    known
}

#[tokio::test]
async fn what_is_left_out_has_no_row_that_is_asked_for() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let blocks = blocks(&mut dice, BLOCKS);
    let runtime = Runtime::for_planning();
    let known = learned(&blocks).await;
    let (mut left_out, mut asked) = (0, 0);
    for _ in 0..CONDITIONS {
        let condition = condition(&mut dice, 2);
        let query = query(format!("SELECT _line FROM lines WHERE {condition}"));
        let pruner = match runtime.pruner(&query, 0).await {
            Ok(Some(pruner)) => pruner,
            // What can never be true reads nothing.
            Ok(None) | Err(sql::Error::NotSplit { .. }) => continue,
            Err(error) => panic!("{condition}: {error}"),
        };
        asked += 1;
        let needed = pruner.needed(0..BLOCKS, &known);
        for (number, block) in (0..).zip(&blocks) {
            if needed.iter().any(|range| range.contains(&number)) {
                continue;
            }
            left_out += 1;
            // What fails on a row, such as a cast, has not matched.
            if let Ok(partial) = sql::lower(&runtime, &query, 0, block.as_bytes(), number, false).await {
                let found = sql::upper(&runtime, &query, &partial[..]).await.unwrap();
                let (_, rows) = sql::render(&found, Rendering::Csv, &mut Vec::new()).unwrap();
                assert_eq!(rows, 0, "seed {seed}, block {number}, {condition}:\n{block}");
            }
        }
    }
    println!("{left_out} blocks were left out by {asked} conditions");
    assert!(
        left_out > 5 * u64::from(CONDITIONS),
        "only {left_out} blocks were left out"
    );
}

#[tokio::test]
#[expect(clippy::single_range_in_vec_init, reason = "lists of one range are meant")]
async fn plain_conditions_leave_out_what_they_can() {
    let blocks = ["i=1 s=a\ni=5 s=b\n", "i=10\ni=12 s=c\n", "no\n", "i=5\n"].map(String::from);
    let known = learned(&blocks).await;
    let runtime = Runtime::for_planning();
    for (condition, expected) in [
        ("i = 5", vec![0..1, 3..4]),
        ("i > 5", vec![1..2]),
        ("i IS NULL", vec![2..3]),
        ("_error IS NOT NULL", vec![2..3]),
        ("s LIKE 'c%'", vec![1..2]),
        ("_block IN (1, 2)", vec![1..3]),
        ("_line = 2", vec![0..2]),
        ("i > 5 AND random() < 0.5", vec![1..2]),
        ("i > 100", vec![]),
    ] {
        let query = query(format!("SELECT count(*) FROM lines WHERE {condition}"));
        let pruner = runtime.pruner(&query, 0).await.unwrap().unwrap();
        assert_eq!(pruner.needed(0..4, &known), expected, "{condition}");
        // The first has left.
        let later = expected.iter().map(|range| range.start.max(1)..range.end);
        let later: Vec<_> = later.filter(|range| !range.is_empty()).collect();
        assert_eq!(pruner.needed(1..4, &known), later, "{condition}");
        // A fifth block of which nothing is known may have anything.
        if !condition.starts_with("_block") {
            assert_eq!(pruner.needed(0..5, &known).last().unwrap().end, 5, "{condition}");
        }
    }
    for all in [
        "",
        "WHERE length(s) = 3",
        "WHERE i > random()",
        "WHERE CAST(t AS TIME) > '12:00:00'",
    ] {
        let query = query(format!("SELECT count(*) FROM lines {all}"));
        assert!(runtime.pruner(&query, 0).await.unwrap().is_none(), "{all}");
    }
}

/// Queries that read datasets in one or more places: in each `{}` a condition goes.
const SHAPES: [&str; 28] = [
    "SELECT count(*), count(i), sum(i), min(s), max(t) FROM lines WHERE {}",
    "SELECT b, count(*) FROM lines WHERE {} GROUP BY b HAVING count(*) > 1",
    "SELECT b, count(*) FROM lines WHERE {} GROUP BY ROLLUP (b)",
    "SELECT count(*) FILTER (WHERE {}), count(*) FROM lines WHERE {}",
    "SELECT count(*) FILTER (WHERE {}) FROM lines",
    "SELECT CASE WHEN {} THEN i END FROM lines WHERE {}",
    "SELECT DISTINCT s FROM lines WHERE {}",
    "SELECT _block, _line FROM lines WHERE {} ORDER BY _block DESC, _line LIMIT 5",
    "SELECT i FROM (SELECT *, _block, _line, _error FROM lines ORDER BY _block, _line LIMIT 20) WHERE {}",
    "SELECT _block, _line FROM lines WHERE {} AND random() >= 0",
    "SELECT _block, _line FROM lines WHERE NOT ({} AND random() < 0)",
    "SELECT i FROM lines WHERE {} UNION ALL SELECT i FROM lines WHERE {}",
    "SELECT i FROM lines WHERE {} UNION SELECT i FROM others",
    "SELECT s, count(*) FROM (SELECT s FROM lines WHERE {} UNION ALL SELECT s FROM others WHERE {}) GROUP BY s",
    "SELECT count(*) FROM (SELECT *, _block, _line, _error FROM lines UNION ALL SELECT *, _block, _line, _error FROM others) WHERE {}",
    "SELECT i FROM lines WHERE {} EXCEPT SELECT i FROM others WHERE {}",
    "SELECT i FROM lines WHERE {} INTERSECT SELECT i FROM lines WHERE {}",
    "SELECT count(*) FROM lines WHERE {} AND i IN (SELECT i FROM others WHERE {})",
    "SELECT count(*) FROM lines WHERE {} AND i NOT IN (SELECT i FROM others WHERE {} AND i IS NOT NULL)",
    "SELECT count(*) FROM lines l WHERE NOT EXISTS (SELECT 1 FROM others o WHERE o.i = l.i AND o.b)",
    "SELECT count(*) FROM lines WHERE {} AND i > (SELECT avg(i) FROM others WHERE {})",
    "SELECT count(*) FROM lines WHERE {} OR i > (SELECT avg(i) FROM lines WHERE {})",
    "SELECT x.b, x.n, y.n FROM (SELECT b, count(*) AS n FROM lines WHERE {} GROUP BY b) x \
     FULL JOIN (SELECT b, count(*) AS n FROM others WHERE {} GROUP BY b) y ON x.b = y.b",
    "SELECT a.i, o.s FROM (SELECT *, _block, _line, _error FROM lines WHERE {}) a LEFT JOIN (SELECT *, _block, _line, _error FROM others WHERE {}) o ON a.i = o.i",
    "SELECT a.i, o.i FROM lines a LEFT JOIN others o ON a.i = o.i AND o.i > 20 WHERE o.i IS NULL OR o.i < 35",
    "SELECT a.i, o.i FROM lines a FULL JOIN others o ON a.i = o.i AND a.i < 10 WHERE coalesce(o.i, 0) < 15",
    "WITH w AS (SELECT *, _block, _line, _error FROM lines WHERE {}) SELECT count(*) FROM w WHERE {} UNION ALL SELECT sum(i) FROM w",
    "SELECT i, row_number() OVER (PARTITION BY b ORDER BY _block, _line) FROM lines WHERE {}",
];
/// How often each of them is asked.
const ROUNDS: u32 = 3;
const FEW: u32 = 16;

/// The answer, its rows in a fixed order; none where the query fails on the data.
async fn answer(runtime: &Runtime, query: &Query, partials: &[&[u8]]) -> Option<Vec<String>> {
    let partials = partials.concat();
    let found = sql::upper(runtime, query, &partials[..]).await.ok()?;
    let mut csv = Vec::new();
    sql::render(&found, Rendering::Csv, &mut csv).unwrap();
    let mut rows: Vec<String> = String::from_utf8(csv)
        .unwrap()
        .lines()
        .map(str::to_string)
        .collect();
    rows.sort_unstable();
    Some(rows)
}

#[tokio::test]
async fn answers_are_the_same_with_and_without_what_is_left_out() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let names = ["lines", "others"];
    let tables = names.map(|_| blocks(&mut dice, FEW));
    let known = [learned(&tables[0]).await, learned(&tables[1]).await];
    let runtime = Runtime::for_planning();
    let (mut left_out, mut answered) = (0, 0);
    for shape in std::iter::repeat_n(SHAPES, ROUNDS as usize).flatten() {
        let mut text = shape.to_string();
        while text.contains("{}") {
            text = text.replacen("{}", &format!("({})", condition(&mut dice, 1)), 1);
        }
        let read: Vec<&str> = names.into_iter().filter(|name| text.contains(name)).collect();
        let query = over(&read, text.clone());
        let (mut all, mut needed) = (Vec::new(), Vec::new());
        for (number, name) in read.iter().enumerate() {
            let of = names.iter().position(|known| known == name).unwrap();
            let pruner = runtime.pruner(&query, number).await;
            let pruner = pruner.unwrap_or_else(|error| panic!("{text}: {error}"));
            let ranges = pruner.map_or_else(
                || std::iter::once(0..FEW).collect(),
                |pruner| pruner.needed(0..FEW, &known[of]),
            );
            for (block, bytes) in (0..).zip(&tables[of]) {
                let partial = sql::lower(&runtime, &query, number, bytes.as_bytes(), block, false).await;
                all.push(partial.ok());
                let is_needed = ranges.iter().any(|range| range.contains(&block));
                needed.push(is_needed);
            }
        }
        // What fails on a row is no answer to compare with.
        let Some(all) = all.into_iter().collect::<Option<Vec<_>>>() else {
            continue;
        };
        let whole: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        let some: Vec<&[u8]> = whole
            .iter()
            .zip(&needed)
            .filter(|(_, needed)| **needed)
            .map(|(one, _)| *one)
            .collect();
        let Some(expected) = answer(&runtime, &query, &whole).await else {
            continue;
        };
        let found = answer(&runtime, &query, &some).await;
        assert_eq!(found, Some(expected), "seed {seed}: {text}");
        answered += 1;
        left_out += whole.len() - some.len();
    }
    println!("{left_out} blocks were left out of {answered} queries");
    assert!(
        answered > SHAPES.len() && left_out > 5 * SHAPES.len(),
        "{answered} answers without {left_out} blocks"
    );
}
