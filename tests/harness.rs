//! The harness: every query is answered once, whoever runs the roles.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use testkit::{
    Space,
    process::{Output, Process, Recipe},
    wait,
};

/// Nothing here takes long; a busy machine may.
const DEADLINE: Duration = Duration::from_secs(60);

fn client(space: &Space, dir: &Path) -> Recipe {
    Process::client(space)
        .env("SAWMILL_STORE", format!("file://{}", dir.join("store").display()))
        .directory(dir)
}

/// The counts that it printed, by their words.
fn counts(output: &Output) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (words, number) = line.rsplit_once(' ')?;
        Some((words.to_owned(), number.parse().ok()?))
    };
    output.stdout.lines().filter_map(pair).collect()
}

#[track_caller]
fn assert_adds_up(output: &Output, queries: u64) -> [u64; 3] {
    let counts = counts(output);
    let [data, already, executed] = ["return data", "return already", "return executed"]
        .map(|word| counts.get(word).copied().unwrap_or(u64::MAX));
    assert_eq!(counts.get("sum"), Some(&queries), "{}", output.stdout);
    assert_eq!(data + already + executed, queries, "{}", output.stdout);
    assert!(output.stdout.contains("time used "), "{}", output.stdout);
    [data, already, executed]
}

#[tokio::test(flavor = "multi_thread")]
async fn all_roles_in_one_process_answer_every_query_once() {
    let space = Space::new().await;
    let dir = tempfile::tempdir().unwrap();
    let all = [
        "--create",
        "--flush",
        "--dispatcher",
        "--slave",
        "--watcher",
        "--queries",
        "500",
        "--datasets",
        "7",
    ];
    let output = client(&space, dir.path())
        .args(all)
        .output(DEADLINE)
        .await
        .code(0);
    let [data, ..] = assert_adds_up(&output, 500);
    assert_eq!(data, 7, "each of the seven runs once: {}", output.stdout);
    let log = fs::read_to_string(dir.path().join("running.log")).unwrap();
    for step in [
        "the three roots were recreated",
        "the collections were emptied",
        "all queries were answered",
    ] {
        assert!(log.contains(step), "{step:?} is not in running.log:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_form_does_the_same_and_recorded_results_answer_again() {
    let space = Space::new().await;
    let dir = tempfile::tempdir().unwrap();
    let run = |switches: &'static str| {
        let recipe = client(&space, dir.path())
            .args(["--queries", "200"])
            .args(switches.split(' '));
        recipe.output(DEADLINE)
    };
    let first = run("1 1 1 1 1").await.code(0);
    assert_eq!(assert_adds_up(&first, 200)[0], 5, "{}", first.stdout);
    let second = run("1 0 1 1 1").await.code(0);
    assert_eq!(assert_adds_up(&second, 200), [0, 200, 0]);
    let flushed = run("1 1 1 1 1").await.code(0);
    assert_eq!(assert_adds_up(&flushed, 200)[0], 5, "{}", flushed.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_of_other_processes_answer_and_stop_in_order() {
    let space = Space::new().await;
    let dirs = [
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    ];
    let mut slave = client(&space, dirs[0].path()).arg("--slave").start();
    let mut watcher = client(&space, dirs[1].path()).arg("--watcher").start();
    let ask = client(&space, dirs[2].path()).args(["--dispatcher", "--queries", "100"]);
    let output = ask.output(DEADLINE).await.code(0);
    assert_adds_up(&output, 100);
    for process in [&mut slave, &mut watcher] {
        process.terminate();
        assert!(
            process.wait_exit(DEADLINE).await.success(),
            "{}",
            process.stderr()
        );
    }
    let tree = space.tree().await;
    assert!(
        !tree.keys().any(|path| path.contains("/worker-")),
        "a stopped worker leaves nothing: {tree:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn create_and_flush_are_refused_while_roles_are_connected() {
    let space = Space::new().await;
    let dir = tempfile::tempdir().unwrap();
    let sawmill = || {
        let store = format!("file://{}", dir.path().join("store").display());
        Process::sawmill(&space)
            .env("SAWMILL_STORE", store)
            .env("SAWMILL_SCRATCH", dir.path().join("scratch"))
            .env("SAWMILL_STOP_GRACE", "1s")
    };
    let mut mill = sawmill()
        .args(["dev", "--slots", "1", "--data-dir"])
        .arg(dir.path().join("data"))
        .start();
    mill.wait_for_line("ready", DEADLINE).await;
    let sessions = async || {
        let tree = space.tree().await;
        let of_roles = |path: &String| path.contains("/candidate-") || path.ends_with("/alive");
        tree.into_keys().filter(of_roles).collect::<Vec<_>>()
    };
    wait::until_true("the three roles to be connected", DEADLINE, async || {
        sessions().await.len() == 3
    })
    .await;
    let before = sessions().await;
    let refused = async |flags: &[&str]| {
        let output = client(&space, dir.path())
            .args(flags)
            .output(DEADLINE)
            .await
            .code(1);
        assert_eq!(sessions().await, before, "{flags:?} has thrown somebody out");
        output.stderr
    };
    // It owns nothing, and nobody else's data is there.
    for flags in [
        &["--create"][..],
        &["--create", "--flush"],
        &["--flush"],
        &["1", "1", "1", "1", "1"],
    ] {
        let told = refused(flags).await;
        assert!(
            told.contains("--force") && told.contains("/owned/dispatcher/"),
            "{told}"
        );
    }
    let log = dir.path().join("log");
    fs::write(&log, "a\n").unwrap();
    let _ = sawmill()
        .args(["dataset", "add", "log"])
        .arg(&log)
        .output(DEADLINE)
        .await
        .code(0);
    for flags in [&["--flush"][..], &["--create", "--flush"]] {
        let told = refused(flags).await;
        assert!(told.contains("dataset log"), "{told}");
    }
    mill.terminate();
    assert!(mill.wait_exit(DEADLINE).await.success(), "{}", mill.stderr());
}

#[tokio::test]
async fn a_refused_flush_leaves_the_roots_as_they_were() {
    let space = Space::new().await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("log"), "a\n").unwrap();
    let add = Process::sawmill(&space)
        .env(
            "SAWMILL_STORE",
            format!("file://{}", dir.path().join("store").display()),
        )
        .args(["dataset", "add", "log", "log"])
        .directory(dir.path());
    let _ = add.output(DEADLINE).await.code(0);
    let _ = client(&space, dir.path())
        .arg("--create")
        .output(DEADLINE)
        .await
        .code(0);
    space.put("/unowned/mark", "").await;
    let both = client(&space, dir.path()).args(["--create", "--flush"]);
    let refused = both.output(DEADLINE).await.code(1);
    assert!(refused.stderr.contains("dataset log"), "{}", refused.stderr);
    assert!(space.tree().await.contains_key("/unowned/mark"));
    let forced = client(&space, dir.path()).args(["--create", "--flush", "--force"]);
    let _ = forced.output(DEADLINE).await.code(0);
    assert_eq!(space.tree().await.len(), 5);
}

#[tokio::test]
async fn mistakes_on_the_command_line_are_told() {
    for (args, code) in [
        (vec![], 2),
        (vec!["1", "1"], 2),
        (vec!["--queries", "0", "--slave"], 2),
        (vec!["--help"], 0),
    ] {
        let _ = Process::binary("client")
            .args(args)
            .output(DEADLINE)
            .await
            .code(code);
    }
}
