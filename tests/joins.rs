//! Questions over several datasets and small tables through a whole mill.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::{Value, json};
use testkit::{Mill, logs};

/// 300 lines of 10 hosts.
fn app_log() -> String {
    let lines = (0..300).map(|number| {
        let level = if number % 4 == 0 { "error" } else { "info" };
        format!(
            "{{\"host\":\"10.0.0.{}\",\"level\":\"{level}\",\"n\":{number}}}\n",
            number % 10
        )
    });
    lines.collect()
}

/// More than travels inside an entry: a country for each of 400 hosts.
fn hosts(first: &str) -> String {
    let lines = (0..400).map(|host| {
        let country = if host < 3 { first } else { "elsewhere" };
        format!("10.0.0.{host},{country}\n")
    });
    "host,country\n".to_string() + &lines.collect::<String>()
}

async fn rows(mill: &Mill, sql: &str, options: &[&str]) -> Vec<Value> {
    let args = [&["query", sql, "--output", "json"], options].concat();
    let text = mill.told(&args).await;
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn files_below(folder: &Path, name: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let count = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let is_named = path
            .file_name()
            .is_some_and(|file| file.to_string_lossy().starts_with(name));
        if path.is_dir() {
            files_below(&path, name)
        } else {
            usize::from(is_named)
        }
    };
    entries.map(|entry| count(entry.unwrap())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn datasets_and_small_tables_are_asked_together() {
    let mill = Mill::start().await;
    let _ = mill.add("access", &logs::access(600), &[]).await.code(0);
    let _ = mill.add("app", &app_log(), &[]).await.code(0);
    small_tables(&mill).await;
    several_datasets(&mill).await;
    gathered(&mill).await;
    refused(&mill).await;
    mill.stop().await;
}

async fn small_tables(mill: &Mill) {
    let (codes, by_host) = (
        mill.file("codes.csv", b"code,name\n200,fine\n500,broken\n"),
        mill.file("hosts.csv", hosts("here").as_bytes()),
    );
    let (codes, by_host) = (format!("codes={codes}"), format!("hosts={by_host}"));
    let with = ["--with", &codes, "--with", &by_host];
    let sql = "SELECT country, name, count(*) AS n FROM access JOIN hosts USING (host) JOIN codes ON code = status \
               GROUP BY country, name ORDER BY n";
    let here = (0..600).filter(|number| number % 7 < 3);
    let broken = here.clone().filter(|number| number % 3 == 0).count();
    let answer = rows(mill, sql, &with).await;
    assert_eq!(answer.len(), 4);
    assert!(
        answer.contains(&json!({"country": "here", "name": "broken", "n": broken})),
        "{answer:?}"
    );
    assert_eq!(files_below(&mill.files.path().join("store"), "table-"), 1);

    // The same again costs nothing, though the tables would lie elsewhere.
    let again = mill.command(&[&["query", sql], &with[..]].concat()).await.code(0);
    assert!(again.stderr.contains("answered by job"), "{}", again.stderr);
    // Other content under the same name is another question.
    mill.file("hosts.csv", hosts("there").as_bytes());
    let answer = rows(mill, sql, &with).await;
    assert!(
        answer.contains(&json!({"country": "there", "name": "broken", "n": broken})),
        "{answer:?}"
    );
    assert_eq!(mill.newest().await["counts"]["already"], 0);
    let unused = mill
        .command(&["query", "SELECT count(*) FROM access", "--with", &codes])
        .await;
    assert!(unused.code(2).stderr.contains("does not read the table codes"));
    // They go with their jobs.
    mill.told(&["job", "prune", "--older-than", "0ms"]).await;
    assert_eq!(files_below(&mill.files.path().join("store"), "table-"), 0);
}

async fn several_datasets(mill: &Mill) {
    let union = "SELECT host, count(*) AS n FROM (SELECT host FROM access UNION ALL SELECT host FROM app) \
                 GROUP BY host ORDER BY n DESC, host LIMIT 1";
    assert_eq!(
        rows(mill, union, &[]).await,
        [json!({"host": "10.0.0.0", "n": 86 + 30})]
    );
    let joined = "SELECT a.host, a.n, b.errors FROM (SELECT host, count(*) AS n FROM access GROUP BY host) a \
                  JOIN (SELECT host, count(*) AS errors FROM app WHERE level = 'error' GROUP BY host) b ON a.host = b.host \
                  ORDER BY errors DESC, a.host";
    let hosts = rows(mill, joined, &[]).await;
    assert_eq!(hosts.len(), 4, "{hosts:?}");
    assert_eq!(hosts[0], json!({"host": "10.0.0.0", "n": 86, "errors": 15}));
    // Above the same lower halves another question computes no block.
    let other = joined.replace("ORDER BY", "WHERE a.n > 0 ORDER BY");
    assert_eq!(rows(mill, &other, &[]).await, hosts);
    let job = mill.newest().await;
    let blocks = job["subtasks"].as_u64().unwrap() - 1;
    assert_eq!(job["counts"]["already"], blocks, "{job}");
    let shown = mill.told(&["job", "show", "last"]).await;
    assert!(
        shown.contains("access: access") && shown.contains("app: json"),
        "{shown}"
    );
}

async fn gathered(mill: &Mill) {
    let sql = "SELECT count(*) AS n FROM access JOIN app ON access.host = app.host WHERE level = 'error' AND status = 500";
    let without = mill.command(&["query", sql]).await.code(2);
    assert!(
        without.stderr.contains("a join of datasets"),
        "{}",
        without.stderr
    );
    let few = mill.command(&["query", sql, "--gather", "10"]).await.code(1);
    assert!(
        few.stderr.contains("block 0 of ") && few.stderr.contains("more than 10 rows"),
        "{}",
        few.stderr
    );
    // What would fail each time is not tried again.
    assert_eq!(mill.newest().await["counts"]["again"], 0);
    let errors = |host| (0..300).filter(|n| n % 4 == 0 && n % 10 == host).count();
    let expected: usize = (0..600).filter(|n| n % 3 == 0).map(|n| errors(n % 7)).sum();
    assert_eq!(rows(mill, sql, &["--gather"]).await, [json!({ "n": expected })]);
}

async fn refused(mill: &Mill) {
    for (args, told) in [
        (&["SELECT count(*) FROM acess"][..], "did you mean access?"),
        (
            &["SELECT * FROM codes", "--with", "codes=nowhere.csv"],
            "nowhere.csv",
        ),
        (&["SELECT * FROM access", "--with", "codes"], "NAME=FILE"),
        (&["INSERT INTO access VALUES (1)"], "no question"),
    ] {
        let output = mill.command(&[&["query"], args].concat()).await;
        assert!(output.stderr.contains(told), "{args:?}: {}", output.stderr);
        assert!(output.stdout.is_empty());
    }
    let large = mill.file("large.csv", &b"a,b\n1,2\n".repeat(3 << 20));
    let large = format!("large={large}");
    let sql = "SELECT count(*) FROM access JOIN large ON a = status";
    let refused = mill.command(&["query", sql, "--with", &large]).await.code(2);
    assert!(refused.stderr.contains("dataset add large"), "{}", refused.stderr);
}
