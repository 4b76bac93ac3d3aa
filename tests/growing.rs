//! Files that grow, are rotated or are written anew after they were added.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::{fs, io::Write as _, time::Duration};

use serde_json::json;
use testkit::{Mill, wait};

const DEADLINE: Duration = Duration::from_secs(60);

const COUNT: &str = "SELECT count(*) AS c, sum(n) AS s FROM app";

fn lines(from: u32, to: u32) -> String {
    (from..to).map(|number| format!("{{\"n\":{number}}}\n")).collect()
}

fn append(path: &str, text: &str) {
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

async fn counted(mill: &Mill, count: u32, sum: u32) {
    assert_eq!(mill.rows(COUNT).await, [json!({ "c": count, "s": sum })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_grows_counts_each_line_once() {
    let mill = Mill::start().await;
    // The last line is not finished, and is a line all the same.
    let log = mill.file("app.log", format!("{}{{\"n\":9}}", lines(0, 9)).as_bytes());
    mill.told(&["dataset", "add", "app", &log]).await;
    counted(&mill, 10, 45).await;
    append(&log, &format!("\n{}", lines(10, 12)));

    let grown = mill.command(&["query", COUNT]).await.code(0);
    for part in ["has grown by 19 B", &log, "dataset refresh app", "sawmill agent"] {
        assert!(grown.stderr.contains(part), "{part}: {}", grown.stderr);
    }
    counted(&mill, 10, 45).await;
    let refreshed = mill.command(&["dataset", "refresh", "app"]).await.code(0);
    assert!(
        refreshed.stdout.contains("files: 1 grown"),
        "{}",
        refreshed.stdout
    );
    counted(&mill, 12, 66).await;

    // Adding it again takes the tail alone, and then nothing.
    append(&log, &lines(12, 14));
    let added = mill.json(&["dataset", "add", "app", &log]).await;
    assert_eq!(added["added"], json!({ "files": 1, "blocks": 1, "bytes": 18 }));
    assert_eq!(added["files"][0]["what"], "tail");
    counted(&mill, 14, 91).await;
    let refused = mill.command(&["dataset", "add", "app", &log]).await.code(1);
    assert!(refused.stderr.contains("has not changed"), "{}", refused.stderr);
    counted(&mill, 14, 91).await;

    // What was added last is taken back, and is not missed: it can be added again.
    mill.told(&["dataset", "undo", "app"]).await;
    counted(&mill, 12, 66).await;
    let twice = mill.command(&["dataset", "undo", "app"]).await.code(1);
    assert!(twice.stderr.contains("can't be taken back"), "{}", twice.stderr);
    mill.told(&["dataset", "refresh", "app"]).await;
    counted(&mill, 14, 91).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_log_is_read_where_it_is_now() {
    let mill = Mill::start().await;
    let log = mill.file("app.log", lines(0, 4).as_bytes());
    let other = mill.file("other.log", lines(100, 102).as_bytes());
    mill.told(&["dataset", "add", "app", &log, &other]).await;
    counted(&mill, 6, 207).await;
    append(&log, &lines(4, 5));
    let rotated = format!("{log}.1");
    fs::rename(&log, &rotated).unwrap();
    fs::write(&log, lines(5, 7)).unwrap();

    // The node has the column in memory, but of another file.
    let failed = mill.command(&["query", COUNT, "--no-reuse"]).await.code(1);
    let way_out = format!("dataset remove app --file {log}");
    for part in ["has changed since it was added", &way_out] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }

    let added = mill.json(&["dataset", "add", "app", &log, &rotated]).await;
    let what: Vec<_> = added["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| &file["what"])
        .collect();
    assert_eq!(what, ["in_place_of_another", "renamed"]);
    counted(&mill, 9, 222).await;
    mill.told(&["dataset", "remove", "app", "--file", &other]).await;
    counted(&mill, 7, 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_anew_with_its_old_size_and_time_is_another_one() {
    let mill = Mill::start().await;
    let log = mill.file("app.log", b"{\"n\":1,\"m\":1}\n{\"n\":2,\"m\":2}\n");
    mill.told(&["dataset", "add", "app", &log]).await;
    counted(&mill, 2, 3).await;
    let modified = fs::metadata(&log).unwrap().modified().unwrap();
    fs::write(&log, b"{\"n\":7,\"m\":7}\n{\"n\":8,\"m\":8}\n").unwrap();
    let file = fs::File::options().write(true).open(&log).unwrap();
    file.set_modified(modified).unwrap();

    // One column of it is in memory, the other is not.
    let both = mill
        .command(&["query", "SELECT n, m FROM app", "--no-reuse"])
        .await
        .code(1);
    assert!(both.stderr.contains("with other bytes in it"), "{}", both.stderr);
    mill.told(&["dataset", "remove", "app"]).await;
    mill.told(&["dataset", "add", "app", &log]).await;
    counted(&mill, 2, 15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_loses_what_is_taken_out_of_its_dataset() {
    let mill = Mill::start().await;
    let good = mill.file("good.log", lines(0, 3).as_bytes());
    let bad = mill.file("bad.log", lines(1000, 1003).as_bytes());
    mill.told(&["dataset", "add", "app", &good]).await;
    mill.told(&["dataset", "add", "app", &bad]).await;
    mill.told(&["view", "create", "all", COUNT]).await;
    let until = async |count: u32, sum: u32| {
        wait::until_true("the view to be current", DEADLINE, async || {
            let output = mill.command(&["view", "output", "all", "--output", "json"]).await;
            let row = serde_json::from_str::<serde_json::Value>(&output.stdout);
            row.is_ok_and(|row| row == json!({ "c": count, "s": sum }))
        })
        .await;
    };
    until(6, 3006).await;
    mill.told(&["dataset", "undo", "app"]).await;
    until(3, 3).await;
    append(&good, &lines(3, 4));
    mill.told(&["dataset", "refresh", "app"]).await;
    until(4, 6).await;
}
