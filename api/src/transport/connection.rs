//! An accepted connection, and who is at its other end for as long as that holds.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use model::Name;
use pki::{Identity, Peer, Rights, Role};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

use super::{
    local::LocalToken,
    places::{End, Place},
};

/// How often the certificate behind a connection is checked anew although nothing has changed: it may have expired.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// A connection and who is at its other end.
pub struct Connection {
    stream: Stream,
    peer: Peer,
    info: TcpConnectInfo,
    needs_token: bool,
    local: Option<LocalToken>,
    /// Given back when the connection ends.
    place: Arc<Place>,
    /// Tells that it has to make room for others; none once that can't be any more.
    end: Option<End>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>, Option<Guard>),
}

/// Ends a connection whose certificate is no longer good.
struct Guard {
    identity: Identity,
    chain: Vec<CertificateDer<'static>>,
    generation: u64,
    looked: Instant,
    checked: Instant,
    address: SocketAddr,
}

/// What requests know of their connection.
#[derive(Clone, Debug)]
pub struct ConnectInfo {
    /// Who asks.
    pub peer: Peer,
    /// From where.
    pub tcp: TcpConnectInfo,
    /// Whether nobody on the way can read what is sent: by TLS, or since it does not leave the machine.
    pub is_private: bool,
    /// Whether the other side showed no certificate where a token may take its place: its peer may do nothing until a
    /// token says who it is.
    pub needs_token: bool,
    /// What makes it the user of this process, where its peer is nobody until it shows that.
    pub local: Option<LocalToken>,
    /// The place of the connection on its port; none in tests of services alone.
    pub place: Option<Arc<Place>>,
}

impl ConnectInfo {
    /// Whether a certificate, a token or the port itself tells who is at the other end.
    pub fn is_known(&self) -> bool {
        !self.needs_token && self.peer != nobody()
    }

    /// By whom what this one takes is counted: the identity or, where it has shown none, the connection.
    pub fn holder(&self) -> String {
        if self.is_known() && self.peer != Peer::local() {
            return self.peer.to_string();
        }
        let from = self.tcp.remote_addr();
        from.map_or_else(
            || self.peer.to_string(),
            |address| format!("the connection from {address}"),
        )
    }
}

impl Connection {
    /// Whoever reaches us without TLS: an administrator, or nobody until it shows the token of the port or, where these are
    /// taken, one of another user.
    pub(super) fn plain(
        stream: TcpStream,
        local: Option<LocalToken>,
        takes_tokens: bool,
        place: Arc<Place>,
        end: End,
    ) -> Self {
        Self {
            info: stream.connect_info(),
            stream: Stream::Plain(stream),
            peer: if local.is_some() { nobody() } else { Peer::local() },
            needs_token: local.is_some() && takes_tokens,
            local,
            place,
            end: Some(end),
        }
    }

    /// After a handshake.
    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        identity: Identity,
        address: SocketAddr,
        place: Arc<Place>,
        end: End,
    ) -> Result<Self, String> {
        let (tcp, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        let chain: Vec<_> = chain.iter().map(|one| one.clone().into_owned()).collect();
        let generation = identity.generation();
        let peer = identity.check(&chain)?;
        let now = Instant::now();
        let info = tcp.connect_info();
        let guard = Guard {
            identity,
            chain,
            generation,
            looked: now,
            checked: now,
            address,
        };
        let connection = Self {
            stream: Stream::Tls(Box::new(stream), Some(guard)),
            peer,
            info,
            needs_token: false,
            local: None,
            place,
            end: Some(end),
        };
        connection.take_place();
        Ok(connection)
    }

    /// After a handshake in which no certificate was shown, where a token may take its place.
    pub(super) fn unknown(stream: TlsStream<TcpStream>, place: Arc<Place>, end: End) -> Self {
        Self {
            info: stream.get_ref().0.connect_info(),
            stream: Stream::Tls(Box::new(stream), None),
            peer: nobody(),
            needs_token: true,
            local: None,
            place,
            end: Some(end),
        }
    }

    /// Takes the place of one who is known. Where there is none, the connection stays among those that make room for others,
    /// and its calls are told.
    fn take_place(&self) {
        let info = self.connect_info();
        if info.is_known() {
            self.place.known(&info.holder()).unwrap_or_default();
        }
    }

    /// Fails once the connection has to make room for others.
    fn look_for_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(end) = &mut self.end else {
            return Ok(());
        };
        match Pin::new(end).poll(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(why)) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)),
            // It is known who is at the other end.
            Poll::Ready(Err(_)) => {
                self.end = None;
                Ok(())
            }
        }
    }
}

/// A peer without rights: no service has anything for watchers.
fn nobody() -> Peer {
    Peer {
        role: Role::Watcher,
        name: Name::new("nobody").expect("a valid name"),
        rights: Rights::default(),
    }
}

impl Guard {
    /// Checks the certificate again when the files have changed or it is time. Called with each read, which the
    /// keepalive brings about every few seconds.
    fn look(&mut self, peer: &Peer) -> io::Result<()> {
        let now = Instant::now();
        if now.duration_since(self.looked) < pki::RELOAD_EVERY {
            return Ok(());
        }
        self.looked = now;
        let generation = self.identity.generation();
        if generation == self.generation && now.duration_since(self.checked) < CHECK_EVERY {
            return Ok(());
        }
        (self.generation, self.checked) = (generation, now);
        self.identity.check(&self.chain).map(drop).map_err(|why| {
            warn!(address = %self.address, %peer, "connection closed: {why}");
            io::Error::new(io::ErrorKind::PermissionDenied, why)
        })
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        let is_local = |address: Option<SocketAddr>| {
            address.is_some_and(|address| address.ip().to_canonical().is_loopback())
        };
        ConnectInfo {
            peer: self.peer.clone(),
            tcp: self.info.clone(),
            needs_token: self.needs_token,
            local: self.local.clone(),
            place: Some(Arc::clone(&self.place)),
            is_private: matches!(self.stream, Stream::Tls(..)) || is_local(self.info.remote_addr()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.look_for_end(context)?;
        match &mut this.stream {
            Stream::Plain(stream) => {
                ready!(Pin::new(stream).poll_read(context, buffer))?;
                // Who says nothing does not keep a place.
                if !this.place.is_known() {
                    this.take_place();
                }
                Poll::Ready(Ok(()))
            }
            Stream::Tls(stream, guard) => {
                if let Some(guard) = guard {
                    guard.look(&this.peer)?;
                }
                Pin::new(stream.as_mut()).poll_read(context, buffer)
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.look_for_end(context)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, buffer),
            Stream::Tls(stream, _) => Pin::new(stream.as_mut()).poll_write(context, buffer),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.look_for_end(context)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Stream::Tls(stream, _) => Pin::new(stream.as_mut()).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.look_for_end(context)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream, _) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream, _) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
