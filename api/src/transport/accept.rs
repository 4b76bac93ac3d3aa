//! The listening side: accepts, shakes hands with many at once, and tells why a handshake failed.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt as _, stream};
use pki::Identity;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{
    Connection, Error, Limits, Security,
    local::{self, Kept, LocalToken},
    places::{End, Ended as MadeRoom, Place, Places},
};

/// How long a handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// How often it is looked who has not said in time who it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long nothing is accepted when the system has run out of something, such as file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Most connections that came to nothing and are told in one [`TELL_EVERY`]: a scanner must not fill the log.
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
    limits: Limits,
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
        limits: Limits::default(),
    })
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients in that show no certificate: their [`super::ConnectInfo::needs_token`] is set, whoever serves must refuse
    /// all their requests but those with a token, and [`super::Calls`] must be there: it tells who is known by then.
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

    /// Lets in at most so many.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
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
        let (listener, security, takes_tokens) = (self.listener, self.security, self.takes_tokens);
        let (local, kept) = self.local.unzip();
        let places = Places::new(self.limits);
        stream::once(async move {
            let mut looks = interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let door = Door {
                local,
                _kept: kept,
                listener,
                security,
                takes_tokens,
                places,
                looks,
                handshakes: JoinSet::new(),
                told: Told::default(),
            };
            stream::unfold(door, |mut door| async {
                let connection = door.next().await;
                Some((Ok(connection), door))
            })
        })
        .flatten()
    }
}

/// A handshake that has ended.
type Ended = Result<Connection, Failed>;

struct Failed {
    address: SocketAddr,
    what: &'static str,
    why: String,
    /// Somebody only looked whether the port is open, as load balancers do.
    is_silent: bool,
}

struct Door {
    local: Option<LocalToken>,
    _kept: Option<Kept>,
    listener: TcpListener,
    security: Security,
    takes_tokens: bool,
    places: Arc<Places>,
    looks: Interval,
    handshakes: JoinSet<Ended>,
    told: Told,
}

impl Door {
    async fn next(&mut self) -> Connection {
        loop {
            let has_unknown = self.places.has_unknown();
            tokio::select! {
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(failed)) => self.told.tell(&failed),
                    Err(error) => warn!("a handshake ended by itself: {error}"),
                },
                _ = self.looks.tick(), if has_unknown => {
                    for late in self.places.end_the_late() {
                        self.told.tell(&late.into());
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => if let Some(connection) = self.take(stream, address) {
                        return connection;
                    },
                    Err(error) => {
                        warn!("can't accept a connection: {error}");
                        // It may be descriptors that are missing.
                        if let Some(made) = self.places.make_room() {
                            self.told.tell(&made.into());
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// Takes who connects, once the handshake is done where there is one.
    fn take(&mut self, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%address, "can't set TCP_NODELAY: {error}");
        }
        let (place, end, made_room) = self.places.admit(address);
        if let Some(made) = made_room {
            self.told.tell(&made.into());
        }
        match &self.security {
            Security::Plain | Security::Open => {
                let local = self.local.clone();
                Some(Connection::plain(stream, local, self.takes_tokens, place, end))
            }
            Security::Tls(identity) => {
                let shaking = shake(stream, address, identity.clone(), self.takes_tokens, place, end);
                self.handshakes.spawn(shaking);
                None
            }
        }
    }
}

impl From<MadeRoom> for Failed {
    fn from(ended: MadeRoom) -> Self {
        Self {
            address: ended.address,
            what: "connection closed",
            why: ended.why.to_string(),
            is_silent: false,
        }
    }
}

async fn shake(
    stream: TcpStream,
    address: SocketAddr,
    identity: Identity,
    takes_tokens: bool,
    place: Arc<Place>,
    mut end: End,
) -> Ended {
    let failed = |why: String, is_silent| Failed {
        address,
        what: "handshake failed",
        why,
        is_silent,
    };
    let config = match takes_tokens {
        true => identity.lenient_server_config(),
        false => identity.server_config(),
    };
    let acceptor = TlsAcceptor::from(config);
    let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
    let shaken = tokio::select! {
        shaken = shaken => shaken,
        // That was told when it was ended.
        ended = &mut end => return Err(failed(ended.unwrap_or_default().to_string(), true)),
    };
    match shaken {
        Ok(Ok(stream)) if takes_tokens && stream.get_ref().1.peer_certificates().is_none() => {
            Ok(Connection::unknown(stream, place, end))
        }
        Ok(Ok(stream)) => {
            Connection::tls(stream, identity, address, place, end).map_err(|why| failed(why, false))
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

/// Tells of connections that came to nothing, but not of all.
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
            what,
            why,
            is_silent,
        } = failed;
        if *is_silent {
            debug!(%address, "{what}: {why}");
            return;
        }
        if self.since.elapsed() >= TELL_EVERY {
            let left_out = self.count.saturating_sub(TELL_MAX);
            if left_out > 0 {
                warn!("{left_out} more connections failed or were closed in the last minute");
            }
            *self = Self::default();
        }
        self.count = self.count.saturating_add(1);
        if self.count <= TELL_MAX {
            warn!(%address, "{what}: {why}");
        } else {
            debug!(%address, "{what}: {why}");
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
