//! The columns `_file` and `_host`: where a line stood before it came into its block.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use model::origin::{Origin, Origins};
use serde_json::json;
use testkit::Mill;

fn run(host: &str, path: &str, lines: u64) -> Origin {
    Origin {
        host: host.into(),
        path: path.into(),
        offset: 0,
        lines,
        bytes: 8 * lines,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_know_their_file_and_their_host() {
    let mill = Mill::start().await;
    let lying = mill.file("lying.log", b"{\"n\":1}\n{\"n\":2}\n");
    mill.told(&["dataset", "add", "app", &lying]).await;
    let mut object = Origins::new(vec![
        run("web7", "/var/log/a.log", 1),
        run("web8", "/var/log/b.log", 2),
    ])
    .to_frame();
    object.extend(zstd::encode_all(&b"{\"n\":3}\n{\"n\":4}\n{\"n\":5}\n"[..], 1).unwrap());
    let shipped = mill.file("shipped.zst", &object);
    mill.told(&["dataset", "add", "app", &shipped]).await;

    let expected = [
        json!({ "n": 1, "_file": lying, "_host": null }),
        json!({ "n": 2, "_file": lying, "_host": null }),
        json!({ "n": 3, "_file": "/var/log/a.log", "_host": "web7" }),
        json!({ "n": 4, "_file": "/var/log/b.log", "_host": "web8" }),
        json!({ "n": 5, "_file": "/var/log/b.log", "_host": "web8" }),
    ];
    let sql = "SELECT n, _file, _host FROM app ORDER BY n";
    assert_eq!(mill.rows(sql).await, expected);
    // The columns of the lines are in memory now, those of another question are not.
    let by_host = "SELECT _host, count(*) AS lines FROM app WHERE _host IS NOT NULL GROUP BY 1 ORDER BY 1";
    let counted = [
        json!({ "_host": "web7", "lines": 1 }),
        json!({ "_host": "web8", "lines": 2 }),
    ];
    assert_eq!(mill.rows(by_host).await, counted);
    let again = mill.told(&["query", sql, "--no-reuse", "--output", "csv"]).await;
    assert!(again.ends_with("5,/var/log/b.log,web8\n"), "{again}");
}
