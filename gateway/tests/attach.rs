//! Agents that wait at a gateway, over real stores: held, offered a worker, let go of.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use api::{
    transport::{self, Channel, Security},
    v1::{
        AgentHello, AgentReport, AttachReply, AttachRequest, attach_reply::Message, attach_request,
        registry_client::RegistryClient,
    },
};
use control::Control;
use coordination::{Acceptance, Candidacy, Leader, Office, Term, WaitingClient, Worker};
use gateway::{Config, Gateway, Limits, Parts};
use model::{
    FORMAT, Name,
    znode::{CandidateData, ClientData, WorkerData, WorkerOffer},
};
use storage::Store;
use testkit::{Space, wait};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(30);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The agent web7 at a gateway.
struct Agent {
    requests: mpsc::Sender<AttachRequest>,
    replies: Result<Streaming<AttachReply>, Status>,
}

fn request(message: attach_request::Message) -> AttachRequest {
    let message = Some(message);
    AttachRequest { message }
}

impl Agent {
    async fn attach(channel: &Channel, instance: u128, incarnation: u64, protocol: u32) -> Self {
        let (requests, stream) = mpsc::channel(4);
        let hello = AgentHello {
            protocol,
            agent: "web7".into(),
            instance: Uuid::from_u128(instance).as_bytes().to_vec().into(),
            incarnation,
            version: "9.9".into(),
            host: "web7".into(),
            ..AgentHello::default()
        };
        let hello = request(attach_request::Message::Hello(hello));
        requests.send(hello).await.unwrap();
        let mut client = RegistryClient::new(channel.clone());
        let replies = client.attach(ReceiverStream::new(stream)).await;
        Self {
            requests,
            replies: replies.map(tonic::Response::into_inner),
        }
    }

    async fn hear(&mut self) -> Result<Option<Message>, Code> {
        let replies = self.replies.as_mut().map_err(|status| status.code())?;
        let reply = tokio::time::timeout(SOON, replies.message()).await.unwrap();
        let reply = reply.map_err(|status| status.code())?;
        Ok(reply.and_then(|reply| reply.message))
    }

    async fn until_attached(&mut self) {
        let heard = self.hear().await.unwrap();
        assert!(matches!(heard, Some(Message::Attached(_))), "{heard:?}");
    }
}

/// A gateway, a leader and a worker.
struct Yard {
    space: Space,
    _files: tempfile::TempDir,
    store: Store,
    channel: Channel,
    leader: Leader,
    worker: Worker,
    stop: CancellationToken,
}

impl Yard {
    async fn new() -> Self {
        let space = Space::new().await;
        let files = tempfile::tempdir().unwrap();
        let url = format!("file://{}", files.path().display());
        let store = Store::open(&storage::Config::new(space.mongodb(), url))
            .await
            .unwrap();
        store.init().await.unwrap();
        let zookeeper = coordination::Config {
            connect: space.zookeeper(),
            ..Default::default()
        };
        let gateway = Gateway::bind(Config {
            listen: "127.0.0.1:0".into(),
            advertise: None,
            host: "localhost".into(),
            security: Security::Plain,
            limits: Limits::default(),
        });
        let gateway = gateway.await.unwrap();
        let address = gateway.address();
        let stop = CancellationToken::new();
        let control = Control::open(zookeeper.clone(), store.clone());
        tokio::spawn(gateway.run(Parts { control }, stop.clone()));
        let channel = transport::connect(&address, &Security::Plain).await.unwrap();
        let term = Term::begin(&zookeeper).await.unwrap();
        let (leader, worker) = (leader(&term).await, worker(&term).await);
        let yard = Self {
            space,
            _files: files,
            store,
            channel,
            leader,
            worker,
            stop,
        };
        // Until the gateway has its session.
        wait::until_true("an agent to be held", SOON, async || {
            let mut agent = yard.agent(1, 1).await;
            agent.hear().await.is_ok()
        })
        .await;
        yard.until_places(&[]).await;
        yard
    }

    async fn agent(&self, instance: u128, incarnation: u64) -> Agent {
        Agent::attach(&self.channel, instance, incarnation, api::PROTOCOL).await
    }

    async fn waiting(&self) -> WaitingClient {
        self.leader.waiting().await.unwrap().remove(0)
    }

    /// Waits until the agent is held at these places.
    async fn until_places(&self, expected: &[&str]) {
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        wait::until_equal("the places of the agent", SOON, expected, async || {
            let tree = self.space.tree().await;
            let all = tree.into_keys().filter(|path| path.ends_with("/client-web7"));
            all.collect()
        })
        .await;
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn leader(term: &Term) -> Leader {
    let data = CandidateData {
        v: FORMAT,
        host: "here".into(),
        pid: 1,
        version: "0".into(),
        gateway: None,
    };
    let candidacy = Candidacy::enter(term, Office::Dispatcher, &data).await.unwrap();
    candidacy.until_leading().await.unwrap();
    Leader::take_office(term, &candidacy).await.unwrap()
}

async fn worker(term: &Term) -> Worker {
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
        endpoint: Some("127.0.0.1:1".into()),
        zone: String::new(),
        protocol: api::PROTOCOL,
        local_store: false,
        wake: 0,
        stop: Vec::new(),
    };
    Worker::register(term, data).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_held_until_a_worker_takes_it_or_it_goes() {
    let yard = Yard::new().await;
    let mut agent = yard.agent(1, 2).await;
    agent.until_attached().await;
    yard.until_places(&["/unowned/client-web7"]).await;

    // What it says of itself, and what a user wants of it.
    let report = AgentReport {
        lag_bytes: 5,
        files: 3,
        ..AgentReport::default()
    };
    let told = request(attach_request::Message::Report(report));
    agent.requests.send(told).await.unwrap();
    wait::until_true("the report", SOON, async || {
        let known = yard.store.agent(&name("web7")).await.unwrap();
        known.is_some_and(|known| known.load.is_some_and(|(load, _)| load.lag_bytes == 5))
    })
    .await;
    yard.store.pause_agent(&name("web7"), true).await.unwrap();
    let heard = agent.hear().await.unwrap();
    assert!(
        matches!(&heard, Some(Message::Orders(orders)) if orders.paused),
        "{heard:?}"
    );

    // Who comes under its name meanwhile.
    assert_eq!(yard.agent(2, 9).await.hear().await, Err(Code::AlreadyExists));
    assert_eq!(yard.agent(1, 1).await.hear().await, Err(Code::Aborted));
    let mut outdated = Agent::attach(&yard.channel, 1, 3, api::PROTOCOL + 1).await;
    assert_eq!(outdated.hear().await, Err(Code::FailedPrecondition));
    let known = yard.store.agent(&name("web7")).await.unwrap().unwrap();
    assert_eq!(
        known.seen.protocol,
        api::PROTOCOL + 1,
        "for who looks who is out of step"
    );

    // An offer, and a worker that takes it over: the stream ends.
    let offer = WorkerOffer {
        worker: yard.worker.number().0,
        node: name("node1"),
        endpoint: "127.0.0.1:1".into(),
        number: 1,
    };
    assert!(yard.leader.offer(&yard.waiting().await, &offer).await.unwrap());
    let heard = agent.hear().await.unwrap();
    assert!(
        matches!(&heard, Some(Message::Offer(offer)) if offer.worker == yard.worker.number().0 && offer.endpoint == "127.0.0.1:1"),
        "{heard:?}"
    );
    let data = ClientData {
        incarnation: 3,
        offer: None,
        ..yard.waiting().await.data
    };
    assert_eq!(yard.worker.accept(&data).await.unwrap(), Acceptance::Held);
    assert_eq!(agent.hear().await, Ok(None));
    let held = format!("/owned/{}/client-web7", yard.worker.number());
    yard.until_places(&[&held]).await;

    // It comes back before its worker noticed, and goes.
    let mut agent = yard.agent(1, 4).await;
    agent.until_attached().await;
    yard.until_places(&["/unowned/client-web7"]).await;
    drop(agent);
    yard.until_places(&[]).await;
    // A newer connection ends the one before.
    let mut agent = yard.agent(1, 5).await;
    agent.until_attached().await;
    let mut newer = yard.agent(1, 6).await;
    newer.until_attached().await;
    while let Ok(Some(heard)) = agent.hear().await {
        assert!(matches!(heard, Message::Orders(_)), "{heard:?}");
    }
    yard.until_places(&["/unowned/client-web7"]).await;
}
