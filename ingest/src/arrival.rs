//! Reading what an agent sends: headers and chunks become whole blocks.
//!
//! Bytes are read only when there is room for all of their block: within the agent's window, and within what all agents of
//! the worker together may take. Until then nothing is read, and HTTP/2 holds the sender back.

use std::{sync::Arc, time::Duration};

use api::{
    refusal,
    v1::{AgentReport, BlockHeader, ShipRequest, ship_request::Message},
};
use futures::{Stream, StreamExt as _};
use model::Name;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Code, Status, codegen::Bytes};

/// Most bytes of one block as sent: 64 MiB of lines that can't be compressed, and their origins.
pub(crate) const BLOCK_BYTES: u64 = 72 << 20;
/// Most bytes of the lines of a block.
const RAW_BYTES: u64 = 64 << 20;
/// Most bytes of a chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks of fewer bytes are copied: each that is kept costs some memory of its own.
const SMALL_CHUNK_BYTES: usize = 16 << 10;
/// How long the bytes of one block may take, from its header on: they hold room that others wait for.
const BLOCK_TIME: Duration = Duration::from_secs(60);
/// Permits are counted in these, as a semaphore counts in 32 bits.
const PERMIT_BYTES: u64 = 1024;

/// What an agent has sent.
pub(crate) enum Arrival {
    /// A whole block.
    Block(Box<Arrived>),
    /// How it is doing.
    Report(AgentReport),
    /// Nothing more will come, but it still listens.
    Done,
    /// The stream is broken, or what came can't be.
    Broken(Status),
}

/// A whole block.
pub(crate) struct Arrived {
    pub(crate) dataset: Name,
    pub(crate) header: BlockHeader,
    pub(crate) bytes: Vec<Bytes>,
    pub(crate) room: Room,
}

/// Room in memory, given back when it is dropped.
pub(crate) struct Room {
    /// In the window of the agent, until the block is answered.
    pub(crate) window: OwnedSemaphorePermit,
    /// In the memory of the worker, until the block is stored.
    pub(crate) memory: OwnedSemaphorePermit,
}

/// Bytes in permits.
pub(crate) fn permits(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(usize::MAX)
}

fn permits_of(bytes: u64, most: u64) -> u32 {
    u32::try_from(permits(bytes.min(most))).unwrap_or(u32::MAX)
}

/// Where there is room.
#[derive(Clone)]
pub(crate) struct Rooms {
    pub(crate) window: Arc<Semaphore>,
    pub(crate) window_bytes: u64,
    pub(crate) memory: Arc<Semaphore>,
    pub(crate) memory_bytes: u64,
}

impl Rooms {
    async fn take(&self, bytes: u64) -> Option<Room> {
        let window = permits_of(bytes, self.window_bytes);
        let memory = permits_of(bytes, self.memory_bytes);
        Some(Room {
            window: Arc::clone(&self.window).acquire_many_owned(window).await.ok()?,
            memory: Arc::clone(&self.memory).acquire_many_owned(memory).await.ok()?,
        })
    }
}

fn bad(message: impl Into<String>) -> Status {
    refusal(Code::InvalidArgument, "BAD_BLOCK", message, [])
}

/// Reads until the stream ends, and tells what came. Ends when nobody listens to it.
pub(crate) async fn read<S>(mut stream: S, rooms: Rooms, told: mpsc::Sender<Arrival>)
where
    S: Stream<Item = Result<ShipRequest, Status>> + Unpin + Send,
{
    loop {
        let arrival = match next(&mut stream, &rooms).await {
            Ok(arrival) => arrival,
            Err(status) => Arrival::Broken(status),
        };
        let is_last = matches!(arrival, Arrival::Done | Arrival::Broken(_));
        if told.send(arrival).await.is_err() || is_last {
            return;
        }
    }
}

async fn next<S>(stream: &mut S, rooms: &Rooms) -> Result<Arrival, Status>
where
    S: Stream<Item = Result<ShipRequest, Status>> + Unpin + Send,
{
    let Some(message) = message(stream).await? else {
        return Ok(Arrival::Done);
    };
    match message {
        Message::Report(report) => Ok(Arrival::Report(report)),
        Message::Block(header) => block(stream, header, rooms).await,
        Message::Hello(_) => Err(bad("a second hello")),
        Message::Chunk(_) => Err(bad("a chunk without a block")),
    }
}

async fn message<S>(stream: &mut S) -> Result<Option<Message>, Status>
where
    S: Stream<Item = Result<ShipRequest, Status>> + Unpin + Send,
{
    match stream.next().await {
        None => Ok(None),
        Some(Ok(ShipRequest {
            message: Some(message),
        })) => Ok(Some(message)),
        Some(Ok(ShipRequest { message: None })) => Err(bad("a message without content")),
        Some(Err(status)) => Err(status),
    }
}

async fn block<S>(stream: &mut S, header: BlockHeader, rooms: &Rooms) -> Result<Arrival, Status>
where
    S: Stream<Item = Result<ShipRequest, Status>> + Unpin + Send,
{
    let dataset = Name::new(header.dataset.clone()).map_err(|error| bad(error.to_string()))?;
    let wanted = header.stored_bytes;
    if wanted == 0 || wanted > BLOCK_BYTES || header.raw_bytes > RAW_BYTES {
        return Err(bad(format!(
            "block {} of {dataset} has {wanted} bytes, {} of lines: it may have 1 to {BLOCK_BYTES}, {RAW_BYTES} of lines",
            header.sequence, header.raw_bytes
        )));
    }
    let Some(room) = rooms.take(wanted).await else {
        return Err(Status::unavailable("this worker stops"));
    };
    let mut gathered = Gathered::default();
    let mut missing = wanted;
    let filled = tokio::time::timeout(BLOCK_TIME, async {
        while missing > 0 {
            let Some(Message::Chunk(chunk)) = message(stream).await? else {
                return Err(bad(format!("block {} of {dataset} ends early", header.sequence)));
            };
            let length = chunk.len() as u64;
            if chunk.is_empty() || chunk.len() > CHUNK_BYTES || length > missing {
                return Err(bad(format!(
                    "a chunk of {length} bytes where {missing} are missing"
                )));
            }
            missing -= length;
            gathered.add(chunk);
        }
        Ok(())
    });
    match filled.await {
        Ok(filled) => filled?,
        Err(_) => {
            let message = format!("block {} did not arrive within {BLOCK_TIME:?}", header.sequence);
            return Err(refusal(Code::DeadlineExceeded, "SLOW_BLOCK", message, []));
        }
    }
    Ok(Arrival::Block(Box::new(Arrived {
        dataset,
        header,
        bytes: gathered.done(),
        room,
    })))
}

/// Chunks of a block; small ones are copied together, so that many of them cost no more than their bytes.
#[derive(Default)]
struct Gathered {
    bytes: Vec<Bytes>,
    small: Vec<u8>,
}

impl Gathered {
    fn add(&mut self, chunk: Bytes) {
        if chunk.len() < SMALL_CHUNK_BYTES {
            self.small.extend_from_slice(&chunk);
            if self.small.len() < CHUNK_BYTES {
                return;
            }
            self.flush();
        } else {
            self.flush();
            self.bytes.push(chunk);
        }
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.bytes.push(Bytes::from(std::mem::take(&mut self.small)));
        }
    }

    fn done(mut self) -> Vec<Bytes> {
        self.flush();
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms() -> Rooms {
        Rooms {
            window: Arc::new(Semaphore::new(permits(1 << 20))),
            window_bytes: 1 << 20,
            memory: Arc::new(Semaphore::new(permits(1 << 20))),
            memory_bytes: 1 << 20,
        }
    }

    fn header(dataset: &str, stored_bytes: u64) -> Message {
        Message::Block(BlockHeader {
            dataset: dataset.into(),
            sequence: 1,
            stored_bytes,
            ..BlockHeader::default()
        })
    }

    fn chunk(bytes: &'static [u8]) -> Message {
        Message::Chunk(Bytes::from_static(bytes))
    }

    async fn all(messages: Vec<Message>) -> Vec<Result<usize, Code>> {
        let stream = futures::stream::iter(messages.into_iter().map(|message| {
            let message = Some(message);
            Ok(ShipRequest { message })
        }));
        let (told, mut heard) = mpsc::channel(16);
        read(stream, rooms(), told).await;
        let mut arrivals = Vec::new();
        while let Some(arrival) = heard.recv().await {
            arrivals.push(match arrival {
                Arrival::Block(block) => Ok(block.bytes.concat().len()),
                Arrival::Report(_) => Ok(0),
                Arrival::Done => break,
                Arrival::Broken(status) => Err(status.code()),
            });
        }
        arrivals
    }

    #[tokio::test]
    async fn chunks_become_blocks() {
        let report = Message::Report(AgentReport::default());
        let messages = vec![
            header("access", 5),
            chunk(b"abc"),
            chunk(b"de"),
            report,
            header("access", 1),
            chunk(b"x"),
        ];
        assert_eq!(all(messages).await, [Ok(5), Ok(0), Ok(1)]);
    }

    #[tokio::test]
    async fn what_can_not_be_ends_the_stream() {
        let invalid = [Err(Code::InvalidArgument)];
        for messages in [
            vec![chunk(b"x")],
            vec![header("../up", 1)],
            vec![header("a/b", 1)],
            vec![header("access", 0)],
            vec![header("access", u64::MAX)],
            vec![header("access", BLOCK_BYTES + 1)],
            vec![header("access", 2), chunk(b"abc")],
            vec![header("access", 2), chunk(b"")],
            vec![header("access", 2), chunk(b"a"), header("access", 2)],
            vec![header("access", 2), chunk(b"a")],
            vec![Message::Hello(api::v1::ShipHello::default())],
        ] {
            assert_eq!(all(messages.clone()).await, invalid, "{messages:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_without_room() {
        let rooms = rooms();
        let messages = [
            header("access", 1 << 20),
            Message::Chunk(vec![0; 1 << 20].into()),
            header("access", 1),
            chunk(b"x"),
        ];
        let stream = futures::stream::iter(messages.map(|message| {
            let message = Some(message);
            Ok(ShipRequest { message })
        }));
        let (told, mut heard) = mpsc::channel(16);
        let reading = tokio::spawn(read(stream, rooms.clone(), told));
        let first = heard.recv().await;
        let Some(Arrival::Block(first)) = first else {
            panic!("a block")
        };
        assert_eq!(
            (rooms.window.available_permits(), rooms.memory.available_permits()),
            (0, 0)
        );
        let second = tokio::time::timeout(Duration::from_secs(5), heard.recv());
        assert!(second.await.is_err(), "there is no room for it");
        drop(first);
        assert!(matches!(heard.recv().await, Some(Arrival::Block(_))));
        reading.abort();
    }
}
