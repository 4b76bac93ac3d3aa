//! What goes over the network: the package `sawmill.v1`, and how its two sides connect.
//!
//! Promise: what [`transport::bind`] accepts has a [`pki::Peer`], by its certificate or, on loopback without TLS, that of
//! an administrator where the token of the port is shown; [`rights`] has what each method takes.
//!
//! Called by the roles, the gateway, agents and the command line.

pub mod behalf;
mod convert;
mod refusal;
pub mod rights;
pub mod transport;

pub use convert::{Malformed, priority, state};
pub use refusal::{DOMAIN, busy, place, reason, refusal};

/// The messages, clients and servers of `sawmill.v1`, made from the `.proto` files.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("sawmill.v1");

    /// The descriptors of the package, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sawmill.v1.bin"));

    /// The paths of the methods to which a client sends a stream; of all others the request is one message.
    pub const CLIENT_STREAMS: &[&str] = include!(concat!(env!("OUT_DIR"), "/client_streams.rs"));
}

/// The protocol between agents, workers and dispatchers; one of another number is told so and gets no work.
pub const PROTOCOL: u32 = 1;

/// Reason of the refusal of an agent whose state belongs to another mill; with the `mill` that refuses.
pub const OTHER_MILL: &str = "OTHER_MILL";

/// The reason of a refusal: no nodes keep blocks as it was asked for.
pub const NO_NODE: &str = "NO_NODE";

/// The reason of a refusal: the certificate does not allow a dataset.
pub const NOT_ALLOWED: &str = "NOT_ALLOWED";
