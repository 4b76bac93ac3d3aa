//! Tokens instead of certificates: over TLS, on loopback, and where they are refused.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use api::{
    transport::{self, Channel, Security},
    v1::{JobReference, queue_client::QueueClient},
};
use control::Control;
use gateway::{Config, Gateway, Limits, Parts};
use pki::{Authority, Identity, Order, Peer, Token};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use storage::TokenRecord;
use testkit::{Space, wait};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const SOON: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn control(space: &Space, files: &Path) -> Control {
    let store = format!("file://{}", files.join("store").display());
    let store = storage::Store::open(&storage::Config::new(space.mongodb(), store))
        .await
        .unwrap();
    store.init().await.unwrap();
    let zookeeper = coordination::Config {
        connect: space.zookeeper(),
        ..Default::default()
    };
    Control::open(zookeeper, store)
}

async fn serve(control: &Control, security: &Security, stop: &CancellationToken) -> String {
    serve_within(Limits::default(), control, security, stop).await
}

async fn serve_within(
    limits: Limits,
    control: &Control,
    security: &Security,
    stop: &CancellationToken,
) -> String {
    let config = Config {
        listen: "127.0.0.1:0".into(),
        advertise: None,
        host: "localhost".into(),
        security: security.clone(),
        limits,
    };
    let gateway = Gateway::bind(config).await.unwrap();
    let address = gateway.address();
    let parts = Parts {
        control: control.clone(),
    };
    tokio::spawn(gateway.run(parts, stop.clone()));
    address
}

/// As other programs connect: they know the authority and show no certificate.
async fn without_certificate(address: &str, ca: &Path) -> Channel {
    counted_without_certificate(address, ca).await.0
}

/// The same, and how often it has connected.
async fn counted_without_certificate(address: &str, ca: &Path) -> (Channel, Arc<AtomicUsize>) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let to = address.to_string();
    let connects = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&connects);
    let connect = tower::service_fn(move |_| {
        let (to, connector) = (to.clone(), connector.clone());
        counting.fetch_add(1, Ordering::Relaxed);
        async move {
            let stream = TcpStream::connect(to).await?;
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    (
        endpoint.connect_with_connector(connect).await.unwrap().into(),
        connects,
    )
}

/// With which code somebody with this token is answered who asks for a job that is not there.
async fn answer(channel: &Channel, token: Option<&str>) -> Code {
    let mut request = Request::new(JobReference {
        reference: "00000000-0000-7000-8000-000000000000".into(),
    });
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let answered = QueueClient::new(channel.clone()).get_job(request).await;
    answered.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_as_good_as_a_certificate_until_it_ends() {
    let (space, files) = (Space::new().await, tempfile::tempdir().unwrap());
    let control = control(&space, files.path()).await;
    let authority = Authority::create(&files.path().join("ca"), SystemTime::now()).unwrap();
    let issue = |out: &str, uri: &str| {
        let order = Order {
            peer: Peer::from_uri(uri).unwrap(),
            hosts: vec!["127.0.0.1".into()],
            valid: DAY,
        };
        let out = files.path().join(out);
        authority.issue(&order, &out, SystemTime::now()).unwrap();
        Security::Tls(Identity::load(&out).unwrap())
    };
    let stop = CancellationToken::new();
    let address = serve(&control, &issue("d", "sawmill://dispatcher/d1"), &stop).await;
    let nightly = Peer::from_uri("sawmill://user/nightly?queue=default").unwrap();
    let (token, record) = control.create_token(&nightly, DAY, "a test").await.unwrap();
    assert_eq!(control.tokens().await.unwrap(), std::slice::from_ref(&record));
    let good = token.expose();

    let anna = issue("anna", "sawmill://user/anna");
    let with = transport::connect(&address, &anna).await.unwrap();
    assert_eq!(answer(&with, None).await, Code::NotFound);
    let without = without_certificate(&address, &files.path().join("ca/ca.pem")).await;
    assert_eq!(answer(&without, None).await, Code::Unauthenticated);
    assert_eq!(answer(&without, Some(&good)).await, Code::NotFound);
    // Load balancers have no tokens.
    HealthClient::new(without.clone())
        .check(HealthCheckRequest::default())
        .await
        .unwrap();

    // Unknown, expired, of another role, and no token at all; a certificate does not make up for it.
    let kept = |peer: &str, expires_ms: i64| {
        let token = Token::generate().unwrap();
        let record = TokenRecord {
            hash: token.hash(),
            peer: peer.into(),
            expires_ms,
            ..record.clone()
        };
        (token.expose(), record)
    };
    let expired = kept("sawmill://user/nightly", record.created_ms);
    let forged = kept("sawmill://admin/nightly", record.expires_ms);
    for (_, record) in [&expired, &forged] {
        control.store().unwrap().keep_token(record).await.unwrap();
    }
    let unknown = Token::generate().unwrap().expose();
    for bad in [
        expired.0.as_str(),
        &forged.0,
        &unknown,
        "sawmill_",
        "nonsense",
        "",
    ] {
        assert_eq!(answer(&without, Some(bad)).await, Code::Unauthenticated, "{bad}");
        assert_eq!(answer(&with, Some(bad)).await, Code::Unauthenticated, "{bad}");
    }

    // On loopback without TLS too.
    let plain = serve(&control, &Security::Plain, &stop).await;
    let plain = transport::connect(&plain, &Security::Plain).await.unwrap();
    assert_eq!(answer(&plain, Some(&good)).await, Code::NotFound);
    assert_eq!(answer(&plain, Some(&unknown)).await, Code::Unauthenticated);

    control.revoke_token("nightly", "a test").await.unwrap();
    wait::until_true("the revoked token to be refused", SOON, async || {
        answer(&without, Some(&good)).await == Code::Unauthenticated
    })
    .await;
    assert!(control.revoke_token("nightly", "a test").await.is_err());
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_keeps_its_connection_and_idle_strangers_keep_nobody_out() {
    let (space, files) = (Space::new().await, tempfile::tempdir().unwrap());
    let control = control(&space, files.path()).await;
    let authority = Authority::create(&files.path().join("ca"), SystemTime::now()).unwrap();
    let order = Order {
        peer: Peer::from_uri("sawmill://dispatcher/d1").unwrap(),
        hosts: vec!["127.0.0.1".into()],
        valid: DAY,
    };
    let out = files.path().join("d");
    authority.issue(&order, &out, SystemTime::now()).unwrap();
    let security = Security::Tls(Identity::load(&out).unwrap());
    let stop = CancellationToken::new();
    let limits = Limits {
        port: transport::Limits {
            unknown: 8,
            ..transport::Limits::default()
        },
        ..Limits::default()
    };
    let address = serve_within(limits, &control, &security, &stop).await;
    let nightly = Peer::from_uri("sawmill://user/nightly?queue=default").unwrap();
    let (token, _) = control.create_token(&nightly, DAY, "a test").await.unwrap();
    let ca = files.path().join("ca/ca.pem");

    let (script, connected) = counted_without_certificate(&address, &ca).await;
    let good = token.expose();
    assert_eq!(answer(&script, Some(&good)).await, Code::NotFound);
    // Each has a connection, and most of them lose it to those that come later.
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(without_certificate(&address, &ca).await);
    }
    let late = without_certificate(&address, &ca).await;
    HealthClient::new(late.clone())
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
    assert_eq!(answer(&late, Some(&good)).await, Code::NotFound);
    // By the token it is known, and nobody pushes it out.
    assert_eq!(answer(&script, Some(&good)).await, Code::NotFound);
    assert_eq!(connected.load(Ordering::Relaxed), 1);
    stop.cancel();
}
