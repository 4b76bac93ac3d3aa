//! The gateway: what a dispatcher serves over gRPC. Leading or standing by makes no difference to it.
//!
//! Promise: the port is bound before anything is said; whoever asks has a [`pki::Peer`], and no method is called that
//! [`api::rights`] does not grant it;
//! what is refused is told with a code and a machine-readable reason; one identity can't ask more often than
//! [`Limits::requests_per_second`], nor have more connections, calls and bytes under way than [`Limits::port`] says; a client
//! that stops reading, or sending, costs a bounded number of bytes for a bounded time. The health service says SERVING
//! while the stores answer, and answers whatever else is asked. No promise that a stream outlives the gateway: it ends when that is stopped, and may be
//! begun anew at another.
//!
//! Called by whoever starts a dispatcher.

mod admin;
mod catalog;
mod feed;
mod health;
mod journal;
mod queue;
mod rate;
mod refuse;
mod registry;
mod room;
mod session;
mod tokens;
mod worker;

use std::{net::SocketAddr, time::Duration};

use api::{
    rights::{GATEWAY, Rules},
    transport::{self, Calls, FewFromStrangers, Listener, Security},
    v1::{
        self, admin_server::AdminServer, catalog_server::CatalogServer, queue_server::QueueServer,
        registry_server::RegistryServer, worker_server::WorkerServer,
    },
};
use control::Control;
use tokio_util::sync::CancellationToken;

use feed::Feeds;
use rate::PerIdentity;
use room::Room;
use session::Session;
use tokens::Tokens;

/// What one client may ask of a gateway.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a message that only names something: a job, a dataset, an agent.
    pub reference_bytes: usize,
    /// Bytes of a message that says more: a job to submit, files to add, who an agent is. What is longer travels in streams.
    pub message_bytes: usize,
    /// Bytes of a question with its small tables.
    pub question_bytes: usize,
    /// Connections, calls and bytes of all and of one identity.
    pub port: transport::Limits,
    /// Calls under way on one connection.
    pub streams: u32,
    /// Calls per second of one identity, on average; twice as many at once.
    pub requests_per_second: u32,
    /// How long a client may leave a message of a stream unread before the stream is ended.
    pub slow_reader: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            reference_bytes: 64 << 10,
            message_bytes: 4 << 20,
            question_bytes: 20 << 20,
            port: transport::Limits::default(),
            streams: 256,
            requests_per_second: 2000,
            slow_reader: Duration::from_secs(60),
        }
    }
}

/// How a gateway serves.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST:PORT`; port 0 takes a free one.
    pub listen: String,
    /// Host under which others reach it; none: the address it listens on, or `host` where that is every address.
    pub advertise: Option<String>,
    /// Name of this machine.
    pub host: String,
    /// How the two sides know each other.
    pub security: Security,
    /// What one client may ask.
    pub limits: Limits,
}

/// What the gateway works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The mill, by its stores.
    pub control: Control,
}

/// Why a gateway ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port can't be listened on.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// ZooKeeper, in a way that no waiting mends.
    #[error(transparent)]
    Coordination(#[from] coordination::Error),
    /// The mill.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// The descriptors of the services can't be read.
    #[error("the descriptors of the services can't be read: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server.
    #[error("the gateway on {address} failed: {source}")]
    Serving {
        /// Where it listened.
        address: SocketAddr,
        /// What tonic says.
        source: tonic::transport::Error,
    },
}

/// A gateway whose port is bound, and which does not serve yet.
pub struct Gateway {
    config: Config,
    listener: Listener,
}

impl Limits {
    /// Most bytes of one message to a method.
    fn most(&self, path: &str) -> usize {
        match path {
            "/sawmill.v1.Catalog/Ask" | "/sawmill.v1.Catalog/Explain" | "/sawmill.v1.Catalog/CreateView" => {
                self.question_bytes
            }
            "/sawmill.v1.Queue/Submit"
            | "/sawmill.v1.Queue/SubmitStream"
            | "/sawmill.v1.Catalog/AddFiles"
            | "/sawmill.v1.Catalog/SetDataset"
            | "/sawmill.v1.Worker/StartTask"
            | "/sawmill.v1.Registry/Attach" => self.message_bytes,
            _ => self.reference_bytes,
        }
    }
}

/// How long calls that are under way may take to end when the gateway stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

impl Gateway {
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

    /// `HOST:PORT` under which others reach it.
    pub fn address(&self) -> String {
        self.listener
            .reached_at(self.config.advertise.as_deref(), &self.config.host)
    }

    /// Serves until `stop` is cancelled.
    ///
    /// Dropping the future ends it at once; nothing is left half done but what a client asked for.
    ///
    /// # Errors
    /// What no waiting mends.
    pub async fn run(self, parts: Parts, stop: CancellationToken) -> Result<(), Error> {
        let Self { config, listener } = self;
        let address = listener.address();
        let limits = config.limits;
        let control = parts.control;
        let rate = PerIdentity::new(limits.requests_per_second);
        let session = Session::default();
        let (health, health_service) = tonic_health::server::health_reporter();
        health::begin(&health).await;
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // Older grpcurl and the Python package know the earlier name of the same service alone.
        let (reflection, earlier) = (described().build_v1()?, described().build_v1alpha()?);
        let calls = Calls::new(limits.port, move |path| limits.most(path));
        let feeds = Feeds::new(stop.clone(), limits.slow_reader);
        let (zookeeper, store) = (control.zookeeper()?.clone(), control.store()?.clone());
        let room = Room::default();
        let (journal, writer) = journal::open(control.clone());
        let queue = queue::Service::new(control.clone(), feeds.clone(), room.clone(), journal.clone());
        let catalog = catalog::Service::new(control.clone(), feeds.clone(), room.clone(), journal);
        let registry = registry::Service::new(
            control.clone(),
            session.clone(),
            store.clone(),
            room.clone(),
            address.to_string(),
            stop.clone(),
        );
        let worker = worker::Service::new(control.clone(), room.clone(), config.security.clone());
        let admin = admin::Service::new(control.clone(), feeds.clone(), room);
        let served = transport::server()
            .max_concurrent_streams(limits.streams)
            .layer(FewFromStrangers)
            .layer(Tokens::new(control))
            .layer(rate.clone())
            .layer(calls.clone())
            .layer(Rules(GATEWAY))
            .add_service(health_service)
            .add_service(reflection)
            .add_service(earlier)
            .add_service(QueueServer::new(queue).max_decoding_message_size(limits.message_bytes))
            .add_service(CatalogServer::new(catalog).max_decoding_message_size(limits.question_bytes))
            .add_service(WorkerServer::new(worker).max_decoding_message_size(limits.message_bytes))
            .add_service(AdminServer::new(admin).max_decoding_message_size(limits.message_bytes))
            .add_service(RegistryServer::new(registry).max_decoding_message_size(limits.message_bytes))
            .serve_with_incoming_shutdown(listener.taking_tokens().incoming(), stop.cancelled());
        tracing::info!(%address, "gateway listening");
        let ended = tokio::select! {
            served = served => served.map_err(|source| Error::Serving { address, source }),
            held = session.hold(&zookeeper, &stop) => Ok(held?),
            never = health::watch(&store, &session, &health) => match never {},
            never = rate.forget_the_idle() => match never {},
            never = calls.watch() => match never {},
            () = stopped(&stop) => Ok(()),
        };
        // What is left of them has a short time to tell its client.
        if ended.is_ok() {
            tokio::time::timeout(STOP_GRACE, feeds.ended()).await.ok();
        }
        writer.close().await;
        ended
    }
}

/// Some time after the stop.
async fn stopped(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_GRACE).await;
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("address", &self.address())
            .finish()
    }
}
