//! An answer on its way out, and its end when nobody reads it.
//!
//! HTTP/2 takes a whole frame as soon as a client lets it have one byte, and asks for the next one when that is sent. So
//! large frames are given in pieces, which are copies: what is not read costs one piece, not the whole.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body as _, Frame};
use tokio::time::Instant;
use tonic::{
    Status,
    body::Body,
    codegen::{
        Bytes,
        http::{Extensions, HeaderMap},
    },
};

use super::{AGAIN, Call};

/// Bytes that are given at once.
const PIECE_BYTES: usize = 64 << 10;

/// What a body answers when it is polled.
type Polled = Poll<Option<Result<Frame<Bytes>, Status>>>;

/// What is not given yet.
pub(super) struct Unread {
    body: Option<Body>,
    /// What is left of a frame that is given in pieces.
    rest: Bytes,
    /// Since when something was given and nothing asked for. While an answer is made nobody waits for a client.
    since: Option<Instant>,
    /// What a method has put beside its answer.
    kept: Extensions,
}

impl Unread {
    pub(super) fn new(body: Body, kept: Extensions) -> Self {
        Self {
            body: Some(body),
            rest: Bytes::new(),
            since: Some(Instant::now()),
            kept,
        }
    }

    fn piece(&mut self) -> Bytes {
        self.since = Some(Instant::now());
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        let copy = Bytes::copy_from_slice(&piece);
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
        copy
    }

    fn next(&mut self, context: &mut Context<'_>) -> Option<Polled> {
        let body = self.body.as_mut()?;
        if !self.rest.is_empty() {
            return Some(Poll::Ready(Some(Ok(Frame::data(self.piece())))));
        }
        let polled = Pin::new(body).poll_frame(context);
        self.since = polled.is_ready().then(Instant::now);
        Some(polled.map(|frame| {
            frame.map(|frame| {
                frame.map(|frame| match frame.into_data() {
                    Ok(bytes) if bytes.len() <= PIECE_BYTES => Frame::data(bytes),
                    Ok(bytes) => {
                        self.rest = bytes;
                        Frame::data(self.piece())
                    }
                    Err(other) => other,
                })
            })
        }))
    }
}

/// The body of an answer.
pub(super) struct Leaving {
    unread: Arc<Mutex<Unread>>,
    patience: Duration,
    is_over: bool,
    _call: Call,
}

/// An answer that may turn out to be read by nobody.
pub(super) struct Watched(Weak<Mutex<Unread>>);

impl Watched {
    /// Lets go of what nobody has read for so long. Whether there is anything left to look after.
    pub(super) fn look(&self, patience: Duration) -> bool {
        let Some(unread) = self.0.upgrade() else {
            return false;
        };
        let mut unread = unread.lock().unwrap_or_else(PoisonError::into_inner);
        if unread.since.is_none_or(|since| since.elapsed() < patience) {
            return true;
        }
        let unread = &mut *unread;
        (unread.body, unread.rest, unread.kept) = (None, Bytes::new(), Extensions::new());
        false
    }
}

impl Leaving {
    pub(super) fn new(unread: Unread, call: Call, patience: Duration) -> (Self, Watched) {
        let unread = Arc::new(Mutex::new(unread));
        let watched = Watched(Arc::downgrade(&unread));
        let leaving = Self {
            unread,
            patience,
            is_over: false,
            _call: call,
        };
        (leaving, watched)
    }

    /// What a client is told that reads on after all.
    fn late(&self) -> Frame<Bytes> {
        let message = format!("nothing was read for {:?}", self.patience);
        let mut trailers = HeaderMap::new();
        // A message of plain text always fits.
        crate::busy("SLOW_READER", message, AGAIN)
            .add_header(&mut trailers)
            .unwrap_or_default();
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let next = this
            .unread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next(context);
        next.unwrap_or_else(|| {
            this.is_over = true;
            Poll::Ready(Some(Ok(this.late())))
        })
    }

    fn is_end_stream(&self) -> bool {
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let is_empty = unread
            .body
            .as_ref()
            .is_some_and(|body| unread.rest.is_empty() && body.is_end_stream());
        self.is_over || is_empty
    }
}
