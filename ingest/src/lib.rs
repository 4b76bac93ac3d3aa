//! The receiving side of a worker: what agents ship is stored, registered in its dataset, acknowledged.
//!
//! Promise: what is acknowledged is synced in the block store and registered exactly once, whoever sent it how often; an
//! agent ships only while this worker holds it in ZooKeeper, and is sent away at once when that is over; all agents together
//! take at most [`Limits::memory_bytes`]. No promise that what was received and not acknowledged is not registered: it may
//! be, and is acknowledged when it is sent again.
//!
//! Called by compute nodes; the gateway checks agents in the same way.

mod arrival;
mod hello;
#[doc(hidden)]
pub mod hostile;
mod keep;
mod lane;
mod neighbours;
mod post;
mod session;

use std::{collections::HashSet, sync::Arc, time::Duration};

use api::{
    refusal,
    rights::{Rules, WORKER},
    transport::{self, Calls, Listener, Security, peer},
    v1::{
        ShipReply, ShipRequest,
        blocks_server::BlocksServer,
        ingest_server::{Ingest, IngestServer},
        ship_request::Message,
    },
};
use model::Name;
use storage::Store;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status, Streaming, service::Routes};

pub use hello::{check_mill, check_protocol, client_data, datasets};
pub use neighbours::Neighbours;
pub use post::{Open, Post};
pub use session::{load, refused, unavailable};

use session::{Session, Shared};

/// What agents may take of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that one agent may have on their way without an answer.
    pub window_bytes: u64,
    /// Bytes of blocks of all agents in memory.
    pub memory_bytes: u64,
    /// Blocks that are stored at once.
    pub puts: usize,
    /// Agents at once.
    pub agents: usize,
    /// Connections, calls and bytes of all and of one identity.
    pub port: transport::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window_bytes: 32 << 20,
            memory_bytes: 256 << 20,
            puts: 8,
            agents: 4096,
            // Of a block one chunk at a time is on its way.
            port: transport::Limits {
                message_bytes_each: 16 << 20,
                ..transport::Limits::default()
            },
        }
    }
}

/// How a worker takes what agents ship.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST:PORT`; port 0 takes a free one.
    pub listen: String,
    /// Host under which agents reach it; none: the address it listens on, or `host` where that is every address.
    pub advertise: Option<String>,
    /// Name of this machine.
    pub host: String,
    /// Name of the node.
    pub node: Name,
    /// How the two sides know each other.
    pub security: Security,
    /// What agents may take.
    pub limits: Limits,
}

/// Why no agents are served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port can't be listened on.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// The server.
    #[error("taking blocks of agents on {address} failed: {source}")]
    Serving {
        /// Where it listened.
        address: String,
        /// What tonic says.
        source: tonic::transport::Error,
    },
}

/// A port that is bound, and does not serve yet.
pub struct Receiver {
    config: Config,
    listener: Listener,
}

/// How long an agent may take to say who it is.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Replies that wait to be sent to one agent.
const REPLIES: usize = 64;
/// How often it is looked which agents are paused.
const PAUSED_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of one message: a chunk and what is around it.
const MESSAGE_BYTES: usize = 2 << 20;

/// Bytes of a message with a command.
const COMMAND_BYTES: usize = 4 << 20;
/// Bytes of any other message: names.
const NAMES_BYTES: usize = 64 << 10;

/// Most bytes of one message to a method.
fn most(path: &str) -> usize {
    match path {
        "/sawmill.v1.Ingest/Ship" | "/sawmill.v1.Blocks/Put" => MESSAGE_BYTES,
        "/sawmill.v1.Worker/StartTask" => COMMAND_BYTES,
        _ => NAMES_BYTES,
    }
}

impl Receiver {
    /// Binds the port.
    ///
    /// # Errors
    /// [`Error::Transport`].
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let listener = transport::bind(&config.listen, &config.security).await?;
        let listener = listener
            .advertised(config.advertise.as_deref())?
            .with_limits(config.limits.port);
        Ok(Self { config, listener })
    }

    /// `HOST:PORT` under which agents reach it.
    pub fn address(&self) -> String {
        self.listener
            .reached_at(self.config.advertise.as_deref(), &self.config.host)
    }

    /// Serves agents of the worker in `post`, and `beside` that on the same port, until `stop` is cancelled.
    ///
    /// Dropping the future ends the connections; what was not acknowledged is sent again elsewhere.
    ///
    /// # Errors
    /// What no waiting mends.
    pub async fn run(
        self,
        store: Store,
        post: Post,
        beside: Routes,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let address = self.address();
        let Self { config, listener } = self;
        let (paused, heard) = watch::channel(Arc::new(HashSet::new()));
        let shared = Shared {
            store: store.clone(),
            node: config.node,
            limits: config.limits,
            memory: Arc::new(Semaphore::new(arrival::permits(config.limits.memory_bytes))),
            puts: Arc::new(Semaphore::new(config.limits.puts)),
            paused: heard,
            post: post.clone(),
        };
        let sessions = TaskTracker::new();
        let service = Service {
            shared,
            post: post.clone(),
            places: Arc::new(Semaphore::new(config.limits.agents)),
            sessions: sessions.clone(),
        };
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<IngestServer<Service>>().await;
        let kept = store.local().map(|local| {
            let keeper = BlocksServer::new(keep::Keeper::new(local.clone()));
            keeper.max_decoding_message_size(MESSAGE_BYTES)
        });
        let calls = Calls::new(config.limits.port, most);
        let served = transport::server()
            .initial_stream_window_size(transport::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(transport::CONNECTION_WINDOW_BYTES)
            .layer(calls.clone())
            .layer(Rules(WORKER))
            .add_routes(beside)
            .add_service(health_service)
            .add_optional_service(kept)
            .add_service(IngestServer::new(service).max_decoding_message_size(MESSAGE_BYTES))
            .serve_with_incoming_shutdown(listener.incoming(), stop.cancelled());
        tracing::info!(address, "taking blocks of agents");
        let served = tokio::select! {
            served = served => served.map_err(|source| Error::Serving { address, source }),
            never = look_for_paused(&store, &post, &paused) => match never {},
            never = calls.watch() => match never {},
            () = async { stop.cancelled().await; sessions.close(); sessions.wait().await } => Ok(()),
        };
        sessions.close();
        served
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("address", &self.address())
            .finish()
    }
}

/// Tells the sessions which agents are paused, while there are any sessions.
async fn look_for_paused(
    store: &Store,
    post: &Post,
    told: &watch::Sender<Arc<HashSet<Name>>>,
) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(PAUSED_INTERVAL).await;
        if post.sessions() == 0 {
            continue;
        }
        match store.paused_agents().await {
            Ok(paused) => drop(told.send_replace(Arc::new(paused))),
            Err(failure) => tracing::debug!("which agents are paused is not to be had: {failure}"),
        }
    }
}

/// The service.
struct Service {
    shared: Shared,
    post: Post,
    places: Arc<Semaphore>,
    sessions: TaskTracker,
}

#[tonic::async_trait]
impl Ingest for Service {
    type ShipStream = ReceiverStream<Result<ShipReply, Status>>;

    async fn ship(
        &self,
        request: Request<Streaming<ShipRequest>>,
    ) -> Result<Response<Self::ShipStream>, Status> {
        let peer = peer(&request);
        let mut stream = request.into_inner();
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let message = format!("this worker has {} agents already", self.shared.limits.agents);
            return Err(refusal(Code::ResourceExhausted, "TOO_MANY_AGENTS", message, []));
        };
        let current = self.post.worker();
        let worker = current.borrow().clone();
        let worker = worker.ok_or_else(|| unavailable("ZooKeeper", &"this node is no worker now"))?;
        let (replies, stream_of_replies) = mpsc::channel(REPLIES);
        let (shared, counted) = (self.shared.clone(), self.post.session());
        // On its own, so that it lets go of the agent however the connection ends.
        self.sessions.spawn(async move {
            let _held = (place, counted);
            let accepted = async {
                let hello = first(&mut stream).await?;
                Session::accept(shared, worker, &hello, peer, replies.clone()).await
            };
            match accepted.await {
                Ok(session) => {
                    tracing::info!(agent = %session.agent(), "an agent ships");
                    session.work(stream, current).await;
                }
                Err(status) => {
                    tracing::info!("an agent is refused: {}", status.message());
                    let _ = replies.try_send(Err(status));
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream_of_replies)))
    }
}

async fn first(stream: &mut Streaming<ShipRequest>) -> Result<api::v1::ShipHello, Status> {
    let bad = |message: &str| refusal(Code::InvalidArgument, "BAD_HELLO", message, []);
    let message = tokio::time::timeout(HELLO_TIME, stream.message())
        .await
        .map_err(|_| refusal(Code::DeadlineExceeded, "BAD_HELLO", "no hello came", []))??;
    match message.and_then(|message| message.message) {
        Some(Message::Hello(hello)) => Ok(hello),
        _ => Err(bad("the first message is no hello")),
    }
}
