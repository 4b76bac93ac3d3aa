//! A TCP proxy in front of ZooKeeper or MongoDB, with named faults and counts.
//!
//! In front of ZooKeeper ([`Proxy::zookeeper`]) it reads the frames that pass: it counts requests by kind, and can lose
//! exactly the reply to a chosen request, or cut the line just before or after it. Each armed fault happens once, and
//! [`Proxy::fired`] proves that it did. In front of anything else ([`Proxy::plain`]) it can only cut, refuse, stall and
//! flip a bit.
//!
//! Its clients reach it at [`Proxy::address`]; for a space say `space.zookeeper_through(proxy.address())`.

mod frames;
mod line;
mod request;

pub use request::{Request, ZkOp};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What happens to a chosen request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server gets it and answers; the answer is swallowed and the line closed. The client cannot know.
    LoseReply,
    /// The line is closed just after the client got the answer.
    CutAfterReply,
    /// The line is closed and the server never gets it. To the client this looks like [`Fault::LoseReply`].
    LoseRequest,
}

type Choice = Box<dyn FnMut(&Request<'_>) -> bool + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    requests: usize,
    bytes: u64,
}

/// What all lines of a proxy share.
struct Shared {
    target: String,
    reads_frames: bool,
    faults: Mutex<Vec<(Fault, Choice)>>,
    counts: Mutex<BTreeMap<ZkOp, Count>>,
    fired: AtomicUsize,
    connections: AtomicUsize,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    /// How many bytes from clients pass before one is flipped; none: none is.
    flip_after: Mutex<Option<u64>>,
    lines: Mutex<CancellationToken>,
    refusing: watch::Sender<bool>,
    stalled: watch::Sender<bool>,
}

/// A running proxy. Dropping it closes all lines and its port.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    /// A proxy on a free port in front of the ZooKeeper at `target` (`host:port`), reading what passes.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn zookeeper(target: impl Into<String>) -> Proxy {
        Proxy::start(target.into(), true).await
    }

    /// A proxy on a free port in front of any server: it cannot lose chosen replies nor count requests.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn plain(target: impl Into<String>) -> Proxy {
        Proxy::start(target.into(), false).await
    }

    async fn start(target: String, reads_frames: bool) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port for the proxy");
        let address = listener.local_addr().expect("the port of the proxy");
        let shared = Arc::new(Shared {
            target,
            reads_frames,
            faults: Mutex::default(),
            counts: Mutex::default(),
            fired: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            flip_after: Mutex::default(),
            lines: Mutex::new(CancellationToken::new()),
            refusing: watch::Sender::new(false),
            stalled: watch::Sender::new(false),
        });
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, shared.clone())));
        Proxy {
            address,
            shared,
            _accepting: accepting,
        }
    }

    /// Where clients connect: `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Closes all lines that are open now. New ones are taken as before.
    pub fn cut_all(&self) {
        std::mem::take(&mut *lock(&self.shared.lines)).cancel();
    }

    /// From now on closes each new connection at once, as a server that is down. Open lines stay: add
    /// [`Proxy::cut_all`] for an outage.
    pub fn refuse(&self) {
        self.shared.refusing.send_replace(true);
    }

    /// Takes new connections again.
    pub fn accept(&self) {
        self.shared.refusing.send_replace(false);
    }

    /// An outage: refuses and cuts all.
    pub fn down(&self) {
        self.refuse();
        self.cut_all();
    }

    /// From now on no byte passes in either direction, while all lines stay open: a network that swallows packets.
    pub fn stall(&self) {
        self.shared.stalled.send_replace(true);
    }

    /// Lets bytes pass again, those held back first.
    pub fn resume(&self) {
        self.shared.stalled.send_replace(false);
    }

    /// Flips a bit of one byte that a client sends: the one behind so many from now. Counted by [`Proxy::fired`].
    ///
    /// # Panics
    /// In front of ZooKeeper, whose frames would no longer be read.
    pub fn flip_after(&self, bytes: u64) {
        assert!(
            !self.shared.reads_frames,
            "only a plain proxy passes broken bytes"
        );
        *lock(&self.shared.flip_after) = Some(bytes);
    }

    /// Loses the reply to the next request of this kind: see [`Fault::LoseReply`].
    pub fn drop_reply_to(&self, op: ZkOp) {
        self.arm(Fault::LoseReply, move |request| request.op == op);
    }

    /// Closes the line just after the reply to the next request of this kind: see [`Fault::CutAfterReply`].
    pub fn cut_after_reply_to(&self, op: ZkOp) {
        self.arm(Fault::CutAfterReply, move |request| request.op == op);
    }

    /// Closes the line instead of passing on the next request of this kind: see [`Fault::LoseRequest`].
    pub fn drop_request(&self, op: ZkOp) {
        self.arm(Fault::LoseRequest, move |request| request.op == op);
    }

    /// Arms a fault for the first request that `choice` is true for; it happens once. The choice may count, and look into
    /// the request: `|request| request.op == ZkOp::MULTI && request.mentions("/done/")`.
    ///
    /// # Panics
    /// On a plain proxy, where it could never happen.
    pub fn arm(&self, fault: Fault, choice: impl FnMut(&Request<'_>) -> bool + Send + 'static) {
        assert!(self.shared.reads_frames, "a plain proxy does not know requests");
        lock(&self.shared.faults).push((fault, Box::new(choice)));
    }

    /// How many armed faults have happened. A lost reply counts when the server's answer was swallowed, which proves that
    /// the server did what was asked (or refused it).
    pub fn fired(&self) -> usize {
        self.shared.fired.load(Ordering::SeqCst)
    }

    /// How many requests of this kind came from clients, pings apart from the rest as [`ZkOp::PING`].
    pub fn requests(&self, op: ZkOp) -> usize {
        lock(&self.shared.counts)
            .get(&op)
            .map_or(0, |count| count.requests)
    }

    /// How many requests of all kinds came, without pings.
    pub fn requests_total(&self) -> usize {
        let counts = lock(&self.shared.counts);
        counts
            .iter()
            .filter(|(op, _)| **op != ZkOp::PING)
            .map(|(_, count)| count.requests)
            .sum()
    }

    /// How many bytes the requests of this kind had together, with their four bytes of length.
    pub fn request_bytes(&self, op: ZkOp) -> u64 {
        lock(&self.shared.counts).get(&op).map_or(0, |count| count.bytes)
    }

    /// Starts counting requests from zero.
    pub fn reset_counts(&self) {
        lock(&self.shared.counts).clear();
    }

    /// How many connections were taken and passed on so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes passed on so far: from clients to the server, and back.
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.shared.bytes_up.load(Ordering::SeqCst),
            self.shared.bytes_down.load(Ordering::SeqCst),
        )
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("target", &self.shared.target)
            .field("fired", &self.fired())
            .finish_non_exhaustive()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut_all();
    }
}

impl Shared {
    /// Counts a request and says which fault is its fate.
    fn meet(&self, request: &Request<'_>) -> Option<Fault> {
        {
            let mut counts = lock(&self.counts);
            let count = counts.entry(request.op).or_default();
            count.requests += 1;
            count.bytes += request.bytes;
        }
        let mut faults = lock(&self.faults);
        let hit = faults.iter_mut().position(|(_, choice)| choice(request))?;
        Some(faults.remove(hit).0)
    }

    fn fire(&self) {
        self.fired.fetch_add(1, Ordering::SeqCst);
    }

    async fn while_stalled(&self) {
        // Fails only when the sender is gone, which we hold.
        let _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }
}

/// A panicking test must not hide behind a poisoned lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut lines = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = lines.join_next() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if *shared.refusing.borrow() {
                    continue;
                }
                let cut = lock(&shared.lines).child_token();
                lines.spawn(serve(client, shared.clone(), cut));
            }
        }
    }
}

/// One line: both sides are closed together, whichever ends first.
async fn serve(mut client: TcpStream, shared: Arc<Shared>, cut: CancellationToken) {
    let connected = cut.run_until_cancelled(TcpStream::connect(&shared.target)).await;
    let Some(Ok(mut server)) = connected else { return };
    shared.connections.fetch_add(1, Ordering::SeqCst);
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let passing = line::pass(&mut client, &mut server, &shared);
    let _ = cut.run_until_cancelled(passing).await;
}
