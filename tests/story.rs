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
        ("unfinished", unfinished.as_bytes(), &unfinished),
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
        assert_eq!(
            counted.trim(),
            expected.matches('\n').count().to_string(),
            "{name}"
        );
    }
    let all = ["plain", "unfinished", "gzip"].map(|name| mill.files.path().join(name).display().to_string());
    mill.told(&["dataset", "add", "all", &all[0], &all[1], &all[2]])
        .await;
    let result = mill.told(&["run", "--dataset", "all", "--map", "cat"]).await;
    assert!(
        result == [lines.as_str(), &unfinished, &lines].concat(),
        "files keep their order"
    );
    mill.until_empty().await;
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
