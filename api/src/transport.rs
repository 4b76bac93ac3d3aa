//! Connections: listening and connecting, with mutual TLS or, on loopback, by a token that only the user can read.
//!
//! Promise: a failed handshake is told in the log, with its reason, and disturbs nobody else; a connection whose
//! certificate is revoked or expires is closed; [`connect`] returns only when the other side has answered in HTTP/2, so
//! that whatever is wrong is told there and not by the first request. No promise that a channel stays connected: it
//! connects anew by itself, with the certificates as they are then.

mod accept;
mod calls;
mod channel;
mod connect;
mod connection;
mod exposure;
mod limits;
mod local;
mod places;

use std::{io, path::PathBuf, time::Duration};

use pki::{Identity, Peer};
use tonic::transport::Server;
use tower::layer::util::{Identity as Nothing, Stack};

pub use accept::{HANDSHAKE, Listener, bind};
pub use calls::{Bounded, Calls, FewFromStrangers, Strangers};
pub use channel::Channel;
pub use connect::{CONNECT, connect, connect_any, why};
pub use connection::{ConnectInfo, Connection};
pub use exposure::{check_exposure, is_loopback};
pub use limits::{CONNECTIONS_MAX, FIRST_CREDENTIAL, HEALTH_IDLE, Limits, UNKNOWN_CALLS, UNKNOWN_MAX};
pub use local::{HEALTH, LocalToken, LocalUsers, bearer, token_file};
pub use places::Place;

/// How often a connection is asked whether the other side still answers, also while it is idle.
pub const KEEPALIVE: Duration = Duration::from_secs(2);

/// How long the answer may take before the connection counts as dead.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Most requests at once on one connection.
pub const STREAMS_MAX: u32 = 256;

/// Most bytes of headers of an answer: the details of an error fit many times.
pub const HEADERS_BYTES: u32 = 32 * 1024;

/// Most bytes of headers of a request: a token fits many times, and what strangers keep waiting is at most 128 MiB
/// ([`UNKNOWN_MAX`] times [`UNKNOWN_CALLS`]).
pub const REQUEST_HEADERS_BYTES: u32 = 16 * 1024;

/// Most bytes of one stream that wait to be read where much is sent: blocks, answers. What goes over it waits at the sender.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// The same for all streams of a connection: what a sender that is not read costs at most.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// As [`STREAM_WINDOW_BYTES`], for requests: 20 MiB a second where an answer takes 10 ms.
pub const REQUEST_WINDOW_BYTES: u32 = 256 * 1024;

/// As [`CONNECTION_WINDOW_BYTES`], for requests.
pub const REQUESTS_WINDOW_BYTES: u32 = 1 << 20;

/// Largest frame that a client may send: that of a stream's window, as more can't be under way; larger ones than the 16 KiB of
/// HTTP/2 save work for each.
const FRAME_BYTES: u32 = 256 * 1024;

/// Most requests that a client may begin and take back without having been served: more than anybody who gives up some
/// calls does in a moment, and few enough that who does nothing else is cut off at once (CVE-2023-44487).
const RESETS_MAX: usize = 64;

/// How the two sides of a connection know each other.
#[derive(Clone, Debug, Default)]
pub enum Security {
    /// Without TLS. On loopback by the token of the port, which its user can read ([`token_file`]): who shows it is an
    /// administrator. Where others reach the port, not at all.
    #[default]
    Plain,
    /// Not at all, on loopback neither: whoever connects is an administrator.
    Open,
    /// Mutual TLS.
    Tls(Identity),
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A port that can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Bind {
        /// As configured.
        address: String,
        /// Why not.
        source: std::sync::Arc<io::Error>,
    },
    /// A port without TLS whose token can't be kept.
    #[error(
        "can't keep the token of {address} in {path}: {source}: set XDG_STATE_HOME to a directory of this user, or use TLS \
         (`identity`)"
    )]
    LocalToken {
        /// Where it would listen.
        address: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::sync::Arc<io::Error>,
    },
    /// An identity that nobody would connect to.
    #[error("can't listen with the certificate of {peer}: issue one for the role dispatcher or worker")]
    CannotServe {
        /// Whose it is.
        peer: Peer,
    },
    /// An address that is none.
    #[error("{address:?} is no address: it is HOST:PORT, such as mill.example.com:7766")]
    BadAddress {
        /// As given.
        address: String,
    },
    /// An address that others can reach, without TLS.
    #[error(
        "{address} can be reached from other machines, and without TLS whoever reaches it is an administrator: set \
         `identity` to a directory made by `sawmill pki issue`, listen on 127.0.0.1, or say --insecure"
    )]
    Exposed {
        /// As configured.
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
    /// Somebody is there, and does not go together with us: as it is, no later try will end otherwise.
    #[error("can't connect to {address}: {why}")]
    Hopeless {
        /// Where.
        address: String,
        /// Why not.
        why: String,
    },
    /// None of several addresses answers.
    #[error("can't reach any of them: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NoneAnswers(Vec<Error>),
}

impl Error {
    /// Whether a later try would end the same, unless somebody changes what is configured here or there.
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::NoneAnswers(all) => all.iter().all(Self::is_hopeless),
            Self::Unreachable { .. } => false,
            _ => true,
        }
    }

    /// Whether the one who called asked for something that can't be.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::BadAddress { .. } | Self::Exposed { .. } | Self::CannotServe { .. }
        )
    }
}

/// A server with the limits that all of ours have, for requests that are small, which asks for the token of its port where that has
/// one; no connection is closed for its age.
pub fn server() -> Server<Stack<LocalUsers, Nothing>> {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(REQUEST_HEADERS_BYTES)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .initial_stream_window_size(REQUEST_WINDOW_BYTES)
        .initial_connection_window_size(REQUESTS_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(FRAME_BYTES)
        .layer(LocalUsers)
}

/// By whom what a call takes is counted ([`ConnectInfo::holder`]).
pub fn holder<T>(request: &tonic::Request<T>) -> String {
    let info = request.extensions().get::<ConnectInfo>();
    info.map_or_else(|| Peer::local().to_string(), ConnectInfo::holder)
}

/// Who asks; in a process-internal call an administrator.
pub fn peer<T>(request: &tonic::Request<T>) -> Peer {
    let info = request.extensions().get::<ConnectInfo>();
    info.map_or_else(Peer::local, |info| info.peer.clone())
}
