//! Faults by name, on real processes with real signals. Each: a baseline, one fault, an exact condition, then the
//! ledger: submitted = recorded + failed + cancelled, each once, the tree empty, the audit clean, no process left.
#![allow(clippy::unwrap_used)]

mod mill;
#[cfg(feature = "sql")]
mod queries;

use std::time::Duration;

use coordination::{Candidacy, Office, Term};
use mill::{Mill, SESSION, SOON, command, spec};
use model::{
    Counts, FORMAT, Job, JobId, JobState, Processor, audit::Breach, outcome::FailureKind,
    znode::CandidateData,
};
use testkit::wait;

/// A command that takes long enough to be in the middle of.
const SLOW_CAT: &str = "sleep 0.2; cat";
/// Kills the compute node above it: its parent is the guard, whose parent is the node.
const KILL_NODE: &str = "kill -9 $(cut -d' ' -f4 /proc/$PPID/stat)";

#[tokio::test(flavor = "multi_thread")]
async fn compute_node_killed_in_mid_batch() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 40).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 4).await;
    mill.compute("b", 4).await;
    let job = mill.submit(&data, command(SLOW_CAT)).await;
    mill.until_in_the_middle(job, 4).await;
    mill.kill("a");
    let job = mill.succeeds(job).await;
    assert!(job.counts.again > 0, "nothing was lost: the fault did not happen");
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_over_parts_of_datasets_survives_its_leader_and_a_node() {
    let mut mill = Mill::new().await;
    mill.dataset("d", 30).await;
    mill.dataset("e", 300).await;
    mill.dispatcher("d1").await;
    mill.dispatcher("d2").await;
    mill.watcher("w1").await;
    mill.compute("a", 4).await;
    mill.compute("b", 4).await;
    let leader = mill.leader().await;
    let whole = async |name: &str| mill.control.dataset(&name.parse().unwrap()).await.unwrap();
    let chosen = vec![
        (whole("d").await, vec![3..5, 9..20]),
        (whole("e").await, vec![0..1, 70..90, 299..300]),
    ];
    let map = "sleep 0.2; echo $SAWMILL_DATASET $SAWMILL_BLOCK $(cat)";
    let mut spec = spec(&"d".parse().unwrap(), command(map));
    spec.also = vec!["e".parse().unwrap()];
    let job = mill.control.submit_over(spec, chosen).await.unwrap();
    mill.until_in_the_middle(job, 4).await;
    mill.kill(&leader);
    mill.kill("a");
    let job = mill.succeeds(job).await;
    assert!(job.counts.again > 0, "nothing was lost: the fault did not happen");
    let d = (3..5).chain(9..20).map(|n| format!("d {n} {n}\n"));
    let e = (0..1)
        .chain(70..90)
        .chain(299..300)
        .map(|n| format!("e {n} {n}\n"));
    assert_eq!(mill.output(&job).await, d.chain(e).collect::<String>());
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_killed_in_mid_feed() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 40_000).await;
    mill.dispatcher("d1").await;
    mill.dispatcher("d2").await;
    mill.watcher("w1").await;
    mill.compute("a", 8).await;
    let leader = mill.leader().await;
    let job = mill.submit(&data, Processor::Noop).await;
    mill.until_in_the_middle(job, 500).await;
    mill.kill(&leader);
    mill.succeeds(job).await;
    assert_ne!(mill.leader().await, leader);
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watcher_killed_between_transaction_and_delete() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 500).await;
    mill.dispatcher("d1").await;
    mill.compute("a", 8).await;
    mill.watcher_that_aborts("w1").await;
    let job = mill.submit(&data, Processor::Noop).await;
    let status = mill.ended("w1").await;
    assert_eq!(
        testkit::process::signal_of(status),
        Some(6),
        "it did not abort: {status}"
    );
    let recorded = mill.counts(job).await.ok;
    assert!(recorded > 0, "the transaction was not there");
    let left = mill
        .space
        .tree()
        .await
        .into_keys()
        .filter(|path| path.contains("/done/entry-"))
        .count();
    assert!(left > 0, "/done was cleared before the abort");
    mill.watcher("w2").await;
    mill.succeeds(job).await;
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_killed_in_random_order() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 20_000).await;
    let seed = std::process::id();
    println!("seed {seed}");
    mill.dispatcher("d1").await;
    mill.dispatcher("d2").await;
    mill.watcher("w1").await;
    mill.watcher("w2").await;
    mill.compute("a", 8).await;
    mill.compute("b", 8).await;
    let job = mill.submit(&data, Processor::Noop).await;
    let mut dice = seed;
    for round in 0..6 {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let before = mill.counts(job).await.ok;
        match (dice >> 16) % 3 {
            0 => {
                let leader = mill.leader().await;
                mill.kill(&leader);
                mill.dispatcher(&leader).await;
            }
            1 => {
                let node = if round % 2 == 0 { "a" } else { "b" };
                mill.kill(node);
                mill.compute(node, 8).await;
            }
            _ => {
                let watcher = if round % 2 == 0 { "w1" } else { "w2" };
                mill.kill(watcher);
                mill.watcher(watcher).await;
            }
        }
        wait::until_ok("progress after the kill", SOON, async || {
            let counts = mill.counts(job).await;
            let over = counts.ok == 20_000;
            if counts.ok > before || over {
                Ok(())
            } else {
                Err(format!("{counts:?}"))
            }
        })
        .await;
    }
    mill.succeeds(job).await;
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_worker_wakes_as_a_zombie() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 24).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 2).await;
    mill.compute("b", 2).await;
    let job = mill.submit(&data, command(SLOW_CAT)).await;
    mill.until_in_the_middle(job, 4).await;
    mill.process("a").freeze();
    let ended = mill.succeeds(job).await;
    assert!(
        ended.counts.again > 0,
        "nothing was recovered: the fault did not happen"
    );
    mill.process("a").thaw();
    mill.process("a").wait_for_line("term over", SOON).await;
    assert_eq!(
        mill.counts(job).await,
        ended.counts,
        "the zombie changed something"
    );
    let more = mill.submit(&data, command("cat")).await;
    mill.succeeds(more).await;
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_leader_wakes_deposed() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 60).await;
    mill.dispatcher("d1").await;
    mill.dispatcher("d2").await;
    mill.watcher("w1").await;
    mill.compute("a", 4).await;
    let leader = mill.leader().await;
    let job = mill.submit(&data, command("sleep 0.1; cat")).await;
    mill.until_in_the_middle(job, 8).await;
    mill.process(&leader).freeze();
    mill.succeeds(job).await;
    mill.process(&leader).thaw();
    let more = mill.submit(&data, Processor::Noop).await;
    mill.process(&leader).wait_for_line("term over", SOON).await;
    mill.succeeds(more).await;
    assert_ne!(mill.leader().await, leader);
    mill.is_clean().await;
}

async fn zookeeper_restarts(outage: Duration) {
    let mut mill = Mill::private().await;
    let data = mill.dataset("d", 80).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 4).await;
    let job = mill.submit(&data, command("sleep 0.1; cat")).await;
    mill.until_in_the_middle(job, 8).await;
    mill.space.servers().zookeeper.kill().await;
    tokio::time::sleep(outage).await;
    mill.space.servers().zookeeper.restart().await.unwrap();
    mill.succeeds(job).await;
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zookeeper_killed_for_less_than_a_session() {
    zookeeper_restarts(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zookeeper_killed_for_longer_than_a_session() {
    zookeeper_restarts(SESSION + Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_zookeeper_lost_are_no_deaths() {
    let mut mill = Mill::private().await;
    let data = mill.dataset("d", 4).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 2).await;
    mill.compute("b", 2).await;
    let directory = tempfile::tempdir().unwrap();
    let quick = directory.path().join("quick");
    let map = format!("if [ -e {} ]; then cat; else sleep 60; fi", quick.display());
    let job = mill.submit(&data, command(&map)).await;
    wait::until("all subtasks to run", SOON, async || {
        (mill.entries("/owned/").await == 4).then_some(())
    })
    .await;
    mill.space.servers().zookeeper.freeze();
    for name in ["a", "b", "d1"] {
        mill.process(name).wait_for_line("term over", SOON).await;
    }
    std::fs::write(&quick, "").unwrap();
    mill.space.servers().zookeeper.thaw();
    let job = mill.succeeds(job).await;
    let ends = mill.control.failures(job.id, 100).await.unwrap();
    assert!(ends.iter().any(|end| end.outcome.word() == "lost"), "{ends:?}");
    assert!(
        ends.iter().all(|end| !end.past.alone()),
        "taken for deaths: {ends:?}"
    );
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_workers_are_recovered_while_mongodb_is_away() {
    let mut mill = Mill::private().await;
    let data = mill.dataset("d", 2).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 2).await;
    let job = mill.submit(&data, command("sleep 2; cat")).await;
    wait::until("both subtasks to run", SOON, async || {
        (mill.entries("/owned/").await == 2).then_some(())
    })
    .await;
    mill.space.servers().mongo.freeze();
    mill.kill("a");
    wait::until("the entries of the dead worker in /done", SOON, async || {
        (mill.entries("/done/").await == 2).then_some(())
    })
    .await;
    mill.space.servers().mongo.thaw();
    mill.compute("b", 2).await;
    mill.succeeds(job).await;
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_low_water_mark_above_subtasks_without_a_result_is_mended_at_takeover() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 40).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 1).await;
    let job = mill.submit(&data, command(SLOW_CAT)).await;
    mill.until_in_the_middle(job, 2).await;
    mill.kill("d1");
    wait::until("nothing in flight", SOON, async || {
        (mill.entries("/").await == 0).then_some(())
    })
    .await;
    let store = mill.control.store().unwrap();
    let mark = vec![(job, 40)];
    store.set_low_water(mark, storage::Epoch(1_000)).await.unwrap();
    // A leader that does nothing for the job, as one that has lost track of it.
    let term = Term::begin(&mill.zookeeper()).await.unwrap();
    let data = CandidateData {
        v: FORMAT,
        host: "here".into(),
        pid: 1,
        version: String::new(),
        gateway: None,
    };
    let idle = Candidacy::enter(&term, Office::Dispatcher, &data).await.unwrap();
    idle.until_leading().await.unwrap();
    let report = mill.control.audit().await.unwrap();
    let found = |breach| report.findings.iter().any(|finding| finding.breach == breach);
    assert!(found(Breach::LowWater) && found(Breach::Stalled), "{report:?}");
    idle.withdraw().await;
    mill.dispatcher("d2").await;
    mill.succeeds(job).await;
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_job_that_the_leader_does_not_know_is_taken_up() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 4).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 2).await;
    let known = mill.submit(&data, command("cat")).await;
    let known = mill.succeeds(known).await;
    // As after an admission that takes effect once the leader has looked.
    let stray = Job {
        id: JobId(uuid::Uuid::now_v7()),
        state: JobState::Staging,
        counts: Counts::default(),
        admitted_ms: None,
        finished_ms: None,
        ..known
    };
    let id = stray.id;
    mill.control.store().unwrap().submit(vec![stray]).await.unwrap();
    mill.succeeds(id).await;
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_killed_and_restarted() {
    let mut mill = Mill::private().await;
    let data = mill.dataset("d", 80).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 4).await;
    let job = mill.submit(&data, command("sleep 0.1; cat")).await;
    mill.until_in_the_middle(job, 8).await;
    mill.space.servers().mongo.kill().await;
    mill.space.servers().mongo.restart().await.unwrap();
    mill.succeeds(job).await;
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subtask_that_kills_its_node_ends_as_failed_and_its_neighbours_succeed() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 60).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 2).await;
    // Subtask 50 comes when run times are known, so it sits in a bundle.
    let map = format!("read n; [ $n = 50 ] && {KILL_NODE}; echo $n");
    let job = mill.submit(&data, command(&map)).await;
    let mut deaths = 0;
    let ended = loop {
        let state = mill.control.store().unwrap().job(job).await.unwrap().unwrap();
        if state.state.is_final() {
            break state;
        }
        if mill.process("a").ended().is_some() {
            deaths += 1;
            assert!(deaths <= 6, "it killed {deaths} workers");
            mill.ended("a").await;
            mill.compute("a", 2).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(
        (ended.state, ended.counts.ok, ended.counts.failed),
        (JobState::Failed, 59, 1),
        "{:?}",
        ended.error
    );
    assert!(deaths >= 3, "only {deaths} deaths");
    let dead = mill
        .control
        .store()
        .unwrap()
        .result(job, 50)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(dead.result.unwrap_err().kind, FailureKind::Deaths);
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_in_mid_run() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 200).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 2).await;
    let quick = mill
        .submit(
            &data,
            command("if read n && [ $n -lt 4 ]; then echo $n; else sleep 1000; fi"),
        )
        .await;
    mill.until_in_the_middle(quick, 1).await;
    let node = mill.process("a").pid();
    let running = testkit::process::descendants(node);
    assert!(!running.is_empty(), "nothing runs: nothing to cancel");
    mill.control.cancel(&quick.to_string()).await.unwrap();
    let job = mill.until_final(quick).await;
    assert_eq!(job.state, JobState::Cancelled);
    assert_eq!(job.counts.ended(), 200, "{:?}", job.counts);
    testkit::process::gone(&running, SOON).await;
    mill.is_clean().await;
}

/// The processes of a job that live, those of its commands: they carry it in their environment.
fn alive(job: JobId) -> Vec<String> {
    let mark = format!("SAWMILL_JOB={job}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let of_job = processes.filter(|process| {
        std::fs::read(process.path().join("environ")).is_ok_and(|environ| {
            environ
                .split(|byte| *byte == 0)
                .any(|part| part == mark.as_bytes())
        })
    });
    of_job
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The commands ignore every signal that can be ignored, and have left their group.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_only_when_its_processes_are_gone() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 20).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 2).await;
    let stubborn = "trap '' TERM INT HUP; setsid sh -c 'while :; do sleep 1; done' & \
        if [ $SAWMILL_BLOCK = 0 ]; then echo 0; exit; fi; wait; sleep 1000";
    let job = mill.submit(&data, command(stubborn)).await;
    mill.until_in_the_middle(job, 1).await;
    wait::until_true("commands to run", SOON, async || alive(job).len() >= 4).await;
    mill.control.cancel(&job.to_string()).await.unwrap();
    let ended = mill.until_final(job).await;
    assert_eq!(alive(job), Vec::<String>::new(), "{} while they run", ended.state);
    let Counts { ok, cancelled, .. } = ended.counts;
    assert_eq!((ended.state, ok, cancelled), (JobState::Cancelled, 1, 19));
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_which_every_subtask_fails() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 8).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    let broken = [("BROKEN", "1"), ("SAWMILL_PASS_ENV", "BROKEN")];
    mill.compute_with("broken", 2, &broken).await;
    mill.compute("good", 2).await;
    let map = command("[ -z \"$BROKEN\" ] || exit 3; sleep 0.05; cat");
    let mut jobs = Vec::new();
    for _ in 0..5 {
        let mut spec = spec(&data, map.clone());
        spec.retry.max_attempts = 5;
        jobs.push(mill.control.submit(spec).await.unwrap());
    }
    for job in jobs {
        mill.succeeds(job).await;
    }
    mill.process("broken")
        .wait_for_line("takes itself out", SOON)
        .await;
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_deleted_by_hand_in_mid_job() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 60).await;
    mill.dispatcher("d1").await;
    mill.watcher("w1").await;
    mill.compute("a", 2).await;
    let job = mill.submit(&data, command("sleep 0.1; cat")).await;
    mill.until_in_the_middle(job, 4).await;
    for root in ["/unowned", "/owned", "/done"] {
        mill.space.delete_tree(root).await;
    }
    mill.succeeds(job).await;
    mill.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_hands_back_at_once() {
    let mut mill = Mill::new().await;
    let data = mill.dataset("d", 12).await;
    for dispatcher in ["d1", "d2"] {
        mill.dispatcher(dispatcher).await;
    }
    mill.watcher("w1").await;
    mill.watcher("w2").await;
    mill.compute("a", 2).await;
    let leader = mill.leader().await;
    let first = mill.submit(&data, command("sleep 1; cat")).await;
    mill.until_in_the_middle(first, 1).await;
    mill.compute("b", 2).await;
    for name in ["a", &leader, "w1"] {
        let (status, took) = mill.terminate(name).await;
        assert!(status.success(), "{name}: {status}");
        assert!(took < SESSION, "{name} took {took:?}");
    }
    let job = mill.succeeds(first).await;
    assert!(job.counts.again > 0, "nothing was handed back");
    let kinds = mill.control.failures(first, 100).await.unwrap();
    assert!(
        kinds.iter().all(|end| end.outcome.word() == "returned"),
        "{kinds:?}"
    );
    mill.is_clean().await;
}
