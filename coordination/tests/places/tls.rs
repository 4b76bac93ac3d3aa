//! TLS to the servers.

use std::{path::Path, process::Command};

use coordination::{Candidacy, Config, Error, Office, Term, TlsConfig, UserId, Users, rights};
use testkit::{Space, servers};

use crate::*;

/// Debian's `zookeeper.jar` names too few of the jars that its Netty needs; where they are not, they are not missed.
fn netty() -> String {
    let parts = [
        "buffer",
        "codec",
        "common",
        "handler",
        "resolver",
        "transport",
        "transport-native-epoll",
        "transport-native-unix-common",
    ];
    let jars = parts.map(|part| format!("/usr/share/java/netty-{part}.jar"));
    format!("-Xbootclasspath/a:{}", jars.join(":"))
}

/// Makes a key store for the server, a trust store, and its certificate as PEM.
fn certificate(directory: &Path) -> (String, String, std::path::PathBuf) {
    let file = |name: &str| directory.join(name).display().to_string();
    let (keys, trusted, ca) = (file("keys.p12"), file("trusted.p12"), directory.join("ca.pem"));
    let keytool = |store: &str, arguments: &[&str]| {
        let common = [
            "-alias",
            "server",
            "-keystore",
            store,
            "-storepass",
            "secret",
            "-storetype",
            "PKCS12",
        ];
        let output = Command::new("keytool").args(arguments).args(common).output();
        let output = output.expect("keytool, which comes with Java");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        output.stdout
    };
    let names = "san=ip:127.0.0.1,dns:localhost";
    let curve = ["-keyalg", "EC", "-groupname", "secp256r1"];
    keytool(
        &keys,
        &[
            &["-genkeypair", "-dname", "CN=localhost", "-ext", names],
            &curve[..],
        ]
        .concat(),
    );
    std::fs::write(&ca, keytool(&keys, &["-exportcert", "-rfc"])).unwrap();
    keytool(
        &trusted,
        &["-importcert", "-noprompt", "-file", &ca.display().to_string()],
    );
    (keys, trusted, ca)
}

async fn candidate_of(term: &Term) -> Result<Candidacy, Error> {
    Candidacy::enter(term, Office::Dispatcher, &candidate_data()).await
}

#[tokio::test]
async fn a_session_over_tls() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut options = servers::zookeeper_options();
    std::fs::create_dir_all(&options.data_dir).unwrap();
    let (keys, trusted, ca) = certificate(&options.data_dir);
    options.java_options.push(netty());
    let settings = [
        ("secureClientPort", port.to_string()),
        ("secureClientPortAddress", "127.0.0.1".into()),
        (
            "serverCnxnFactory",
            "org.apache.zookeeper.server.NettyServerCnxnFactory".into(),
        ),
        ("ssl.keyStore.location", keys),
        ("ssl.keyStore.password", "secret".into()),
        ("ssl.trustStore.location", trusted),
        ("ssl.trustStore.password", "secret".into()),
        ("ssl.clientAuth", "none".into()),
    ];
    options
        .settings
        .extend(settings.map(|(key, value)| (key.to_string(), value)));
    let space = Space::private_with(options, servers::mongo_options()).await;
    let tls = |ca: &Path| {
        Some(TlsConfig {
            ca: ca.to_owned(),
            cert: None,
            key: None,
        })
    };
    let address = format!("127.0.0.1:{port}");
    let secure = Config {
        tls: tls(&ca),
        // The first handshake of a server that has just started takes long on a busy machine.
        connect_timeout: SOON,
        ..config(space.zookeeper_through(&address))
    };
    let term = Term::begin(&secure).await.unwrap();
    let mut leader = leader(&term).await;
    assert_eq!(leader.feed(new_entries(600), &[]).await.unwrap().len(), 600);

    // The users of the roles, whose passwords nobody on the way reads.
    let user = |role: &str| format!("{role}:secret");
    let id = |role| UserId::of(&user(role)).unwrap();
    let users = Users::new(id("admin"), id("dispatcher"), id("worker"), id("watcher")).unwrap();
    let of = |role| Config {
        auth: Some(user(role)),
        connect: format!("{}/users", space.zookeeper_through(&address)),
        ..secure.clone()
    };
    rights::protect(&of("admin"), &[], &users, false).await.unwrap();
    let working = Term::begin(&of("worker")).await.unwrap();
    let worker = worker(&working).await;
    assert!(worker.held().await.unwrap().is_empty());
    let failure = candidate_of(&Term::begin(&of("watcher")).await.unwrap()).await;
    assert!(matches!(failure, Err(Error::NoAuth { .. })));

    // Not TLS on either side, and a certificate that is none.
    let quick = std::time::Duration::from_millis(700);
    let crossed = Config {
        connect_timeout: quick,
        ..config(space.zookeeper_through(&address))
    };
    assert!(matches!(
        Term::begin(&crossed).await,
        Err(Error::Unreachable { .. })
    ));
    let crossed = Config {
        tls: tls(&ca),
        connect_timeout: quick,
        ..config(space.zookeeper())
    };
    let failure = Term::begin(&crossed).await.unwrap_err().to_string();
    assert!(failure.contains("TLS"), "{failure}");
    let bad = Config {
        tls: tls(Path::new("/nowhere/ca.pem")),
        ..secure
    };
    let failure = Term::begin(&bad).await.unwrap_err();
    assert!(
        matches!(&failure, Error::BadTls { path, .. } if path == "/nowhere/ca.pem"),
        "{failure}"
    );
}
