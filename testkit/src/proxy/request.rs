//! What a request to ZooKeeper is to the proxy: its kind and its bytes.

/// The kind of a request, by ZooKeeper's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZkOp(
    /// The number on the wire.
    pub i32,
);

impl ZkOp {
    /// The first request of a connection, which opens or resumes the session. It has no number on the wire.
    pub const CONNECT: ZkOp = ZkOp(-10);
    /// Ends the session.
    pub const CLOSE_SESSION: ZkOp = ZkOp(-11);
    /// Creates a node (zookeeper-client sends [`ZkOp::CREATE2`]).
    pub const CREATE: ZkOp = ZkOp(1);
    /// Deletes a node.
    pub const DELETE: ZkOp = ZkOp(2);
    /// Asks for the stat of a node.
    pub const EXISTS: ZkOp = ZkOp(3);
    /// Reads a node.
    pub const GET_DATA: ZkOp = ZkOp(4);
    /// Writes a node.
    pub const SET_DATA: ZkOp = ZkOp(5);
    /// Lists children.
    pub const GET_CHILDREN: ZkOp = ZkOp(8);
    /// Waits until the server has caught up with the leader.
    pub const SYNC: ZkOp = ZkOp(9);
    /// Keeps the session alive.
    pub const PING: ZkOp = ZkOp(11);
    /// Lists children, with the stat of the parent.
    pub const GET_CHILDREN2: ZkOp = ZkOp(12);
    /// Asks for a version; alone (not in a multi) it is rare.
    pub const CHECK: ZkOp = ZkOp(13);
    /// Several writes as one transaction.
    pub const MULTI: ZkOp = ZkOp(14);
    /// Creates a node and returns its stat.
    pub const CREATE2: ZkOp = ZkOp(15);
    /// Removes watches.
    pub const REMOVE_WATCHES: ZkOp = ZkOp(18);
    /// Several reads in one request.
    pub const MULTI_READ: ZkOp = ZkOp(22);
    /// Authenticates.
    pub const AUTH: ZkOp = ZkOp(100);
    /// Arms one-shot watches again after a reconnect.
    pub const SET_WATCHES: ZkOp = ZkOp(101);
    /// Counts descendants.
    pub const GET_ALL_CHILDREN_NUMBER: ZkOp = ZkOp(104);
    /// Arms all kinds of watches again after a reconnect.
    pub const SET_WATCHES2: ZkOp = ZkOp(105);
    /// Adds a persistent watch.
    pub const ADD_WATCH: ZkOp = ZkOp(106);
}

/// A request on its way to ZooKeeper.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its kind.
    pub op: ZkOp,
    /// Its size on the wire in bytes, with the four of its length.
    pub bytes: u64,
    /// What follows its header: paths and data, in ZooKeeper's encoding.
    pub body: &'a [u8],
}

impl Request<'_> {
    /// Whether this text occurs in it: a path, a part of one, or data.
    pub fn mentions(&self, text: &str) -> bool {
        text.is_empty()
            || self
                .body
                .windows(text.len())
                .any(|window| window == text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_mentions_what_it_holds() {
        let request = Request {
            op: ZkOp::MULTI,
            bytes: 0,
            body: b"\0\0/done/entry",
        };
        assert!(request.mentions("/done/"));
        assert!(!request.mentions("/owned"));
    }
}
