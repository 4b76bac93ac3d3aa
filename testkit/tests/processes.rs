//! Processes are started, read, stopped, killed, and nothing of them is left.

use std::time::Duration;
use testkit::process::{self, Process, Seen};
use testkit::servers::{MONGODB, ZOOKEEPER};
use testkit::wait;

const DEADLINE: Duration = Duration::from_secs(30);

fn shell(script: &str) -> process::Recipe {
    Process::of("sh").args(["-c", script])
}

#[tokio::test]
async fn output_and_exit_code_arrive() {
    let output = shell("echo out $GREETING; echo err >&2; exit 3")
        .env("GREETING", "hello")
        .output(DEADLINE)
        .await;
    let output = output.code(3);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out hello\n", "err\n")
    );
}

#[tokio::test]
async fn a_line_is_waited_for() {
    let mut process = shell("echo one; echo ready: 42 >&2; exec sleep 60").start();
    assert_eq!(process.wait_for_line("ready", DEADLINE).await, "ready: 42");
    process.terminate();
    assert_eq!(process::signal_of(process.wait_exit(DEADLINE).await), Some(15));
}

#[tokio::test]
#[should_panic(expected = "without a line with \"ready\"")]
async fn a_line_that_cannot_come_is_not_waited_for() {
    shell("echo sorry; exit 1")
        .start()
        .wait_for_line("ready", DEADLINE)
        .await;
}

#[tokio::test]
async fn a_frozen_process_stands_still_and_goes_on() {
    let mut process = shell("n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done").start();
    process.wait_for_line("3", DEADLINE).await;
    process.freeze();
    let before = process.stdout().lines().count();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(process.stdout().lines().count(), before);
    process.thaw();
    wait::until_true("it to go on", DEADLINE, async || {
        process.stdout().lines().count() > before
    })
    .await;
}

#[tokio::test]
async fn dropping_kills_what_it_started_and_kill9_does_not() {
    let started = |process: &Process| process::descendants(process.pid());
    let mut process = shell("sleep 60 & echo ready; wait").start();
    process.wait_for_line("ready", DEADLINE).await;
    let children = wait::until("its child", DEADLINE, async || {
        Some(started(&process)).filter(|seen| seen.iter().any(|seen| seen.command == "sleep 60"))
    })
    .await;
    let itself = Seen::look(process.pid()).unwrap();
    drop(process);
    process::gone(&children, DEADLINE).await;
    assert!(!itself.is_alive());

    let mut process = shell("sleep 60 & echo ready; wait").start();
    process.wait_for_line("ready", DEADLINE).await;
    let children = wait::until("its child", DEADLINE, async || {
        Some(started(&process)).filter(|seen| seen.iter().any(|seen| seen.command == "sleep 60"))
    })
    .await;
    process.kill9();
    assert!(children.iter().any(Seen::is_alive));
    for child in &children {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(child.pid as i32),
            nix::sys::signal::SIGKILL,
        )
        .unwrap();
    }
    process::gone(&children, DEADLINE).await;
}

#[tokio::test]
async fn the_servers_of_a_run_are_told_and_end_with_it() {
    let script = format!("echo zookeeper=${ZOOKEEPER} mongodb=${MONGODB}; exit 7");
    let run = Process::of(env!("CARGO_BIN_EXE_testkit-servers")).args(["--", "sh", "-c", &script]);
    let output = run.output(DEADLINE * 2).await.code(7);
    let told = output
        .stdout
        .lines()
        .find(|line| line.starts_with("zookeeper="))
        .unwrap();
    assert!(told.starts_with("zookeeper=127.0.0.1:"), "{told}");
    assert!(told.contains("mongodb=mongodb://127.0.0.1:"), "{told}");
}

#[tokio::test]
async fn kill_minus_nine_of_the_starter_leaves_no_server() {
    let mut run = Process::of(env!("CARGO_BIN_EXE_testkit-servers"))
        .args(["--", "sleep", "600"])
        .start();
    run.wait_for_line(MONGODB, DEADLINE * 2).await;
    let started = wait::until("both servers and the command", DEADLINE, async || {
        let seen = process::descendants(run.pid());
        let runs = |what: &str| seen.iter().any(|process| process.command.contains(what));
        (runs("QuorumPeerMain") && runs("mongodb") && runs("sleep 600")).then_some(seen)
    })
    .await;
    let (command, servers): (Vec<_>, Vec<_>) =
        started.into_iter().partition(|seen| seen.command == "sleep 600");
    run.kill9();
    process::gone(&servers, DEADLINE).await;
    for seen in command {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(seen.pid as i32),
            nix::sys::signal::SIGKILL,
        )
        .unwrap();
    }
    // Their scratch directories go with them.
    let directories: Vec<_> = servers
        .iter()
        .flat_map(|seen| seen.command.split(' '))
        .filter_map(|word| word.find("sawmill-test-").map(|_| word.to_owned()))
        .filter(|word| std::path::Path::new(word).is_absolute())
        .collect();
    assert!(!directories.is_empty());
    wait::until_true("their directories to be removed", DEADLINE, async || {
        directories
            .iter()
            .all(|directory| !std::path::Path::new(directory).exists())
    })
    .await;
}

#[test]
fn a_binary_is_found_beside_the_tests() {
    assert_eq!(
        process::binary("testkit-servers"),
        std::path::Path::new(env!("CARGO_BIN_EXE_testkit-servers"))
    );
}
