//! Mutual TLS over real sockets, with the health service: who gets in, who does not, and what they are told.
#![allow(clippy::unwrap_used)]

mod office;

use std::{
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use api::transport::{self, Channel, Security, bind, connect, connect_any};
use pki::Identity;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use office::{DAY, Office, trusting};

/// How long anything is waited for.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server of the health service; ends with the test.
struct Served {
    address: String,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(security: &Security) -> Served {
    let listener = bind("127.0.0.1:0", security).await.unwrap();
    let address = listener.address().to_string();
    let (_, health) = tonic_health::server::health_reporter();
    let task = tokio::spawn(async move {
        let router = transport::server().add_service(health);
        router.serve_with_incoming(listener.incoming()).await.unwrap();
    });
    Served { address, task }
}

async fn ask(channel: Channel) -> Result<(), Status> {
    let request = HealthCheckRequest::default();
    HealthClient::new(channel).check(request).await.map(drop)
}

/// Why nobody gets through.
async fn refusal(address: &str, security: &Security) -> String {
    connect(address, security).await.unwrap_err().to_string()
}

/// All that is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    async fn says(&self, text: &str) {
        let read = || String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        let deadline = Instant::now() + DEADLINE;
        while !read().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in:\n{}", read());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn everybody_with_a_certificate_gets_in_and_is_known() {
    let office = Office::new();
    let server = serve(&office.tls("d", "sawmill://dispatcher/d1")).await;
    for (out, uri) in [
        ("web7", "sawmill://agent/web7?dataset=access"),
        ("anna", "sawmill://user/anna?queue=default"),
        ("root", "sawmill://admin/root"),
        ("w", "sawmill://worker/w1"),
    ] {
        let channel = connect(&server.address, &office.tls(out, uri)).await.unwrap();
        ask(channel).await.unwrap();
    }
}

#[tokio::test]
async fn who_is_refused_is_told_why_on_both_sides() {
    let (log, _guard) = Log::start();
    let (office, other) = (Office::new(), Office::new());
    let server_dir = office.issue("d", "sawmill://dispatcher/d1");
    office.issue("mallory", "sawmill://user/mallory?queue=*");
    let revoked = Security::Tls(Identity::load(&office.dir.path().join("mallory")).unwrap());
    office.authority.revoke("mallory", SystemTime::now()).unwrap();
    std::fs::copy(office.authority.revoked_path(), server_dir.join("crl.pem")).unwrap();
    let server = serve(&Security::Tls(Identity::load(&server_dir).unwrap())).await;

    let told = refusal(&server.address, &revoked).await;
    assert!(told.contains("refuses our certificate as revoked"), "{told}");
    log.says("its certificate was revoked").await;

    // From an authority that the server does not know; it looks as if it were from the right one to itself.
    let stranger = other.issue("eve", "sawmill://admin/eve");
    let stranger = Security::Tls(Identity::load(&stranger).unwrap());
    let told = refusal(&server.address, &stranger).await;
    assert!(told.contains("another authority"), "{told}");
    std::fs::copy(
        office.dir.path().join("ca/ca.pem"),
        other.dir.path().join("eve-ca.pem"),
    )
    .unwrap();
    let told = shake_with(&server.address, &other.dir.path().join("eve"), &office).await;
    assert!(told.contains("UnknownCA"), "{told}");
    log.says("another authority than ours").await;

    let told = shake_without(&server.address, &office).await;
    assert!(told.contains("CertificateRequired"), "{told}");
    log.says("showed no certificate").await;

    let told = refusal(&server.address, &Security::Plain).await;
    assert!(told.contains("it wants TLS"), "{told}");
    log.says("a plain-text client on a TLS port").await;

    // Nobody of these kept others out.
    let anna = office.tls("anna", "sawmill://user/anna");
    ask(connect(&server.address, &anna).await.unwrap()).await.unwrap();
}

/// A raw handshake that trusts the office's servers and shows the certificate in `dir`.
async fn shake_with(address: &str, dir: &Path, office: &Office) -> String {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let certificate = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let config = trusting(office)
        .with_client_auth_cert(vec![certificate], key)
        .unwrap();
    raw(address, config).await
}

async fn shake_without(address: &str, office: &Office) -> String {
    raw(address, trusting(office).with_no_client_auth()).await
}

/// What the server says to a client of this configuration.
async fn raw(address: &str, mut config: rustls::ClientConfig) -> String {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.unwrap();
    stream.read_u8().await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_client_knows_its_server_by_authority_host_and_role() {
    let (office, other) = (Office::new(), Office::new());
    let anna = office.tls("anna", "sawmill://user/anna");

    let elsewhere = office.order("b", "sawmill://worker/b", "b.example.com", SystemTime::now(), DAY);
    let server = serve(&Security::Tls(Identity::load(&elsewhere).unwrap())).await;
    let told = refusal(&server.address, &anna).await;
    assert!(
        told.contains("b.example.com") && told.contains("not for 127.0.0.1"),
        "{told}"
    );

    let server = serve(&other.tls("d", "sawmill://dispatcher/d1")).await;
    let told = refusal(&server.address, &anna).await;
    assert!(told.contains("another authority than ours"), "{told}");

    let server = serve(&Security::Plain).await;
    let told = refusal(&server.address, &anna).await;
    assert!(told.contains("does not speak TLS"), "{told}");

    // An agent's certificate makes no server, here or by other software.
    let agent = office.tls("web7", "sawmill://agent/web7");
    let told = bind("127.0.0.1:0", &agent).await.err().unwrap().to_string();
    assert!(
        told.contains("agent web7") && told.contains("dispatcher or worker"),
        "{told}"
    );
    let Security::Tls(identity) = agent else {
        unreachable!()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(identity.server_config());
        acceptor.accept(stream).await.err().map(|error| error.to_string())
    });
    let told = refusal(&address, &anna).await;
    assert!(told.contains("must be dispatcher or worker"), "{told}");
    assert!(task.await.unwrap().is_some());
}

#[tokio::test]
async fn time_ends_certificates() {
    let office = Office::new();
    let long_ago = SystemTime::now() - 3 * DAY;
    let old = office.order("old", "sawmill://user/old", "127.0.0.1", long_ago, DAY);
    let told = Identity::load(&old).unwrap_err().to_string();
    assert!(
        told.contains("expired on") && told.contains("sawmill pki renew"),
        "{told}"
    );
    let later = SystemTime::now() + DAY;
    let early = office.order("early", "sawmill://user/early", "127.0.0.1", later, DAY);
    let told = Identity::load(&early).unwrap_err().to_string();
    assert!(told.contains("not valid yet"), "{told}");

    let (log, _guard) = Log::start();
    let server = serve(&office.tls("d", "sawmill://dispatcher/d1")).await;
    let told = shake_with(&server.address, &old, &office).await;
    assert!(told.contains("CertificateExpired"), "{told}");
    log.says("its certificate has expired").await;

    office.authority.renew(&old, None, SystemTime::now()).unwrap();
    let renewed = Security::Tls(Identity::load(&old).unwrap());
    ask(connect(&server.address, &renewed).await.unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn changed_files_are_used_without_a_restart() {
    let (log, _guard) = Log::start();
    let office = Office::new();
    let server_dir = office.issue("d", "sawmill://dispatcher/d1");
    let identity = Identity::load(&server_dir).unwrap();
    let server = serve(&Security::Tls(identity.clone())).await;
    let anna = office.tls("anna", "sawmill://user/anna");
    let channel = connect(&server.address, &anna).await.unwrap();
    ask(channel.clone()).await.unwrap();

    // A renewal is seen.
    let before = identity.generation();
    office
        .authority
        .renew(&server_dir, None, SystemTime::now())
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    while identity.generation() == before {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    log.says("identity read again").await;
    ask(connect(&server.address, &anna).await.unwrap()).await.unwrap();

    // Broken files are not used, and told.
    let good = std::fs::read(server_dir.join("cert.pem")).unwrap();
    std::fs::write(server_dir.join("cert.pem"), "nonsense").unwrap();
    let deadline = Instant::now() + DEADLINE;
    while !String::from_utf8_lossy(&log.0.lock().unwrap()).contains("the old one is") {
        assert!(Instant::now() < deadline);
        ask(connect(&server.address, &anna).await.unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    std::fs::write(server_dir.join("cert.pem"), good).unwrap();

    // Revoked: the connection that is open ends, and there is no other.
    ask(channel.clone()).await.unwrap();
    office.authority.revoke("user/anna", SystemTime::now()).unwrap();
    std::fs::copy(office.authority.revoked_path(), server_dir.join("crl.pem")).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        match ask(channel.clone()).await {
            Err(status) if transport::why(&status).contains("revoked") => break status,
            _ => assert!(Instant::now() < deadline),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(
        [Code::Unavailable, Code::Unknown].contains(&status.code()),
        "{status}"
    );
    log.says("connection closed: its certificate was revoked").await;
}

#[tokio::test]
async fn silence_and_nonsense_do_not_keep_others_out() {
    let office = Office::new();
    let server = serve(&office.tls("d", "sawmill://dispatcher/d1")).await;
    let mut held = Vec::new();
    for number in 0..transport::UNKNOWN_MAX + 8 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        match number % 3 {
            0 => stream.write_all(&[0x16, 3, 1, 0x40, 0]).await.unwrap(),
            1 => stream.write_all(&[0xff; 64]).await.unwrap(),
            _ => {}
        }
        held.push(stream);
    }
    let anna = office.tls("anna", "sawmill://user/anna");
    ask(connect(&server.address, &anna).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn the_first_of_several_that_answers_is_taken() {
    let server = serve(&Security::Plain).await;
    // Bound and never accepted from: connections are made by the kernel and then nothing is said.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent
        .local_addr()
        .map(|address| (silent, address.to_string()))
        .unwrap();
    let nobody = {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        gone.local_addr().unwrap().to_string()
    };
    let addresses = [nobody.clone(), silent.1.clone(), server.address.clone()];
    let started = Instant::now();
    let (channel, address) = connect_any(&addresses, &Security::Plain).await.unwrap();
    assert_eq!(address, server.address);
    assert!(
        started.elapsed() < transport::CONNECT,
        "the silent one was waited for"
    );
    ask(channel).await.unwrap();

    let told = connect_any(&[nobody.clone(), nobody.clone()], &Security::Plain).await;
    let told = told.unwrap_err().to_string();
    assert!(told.contains(&nobody) && told.contains("refused"), "{told}");
    assert!(connect_any(&[], &Security::Plain).await.is_err());
}
