//! Through a real MongoDB: each test has a database of its own.

use futures::TryStreamExt;
use model::{
    Counts, End, Failure, FailureKind, Job, JobId, JobSpec, JobState, Name, Outcome, Output, Parts, Payload,
    Priority, Processor,
    outcome::{Past, Run},
    parts::{Edition, Source},
    processor::Command,
    znode::DoneData,
};
use tempfile::TempDir;
use testkit::Space;
use uuid::Uuid;

use crate::{Config, DoneItem, Epoch, Partial, Store};

mod amending;
mod answers;
mod bench;
mod clocks;
mod compacting;
mod connecting;
mod data;
mod formats;
mod leading;
mod learning;
mod leaving;
mod placing;
mod protected;
mod pruning;
mod recording;
mod reusing;
mod shipping;
mod viewing;

/// A store over a fresh database and a fresh folder.
struct Fresh {
    store: Store,
    space: Space,
    folder: TempDir,
}

impl Fresh {
    async fn new() -> Self {
        let space = Space::new().await;
        let folder = TempDir::new().unwrap();
        let store = Store::open(&config(&space, &folder)).await.unwrap();
        store.init().await.unwrap();
        Self { store, space, folder }
    }

    /// A second connection, as another process has.
    async fn other(&self) -> Store {
        Store::open(&config(&self.space, &self.folder)).await.unwrap()
    }

    /// A submitted and admitted job over `blocks` blocks.
    async fn admitted(&self, blocks: u32, merges: bool) -> JobId {
        let job = job(blocks, merges);
        let id = job.id;
        self.store.submit(vec![job]).await.unwrap();
        let epoch = self.store.take_epoch("test").await.unwrap();
        self.store.admit(&[id], epoch).await.unwrap();
        id
    }

    async fn job(&self, id: JobId) -> Job {
        self.store.job(id).await.unwrap().unwrap()
    }

    async fn counts(&self, id: JobId) -> Counts {
        self.job(id).await.counts
    }

    async fn record(&self, data: Vec<DoneData>) {
        let recorded = self.store.record(items(data)).await.unwrap();
        assert_eq!(recorded.refused, []);
    }

    async fn partials(&self, id: JobId) -> Vec<Partial> {
        self.store
            .outputs(id, 0..u32::MAX)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap()
    }

    async fn indexes(&self, id: JobId) -> Vec<u32> {
        self.store.result_ids_from(id, 0).await.unwrap()
    }

    /// Documents in a collection, seen past the store.
    async fn documents(&self, collection: &str) -> u64 {
        self.store
            .documents(collection)
            .count_documents(bson::doc! {})
            .await
            .unwrap()
    }
}

fn config(space: &Space, folder: &TempDir) -> Config {
    Config::new(space.mongodb(), crate::files::url_of(folder.path()).unwrap())
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// All of a dataset.
fn whole(id: Uuid, blocks: u32) -> Parts {
    let source = Source {
        id,
        blocks,
        ..Source::default()
    };
    Parts::whole(vec![source]).unwrap()
}

/// A dataset as nothing of it was compacted.
fn edition(dataset: Uuid) -> Edition {
    Edition {
        dataset,
        generation: 0,
    }
}

fn job(blocks: u32, merges: bool) -> Job {
    let reduce = merges.then(|| "cat".to_string());
    let command = Command {
        map: "wc -l".into(),
        reduce,
        timeout_ms: Some(5),
        output_limit_bytes: 1 << 40,
        ok_exit: vec![1],
        env: [("A".to_string(), "b".to_string())].into(),
        ..Command::default()
    };
    Job {
        id: JobId(Uuid::now_v7()),
        spec: JobSpec {
            reuse: true,
            max_failed: 7,
            ..JobSpec::new(name("logs"), Processor::Command(command))
        },
        parts: whole(Uuid::from_u128(1), blocks),
        blocks,
        state: JobState::Pending,
        counts: Counts::default(),
        low_water: 0,
        cancel_requested: false,
        error: None,
        submitted_ms: 1_700_000_000_123,
        admitted_ms: None,
        finished_ms: None,
        submitted_by: Some("user anna".to_string()),
    }
}

fn items(data: Vec<DoneData>) -> Vec<DoneItem> {
    data.into_iter()
        .enumerate()
        .map(|(tag, data)| DoneItem { tag, data })
        .collect()
}

fn inline(text: &str) -> Output {
    Output::Inline(Payload::from(text))
}

fn ok(text: &str) -> Outcome {
    Outcome::Ok {
        output: inline(text),
        fingerprint: None,
        stderr_tail: String::new(),
    }
}

fn failure(message: &str) -> Failure {
    Failure {
        exit_code: Some(2),
        stderr_tail: "no such file".into(),
        ..Failure::new(FailureKind::Exit, message)
    }
}

fn end(first: u32, count: u32, outcome: Outcome) -> End {
    End {
        first,
        count,
        outcome,
    }
}

/// An entry of attempt `attempt` that met these ends, which took a millisecond.
fn done(job: JobId, attempt: u32, ends: Vec<End>) -> DoneData {
    let first = ends.first().map_or(0, |end| end.first);
    let count = ends.iter().map(|end| end.count).sum();
    DoneData {
        v: model::FORMAT,
        job,
        run: Run {
            first,
            count,
            attempt,
        },
        past: Past::default(),
        node: Some(name("web7")),
        busy_us: 1000,
        ends,
    }
}

/// An entry of `count` successful subtasks from `first` on.
fn succeeded(job: JobId, first: u32, count: u32) -> DoneData {
    let ends = (first..first + count)
        .map(|index| end(index, 1, ok(&format!("result {index}"))))
        .collect();
    done(job, 1, ends)
}

fn epoch(number: u64) -> Epoch {
    Epoch(number)
}
