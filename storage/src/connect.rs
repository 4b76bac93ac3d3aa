//! Opening the two stores, and asking MongoDB who it is.

use std::{
    collections::HashMap,
    future::IntoFuture as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bson::{Document, RawDocumentBuf, doc};
use model::JobId;
use mongodb::{
    Client, Database,
    error::{Error as Driver, ErrorKind},
    options::{Acknowledgment, ClientOptions, DatabaseOptions, ReadConcern, WriteConcern},
};
use tokio::sync::OnceCell;

use crate::{
    Config, Error, LocalStore, Neighbours, clock::Told, config::DEFAULT_DATABASE, copies::Copies,
    objects::Root, sessions::Sessions, shipped::Turns,
};

/// How long a program that is done waits for the end of its connections.
const CLOSING: Duration = Duration::from_millis(100);

/// MongoDB and the block store. Cloning is cheap; all clones share their connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    copies: Option<Arc<Copies>>,
    /// What this node keeps itself.
    pub(crate) local: Option<LocalStore>,
    pub(crate) neighbours: Option<Arc<dyn Neighbours>>,
    /// How far the clock of this machine is taken to be ahead of what it says.
    ahead_ms: i64,
}

struct Inner {
    client: Client,
    db: Database,
    address: String,
    root: Root,
    /// Who is recording ends of a job in this process: two transactions on one job's counter would only collide.
    recording: Mutex<HashMap<JobId, Arc<tokio::sync::Mutex<()>>>>,
    /// Who is appending what agents ship.
    shipping: Mutex<Turns>,
    sessions: Mutex<Sessions>,
    /// When MongoDB told its time last.
    told: Mutex<Option<Told>>,
    /// The identity of this database, once it is known.
    mill: OnceCell<String>,
}

/// What MongoDB says about itself.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// Name of its replica set.
    pub set_name: String,
    /// How far its clock is ahead of this machine's, in milliseconds; half a round trip is already taken off.
    pub clock_skew_ms: i64,
    /// How long it took to answer.
    pub round_trip: Duration,
}

impl Store {
    /// Ends the connections to MongoDB, within [`CLOSING`]; whatever is asked after that fails. For programs that are done.
    pub async fn close(&self) {
        let closing = self.inner.client.clone().shutdown().immediate(true);
        // A server that does not answer ends its side by itself.
        let _ = tokio::time::timeout(CLOSING, closing.into_future()).await;
    }

    /// Connects, and checks that it can be used: MongoDB answers, is a replica set, and was not written by a newer
    /// release. Changes nothing in MongoDB; makes the folder of a local block store.
    ///
    /// # Errors
    /// [`Error::BadUri`], [`Error::BadUrl`], [`Error::Mongo`] that names the address (after [`Config::timeout`] when
    /// nobody answers; also for wrong credentials), [`Error::NoReplicaSet`], [`Error::Newer`].
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let address = config.address();
        let bad = |error: Driver| match *error.kind {
            // The addresses of `mongodb+srv://` are looked up before anything else.
            ErrorKind::DnsResolve { .. } => Error::Mongo {
                address: address.clone(),
                doing: "looking up its servers".into(),
                source: Box::new(error),
            },
            _ => Error::BadUri {
                address: address.clone(),
                why: error.kind.to_string(),
            },
        };
        let mut options = ClientOptions::parse(&config.uri).await.map_err(bad)?;
        options.server_selection_timeout = Some(config.timeout);
        options.connect_timeout = Some(config.timeout);
        options.app_name.get_or_insert_with(|| "sawmill".to_string());
        let database = config
            .database
            .clone()
            .or_else(|| options.default_database.clone());
        let client = Client::with_options(options).map_err(bad)?;
        let majority = WriteConcern::builder().w(Acknowledgment::Majority).build();
        let options = DatabaseOptions::builder()
            .read_concern(ReadConcern::majority())
            .write_concern(majority)
            .build();
        let name = database.unwrap_or_else(|| DEFAULT_DATABASE.to_string());
        let db = client.database_with_options(&name, options);
        let root = Root::open(&config.store).await?;
        let inner = Inner {
            client,
            db,
            address,
            root,
            recording: Mutex::default(),
            shipping: Mutex::default(),
            sessions: Mutex::default(),
            told: Mutex::default(),
            mill: OnceCell::new(),
        };
        let store = Self {
            inner: Arc::new(inner),
            copies: None,
            local: None,
            neighbours: None,
            ahead_ms: 0,
        };
        store.hello().await?;
        store.check_format().await?;
        Ok(store)
    }

    /// The same stores, with copies of the remote blocks that are read kept in `folder`, up to so many bytes.
    #[must_use]
    pub fn with_copies(mut self, folder: impl Into<PathBuf>, most_bytes: u64) -> Self {
        self.copies = (most_bytes > 0).then(|| Arc::new(Copies::new(folder.into(), most_bytes)));
        self
    }

    /// The same stores, seen from a machine whose clock is so many milliseconds ahead of what it says: for tests of what a
    /// wrong clock does.
    #[doc(hidden)]
    #[must_use]
    pub fn with_clock_ahead(mut self, ms: i64) -> Self {
        self.ahead_ms = ms;
        self
    }

    pub(crate) fn ahead_ms(&self) -> i64 {
        self.ahead_ms
    }

    pub(crate) fn told(&self) -> Option<Told> {
        *self.inner.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reckon_from(&self, told: Told) {
        *self.inner.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }

    pub(crate) fn shared_copies(&self) -> Option<Arc<Copies>> {
        self.copies.clone()
    }

    pub(crate) fn copies(&self) -> Option<&Copies> {
        self.copies.as_deref()
    }

    /// Asks MongoDB for a sign of life.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.db()
            .run_command(doc! { "ping": 1 })
            .await
            .map_err(self.failed("ping"))?;
        Ok(())
    }

    /// Asks MongoDB who it is.
    ///
    /// # Errors
    /// [`Error::NoReplicaSet`], [`Error::Mongo`].
    pub async fn server_info(&self) -> Result<ServerInfo, Error> {
        let begin = Instant::now();
        let (_, set_name) = self.hello().await?;
        let round_trip = begin.elapsed();
        let clock_skew_ms = self.clock().await?.ahead_ms.saturating_neg();
        let admin = self.inner.client.database("admin");
        // "buildInfo" needs no rights beyond a login.
        let build = admin
            .run_command(doc! { "buildInfo": 1 })
            .await
            .map_err(self.failed("buildInfo"))?;
        let version = build.get_str("version").unwrap_or("unknown").to_string();
        Ok(ServerInfo {
            version,
            set_name,
            clock_skew_ms,
            round_trip,
        })
    }

    /// A sign of life, with the name of the replica set.
    pub(crate) async fn hello(&self) -> Result<(Document, String), Error> {
        let admin = self.inner.client.database("admin");
        let hello = admin.run_command(doc! { "hello": 1 }).await;
        let hello = hello.map_err(self.failed("hello"))?;
        match hello.get_str("setName").map(str::to_string) {
            Ok(set_name) => Ok((hello, set_name)),
            Err(_) => Err(Error::NoReplicaSet {
                address: self.inner.address.clone(),
            }),
        }
    }

    /// The hosts it is connected to, without user and password.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// The name of its database.
    pub fn database(&self) -> &str {
        self.inner.db.name()
    }

    pub(crate) fn db(&self) -> &Database {
        &self.inner.db
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(crate) fn sessions(&self) -> &Mutex<Sessions> {
        &self.inner.sessions
    }

    /// Where the identity of this database is kept once it is known.
    pub(crate) fn mill_cell(&self) -> &OnceCell<String> {
        &self.inner.mill
    }

    pub(crate) fn root(&self) -> &Root {
        &self.inner.root
    }

    pub(crate) fn raw(&self, name: &str) -> mongodb::Collection<RawDocumentBuf> {
        self.db().collection(name)
    }

    pub(crate) fn recording(&self) -> &Mutex<HashMap<JobId, Arc<tokio::sync::Mutex<()>>>> {
        &self.inner.recording
    }

    pub(crate) fn shipping(&self) -> &Mutex<Turns> {
        &self.inner.shipping
    }

    /// Puts the place on an error of the driver.
    pub(crate) fn failed(&self, doing: impl Into<String>) -> impl FnOnce(Driver) -> Error {
        let (address, doing) = (self.inner.address.clone(), doing.into());
        move |source| Error::Mongo {
            address,
            doing,
            source: Box::new(source),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("address", &self.address())
            .field("database", &self.database())
            .finish()
    }
}
