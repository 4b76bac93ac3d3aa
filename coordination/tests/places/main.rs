//! The three places on a real ZooKeeper: each step, each lost reply, each zombie.

// Clippy sees only functions marked as tests as tests; these are their helpers.
#![allow(clippy::unwrap_used)]

mod clients;
mod lost_replies;
mod race;
mod rights;
mod sizes;
mod steps;
mod strange;
mod terms;
mod tls;

use std::time::Duration;

use coordination::{Candidacy, Config, Leader, NewEntry, Office, Place, Term, Worker};
use model::{
    FORMAT, Name,
    entry::{EntryName, Priority, Spot},
    job::JobId,
    outcome::{End, Outcome, Past, Run},
    znode::{self, CandidateData, DoneData, OwnedData, WorkerData},
};
use testkit::{Space, proxy::Proxy};

/// For conditions that a busy machine may delay.
const SOON: Duration = Duration::from_secs(20);

fn config(connect: impl Into<String>) -> Config {
    Config {
        connect: connect.into(),
        session_timeout: Duration::from_secs(4),
        ..Config::default()
    }
}

async fn begin(space: &Space) -> Term {
    Term::begin(&config(space.zookeeper())).await.unwrap()
}

async fn begin_through(space: &Space, proxy: &Proxy) -> Term {
    Term::begin(&config(space.zookeeper_through(proxy.address())))
        .await
        .unwrap()
}

fn candidate_data() -> CandidateData {
    CandidateData {
        v: FORMAT,
        host: "here".into(),
        pid: 1,
        version: "0".into(),
        gateway: None,
    }
}

async fn candidate(term: &Term) -> Candidacy {
    Candidacy::enter(term, Office::Dispatcher, &candidate_data())
        .await
        .unwrap()
}

async fn leader(term: &Term) -> Leader {
    let candidacy = candidate(term).await;
    candidacy.until_leading().await.unwrap();
    Leader::take_office(term, &candidacy).await.unwrap()
}

fn worker_data(node: &str) -> WorkerData {
    WorkerData {
        v: FORMAT,
        node: Name::new(node).unwrap(),
        host: "here".into(),
        pid: 1,
        process: uuid::Uuid::nil(),
        version: "0".into(),
        slots: 2,
        capabilities: Vec::new(),
        sql: None,
        endpoint: None,
        zone: String::new(),
        protocol: 0,
        local_store: false,
        wake: 0,
        stop: Vec::new(),
    }
}

async fn worker(term: &Term) -> Worker {
    Worker::register(term, worker_data("node")).await.unwrap()
}

fn owned(first: u32) -> OwnedData {
    let run = Run {
        first,
        count: 1,
        attempt: 1,
    };
    OwnedData {
        v: FORMAT,
        job: JobId(uuid::Uuid::nil()),
        run,
        past: Past::default(),
    }
}

fn done_with(data: &OwnedData, outcome: Outcome) -> DoneData {
    let ends = vec![End {
        first: data.run.first,
        count: data.run.count,
        outcome,
    }];
    DoneData {
        v: FORMAT,
        job: data.job,
        run: data.run,
        past: data.past.clone(),
        node: None,
        busy_us: 0,
        ends,
    }
}

fn returned(data: &OwnedData) -> DoneData {
    done_with(data, Outcome::Returned)
}

fn new_entry(block: u32) -> NewEntry {
    NewEntry {
        priority: Priority::DEFAULT,
        dataset: Name::new("d").unwrap(),
        spot: Spot::Block(block),
        host: None,
        place: Place::Unowned,
        data: znode::encode(&owned(block)),
    }
}

fn new_entries(count: u32) -> Vec<NewEntry> {
    (0..count).map(new_entry).collect()
}

fn block(name: &EntryName) -> u32 {
    match name.spot {
        Spot::Block(block) => block,
        Spot::Merge => u32::MAX,
    }
}

fn to_claim(names: &[EntryName]) -> Vec<(EntryName, OwnedData)> {
    names
        .iter()
        .map(|name| (name.clone(), owned(block(name))))
        .collect()
}

fn to_finish(names: &[EntryName]) -> Vec<(EntryName, DoneData)> {
    names
        .iter()
        .map(|name| (name.clone(), returned(&owned(block(name)))))
        .collect()
}

fn sorted(mut names: Vec<EntryName>) -> Vec<EntryName> {
    names.sort();
    names
}

/// Names under a folder of the tree, sorted.
async fn below(space: &Space, folder: &str) -> Vec<String> {
    let prefix = format!("{folder}/");
    let tree = space.tree().await;
    tree.keys()
        .filter_map(|path| path.strip_prefix(&prefix))
        .map(str::to_string)
        .collect()
}

/// Compiles: what the roles spawn can be spawned.
#[allow(dead_code)]
fn all_futures_are_send(term: &Term, leader: &mut Leader, worker: &Worker, candidacy: &Candidacy) {
    fn send<T: Send>(_: T) {}
    send(Term::begin(&config("")));
    send(term.clone().close());
    send(leader.feed(Vec::new(), &[]));
    send(leader.census());
    send(leader.recovery().recover(worker.number(), returned));
    send(leader.revoke(Vec::new()));
    send(Leader::take_office(term, candidacy));
    send(Worker::register(term, worker_data("node")));
    send(worker.claim(Vec::new()));
    send(worker.finish(Vec::new()));
    send(worker.woken());
    send(worker.members());
    send(worker.clone().resign());
    send(candidacy.lost());
    send(candidacy.peers());
    send(candidacy.clone().withdraw());
    send(coordination::Recorder::new(term).until_done_changes());
    send(coordination::Snapshot::take(term));
    send(coordination::recreate(term, false));
    send(coordination::servers(&config("")));
}
