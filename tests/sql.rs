//! Questions in SQL through a whole mill: split, answered where the blocks are, merged, and answered again for nothing.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use testkit::{
    Mill, Space, logs,
    mill::{self, DEADLINE},
    process::Process,
    wait,
};

/// With a broken line at its end.
fn access_log() -> String {
    logs::access(600) + "broken\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_and_answered_again_for_nothing() {
    let mill = Mill::start().await;
    let added = mill.add("access", &access_log(), &[]).await.code(0);
    assert!(added.stderr.contains("are taken as access"), "{}", added.stderr);

    let by_status = "SELECT status, count(*) AS n, sum(bytes) AS sent FROM access GROUP BY status ORDER BY n DESC, status";
    let table = mill.command(&["query", by_status]).await.code(0);
    assert!(table.stdout.contains("| 200    | 400 |"), "{}", table.stdout);
    assert!(
        table
            .stderr
            .contains("3 rows from 601 lines, of which 1 did not parse"),
        "{}",
        table.stderr
    );
    let first = mill.newest().await;
    assert_eq!(first["counts"]["already"], 0);
    let blocks = first["subtasks"].as_u64().unwrap() - 1;
    assert!(blocks > 5, "{first}");

    // Another question with the same lower half: no block is computed again.
    let other =
        "SELECT status, count(*) AS n, sum(bytes) AS sent FROM access GROUP BY status HAVING count(*) > 300";
    assert_eq!(
        mill.rows(other).await,
        [serde_json::json!({ "status": 200, "n": 400, "sent": (0..600).filter(|n| n % 3 > 0).sum::<u32>() })]
    );
    let second = mill.newest().await;
    assert_eq!(second["counts"]["already"], blocks, "{second}");

    let broken = mill
        .rows("SELECT _raw, _error FROM access WHERE _error IS NOT NULL")
        .await;
    assert_eq!(
        broken,
        [serde_json::json!({ "_raw": "broken", "_error": "the host is missing" })]
    );
    let last = mill
        .rows("SELECT bytes FROM access ORDER BY time DESC NULLS LAST LIMIT 2")
        .await;
    assert_eq!(
        last,
        [
            serde_json::json!({ "bytes": 599 }),
            serde_json::json!({ "bytes": 598 })
        ]
    );

    let file = mill.files.path().join("n.csv").display().to_string();
    let noted = mill
        .command(&["query", "SELECT count(*) AS n FROM access", "--to", &file])
        .await
        .code(0);
    assert_eq!(
        (
            noted.stdout.as_str(),
            std::fs::read_to_string(&file).unwrap().as_str()
        ),
        ("", "n\n601\n")
    );

    // Without a terminal nothing is shown on the way.
    let csv = mill
        .told(&[
            "query",
            "SELECT count(*) AS n FROM access",
            "--live",
            "--output",
            "csv",
        ])
        .await;
    assert_eq!(csv, "n\n601\n");
    let again = mill.told(&["job", "output", "last", "--output", "csv"]).await;
    assert_eq!(again, csv);
    blocks_that_cannot_match_are_skipped(&mill, blocks).await;
    rows_are_documents(&mill, by_status).await;
    an_answer_becomes_a_dataset(&mill).await;
    the_same_question_needs_no_job(&mill, by_status, &table.stdout).await;
    mill.stop().await;
}

/// Written as Parquet, read as a dataset of its own, the same rows.
async fn an_answer_becomes_a_dataset(mill: &Mill) {
    let file = mill.files.path().join("copy.parquet").display().to_string();
    let columns = "time, host, status, bytes, path";
    let all = format!("SELECT {columns} FROM access WHERE _error IS NULL");
    mill.told(&["query", &all, "--to", &file]).await;
    let again = mill.files.path().join("again.parquet").display().to_string();
    mill.told(&["job", "output", "last", "--to", &again]).await;
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes == std::fs::read(&again).unwrap());

    let added = mill
        .command(&["dataset", "add", "copy", &file, &again])
        .await
        .code(0)
        .stderr;
    assert!(added.contains("files are taken as parquet"), "{added}");
    let grouped =
        "SELECT status, host, count(*) AS n, sum(bytes) AS sent, min(time) AS since, max(path) AS path";
    let by = "GROUP BY status, host ORDER BY n DESC, status, host";
    let of_lines = mill
        .rows(&format!("{grouped} FROM access WHERE _error IS NULL {by}"))
        .await;
    assert!(of_lines.len() > 10);
    assert_eq!(
        mill.rows(&format!("{grouped} FROM copy WHERE _block = 0 {by}"))
            .await,
        of_lines
    );
    let head = mill.json(&["dataset", "head", "copy", "-n", "1"]).await;
    assert_eq!(head.as_object().unwrap().len(), 5, "{head}");

    let log = mill.files.path().join("line.log").display().to_string();
    std::fs::write(&log, "a line\n").unwrap();
    let mixed = mill
        .command(&["dataset", "add", "copy", &log])
        .await
        .code(2)
        .stderr;
    assert!(mixed.contains("of lines, and dataset copy of Parquet"), "{mixed}");
    let command = mill
        .command(&["run", "--dataset", "copy", "--map", "wc -l"])
        .await
        .code(2)
        .stderr;
    assert!(command.contains("which have no lines"), "{command}");
    // What a file says of itself stays where it was; the rest of it is gone.
    let footer =
        bytes.len() - 8 - u32::from_le_bytes(*bytes[..bytes.len() - 4].last_chunk().unwrap()) as usize;
    let damaged = mill.files.path().join("damaged.parquet").display().to_string();
    std::fs::write(
        &damaged,
        [b"PAR1", &vec![0xff; footer - 4][..], &bytes[footer..]].concat(),
    )
    .unwrap();
    mill.told(&["dataset", "add", "damaged", &damaged]).await;
    let told = mill
        .command(&["query", "SELECT max(bytes) FROM damaged"])
        .await
        .code(1)
        .stderr;
    assert!(
        told.contains("block 0 of damaged: it is no Parquet file that can be read"),
        "{told}"
    );
    std::fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    let told = mill
        .command(&["dataset", "add", "cut", &damaged])
        .await
        .code(1)
        .stderr;
    assert!(told.contains("it is cut off"), "{told}");
}

/// What queries learn of blocks spares later ones those that can't match; the answers stay what they are.
async fn blocks_that_cannot_match_are_skipped(mill: &Mill, blocks: u64) {
    let late = "SELECT count(*) AS n FROM access WHERE time >= '2015-05-17T10:09:00Z'";
    let told = wait::until("skipped blocks", DEADLINE, async || {
        let told = mill.command(&["query", late, "--no-reuse"]).await.code(0);
        assert!(told.stdout.contains("| 60 |"), "{}", told.stdout);
        told.stderr.contains("skipped").then_some(told.stderr)
    })
    .await;
    let read = mill.newest().await["subtasks"].as_u64().unwrap() - 1;
    let expected = format!("{} of {blocks} blocks skipped", blocks - read);
    assert!(
        0 < read && read < blocks / 2 && told.contains(&expected),
        "{told}"
    );
    // Nothing is left to read, and the answers are those over nothing.
    let never = "WHERE time > '2030-01-01T00:00:00Z'";
    let count = format!("SELECT count(*) AS n, sum(bytes) AS s FROM access {never}");
    assert_eq!(
        mill.rows(&count).await,
        [serde_json::json!({ "n": 0, "s": null })]
    );
    assert_eq!(mill.newest().await["subtasks"], 1);
    let groups = format!("SELECT status, count(*) FROM access {never} GROUP BY status");
    assert!(mill.rows(&groups).await.is_empty());
    assert!(
        mill.rows(&format!("SELECT path FROM access {never} ORDER BY time LIMIT 3"))
            .await
            .is_empty()
    );
}

async fn rows_are_documents(mill: &Mill, sql: &str) {
    let sent = |ok: bool| (0..600).filter(|n| (n % 3 > 0) == ok).sum::<i64>();
    let expected = [
        ("200", 400, sent(true)),
        ("500", 200, sent(false)),
        ("null", 1, 0),
    ];
    // The first job was the first to ask.
    let rows = mill.documents("rows").await;
    assert!(
        rows[..3].iter().all(|row| row.get("job") == rows[0].get("job")),
        "{rows:?}"
    );
    for (row, (status, n, sent)) in rows.iter().zip(expected) {
        assert_eq!(
            row.get_i64("status")
                .map_or("null".into(), |status| status.to_string()),
            status
        );
        assert_eq!(
            (row.get_i64("n").unwrap(), row.get_i64("sent").unwrap_or(0)),
            (n, sent)
        );
    }

    let by_minute = "SELECT date_trunc('minute', time) AS minute, count(*) FROM access WHERE time IS NOT NULL GROUP BY 1 ORDER BY 1";
    let into = |sql| ["query", sql, "--into", "by_minute"];
    let told = mill.command(&into(by_minute)).await.code(0);
    assert!(
        told.stderr.contains("in the collection by_minute"),
        "{}",
        told.stderr
    );
    let minutes = mill.documents("by_minute").await;
    assert_eq!(minutes.len(), 10);
    let first = minutes[0].get_datetime("minute").unwrap();
    assert_eq!(
        first.to_string(),
        "2015-05-17 10:00:00.0 +00:00:00",
        "dates are dates"
    );
    assert_eq!(minutes[9].get_i64("count(*)").unwrap(), 60);

    mill.told(&into(sql)).await;
    mill.told(&into(sql)).await;
    let replaced = mill.documents("by_minute").await;
    assert_eq!(replaced.len(), 3);
    assert_eq!(replaced[0].get_i64("n").unwrap(), 400);
    mill.insert(
        "customers",
        &serde_json::json!({ "name": "kept by another program" }),
    )
    .await;
    let refused = mill.command(&["query", sql, "--into", "customers"]).await.code(2);
    assert!(
        refused.stderr.contains("customers exists and was not made by"),
        "{}",
        refused.stderr
    );
    assert_eq!(mill.documents("customers").await.len(), 1);
    let refused = mill.command(&["query", sql, "--into", "jobs"]).await.code(2);
    assert!(
        refused.stderr.contains("Sawmill itself uses it"),
        "{}",
        refused.stderr
    );
}

async fn the_same_question_needs_no_job(mill: &Mill, sql: &str, answer: &str) {
    let jobs = async || mill.json(&["job", "list"]).await.as_array().unwrap().len();
    let before = jobs().await;
    let respaced = format!("{} -- again", sql.replace(' ', "  ").to_lowercase());
    let again = mill.command(&["query", &respaced]).await.code(0);
    assert_eq!(again.stdout, answer);
    assert!(again.stderr.contains("answered by job "), "{}", again.stderr);
    assert_eq!(jobs().await, before, "{}", again.stderr);

    // What differs from moment to moment, another zone, and what is asked for without reuse are computed.
    let moment = "SELECT count(*) AS n FROM access WHERE time < now()";
    let zoned = [sql, "--time-zone", "+02:00"];
    for asked in [&[moment][..], &[moment], &zoned, &[sql, "--no-reuse"]] {
        let computed = mill.command(&[&["query"], asked].concat()).await.code(0);
        assert!(!computed.stderr.contains("answered by"), "{}", computed.stderr);
    }
    assert_eq!(jobs().await, before + 4);
    let id = mill.told(&["query", sql, "--no-wait"]).await;
    assert_eq!(mill.told(&["job", "output", id.trim()]).await, answer);
    assert_eq!(jobs().await, before + 4);

    // More blocks: computed, from the recorded results of the others; without results it is computed again.
    let more = mill.file("more.log", access_log().as_bytes());
    mill.told(&["dataset", "add", "access", &more]).await;
    let grown = mill.command(&["query", sql]).await.code(0);
    assert!(grown.stdout.contains("| 200    | 800 |"), "{}", grown.stdout);
    assert!(!grown.stderr.contains("answered by"), "{}", grown.stderr);
    mill.told(&["job", "prune", "--older-than", "0ms"]).await;
    let pruned = mill.command(&["query", sql]).await.code(0);
    assert_eq!(pruned.stdout, grown.stdout);
    assert!(!pruned.stderr.contains("answered by"), "{}", pruned.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_and_formats_say_what_is_wrong() {
    let mill = Mill::start().await;
    let _ = mill.add("access", &access_log(), &[]).await.code(0);
    let none = mill.command(&[
        "query",
        "SELECT host, bytes FROM access LIMIT 0",
        "--output",
        "csv",
    ]);
    assert_eq!(none.await.code(0).stdout, "host,bytes\n");
    let listed = mill.command(&["query", "SHOW TABLES"]).await.code(0);
    assert!(listed.stdout.contains("access"), "{}", listed.stdout);
    let jobs = mill.command(&["job", "list"]).await.code(0);
    assert!(jobs.stderr.contains("no jobs"), "{}", jobs.stdout);
    for (sql, code, told) in [
        ("SELECT nothing FROM access", 2, "no column named nothing"),
        ("SELECT count(*) FROM elsewhere", 1, "no such dataset: elsewhere"),
        ("SELECT 1", 2, "reads no dataset"),
        (
            "SELECT a.host FROM access a JOIN access b ON a.host = b.host",
            2,
            "--gather",
        ),
        ("SELECT * FROM access, elsewhere", 1, "no such dataset: elsewhere"),
    ] {
        let refused = mill.command(&["query", sql]).await.code(code);
        assert!(refused.stderr.contains(told), "{sql}: {}", refused.stderr);
    }
    // What only the data shows fails the job, with the block.
    let failed = mill
        .command(&["query", "SELECT 1 / (bytes - 7) FROM access"])
        .await
        .code(1);
    assert!(failed.stderr.contains("a division by zero"), "{}", failed.stderr);

    let refused = mill.add("other", "x\n", &["--format", "apache"]).await.code(2);
    assert!(refused.stderr.contains("logfmt"), "{}", refused.stderr);
    let _ = mill.command(&["dataset", "show", "other"]).await.code(1);
    let refused = mill
        .command(&["dataset", "list", "--output", "csv"])
        .await
        .code(2);
    assert!(refused.stderr.contains("is for answers"), "{}", refused.stderr);

    let named = ["--format", r"regex:^(?<level>[A-Z]+) (?<took>\d+)ms$"];
    let _ = mill
        .add("timed", "WARN 5ms\nINFO 7ms\nWARN 9ms\n", &named)
        .await
        .code(0);
    let rows = mill
        .rows("SELECT level, avg(took) AS took FROM timed GROUP BY level ORDER BY level")
        .await;
    let expected = [("INFO", 7.0), ("WARN", 7.0)];
    assert_eq!(
        rows,
        expected.map(|(level, took)| serde_json::json!({ "level": level, "took": took }))
    );
    mill.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_cancels_the_job_of_a_query() {
    let space = Space::new().await;
    let files = tempfile::tempdir().unwrap();
    let log = files.path().join("access.log");
    std::fs::write(&log, access_log()).unwrap();
    let on = |args: &[&str]| mill::settled(Process::sawmill(&space), files.path()).args(args);
    let added = on(&["dataset", "add", "access", log.to_str().unwrap()])
        .output(DEADLINE)
        .await;
    let _ = added.code(0);
    // Nobody computes, so that it lasts.
    let mut dispatcher = on(&["dispatcher"]).start();
    dispatcher.wait_for_line("dispatcher started", DEADLINE).await;
    let mut query = on(&["-v", "query", "--live", "SELECT count(*) FROM access"]).start();
    query.wait_for_line("submitted", DEADLINE).await;
    query.interrupt();
    assert_eq!(
        query.wait_exit(DEADLINE).await.code(),
        Some(130),
        "{}",
        query.stderr()
    );
    assert!(query.stderr().contains("is CANCELLED"), "{}", query.stderr());
    assert_eq!(query.stdout(), "");
    dispatcher.terminate();
    assert!(dispatcher.wait_exit(DEADLINE).await.success());
}
