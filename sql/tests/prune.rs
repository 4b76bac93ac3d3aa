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
fn blocks(dice: &mut StdRng) -> Vec<String> {
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
    (0..BLOCKS).map(block).collect()
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
    let table = QueryTable {
        name: "lines".into(),
        table: table(),
        lower_half: None,
    };
    Query {
        sql: text,
        tables: vec![table],
        time_zone: "UTC".into(),
        now_us: NOW_US,
        version: sql::VERSION.into(),
        ..Query::default()
    }
}

/// What is known of each block once all columns were read.
async fn learned(blocks: &[String]) -> BTreeMap<u32, BlockStats> {
    let query = Arc::new(query("SELECT * FROM lines".into()));
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
    let blocks = blocks(&mut dice);
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
        let needed = pruner.needed(BLOCKS, &known);
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
        assert_eq!(pruner.needed(4, &known), expected, "{condition}");
        // A fifth block of which nothing is known may have anything.
        if !condition.starts_with("_block") {
            assert_eq!(pruner.needed(5, &known).last().unwrap().end, 5, "{condition}");
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
