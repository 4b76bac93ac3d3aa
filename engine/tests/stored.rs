//! Blocks and partial results as the real stores give them.

#![allow(clippy::unwrap_used)]

mod support;

use std::{io::Write, path::Path};

use engine::{Engine, Product, Stop, Subtask};
use model::{
    Block, Counts, End, FORMAT, Failure, FailureKind, Job, JobId, JobSpec, JobState, Name, Outcome, Output,
    Parts, Payload, Processor,
    outcome::{Past, Run},
    parts::Source,
    processor::Command,
    znode::DoneData,
};
use storage::{Config, DoneItem, Spill, Store};
use testkit::Space;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LINES: &[u8] = b"one\ntwo\nthree\n";

struct Fresh {
    store: Store,
    engine: Engine,
    dataset: Name,
    folder: tempfile::TempDir,
    _space: Space,
}

impl Fresh {
    async fn new() -> Self {
        let space = Space::new().await;
        let folder = tempfile::tempdir().unwrap();
        let objects = format!("file://{}/objects", folder.path().display());
        let store = Store::open(&Config::new(space.mongodb(), objects)).await.unwrap();
        store.init().await.unwrap();
        let engine = Engine::new(
            engine::Guard::new(env!("CARGO_BIN_EXE_engine-guard")),
            folder.path(),
            engine::Memory {
                cache_bytes: 0,
                query_bytes: 256 << 20,
            },
        );
        Self {
            store,
            engine,
            dataset: "logs".parse().unwrap(),
            folder,
            _space: space,
        }
    }

    fn subtask(&self, job: JobId, index: u32) -> Subtask<'_> {
        Subtask {
            job,
            dataset: &self.dataset,
            table: 0,
            incarnation: None,
            block: index,
            index,
            attempt: 1,
        }
    }

    async fn block(&self, processor: &Processor, block: &Block) -> Result<Product, Stop> {
        let subtask = self.subtask(JobId(Uuid::now_v7()), 0);
        self.engine
            .run_block(subtask, processor, block, &self.store, &CancellationToken::new())
            .await
            .map(|printed| printed.product)
    }

    async fn merge(&self, job: JobId, processor: &Processor, count: u32) -> Result<Product, Stop> {
        let subtask = self.subtask(job, count);
        self.engine
            .run_merge(subtask, processor, &self.store, &CancellationToken::new())
            .await
            .map(|printed| printed.product)
    }

    async fn split(&self, path: &Path, size: u64) -> Vec<Block> {
        self.store.split(path.to_str().unwrap(), size).await.unwrap()
    }
}

fn command(map: &str, reduce: Option<&str>) -> Processor {
    let reduce = reduce.map(Into::into);
    Processor::Command(Command {
        map: map.into(),
        reduce,
        timeout_ms: Some(60_000),
        ..Command::default()
    })
}

fn compressed() -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(LINES).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(LINES).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(LINES).unwrap();
    vec![
        ("plain", LINES.to_vec()),
        ("gzip", gzip.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd::encode_all(LINES, 1).unwrap()),
    ]
}

#[tokio::test]
async fn blocks_are_fed_as_their_raw_lines() {
    let fresh = Fresh::new().await;
    let cat = command("cat", None);
    for (name, bytes) in compressed() {
        let path = fresh.folder.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        let blocks = fresh.split(&path, 1 << 20).await;
        assert_eq!(blocks.len(), 1, "{name}");
        let product = fresh.block(&cat, &blocks[0]).await.unwrap();
        assert_eq!(product.into_bytes().unwrap(), LINES, "{name}");
        if name != "plain" {
            // Cut in half after it was added: noticed at once. Cut in half before: noticed by who decompresses it.
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            let failure = fresh
                .block(&cat, &blocks[0])
                .await
                .unwrap_err()
                .failure()
                .unwrap();
            assert_eq!(failure.kind, FailureKind::Changed, "{name}: {}", failure.message);
            let blocks = fresh.split(&path, 1 << 20).await;
            let failure = fresh
                .block(&cat, &blocks[0])
                .await
                .unwrap_err()
                .failure()
                .unwrap();
            let kind = failure.kind;
            assert!(
                matches!(kind, FailureKind::Read | FailureKind::Changed),
                "{name}: {}",
                failure.message
            );
            assert!(failure.message.contains(name), "{}", failure.message);
        }
    }
    let plain = fresh.folder.path().join("plain");
    let mut all = Vec::new();
    for block in fresh.split(&plain, 5).await {
        all.push(fresh.block(&cat, &block).await.unwrap().into_bytes().unwrap());
    }
    assert!(all.len() > 1 && all.concat() == LINES, "{all:?}");
    assert_eq!(
        fresh
            .block(&cat, &Block::inline("x\n"))
            .await
            .unwrap()
            .into_bytes()
            .unwrap(),
        b"x\n"
    );
    assert_eq!(
        fresh
            .block(&Processor::Noop, &Block::inline("y"))
            .await
            .unwrap()
            .into_bytes()
            .unwrap(),
        b"y"
    );
    let blocks = fresh.split(&plain, 1 << 20).await;
    std::fs::remove_file(&plain).unwrap();
    let failure = fresh
        .block(&cat, &blocks[0])
        .await
        .unwrap_err()
        .failure()
        .unwrap();
    assert!(
        failure.kind == FailureKind::Missing && failure.message.contains("plain"),
        "{}",
        failure.message
    );
}

fn job(blocks: u32, processor: Processor) -> Job {
    Job {
        id: JobId(Uuid::now_v7()),
        spec: JobSpec::new("logs".parse().unwrap(), processor),
        parts: Parts::whole(vec![Source {
            id: Uuid::from_u128(1),
            blocks,
            ..Source::default()
        }])
        .unwrap(),
        blocks,
        state: JobState::Pending,
        counts: Counts::default(),
        low_water: 0,
        cancel_requested: false,
        error: None,
        submitted_ms: 1,
        admitted_ms: None,
        finished_ms: None,
        submitted_by: None,
    }
}

#[tokio::test]
async fn a_merge_gets_all_partial_results_in_order() {
    const COUNT: u32 = 2500;
    const MISSING: u32 = 1700;
    let fresh = Fresh::new().await;
    let processor = command("true", Some("cat"));
    let job = job(COUNT, processor.clone());
    let id = job.id;
    fresh.store.submit(vec![job]).await.unwrap();
    let epoch = fresh.store.take_epoch("test").await.unwrap();
    fresh.store.admit(&[id], epoch).await.unwrap();
    let large = vec![b'L'; 3 << 20];
    let stored = fresh
        .store
        .put_output(id, "0-1", Spill::Bytes(large.clone()))
        .await
        .unwrap();
    let outcome = |index: u32| match index {
        7 => Outcome::Dead(Failure::new(FailureKind::Exit, "map command exited with code 1")),
        1100 => Outcome::Ok {
            output: stored.clone(),
            fingerprint: None,
            stderr_tail: String::new(),
        },
        _ => Outcome::Ok {
            output: Output::Inline(Payload(format!("{index}\n").into())),
            fingerprint: None,
            stderr_tail: String::new(),
        },
    };
    let record = |first: u32, count: u32| {
        let ends = (first..first + count)
            .map(|first| End {
                first,
                count: 1,
                outcome: outcome(first),
            })
            .collect();
        let run = Run {
            first,
            count,
            attempt: 1,
        };
        let data = DoneData {
            v: FORMAT,
            job: id,
            run,
            past: Past::default(),
            node: None,
            busy_us: 1,
            ends,
        };
        let store = fresh.store.clone();
        async move { store.record(vec![DoneItem { tag: 0, data }]).await.unwrap() }
    };
    for (first, count) in [(0, 1000), (1000, 700), (MISSING + 1, COUNT - MISSING - 1)] {
        record(first, count).await;
    }
    let failure = fresh
        .merge(id, &processor, COUNT)
        .await
        .unwrap_err()
        .failure()
        .unwrap();
    assert_eq!(failure.kind, FailureKind::Read);
    assert_eq!(
        failure.message,
        format!("partial result {MISSING} of job {id} is missing")
    );
    record(MISSING, 1).await;
    let merged = fresh
        .merge(id, &processor, COUNT)
        .await
        .unwrap()
        .into_bytes()
        .unwrap();
    let expected: Vec<u8> = (0..COUNT)
        .flat_map(|index| match index {
            7 => Vec::new(),
            1100 => large.clone(),
            _ => format!("{index}\n").into_bytes(),
        })
        .collect();
    assert!(
        merged == expected,
        "{} bytes instead of {}",
        merged.len(),
        expected.len()
    );
    assert_eq!(
        fresh
            .merge(id, &command("true", Some("wc -c")), 0)
            .await
            .unwrap()
            .into_bytes()
            .unwrap(),
        b"0\n"
    );
    let failure = fresh
        .merge(id, &Processor::Noop, COUNT)
        .await
        .unwrap_err()
        .failure()
        .unwrap();
    assert_eq!(failure.kind, FailureKind::Refused);
}
