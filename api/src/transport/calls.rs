//! What the calls of one identity may take of a server: how many are under way, how much of what they send is in memory, how
//! long that takes to arrive, and how long an answer waits to be read.
//!
//! Promise: what goes over a limit is refused with a reason, and told when another try makes sense; a stream may be silent
//! for as long as its two sides like; the health can always be asked for, over any connection. No promise about how much a
//! method makes of what it was sent: each has bounds of its own.

mod arriving;
mod leaving;

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{BoxFuture, Either, Ready, ready};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, body::Body, codegen::http};
use tower::{Layer, Service};

use self::{
    arriving::{Arriving, Rooms},
    leaving::{Leaving, Unread},
};
use super::{ConnectInfo, Limits, limits::UNKNOWN_CALLS, local::HEALTH};

/// Most bytes of a request for the health: the name of a service.
const HEALTH_BYTES: usize = 4096;

/// Methods of other packages to which clients send streams.
const OTHER_STREAMS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// After how long a call for which there is no room may be tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often it is looked which answers nobody reads.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Bytes by which permits count, as a semaphore counts in 32 bits.
const PERMIT_BYTES: usize = 1024;

/// Bounds the calls of each identity; clones share what they count. To be put behind whatever tells who calls.
#[derive(Clone)]
pub struct Calls {
    shared: Arc<Shared>,
}

/// Most bytes of one message, by the path of the method.
type Most = dyn Fn(&str) -> usize + Send + Sync;

struct Shared {
    limits: Limits,
    most: Box<Most>,
    bytes: Arc<Semaphore>,
    accounts: Mutex<HashMap<String, Arc<Account>>>,
    answers: Mutex<Vec<leaving::Watched>>,
}

/// What one identity has taken.
struct Account {
    calls: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// A call under way, until its answer has been taken.
struct Call {
    _account: Option<Arc<Account>>,
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// The turn of a call on a connection of which is not known yet who is at its other end.
#[derive(Clone)]
struct Turn(Arc<OwnedSemaphorePermit>);

fn permits(bytes: usize) -> usize {
    bytes.div_ceil(PERMIT_BYTES).min(Semaphore::MAX_PERMITS)
}

impl Calls {
    /// By these limits; `most` tells how many bytes one message to a method may have.
    pub fn new(limits: Limits, most: impl Fn(&str) -> usize + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                most: Box::new(most),
                bytes: Arc::new(Semaphore::new(permits(limits.message_bytes))),
                accounts: Mutex::default(),
                answers: Mutex::default(),
            }),
        }
    }

    /// Ends answers that nobody reads, and forgets who no longer calls, until it is dropped.
    pub async fn watch(&self) -> Infallible {
        let every = LOOK_EVERY.min(self.shared.limits.unread / 4);
        loop {
            tokio::time::sleep(every.max(Duration::from_millis(1))).await;
            self.shared.look();
        }
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls")
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn look(&self) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|answer| answer.look(self.limits.unread));
        drop(answers);
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|_, account| Arc::strong_count(account) > 1);
    }

    fn account(&self, who: String) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.entry(who).or_insert_with(|| {
            Arc::new(Account {
                calls: Arc::new(Semaphore::new(self.limits.calls_each)),
                bytes: Arc::new(Semaphore::new(permits(self.limits.message_bytes_each))),
            })
        });
        Arc::clone(account)
    }

    /// A call for the health: a few at once over each connection, whatever else is under way.
    fn of_health(info: &ConnectInfo, turn: Option<Turn>) -> Result<Call, Status> {
        let permit = match (&info.place, turn) {
            (None, _) => None,
            (Some(place), turn) => {
                place.asked_for_health();
                match turn {
                    Some(Turn(permit)) => Some(permit),
                    None => Some(Arc::new(few(&place.few)?)),
                }
            }
        };
        Ok(Call {
            _account: None,
            _permit: permit,
        })
    }

    /// Any other call.
    fn of(&self, info: &ConnectInfo) -> Result<(Call, Arc<Account>), Status> {
        let who = info.holder();
        if let Some(place) = &info.place
            && info.is_known()
        {
            place.known(&who)?;
        }
        let account = self.account(who);
        let permit = Arc::clone(&account.calls).try_acquire_owned().map_err(|_| {
            let message = format!(
                "{} has {} calls under way already: let some of them end",
                info.holder(),
                self.limits.calls_each
            );
            crate::busy("TOO_MANY_CALLS", message, AGAIN)
        })?;
        let call = Call {
            _account: Some(Arc::clone(&account)),
            _permit: Some(Arc::new(permit)),
        };
        Ok((call, account))
    }

    fn begin(&self, request: http::Request<Body>) -> Result<(http::Request<Body>, Begun), Status> {
        let (mut parts, body) = request.into_parts();
        let turn = parts.extensions.remove::<Turn>();
        // Only a call from within the process has none.
        let Some(info) = parts.extensions.get::<ConnectInfo>() else {
            return Ok((http::Request::from_parts(parts, body), Begun::default()));
        };
        let path = parts.uri.path();
        let (call, rooms, most) = if path.starts_with(HEALTH) {
            (Self::of_health(info, turn)?, None, HEALTH_BYTES)
        } else {
            let (call, account) = self.of(info)?;
            let rooms = Rooms {
                own: Arc::clone(&account.bytes),
                own_bytes: self.limits.message_bytes_each,
                all: Arc::clone(&self.bytes),
                all_bytes: self.limits.message_bytes,
            };
            (call, Some(rooms), (self.most)(path))
        };
        let is_stream = crate::v1::CLIENT_STREAMS.contains(&path) || OTHER_STREAMS.contains(&path);
        let held = arriving::Held::default();
        let body = Arriving::new(
            body,
            is_stream,
            most,
            rooms,
            Arc::clone(&held),
            self.limits.arrival,
        );
        let begun = Begun {
            call: Some(call),
            held: (!is_stream).then_some(held),
        };
        Ok((http::Request::from_parts(parts, Body::new(body)), begun))
    }

    fn answer(&self, response: http::Response<Body>, call: Option<Call>) -> http::Response<Body> {
        let Some(call) = call else { return response };
        let (mut parts, body) = response.into_parts();
        if http_body::Body::is_end_stream(&body) {
            return http::Response::from_parts(parts, body);
        }
        // What a method has put there stays for as long as its answer is in memory.
        let kept = std::mem::take(&mut parts.extensions);
        let (leaving, watched) = Leaving::new(Unread::new(body, kept), call, self.limits.unread);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push(watched);
        drop(answers);
        http::Response::from_parts(parts, Body::new(leaving))
    }
}

/// What a call that is being answered holds.
#[derive(Default)]
struct Begun {
    call: Option<Call>,
    /// The room that the one message of the request takes.
    held: Option<arriving::Held>,
}

fn few(few: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(few).try_acquire_owned().map_err(|_| {
        let message = format!(
            "{UNKNOWN_CALLS} calls for the health, or from somebody who has not shown a good token, are under way on this connection"
        );
        crate::busy("TOO_MANY_CALLS", message, AGAIN)
    })
}

impl<S> Layer<S> for Calls {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded {
            inner,
            calls: self.clone(),
        }
    }
}

/// A service behind the bounds.
#[derive(Clone, Debug)]
pub struct Bounded<S> {
    inner: S,
    calls: Calls,
}

impl<S> Service<http::Request<Body>> for Bounded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future =
        Either<BoxFuture<'static, Result<S::Response, S::Error>>, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (request, begun) = match self.calls.shared.begin(request) {
            Ok(begun) => begun,
            Err(status) => return Either::Right(ready(Ok(status.into_http()))),
        };
        let answering = self.inner.call(request);
        let shared = Arc::clone(&self.calls.shared);
        Either::Left(Box::pin(async move {
            let Begun { call, held } = begun;
            let response = answering.await?;
            // The method has its message, and is done with it or has put it elsewhere.
            drop(held.map(|held| held.lock().unwrap_or_else(PoisonError::into_inner).take()));
            Ok(shared.answer(response, call))
        }))
    }
}

/// Bounds the calls on a connection until it is known who is at its other end. To be put before whatever looks up tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct FewFromStrangers;

impl<S> Layer<S> for FewFromStrangers {
    type Service = Strangers<S>;

    fn layer(&self, inner: S) -> Strangers<S> {
        Strangers { inner }
    }
}

/// A service that strangers reach too.
#[derive(Clone, Debug)]
pub struct Strangers<S> {
    inner: S,
}

impl<S, B> Service<http::Request<B>> for Strangers<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let info = request.extensions().get::<ConnectInfo>();
        let stranger = info
            .filter(|info| !info.is_known())
            .and_then(|info| info.place.as_ref());
        let turn = match stranger.filter(|place| !place.is_known()) {
            None => return Either::Left(self.inner.call(request)),
            Some(place) => few(&place.few),
        };
        match turn {
            Ok(turn) => {
                request.extensions_mut().insert(Turn(Arc::new(turn)));
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}
