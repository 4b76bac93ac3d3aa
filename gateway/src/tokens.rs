//! Tokens instead of certificates: `authorization: Bearer sawmill_…`.
//!
//! Promise: a call with a token that counts has the peer of the token, whatever the connection's; one with another token, or
//! without any where there is no certificate either, is refused with UNAUTHENTICATED before any service but health sees it; no token is
//! taken from where others can read it. A revoked one is believed for [`BELIEVED`] at most.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use api::transport::{self, ConnectInfo, HEALTH};
use control::Control;
use futures::future::BoxFuture;
use pki::{Peer, Token};
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Code, Status, body::Body, codegen::http};
use tower::{Layer, Service};

/// How long a token that was found is not looked up again.
const BELIEVED: Duration = Duration::from_secs(5);

/// Most tokens that are believed at once.
const BELIEVED_MAX: usize = 4096;

/// Most tokens that are looked up at once: guessing must not keep MongoDB busy.
const LOOKUPS_MAX: usize = 16;

/// How long a call waits for its token to be looked up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Knows the tokens; clones share what they know.
#[derive(Clone)]
pub(crate) struct Tokens {
    shared: Arc<Shared>,
}

struct Shared {
    control: Control,
    believed: Mutex<HashMap<String, Believed>>,
    lookups: Semaphore,
}

#[derive(Clone)]
struct Believed {
    peer: Peer,
    expires_ms: i64,
    since: Instant,
}

impl Tokens {
    pub(crate) fn new(control: Control) -> Self {
        Self {
            shared: Arc::new(Shared {
                control,
                believed: Mutex::default(),
                lookups: Semaphore::new(LOOKUPS_MAX),
            }),
        }
    }

    /// Whom a token stands for.
    async fn peer(&self, token: &Token) -> Result<Peer, Status> {
        let hash = token.hash();
        if let Some(peer) = self.believed(&hash) {
            return Ok(peer);
        }
        let late = |_| {
            refused(
                Code::Unavailable,
                "STORE_AWAY",
                "the token can't be looked up now",
            )
        };
        let found = timeout(PATIENCE, async {
            let _turn = self.shared.lookups.acquire().await;
            self.shared.control.peer_of_token(token).await
        });
        let found = found.await.map_err(late)?.map_err(|error| {
            tracing::warn!("a token can't be looked up: {error}");
            refused(
                Code::Unavailable,
                "STORE_AWAY",
                "the token can't be looked up now",
            )
        })?;
        let Some((peer, expires_ms)) = found else {
            return Err(unauthenticated("the token is unknown, revoked or expired"));
        };
        let believed = Believed {
            peer: peer.clone(),
            expires_ms,
            since: Instant::now(),
        };
        let mut known = self
            .shared
            .believed
            .lock()
            .unwrap_or_else(|lock| lock.into_inner());
        if known.len() >= BELIEVED_MAX {
            known.retain(|_, believed| believed.since.elapsed() < BELIEVED);
        }
        if known.len() < BELIEVED_MAX {
            known.insert(hash, believed);
        }
        Ok(peer)
    }

    fn believed(&self, hash: &str) -> Option<Peer> {
        let mut known = self
            .shared
            .believed
            .lock()
            .unwrap_or_else(|lock| lock.into_inner());
        let found = known.get(hash)?;
        if found.since.elapsed() < BELIEVED && found.expires_ms > now_ms() {
            return Some(found.peer.clone());
        }
        known.remove(hash);
        None
    }

    /// The peer of a call, when it is another than that of its connection.
    async fn of(&self, info: &ConnectInfo, header: Option<Header>) -> Result<Option<Peer>, Status> {
        match header {
            None if info.needs_token => Err(unauthenticated(
                "there is neither a certificate nor a token: send `authorization: Bearer sawmill_…`",
            )),
            None => Ok(None),
            Some(_) if !info.is_private => Err(unauthenticated(
                "a token must not travel without TLS: make a new one, and connect to a port with TLS",
            )),
            Some(Header(Some(token))) => match (self.peer(&token).await, &info.local) {
                // Most likely it is that of a port that was listened on before.
                (Err(status), Some(local)) if status.code() == Code::Unauthenticated => Err(local.refusal()),
                (known, _) => known.map(Some),
            },
            Some(Header(None)) => Err(unauthenticated(
                "the authorization is no token: it is `Bearer` and what `sawmill token create` printed",
            )),
        }
    }
}

/// What `authorization` says: a token, or something else.
struct Header(Option<Token>);

fn header(headers: &http::HeaderMap) -> Option<Header> {
    let is_there = headers.contains_key(http::header::AUTHORIZATION);
    is_there.then(|| Header(transport::bearer(headers)))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn unauthenticated(why: &str) -> Status {
    refused(Code::Unauthenticated, "UNAUTHENTICATED", why)
}

fn refused(code: Code, reason: &str, why: &str) -> Status {
    api::refusal(code, reason, why, [])
}

impl<S> Layer<S> for Tokens {
    type Service = Known<S>;

    fn layer(&self, inner: S) -> Known<S> {
        Known {
            inner,
            tokens: self.clone(),
        }
    }
}

/// A service whose callers are known.
#[derive(Clone)]
pub(crate) struct Known<S> {
    inner: S,
    tokens: Tokens,
}

impl<S, B> Service<http::Request<B>> for Known<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        // The one that was asked whether it is ready is the one to be called.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let token = header(request.headers());
        let Some(info) = request.extensions().get::<ConnectInfo>().cloned() else {
            return Box::pin(inner.call(request));
        };
        let is_open = request.uri().path().starts_with(HEALTH);
        if token.is_none() && (!info.needs_token || is_open) {
            return Box::pin(inner.call(request));
        }
        let tokens = self.tokens.clone();
        Box::pin(async move {
            match tokens.of(&info, token).await {
                Ok(Some(peer)) => {
                    let info = ConnectInfo {
                        peer,
                        needs_token: false,
                        ..info
                    };
                    request.extensions_mut().insert(info);
                    // Nobody behind this needs it.
                    request.headers_mut().remove(http::header::AUTHORIZATION);
                    inner.call(request).await
                }
                Ok(None) => inner.call(request).await,
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}
