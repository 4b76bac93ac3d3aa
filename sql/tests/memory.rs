//! Halves that need more memory than there is spill, or fail alone.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use model::processor::{Query, QueryTable};
use sql::{Rendering, Runtime};

const LINES: u32 = 60_000;
/// Enough for what a sort needs at least, less than its rows take.
const LITTLE: usize = 24 << 20;

/// Lines of JSON, each with a number and much text.
fn lines() -> String {
    let mut text = String::new();
    for number in 0..LINES {
        let number = u64::from(number) * 7919 % u64::from(LINES);
        writeln!(text, "{{\"n\":{number},\"text\":\"{number:0>300}\"}}").unwrap();
    }
    text
}

fn query(text: &str, lines: &str) -> Query {
    Query {
        sql: text.into(),
        tables: vec![QueryTable {
            name: "t".into(),
            table: sql::detect(&lines.as_bytes()[..10_000]).table,
            lower_half: None,
        }],
        gather_rows: Some(1_000_000),
        time_zone: "UTC".into(),
        version: sql::VERSION.into(),
        ..Query::default()
    }
}

async fn answer(runtime: &Runtime, query: &Query, lines: &str) -> Result<String, sql::Error> {
    let partial = sql::lower(&Runtime::for_planning(), query, 0, lines.as_bytes(), 0, true).await?;
    let answer = sql::upper(runtime, query, &partial[..]).await?;
    let mut shown = Vec::new();
    sql::render(&answer, Rendering::Csv, &mut shown)?;
    Ok(String::from_utf8(shown).unwrap())
}

#[tokio::test]
async fn a_sort_spills() {
    let lines = lines();
    let query = query("SELECT n, text FROM t ORDER BY text", &lines);
    let folder = tempfile::tempdir().unwrap();
    let spilled = answer(&Runtime::new(LITTLE, folder.path()), &query, &lines)
        .await
        .unwrap();
    let all = answer(&Runtime::for_planning(), &query, &lines).await.unwrap();
    assert!(spilled == all, "the rows differ");
    assert_eq!(all.lines().count(), LINES as usize + 1);
    // The files have no names, and where none can be made the query fails: so it did spill.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let nowhere = Runtime::new(LITTLE, &folder.path().join("missing"));
    let refused = answer(&nowhere, &query, &lines).await.unwrap_err().to_string();
    assert!(refused.contains("can't make a file in"), "{refused}");
}

#[tokio::test]
async fn what_cannot_spill_fails_alone() {
    let lines = lines();
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(LITTLE / 2, folder.path());
    let large = query("SELECT count(*) FROM t a JOIN t b ON a.text = b.text", &lines);
    let refused = answer(&runtime, &large, &lines).await.unwrap_err();
    assert!(matches!(refused, sql::Error::Memory(_)), "{refused}");
    assert!(refused.to_string().contains("needs more memory"), "{refused}");
    let small = query("SELECT count(*), max(n) FROM t", &lines);
    let next = answer(&runtime, &small, &lines).await.unwrap();
    assert!(next.contains("60000,59999"), "{next}");
}
