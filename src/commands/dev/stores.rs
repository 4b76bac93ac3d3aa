//! ZooKeeper and MongoDB for a mill on one machine: those at the given addresses when they answer, else own ones.
//!
//! Promise: an own server keeps its data in the data directory, listens on the given port where that is free and on
//! another one where it is not, and does not outlive this process. What answers at an address that the user gave but
//! can't be used is an error; at the default address it is a stranger, and an own server is started beside it.
//! Called by `sawmill dev`.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use coordination::Term;
use servers::{Mongo, MongoOptions, ZooKeeper, ZooKeeperOptions};
use storage::Store;
use tokio::net::TcpStream;

use crate::config::{Secret, Settings};

/// Whoever listens accepts a connection on one machine or in one data centre well before this.
const PROBE: Duration = Duration::from_millis(500);
/// What answers to a connection at all says who it is within this.
const INTRODUCTION: Duration = Duration::from_secs(3);
const ZOOKEEPER_PORT: u16 = 2181;
const MONGODB_PORT: u16 = 27017;

/// The two stores of a local mill.
pub(super) struct Stores {
    /// The settings with the addresses that hold.
    pub(super) settings: Settings,
    zookeeper: Option<ZooKeeper>,
    mongo: Option<Mongo>,
}

/// What was found at an address.
enum Found {
    /// What we look for.
    Usable,
    /// Nobody listens.
    Nobody,
    /// Somebody listens whom we can't use.
    Stranger(anyhow::Error),
}

impl Stores {
    /// Looks at the addresses of the settings and starts what is missing over `data_dir`.
    ///
    /// # Errors
    /// What is not installed (with what to install) or does not start, and what answers at an address that the user
    /// gave but can't be used.
    pub(super) async fn find_or_start(settings: &Settings, data_dir: &Path) -> anyhow::Result<Self> {
        let mut settings = settings.clone();
        let (zookeeper, mongo) =
            tokio::try_join!(own_zookeeper(&settings, data_dir), own_mongo(&settings, data_dir))?;
        if let Some(server) = &zookeeper {
            let chroot = settings
                .zookeeper
                .find('/')
                .map_or("", |at| &settings.zookeeper[at..]);
            settings.zookeeper = format!("{}{chroot}", server.address());
            settings.zookeeper_tls_ca = None;
            settings.zookeeper_tls_cert = None;
            settings.zookeeper_tls_key = None;
        }
        if let Some(server) = &mongo {
            let database = database_of(settings.mongodb.expose()).to_owned();
            settings.mongodb = Secret::new(server.uri_of(&database));
        }
        Ok(Self {
            settings,
            zookeeper,
            mongo,
        })
    }

    /// Who serves coordination, in a few words.
    pub(super) fn zookeeper_note(&self) -> String {
        match &self.zookeeper {
            Some(server) => format!("started, data in {}", server.data_dir().display()),
            None => "was running already".to_owned(),
        }
    }

    /// Who serves documents, in a few words.
    pub(super) fn mongodb_note(&self) -> String {
        match &self.mongo {
            Some(server) => format!(
                "started ({}), data in {}",
                server.program(),
                server.data_dir().display()
            ),
            None => "was running already".to_owned(),
        }
    }

    /// Whether the addresses are those that other commands use by themselves.
    pub(super) fn at_given_addresses(&self, given: &Settings) -> bool {
        let zookeeper = self.zookeeper.as_ref().is_none_or(|server| {
            hosts_of(&given.zookeeper, ZOOKEEPER_PORT)
                .iter()
                .any(|host| is_own(host, server.port()))
        });
        let mongodb = self.mongo.as_ref().is_none_or(|server| {
            hosts_of(mongo_hosts(given.mongodb.expose()), MONGODB_PORT)
                .iter()
                .any(|host| is_own(host, server.port()))
        });
        zookeeper && mongodb
    }

    /// Whether ZooKeeper was started here, so that nobody else works on it yet.
    pub(super) fn owns_zookeeper(&self) -> bool {
        self.zookeeper.is_some()
    }

    /// Resolves when an own server has ended by itself: its name and its log. Dropping the future loses nothing.
    pub(super) async fn failed(&mut self) -> (&'static str, PathBuf) {
        loop {
            if let Some(server) = &mut self.zookeeper
                && !server.is_running()
            {
                return ("ZooKeeper", server.log().to_owned());
            }
            if let Some(server) = &mut self.mongo
                && !server.is_running()
            {
                return ("MongoDB", server.log().to_owned());
            }
            tokio::time::sleep(PROBE).await;
        }
    }

    /// Ends the own servers and returns when they are gone; their data stays.
    pub(super) async fn stop(mut self) {
        let mongo = async {
            if let Some(server) = &mut self.mongo {
                server.stop().await;
            }
        };
        let zookeeper = async {
            if let Some(server) = &mut self.zookeeper {
                server.stop().await;
            }
        };
        tokio::join!(mongo, zookeeper);
    }
}

async fn own_zookeeper(settings: &Settings, data_dir: &Path) -> anyhow::Result<Option<ZooKeeper>> {
    let hosts = hosts_of(&settings.zookeeper, ZOOKEEPER_PORT);
    let found = if somebody_listens(&hosts).await {
        ask_zookeeper(settings).await
    } else {
        Found::Nobody
    };
    let port = match judge(found, settings, "zookeeper")? {
        Missing::Nothing => return Ok(None),
        Missing::Server { port_is_free } => port_is_free.then(|| own_port(&hosts)).flatten(),
    };
    let mut options = ZooKeeperOptions::new(data_dir.join("zookeeper"));
    options.port = port;
    Ok(Some(ZooKeeper::start(options).await?))
}

async fn own_mongo(settings: &Settings, data_dir: &Path) -> anyhow::Result<Option<Mongo>> {
    let uri = settings.mongodb.expose();
    let hosts = hosts_of(mongo_hosts(uri), MONGODB_PORT);
    // The hosts behind mongodb+srv are known to the name service alone.
    let listens = uri.starts_with("mongodb+srv:") || somebody_listens(&hosts).await;
    let found = if listens {
        ask_mongo(settings).await
    } else {
        Found::Nobody
    };
    let port = match judge(found, settings, "mongodb")? {
        Missing::Nothing => return Ok(None),
        Missing::Server { port_is_free } => port_is_free.then(|| own_port(&hosts)).flatten(),
    };
    let mut options = MongoOptions::new(data_dir.join("mongodb"));
    options.port = port;
    Ok(Some(Mongo::start(options).await?))
}

/// What has to be started.
enum Missing {
    Nothing,
    Server { port_is_free: bool },
}

fn judge(found: Found, settings: &Settings, key: &str) -> anyhow::Result<Missing> {
    match found {
        Found::Usable => Ok(Missing::Nothing),
        Found::Nobody => Ok(Missing::Server { port_is_free: true }),
        Found::Stranger(why) if settings.origin(key) == "default" => {
            tracing::warn!(
                "what answers at the default address of {key} can't be used: {why:#}; starting another"
            );
            Ok(Missing::Server { port_is_free: false })
        }
        Found::Stranger(why) => {
            Err(why).with_context(|| format!("what answers at the given address of {key} can't be used"))
        }
    }
}

async fn ask_zookeeper(settings: &Settings) -> Found {
    let mut config = settings.coordination();
    config.connect_timeout = config.connect_timeout.min(INTRODUCTION);
    match Term::begin(&config).await {
        Ok(term) => {
            term.close().await;
            Found::Usable
        }
        Err(why) => Found::Stranger(why.into()),
    }
}

async fn ask_mongo(settings: &Settings) -> Found {
    let mut config = settings.storage();
    config.timeout = config.timeout.min(INTRODUCTION);
    match Store::open(&config).await {
        Ok(_) => Found::Usable,
        Err(why) => Found::Stranger(why.into()),
    }
}

async fn somebody_listens(hosts: &[(String, u16)]) -> bool {
    let knocks = hosts.iter().map(|(host, port)| async move {
        matches!(
            tokio::time::timeout(PROBE, TcpStream::connect((host.as_str(), *port))).await,
            Ok(Ok(_))
        )
    });
    futures::future::join_all(knocks).await.contains(&true)
}

/// The port for an own server: that of the first host on this machine, when nobody has it.
fn own_port(hosts: &[(String, u16)]) -> Option<u16> {
    let (_, port) = hosts.iter().find(|(host, _)| is_loopback(host))?;
    TcpListener::bind(("127.0.0.1", *port)).is_ok().then_some(*port)
}

fn is_own((host, port): &(String, u16), own: u16) -> bool {
    is_loopback(host) && *port == own
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The `host:port,…` of a connection string of MongoDB.
fn mongo_hosts(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts)
}

/// The database of a connection string of MongoDB; `sawmill` without one.
fn database_of(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    Some(path.split('?').next().unwrap_or_default())
        .filter(|name| !name.is_empty())
        .unwrap_or("sawmill")
}

/// The hosts and ports of `host:port[,host:port…][/chroot]`.
fn hosts_of(text: &str, default_port: u16) -> Vec<(String, u16)> {
    let hosts = text.split('/').next().unwrap_or_default();
    let parse = |host: &str| match host.rsplit_once(':').map(|(name, port)| (name, port.parse())) {
        Some((name, Ok(port))) => (name.trim_matches(['[', ']']).to_owned(), port),
        _ => (host.trim_matches(['[', ']']).to_owned(), default_port),
    };
    hosts.split(',').map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_databases_are_read_from_connection_strings() {
        let pairs = |text, port| {
            hosts_of(text, port)
                .into_iter()
                .map(|(h, p)| format!("{h} {p}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            pairs("zk1:2182,zk2,[::1]:7/mill", 2181),
            ["zk1 2182", "zk2 2181", "::1 7"]
        );
        assert_eq!(mongo_hosts("mongodb://me:p@ss@a:1,b/db?w=1"), "a:1,b");
        assert_eq!(mongo_hosts("mongodb://a:1?w=1"), "a:1");
        assert_eq!(database_of("mongodb://a:1/logs?w=1"), "logs");
        assert_eq!(
            (database_of("mongodb://a:1/?w=1"), database_of("mongodb://a:1")),
            ("sawmill", "sawmill")
        );
    }

    #[test]
    fn a_taken_port_is_not_chosen() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(own_port(&[("localhost".into(), port)]), None);
        drop(taken);
        assert_eq!(
            own_port(&[("db.example.com".into(), 1), ("localhost".into(), port)]),
            Some(port)
        );
        assert_eq!(own_port(&[("db.example.com".into(), port)]), None);
    }
}
