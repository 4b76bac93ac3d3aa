//! Opening: what is refused, and with which words.

use std::time::{Duration, Instant};

use bson::doc;

use super::*;
use crate::{Error, NodeReport};

#[tokio::test]
async fn tells_who_the_server_is() {
    let fresh = Fresh::new().await;
    fresh.store.ping().await.unwrap();
    let info = fresh.store.server_info().await.unwrap();
    assert!(!info.version.is_empty() && !info.set_name.is_empty());
    assert!(info.clock_skew_ms.abs() < 5000, "{info:?}");
    assert_eq!(fresh.store.address(), fresh.space.mongodb_address());
    assert_eq!(fresh.store.database(), fresh.space.database());
    let usage = fresh.store.usage().await.unwrap();
    assert!(usage.disk_bytes < 1 << 40);
}

/// A server of its own that is no member of a replica set; ends with the test.
struct Standalone {
    child: std::process::Child,
    port: u16,
    _data: TempDir,
}

impl Standalone {
    fn start() -> Self {
        let data = TempDir::new().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let cargo_bin =
            std::path::PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo/bin/secantusd-rs");
        let configuration = data.path().join("empty.toml");
        std::fs::write(&configuration, "").unwrap();
        let start = |program: &std::path::Path, arguments: &[&std::ffi::OsStr]| {
            let mut command = std::process::Command::new(program);
            command.args(["--port", &port.to_string()]).args(arguments);
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
        };
        let path = data.path().as_os_str();
        let ours = ["--standalone", "--config"].map(std::ffi::OsStr::new);
        let ours = [
            &ours[..],
            &[configuration.as_os_str(), "--storage-path".as_ref(), path],
        ]
        .concat();
        let child = start("mongod".as_ref(), &["--dbpath".as_ref(), path])
            .or_else(|_| start("secantusd-rs".as_ref(), &ours))
            .or_else(|_| start(&cargo_bin, &ours))
            .expect("mongod or secantusd-rs is installed");
        Self {
            child,
            port,
            _data: data,
        }
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_server_that_is_no_replica_set_is_refused() {
    let server = Standalone::start();
    let folder = TempDir::new().unwrap();
    let store = crate::files::url_of(folder.path()).unwrap();
    let mut config = Config::new(
        format!("mongodb://127.0.0.1:{}/?directConnection=true", server.port),
        store,
    );
    config.timeout = Duration::from_secs(30);
    let error = Store::open(&config).await.unwrap_err();
    assert!(matches!(error, Error::NoReplicaSet { .. }), "{error}");
    assert!(error.to_string().contains("rs.initiate()"));
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address_in_time() {
    let folder = TempDir::new().unwrap();
    let store = crate::files::url_of(folder.path()).unwrap();
    // Bound and not listening: nobody else gets the port, and nobody answers.
    let taken = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut config = Config::new(
        format!("mongodb://me:secret@{taken}/?directConnection=true"),
        store,
    );
    config.timeout = Duration::from_millis(300);
    let begin = Instant::now();
    let error = Store::open(&config).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(error.is_unreachable() && error.is_retryable());
    let text = error.to_string();
    assert!(
        text.contains(&taken.to_string()) && !text.contains("secret"),
        "{text}"
    );
    assert!(text.len() < 300, "{text}");
}

#[tokio::test]
async fn a_bad_connection_string_is_said_so() {
    let error = Store::open(&Config::new("http://me:secret@x", "memory:///"))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::BadUri { .. }) && text.contains('x') && !text.contains("secret"),
        "{text}"
    );
    let fresh = Fresh::new().await;
    let config = Config::new(fresh.space.mongodb(), "nonsense");
    assert!(matches!(Store::open(&config).await, Err(Error::BadUrl { .. })));
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let fresh = Fresh::new().await;
    let newer = doc! { "$set": { "v": 99 } };
    fresh
        .store
        .documents("meta")
        .update_one(doc! { "_id": "format" }, newer.clone())
        .await
        .unwrap();
    let error = Store::open(&config(&fresh.space, &fresh.folder))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
    let job = fresh.admitted(1, false).await;
    fresh
        .store
        .documents("jobs")
        .update_one(doc! {}, newer)
        .await
        .unwrap();
    let error = fresh.store.job(job).await.unwrap_err();
    assert!(error.to_string().contains(&job.to_string()), "{error}");
}

#[tokio::test]
async fn init_may_be_repeated_and_collections_dropped() {
    let fresh = Fresh::new().await;
    fresh.store.init().await.unwrap();
    let job = fresh.admitted(1, false).await;
    fresh.record(vec![succeeded(job, 0, 1)]).await;
    let indexes = fresh.store.documents("results").list_index_names().await.unwrap();
    assert_eq!(indexes.len(), 2, "{indexes:?}");
    fresh.store.drop_collections().await.unwrap();
    assert_eq!(fresh.store.job(job).await.unwrap(), None);
    assert_eq!(fresh.documents("results").await, 0);
}

#[tokio::test]
async fn the_last_report_of_a_node_counts() {
    let fresh = Fresh::new().await;
    let report = |node: &str, running| NodeReport {
        node: name(node),
        worker: 7,
        host: "web7.example".into(),
        running,
        cpu: 0.25,
        memory_bytes: 1 << 33,
        cache: model::cache::CacheUse {
            most_bytes: 8,
            bytes: 7,
            hits: 3,
            misses: 1,
        },
        out: running == 3,
        at_ms: 1_700_000_000_000,
    };
    for report in [report("b", 1), report("a", 2), report("b", 3)] {
        fresh.store.report(&report).await.unwrap();
    }
    assert_eq!(
        fresh.store.list_nodes().await.unwrap(),
        [report("a", 2), report("b", 3)]
    );
}
