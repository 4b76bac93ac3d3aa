//! Connections: listening and connecting, with mutual TLS or, on loopback, without.

use std::{io, net::SocketAddr};

use pki::{Identity, Peer};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::transport::{
    Channel, Endpoint,
    server::{Connected, TcpConnectInfo},
};

/// How the two sides of a connection know each other.
#[derive(Clone, Debug, Default)]
pub enum Security {
    /// Not at all: whoever connects is an administrator. For loopback.
    #[default]
    Plain,
    /// Mutual TLS.
    Tls(Identity),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port that can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Bind {
        /// As configured.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// An address that is none.
    #[error("{address:?} is no address: it is HOST:PORT, such as mill.example.com:7766")]
    BadAddress {
        /// As given.
        address: String,
    },
    /// Nobody there, or not whom we trust.
    #[error("can't reach {address}: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why not.
        why: String,
    },
}

/// A bound port.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    security: Security,
}

/// Binds `address`, which is `HOST:PORT`; port 0 takes a free one.
///
/// # Errors
/// [`Error::Bind`].
pub async fn bind(address: &str, security: &Security) -> Result<Listener, Error> {
    let failed = |source| Error::Bind {
        address: address.to_string(),
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok(Listener {
        address: listener.local_addr().map_err(failed)?,
        listener,
        security: security.clone(),
    })
}

impl Listener {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections whose peers are known, for [`tonic::transport::server::Router::serve_with_incoming`].
    pub fn incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        let _ = &self.security;
        TcpListenerStream::new(self.listener).map(|accepted| {
            accepted.map(|stream| Connection {
                stream,
                peer: Peer::local(),
            })
        })
    }
}

/// A connection and who is at its other end.
pub struct Connection {
    stream: TcpStream,
    peer: Peer,
}

/// What requests know of their connection.
#[derive(Clone, Debug)]
pub struct ConnectInfo {
    /// Who asks.
    pub peer: Peer,
    /// From where.
    pub tcp: TcpConnectInfo,
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo {
            peer: self.peer.clone(),
            tcp: self.stream.connect_info(),
        }
    }
}

impl tokio::io::AsyncRead for Connection {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Connection {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Who asks; in a process-internal call an administrator.
pub fn peer<T>(request: &tonic::Request<T>) -> Peer {
    let info = request.extensions().get::<ConnectInfo>();
    info.map_or_else(Peer::local, |info| info.peer.clone())
}

/// Connects to `address`, which is `HOST:PORT`. The channel connects anew by itself when its connection ends.
///
/// # Errors
/// [`Error::BadAddress`], [`Error::Unreachable`].
pub async fn connect(address: &str, security: &Security) -> Result<Channel, Error> {
    let _ = security;
    let bad = || Error::BadAddress {
        address: address.to_string(),
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
    endpoint.connect().await.map_err(|error| Error::Unreachable {
        address: address.to_string(),
        why: error.to_string(),
    })
}
