//! A request on its way in: how long it may take, and how much of it is in memory.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http_body::Frame;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};
use tonic::{Code, Status, body::Body, codegen::Bytes};

use super::{AGAIN, permits};

/// Messages of up to so many bytes need no room of their own: their number is bounded by that of the calls.
const SMALL_BYTES: usize = 64 << 10;

/// A request of one message gets as long as its first bytes again for each so many that came: over a slow line it takes long.
const PROGRESS_BYTES: usize = 64 << 10;

/// At most so many times as long as that it may take altogether, as it holds room that others wait for.
const LONGEST: u32 = 10;

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Room that a message takes, for as long as it is in memory.
pub(super) type Held = Arc<Mutex<Option<Room>>>;

/// See [`Held`].
pub(super) struct Room {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// Where there is room.
pub(super) struct Rooms {
    pub(super) own: Arc<Semaphore>,
    pub(super) own_bytes: usize,
    pub(super) all: Arc<Semaphore>,
    pub(super) all_bytes: usize,
}

impl Rooms {
    /// Waits for room; first among what is one's own, so that nobody keeps others waiting for it.
    fn take(&self, bytes: usize) -> BoxFuture<'static, Option<Room>> {
        let count = |most: usize| u32::try_from(permits(bytes.min(most))).unwrap_or(u32::MAX);
        let (own, all) = (Arc::clone(&self.own), Arc::clone(&self.all));
        let (of_own, of_all) = (count(self.own_bytes), count(self.all_bytes));
        // The semaphores are never closed.
        Box::pin(async move {
            Some(Room {
                _own: own.acquire_many_owned(of_own).await.ok()?,
                _all: all.acquire_many_owned(of_all).await.ok()?,
            })
        })
    }
}

/// Where in the messages of a request its bytes are (gRPC over HTTP/2, Length-Prefixed-Message).
#[derive(Debug, PartialEq, Eq)]
enum At {
    Prefix { read: usize, length: u32 },
    Message { left: usize, length: usize },
}

const BEGIN: At = At::Prefix { read: 0, length: 0 };

impl At {
    /// Goes on over `bytes`. Gives the lengths of messages that begin, the last one first told, by `begins`.
    fn pass(
        &mut self,
        mut bytes: &[u8],
        mut begins: impl FnMut(usize) -> Result<(), Status>,
    ) -> Result<(), Status> {
        while let Some((first, rest)) = bytes.split_first() {
            match self {
                Self::Prefix { read, length } => {
                    if *read > 0 {
                        *length = (*length << 8) | u32::from(*first);
                    }
                    *read += 1;
                    bytes = rest;
                    if *read == PREFIX_BYTES {
                        let length = *length as usize;
                        begins(length)?;
                        *self = if length == 0 {
                            BEGIN
                        } else {
                            Self::Message { left: length, length }
                        };
                    }
                }
                Self::Message { left, .. } => {
                    let count = (*left).min(bytes.len());
                    bytes = &bytes[count..];
                    *left -= count;
                    if *left == 0 {
                        *self = BEGIN;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether it is between two messages.
    fn is_between(&self) -> bool {
        *self == BEGIN
    }

    /// The length of the message that has begun.
    fn unfinished(&self) -> Option<usize> {
        match self {
            Self::Prefix { .. } => None,
            Self::Message { length, .. } => Some(*length),
        }
    }
}

/// The body of a request.
pub(super) struct Arriving {
    inner: Body,
    at: At,
    is_stream: bool,
    messages: u64,
    most: usize,
    rooms: Option<Rooms>,
    held: Held,
    arrival: Duration,
    /// When the next bytes must have come.
    late: Pin<Box<Sleep>>,
    /// When a request of one message must have come.
    end: Instant,
    /// Bytes of it that came since `late` was last put off.
    progress: usize,
    /// Bytes that came, and wait for room.
    waiting: Option<(BoxFuture<'static, Option<Room>>, Bytes)>,
    is_over: bool,
}

impl Arriving {
    pub(super) fn new(
        inner: Body,
        is_stream: bool,
        most: usize,
        rooms: Option<Rooms>,
        held: Held,
        arrival: Duration,
    ) -> Self {
        Self {
            inner,
            at: BEGIN,
            is_stream,
            messages: 0,
            most,
            rooms,
            held,
            arrival,
            late: Box::pin(tokio::time::sleep(arrival)),
            end: Instant::now() + arrival * LONGEST,
            progress: 0,
            waiting: None,
            is_over: false,
        }
    }

    fn hold(&self, room: Option<Room>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = room;
    }

    /// Follows the messages in bytes that came. Gives the length of one for which room must be taken first.
    fn follow(&mut self, bytes: &[u8]) -> Result<Option<usize>, Status> {
        let was_unfinished = self.at.unfinished().is_some();
        let (most, is_stream, mut messages, mut longest) = (self.most, self.is_stream, self.messages, 0);
        self.at.pass(bytes, |length| {
            messages += 1;
            if messages > 1 && !is_stream {
                return Err(refused(
                    Code::InvalidArgument,
                    "MALFORMED",
                    "a request of one message has more".to_string(),
                ));
            }
            longest = longest.max(length);
            if length > most {
                let message = format!("a message of {length} bytes: the method takes at most {most}");
                return Err(refused(Code::OutOfRange, "TOO_LARGE", message));
            }
            Ok(())
        })?;
        let began = messages > self.messages;
        self.messages = messages;
        if !self.is_stream {
            return Ok((began && longest > SMALL_BYTES).then_some(longest));
        }
        // In a stream a method that has its message counts it by itself.
        if was_unfinished && (began || self.at.is_between()) {
            self.hold(None);
        }
        Ok(self
            .at
            .unfinished()
            .filter(|length| began && *length > SMALL_BYTES))
    }

    /// The sender has done what it can for now: it gets more time.
    fn put_off(&mut self) {
        let next = Instant::now() + self.arrival;
        let next = if self.is_stream { next } else { next.min(self.end) };
        self.late.as_mut().reset(next);
        self.progress = 0;
    }

    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        self.late.as_mut().poll(context).is_ready()
    }

    fn fail(&mut self, status: Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.is_over = true;
        self.waiting = None;
        self.hold(None);
        Poll::Ready(Some(Err(status)))
    }
}

fn refused(code: Code, reason: &str, message: String) -> Status {
    crate::refusal(code, reason, message, [])
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        if let Some((room, bytes)) = &mut this.waiting {
            match room.as_mut().poll(context) {
                Poll::Ready(room) => {
                    let bytes = std::mem::take(bytes);
                    this.waiting = None;
                    this.hold(room);
                    this.put_off();
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Poll::Pending => {
                    if this.is_late(context) {
                        let message = "no room for this request among those of the same identity, or of all: try again later";
                        return this.fail(crate::busy("NO_ROOM", message, AGAIN));
                    }
                    return Poll::Pending;
                }
            }
        }
        let frame = match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let is_due = !this.is_stream || !this.at.is_between();
                if is_due && this.is_late(context) {
                    let (each, all) = (this.arrival, this.arrival * LONGEST);
                    let message = format!(
                        "the request did not arrive in time: each 64 KiB may take {each:?}, and a request of one message {all:?}"
                    );
                    return this.fail(refused(Code::DeadlineExceeded, "SLOW_SENDER", message));
                }
                return Poll::Pending;
            }
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(status)) => return this.fail(status),
            None => {
                this.is_over = true;
                return Poll::Ready(None);
            }
        };
        let bytes = match frame.into_data() {
            Ok(bytes) => bytes,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        this.progress += bytes.len();
        if this.is_stream || this.progress >= PROGRESS_BYTES {
            this.put_off();
        }
        match this.follow(&bytes) {
            Ok(Some(length)) => match &this.rooms {
                Some(rooms) => this.waiting = Some((rooms.take(length), bytes)),
                None => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            },
            Ok(None) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Err(status) => return this.fail(status),
        }
        Pin::new(this).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || (self.waiting.is_none() && self.inner.is_end_stream())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(vec![7; length as usize]);
        bytes
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let lengths = [0, 1, 300, 0, 70_000, 5];
        let bytes: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
        for cut in [1, 2, 3, 5, 7, 64, 4096, bytes.len()] {
            let (mut at, mut found) = (BEGIN, Vec::new());
            for part in bytes.chunks(cut) {
                at.pass(part, |length| {
                    found.push(u32::try_from(length).unwrap());
                    Ok(())
                })
                .unwrap();
            }
            assert_eq!(found, lengths, "cut by {cut}");
            assert!(at.is_between());
        }
        let mut at = BEGIN;
        at.pass(&message(300)[..100], |_| Ok(())).unwrap();
        assert_eq!((at.unfinished(), at.is_between()), (Some(300), false));
    }

    /// Pieces that come one by one, each after a pause.
    struct Slow {
        pieces: std::vec::IntoIter<Bytes>,
        every: Duration,
        next: Pin<Box<Sleep>>,
    }

    impl http_body::Body for Slow {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            if self.pieces.as_slice().is_empty() {
                return Poll::Ready(None);
            }
            std::task::ready!(self.next.as_mut().poll(context));
            let next = Instant::now() + self.every;
            self.next.as_mut().reset(next);
            Poll::Ready(self.pieces.next().map(|piece| Ok(Frame::data(piece))))
        }
    }

    /// How long one message takes to arrive whole in pieces of `piece` bytes, or until it is given up.
    async fn arrives(length: u32, piece: usize, every: u64) -> (bool, u64) {
        let pieces: Vec<Bytes> = message(length)
            .chunks(piece)
            .map(Bytes::copy_from_slice)
            .collect();
        let every = Duration::from_secs(every);
        let slow = Slow {
            pieces: pieces.into_iter(),
            every,
            next: Box::pin(tokio::time::sleep(every)),
        };
        let minute = Duration::from_secs(60);
        let most = 16 << 20;
        let body = Body::new(slow);
        let mut body = Arriving::new(body, false, most, None, Held::default(), minute);
        let began = Instant::now();
        let is_whole = loop {
            let next =
                std::future::poll_fn(|context| http_body::Body::poll_frame(Pin::new(&mut body), context));
            match next.await {
                None => break true,
                Some(Ok(_)) => {}
                Some(Err(status)) => {
                    assert_eq!(crate::reason(&status).as_deref(), Some("SLOW_SENDER"));
                    break false;
                }
            }
        };
        (is_whole, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_has_the_time_of_a_slow_line() {
        assert_eq!(arrives(512 << 10, 64 << 10, 40).await, (true, 360));
        assert_eq!(
            arrives(512 << 10, 1 << 10, 40).await,
            (false, 60),
            "next to nothing comes"
        );
        assert_eq!(
            arrives(2 << 20, 64 << 10, 55).await,
            (false, 600),
            "it never ends"
        );
    }
}
