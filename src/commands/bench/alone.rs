//! What ZooKeeper and MongoDB do alone, with nobody deciding anything: the ceiling of the mill on this machine.

use std::time::{Duration, Instant};

use anyhow::ensure;
use coordination::{Candidacy, Leader, NewEntry, Office, Place, Recorder, Term, Worker};
use model::{
    Counts, End, EntryName, FORMAT, Job, JobId, JobState, Name, Outcome, Output, Payload, Priority,
    Processor, Run, Spot,
    block::Content,
    limits::RECORD_DOCUMENTS,
    outcome::Past,
    parts::Source,
    znode::{self, CandidateData, DoneData, EntryData, OwnedData, WorkerData},
};
use serde::Serialize;
use storage::{DoneItem, Store};
use uuid::Uuid;

use super::{sample::rate, workload};
use crate::roles::Parts;

/// Entries handed to one call: its multis are pipelined.
const ENTRIES: u32 = 4000;

/// What ZooKeeper alone did, in entries per second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct ZooKeeperAlone {
    /// How many entries were created, moved twice and deleted, one subtask each.
    pub(super) entries: u32,
    /// Creating them.
    pub(super) create_per_s: f64,
    /// Moving them from unowned to owned.
    pub(super) claim_per_s: f64,
    /// Moving them from owned to done.
    pub(super) finish_per_s: f64,
    /// Deleting them.
    pub(super) delete_per_s: f64,
    /// All four, one after the other.
    pub(super) all_per_s: f64,
}

/// A leader, a worker and a recorder without a mill around them.
pub(super) struct Hands {
    pub(super) leader: Leader,
    pub(super) worker: Worker,
    pub(super) recorder: Recorder,
    candidacy: Candidacy,
    term: Term,
}

impl Hands {
    /// Takes the offices in a chroot where nobody else works.
    pub(super) async fn take(zookeeper: &coordination::Config) -> anyhow::Result<Self> {
        let term = Term::begin(zookeeper).await?;
        let (host, version) = ("bench".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let pid = std::process::id();
        let candidate = CandidateData {
            v: FORMAT,
            host: host.clone(),
            pid,
            version: version.clone(),
            gateway: None,
        };
        let candidacy = Candidacy::enter(&term, Office::Dispatcher, &candidate).await?;
        candidacy.until_leading().await?;
        let leader = Leader::take_office(&term, &candidacy).await?;
        let node = Name::new("bench")?;
        let data = WorkerData {
            v: FORMAT,
            node,
            host,
            pid,
            process: uuid::Uuid::nil(),
            version,
            slots: 1,
            capabilities: Vec::new(),
            sql: None,
            endpoint: None,
            zone: String::new(),
            protocol: 0,
            local_store: false,
            wake: 0,
            stop: Vec::new(),
        };
        let worker = Worker::register(&term, data).await?;
        let recorder = Recorder::new(&term);
        Ok(Self {
            leader,
            worker,
            recorder,
            candidacy,
            term,
        })
    }

    /// Leaves the offices.
    pub(super) async fn leave(self) -> anyhow::Result<()> {
        self.worker.resign().await?;
        self.candidacy.withdraw().await;
        self.term.close().await;
        Ok(())
    }
}

/// Entries of one subtask and all that their way through the three places needs.
pub(super) struct Load {
    job: JobId,
    dataset: Name,
    payload: usize,
}

impl Load {
    pub(super) fn new(payload: usize) -> anyhow::Result<Self> {
        Ok(Self {
            job: JobId(Uuid::now_v7()),
            dataset: Name::new("alone")?,
            payload,
        })
    }

    pub(super) fn entry(&self, index: u32) -> NewEntry {
        let data = EntryData {
            v: FORMAT,
            job: self.job,
            run: run(index),
            past: Past::default(),
            processor: Processor::Noop,
            max_attempts: 3,
            reuse: false,
            skip_missing: false,
            avoid: Vec::new(),
            at: None,
            blocks: vec![workload::block(index, self.payload)],
        };
        let data = znode::encode(&data);
        let (dataset, spot) = (self.dataset.clone(), Spot::Block(index));
        NewEntry {
            priority: Priority::DEFAULT,
            dataset,
            spot,
            host: None,
            place: Place::Unowned,
            data,
        }
    }

    pub(super) fn owned(&self, index: u32) -> OwnedData {
        OwnedData {
            v: FORMAT,
            job: self.job,
            run: run(index),
            past: Past::default(),
        }
    }

    pub(super) fn done(&self, index: u32) -> DoneData {
        done(self.job, vec![index], self.payload)
    }
}

fn run(index: u32) -> Run {
    Run {
        first: index,
        count: 1,
        attempt: 1,
    }
}

/// The ends of consecutive subtasks, as a no-op gives them.
pub(super) fn done(job: JobId, indexes: Vec<u32>, payload: usize) -> DoneData {
    let first = indexes.first().copied().unwrap_or_default();
    let ends = indexes.iter().map(|&index| {
        let payload = match workload::block(index, payload).content {
            Content::Inline(payload) => payload,
            Content::Object { .. } => Payload::default(),
        };
        let outcome = Outcome::Ok {
            output: Output::Inline(payload),
            fingerprint: None,
            stderr_tail: String::new(),
        };
        End {
            first: index,
            count: 1,
            outcome,
        }
    });
    DoneData {
        v: FORMAT,
        job,
        run: Run {
            first,
            count: u32::try_from(indexes.len()).unwrap_or(u32::MAX),
            attempt: 1,
        },
        past: Past::default(),
        node: None,
        busy_us: 0,
        ends: ends.collect(),
    }
}

/// Creates, moves twice and deletes `entries` entries of one subtask, in pipelined multis.
pub(super) async fn zookeeper(parts: &Parts, entries: u32, payload: usize) -> anyhow::Result<ZooKeeperAlone> {
    let mut hands = Hands::take(&parts.zookeeper).await?;
    let load = Load::new(payload)?;
    let mut took = [Duration::ZERO; 4];
    for from in (0..entries).step_by(ENTRIES as usize) {
        let indexes = from..entries.min(from + ENTRIES);
        let new = indexes.clone().map(|index| load.entry(index)).collect();
        let begin = Instant::now();
        let names = hands.leader.feed(new, &[]).await?;
        took[0] += begin.elapsed();
        let owned = names
            .iter()
            .cloned()
            .zip(indexes.clone().map(|index| load.owned(index)))
            .collect();
        let begin = Instant::now();
        let claimed = hands.worker.claim(owned).await?;
        took[1] += begin.elapsed();
        ensure!(
            claimed.won.len() == indexes.len(),
            "somebody else claimed entries of the bench"
        );
        let ends: Vec<(EntryName, DoneData)> = names
            .iter()
            .cloned()
            .zip(indexes.map(|index| load.done(index)))
            .collect();
        let begin = Instant::now();
        hands.worker.finish(ends).await?;
        took[2] += begin.elapsed();
        let begin = Instant::now();
        hands.recorder.clear(names).await?;
        took[3] += begin.elapsed();
    }
    hands.leave().await?;
    let [create_per_s, claim_per_s, finish_per_s, delete_per_s] = took.map(|took| rate(entries.into(), took));
    let all_per_s = rate(entries.into(), took.iter().sum());
    Ok(ZooKeeperAlone {
        entries,
        create_per_s,
        claim_per_s,
        finish_per_s,
        delete_per_s,
        all_per_s,
    })
}

/// What MongoDB alone did, per second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct MongoAlone {
    /// Submitting jobs.
    pub(super) submit_per_s: f64,
    /// Admitting them.
    pub(super) admit_per_s: f64,
    /// Recording the ends of their subtasks.
    pub(super) record_per_s: f64,
    /// All that, one after the other: subtasks, or jobs of one.
    pub(super) all_per_s: f64,
}

pub(super) fn job(dataset: &Name, subtasks: u32) -> Job {
    Job {
        id: JobId(Uuid::now_v7()),
        spec: workload::noop(dataset),
        parts: model::Parts::whole(vec![Source {
            blocks: subtasks,
            ..Source::default()
        }])
        .expect("one dataset is never too large"),
        blocks: subtasks,
        state: JobState::Pending,
        counts: Counts::default(),
        low_water: 0,
        cancel_requested: false,
        error: None,
        submitted_ms: jiff::Timestamp::now().as_millisecond(),
        admitted_ms: None,
        finished_ms: None,
        submitted_by: None,
    }
}

/// Submits, admits and records `jobs` jobs of `subtasks` subtasks each, in full transactions, without any ZooKeeper.
pub(super) async fn mongodb(
    store: &Store,
    jobs: u32,
    subtasks: u32,
    payload: usize,
) -> anyhow::Result<MongoAlone> {
    let dataset = Name::new("alone")?;
    let new: Vec<Job> = (0..jobs).map(|_| job(&dataset, subtasks)).collect();
    let ids: Vec<JobId> = new.iter().map(|job| job.id).collect();
    let begin = Instant::now();
    store.submit(new).await?;
    let submit = begin.elapsed();
    let epoch = store.take_epoch("bench").await?;
    let begin = Instant::now();
    store.admit(&ids, epoch).await?;
    let admit = begin.elapsed();
    let record = record(store, &ids, subtasks, payload).await?;
    let recorded = store.job(ids[0]).await?.map_or(0, |job| job.counts.ok);
    ensure!(
        recorded == u64::from(subtasks),
        "MongoDB alone recorded {recorded} of {subtasks}"
    );
    let all = u64::from(jobs) * u64::from(subtasks);
    Ok(MongoAlone {
        submit_per_s: rate(jobs.into(), submit),
        admit_per_s: rate(jobs.into(), admit),
        record_per_s: rate(all, record),
        all_per_s: rate(all, submit + admit + record),
    })
}

/// Records the ends of all subtasks, as many in a transaction as fit; the time of the transactions alone.
async fn record(store: &Store, ids: &[JobId], subtasks: u32, payload: usize) -> anyhow::Result<Duration> {
    let mut took = Duration::ZERO;
    let mut items = Vec::new();
    let mut documents = 0;
    let indexes: Vec<u32> = (0..subtasks).collect();
    let ends = ids
        .iter()
        .flat_map(|&id| indexes.chunks(RECORD_DOCUMENTS).map(move |batch| (id, batch)));
    let mut ends = ends.peekable();
    while let Some((id, batch)) = ends.next() {
        documents += batch.len();
        items.push(DoneItem {
            tag: items.len(),
            data: done(id, batch.to_vec(), payload),
        });
        let next = ends.peek().map_or(RECORD_DOCUMENTS, |(_, batch)| batch.len());
        if documents + next > RECORD_DOCUMENTS {
            let begin = Instant::now();
            store.record(std::mem::take(&mut items)).await?;
            took += begin.elapsed();
            documents = 0;
        }
    }
    if !items.is_empty() {
        let begin = Instant::now();
        store.record(items).await?;
        took += begin.elapsed();
    }
    Ok(took)
}
