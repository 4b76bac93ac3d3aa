//! The command line by its real binary: what it prints, what it refuses, how it exits.
#![allow(clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::{
    Space,
    process::{Output, Process},
    proxy::Proxy,
};

/// Everything here ends by itself well before this.
const SOON: Duration = Duration::from_secs(30);

/// Runs `sawmill` with these arguments; anything that needs a store fails, since none is where it looks.
async fn alone(args: &[&str]) -> Output {
    Process::binary("sawmill")
        .env("SAWMILL_ZOOKEEPER", "127.0.0.1:1")
        .env("SAWMILL_MONGODB", "mongodb://127.0.0.1:1/x")
        .env("SAWMILL_CONNECT_TIMEOUT", "500ms")
        .args(args)
        .output(SOON)
        .await
}

/// Runs `sawmill` on a space.
async fn on(space: &Space, args: &[&str]) -> Output {
    Process::sawmill(space).args(args).output(SOON).await
}

/// The output of `sawmill --output json` on a space.
async fn json(space: &Space, args: &[&str]) -> Value {
    let output = Process::sawmill(space)
        .args(["--output", "json"])
        .args(args)
        .output(SOON)
        .await
        .code(0);
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[track_caller]
fn assert_says(output: &Output, parts: &[&str]) {
    for part in parts {
        assert!(output.stderr.contains(part), "no {part:?} in:\n{}", output.stderr);
    }
    assert!(output.stderr.contains("error: "), "{}", output.stderr);
}

#[tokio::test]
async fn mistakes_on_the_command_line_exit_2_and_say_the_rule() {
    let run = ["run", "--dataset", "d", "--map", "cat"];
    let cases: [(&[&str], &[&str]); 17] = [
        (&["--nonsense"], &["--nonsense"]),
        (&["jobs"], &["unrecognized subcommand", "job"]),
        (
            &["dataset", "add", "a/b", "/dev/null"],
            &["a name has 1 to 64 characters"],
        ),
        (&["dataset", "add", "d"], &["<FILE>"]),
        (
            &["dataset", "add", "d", "--block-size", "much", "x"],
            &["no number of bytes"],
        ),
        (&[&run[..], &["--priority", "1000"]].concat(), &["0 to 999"]),
        (&[&run[..], &["--priority", "-1"]].concat(), &["--priority"]),
        (&[&run[..], &["--timeout", "5"]].concat(), &["unit"]),
        (
            &["run", "--dataset", "d", "--map", " "],
            &["the map command is empty"],
        ),
        (
            &["--zookeeper", "host:2181/a//b", "status"],
            &["bad zookeeper (from --zookeeper)", "bad chroot"],
        ),
        (&["--zookeeper", "host:x", "status"], &["no port"]),
        (
            &["--mongodb", "localhost:27017", "status"],
            &["bad mongodb (from --mongodb)", "mongodb://"],
        ),
        (&["--store", "/tmp/x", "status"], &["file:///tmp/x"]),
        (&["job", "list", "--state", "DONE"], &["SUCCESSFUL"]),
        (&[&run[..], &["--ok-exit", "0,256"]].concat(), &["256", "0..=255"]),
        (
            &[&run[..], &["--env", "NO_SUCH_VARIABLE_HERE"]].concat(),
            &["NO_SUCH_VARIABLE_HERE of this environment"],
        ),
        (
            &[&run[..], &["--env", "SAWMILL_JOB=x"]].concat(),
            &["\"SAWMILL_JOB\" can't be set"],
        ),
    ];
    for (args, parts) in cases {
        let output = alone(args).await.code(2);
        assert_says(&output, parts);
        assert_eq!(output.stdout, "", "{args:?}");
    }
}

#[tokio::test]
async fn what_does_not_answer_is_named_and_not_waited_for() {
    let output = alone(&["status"]).await.code(1);
    assert_says(&output, &["127.0.0.1:1", "MongoDB"]);
    let space = Space::new().await;
    let output = Process::binary("sawmill")
        .args([
            "--zookeeper",
            "127.0.0.1:1",
            "--mongodb",
            &space.mongodb(),
            "status",
        ])
        .env("SAWMILL_CONNECT_TIMEOUT", "500ms")
        .output(SOON)
        .await
        .code(1);
    assert_says(&output, &["127.0.0.1:1", "ZooKeeper"]);
    let output = alone(&["doctor"]).await.code(1);
    assert!(output.stdout.contains("FAILED   zookeeper"), "{}", output.stdout);
    assert!(output.stdout.contains("FAILED   mongodb"), "{}", output.stdout);
    assert!(
        output.stdout.contains("-> start MongoDB there"),
        "{}",
        output.stdout
    );
}

#[tokio::test]
async fn ports_are_bound_before_a_role_waits_for_anything() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for role in ["dispatcher", "compute"] {
        let output = Process::binary("sawmill")
            .env("SAWMILL_ZOOKEEPER", "127.0.0.1:1")
            .env("SAWMILL_MONGODB", "mongodb://127.0.0.1:1/x")
            .env("SAWMILL_LISTEN", &address)
            .env("SAWMILL_WORKER_LISTEN", &address)
            .arg(role)
            .output(SOON)
            .await
            .code(1);
        assert_says(&output, &["can't listen on ", &address]);
        assert!(!output.stderr.contains("started"), "{}", output.stderr);
    }
}

#[tokio::test]
async fn roles_wait_for_stores_that_are_away() {
    let space = Space::new().await;
    let zookeeper = Proxy::zookeeper(space.zookeeper_address()).await;
    let mongodb = Proxy::plain(space.mongodb_address()).await;
    zookeeper.down();
    mongodb.down();
    let role = |name: &str| {
        Process::sawmill(&space)
            .env("SAWMILL_ZOOKEEPER", space.zookeeper_through(zookeeper.address()))
            .env("SAWMILL_MONGODB", space.mongodb_through(mongodb.address()))
            .env("SAWMILL_CONNECT_TIMEOUT", "300ms")
            .env("SAWMILL_LISTEN", "127.0.0.1:0")
            .env("SAWMILL_WORKER_LISTEN", "127.0.0.1:0")
            .arg(name)
            .start()
    };
    let names = ["dispatcher", "compute", "watcher"];
    let mut roles = names.map(role);
    for role in &mut roles {
        role.wait_for_line("waiting for ZooKeeper: no ZooKeeper answers at ", SOON)
            .await;
        role.wait_for_line("waiting for MongoDB: MongoDB at ", SOON).await;
    }
    // One that is told to stop meanwhile does so.
    let mut stopped = role("watcher");
    stopped.wait_for_line("waiting for MongoDB", SOON).await;
    stopped.terminate();
    assert!(stopped.wait_exit(SOON).await.success(), "{}", stopped.stderr());
    mongodb.accept();
    for role in &mut roles {
        role.wait_for_line("MongoDB answers again", SOON).await;
        assert!(!role.stderr().contains("started"), "{}", role.stderr());
    }
    zookeeper.accept();
    for (name, role) in names.iter().zip(&mut roles) {
        role.wait_for_line(&format!("{name} started"), SOON).await;
        role.terminate();
        assert!(role.wait_exit(SOON).await.success(), "{}", role.stderr());
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_without_showing_them() {
    let space = Space::new().await;
    let under = |auth: &str, args: &[&str]| {
        let mill = format!("{}/mill", space.zookeeper());
        Process::sawmill(&space)
            .env("SAWMILL_ZOOKEEPER", mill)
            .env("SAWMILL_ZOOKEEPER_AUTH", auth)
            .args(args)
            .output(SOON)
    };
    let _ = under("mill:right", &["init"]).await.code(0);
    let _ = under("mill:right", &["status"]).await.code(0);
    let output = under("mill:wrong", &["status"]).await.code(1);
    assert_says(&output, &["no right to"]);
    assert!(!output.stderr.contains("wrong"), "{}", output.stderr);
    // No role waits for what waiting does not mend.
    let output = under("mill:wrong", &["watcher"]).await.code(1);
    assert_says(&output, &["no right to"]);
    let output = alone(&["--mongodb", "localhost:27017", "watcher"]).await.code(2);
    assert_says(&output, &["bad mongodb (from --mongodb)"]);

    let uri = space.mongodb().replacen("mongodb://", "mongodb://me:hush@", 1);
    let output = Process::sawmill(&space)
        .env("SAWMILL_MONGODB", uri)
        .args(["job", "list"])
        .output(SOON)
        .await
        .code(1);
    assert_says(&output, &["MongoDB at "]);
    assert!(!output.stderr.contains("hush"), "{}", output.stderr);
}

#[tokio::test]
async fn settings_are_shown_with_their_source() {
    let directory = tempfile::tempdir().unwrap();
    write(
        directory.path(),
        "sawmill.toml",
        "slots = 3\nheal_after = \"2m\"\n",
    );
    let output = Process::binary("sawmill")
        .directory(directory.path())
        .env("SAWMILL_MONGODB", "mongodb://me:hush@db:27017/x")
        .env("SAWMILL_SLOTS", "5")
        .args(["--output", "json", "--store", "file:///tmp/s", "config", "show"])
        .output(SOON)
        .await
        .code(0);
    let shown: Value = serde_json::from_str(&output.stdout).unwrap();
    let of = |key: &str| {
        (
            shown[key]["value"].as_str().unwrap(),
            shown[key]["source"].as_str().unwrap(),
        )
    };
    assert_eq!(of("slots"), ("5", "SAWMILL_SLOTS"));
    assert_eq!(of("store"), ("file:///tmp/s", "--store"));
    assert_eq!(of("mongodb"), ("mongodb://me:***@db:27017/x", "SAWMILL_MONGODB"));
    assert_eq!(of("session_timeout"), ("10s", "default"));
    assert!(of("heal_after").0 == "2m" && of("heal_after").1.ends_with("sawmill.toml"));
    assert!(!output.stdout.contains("hush"));

    let file = write(directory.path(), "wrong.toml", "zookeper = \"a:1\"\n");
    let output = alone(&["--config", &file, "status"]).await.code(2);
    assert_says(
        &output,
        &["wrong.toml: unknown key \"zookeper\": did you mean \"zookeeper\"?"],
    );
    let output = alone(&["--config", "/nonexistent.toml", "status"]).await.code(2);
    assert_says(&output, &["/nonexistent.toml"]);
}

#[tokio::test]
async fn completions_and_help_need_no_mill() {
    for shell in ["bash", "zsh", "fish"] {
        let output = alone(&["completions", shell]).await.code(0);
        assert!(output.stdout.contains("sawmill") && output.stdout.len() > 1000);
    }
    let help = alone(&["--help"]).await.code(0).stdout;
    for command in [
        "dev",
        "dispatcher",
        "compute",
        "watcher",
        "init",
        "dataset",
        "run",
        "job",
        "status",
        "doctor",
        "bench",
        "pki",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "no {command} in:\n{help}"
        );
    }
    assert!(alone(&["--version"]).await.code(0).stdout.starts_with("sawmill "));
    let _ = alone(&[]).await.code(2);
}

#[tokio::test]
async fn datasets_are_added_shown_and_removed() {
    let space = Space::new().await;
    let directory = tempfile::tempdir().unwrap();
    let log = write(directory.path(), "a.log", &"a line of ten\n".repeat(350));
    let more = write(directory.path(), "b.log", "no newline at the end");
    let added = json(
        &space,
        &["dataset", "add", "access", "--block-size", "1KiB", &log],
    )
    .await;
    assert_eq!(
        added["added"],
        serde_json::json!({ "files": 1, "blocks": 5, "bytes": 4900 })
    );
    let without_unit = on(&space, &["dataset", "add", "access", "--block-size", "5", &log]).await;
    assert_says(&without_unit.code(2), &["block size 5 B", "5MiB"]);
    let again = on(&space, &["dataset", "add", "access", &more]).await.code(0);
    assert_eq!(again.stdout, "dataset access: added 1 file, 1 block, 21 B\n");

    let shown = json(&space, &["dataset", "show", "access"]).await;
    assert_eq!(
        (&shown["dataset"]["blocks"], &shown["dataset"]["bytes"]),
        (&6.into(), &4921.into())
    );
    assert_eq!(shown["blocks"].as_array().unwrap().len(), 6);
    let table = on(&space, &["dataset", "show", "access", "--limit", "2"])
        .await
        .code(0)
        .stdout;
    assert!(
        table.contains("a.log") && table.contains("… and 4 more (--limit)"),
        "{table}"
    );
    let list = on(&space, &["dataset", "list"]).await.code(0).stdout;
    assert!(list.starts_with("NAME ") && list.contains("\naccess "), "{list}");

    let _ = on(&space, &["dataset", "remove", "access"]).await.code(0);
    assert_eq!(json(&space, &["dataset", "list"]).await, serde_json::json!([]));
    assert_says(
        &on(&space, &["dataset", "show", "access"]).await.code(1),
        &["no such dataset: access"],
    );
    assert_says(
        &on(&space, &["dataset", "remove", "access"]).await.code(1),
        &["no such dataset: access"],
    );
}

#[tokio::test]
async fn files_that_cannot_be_added_change_nothing() {
    let space = Space::new().await;
    let directory = tempfile::tempdir().unwrap();
    let good = write(directory.path(), "good.log", "a line\n");
    let folder = directory.path().display().to_string();
    let missing = format!("{folder}/missing.log");
    for (bad, why) in [(&missing, "missing.log"), (&folder, "not a file")] {
        let output = on(&space, &["dataset", "add", "d", &good, bad]).await.code(1);
        assert_says(&output, &[why, &folder]);
    }
    assert_says(
        &on(&space, &["dataset", "add", "d", "ftp://host/x"]).await.code(2),
        &["ftp://host/x"],
    );
    assert_eq!(json(&space, &["dataset", "list"]).await, serde_json::json!([]));
}

#[tokio::test]
async fn jobs_wait_and_are_found_by_part_of_their_id() {
    let space = Space::new().await;
    let directory = tempfile::tempdir().unwrap();
    let log = write(directory.path(), "a.log", "one\ntwo\n");
    assert_says(
        &on(&space, &["run", "--dataset", "d", "--map", "cat"])
            .await
            .code(1),
        &["no such dataset: d"],
    );
    assert_says(
        &on(&space, &["job", "show", "last"]).await.code(1),
        &["no such job: last"],
    );
    let _ = on(&space, &["dataset", "add", "d", &log]).await.code(0);
    let run = [
        "run",
        "--dataset",
        "d",
        "--map",
        "wc -l",
        "--reduce",
        "cat",
        "--priority",
        "7",
        "--no-wait",
    ];
    let id = on(&space, &run).await.code(0).stdout.trim().to_string();

    for reference in [&id, "last", &id[..8], &id.replace('-', "")] {
        let shown = json(&space, &["job", "show", reference]).await;
        let job = &shown["job"];
        assert_eq!(job["id"], id.as_str());
        assert_eq!(
            (
                job["state"].as_str(),
                job["priority"].as_u64(),
                job["subtasks"].as_u64()
            ),
            (Some("PENDING"), Some(7), Some(2))
        );
    }
    let table = on(&space, &["job", "show", "last"]).await.code(0).stdout;
    assert!(
        table.contains("wc -l") && table.contains("2: 0 ok, 0 failed, 0 cancelled, 2 not ended"),
        "{table}"
    );
    assert_eq!(
        json(&space, &["job", "list", "--state", "running"]).await,
        serde_json::json!([])
    );
    assert_eq!(
        json(&space, &["job", "list", "--state", "PENDING"]).await[0]["id"],
        id.as_str()
    );
    assert_says(
        &on(&space, &["job", "output", &id]).await.code(1),
        &["has no result: it is PENDING"],
    );
    assert_says(
        &on(&space, &["job", "wait", &id, "--timeout", "50ms"])
            .await
            .code(1),
        &["has not ended", "0 of 2"],
    );
    assert_says(
        &on(&space, &["dataset", "remove", "d"]).await.code(1),
        &["in use", &id],
    );
    assert_says(
        &on(&space, &["job", "show", "zzz"]).await.code(1),
        &["no such job: zzz"],
    );

    let _ = on(&space, &["job", "cancel", "last"]).await.code(0);
    assert_eq!(
        json(&space, &["job", "show", &id]).await["job"]["cancel_requested"],
        true
    );
    let status = json(&space, &["status"]).await;
    assert_eq!(
        (status["leader"].is_null(), status["jobs"][0]["id"].as_str()),
        (true, Some(id.as_str()))
    );
    let audit = json(&space, &["doctor", "--audit"]).await;
    assert_eq!(
        (&audit["clean"], &audit["total"]["waiting"]),
        (&true.into(), &2.into())
    );
    assert_eq!(json(&space, &["job", "prune"]).await["jobs"], 0);
}

#[tokio::test]
async fn init_and_doctor_find_a_new_mill_well() {
    let space = Space::new().await;
    let _ = on(&space, &["init"]).await.code(0);
    let _ = on(&space, &["init"]).await.code(0);
    let doctor = on(&space, &["doctor"]).await.code(0).stdout;
    for part in [
        "ok       zookeeper ",
        "ok       replica set",
        "ok       block store",
        "no dispatcher leads",
        "-> start one with",
    ] {
        assert!(doctor.contains(part), "no {part:?} in:\n{doctor}");
    }
    let audit = on(&space, &["doctor", "--audit"]).await.code(0).stdout;
    assert!(
        audit.contains("every subtask is accounted for exactly once"),
        "{audit}"
    );
}

#[tokio::test]
async fn a_reader_that_leaves_early_is_no_error() {
    let sawmill = testkit::process::binary("sawmill");
    let script = format!(
        "{{ {} completions bash; echo \"code $?\" >&2; }} | head -c 10",
        sawmill.display()
    );
    let output = Process::of("sh").args(["-c", &script]).output(SOON).await.code(0);
    assert_eq!((output.stdout.len(), output.stderr.as_str()), (10, "code 0\n"));
}

#[tokio::test]
async fn a_role_starts_and_stops_in_order() {
    let space = Space::new().await;
    let mut role = Process::sawmill(&space).arg("watcher").start();
    role.wait_for_line("watcher started", SOON).await;
    role.terminate();
    assert_eq!(role.wait_exit(SOON).await.code(), Some(0), "{}", role.stderr());
    assert_eq!(role.stdout(), "");
}

#[tokio::test]
async fn ctrl_c_asks_to_cancel_and_a_second_one_leaves_at_once() {
    let space = Space::new().await;
    let directory = tempfile::tempdir().unwrap();
    let log = write(directory.path(), "a.log", "one\n");
    let _ = on(&space, &["dataset", "add", "d", &log]).await.code(0);
    let mut run = Process::sawmill(&space)
        .args(["run", "--dataset", "d", "--map", "cat"])
        .start();
    run.wait_for_line("` follows it", SOON).await;
    run.interrupt();
    // Nobody leads here, so that nobody cancels it.
    run.wait_for_line("cancelling job", SOON).await;
    run.interrupt();
    assert_eq!(run.wait_exit(SOON).await.code(), Some(130), "{}", run.stderr());
    assert_eq!(run.stdout(), "");
    let job = &json(&space, &["job", "show", "last"]).await["job"];
    assert_eq!(
        (job["cancel_requested"].as_bool(), job["state"].as_str()),
        (Some(true), Some("PENDING"))
    );
}

#[tokio::test]
async fn a_killed_client_leaves_its_job_and_says_what_follows_it() {
    let space = Space::new().await;
    let directory = tempfile::tempdir().unwrap();
    let log = write(directory.path(), "a.log", "one\n");
    let _ = on(&space, &["dataset", "add", "d", &log]).await.code(0);
    let run = ["run", "--dataset", "d", "--map", "cat"];
    let mut left = Process::sawmill(&space).args(run).start();
    left.wait_for_line("` follows it", SOON).await;
    let shown = json(&space, &["job", "show", "last"]).await["job"].clone();
    let id = shown["id"].as_str().unwrap();
    let follow = format!("`sawmill job wait {id}` follows it, `sawmill job output {id}` prints its result");
    left.wait_for_line(&format!("job {id}: {follow}"), SOON).await;
    left.terminate();
    assert_eq!(left.wait_exit(SOON).await.code(), Some(130), "{}", left.stderr());
    assert!(
        left.stderr().contains(&format!("job {id} goes on: {follow}")),
        "{}",
        left.stderr()
    );
    let asked = json(&space, &["job", "show", id]).await["job"]["cancel_requested"].clone();
    assert_eq!(asked.as_bool(), Some(false));

    // Nobody leads here, so that nobody cancels it.
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut cancelled = Process::sawmill(&space).args(run).arg("--cancel-on-exit").start();
        cancelled.wait_for_line("` follows it", SOON).await;
        cancelled.signal(signal);
        cancelled.wait_for_line("cancelling job", SOON).await;
        cancelled.signal(signal);
        assert_eq!(cancelled.wait_exit(SOON).await.code(), Some(130), "{signal}");
        let asked = json(&space, &["job", "show", "last"]).await["job"]["cancel_requested"].clone();
        assert_eq!(asked.as_bool(), Some(true), "{signal}");
    }
}

#[tokio::test]
async fn whoever_waits_in_vain_is_told_for_what() {
    let space = Space::new().await;
    let directory = tempfile::tempdir().unwrap();
    let log = write(directory.path(), "a.log", "one\n");
    let _ = on(&space, &["dataset", "add", "d", &log]).await.code(0);
    let mut run = Process::sawmill(&space)
        .args(["run", "--dataset", "d", "--map", "cat"])
        .start();
    run.wait_for_line("waiting: no dispatcher leads", SOON).await;
    run.wait_for_line("waiting: no compute node works", SOON).await;
    run.kill9();
}

#[tokio::test]
async fn what_others_put_under_the_roots_is_told_and_left_alone() {
    let space = Space::new().await;
    let _ = on(&space, &["init"]).await.code(0);
    let newer = r#"{"v":9,"job":"x"}"#;
    let garbage = [
        ("/unowned/garbage", "hello"),
        ("/owned/worker-1", ""),
        ("/owned/worker-0000000007", "no json"),
        ("/done/entry-100-d:1-0000000099", newer),
    ];
    for (path, data) in garbage {
        space.put(path, data).await;
    }
    let status = json(&space, &["status"]).await;
    let strange = status["strange"].to_string();
    for (path, _) in &garbage[..3] {
        assert!(strange.contains(path), "no {path} in {strange}");
    }
    let audit = on(&space, &["doctor", "--audit"]).await.code(0).stdout;
    assert!(audit.contains("format 9 is newer than 1"), "{audit}");
    let doctor = on(&space, &["doctor"]).await.code(0).stdout;
    assert!(
        doctor.contains("WARNING  strange znode     /unowned/garbage"),
        "{doctor}"
    );
    let tree = space.tree().await;
    for (path, data) in garbage {
        assert_eq!(tree.get(path).map(String::as_str), Some(data), "{path}");
    }
}
