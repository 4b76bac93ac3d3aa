//! A held process ends with its starter, however that one ends, and its starter learns how it ended.

#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

use servers::hold::{Held, Program};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const STARTER: &str = "SAWMILL_TEST_STARTER_DIRECTORY";

fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// This very test, run again as the starter that will be killed.
fn starter(test: &str, directory: &Path) -> (std::process::Child, u32) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(STARTER, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let pid = output
        .lines()
        .find_map(|line| line.unwrap().split("held ").nth(1)?.trim().parse().ok());
    let pid = pid.expect("the starter said which process it holds");
    (child, pid)
}

async fn start_and_sleep(program: Program) {
    let held = Held::start(&program).await.unwrap();
    println!("held {}", held.pid());
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn kill_minus_nine_of_the_starter_ends_the_process() {
    if let Some(directory) = std::env::var_os(STARTER) {
        return start_and_sleep(Program::new("sleep", directory, "log").argument("60")).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut child, pid) = starter(
        "kill_minus_nine_of_the_starter_ends_the_process",
        directory.path(),
    );
    assert!(alive(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    until("the held process is gone", || !alive(pid));
}

#[tokio::test]
async fn one_that_ignores_term_is_killed_with_all_it_started() {
    let script = "trap '' TERM; sleep 61 & echo $! > child; while :; do sleep 1; done";
    if let Some(directory) = std::env::var_os(STARTER) {
        return start_and_sleep(Program::new("sh", directory, "log").arguments(["-c", script])).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut child, pid) = starter(
        "one_that_ignores_term_is_killed_with_all_it_started",
        directory.path(),
    );
    let read = || std::fs::read_to_string(directory.path().join("child")).unwrap_or_default();
    until("it started its own child", || read().ends_with('\n'));
    let grandchild: u32 = read().trim().parse().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    until("the stubborn process is gone", || !alive(pid));
    until("what it started is gone", || !alive(grandchild));
}

#[tokio::test]
async fn dropping_stops_and_the_end_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let held = Held::start(&Program::new("sleep", directory.path(), "log").argument("62"))
        .await
        .unwrap();
    let pid = held.pid();
    assert!(alive(pid));
    drop(held);
    until("the dropped process is gone", || !alive(pid));

    let program = Program::new("sh", directory.path(), "log").arguments(["-c", "echo broken >&2; exit 3"]);
    let mut held = Held::start(&program).await.unwrap();
    assert_eq!(held.wait().await.unwrap().code(), Some(3));
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(log.ends_with("broken\n"), "{log:?}");
}

#[tokio::test]
async fn a_frozen_process_can_be_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program::new("sleep", directory.path(), "log").argument("63");
    let mut held = Held::start(&program).await.unwrap();
    held.signal(nix::sys::signal::Signal::SIGSTOP);
    let begin = Instant::now();
    held.stop().await;
    assert!(!alive(held.pid()));
    assert!(
        begin.elapsed() < servers::hold::GRACE,
        "it took {:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_missing_program_ends_with_127() {
    let directory = tempfile::tempdir().unwrap();
    let mut held = Held::start(&Program::new("/no/such/program", directory.path(), "log"))
        .await
        .unwrap();
    assert_eq!(held.wait().await.unwrap().code(), Some(127));
}

#[tokio::test]
async fn what_a_killed_holder_held_still_ends_with_the_starter() {
    let directory = tempfile::tempdir().unwrap();
    let held = Held::start(&Program::new("sleep", directory.path(), "log").argument("64"))
        .await
        .unwrap();
    let pid = held.pid();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let holder: i32 = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(holder),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert!(alive(pid));
    drop(held);
    until("the process is gone", || !alive(pid));
}
