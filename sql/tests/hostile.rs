//! Whatever bytes come: no crash, every line is a row, nothing of it is lost, and what does not parse says why.
#![allow(clippy::unwrap_used)]

use datafusion::arrow::array::{Array, AsArray, StringViewArray};
use model::table::{EVERYWHERE, Table};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sql::{BlockRows, Origin};

/// For each format lines from which it is learned, and parts that matter to its parser.
const FORMATS: [(&str, &str, &str); 10] = [
    (
        "access",
        "1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.0\" 200 23 \"-\" \"x\" 0.5\n",
        "\"[] -\\/:+.",
    ),
    (
        "json",
        "{\"a\":{\"b\":1},\"t\":\"2024-01-01T00:00:00Z\",\"x\":\"y\",\"f\":1.5,\"o\":true}\n",
        "{}[]\":,\\u0012e-+.tn",
    ),
    (
        "logfmt",
        "level=info msg=\"a \\\"b\\\"\" took=1.5 n=1 at=2024-01-01T00:00:00Z\n",
        "=\" \\",
    ),
    ("syslog", "<34>Oct 11 22:14:15 host su[7]: failed\n", "<>[]: 019"),
    (
        "syslog5424",
        "<165>1 2003-10-11T22:14:15.003Z host app - ID [x@1 a=\"]\"] hello\n",
        "<>[]\"\\@- 1",
    ),
    ("csv", "a,b,c\n1,\"x, y\",2.5\n", ",\"\\"),
    ("tsv", "a\tb\n1\tx\n", "\t\""),
    (
        "regex:^(?<level>[A-Z]+) (?<n>\\d+) (?<rest>.*)$",
        "WARN 12 what\n",
        "AZ 09",
    ),
    (
        "text",
        "[2024-03-12 10:00:07,123] <4> [main] WARN level=info what\n",
        "[]<>-:,=| 019",
    ),
    ("raw", "anything\n", "x"),
];

fn hostile(dice: &mut StdRng, example: &str, special: &str) -> Vec<u8> {
    let mut text = Vec::new();
    if dice.random_range(0..8u32) == 0 {
        text.extend("\u{feff}".bytes());
    }
    for _ in 0..dice.random_range(0..12u32) {
        let mut line = match dice.random_range(0..4u32) {
            0 => Vec::new(),
            _ => example.lines().last().unwrap().as_bytes().to_vec(),
        };
        for _ in 0..dice.random_range(0..6u32) {
            let at = dice.random_range(0..=line.len());
            let byte = match dice.random_range(0..3u32) {
                0 => dice.random(),
                1 => b"\0\r\xff\xc3\x80\n"[dice.random_range(0..6usize)],
                _ => special.as_bytes()[dice.random_range(0..special.len())],
            };
            match dice.random_range(0..3u32) {
                0 => line.insert(at, byte),
                1 if at < line.len() => line[at] = byte,
                _ => line.truncate(at.max(line.len() / 2)),
            }
        }
        text.extend(line);
        text.extend([&b"\n"[..], b"\r\n", b"\n\n"][dice.random_range(0..3usize)]);
    }
    if dice.random() {
        text.pop();
    }
    text
}

/// The lines that a block is to have, as text.
fn lines(text: &[u8]) -> Vec<String> {
    let mut lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    if lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines
        .into_iter()
        .map(|line| bare(&String::from_utf8_lossy(line)))
        .collect()
}

/// A line without what is no part of it.
fn bare(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    line.trim_start_matches(['\0', '\u{feff}']).to_string()
}

fn texts(table: &Table, parsed: &BlockRows, behind: usize) -> Vec<Option<String>> {
    let place = table.columns.len() + behind;
    let of = |column: &StringViewArray| -> Vec<Option<String>> {
        column.iter().map(|value| value.map(str::to_string)).collect()
    };
    parsed
        .batches
        .iter()
        .flat_map(|batch| of(batch.column(place).as_string_view()))
        .collect()
}

fn has_header(format: &str) -> bool {
    matches!(format, "csv" | "tsv")
}

fn header(format: &str, table: &Table) -> String {
    let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    names.join(if format == "csv" { "," } else { "\t" })
}

fn check(format: &str, table: &Table, text: &[u8], begins_file: bool) {
    let mut whole = Vec::new();
    if has_header(format) && begins_file {
        whole.extend(header(format, table).bytes());
        whole.push(b'\n');
    }
    whole.extend(text);
    let text = &whole[..];
    let all: Vec<usize> = (0..table.columns.len() + EVERYWHERE.len()).collect();
    let origin = Origin {
        block: 3,
        begins_file,
        now_us: 1_700_000_000_000_000,
    };
    let shown = || format!("{format}: {:?}", String::from_utf8_lossy(text));
    let parsed = BlockRows::parse(table, text, &all, origin).unwrap();
    for batch in &parsed.batches {
        for column in batch.columns() {
            column
                .to_data()
                .validate_full()
                .unwrap_or_else(|error| panic!("{error} in {}", shown()));
        }
    }
    let raw = texts(table, &parsed, 0);
    // A record of separated values may be of several lines.
    let found: Vec<String> = raw
        .iter()
        .flatten()
        .flat_map(|record| match has_header(format) {
            true => record.split('\n').map(bare).collect(),
            false => vec![bare(record)],
        })
        .collect();
    let mut expected = lines(text);
    if has_header(format) {
        // Wherever a header stands.
        let header = header(format, table);
        expected.retain(|line| *line != header);
    }
    assert_eq!(found, expected, "{}", shown());
    let errors = texts(table, &parsed, 3);
    let with_error = errors.iter().filter(|error| error.is_some()).count() as u64;
    assert_eq!(
        (parsed.tally.rows, parsed.tally.errors),
        (raw.len() as u64, with_error),
        "{}",
        shown()
    );
    // The reasons alone count as many.
    let reasons = BlockRows::parse(table, text, &[table.columns.len() + 3], origin).unwrap();
    assert_eq!(reasons.tally, parsed.tally, "{}", shown());
    // One column alone tells of the same rows.
    for place in 0..table.columns.len() {
        let alone = BlockRows::parse(table, text, &[place], origin).unwrap();
        let columns = alone
            .batches
            .iter()
            .map(|batch| batch.column(0))
            .zip(&parsed.batches);
        columns
            .for_each(|(alone, all)| assert_eq!(alone, all.column(place), "column {place} of {}", shown()));
        assert_eq!(alone.tally.rows, parsed.tally.rows);
        assert!(alone.tally.errors <= parsed.tally.errors, "{}", shown());
    }
}

#[test]
fn made_up_bytes() {
    let mut dice = StdRng::seed_from_u64(11);
    for (format, example, special) in FORMATS {
        let table = sql::named(format, example.as_bytes()).unwrap().table;
        for round in 0..400 {
            check(
                format,
                &table,
                &hostile(&mut dice, example, special),
                round % 2 == 0,
            );
        }
    }
}

#[test]
fn long_lines_and_nothing_at_all() {
    for (format, example, _) in FORMATS {
        let table = sql::named(format, example.as_bytes()).unwrap().table;
        let example = example.lines().last().unwrap();
        let middle = example.len() / 2;
        let long = [
            &example[..middle],
            &"x".repeat(1 << 20),
            &example[middle..],
            "\n",
            example,
        ]
        .concat();
        for text in [
            long.as_bytes(),
            b"",
            b"\n",
            b"\r\n",
            b"\0",
            "\u{feff}".as_bytes(),
            b"\xff\xff\n\xfe",
        ] {
            check(format, &table, text, true);
            check(format, &table, text, false);
        }
    }
}
