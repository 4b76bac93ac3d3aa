//! Blocks whose file is gone: the job fails with the block named, or leaves it out and says so.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::fs;

use serde_json::json;
use testkit::Mill;

/// JSON lines, each with its number.
fn lines(from: u32, to: u32) -> String {
    (from..to)
        .map(|number| format!("{{\"n\":{number},\"text\":\"{number:0>80}\"}}\n"))
        .collect()
}

async fn blocks(mill: &Mill) -> u64 {
    let shown = mill.json(&["dataset", "show", "app"]).await;
    shown["dataset"]["blocks"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_fails_the_query_or_is_left_out() {
    let mill = Mill::start().await;
    let _ = mill.add("app", &lines(0, 300), &[]).await.code(0);
    let there = blocks(&mill).await;
    let more = mill.file("more.log", lines(300, 500).as_bytes());
    mill.told(&["dataset", "add", "app", &more, "--block-size", "4KiB"])
        .await;
    let all = blocks(&mill).await;
    let gone = all - there;
    assert!(there > 3 && gone > 3, "{there} and {gone}");
    let away = format!("{more}.away");
    fs::rename(&more, &away).unwrap();

    let sql = "SELECT count(*) AS c, sum(n) AS s FROM app";
    let failed = mill.command(&["query", sql]).await.code(1);
    for part in [
        &format!("block {there} of app: "),
        &more,
        "No such file",
        "--skip-missing",
    ] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    let skipping = [sql, "--skip-missing", "--output", "json"];
    let query = async || mill.command(&[&["query"], &skipping[..]].concat()).await.code(0);
    let some = query().await;
    let answer = json!({ "c": 300, "s": (0..300).sum::<u32>() });
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&some.stdout).unwrap(),
        answer
    );
    let told = format!("{gone} blocks left out, the file is gone: block {there} of app ({more}), ");
    assert!(some.stderr.contains(&told), "{}", some.stderr);
    let rest = format!("and {} more that `sawmill job show", gone - 3);
    assert!(some.stderr.contains(&rest), "{}", some.stderr);
    let shown = mill.json(&["job", "show", "last"]).await;
    let left_out = shown["left_out"].as_array().unwrap();
    assert_eq!(left_out.len() as u64, gone, "{shown}");
    assert_eq!(
        left_out[0],
        json!({ "dataset": "app", "block": there, "file": more })
    );
    let shown = mill.told(&["job", "show", "last"]).await;
    let last = format!("block {} of app ({more})", all - 1);
    assert!(shown.contains("left out") && shown.contains(&last), "{shown}");
    let again = mill.command(&["job", "output", "last"]).await.code(0);
    assert!(again.stderr.contains(&told), "{}", again.stderr);

    // What is there was kept, what is not was not, and the answer is none for the next one who asks.
    let again = query().await;
    assert!(
        again.stderr.contains(&told) && !again.stderr.contains("answered by"),
        "{}",
        again.stderr
    );
    assert_eq!(mill.newest().await["counts"]["already"], there);
    fs::rename(&away, &more).unwrap();
    assert_eq!(
        mill.rows(sql).await,
        [json!({ "c": 500, "s": (0..500).sum::<u32>() })]
    );
    assert_eq!(mill.newest().await["counts"]["already"], there);

    // Now the whole answer is recorded, and is given as long as the files are what they were.
    let again = mill.command(&["query", sql]).await.code(0);
    assert!(again.stderr.contains("answered by job"), "{}", again.stderr);
    fs::rename(&more, &away).unwrap();
    let other = "SELECT max(text) FROM app";
    // What the node has in memory of it was read before it was renamed.
    for sql in [sql, other] {
        let failed = mill.command(&["query", sql]).await.code(1);
        assert!(failed.stderr.contains("can't read"), "{}", failed.stderr);
    }
    // What is there now is not what is in memory.
    fs::write(&more, lines(700, 900)).unwrap();
    for sql in [sql, other] {
        let failed = mill.command(&["query", sql]).await.code(1).stderr;
        let way_out = format!("dataset remove app --file {more}");
        assert!(
            failed.contains("has changed since it was added") && failed.contains(&way_out),
            "{failed}"
        );
    }
    mill.stop().await;
}
