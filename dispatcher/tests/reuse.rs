//! Answers by reuse, without running anything: how much of them goes into the tree at once.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use control::Control;
use coordination::{Recorder, Term, Worker};
use model::{
    Block, End, EntryName, FORMAT, Fingerprint, Job, JobId, JobSpec, JobState, Name, Outcome, Output,
    Payload, Processor,
    limits::{BUNDLE_SUBTASKS, RECORD_DOCUMENTS},
    outcome::{Past, Run},
    znode::{self, DoneData, EntryData, OwnedData, WorkerData},
};
use storage::{DoneItem, Store};
use testkit::{Space, wait};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Whatever happens here happens well before this.
const SOON: Duration = Duration::from_secs(60);
/// Of the only worker.
const SLOTS: u32 = 2;

/// A dispatcher in office, and a worker that does only what the test says.
struct Mill {
    space: Space,
    store: Store,
    control: Control,
    term: Term,
    worker: Worker,
    recorder: Recorder,
    stop: CancellationToken,
    roles: Vec<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Mill {
    async fn new() -> Self {
        let (space, folder) = (Space::new().await, tempfile::tempdir().unwrap());
        let url = format!("file://{}", folder.path().display());
        let store = Store::open(&storage::Config::new(space.mongodb(), url))
            .await
            .unwrap();
        store.init().await.unwrap();
        let term = Term::begin(&zookeeper(&space)).await.unwrap();
        let data = WorkerData {
            v: FORMAT,
            node: name("a"),
            host: "here".into(),
            process: uuid::Uuid::nil(),
            pid: 1,
            version: "0".into(),
            slots: SLOTS,
            capabilities: Vec::new(),
            sql: None,
            endpoint: None,
            zone: String::new(),
            protocol: 0,
            local_store: false,
            wake: 0,
            stop: Vec::new(),
        };
        Self {
            control: Control::open(zookeeper(&space), store.clone()),
            worker: Worker::register(&term, data).await.unwrap(),
            recorder: Recorder::new(&term),
            stop: CancellationToken::new(),
            roles: Vec::new(),
            _folder: folder,
            term,
            store,
            space,
        }
    }

    fn dispatch(&mut self) {
        let parts = dispatcher::Parts {
            zookeeper: zookeeper(&self.space),
            store: self.store.clone(),
        };
        let stop = self.stop.clone();
        self.roles.push(tokio::spawn(async move {
            dispatcher::run(dispatcher::Config::default(), parts, stop)
                .await
                .unwrap();
        }));
    }

    fn watch(&mut self) {
        let parts = watcher::Parts {
            zookeeper: zookeeper(&self.space),
            store: self.store.clone(),
        };
        let stop = self.stop.clone();
        self.roles.push(tokio::spawn(async move {
            watcher::run(watcher::Config::default(), parts, stop)
                .await
                .unwrap();
        }));
    }

    async fn end(self) {
        self.stop.cancel();
        for role in self.roles {
            role.await.unwrap();
        }
        self.term.close().await;
    }

    /// A dataset of `count` inline blocks, each its own number.
    async fn dataset(&self, count: u32) -> Name {
        let dataset = name("d");
        self.store.create(&dataset).await.unwrap();
        let blocks = (0..count).map(block).collect();
        self.store.append_blocks(&dataset, blocks).await.unwrap();
        dataset
    }

    async fn submit(&self, dataset: &Name, reuse: bool) -> JobId {
        let spec = JobSpec {
            reuse,
            ..JobSpec::new(dataset.clone(), Processor::Noop)
        };
        self.control.submit(spec).await.unwrap()
    }

    async fn job(&self, id: JobId) -> Job {
        self.store.job(id).await.unwrap().unwrap()
    }

    async fn until_state(&self, id: JobId, state: JobState) {
        wait::until_equal("the state of the job", SOON, state, async || {
            self.job(id).await.state
        })
        .await;
    }

    async fn done(&self) -> Vec<(EntryName, DoneData)> {
        let names = self.recorder.list_done().await.unwrap().entries;
        let read = self.recorder.read_done(&names).await.unwrap();
        let decoded = names.into_iter().zip(read);
        decoded
            .filter_map(|(name, data)| Some((name, znode::decode(&data?).unwrap())))
            .collect()
    }

    /// Takes all that waits and finishes it with a result that may be reused.
    async fn run_all(&self, entries: Vec<EntryName>) {
        let read = self.worker.read_unowned(&entries).await.unwrap();
        let data = read
            .into_iter()
            .map(|data| znode::decode::<EntryData>(&data.unwrap()).unwrap());
        let data: Vec<(EntryName, EntryData)> = entries.into_iter().zip(data).collect();
        let claims = data
            .iter()
            .map(|(name, data)| (name.clone(), OwnedData::from(data)));
        let claimed = self.worker.claim(claims.collect()).await.unwrap();
        assert_eq!(claimed.won.len(), data.len());
        let ends = data
            .into_iter()
            .map(|(name, data)| (name, succeeded(data.job, data.run.indexes())));
        self.worker.finish(ends.collect()).await.unwrap();
    }

    /// Does what a watcher does with these, in one transaction.
    async fn record(&self, done: Vec<(EntryName, DoneData)>) {
        let (names, data): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        record(&self.store, data).await;
        self.recorder.clear(names).await.unwrap();
    }
}

async fn record(store: &Store, data: Vec<DoneData>) {
    let items = data.into_iter().enumerate();
    let items = items.map(|(tag, data)| DoneItem { tag, data }).collect();
    assert_eq!(store.record(items).await.unwrap().refused, []);
}

fn zookeeper(space: &Space) -> coordination::Config {
    coordination::Config {
        connect: space.zookeeper(),
        session_timeout: Duration::from_secs(4),
        ..Default::default()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn block(number: u32) -> Block {
    Block::inline(format!("{number}\n"))
}

/// All of these subtasks succeeded, and may answer others.
fn succeeded(job: JobId, indexes: std::ops::Range<u32>) -> DoneData {
    let run = Run {
        first: indexes.start,
        count: indexes.end - indexes.start,
        attempt: 1,
    };
    let end = |index| End {
        first: index,
        count: 1,
        outcome: Outcome::Ok {
            output: Output::Inline(Payload::from("result")),
            fingerprint: Some(Fingerprint::of(&Processor::Noop, 0, &block(index)).to_string()),
            stderr_tail: String::new(),
        },
    };
    DoneData {
        v: FORMAT,
        job,
        run,
        past: Past::default(),
        node: None,
        busy_us: 1,
        ends: indexes.map(end).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_watcher_the_answers_of_reuse_stop_at_the_bound() {
    let mut mill = Mill::new().await;
    let bound = model::feed::bounds(SLOTS, dispatcher::Config::default().window_factor).in_flight;
    // More than are in flight at once, however they are bundled.
    let blocks = (bound as u32 + 4) * BUNDLE_SUBTASKS;
    let dataset = mill.dataset(blocks).await;
    let recorded = mill.submit(&dataset, true).await;
    let epoch = mill.store.take_epoch("test").await.unwrap();
    mill.store.admit(&[recorded], epoch).await.unwrap();
    for first in (0..blocks).step_by(RECORD_DOCUMENTS) {
        let end = blocks.min(first + RECORD_DOCUMENTS as u32);
        record(&mill.store, vec![succeeded(recorded, first..end)]).await;
    }
    mill.until_state(recorded, JobState::Successful).await;

    mill.dispatch();
    let reused = mill.submit(&dataset, true).await;
    wait::until_ok("what may be in flight", SOON, async || {
        match mill.done().await.len() {
            entries if entries >= bound => Ok(()),
            entries => Err(entries),
        }
    })
    .await;
    // Who admits the second of two jobs has fed after the first.
    for _ in 0..2 {
        let other = mill.submit(&dataset, false).await;
        mill.until_state(other, JobState::Staging).await;
    }
    let done = mill.done().await;
    assert_eq!(done.len(), bound);
    let subtasks: u32 = done.iter().map(|(_, data)| data.run.count).sum();
    assert_eq!(subtasks, bound as u32 * BUNDLE_SUBTASKS, "the entries are full");
    assert_eq!(mill.job(reused).await.counts.recorded(), 0);

    mill.watch();
    mill.until_state(reused, JobState::Successful).await;
    let counts = mill.job(reused).await.counts;
    assert_eq!(
        (counts.ok, counts.already),
        (u64::from(blocks), u64::from(blocks))
    );
    mill.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subtasks_that_waited_for_others_are_answered_together() {
    let mut mill = Mill::new().await;
    // As many as are fed at once.
    let blocks = model::feed::bounds(SLOTS, dispatcher::Config::default().window_factor).window as u32;
    let dataset = mill.dataset(blocks).await;
    mill.dispatch();
    let first = mill.submit(&dataset, true).await;
    let unowned = wait::until("all of the first job", SOON, async || {
        let listed = mill.worker.list_unowned().await.unwrap().entries;
        (listed.len() == blocks as usize).then_some(listed)
    })
    .await;
    let second = mill.submit(&dataset, true).await;
    mill.until_state(second, JobState::Staging).await;
    // Who admits another has fed after the second.
    for _ in 0..2 {
        let other = mill.submit(&dataset, true).await;
        mill.until_state(other, JobState::Staging).await;
    }
    mill.run_all(unowned).await;
    let done = mill.done().await;
    assert_eq!(done.len(), blocks as usize, "nothing was known of its run time");
    mill.record(done).await;
    mill.until_state(first, JobState::Successful).await;
    let answered = wait::until("the answers", SOON, async || {
        let done = mill.done().await;
        let ours: Vec<DoneData> = done
            .into_iter()
            .map(|(_, data)| data)
            .filter(|data| data.job == second)
            .collect();
        (!ours.is_empty()).then_some(ours)
    })
    .await;
    let all = Run {
        first: 0,
        count: blocks,
        attempt: 1,
    };
    let runs: Vec<Run> = answered.iter().map(|data| data.run).collect();
    assert_eq!(runs, [all]);
    mill.watch();
    mill.until_state(second, JobState::Successful).await;
    assert_eq!(mill.job(second).await.counts.executed, u64::from(blocks));
    mill.end().await;
}
