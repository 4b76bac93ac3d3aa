//! What a query would do, told by a whole mill before and after it was asked.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use testkit::{Mill, logs, mill::DEADLINE, wait};

const BY_STATUS: &str = "SELECT status, count(*) AS n FROM access GROUP BY status";

async fn explained(mill: &Mill, sql: &str) -> Value {
    mill.json(&["explain", sql]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_explained_before_and_after_it_was_asked() {
    let mill = Mill::start().await;
    let _ = mill.add("access", &logs::access(600), &[]).await.code(0);
    before(&mill).await;
    after(&mill).await;
    what_is_refused(&mill).await;
    what_reads_nothing(&mill).await;
    mill.stop().await;
}

async fn before(mill: &Mill) {
    let told = explained(mill, BY_STATUS).await;
    let access = &told["datasets"][0];
    let blocks = access["blocks"].as_u64().unwrap();
    assert!(blocks > 5, "{told}");
    assert_eq!(
        (&access["dataset"], &access["columns"], &access["to_read"]),
        (&json!("access"), &json!(["status"]), &json!(blocks))
    );
    assert_eq!((&access["skipped"], &access["recorded"]), (&json!(0), &json!(0)));
    assert_eq!(access["bytes_to_read"], logs::access(600).len());
    assert_eq!(
        (&told["subtasks"], &told["answered"]),
        (&json!(blocks + 1), &Value::Null)
    );
    let lower = &told["lower"][0];
    assert!(
        lower["plan"]
            .as_str()
            .unwrap()
            .starts_with("AggregateExec: mode=Partial"),
        "{told}"
    );
    assert!(
        told["upper"]
            .as_str()
            .unwrap()
            .contains("Partials: of=lower half 0"),
        "{told}"
    );
    assert!(
        mill.json(&["job", "list"]).await.as_array().unwrap().is_empty(),
        "something ran"
    );
}

async fn after(mill: &Mill) {
    mill.told(&["query", BY_STATUS]).await;
    let told = explained(mill, BY_STATUS).await;
    let access = &told["datasets"][0];
    assert_eq!(
        (&access["recorded"], &access["to_read"]),
        (&access["blocks"], &json!(0))
    );
    assert_eq!(told["answered"]["job"], mill.newest().await["id"]);
    let other = explained(mill, &format!("{BY_STATUS} HAVING count(*) > 1")).await;
    assert_eq!(other["answered"], Value::Null);
    assert_eq!(other["datasets"][0]["recorded"], access["blocks"]);
    let moment = explained(mill, "SELECT count(*) FROM access WHERE time < now()").await;
    assert_eq!(moment["repeatable"], false, "{moment}");

    // What was learned of the blocks is written in the background.
    mill.told(&["query", "SELECT min(time) FROM access"]).await;
    let late = "SELECT count(*) FROM access WHERE time >= '2015-05-17T10:09:00Z'";
    let told = wait::until("skipped blocks", DEADLINE, async || {
        let told = explained(mill, late).await;
        (told["datasets"][0]["skipped"].as_u64().unwrap() > 0).then_some(told)
    })
    .await;
    let of = |name: &str| told["datasets"][0][name].as_u64().unwrap();
    assert_eq!(of("skipped") + of("to_read"), of("blocks"), "{told}");
    assert_eq!(told["subtasks"], of("to_read") + 1);

    // For people, and wherever somebody types it.
    let text = mill.told(&["explain", late]).await;
    for part in [
        "TO READ",
        "subtasks, the merge among them",
        "lower half 0, on each block of access:",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(mill.told(&["query", &format!("explain {late}")]).await, text);
    let script = mill.file("script.sql", format!("EXPLAIN {late};").as_bytes());
    let typed = mill
        .recipe(&["query"])
        .input(script)
        .output(DEADLINE)
        .await
        .code(0);
    assert_eq!(typed.stdout, text);
    let answered = mill.told(&["explain", BY_STATUS]).await;
    assert!(answered.contains("its answer is recorded, by job"), "{answered}");
}

async fn what_is_refused(mill: &Mill) {
    let join = "SELECT a.host FROM access a JOIN access b ON a.host = b.host";
    let told = explained(mill, join).await;
    let refused = told["refused"].as_str().unwrap();
    assert!(
        refused.contains("a join of datasets") && refused.contains("--gather"),
        "{refused}"
    );
    assert!(told["upper"].as_str().unwrap().contains("HashJoinExec"), "{told}");
    let text = mill.told(&["explain", join]).await;
    assert!(text.starts_with("refused as it stands: "), "{text}");
    let allowed = mill.json(&["explain", join, "--gather", "77"]).await;
    assert_eq!(
        (&allowed["refused"], &allowed["lower"][0]["most_rows"]),
        (&Value::Null, &json!(77))
    );
    for (args, code, told) in [
        (&["explain", "SELEKT"][..], 2, "SELEKT"),
        (
            &["explain", "SELECT count(*) FROM acces"],
            1,
            "acces; did you mean access? `sawmill",
        ),
        (&["query", "EXPLAIN ANALYZE SELECT 1"], 2, "without ANALYZE"),
        (&["query", "EXPLAIN SELECT 1", "--no-wait"], 2, "no answer"),
        (&["explain", BY_STATUS, "--output", "csv"], 2, "--output"),
    ] {
        let output = mill.command(args).await.code(code);
        assert!(output.stderr.contains(told), "{args:?}: {}", output.stderr);
    }
}

/// Conditions that nothing meets are known before anything runs.
async fn what_reads_nothing(mill: &Mill) {
    for never in ["1 = 0", "status = 200 AND status = 404", "NULL"] {
        let count = format!("SELECT count(*) AS n, max(bytes) AS m FROM access WHERE {never}");
        assert_eq!(mill.rows(&count).await, [json!({ "n": 0, "m": null })], "{never}");
        assert_eq!(mill.newest().await["subtasks"], 1, "{never}");
        let rows = format!("SELECT host, status FROM access WHERE {never}");
        assert!(mill.rows(&rows).await.is_empty(), "{never}");
        let groups = format!("SELECT status, count(*) FROM access WHERE {never} GROUP BY status");
        assert!(mill.rows(&groups).await.is_empty(), "{never}");
    }
    let told = explained(mill, "SELECT host FROM access WHERE 1 = 0").await;
    assert_eq!(told["datasets"][0]["to_read"], 0);
    assert_eq!(told["subtasks"], 1);
}
