//! How much one port takes, and how much of that one identity.

use std::time::Duration;

/// Most connections at once on one port of which is known who is at the other end: each costs about 50 KiB and a descriptor.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Most connections at once of which that is not known yet: in their handshake, or without a certificate and any good token so
/// far. Anybody can make these; when there are more, the one that has been silent longest makes room.
pub const UNKNOWN_MAX: usize = 256;

/// How long it may be unknown who is at the other end of a connection: a handshake and one request over a slow line, with
/// room to spare.
pub const FIRST_CREDENTIAL: Duration = Duration::from_secs(10);

/// How long a connection may stay on which nothing but the health was ever asked for, since that was asked last. Load balancers
/// ask every few seconds.
pub const HEALTH_IDLE: Duration = Duration::from_secs(90);

/// Most calls at once on a connection before it is known who is at the other end, and most calls for the health on any.
pub const UNKNOWN_CALLS: usize = 32;

/// What one port takes. The default is that of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once of which is known who is at the other end.
    pub connections: usize,
    /// How many of them may be of one identity: many commands at once with one certificate fit, and dozens of identities
    /// that take all they may.
    pub connections_each: usize,
    /// Connections at once of which that is not known.
    pub unknown: usize,
    /// How long it may be unknown.
    pub first_credential: Duration,
    /// How long a connection stays that asks for nothing but the health, since the last time.
    pub health_idle: Duration,
    /// Calls under way of one identity, on all its connections: each costs about 20 KiB, and 64 KiB where its answer is not
    /// read.
    pub calls_each: usize,
    /// Bytes of requests in memory that have not wholly arrived or that are being worked on, of all identities. Messages
    /// of up to 64 KiB don't count: their number is bounded. A dozen of the largest questions at once; a machine with a
    /// gigabyte has memory left beside it.
    pub message_bytes: usize,
    /// How many of them may be of one identity: two of the largest questions, of 20 MiB, and some small ones; five identities
    /// that take all they may leave room.
    pub message_bytes_each: usize,
    /// How long a request of one message may take to arrive, and again for each 64 KiB of it that came, ten times as long at
    /// most; or the next bytes of a message within a stream. Long enough for a lost packet to be sent anew, or a phone to
    /// find its network; 64 KiB in a minute is 9 kbit/s.
    pub arrival: Duration,
    /// How long a client may leave what is sent to it unread: a person looks at a page of output, a program writes to a slow
    /// disk. What is unread is in memory, and may hold one of few places.
    pub unread: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            connections_each: 256,
            unknown: UNKNOWN_MAX,
            first_credential: FIRST_CREDENTIAL,
            health_idle: HEALTH_IDLE,
            calls_each: 512,
            message_bytes: 256 << 20,
            message_bytes_each: 48 << 20,
            arrival: Duration::from_secs(60),
            unread: Duration::from_secs(60),
        }
    }
}
