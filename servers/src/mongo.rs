//! One local MongoDB server: `mongod` as a replica set of one, or `secantusd-rs`, which speaks its protocol.

use crate::hold::{Held, Program, is_executable, on_path, tail};
use crate::{Error, port};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

const NAME: &str = "MongoDB";
const LOG_NAME: &str = "mongodb.log";
const REPLICA_SET: &str = "rs0";
/// How much of its change log `secantusd-rs` keeps: about 1 GB, as `mongod` does at least. Its default of a tenth costs
/// every insert a deletion.
const SECANTUS_OPLOG_ENTRIES: &str = "1000000";
const PORT_TRIES: usize = 3;
const ASK_DEADLINE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(15);
/// MongoDB's code for "there is a configuration already".
const ALREADY_INITIALIZED: i32 = 23;
/// Its code for "there is no configuration yet".
const NOT_YET_INITIALIZED: i32 = 94;

const ADVICE: &str = "install mongod (https://www.mongodb.com/docs/manual/installation/), or its stand-in for trying \
                      out with `cargo install secantus-mdb --version 0.5.3-beta.196 --locked --ignore-rust-version` \
                      (needs cmake and a C compiler)";

/// How to run a local MongoDB.
#[derive(Debug, Clone)]
pub struct MongoOptions {
    /// Holds its data and log file; made if missing. One server at a time.
    pub data_dir: PathBuf,
    /// The port on 127.0.0.1; `None` takes a free one.
    pub port: Option<u16>,
    /// Whether every commit is synced before it is acknowledged. Default true. (`mongod` always syncs what is written
    /// with majority and journal; this changes only `secantusd-rs`.)
    pub durable: bool,
    /// The size of its cache in MiB. Default 1024.
    pub cache_mib: u32,
    /// Further arguments of the program.
    pub arguments: Vec<String>,
    /// Whether `data_dir` is removed when the starter ends or drops the server without stopping it. Default false.
    pub scrap: bool,
    /// How long it may take until it answers. Default 60 s.
    pub start_deadline: Duration,
}

impl MongoOptions {
    /// The defaults, over this data directory: durable, on a free port.
    pub fn new(data_dir: impl Into<PathBuf>) -> MongoOptions {
        MongoOptions {
            data_dir: data_dir.into(),
            port: None,
            durable: true,
            cache_mib: 1024,
            arguments: Vec::new(),
            scrap: false,
            start_deadline: Duration::from_secs(60),
        }
    }
}

/// Which program serves.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Mongod(PathBuf),
    Secantus(PathBuf),
}

/// A running local MongoDB. Dropping it ends the server without waiting for that.
#[derive(Debug)]
pub struct Mongo {
    options: MongoOptions,
    kind: Kind,
    port: u16,
    program: Program,
    held: Held,
}

impl Mongo {
    /// Starts a server and returns when it takes writes. Prefers `mongod` on the PATH over `secantusd-rs` on the PATH or
    /// in `~/.cargo/bin`.
    ///
    /// Dropping the future half-way ends what was started.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Died`] with the end of its log (for instance because the port is taken),
    /// [`Error::NoAnswer`] at the deadline, [`Error::Busy`] when another server works on `data_dir`, [`Error::Io`],
    /// [`Error::Mongo`] when the replica set cannot be initiated.
    pub async fn start(mut options: MongoOptions) -> Result<Mongo, Error> {
        let kind = find()?;
        folders::own(&options.data_dir).map_err(Error::io(&options.data_dir))?;
        options.data_dir = options
            .data_dir
            .canonicalize()
            .map_err(Error::io(&options.data_dir))?;
        let mut tries = 1;
        loop {
            let port = options.port.map_or_else(port::free, Ok)?;
            match Mongo::start_at(&options, &kind, port).await {
                Err(Error::Died { .. }) if options.port.is_none() && tries < PORT_TRIES => tries += 1,
                other => return other,
            }
        }
    }

    async fn start_at(options: &MongoOptions, kind: &Kind, port: u16) -> Result<Mongo, Error> {
        let program = program(options, kind, port)?;
        let held = Held::start(&program).await?;
        let mut server = Mongo {
            options: options.clone(),
            kind: kind.clone(),
            port,
            program,
            held,
        };
        server.until_it_takes_writes().await?;
        Ok(server)
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The connection string for the driver, without a database:
    /// `mongodb://127.0.0.1:port/?directConnection=true`. It ends in a query, so a database goes before the `?`;
    /// [`Mongo::uri_of`] does that.
    pub fn uri(&self) -> String {
        self.uri_of("")
    }

    /// The connection string with `database` as the default database.
    pub fn uri_of(&self, database: &str) -> String {
        // Direct: a single server needs no discovery, and one that restarts is found again at once.
        format!(
            "mongodb://127.0.0.1:{}/{database}?directConnection=true",
            self.port
        )
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.held.pid()
    }

    /// The program that serves: `mongod` or `secantusd-rs`.
    pub fn program(&self) -> &'static str {
        match self.kind {
            Kind::Mongod(_) => "mongod",
            Kind::Secantus(_) => "secantusd-rs",
        }
    }

    /// Its data directory, absolute.
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.program.log
    }

    /// Whether its process lives (it may be frozen).
    pub fn is_running(&mut self) -> bool {
        self.held.ended().is_none()
    }

    /// Ends it with TERM, and with KILL after five seconds; returns when it is gone. Its data stays.
    pub async fn stop(&mut self) {
        self.held.stop().await;
    }

    /// Ends it with KILL, as a crash would; returns when it is gone. Its data stays.
    pub async fn kill(&mut self) {
        self.held.kill().await;
    }

    /// Starts it again on the same port and data directory, stopping it first when it runs; returns when it takes writes.
    ///
    /// # Errors
    /// As [`Mongo::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.held.stop().await;
        self.held = Held::start(&self.program).await?;
        self.until_it_takes_writes().await
    }

    /// Stops its process in its tracks (SIGSTOP): connections stay open and nothing is answered.
    pub fn freeze(&mut self) {
        self.held.signal(Signal::SIGSTOP);
    }

    /// Lets a frozen process go on (SIGCONT).
    pub fn thaw(&mut self) {
        self.held.signal(Signal::SIGCONT);
    }

    async fn until_it_takes_writes(&mut self) -> Result<(), Error> {
        let begin = Instant::now();
        loop {
            let ended = self.held.ended().is_some();
            if ended {
                let log = self.program.log.clone();
                return Err(Error::Died {
                    server: NAME,
                    tail: tail(&log, 20),
                    log,
                });
            }
            let note = match TcpStream::connect(self.address()).await {
                Ok(_) => match self.take_office().await? {
                    None => return Ok(()),
                    Some(note) => note,
                },
                Err(error) => error.to_string(),
            };
            if begin.elapsed() > self.options.start_deadline {
                return Err(Error::NoAnswer {
                    server: NAME,
                    address: self.address(),
                    waited: begin.elapsed(),
                    note,
                    log: self.program.log.clone(),
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Looks once whether it takes writes, and initiates the replica set if that is what is missing. `None`: it does;
    /// else what it said.
    async fn take_office(&self) -> Result<Option<String>, Error> {
        let client = self.client().await?;
        let admin = client.database("admin");
        let mut note = match admin.run_command(doc! { "hello": 1 }).await {
            Ok(hello) if takes_writes(&hello) => return Ok(None),
            Ok(hello) => format!("it takes no writes yet: {hello}"),
            Err(error) => error.to_string(),
        };
        if matches!(self.kind, Kind::Mongod(_)) {
            let status = admin.run_command(doc! { "replSetGetStatus": 1 }).await;
            if status.is_err_and(|error| code(&error) == Some(NOT_YET_INITIALIZED)) {
                self.initiate(&client).await?;
                note = "its replica set was just initiated".to_owned();
            }
        }
        client.shutdown().await;
        Ok(Some(note))
    }

    /// Makes a `mongod` a replica set of one; one that is so already stays as it is.
    async fn initiate(&self, client: &Client) -> Result<(), Error> {
        let member = doc! { "_id": 0, "host": self.address() };
        let set = doc! { "_id": REPLICA_SET, "members": [member] };
        match client
            .database("admin")
            .run_command(doc! { "replSetInitiate": set })
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some(ALREADY_INITIALIZED) => Ok(()),
            Err(source) => Err(Error::Mongo {
                address: self.address(),
                source,
            }),
        }
    }

    async fn client(&self) -> Result<Client, Error> {
        let failed = |source| Error::Mongo {
            address: self.address(),
            source,
        };
        let mut options = ClientOptions::parse(self.uri()).await.map_err(failed)?;
        options.connect_timeout = Some(ASK_DEADLINE);
        options.server_selection_timeout = Some(ASK_DEADLINE);
        Client::with_options(options).map_err(failed)
    }
}

fn takes_writes(hello: &Document) -> bool {
    hello
        .get_bool("isWritablePrimary")
        .or_else(|_| hello.get_bool("ismaster"))
        .unwrap_or(false)
        && hello.get_str("setName").is_ok()
}

fn code(error: &mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        mongodb::error::ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

fn find() -> Result<Kind, Error> {
    if let Some(mongod) = on_path("mongod") {
        return Ok(Kind::Mongod(mongod));
    }
    let in_cargo = || {
        let home = PathBuf::from(std::env::var_os("HOME")?);
        let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        Some(cargo_home.join("bin/secantusd-rs")).filter(|file| is_executable(file))
    };
    on_path("secantusd-rs")
        .or_else(in_cargo)
        .map(Kind::Secantus)
        .ok_or_else(|| Error::NotInstalled {
            server: NAME,
            advice: ADVICE.to_owned(),
        })
}

fn program(options: &MongoOptions, kind: &Kind, port: u16) -> Result<Program, Error> {
    let store = options.data_dir.join("store");
    std::fs::create_dir_all(&store).map_err(Error::io(&store))?;
    let port = port.to_string();
    let started = match kind {
        Kind::Mongod(file) => {
            // In units of GB, at least a quarter.
            let cache = (f64::from(options.cache_mib) / 1024.0).max(0.25);
            Program::new(file, &options.data_dir, LOG_NAME)
                .arguments([
                    "--replSet",
                    REPLICA_SET,
                    "--bind_ip",
                    "127.0.0.1",
                    "--port",
                    &port,
                    "--quiet",
                ])
                .argument("--nounixsocket")
                .arguments(["--wiredTigerCacheSizeGB", &format!("{cache:.2}")])
                .argument("--dbpath")
                .argument(store)
        }
        Kind::Secantus(file) => {
            // Named, so that no configuration file of the user or the machine is read.
            let configuration = options.data_dir.join("secantusd.toml");
            std::fs::write(&configuration, "").map_err(Error::io(&configuration))?;
            let mut program = Program::new(file, &options.data_dir, LOG_NAME)
                .argument("--config")
                .argument(configuration)
                .arguments(["--host", "127.0.0.1", "--port", &port, "--log-level", "WARNING"])
                .arguments(["--cache-size", &format!("{}M", options.cache_mib)])
                .arguments(["--oplog-max-entries", SECANTUS_OPLOG_ENTRIES])
                .argument("--storage-path")
                .argument(store);
            if options.durable {
                program = program.argument("--sync-on-commit");
            }
            program
        }
    };
    let mut program = started.arguments(&options.arguments);
    program.scrap = options.scrap;
    Ok(program)
}
