//! The connecting side: TCP, TLS, and the first word of HTTP/2, so that whatever is wrong is told at once.

use std::{
    error::Error as StdError,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use super::{
    CONNECTION_WINDOW_BYTES, Channel, Error, HEADERS_BYTES, KEEPALIVE, KEEPALIVE_TIMEOUT,
    STREAM_WINDOW_BYTES, Security, local::Shown,
};

/// How long each of TCP, TLS and the first word of HTTP/2 may take.
pub const CONNECT: Duration = Duration::from_secs(5);

/// How long the first of several addresses is waited for before the next one is tried as well.
const NEXT_AFTER: Duration = Duration::from_millis(300);

/// What each client of HTTP/2 says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The head of the frame with which each server answers.
const FRAME_HEAD_BYTES: usize = 9;

/// The type of that frame.
const SETTINGS: u8 = 4;

/// The first byte with which TLS says that it does not understand.
const TLS_ALERT: u8 = 0x15;

/// Connects to `address`, which is `HOST:PORT`. The channel connects anew by itself when its connection ends.
///
/// # Errors
/// [`Error::BadAddress`], [`Error::Unreachable`], [`Error::Hopeless`].
pub async fn connect(address: &str, security: &Security) -> Result<Channel, Error> {
    let (host, port) = host_and_port(address)?;
    let bad = || Error::BadAddress {
        address: address.to_string(),
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| bad())?
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADERS_BYTES);
    let target = Target {
        address: address.to_string(),
        host,
        port,
        security: security.clone(),
        shown: (!matches!(security, Security::Tls(_))).then(Arc::default),
    };
    let shown = target.shown.clone();
    let connector = tower::service_fn(move |_| {
        let target = target.clone();
        async move { target.dial().await.map(TokioIo::new) }
    });
    let connected = endpoint.connect_with_connector(connector).await;
    let channel = connected.map_err(|error| {
        let (address, why) = (address.to_string(), reason(&error));
        if is_hopeless(&error) {
            Error::Hopeless { address, why }
        } else {
            Error::Unreachable { address, why }
        }
    })?;
    Ok(Channel::new(channel, shown))
}

/// Whether we said ourselves that it is so.
fn is_hopeless(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(Error::Hopeless { .. })) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Connects to the first of several addresses that answers, and tells which. Each is given a little while before the
/// next one is tried as well; one that fails is followed by the next at once.
///
/// # Errors
/// [`Error::BadAddress`] without any address; the error of the only one, or [`Error::NoneAnswers`].
pub async fn connect_any(addresses: &[String], security: &Security) -> Result<(Channel, String), Error> {
    let mut waiting = addresses.iter();
    let mut trying = FuturesUnordered::new();
    let mut errors = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            trying.push(async move { (connect(address, security).await, address) });
        }
        let ended = match timeout(NEXT_AFTER, trying.next()).await {
            Err(_) if waiting.len() > 0 => continue,
            Err(_) => trying.next().await,
            Ok(ended) => ended,
        };
        match ended {
            Some((Ok(channel), address)) => return Ok((channel, address.clone())),
            Some((Err(error), _)) => errors.push(error),
            None => break,
        }
    }
    match errors.len() {
        0 => Err(Error::BadAddress {
            address: String::new(),
        }),
        1 => Err(errors.remove(0)),
        _ => Err(Error::NoneAnswers(errors)),
    }
}

/// Why a request failed: with what was wrong with the connection, when it was that.
pub fn why(status: &tonic::Status) -> String {
    let told = status.source().map(reason);
    told.unwrap_or_else(|| status.message().to_string())
}

/// What we said ourselves of a failed connection, or else the deepest cause.
fn reason(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    loop {
        if let Some(Error::Unreachable { why, .. } | Error::Hopeless { why, .. }) =
            cause.downcast_ref::<Error>()
        {
            return why.clone();
        }
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => return cause.to_string(),
        }
    }
}

/// Takes `HOST:PORT` apart; an IPv6 address stands in brackets.
pub(super) fn host_and_port(address: &str) -> Result<(String, u16), Error> {
    let bad = || Error::BadAddress {
        address: address.to_string(),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?.to_string(),
        None => host.to_string(),
    };
    let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok() && address.starts_with('[');
    let is_host = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if !is_v6 && !is_host {
        return Err(bad());
    }
    Ok((host, port.parse().map_err(|_| bad())?))
}

/// Where to connect, and how.
#[derive(Clone)]
struct Target {
    address: String,
    host: String,
    port: u16,
    security: Security,
    /// What is shown without TLS.
    shown: Option<Arc<Shown>>,
}

impl Target {
    async fn dial(&self) -> Result<Opened, Error> {
        let unreachable = |why: String| Error::Unreachable {
            address: self.address.clone(),
            why,
        };
        let late = |_| unreachable(format!("no answer within {} s", CONNECT.as_secs()));
        let refused = |refused: Refused| match refused.is_final {
            true => Error::Hopeless {
                address: self.address.clone(),
                why: refused.why,
            },
            false => unreachable(refused.why),
        };
        let stream = timeout(CONNECT, TcpStream::connect((self.host.as_str(), self.port)))
            .await
            .map_err(late)?
            .map_err(|error| unreachable(error.to_string()))?;
        // Without it small messages wait for acknowledgements; that it can't be set stops nobody.
        stream.set_nodelay(true).unwrap_or_default();
        if let Some(shown) = &self.shown {
            shown.connected(stream.peer_addr().ok());
        }
        let stream: Box<dyn Duplex> = match &self.security {
            Security::Plain | Security::Open => Box::new(stream),
            Security::Tls(identity) => {
                let name = ServerName::try_from(self.host.clone())
                    .map_err(|_| unreachable(format!("{} can't be in a certificate", self.host)))?;
                let connector = TlsConnector::from(identity.client_config());
                let stream = timeout(CONNECT, connector.connect(name, stream)).await;
                let told = |error: io::Error| refused(Refused::by(&error));
                Box::new(stream.map_err(late)?.map_err(told)?)
            }
        };
        let is_plain = !matches!(self.security, Security::Tls(_));
        timeout(CONNECT, Opened::open(stream, is_plain))
            .await
            .map_err(late)?
            .map_err(refused)
    }
}

/// Why the other side ended the handshake.
struct Refused {
    why: String,
    /// It has said so: another try ends the same.
    is_final: bool,
}

impl Refused {
    fn by(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Self::perhaps(
                    "it closed the connection during the handshake: it may not speak TLS, or its log says why",
                )
            }
            // What TLS itself says.
            io::ErrorKind::InvalidData => Self::finally(pki::why(error)),
            _ => Self::perhaps(pki::why(error)),
        }
    }

    fn perhaps(why: impl Into<String>) -> Self {
        let (why, is_final) = (why.into(), false);
        Self { why, is_final }
    }

    fn finally(why: impl Into<String>) -> Self {
        let (why, is_final) = (why.into(), true);
        Self { why, is_final }
    }
}

/// Any stream of bytes in both directions.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection over which the server has begun to speak HTTP/2.
///
/// In TLS 1.3 a client is done before the server has looked at its certificate: only its first word says that it likes it.
/// So we say the preface ourselves, wait for the first frame, and hide both from HTTP/2, which does the same once more.
struct Opened {
    stream: Box<dyn Duplex>,
    /// What the server said first and nobody has read yet.
    head: Vec<u8>,
    /// How much of the preface HTTP/2 has not said yet.
    preface: &'static [u8],
}

impl Opened {
    async fn open(mut stream: Box<dyn Duplex>, is_plain: bool) -> Result<Self, Refused> {
        let written = async {
            stream.write_all(PREFACE).await?;
            stream.flush().await
        };
        // Whatever it has to say is in what it sent before it closed.
        let broken = written.await.err();
        let mut head = Vec::with_capacity(FRAME_HEAD_BYTES);
        while head.len() < FRAME_HEAD_BYTES {
            let mut bytes = [0; FRAME_HEAD_BYTES];
            let room = FRAME_HEAD_BYTES - head.len();
            match stream.read(&mut bytes[..room]).await {
                Ok(0) => break,
                Ok(read) => head.extend_from_slice(&bytes[..read]),
                Err(error) if head.is_empty() => return Err(Refused::by(&error)),
                Err(_) => break,
            }
        }
        match head.as_slice() {
            [_, _, _, SETTINGS, _, _, _, _, _] if broken.is_none() => Ok(Self {
                stream,
                head,
                preface: PREFACE,
            }),
            [TLS_ALERT, ..] if is_plain => {
                let why = "it wants TLS: set `identity` to a directory made by `sawmill pki issue`";
                Err(Refused::finally(why))
            }
            [] => Err(Refused::perhaps(
                "it closed the connection at once: it may want TLS, or its log says why",
            )),
            _ => Err(Refused::finally(
                "it does not speak HTTP/2: is this the address of a Sawmill?",
            )),
        }
    }

    /// How much of `buffer` is preface that was sent already.
    fn said(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.preface.len().min(buffer.len());
        if self.preface[..count] != buffer[..count] {
            return Err(io::Error::other("HTTP/2 began without its preface"));
        }
        self.preface = &self.preface[count..];
        Ok(count)
    }
}

impl AsyncRead for Opened {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.head.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let count = this.head.len().min(buffer.remaining());
        buffer.put_slice(&this.head[..count]);
        this.head.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opened {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.preface.is_empty() {
            return Pin::new(&mut this.stream).poll_write(context, buffer);
        }
        Poll::Ready(this.said(buffer))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.preface.is_empty() {
            return Pin::new(&mut this.stream).poll_write_vectored(context, buffers);
        }
        let first = buffers.iter().find(|buffer| !buffer.is_empty());
        Poll::Ready(first.map_or(Ok(0), |first| this.said(first)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
