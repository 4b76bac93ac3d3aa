//! A MongoDB that asks for a password, over TLS.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use bson::doc;
use mongodb::Client;
use pki::{Authority, Order, Peer, Rights, Role};
use testkit::wait;

use super::*;
use crate::Error;

const DEADLINE: Duration = Duration::from_secs(30);

/// The stand-in of MongoDB with users and TLS; ends with the test.
struct Protected {
    child: Child,
    port: u16,
    files: TempDir,
}

impl Drop for Protected {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Protected {
    /// None where the stand-in is not installed: a mongod is set up for this by its own documentation.
    fn start() -> Option<Self> {
        let files = TempDir::new().unwrap();
        let now = SystemTime::now();
        let authority = Authority::create(&files.path().join("ca"), now).unwrap();
        let order = Order {
            peer: Peer {
                role: Role::Dispatcher,
                name: Name::new("db").unwrap(),
                rights: Rights::default(),
            },
            hosts: vec!["127.0.0.1".into()],
            valid: Duration::from_secs(3600),
        };
        let identity = files.path().join("db");
        authority.issue(&order, &identity, now).unwrap();
        std::fs::write(files.path().join("empty.toml"), "").unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let start = |program: &Path| {
            Command::new(program)
                .args(["--host", "127.0.0.1", "--auth", "--port", &port.to_string()])
                .arg("--config")
                .arg(files.path().join("empty.toml"))
                .arg("--storage-path")
                .arg(files.path().join("data"))
                .arg("--tls-cert-file")
                .arg(identity.join("cert.pem"))
                .arg("--tls-key-file")
                .arg(identity.join("key.pem"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let in_cargo = Path::new(&std::env::var_os("HOME")?).join(".cargo/bin/secantusd-rs");
        let child = start(Path::new("secantusd-rs"))
            .or_else(|_| start(&in_cargo))
            .ok()?;
        Some(Self { child, port, files })
    }

    fn uri(&self, user: &str, options: &str) -> String {
        let (port, ca) = (self.port, self.files.path().join("db/ca.pem"));
        let tls = format!("tls=true&tlsCAFile={}", ca.display());
        format!("mongodb://{user}127.0.0.1:{port}/mill?serverSelectionTimeoutMS=3000&{tls}{options}")
    }

    async fn open(&self, uri: String) -> Result<Store, Error> {
        let blocks = format!("file://{}", self.files.path().join("blocks").display());
        let store = Store::open(&Config::new(uri, blocks)).await?;
        store.init().await?;
        Ok(store)
    }
}

#[tokio::test]
async fn a_password_by_scram_over_tls_opens_it_and_nothing_else_does() {
    let Some(server) = Protected::start() else {
        eprintln!("not tried: secantusd-rs is not installed");
        return;
    };
    // The first user is made from the machine itself, as with MongoDB.
    let create =
        doc! { "createUser": "sawmill", "pwd": "s3cret", "roles": [{ "role": "readWrite", "db": "mill" }] };
    wait::until_ok("the first user", DEADLINE, async || {
        let client = Client::with_uri_str(server.uri("", "")).await;
        let client = client.map_err(|error| error.to_string())?;
        let created = client.database("admin").run_command(create.clone()).await;
        created.map_err(|error| error.to_string())
    })
    .await;
    let scram = "&authSource=admin&authMechanism=SCRAM-SHA-256";
    let store = server.open(server.uri("sawmill:s3cret@", scram)).await.unwrap();
    let name = Name::new("access").unwrap();
    store.create(&name).await.unwrap();
    assert_eq!(store.get(&name).await.unwrap().unwrap().name, name);

    let refused = [
        server.uri("sawmill:wrong@", scram),
        server.uri("", ""),
        format!(
            "mongodb://sawmill:s3cret@127.0.0.1:{}/mill?serverSelectionTimeoutMS=1000",
            server.port
        ),
    ];
    for uri in refused {
        let error = server.open(uri.clone()).await.expect_err(&uri).to_string();
        assert!(!error.contains("s3cret") && !error.contains("wrong@"), "{error}");
        assert!(error.contains(&format!("127.0.0.1:{}", server.port)), "{error}");
    }
}
