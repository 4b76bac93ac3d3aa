//! Views through a whole mill: kept current block by block, through deaths, losses and failures, always as a plain query has it.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use serde_json::{Value, json};
use testkit::{
    Space,
    mill::{self, DEADLINE},
    process::{Output, Process},
    wait,
};

const BY_STATUS: &str = "SELECT status, count(*) AS n, sum(bytes) AS sent, count(DISTINCT host) AS hosts FROM access \
     GROUP BY status ORDER BY status";

/// Lines of which every third is an error.
fn access_log(lines: u32) -> String {
    let mut log = String::new();
    for number in 0..lines {
        let status = if number % 3 == 0 { 500 } else { 200 };
        let second = number % 60;
        writeln!(
            log,
            "10.0.{lines}.{} - - [17/May/2015:10:05:{second:02} +0000] \"GET /{} HTTP/1.1\" {status} {number}",
            number % 7,
            number % 5
        )
        .unwrap();
    }
    log
}

/// Roles as processes of their own.
struct Roles {
    space: Space,
    files: tempfile::TempDir,
}

impl Roles {
    async fn start(&self, role: &[&str]) -> Process {
        let mut process = mill::settled(Process::sawmill(&self.space), self.files.path())
            .args(role)
            .start();
        process
            .wait_for_line(&format!("{} started", role[0]), DEADLINE)
            .await;
        process
    }

    async fn command(&self, args: &[&str]) -> Output {
        let recipe = mill::settled(Process::sawmill(&self.space), self.files.path());
        recipe.args(args).output(DEADLINE).await
    }

    async fn json(&self, args: &[&str]) -> Value {
        let output = self.command(&[args, &["--output", "json"]].concat()).await;
        let text = output.code(0).stdout;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    async fn view(&self, name: &str) -> Value {
        self.json(&["view", "show", name]).await["view"].clone()
    }

    /// Adds a file to the dataset, cut into small blocks.
    async fn add(&self, file: &str, text: &str) -> String {
        let path = self.files.path().join(file);
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        let added = ["dataset", "add", "access", &path, "--block-size", "4KiB"];
        let _ = self.command(&added).await.code(0);
        path
    }

    /// Waits until a view has all blocks in that it can have.
    async fn until_current(&self, name: &str) -> Value {
        wait::until_ok(format!("view {name} to be current"), DEADLINE, async || {
            let view = self.view(name).await;
            let current =
                view["lag_blocks"] == 0 && view["under_way"].is_null() && !view["merged_by"].is_null();
            if current { Ok(view) } else { Err(view.to_string()) }
        })
        .await
    }

    /// The answer of the view is that of its query, wherever it is read.
    async fn agrees(&self, name: &str, sql: &str) {
        let plain = self
            .command(&["query", sql, "--no-reuse", "--output", "json"])
            .await
            .code(0)
            .stdout;
        let view = self
            .command(&["view", "output", name, "--output", "json"])
            .await
            .code(0)
            .stdout;
        assert_eq!(view, plain);
        let all = self.space.mongo().await.collection::<Value>(name);
        let mut found = all.find(Default::default()).await.unwrap();
        let mut rows: Vec<Value> = Vec::new();
        while found.advance().await.unwrap() {
            rows.push(found.deserialize_current().unwrap());
        }
        rows.sort_by_key(|row| row["_id"].as_i64());
        for row in &mut rows {
            row.as_object_mut().unwrap().remove("_id");
        }
        let plain: Vec<Value> = plain
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(rows, plain);
    }

    /// How many blocks the refresh that gave the current state ran over.
    async fn computed(&self, view: &Value) -> u64 {
        let job = self
            .json(&["job", "show", view["merged_by"].as_str().unwrap()])
            .await;
        job["job"]["subtasks"].as_u64().unwrap() - 1
    }

    async fn blocks(&self) -> u64 {
        self.json(&["dataset", "show", "access"]).await["dataset"]["blocks"]
            .as_u64()
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_kept_current_whatever_happens() {
    let roles = Roles {
        space: Space::new().await,
        files: tempfile::tempdir().unwrap(),
    };
    let mut leader = roles.start(&["dispatcher"]).await;
    let _watcher = roles.start(&["watcher"]).await;
    let compute = roles.start(&["compute", "--name", "one", "--slots", "2"]).await;
    roles.add("first.log", &access_log(300)).await;
    what_cannot_be_kept_current_is_refused(&roles).await;

    let made = ["view", "create", "by_status", BY_STATUS, "--every", "100ms"];
    let told = roles.command(&made).await.code(0).stdout;
    assert!(told.contains("in the collection by_status"), "{told}");
    let view = roles.until_current("by_status").await;
    let first = roles.blocks().await;
    assert!(first > 3, "{view}");
    assert_eq!(
        view["datasets"][0]["covered"],
        json!([{ "start": 0, "end": first }])
    );
    roles.agrees("by_status", BY_STATUS).await;

    // Only new blocks are computed, also when nothing is kept but what the view needs.
    let _ = roles
        .command(&["job", "prune", "--older-than", "0ms"])
        .await
        .code(0);
    roles.add("second.log", &access_log(150)).await;
    let view = roles.until_current("by_status").await;
    let second = roles.blocks().await;
    assert_eq!(roles.computed(&view).await, second - first);
    roles.agrees("by_status", BY_STATUS).await;

    // Paused, it stays as it is.
    let _ = roles.command(&["view", "pause", "by_status"]).await.code(0);
    roles.add("third.log", &access_log(90)).await;
    let paused = roles.view("by_status").await;
    assert_eq!(paused["state"], "paused");
    assert_eq!(paused["lag_blocks"], roles.blocks().await - second);
    let _compute = the_leader_dies(&roles, &mut leader, compute).await;
    roles.agrees("by_status", BY_STATUS).await;

    a_block_fails(&roles).await;
    blocks_leave(&roles).await;

    let _ = roles.command(&["view", "remove", "by_status"]).await.code(0);
    assert_eq!(roles.json(&["view", "list"]).await, json!([]));
    let left = roles.space.mongo().await.list_collection_names().await.unwrap();
    assert!(!left.contains(&"by_status".to_string()), "{left:?}");
    let gone = roles.command(&["view", "show", "by_status"]).await.code(1);
    assert!(gone.stderr.contains("no such view"), "{}", gone.stderr);
}

async fn what_cannot_be_kept_current_is_refused(roles: &Roles) {
    let syslog = roles.files.path().join("syslog");
    std::fs::write(&syslog, "Oct 11 22:14:15 web1 sshd[7]: hello\n".repeat(3)).unwrap();
    let _ = roles
        .command(&["dataset", "add", "sys", syslog.to_str().unwrap()])
        .await
        .code(0);
    let _ = roles
        .command(&["query", "SELECT count(*) FROM sys", "--into", "mine"])
        .await
        .code(0);
    let recent = "SELECT count(*) FROM access WHERE time > now() - INTERVAL '1 hour'";
    for (name, sql, code, told) in [
        ("v", recent, 2, "date_bin"),
        (
            "v",
            "SELECT * FROM access ORDER BY random() LIMIT 3",
            2,
            "random()",
        ),
        ("v", "SELECT max(time) FROM sys", 2, "have no year"),
        ("v", "SELECT nothing FROM access", 2, "no column named nothing"),
        (
            "v",
            "SELECT a.host FROM access a JOIN access b ON a.host = b.host",
            2,
            "--gather",
        ),
        ("v", "SELECT 1 FROM elsewhere", 1, "no such dataset"),
        ("jobs", "SELECT count(*) FROM access", 2, "Sawmill itself uses it"),
        (
            "mine",
            "SELECT count(*) FROM access",
            1,
            "a collection mine exists already",
        ),
    ] {
        let refused = roles.command(&["view", "create", name, sql]).await.code(code);
        assert!(refused.stderr.contains(told), "{sql}: {}", refused.stderr);
    }
    names_that_are_taken_are_told(roles).await;
}

async fn names_that_are_taken_are_told(roles: &Roles) {
    let _ = roles
        .command(&[
            "view",
            "create",
            "apps",
            "SELECT count(*) AS n, max(app) AS app FROM sys",
        ])
        .await
        .code(0);
    roles.until_current("apps").await;
    roles
        .agrees("apps", "SELECT count(*) AS n, max(app) AS app FROM sys")
        .await;
    let taken = roles
        .command(&["view", "create", "apps", "SELECT count(*) FROM sys"])
        .await
        .code(1);
    assert!(
        taken.stderr.contains("a view apps exists already"),
        "{}",
        taken.stderr
    );
    let taken = roles
        .command(&["query", "SELECT count(*) FROM sys", "--into", "apps"])
        .await
        .code(2);
    assert!(
        taken.stderr.contains("answer of the view apps"),
        "{}",
        taken.stderr
    );
    let _ = roles.command(&["view", "remove", "apps"]).await.code(0);
}

/// SIGKILL between the submission of a refresh and its end.
async fn the_leader_dies(roles: &Roles, leader: &mut Process, mut compute: Process) -> Process {
    // Nobody computes, so that it lasts.
    compute.terminate();
    assert!(compute.wait_exit(DEADLINE).await.success());
    let standby = roles.start(&["dispatcher"]).await;
    let _ = roles.command(&["view", "resume", "by_status"]).await.code(0);
    let job = wait::until("a refresh under way", DEADLINE, async || {
        let view = roles.view("by_status").await;
        view["under_way"].as_str().map(|job| json!(job))
    })
    .await;
    leader.kill9();
    *leader = standby;
    let compute = roles.start(&["compute", "--name", "two", "--slots", "2"]).await;
    let view = roles.until_current("by_status").await;
    assert_eq!(view["merged_by"], job, "the same refresh ended, and no other");
    compute
}

/// A file that vanishes is left out and named; the others go in; it is tried again when it is back.
async fn a_block_fails(roles: &Roles) {
    let _ = roles.command(&["view", "pause", "by_status"]).await.code(0);
    let path = roles.add("vanishing.log", &access_log(20)).await;
    let good = roles.blocks().await;
    roles.add("fourth.log", &access_log(30)).await;
    std::fs::rename(&path, format!("{path}.away")).unwrap();
    let _ = roles.command(&["view", "resume", "by_status"]).await.code(0);
    let view = roles.until_current("by_status").await;
    let left_out = view["left_out"].as_array().unwrap();
    assert_eq!(left_out.len(), 1, "{view}");
    assert_eq!(
        (&left_out[0]["dataset"], &left_out[0]["block"]),
        (&json!("access"), &json!(good - 1))
    );
    let why = left_out[0]["why"].as_str().unwrap();
    assert!(why.contains("vanishing.log"), "{why}");
    let shown = roles.command(&["view", "show", "by_status"]).await.code(0).stdout;
    assert!(shown.contains(&format!("access block {}: ", good - 1)), "{shown}");

    std::fs::rename(format!("{path}.away"), &path).unwrap();
    let _ = roles.command(&["view", "resume", "by_status"]).await.code(0);
    let view = roles.until_current("by_status").await;
    assert_eq!((&view["left_out"], roles.computed(&view).await), (&json!([]), 1));
    roles.agrees("by_status", BY_STATUS).await;
}

/// The view is made anew, over what is there.
async fn blocks_leave(roles: &Roles) {
    let before = roles.blocks().await;
    let _ = roles
        .command(&["dataset", "set", "access", "--max-bytes", "20KiB"])
        .await
        .code(0);
    wait::until("blocks to leave", DEADLINE, async || {
        (roles.blocks().await < before).then_some(())
    })
    .await;
    let view = roles.until_current("by_status").await;
    let job = roles
        .json(&["job", "show", view["merged_by"].as_str().unwrap()])
        .await;
    assert_eq!(roles.computed(&view).await, roles.blocks().await);
    assert!(
        job["job"]["counts"]["already"].as_u64().unwrap() > 0,
        "from what is recorded: {job}"
    );
    roles.agrees("by_status", BY_STATUS).await;
}
