//! The listening side: accepts, shakes hands with many at once, and tells why a handshake failed.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use pki::Identity;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{
    Connection, Error, Security,
    local::{self, Kept, LocalToken},
};

/// Most handshakes under way at once; who comes then waits to be accepted.
pub const HANDSHAKES_MAX: usize = 128;

/// How long a handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// Most connections at once on one port.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Most connections at once without a certificate, where tokens may take its place: anybody can make these.
pub const UNKNOWN_MAX: usize = 256;

/// How long nothing is accepted when the system has run out of something, such as file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Most failed handshakes that are told in one [`TELL_EVERY`]: a scanner must not fill the log.
const TELL_MAX: u32 = 20;

/// See [`TELL_MAX`].
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    /// The token of the port, where there is one. Its file goes before the port does, so that it is never that of the next.
    local: Option<(LocalToken, Kept)>,
    listener: TcpListener,
    address: SocketAddr,
    security: Security,
    takes_tokens: bool,
}

/// Binds `address`, which is `HOST:PORT`; port 0 takes a free one.
///
/// # Errors
/// [`Error::Bind`]; [`Error::CannotServe`] with the certificate of a role that nobody connects to; [`Error::LocalToken`].
pub async fn bind(address: &str, security: &Security) -> Result<Listener, Error> {
    if let Security::Tls(identity) = security {
        let peer = identity.peer();
        if !matches!(peer.role, pki::Role::Dispatcher | pki::Role::Worker) {
            return Err(Error::CannotServe { peer });
        }
    }
    let failed = |source| Error::Bind {
        address: address.to_string(),
        source: Arc::new(source),
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let is_local = address.ip().to_canonical().is_loopback();
    let local = match security {
        Security::Plain if is_local => Some(LocalToken::keep(address)?),
        _ => {
            local::forget(address);
            None
        }
    };
    Ok(Listener {
        local,
        address,
        listener,
        security: security.clone(),
        takes_tokens: false,
    })
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients in that show no certificate, at most [`UNKNOWN_MAX`] at once: their [`super::ConnectInfo::needs_token`] is
    /// set, and whoever serves must refuse all their requests but those with a token.
    #[must_use]
    pub fn taking_tokens(self) -> Self {
        Self {
            takes_tokens: true,
            ..self
        }
    }

    /// Has those who connect to what is advertised find the token of the port too, where that is an address of loopback behind
    /// which the port is.
    ///
    /// # Errors
    /// [`Error::LocalToken`].
    pub fn advertised(mut self, advertised: Option<&str>) -> Result<Self, Error> {
        let other = advertised.and_then(|advertised| advertised.parse::<SocketAddr>().ok());
        let other = other.filter(|other| other.ip().to_canonical().is_loopback() && *other != self.address);
        if let (Some((_, kept)), Some(other)) = (&mut self.local, other) {
            kept.also_for(other)?;
        }
        Ok(self)
    }

    /// `HOST:PORT` under which others reach it: the host that is `advertised`, with its port where it has one, else the
    /// address it listens on, else `host`, the name of this machine, where that is every address.
    pub fn reached_at(&self, advertised: Option<&str>, host: &str) -> String {
        let port = self.address.port();
        if let Some(whole) = advertised.filter(|advertised| has_port(advertised)) {
            return whole.to_string();
        }
        let host = match advertised {
            Some(advertised) => advertised,
            None if self.address.ip().is_unspecified() => host,
            None => return self.address.to_string(),
        };
        // An address of IPv6 has colons of its own.
        match host.parse::<std::net::Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]:{port}"),
            Err(_) => format!("{host}:{port}"),
        }
    }

    /// Connections whose peers are known, for [`tonic::transport::server::Router::serve_with_incoming`]. Never ends, and
    /// never gives an error: what fails is told in the log. Dropping it closes the port and ends the handshakes under way.
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        let (local, kept) = self.local.unzip();
        let door = Door {
            local,
            _kept: kept,
            takes_tokens: self.takes_tokens,
            listener: self.listener,
            security: self.security,
            unknown: self.takes_tokens.then(|| Arc::new(Semaphore::new(UNKNOWN_MAX))),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            handshakes: JoinSet::new(),
            told: Told::default(),
        };
        stream::unfold(door, |mut door| async {
            let connection = door.next().await;
            Some((Ok(connection), door))
        })
    }
}

/// A handshake that has ended.
type Ended = Result<Connection, Failed>;

struct Failed {
    address: SocketAddr,
    why: String,
    /// Somebody only looked whether the port is open, as load balancers do.
    is_silent: bool,
}

struct Door {
    local: Option<LocalToken>,
    _kept: Option<Kept>,
    takes_tokens: bool,
    listener: TcpListener,
    security: Security,
    places: Arc<Semaphore>,
    /// Places for clients without a certificate, where they are let in.
    unknown: Option<Arc<Semaphore>>,
    handshakes: JoinSet<Ended>,
    told: Told,
}

impl Door {
    async fn next(&mut self) -> Connection {
        loop {
            let has_room = self.handshakes.len() < HANDSHAKES_MAX;
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(failed)) => self.told.tell(&failed),
                    Err(error) => warn!("a handshake ended by itself: {error}"),
                },
                (stream, address, place) = accept(&self.listener, &self.places), if has_room => {
                    match &self.security {
                        Security::Plain | Security::Open => {
                            return Connection::plain(stream, self.local.clone(), self.takes_tokens, place);
                        }
                        Security::Tls(identity) => {
                            let (identity, unknown) = (identity.clone(), self.unknown.clone());
                            self.handshakes.spawn(shake(stream, address, identity, unknown, place));
                        }
                    }
                }
            }
        }
    }
}

/// The next connection, once there is a place for it. Dropping the future loses none.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let place = places.clone().acquire_owned().await.expect("it is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%address, "can't set TCP_NODELAY: {error}");
                }
                return (stream, address, place);
            }
            Err(error) => {
                warn!("can't accept a connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn shake(
    stream: TcpStream,
    address: SocketAddr,
    identity: Identity,
    unknown: Option<Arc<Semaphore>>,
    place: OwnedSemaphorePermit,
) -> Ended {
    let failed = |why: String, is_silent| Failed {
        address,
        why,
        is_silent,
    };
    let config = match unknown {
        Some(_) => identity.lenient_server_config(),
        None => identity.server_config(),
    };
    let acceptor = TlsAcceptor::from(config);
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            if let (Some(unknown), None) = (unknown, stream.get_ref().1.peer_certificates()) {
                let Ok(other) = unknown.try_acquire_owned() else {
                    return Err(failed(
                        "too many connections without a certificate".to_string(),
                        false,
                    ));
                };
                return Ok(Connection::unknown(stream, vec![place, other]));
            }
            Connection::tls(stream, identity, address, place).map_err(|why| failed(why, false))
        }
        Ok(Err(error)) if pki::is_plain_text(&error) => Err(failed(
            "a plain-text client on a TLS port: it needs an identity (`sawmill pki issue`)".to_string(),
            false,
        )),
        Ok(Err(error)) => {
            let is_silent = error.kind() == io::ErrorKind::UnexpectedEof;
            Err(failed(pki::why(&error), is_silent))
        }
        Err(_) => Err(failed(
            format!("no handshake within {} s", HANDSHAKE.as_secs()),
            false,
        )),
    }
}

/// Tells of failed handshakes, but not of all.
struct Told {
    since: Instant,
    count: u32,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            count: 0,
        }
    }
}

impl Told {
    fn tell(&mut self, failed: &Failed) {
        let Failed {
            address,
            why,
            is_silent,
        } = failed;
        if *is_silent {
            debug!(%address, "handshake failed: {why}");
            return;
        }
        if self.since.elapsed() >= TELL_EVERY {
            let left_out = self.count.saturating_sub(TELL_MAX);
            if left_out > 0 {
                warn!("{left_out} more handshakes failed in the last minute");
            }
            *self = Self::default();
        }
        self.count = self.count.saturating_add(1);
        if self.count <= TELL_MAX {
            warn!(%address, "handshake failed: {why}");
        } else {
            debug!(%address, "handshake failed: {why}");
        }
    }
}

/// Whether it is `HOST:PORT`: behind a forwarded port others reach it by another than it listens on.
fn has_port(advertised: &str) -> bool {
    let is_host = |host: &str| !host.is_empty() && (!host.contains(':') || host.ends_with(']'));
    let parts = advertised.rsplit_once(':');
    parts.is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_host_may_have_a_port() {
        for (advertised, expected) in [
            ("mill", false),
            ("mill:7766", true),
            ("10.0.0.1:1", true),
            ("[::1]:7766", true),
            ("::1", false),
            ("fe80::1:7766", false),
            (":7766", false),
            ("mill:", false),
            ("mill:99999", false),
        ] {
            assert_eq!(has_port(advertised), expected, "{advertised}");
        }
    }
}
