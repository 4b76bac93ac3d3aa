//! From log files to recorded results, through real processes, ZooKeeper and MongoDB.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::Value;
use testkit::{
    Mill,
    mill::{DEADLINE, settled},
    process::{self, Process, Recipe},
};

/// How often each word of this number (from 0) occurs.
fn count_words(text: &str, place: usize) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for word in text.lines().filter_map(|line| line.split_whitespace().nth(place)) {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn status_codes_of_an_access_log_are_counted_and_recorded() {
    let mill = Mill::start().await;
    let log = mill.told(&["bench", "log", "--lines", "20000"]).await;
    assert_eq!(log.lines().count(), 20_000);
    let file = mill.file("access.log", log.as_bytes());
    mill.told(&["dataset", "add", "access", "--block-size", "256KiB", &file])
        .await;
    let blocks = log.len().div_ceil(256 * 1024) as u64;
    let result = mill
        .told(&[
            "run",
            "--dataset",
            "access",
            "--map",
            "awk '{print $9}' | sort | uniq -c",
            "--reduce",
            "awk '{n[$2] += $1} END {for (code in n) print code, n[code]}' | sort",
        ])
        .await;
    let expected: String = count_words(&log, 8)
        .iter()
        .map(|(code, n)| format!("{code} {n}\n"))
        .collect();
    assert_eq!(result, expected);

    mill.until_empty().await;
    let job = mill.json(&["job", "show", "last"]).await;
    assert_eq!(job["job"]["state"], "SUCCESSFUL", "{job}");
    assert_eq!(mill.told(&["job", "output", "last"]).await, expected);
    let db = mill.space.mongo().await;
    let recorded = db
        .collection::<Value>("results")
        .count_documents(Default::default())
        .await
        .unwrap();
    assert!(
        (blocks..=blocks + 2).contains(&recorded.saturating_sub(1)),
        "{recorded} results of {blocks} blocks and a merge"
    );
    mill.told(&["doctor", "--audit"]).await;
    mill.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_reduce_the_result_is_every_byte_in_order_whatever_the_input() {
    let mill = Mill::start().await;
    let lines: String = (0..5000)
        .map(|number| format!("line {number} of a log\n"))
        .collect();
    let crlf = lines.replace('\n', "\r\n");
    let unfinished = lines.trim_end().to_owned();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(lines.as_bytes(), 1).unwrap();
    let cases: [(&str, &[u8], &str); 6] = [
        ("plain", lines.as_bytes(), &lines),
        ("crlf", crlf.as_bytes(), &crlf),
        // What a map prints ends with a line feed, so that the next partial result begins a line.
        ("unfinished", unfinished.as_bytes(), &lines),
        ("gzip", &gzip, &lines),
        ("zstd", &zstd, &lines),
        ("empty", b"", ""),
    ];
    for (name, bytes, expected) in cases {
        let file = mill.file(name, bytes);
        mill.told(&["dataset", "add", name, "--block-size", "4KiB", &file])
            .await;
        let result = mill.told(&["run", "--dataset", name, "--map", "cat"]).await;
        assert!(
            result == expected,
            "{name}: {} bytes instead of {}",
            result.len(),
            expected.len()
        );
        let counted = mill
            .told(&["run", "--dataset", name, "--map", "wc -l", "--reduce", SUM])
            .await;
        let open = usize::from(name == "unfinished");
        assert_eq!(
            counted.trim(),
            (expected.matches('\n').count() - open).to_string(),
            "{name}"
        );
    }
    let all = ["plain", "unfinished", "gzip"].map(|name| mill.files.path().join(name).display().to_string());
    mill.told(&["dataset", "add", "all", &all[0], &all[1], &all[2]])
        .await;
    let result = mill.told(&["run", "--dataset", "all", "--map", "cat"]).await;
    assert!(
        result == [lines.as_str(), &lines, &lines].concat(),
        "files keep their order"
    );
    mill.until_empty().await;
    mill.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_results_without_a_line_feed_stay_apart() {
    let mill = Mill::start().await;
    let (first, second) = (mill.file("1.log", b"a\nb"), mill.file("2.log", b"c\nd"));
    mill.told(&["dataset", "add", "log", &first, &second]).await;
    let run = ["run", "--dataset", "log", "--map", "sed s/b/B/"];
    assert_eq!(mill.told(&run).await, "a\nB\nc\nd\n");
    assert_eq!(mill.told(&["job", "output", "last"]).await, "a\nB\nc\nd\n");
    let by_gateway = mill
        .recipe_by_gateway(&["job", "output", "last"])
        .output(DEADLINE);
    assert_eq!(by_gateway.await.code(0).stdout, "a\nB\nc\nd\n");
    let counted = mill
        .told(&[&run[..], &["--reduce", "sort | uniq -c | awk '{print $1, $2}'"]].concat())
        .await;
    assert_eq!(counted, "1 B\n1 a\n1 c\n1 d\n");
    // What the last command prints is the result as it is.
    let last = mill.told(&[&run[..], &["--reduce", "printf end"]].concat()).await;
    assert_eq!(last, "end");
    mill.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_fails_with_any_part_and_codes_may_count_as_success() {
    let mill = Mill::start().await;
    let (first, second) = (mill.file("1.log", b"a\nb\n"), mill.file("2.log", b"c\nd\n"));
    mill.told(&["dataset", "add", "log", &first, &second]).await;
    let run = ["run", "--dataset", "log", "--retries", "0", "--reuse", "--map"];
    let failed = mill
        .command(&[&run[..], &["grep a | wc -l"]].concat())
        .await
        .code(1);
    assert!(failed.stderr.contains("use --ok-exit 0,1"), "{}", failed.stderr);
    let wanted: [(&[&str], &str); 3] = [
        (&["grep a", "--ok-exit", "0,1"], "a\n"),
        (&["grep a | wc -l", "--ok-exit", "1"], "1\n0\n"),
        (&["grep a | wc -l", "--no-pipefail"], "1\n0\n"),
    ];
    for (options, result) in wanted {
        assert_eq!(
            mill.told(&[&run[..], options].concat()).await,
            result,
            "{options:?}"
        );
    }
    let shown = mill.told(&["job", "show", "last"]).await;
    assert!(shown.contains("--no-pipefail"), "{shown}");
    let reduced = ["cat", "--reduce", "false | cat"];
    let failed = mill.command(&[&run[..], &reduced].concat()).await.code(1);
    assert!(
        failed.stderr.contains("reduce command exited with code 1"),
        "{}",
        failed.stderr
    );
    mill.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_successful_command_says_is_shown_and_its_environment_is_chosen() {
    let mill = Mill::start().await;
    let (first, second) = (mill.file("1.log", b"a\n"), mill.file("2.log", b"b\n"));
    mill.told(&["dataset", "add", "log", &first, &second]).await;
    let run = [
        "run",
        "--dataset",
        "log",
        "--env",
        "WHO=me",
        "--env",
        "TAKEN",
        "--map",
    ];
    let map =
        "echo same words >&2; echo block $SAWMILL_BLOCK >&2; echo $WHO $TAKEN $SAWMILL_MONGODB $NEXTEST";
    let reduce = ["--reduce", "cat; echo the end >&2"];
    let recipe = mill.recipe(&[&run[..], &[map], &reduce].concat());
    let output = recipe.env("TAKEN", "from here").output(DEADLINE).await.code(0);
    assert_eq!(output.stdout, "me from here\nme from here\n");
    let said: Vec<&str> = output
        .stderr
        .lines()
        .skip_while(|line| !line.starts_with("standard error"))
        .collect();
    let expected = [
        "standard error of the commands:",
        "  same words",
        "  block 0",
        "  block 1",
        "  the end",
    ];
    assert_eq!(said, expected);
    let shown = mill.json(&["job", "show", "last"]).await;
    let tails = serde_json::json!([
        { "subtask": 0, "stderr_tail": "same words\nblock 0" },
        { "subtask": 1, "stderr_tail": "same words\nblock 1" },
        { "subtask": 2, "stderr_tail": "the end" },
    ]);
    assert_eq!(shown["stderr"], tails);
    let remote = mill.recipe_by_gateway(&["job", "show", "last", "--output", "json"]);
    let remote = remote.output(DEADLINE).await.code(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&remote).unwrap()["stderr"], tails);
    let table = mill.told(&["job", "show", "last"]).await;
    assert!(
        table.contains("--env TAKEN --env WHO") && !table.contains("from here"),
        "{table}"
    );
    mill.stop().await;
}

/// Adds up what it reads.
const SUM: &str = "awk '{n += $1} END {print n + 0}'";

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_command_ends_the_job_and_its_last_words_are_shown() {
    let mill = Mill::start().await;
    let file = mill.file("log", b"one\ntwo\n");
    mill.told(&["dataset", "add", "log", &file]).await;
    let run = [
        "run",
        "--dataset",
        "log",
        "--retries",
        "0",
        "--map",
        "echo the disk is full >&2; exit 3",
    ];
    let failed = mill.command(&run).await.code(1);
    assert_eq!(failed.stdout, "");
    for told in ["the disk is full", "3"] {
        assert!(
            failed.stderr.contains(told),
            "{told:?} is not in {}",
            failed.stderr
        );
    }
    let job = mill.json(&["job", "show", "last"]).await;
    assert_eq!(job["job"]["state"], "FAILED", "{job}");
    mill.told(&["doctor", "--audit"]).await;
    mill.stop().await;
}

/// A mill that starts servers of its own, on ports where nobody listens.
fn own_mill(data: &Path, ports: [u16; 2]) -> Recipe {
    settled(Process::binary("sawmill"), data)
        .env("SAWMILL_ZOOKEEPER", format!("127.0.0.1:{}", ports[0]))
        .env(
            "SAWMILL_MONGODB",
            format!("mongodb://127.0.0.1:{}/mill?directConnection=true", ports[1]),
        )
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_keeps_its_data_and_leaves_no_process_behind_however_it_ends() {
    let files = tempfile::tempdir().unwrap();
    let data: PathBuf = files.path().join("data");
    let ports = [servers::free_port().unwrap(), servers::free_port().unwrap()];
    let log = files.path().join("log");
    fs::write(&log, "a\nb\nc\n").unwrap();
    let dev = || {
        own_mill(files.path(), ports)
            .args(["dev", "--data-dir"])
            .arg(&data)
    };

    let mut first = dev().start();
    first.wait_for_line("ready", DEADLINE).await;
    let add = own_mill(files.path(), ports)
        .args(["dataset", "add", "log"])
        .arg(&log);
    let _ = add.output(DEADLINE).await.code(0);
    let started = process::descendants(first.pid());
    assert!(
        started.len() >= 2,
        "ZooKeeper and MongoDB are children: {started:?}"
    );
    first.kill9();
    process::gone(&started, DEADLINE).await;

    let mut second = dev().start();
    second.wait_for_line("ready", DEADLINE).await;
    let run = own_mill(files.path(), ports).args(["run", "--dataset", "log", "--map", "wc -l"]);
    assert_eq!(run.output(DEADLINE).await.code(0).stdout.trim(), "3");
    let started = process::descendants(second.pid());
    second.interrupt();
    assert!(second.wait_exit(DEADLINE).await.success(), "{}", second.stderr());
    process::gone(&started, DEADLINE).await;
}
