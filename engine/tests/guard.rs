//! Nothing that a command started is left, however the command or its node ends.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use engine::Stop;
use model::{FailureKind, job::JobId};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{Bench, alive, bytes, pids, stat, until, until_async};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Leaves every kind of process behind and says how many there are once they run.
///
/// A child in the background, one that ignores all signals that can be ignored, a session of its own, and a daemon whose
/// parent has ended.
const BROOD: &str = r#"
sleep 61 &
sh -c 'trap "" HUP INT TERM; sleep 62; sleep 62' &
setsid sleep 63 &
(setsid sh -c 'setsid sleep 64 & sleep 65' >/dev/null 2>&1 </dev/null &)
"#;

fn brood(then: &str) -> String {
    format!("{BROOD}\n{then}")
}

/// The sleeping processes of the job: 61 to 65 are five.
fn sleepers(job: JobId) -> usize {
    let name =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
    alive(job).iter().filter(|pid| name(pid)).count()
}

#[tokio::test]
async fn a_timeout_kills_all_descendants() {
    let bench = Bench::new();
    let line = brood("wait");
    let mut task = bench.task(&line);
    task.timeout = Some(Duration::from_millis(700));
    let begin = Instant::now();
    let stop = bench
        .runner
        .run(&task, bytes(b""), &CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(stop.failure().unwrap().kind, FailureKind::Timeout);
    assert_eq!(alive(bench.job), [0; 0]);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn cancelling_kills_all_descendants_before_it_returns() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    let line = brood("wait");
    let task = bench.task(&line);
    let run = bench.runner.run(&task, bytes(b""), &cancel);
    let cancelled = async {
        until_async("the brood is there", || sleepers(bench.job) == 5).await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(run, cancelled);
    assert_eq!(result.unwrap_err(), Stop::Cancelled);
    assert_eq!(alive(bench.job), [0; 0]);
}

#[tokio::test]
async fn dropping_kills_all_descendants() {
    let bench = Bench::new();
    let line = brood("wait");
    let task = bench.task(&line);
    let cancel = CancellationToken::new();
    tokio::select! {
        _ = bench.runner.run(&task, bytes(b""), &cancel) => panic!("it waits"),
        () = until_async("the brood is there", || sleepers(bench.job) == 5) => {}
    }
    until_async("all are gone", || alive(bench.job).is_empty()).await;
}

#[tokio::test]
async fn nothing_outlives_a_finished_command() {
    let bench = Bench::new();
    assert_eq!(bench.text(&brood("echo done"), b"").await, "done\n");
    assert_eq!(alive(bench.job), [0; 0]);
    // Its own group is all that `kill 0` reaches: the guard tells how the shell ended and serves the next one.
    assert_eq!(bench.failure("kill 0; sleep 60").await.kind, FailureKind::Signal);
    assert_eq!(bench.guard.idle().len(), 1);
    assert_eq!(bench.text("echo next", b"").await, "next\n");
}

#[tokio::test]
async fn a_command_that_kills_its_guard_dies_and_leaves_no_trace() {
    let bench = Bench::new();
    // It reads first, so that the guard has told of its start.
    let stop = bench
        .run("read line; kill -KILL $PPID; sleep 60", b"go\n")
        .await
        .unwrap_err();
    let failure = stop.failure().unwrap();
    assert_eq!(failure.kind, FailureKind::Signal);
    until_async("all are gone", || alive(bench.job).is_empty()).await;
    assert_eq!(bench.text("echo next", b"").await, "next\n");
}

#[tokio::test]
async fn the_guard_shrugs_off_other_signals() {
    let bench = Bench::new();
    let line = "for s in HUP INT QUIT TERM USR1 ALRM TTIN TTOU TSTP; do kill -$s $PPID; done; echo alive";
    assert_eq!(bench.text(line, b"").await, "alive\n");
    // And the command has none of them blocked or ignored.
    let failure = bench.failure("kill -TERM $$; sleep 60").await;
    assert_eq!(failure.message, "map command was ended by signal SIGTERM");
    let masks = bench
        .text("grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f 2", b"")
        .await;
    // All but the two that the C library keeps for itself.
    let odd = masks
        .lines()
        .map(|mask| u64::from_str_radix(mask, 16).unwrap() & !(0b11 << 31));
    assert_eq!(odd.collect::<Vec<_>>(), [0, 0]);
}

#[tokio::test]
async fn an_idle_guard_that_was_killed_is_replaced() {
    let bench = Bench::new();
    bench.text("true", b"").await;
    let idle = bench.guard.idle();
    assert_eq!(idle.len(), 1);
    kill(Pid::from_raw(idle[0].cast_signed()), Signal::SIGKILL).unwrap();
    assert_eq!(bench.text("echo again", b"").await, "again\n");
}

#[tokio::test]
async fn guards_end_with_their_owner() {
    let bench = Bench::new();
    bench.text("true", b"").await;
    let idle = bench.guard.idle()[0].cast_signed();
    assert!(stat(idle).is_some());
    drop(bench);
    until_async("the idle guard is gone and reaped", || stat(idle).is_none()).await;
}

fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn own_zombies() -> usize {
    let own = std::process::id().cast_signed();
    pids()
        .filter_map(stat)
        .filter(|(state, parent)| state == "Z" && *parent == own)
        .count()
}

#[tokio::test]
async fn many_commands_leak_nothing() {
    let bench = Bench::new();
    bench.text("true", b"").await;
    let before = open_fds();
    for index in 0..200 {
        match index % 10 {
            3 => drop(bench.failure("exit 1").await),
            7 => {
                let cancel = CancellationToken::new();
                let task = bench.task("sleep 60");
                let run = bench.runner.run(&task, bytes(b""), &cancel);
                let cancelled = async {
                    tokio::task::yield_now().await;
                    cancel.cancel();
                };
                assert_eq!(tokio::join!(run, cancelled).0.unwrap_err(), Stop::Cancelled);
            }
            _ => assert_eq!(bench.text("cat", b"x\n").await, "x\n"),
        }
    }
    until_async("descriptors are as before", || open_fds() <= before + 4).await;
    until_async("no dead is unreaped", || own_zombies() == 0).await;
    assert_eq!(alive(bench.job), [0; 0]);
    assert_eq!(bench.guard.idle().len(), 1);
}

#[tokio::test]
async fn commands_run_side_by_side() {
    let bench = Bench::new();
    let runs = (0..20).map(|index| {
        let bench = &bench;
        async move { bench.text(&format!("cat; echo {index}"), b"x\n").await }
    });
    let texts = futures::future::join_all(runs).await;
    assert!(
        texts
            .iter()
            .enumerate()
            .all(|(index, text)| *text == format!("x\n{index}\n"))
    );
    assert!((1..=20).contains(&bench.guard.idle().len()));
}

const NODE: &str = "ENGINE_TEST_NODE_JOB";

/// This very test, run again as the node that will be killed.
fn node(test: &str, job: JobId) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(NODE, job.to_string())
        .spawn()
        .unwrap()
}

/// Processes that are guards of the node with this process id, running or idle.
fn guards_of(node: u32) -> Vec<i32> {
    let is_guard = |pid: &i32| {
        fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"))
            .is_ok_and(|line| line.ends_with(b"--sawmill-guard\0"))
    };
    pids()
        .filter(|pid| stat(*pid).is_some_and(|(_, parent)| parent == node.cast_signed()))
        .filter(is_guard)
        .collect()
}

#[test]
fn kill_minus_nine_of_the_node_ends_everything() {
    if let Ok(job) = std::env::var(NODE) {
        let bench = Bench::of(job.parse().unwrap());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let one = brood("wait");
        // A second command feeds and prints without end, so that pipes are full both ways.
        let endless = engine::Source::Reader {
            reader: Box::new(std::io::repeat(b'x')),
            name: "endless".into(),
        };
        runtime
            .block_on(async {
                tokio::join!(bench.run(&one, b""), bench.run_source("cat >/dev/null", endless))
            })
            .0
            .unwrap();
        return;
    }
    let job = JobId(Uuid::new_v4());
    let mut node = node("kill_minus_nine_of_the_node_ends_everything", job);
    until("the brood is there", || sleepers(job) == 5);
    let guards = guards_of(node.id());
    assert_eq!(guards.len(), 2);
    node.kill().unwrap();
    node.wait().unwrap();
    // Who adopts a dead guard may take its time to reap it.
    let gone = |guard: &i32| stat(*guard).is_none_or(|(state, _)| state == "Z");
    until("all are gone", || {
        alive(job).is_empty() && guards.iter().all(gone)
    });
}
