//! Reaching ZooKeeper: addresses, certificates, and saying what is wrong when nobody answers.

use std::{fmt, path::Path, time::Duration};

use futures::FutureExt;
use rand::RngExt;
use tokio::time::Instant;
use zookeeper_client as zk;
use zookeeper_client::{Client, SessionInfo, StateWatcher};

use crate::{
    error::Error,
    term::{Config, Ending, TlsConfig},
};

/// Pause after the first round of tries; doubles up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// A server that is back is found at the latest after this.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// How long to wait for the end of a session that was given up.
const END_WAIT: Duration = Duration::from_secs(1);

pub(crate) fn bad_address(config: &Config, why: impl fmt::Display) -> Error {
    Error::BadAddress {
        connect: config.connect.clone(),
        why: why.to_string(),
    }
}

/// A session without a chroot; tries again until `connect_timeout` is over.
///
/// # Errors
/// [`Error::BadAddress`], [`Error::BadTls`], [`Error::Unreachable`]; [`Error::TermOver`] when the credentials are refused.
pub(crate) async fn connect(config: &Config) -> Result<Client, Error> {
    let (addresses, chroot) = config.split();
    if addresses.is_empty() {
        return Err(bad_address(config, "there is no host"));
    }
    if chroot.len() > 1 && (chroot.ends_with('/') || chroot.contains("//")) {
        return Err(bad_address(config, "the chroot has an empty part"));
    }
    let deadline = Instant::now() + config.connect_timeout;
    let mut pause = SHORTEST_PAUSE;
    loop {
        // The client's own pauses between tries double without a bound: one round at a time, and pauses of our own.
        match tokio::time::timeout_at(deadline, connect_once(config, None)).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(Refusal::BadTls(failure))) => return Err(failure),
            Ok(Err(Refusal::Client(zk::Error::BadArguments(why)))) => return Err(bad_address(config, why)),
            Ok(Err(Refusal::Client(zk::Error::AuthFailed))) => {
                return Err(Error::TermOver(Ending::AuthFailed));
            }
            Ok(Err(Refusal::Client(failure))) if Instant::now() + pause >= deadline => {
                // Nobody gave a session, each for a reason of its own.
                let failure = Some(failure).filter(|failure| *failure != zk::Error::NoHosts);
                return Err(unreachable(config, failure).await);
            }
            Ok(Err(Refusal::Client(_))) => {
                let jitter = rand::rng().random_range(0.5..1.0);
                tokio::time::sleep(pause.mul_f64(jitter)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(_) => return Err(unreachable(config, None).await),
        }
    }
}

/// Why one round of tries gave no session.
enum Refusal {
    Client(zk::Error),
    BadTls(Error),
}

/// Asks each server once; for `session` where that is to be taken up again.
async fn connect_once(config: &Config, session: Option<SessionInfo>) -> Result<Client, Refusal> {
    let (addresses, _) = config.split();
    let mut connector = Client::connector()
        .with_session_timeout(config.session_timeout)
        .with_fail_eagerly();
    if let Some(auth) = &config.auth {
        connector = connector.with_auth("digest", auth.as_bytes());
    }
    if let Some(session) = session {
        connector = connector.with_session(session);
    }
    let connecting = match &config.tls {
        Some(tls) => connector
            .with_tls(tls_options(tls).await.map_err(Refusal::BadTls)?)
            .secure_connect(addresses)
            .left_future(),
        None => connector.connect(addresses).right_future(),
    };
    connecting.await.map_err(Refusal::Client)
}

/// Ends a session that its client has given up while ZooKeeper was away: where ZooKeeper was restarted, its ephemerals would
/// else stay for another session timeout. Does nothing for one that is over, and gives up after a second.
pub(crate) async fn end_session(config: &Config, session: SessionInfo) {
    let ending = async {
        let Ok(client) = connect_once(config, Some(session)).await else {
            return;
        };
        let mut states = client.state_watcher();
        drop(client);
        until_terminated(&mut states).await;
    };
    let _ = tokio::time::timeout(END_WAIT, ending).await;
}

/// Waits until a session is over.
pub(crate) async fn until_terminated(states: &mut StateWatcher) {
    // `changed` never returns after the last state was consumed: look first.
    let mut state = states.state();
    while !state.is_terminated() {
        state = states.changed().await;
    }
}

/// Says why nobody answers, as far as a bare connection can tell.
async fn unreachable(config: &Config, failure: Option<zk::Error>) -> Error {
    let (addresses, _) = config.split();
    let mut reasons = Vec::new();
    for address in addresses.split(',') {
        let target = address
            .trim_start_matches("tcp://")
            .trim_start_matches("tcp+tls://");
        let target = if target.contains(':') {
            target.to_string()
        } else {
            format!("{target}:2181")
        };
        let looking = tokio::net::TcpStream::connect(&target);
        let seen = match tokio::time::timeout(Duration::from_millis(500), looking).await {
            Ok(Ok(_)) => match (&failure, &config.tls) {
                (Some(failure), _) => format!("it takes connections, but: {failure}"),
                (None, Some(_)) => {
                    "it takes connections, but no session comes about (is its port for TLS?)".into()
                }
                (None, None) => "it takes connections, but answers no ZooKeeper request".into(),
            },
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => "no connection".into(),
        };
        reasons.push(if addresses.contains(',') {
            format!("{address}: {seen}")
        } else {
            seen
        });
    }
    Error::Unreachable {
        address: addresses.to_string(),
        waited: config.connect_timeout,
        why: reasons.join("; "),
    }
}

async fn tls_options(tls: &TlsConfig) -> Result<zk::TlsOptions, Error> {
    async fn read(path: &Path) -> Result<String, Error> {
        let bad = |why: std::io::Error| Error::BadTls {
            path: path.display().to_string(),
            why: why.to_string(),
        };
        tokio::fs::read_to_string(path).await.map_err(bad)
    }
    let bad = |path: &Path, why: &dyn fmt::Display| Error::BadTls {
        path: path.display().to_string(),
        why: why.to_string(),
    };
    // The client leaves the choice of cryptography to rustls, which refuses to choose (with a panic) where the whole
    // program was built with two. An `Err` means that the program has chosen before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = read(&tls.ca).await?;
    let options = zk::TlsOptions::new()
        .with_pem_ca(&ca)
        .map_err(|why| bad(&tls.ca, &why))?;
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let (cert_pem, key_pem) = (read(cert).await?, read(key).await?);
            options
                .with_pem_identity(&cert_pem, &key_pem)
                .map_err(|why| bad(cert, &why))
        }
        (None, None) => Ok(options),
        (Some(cert), None) => Err(bad(cert, &"a certificate needs its key")),
        (None, Some(key)) => Err(bad(key, &"a key needs its certificate")),
    }
}
