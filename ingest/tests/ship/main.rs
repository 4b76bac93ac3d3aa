//! Agents ship to a worker: through real gRPC, ZooKeeper and MongoDB.

// Clippy sees only functions marked as tests as tests; these are their helpers.
#![allow(clippy::unwrap_used)]

mod agent;

use std::time::Duration;

use api::{
    transport::Security,
    v1::{BlockRefusal, LeaveReason, NodePlacement, ShipHello},
};
use coordination::{Candidacy, Leader, Office, Term, Worker};
use model::{
    FORMAT, Name,
    znode::{CandidateData, WorkerData},
};
use storage::Store;
use tempfile::TempDir;
use testkit::{Space, proxy::Proxy, wait};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use agent::{Agent, Heard, block};

/// For conditions that a busy machine may delay.
const SOON: Duration = Duration::from_secs(20);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A worker that takes blocks, a leader, and the stores.
struct Yard {
    space: Space,
    folder: TempDir,
    store: Store,
    /// Of the leader, which holds waiting agents too.
    term: Term,
    leader: Leader,
    worker: Worker,
    open: Option<ingest::Open>,
    address: String,
    stop: CancellationToken,
}

fn zookeeper(space: &Space) -> coordination::Config {
    coordination::Config {
        connect: space.zookeeper(),
        session_timeout: Duration::from_secs(4),
        ..coordination::Config::default()
    }
}

impl Yard {
    async fn new() -> Self {
        Self::within(ingest::Limits::default()).await
    }

    async fn within(limits: ingest::Limits) -> Self {
        let space = Space::new().await;
        let folder = TempDir::new().unwrap();
        let url = format!("file://{}", folder.path().display());
        let store = Store::open(&storage::Config::new(space.mongodb(), url))
            .await
            .unwrap();
        store.init().await.unwrap();
        let config = zookeeper(&space);
        let term = Term::begin(&config).await.unwrap();
        let candidate = CandidateData {
            v: FORMAT,
            host: "here".into(),
            pid: 1,
            version: "0".into(),
            gateway: None,
        };
        let candidacy = Candidacy::enter(&term, Office::Dispatcher, &candidate)
            .await
            .unwrap();
        candidacy.until_leading().await.unwrap();
        let leader = Leader::take_office(&term, &candidacy).await.unwrap();
        let receiver = ingest::Receiver::bind(ingest::Config {
            listen: "127.0.0.1:0".into(),
            advertise: None,
            host: "here".into(),
            node: name("node1"),
            security: Security::Plain,
            limits,
        });
        let receiver = receiver.await.unwrap();
        let address = receiver.address();
        let data = WorkerData {
            v: FORMAT,
            node: name("node1"),
            host: "here".into(),
            pid: 1,
            process: uuid::Uuid::nil(),
            version: "0".into(),
            slots: 1,
            capabilities: Vec::new(),
            sql: None,
            endpoint: Some(address.clone()),
            zone: String::new(),
            protocol: api::PROTOCOL,
            local_store: false,
            wake: 0,
            stop: Vec::new(),
        };
        let own = Term::begin(&config).await.unwrap();
        let worker = Worker::register(&own, data).await.unwrap();
        let (post, stop) = (ingest::Post::default(), CancellationToken::new());
        let open = Some(post.open(worker.clone()));
        tokio::spawn(receiver.run(
            store.clone(),
            post,
            tonic::service::Routes::default(),
            stop.clone(),
        ));
        Self {
            space,
            folder,
            store,
            term,
            leader,
            worker,
            open,
            address,
            stop,
        }
    }

    async fn lines(&self, dataset: &str) -> Vec<String> {
        use std::io::Read;
        let Some(dataset) = self.store.get(&name(dataset)).await.unwrap() else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        for block in self
            .store
            .blocks(dataset.edition(), 0..dataset.blocks)
            .await
            .unwrap()
        {
            let mut text = String::new();
            let mut reader = self.store.reader(&block).await.unwrap();
            reader.read_to_string(&mut text).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }

    /// Agents that the worker holds.
    async fn held(&self) -> usize {
        self.worker.clients().await.unwrap().len()
    }

    async fn until_released(&self) {
        wait::until_equal("the agent to be let go of", SOON, 0, async || self.held().await).await;
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn numbered(count: u64) -> Vec<String> {
    (1..=count).map(|n| format!("line {n}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_are_stored_in_order_and_once() {
    let yard = Yard::new().await;
    let mut agent = Agent::welcome(&yard, 1, 2).await;
    assert_eq!(agent.marks, []);
    for sequence in 1..=10 {
        agent.send(block("access", sequence)).await;
    }
    agent.until_stored("access", 10).await;
    assert_eq!(yard.lines("access").await, numbered(10));
    // Sent again, beyond what comes next, broken, and no block at all.
    agent.send(block("access", 4)).await;
    assert_eq!(agent.hear().await, Heard::Stored("access".into(), 10));
    agent.send(block("access", 13)).await;
    assert_eq!(agent.hear().await, Heard::Refused(13, BlockRefusal::Order));
    let (header, mut bytes) = block("access", 11);
    *bytes.last_mut().unwrap() ^= 1;
    agent.send((header, bytes)).await;
    assert_eq!(agent.hear().await, Heard::Refused(11, BlockRefusal::Corrupt));
    agent.send(agent::raw("access", 11, b"no zstd")).await;
    assert_eq!(agent.hear().await, Heard::Refused(11, BlockRefusal::Corrupt));
    // Small as stored, and more than it says for whoever reads it.
    let (mut header, bytes) = block("access", 11);
    header.raw_bytes += 1;
    agent.send((header, bytes)).await;
    assert_eq!(agent.hear().await, Heard::Refused(11, BlockRefusal::Corrupt));
    agent.send(block("access", 11)).await;
    agent.until_stored("access", 11).await;
    // The marks that are told below are those of both.
    agent.send(block("errors.log", 1)).await;
    agent.until_stored("errors.log", 1).await;
    assert_eq!(yard.lines("access").await, numbered(11));

    // A new connection is told what is registered; the one before is told that it is over.
    let mut next = Agent::connect(&yard.address, 1, 3, yard.worker.number().0).await;
    assert_eq!(next.hear().await, Heard::Welcome);
    assert_eq!(
        next.marks,
        [("access".to_string(), 11), ("errors.log".to_string(), 1)]
    );
    assert_eq!(agent.until_leave().await, LeaveReason::Replaced);
    next.send(block("access", 11)).await;
    next.send(block("access", 12)).await;
    next.until_stored("access", 12).await;
    assert_eq!(yard.lines("access").await, numbered(12));

    // What is under way is answered after the agent has said its last.
    next.send(block("access", 13)).await;
    next.finish();
    next.until_stored("access", 13).await;
    assert_eq!(next.hear().await, Heard::End);
    yard.until_released().await;
    let shipped = yard.store.shipped(Some(&name("web7"))).await.unwrap();
    assert_eq!(shipped[0].total.lines, 13);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_sent_away_at_once_when_it_is_held_no_more() {
    let mut yard = Yard::new().await;
    let mut agent = Agent::welcome(&yard, 1, 2).await;
    let number = yard.worker.number();
    assert!(yard.leader.move_client(number, &name("web7")).await.unwrap());
    assert_eq!(agent.until_leave().await, LeaveReason::Moved);
    // A connection that breaks lets go of it.
    let mut agent = Agent::welcome(&yard, 1, 4).await;
    agent.send(block("access", 1)).await;
    agent.until_stored("access", 1).await;
    drop(agent);
    yard.until_released().await;
    // One that is only silent too: no packet tells that the other end has gone.
    let proxy = Proxy::plain(yard.address.clone()).await;
    let token_of = |address: &str| api::transport::token_file(address.parse().unwrap()).unwrap();
    let lent = token_of(&proxy.address());
    std::fs::copy(token_of(&yard.address), &lent).unwrap();
    Agent::offer(&yard, 1, 5).await;
    let mut agent = Agent::connect(&proxy.address(), 1, 6, number.0).await;
    assert_eq!(agent.hear().await, Heard::Welcome);
    assert_eq!(yard.held().await, 1);
    std::fs::remove_file(lent).unwrap();
    proxy.stall();
    yard.until_released().await;
    // The worker stops.
    let mut agent = Agent::welcome(&yard, 1, 8).await;
    let open = yard.open.take().unwrap();
    let ((), why) = tokio::join!(open.close(), agent.until_leave());
    assert_eq!((why, yard.held().await), (LeaveReason::Stopping, 0));
    let mut late = Agent::connect(&yard.address, 1, 9, number.0).await;
    assert_eq!(late.hear().await, Heard::Error(Code::Unavailable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_is_refused() {
    let yard = Yard::new().await;
    let number = yard.worker.number().0;
    let refused = async |instance, incarnation, worker| {
        let mut agent = Agent::connect(&yard.address, instance, incarnation, worker).await;
        agent.hear().await
    };
    assert_eq!(
        refused(1, 1, number).await,
        Heard::Error(Code::FailedPrecondition),
        "not offered"
    );
    // What ships once is told before it reads anything that no node keeps its blocks; an agent waits for one.
    Agent::offer(&yard, 1, 1).await;
    let placed = |once| ShipHello {
        once,
        placement: Some(NodePlacement {
            copies: 1,
            ..NodePlacement::default()
        }),
        ..Agent::hello(1, 2, number)
    };
    let mut once = Agent::connect_to(&yard.address, placed(true)).await;
    assert_eq!(once.hear().await, Heard::Error(Code::FailedPrecondition));
    assert_eq!(yard.held().await, 0);
    let mut agent = Agent::connect_to(&yard.address, placed(false)).await;
    assert_eq!(agent.hear().await, Heard::Welcome);
    assert_eq!(
        refused(1, 3, number + 1).await,
        Heard::Error(Code::FailedPrecondition),
        "another worker"
    );
    assert_eq!(
        refused(2, 9, number).await,
        Heard::Error(Code::AlreadyExists),
        "another instance"
    );
    assert_eq!(
        refused(1, 1, number).await,
        Heard::Error(Code::Aborted),
        "an old connection"
    );
    agent.send(block("../up", 1)).await;
    assert_eq!(agent.hear().await, Heard::Error(Code::InvalidArgument));
    yard.until_released().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_takes_nothing_registers_nothing() {
    let yard = Yard::new().await;
    let mut agent = Agent::welcome(&yard, 1, 2).await;
    let taken = yard.folder.path().join("blocks");
    std::fs::write(&taken, b"in the way").unwrap();
    agent.send(block("access", 1)).await;
    assert_eq!(agent.hear().await, Heard::Refused(1, BlockRefusal::Store));
    assert_eq!(yard.store.get(&name("access")).await.unwrap(), None);
    std::fs::remove_file(&taken).unwrap();
    agent.send(block("access", 1)).await;
    agent.until_stored("access", 1).await;
    assert_eq!(yard.lines("access").await, numbered(1));
    // What a user wants of the agent is passed on.
    yard.store.pause_agent(&name("web7"), true).await.unwrap();
    assert_eq!(agent.hear().await, Heard::Paused(true));
    yard.store.pause_agent(&name("web7"), false).await.unwrap();
    assert_eq!(agent.hear().await, Heard::Paused(false));
    assert!(
        yard.space
            .tree()
            .await
            .keys()
            .any(|path| path.ends_with("/client-web7"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_say_nothing_hold_no_more_than_the_share_of_one() {
    let limits = ingest::Limits::default();
    let port = api::transport::Limits {
        calls_each: 2,
        ..limits.port
    };
    let yard = Yard::within(ingest::Limits { port, ..limits }).await;
    let channel = || api::transport::connect(&yard.address, &Security::Plain);
    let one = channel().await.unwrap();
    let ship = async |channel: &api::transport::Channel| {
        let mut client = api::v1::ingest_client::IngestClient::new(channel.clone());
        let shipped = client.ship(tokio_stream::pending::<api::v1::ShipRequest>()).await;
        shipped.map(tonic::Response::into_inner)
    };
    let held = (ship(&one).await.unwrap(), ship(&one).await.unwrap());
    let refused = ship(&one).await.unwrap_err();
    assert_eq!(
        (refused.code(), api::reason(&refused).as_deref()),
        (Code::ResourceExhausted, Some("TOO_MANY_CALLS"))
    );
    ship(&channel().await.unwrap()).await.unwrap();
    drop(held);
}
