//! A leader whose clock is wrong removes nothing, says so, and goes on with everything else.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use coordination::Config as ZooKeeper;
use dispatcher::{Config, Parts};
use model::{Counts, Job, JobId, JobSpec, JobState, Name, Parts as Blocks, Processor, parts::Source};
use storage::{Retention, Store};
use testkit::{Space, wait};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(30);
const LONG_MS: i64 = 40 * 86_400_000;

/// A job without blocks over a dataset that is not there.
fn job(state: JobState, at_ms: i64) -> Job {
    let source = Source {
        id: Uuid::from_u128(1),
        ..Source::default()
    };
    let stamp = uuid::Timestamp::from_unix_time((at_ms / 1000) as u64, 0, 0, 0);
    Job {
        id: JobId(Uuid::new_v7(stamp)),
        spec: JobSpec::new(Name::new("logs").unwrap(), Processor::Noop),
        parts: Blocks::whole(vec![source]).unwrap(),
        blocks: 0,
        state,
        counts: Counts::default(),
        low_water: 0,
        submitted_by: None,
        cancel_requested: false,
        error: None,
        submitted_ms: at_ms,
        admitted_ms: None,
        finished_ms: state.is_final().then_some(at_ms),
    }
}

/// Runs a dispatcher until `is_done`.
async fn lead(
    space: &Space,
    store: Store,
    retention: Retention,
    what: &str,
    is_done: impl AsyncFn() -> bool,
) {
    let config = Config {
        retention,
        ..Config::default()
    };
    let parts = Parts {
        zookeeper: ZooKeeper {
            connect: space.zookeeper(),
            ..ZooKeeper::default()
        },
        store,
    };
    let stop = CancellationToken::new();
    let leading = tokio::spawn(dispatcher::run(config, parts, stop.clone()));
    wait::until_true(what, DEADLINE, is_done).await;
    stop.cancel();
    leading.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_a_wrong_clock_removes_nothing_and_says_so() {
    let (space, folder) = (Space::new().await, tempfile::TempDir::new().unwrap());
    let url = format!("file://{}", folder.path().display());
    let store = Store::open(&storage::Config::new(space.mongodb(), url))
        .await
        .unwrap();
    store.init().await.unwrap();
    let now_ms = store.clock().await.unwrap().now_ms;
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let retention = Retention {
        results: days(30),
        jobs: days(30),
    };
    let (young, old) = (
        job(JobState::Successful, now_ms - 20 * 86_400_000),
        job(JobState::Successful, now_ms - 31 * 86_400_000),
    );
    store.submit(vec![young.clone(), old.clone()]).await.unwrap();
    let is_there = async |job: &Job| store.job(job.id).await.unwrap().is_some();

    for ahead_ms in [LONG_MS, -LONG_MS] {
        let pending = job(JobState::Pending, now_ms);
        store.submit(vec![pending.clone()]).await.unwrap();
        let wrong = store.clone().with_clock_ahead(ahead_ms);
        lead(
            &space,
            wrong,
            retention,
            "the leader to work, and to tell",
            async || {
                let told = store.leader_clock().await.unwrap();
                let is_admitted = store.job(pending.id).await.unwrap().unwrap().state != JobState::Pending;
                is_admitted && told.is_some_and(|told| (told - ahead_ms).abs() < 60_000)
            },
        )
        .await;
        assert!(is_there(&young).await && is_there(&old).await, "{ahead_ms}");
    }

    lead(
        &space,
        store.clone(),
        retention,
        "what is old to be removed",
        async || !is_there(&old).await,
    )
    .await;
    assert_eq!(store.leader_clock().await.unwrap(), None);
    assert!(is_there(&young).await);
}
