//! How watchers divide what is to be recorded, and what becomes of the share of one that is gone or can't record.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use coordination::{Candidacy, Office, Recorder, Term};
use model::{
    End, EntryName, FORMAT, Job, JobId, JobSpec, JobState, Name, Outcome, Output, Parts, Payload, Processor,
    outcome::{Past, Run},
    parts::Source,
    rendezvous, znode,
    znode::{CandidateData, DoneData},
};
use storage::Store;
use testkit::{Space, wait};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Whatever happens here happens well before this.
const SOON: Duration = Duration::from_secs(30);
/// So many jobs that each of two watchers has some.
const JOBS: u64 = 24;

/// MongoDB is away when it has not been found for so long.
const UNREACHABLE_AFTER: Duration = Duration::from_millis(500);
const TAKE_OVER_SOON: Duration = Duration::from_millis(300);

fn zookeeper(space: &Space) -> coordination::Config {
    coordination::Config {
        connect: space.zookeeper(),
        session_timeout: Duration::from_secs(4),
        ..Default::default()
    }
}

async fn store(space: &Space, folder: &tempfile::TempDir) -> Store {
    let url = format!("file://{}", folder.path().display());
    let config = storage::Config {
        timeout: UNREACHABLE_AFTER,
        ..storage::Config::new(space.mongodb(), url)
    };
    let store = Store::open(&config).await.unwrap();
    store.init().await.unwrap();
    store
}

/// Stands for the office and records nothing.
async fn idle_peer(space: &Space) -> (Term, Candidacy) {
    let term = Term::begin(&zookeeper(space)).await.unwrap();
    let data = CandidateData {
        v: FORMAT,
        host: "here".into(),
        pid: 1,
        version: "0".into(),
        gateway: None,
    };
    let candidacy = Candidacy::enter(&term, Office::Watcher, &data).await.unwrap();
    (term, candidacy)
}

/// Jobs of one subtask.
async fn jobs(store: &Store) -> Vec<JobId> {
    let job = || Job {
        id: JobId(Uuid::now_v7()),
        spec: JobSpec::new(Name::new("d").unwrap(), Processor::Noop),
        parts: Parts::whole(vec![Source {
            id: Uuid::from_u128(1),
            blocks: 1,
            ..Source::default()
        }])
        .unwrap(),
        blocks: 1,
        state: JobState::Pending,
        counts: Default::default(),
        low_water: 0,
        submitted_by: None,
        cancel_requested: false,
        error: None,
        submitted_ms: 1_700_000_000_000,
        admitted_ms: None,
        finished_ms: None,
    };
    let jobs: Vec<Job> = (0..JOBS).map(|_| job()).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    store.submit(jobs).await.unwrap();
    let epoch = store.take_epoch("test").await.unwrap();
    store.admit(&ids, epoch).await.unwrap();
    ids
}

/// Puts the end of each job's subtask into `/done`.
async fn finish(space: &Space, jobs: &[JobId]) {
    for (sequence, &job) in jobs.iter().enumerate() {
        let run = Run {
            first: 0,
            count: 1,
            attempt: 1,
        };
        let ends = vec![End {
            first: 0,
            count: 1,
            outcome: Outcome::Ok {
                output: Output::Inline(Payload::from("result")),
                fingerprint: None,
                stderr_tail: String::new(),
            },
        }];
        let data = DoneData {
            v: FORMAT,
            job,
            run,
            past: Past::default(),
            node: None,
            busy_us: 1,
            ends,
        };
        let path = format!("/done/entry-100-d:0-{sequence:010}");
        let data = String::from_utf8(znode::encode(&data)).unwrap();
        space.put(&path, &data).await;
    }
}

fn watch(space: &Space, store: &Store, take_over_after: Duration) -> (CancellationToken, JoinHandle<()>) {
    let config = watcher::Config {
        take_over_after,
        give_up_after: UNREACHABLE_AFTER,
        ..Default::default()
    };
    let parts = watcher::Parts {
        zookeeper: zookeeper(space),
        store: store.clone(),
    };
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let running = tokio::spawn(async move { watcher::run(config, parts, stopping).await.unwrap() });
    (stop, running)
}

async fn unrecorded(store: &Store) -> BTreeSet<JobId> {
    let active = store.active().await.unwrap();
    active.into_iter().map(|job| job.id).collect()
}

async fn left(recorder: &Recorder) -> Vec<EntryName> {
    recorder.list_done().await.unwrap().entries
}

#[tokio::test(flavor = "multi_thread")]
async fn the_share_of_a_watcher_that_is_gone_falls_to_the_others_at_once() {
    let (space, folder) = (Space::new().await, tempfile::tempdir().unwrap());
    let store = store(&space, &folder).await;
    let term = Term::begin(&zookeeper(&space)).await.unwrap();
    let (peer_term, peer) = idle_peer(&space).await;
    // Nothing is taken because it waited long.
    let (stop, running) = watch(&space, &store, Duration::from_secs(3600));
    let peers = wait::until("two watchers", SOON, async || {
        let peers = peer.peers().await.unwrap();
        (peers.len() == 2).then_some(peers)
    })
    .await;
    let jobs = jobs(&store).await;
    finish(&space, &jobs).await;
    let nearest = |job: &JobId| rendezvous::nearest(job.0.as_bytes(), &peers).unwrap();
    let theirs: BTreeSet<JobId> = jobs
        .iter()
        .filter(|job| nearest(job) == peer.name())
        .copied()
        .collect();
    assert!(!theirs.is_empty() && theirs.len() < jobs.len(), "{peers:?}");
    wait::until_equal("its own share", SOON, theirs, async || unrecorded(&store).await).await;

    peer_term.close().await;
    wait::until_equal("the share of the other", SOON, BTreeSet::new(), async || {
        unrecorded(&store).await
    })
    .await;
    let recorder = Recorder::new(&term);
    wait::until_equal("an empty /done", SOON, Vec::new(), async || left(&recorder).await).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_lives_and_records_nothing_is_helped_after_a_while() {
    let (space, folder) = (Space::new().await, tempfile::tempdir().unwrap());
    let store = store(&space, &folder).await;
    let (_term, peer) = idle_peer(&space).await;
    let (stop, running) = watch(&space, &store, TAKE_OVER_SOON);
    wait::until_equal("two watchers", SOON, 2, async || {
        peer.peers().await.unwrap().len()
    })
    .await;
    let jobs = jobs(&store).await;
    finish(&space, &jobs).await;
    wait::until_equal("all to be recorded", SOON, BTreeSet::new(), async || {
        unrecorded(&store).await
    })
    .await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_without_mongodb_stands_for_nothing_until_it_is_back() {
    let (mut space, folder) = (Space::private().await, tempfile::tempdir().unwrap());
    let store = store(&space, &folder).await;
    let jobs = jobs(&store).await;
    let (_term, peer) = idle_peer(&space).await;
    let sequences = async || -> Vec<u64> {
        let names = peer.peers().await.unwrap();
        names
            .iter()
            .map(|name| name.rsplit('-').next().unwrap().parse().unwrap())
            .collect()
    };
    let (stop, running) = watch(&space, &store, TAKE_OVER_SOON);
    wait::until_equal("two watchers", SOON, vec![0, 1], sequences).await;
    space.servers().mongo.kill().await;
    finish(&space, &jobs).await;
    wait::until_equal("giving up the share", SOON, vec![0], sequences).await;
    // For longer than it takes to give up again.
    for _ in 0..4 {
        store.ping().await.unwrap_err();
    }
    space.servers().mongo.restart().await.unwrap();
    wait::until_equal("all to be recorded", SOON, BTreeSet::new(), async || {
        unrecorded(&store).await
    })
    .await;
    assert_eq!(
        sequences().await,
        [0, 2],
        "it stood for the office while it could not record"
    );
    stop.cancel();
    running.await.unwrap();
}
