//! Datasets as tables: their columns, their first lines, and what later files add to them.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use testkit::{
    Mill, Space,
    process::{Output, Process},
    wait,
};

const SOON: Duration = Duration::from_secs(60);

/// A space without a mill: what is tried here needs no job.
struct Bench {
    space: Space,
    files: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self {
            space: Space::new().await,
            files: tempfile::tempdir().unwrap(),
        }
    }

    async fn command(&self, args: &[&str]) -> Output {
        Process::sawmill(&self.space).args(args).output(SOON).await
    }

    async fn json(&self, args: &[&str]) -> Value {
        let output = self
            .command(&[args, &["--output", "json"]].concat())
            .await
            .code(0);
        serde_json::from_str(&output.stdout).unwrap()
    }

    async fn rows(&self, args: &[&str]) -> Vec<Value> {
        let output = self
            .command(&[args, &["--output", "json"]].concat())
            .await
            .code(0);
        let rows = output
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        rows.collect()
    }

    async fn add(&self, name: &str, text: &str, options: &[&str]) -> Output {
        let path = self.files.path().join(format!("{}.log", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).unwrap();
        let fixed = ["dataset", "add", name, path.to_str().unwrap()];
        self.command(&[&fixed, options].concat()).await
    }

    /// Names and types, without those that every table has.
    async fn columns(&self, name: &str) -> Vec<String> {
        let schema = self.json(&["dataset", "schema", name]).await;
        let columns = schema["columns"].as_array().unwrap();
        let told = columns.iter().map(|column| {
            let (name, kind) = (&column["name"], &column["type"]);
            format!("{} {}", name.as_str().unwrap(), kind.as_str().unwrap())
        });
        told.filter(|column| !column.starts_with('_')).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_has_a_schema_that_later_files_extend() {
    let bench = Bench::new().await;
    let first = bench
        .add(
            "app",
            "{\"a\":1,\"b\":\"x\"}\n{\"a\":2}\n",
            &["--types", "z=float"],
        )
        .await;
    assert!(
        first
            .code(0)
            .stderr
            .contains("are taken as json (2 of 2 sampled lines")
    );
    let before = ["a integer", "b text", "z float"];
    assert_eq!(bench.columns("app").await, before);
    let table = bench.command(&["dataset", "schema", "app"]).await.code(0).stdout;
    for part in [
        "json (2 of 2 sampled lines",
        "\na       integer\n",
        "\n_error  text     why it did not parse",
    ] {
        assert!(table.contains(part), "{part:?} in {table}");
    }

    let later = bench
        .add("app", "{\"a\":\"no\",\"c\":true}\n", &[])
        .await
        .code(0)
        .stderr;
    assert!(later.contains("a new column c boolean"), "{later}");
    assert!(later.contains("column a is text in"), "{later}");
    assert!(
        later.contains("`sawmill dataset set app --types a=text`"),
        "{later}"
    );
    assert_eq!(
        bench.columns("app").await,
        ["a integer", "b text", "z float", "c boolean"]
    );
    let rows = bench.rows(&["dataset", "head", "app"]).await;
    assert_eq!(rows[0]["a"], 1);
    assert_eq!(rows[2]["c"], true);
    assert_eq!(rows[2]["_error"], "a: \"no\" is not a plain integer of 64 bits");
    assert_eq!(rows[2]["_raw"], "{\"a\":\"no\",\"c\":true}");

    let _ = bench
        .command(&["dataset", "set", "app", "--types", "a=text"])
        .await
        .code(0);
    let rows = bench.rows(&["dataset", "head", "app", "-n", "9"]).await;
    let shown = json!({ "a": "no", "b": null, "z": null, "c": true });
    assert_eq!((rows.len(), &rows[2]), (3, &shown));
    let strange = bench.add("app", "no\nJSON\n", &[]).await.code(0).stderr;
    assert!(strange.contains("of the first 2 lines of"), "{strange}");
    assert!(strange.contains("only 0 are json"), "{strange}");
}

#[tokio::test(flavor = "multi_thread")]
async fn separated_values_grow_at_their_end_and_types_can_be_said() {
    let bench = Bench::new().await;
    let _ = bench
        .add("t", "a,b\n1,2\n3,4\n", &["--types", "b=text"])
        .await
        .code(0);
    let _ = bench.add("t", "a,b,c\n5,6,7\n", &[]).await.code(0);
    assert_eq!(bench.columns("t").await, ["a integer", "b text", "c integer"]);
    let csv = bench
        .command(&["dataset", "head", "t", "-n", "3", "--output", "csv"])
        .await
        .code(0);
    assert_eq!(csv.stdout, "a,b,c\n1,2,\n3,4,\n5,6,7\n");

    let refused = bench.add("t", "b,a\n1,2\n", &[]).await.code(2).stderr;
    assert!(
        refused.contains("column 1 is \"b\" here and \"a\" in the dataset"),
        "{refused}"
    );
    let shown = bench.json(&["dataset", "show", "t"]).await;
    assert_eq!(shown["dataset"]["blocks"], 2, "nothing was added");

    for (types, told) in [
        ("a", "is not NAME=TYPE"),
        ("a=number", "one of text, integer, float, boolean, timestamp"),
        ("x=text", "there is no column \"x\": the columns are a, b, c"),
    ] {
        let refused = bench
            .command(&["dataset", "set", "t", "--types", types])
            .await
            .code(2);
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
    }
    let refused = bench.command(&["dataset", "set", "t"]).await.code(2);
    assert!(refused.stderr.contains("nothing to set"), "{}", refused.stderr);
    let refused = bench
        .command(&["dataset", "schema", "t", "--output", "csv"])
        .await
        .code(2);
    assert!(refused.stderr.contains("is for answers"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_lets_old_blocks_leave() {
    let mill = Mill::start().await;
    let hour = Duration::from_secs(3600);
    for (name, age) in [("old", 50 * hour), ("young", Duration::ZERO)] {
        let path = mill.file(name, format!("name={name}\n").as_bytes());
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        let _ = mill.command(&["dataset", "add", "logs", &path]).await.code(0);
    }
    let question = "SELECT name FROM logs ORDER BY name";
    assert_eq!(mill.rows(question).await.len(), 2);
    let refused = mill
        .command(&["dataset", "set", "logs", "--keep", "30 parsecs"])
        .await
        .code(2);
    assert!(refused.stderr.contains("--keep"), "{}", refused.stderr);
    let set = mill
        .told(&["dataset", "set", "logs", "--keep", "2d", "--max-bytes", "1TB"])
        .await;
    assert!(
        set.contains("keeps files that changed within the last 2d, at most 931.3 GiB"),
        "{set}"
    );
    wait::until_equal("the old block to leave", SOON, json!(1), async || {
        mill.json(&["dataset", "show", "logs"]).await["dataset"]["blocks"].clone()
    })
    .await;
    let shown = mill.told(&["dataset", "show", "logs"]).await;
    assert!(shown.contains("1 block, 9 B, the last"), "{shown}");
    assert_eq!(mill.rows(question).await, [json!({ "name": "young" })]);
    let head = mill.told(&["dataset", "head", "logs", "--output", "csv"]).await;
    assert_eq!(head, "name\nyoung\n");
    let _ = mill
        .told(&["dataset", "set", "logs", "--keep", "none", "--max-bytes", "none"])
        .await;
    let shown = mill.told(&["dataset", "show", "logs"]).await;
    assert!(!shown.contains("keeps"), "{shown}");
    mill.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_must_make_sense_of_most_lines() {
    let bench = Bench::new().await;
    let lines = "some words\nJun 14 15:16:01 combo sshd[1]: hi\nmore words\n";
    let refused = bench
        .add("t", lines, &["--format", "syslog"])
        .await
        .code(2)
        .stderr;
    for part in ["only 1 of 3 sampled lines", "\"some words\": ", "--force"] {
        assert!(refused.contains(part), "{part:?} in {refused}");
    }
    let _ = bench.command(&["dataset", "show", "t"]).await.code(1);
    let _ = bench
        .add("t", lines, &["--format", "syslog", "--force"])
        .await
        .code(0);
    assert_eq!(bench.rows(&["dataset", "head", "t"]).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_lines_decide_nothing_for_good() {
    let bench = Bench::new().await;
    let first = bench.add("t", "a,b\n", &[]).await.code(0).stderr;
    assert!(first.contains("are taken as text"), "{first}");
    let later = bench.add("t", "a,b\n1,x\n2,y\n", &[]).await.code(0).stderr;
    assert!(later.contains("are taken as csv"), "{later}");
    assert_eq!(bench.columns("t").await, ["a integer", "b text"]);
    let rows = bench.rows(&["dataset", "head", "t"]).await;
    assert_eq!(rows, [json!({ "a": 1, "b": "x" }), json!({ "a": 2, "b": "y" })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stack_traces_can_be_a_part_of_their_record() {
    let bench = Bench::new().await;
    let log = "2024-03-12 10:00:07 ERROR no\n    at a.B\n2024-03-12 10:00:08 INFO yes\n".repeat(3);
    let told = bench.add("lines", &log, &[]).await.code(0).stderr;
    assert!(told.contains("3 of 9 sampled lines are indented"), "{told}");
    let _ = bench
        .add("records", &log, &["--format", "text:joined"])
        .await
        .code(0);
    assert_eq!(bench.rows(&["dataset", "head", "lines"]).await.len(), 9);
    let rows = bench.rows(&["dataset", "head", "records"]).await;
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[0]["message"], "no\n    at a.B");
    assert_eq!(
        (&rows[0]["level"], &rows[1]["level"]),
        (&json!("ERROR"), &json!("INFO"))
    );
}
