//! Values come back as they were written: records of separated values over any blocks, and names of JSON in any split.
#![allow(clippy::unwrap_used)]

use datafusion::arrow::{
    array::{Array, AsArray},
    datatypes::Int64Type,
};
use model::table::{Column, ColumnType, Format, Table};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sql::{BlockRows, Origin, RecordCuts};

const ROWS: i64 = 1000;

fn origin(number: usize) -> Origin {
    Origin {
        block: number as u32,
        begins_file: number == 0,
        now_us: 0,
    }
}

/// A text of parts that matter.
fn text(dice: &mut StdRng) -> String {
    let parts = ["x", " ", ";", "\n", "\r\n", "\"", "\"\"", "7;y;7\n", "é"];
    (0..dice.random_range(1..8u32))
        .map(|_| parts[dice.random_range(0..parts.len())])
        .collect()
}

#[test]
fn records_come_back_whatever_the_blocks_are() {
    let mut dice = StdRng::seed_from_u64(3);
    let mut file = "id;text;code\n".to_string();
    let mut texts = Vec::new();
    for id in 0..ROWS {
        let text = text(&mut dice);
        let quoted = text.replace('"', "\"\"");
        file += &format!("{id};\"{quoted}\";{}\n", id % 7);
        texts.push(text);
    }
    let table = sql::named("separated:;", file.as_bytes()).unwrap().table;
    let kinds = [ColumnType::Integer, ColumnType::Text, ColumnType::Integer];
    assert_eq!(
        table.columns.iter().map(|column| column.kind).collect::<Vec<_>>(),
        kinds
    );
    for block_size in [1, 50, 1000, 1 << 20] {
        let mut cuts = RecordCuts::new(';', 0, block_size).unwrap();
        let mut ranges = Vec::new();
        file.as_bytes()
            .chunks(777)
            .for_each(|piece| cuts.push(piece, &mut ranges));
        ranges.extend(cuts.finish());
        let (mut ids, mut found, mut codes) = (Vec::<i64>::new(), Vec::<String>::new(), 0);
        for (number, range) in ranges.iter().enumerate() {
            let block = &file.as_bytes()[range.start as usize..range.end as usize];
            let rows = BlockRows::parse(&table, block, &[0, 1, 2], origin(number)).unwrap();
            assert_eq!(rows.tally.errors, 0);
            for batch in &rows.batches {
                ids.extend(batch.column(0).as_primitive::<Int64Type>().values());
                found.extend(
                    batch
                        .column(1)
                        .as_string_view()
                        .iter()
                        .flatten()
                        .map(str::to_string),
                );
                codes += batch
                    .column(2)
                    .as_primitive::<Int64Type>()
                    .values()
                    .iter()
                    .sum::<i64>();
            }
        }
        assert_eq!(ids, (0..ROWS).collect::<Vec<_>>(), "{block_size}");
        assert_eq!(found, texts, "{block_size}");
        assert_eq!(codes, (0..ROWS).map(|id| id % 7).sum::<i64>());
    }
}

/// A value below some names, with dots or objects between them.
fn split(dice: &mut StdRng, names: &[&str], value: i64) -> String {
    let mut json = String::new();
    let mut ends = 0;
    let mut rest = names;
    while !rest.is_empty() {
        let (together, behind) = rest.split_at(dice.random_range(1..=rest.len()));
        json += &format!("{{\"other.x\":0,\"{}\":", together.join("."));
        ends += 1;
        rest = behind;
    }
    json + &value.to_string() + &"}".repeat(ends)
}

#[test]
fn names_with_dots_are_found_in_any_split() {
    let names = ["k8s", "labels", "app", "kubernetes", "io/name"];
    let column = |name: String| Column {
        name,
        kind: ColumnType::Integer,
    };
    let table = Table {
        format: Format::Json,
        columns: vec![column("k8s.labels".into()), column(names.join("."))],
        least: None,
    };
    let mut dice = StdRng::seed_from_u64(4);
    let lines: Vec<String> = (0..ROWS).map(|value| split(&mut dice, &names, value)).collect();
    let rows = BlockRows::parse(&table, lines.join("\n").as_bytes(), &[1], origin(0)).unwrap();
    let found = rows.batches[0].column(0).as_primitive::<Int64Type>();
    assert_eq!(found.values(), &(0..ROWS).collect::<Vec<_>>()[..]);
    // They are columns of the same name, however they were split when they were first seen.
    for line in lines.iter().take(20) {
        let seen = sql::named("json", format!("{line}\n").as_bytes()).unwrap().table;
        assert!(
            seen.columns.iter().any(|column| column.name == names.join(".")),
            "{line}"
        );
    }
}

#[test]
fn what_a_later_file_has_is_told() {
    let csv = |text: &str| sql::named("csv", text.as_bytes()).unwrap().table;
    let zip = csv("name,zip\na,01730\nb,02138\n");
    let kept = sql::grow(&zip, b"name,zip\na,01730\nb,02138\n")
        .unwrap()
        .kept_as_text;
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (kept[0].column.as_str(), kept[0].example.as_str(), kept[0].why),
        ("zip", "01730", "has a leading zero")
    );
    let integers = csv("name,zip\na,1730\n");
    let grown = sql::grow(&integers, b"name,zip\na,01730\n").unwrap();
    assert_eq!((grown.changed.len(), grown.kept_as_text.len()), (1, 0));
    let rows = BlockRows::parse(&integers, b"name,zip\na,01730\n", &[1], origin(0)).unwrap();
    assert_eq!(
        (rows.tally.errors, rows.batches[0].column(0).null_count()),
        (1, 1)
    );
}

#[test]
fn thousands_of_names_become_columns_up_to_a_limit() {
    let line = |names: std::ops::Range<u32>| {
        let members: Vec<String> = names.map(|number| format!("\"n{number}\":1")).collect();
        format!("{{{}}}\n", members.join(","))
    };
    let table = sql::named("json", line(0..3000).as_bytes()).unwrap().table;
    assert_eq!(table.columns.len(), 3000);
    let grown = sql::grow(&table, line(2000..6000).as_bytes()).unwrap();
    assert_eq!((grown.table.columns.len(), grown.left_out), (4000, 2000));
    let rows = BlockRows::parse(&table, line(0..3000).repeat(3).as_bytes(), &[5, 2999], origin(0)).unwrap();
    assert_eq!((rows.tally.rows, rows.tally.errors), (3, 0));
}
