//! One line through the proxy: passing bytes or frames both ways until one side ends or a fault cuts it.

use super::frames::Frame;
use super::request::{Request, ZkOp};
use super::{Fault, Shared, lock};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const BUFFER_BYTES: usize = 64 * 1024;

/// The faults that wait for a reply, as (xid, fault), in the order of the requests.
type Awaited = Mutex<VecDeque<(i32, Fault)>>;

/// Passes until one side ends; who calls closes both by dropping them.
pub(super) async fn pass(client: &mut TcpStream, server: &mut TcpStream, shared: &Shared) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    if shared.reads_frames {
        let awaited = Awaited::default();
        tokio::select! {
            _ = requests(&mut from_client, &mut to_server, shared, &awaited) => {}
            _ = replies(&mut from_server, &mut to_client, shared, &awaited) => {}
        }
    } else {
        tokio::select! {
            _ = bytes(&mut from_client, &mut to_server, shared, Way::Up) => {}
            _ = bytes(&mut from_server, &mut to_client, shared, Way::Down) => {}
        }
    }
}

/// `None` when the line ends, here and below.
async fn requests(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    awaited: &Awaited,
) -> Option<()> {
    let mut opening = true;
    loop {
        let frame = Frame::read(from).await?;
        shared.while_stalled().await;
        let op = if opening { ZkOp::CONNECT } else { ZkOp(frame.op()?) };
        let bytes = frame.bytes.len() as u64;
        // The opening has no header.
        let body = if opening { &frame.bytes[4..] } else { frame.body() };
        match shared.meet(&Request { op, bytes, body }) {
            Some(Fault::LoseRequest) => {
                shared.fire();
                return None;
            }
            Some(fault) => lock(awaited).push_back((if opening { OPENING } else { frame.xid()? }, fault)),
            None => {}
        }
        opening = false;
        send(to, &frame.bytes, &shared.bytes_up).await?;
    }
}

/// Stands for the xid that the opening does not have; no client uses it.
const OPENING: i32 = i32::MIN;

async fn replies(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    awaited: &Awaited,
) -> Option<()> {
    let mut opening = true;
    loop {
        let frame = Frame::read(from).await?;
        shared.while_stalled().await;
        let xid = if opening { OPENING } else { frame.xid()? };
        let answers = opening || !frame.is_notification();
        opening = false;
        let fault = if answers { due(awaited, xid) } else { None };
        if fault != Some(Fault::LoseReply) {
            send(to, &frame.bytes, &shared.bytes_down).await?;
        }
        if fault.is_some() {
            shared.fire();
            return None;
        }
    }
}

fn due(awaited: &Awaited, xid: i32) -> Option<Fault> {
    let mut awaited = lock(awaited);
    let at = awaited.iter().position(|(of, _)| *of == xid)?;
    awaited.remove(at).map(|(_, fault)| fault)
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the client to the server.
    Up,
    /// Back.
    Down,
}

async fn bytes(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    way: Way,
) -> Option<()> {
    let count = match way {
        Way::Up => &shared.bytes_up,
        Way::Down => &shared.bytes_down,
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        shared.while_stalled().await;
        if way == Way::Up {
            flip(&mut buffer[..read], shared);
        }
        send(to, &buffer[..read], count).await?;
    }
}

/// Breaks the byte whose turn it is, if it is among these.
fn flip(passing: &mut [u8], shared: &Shared) {
    let mut after = lock(&shared.flip_after);
    let Some(left) = *after else { return };
    match usize::try_from(left).ok().and_then(|left| passing.get_mut(left)) {
        Some(byte) => {
            *byte ^= 1;
            *after = None;
            shared.fire();
        }
        None => *after = Some(left - passing.len() as u64),
    }
}

async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], count: &AtomicU64) -> Option<()> {
    to.write_all(bytes).await.ok()?;
    count.fetch_add(bytes.len() as u64, Ordering::SeqCst);
    Some(())
}
