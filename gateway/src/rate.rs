//! How often one identity may ask.

use std::{convert::Infallible, num::NonZeroU32, sync::Arc, time::Duration};

use api::transport::{ConnectInfo, HEALTH};
use futures::future::{Either, Ready, ready};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tonic::{Status, body::Body, codegen::http};
use tower::{Layer, Service};

/// After how long another call is within the limit again: twice as many are allowed at once.
const AGAIN: Duration = Duration::from_secs(1);

/// How often identities that no longer ask are forgotten.
const FORGET: Duration = Duration::from_secs(30);

/// Counts calls by identity and refuses what is too much with RESOURCE_EXHAUSTED.
#[derive(Clone)]
pub(crate) struct PerIdentity {
    limiter: Arc<DefaultKeyedRateLimiter<String>>,
    per_second: u32,
}

impl PerIdentity {
    /// So many calls a second, and twice as many at once; 0 is taken as 1.
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = per_second.max(1);
        let at = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at(per_second)).allow_burst(at(per_second.saturating_mul(2)));
        Self {
            limiter: Arc::new(RateLimiter::keyed(quota)),
            per_second,
        }
    }

    /// Forgets who no longer asks, until it is dropped.
    pub(crate) async fn forget_the_idle(&self) -> Infallible {
        loop {
            tokio::time::sleep(FORGET).await;
            self.limiter.retain_recent();
        }
    }

    fn check(&self, info: Option<&ConnectInfo>, path: &str) -> Result<(), Status> {
        // Only a call from within the process has none.
        let Some(info) = info else { return Ok(()) };
        let mut who = info.holder();
        if path.starts_with(HEALTH) {
            // However often the same one asks for other things.
            who.push_str(", for the health,");
        }
        self.limiter.check_key(&who).map_err(|_| {
            let message = format!("{who} asks more often than {} times a second", self.per_second);
            api::busy("TOO_MANY_REQUESTS", message, AGAIN)
        })
    }
}

impl<S> Layer<S> for PerIdentity {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited {
            inner,
            rate: self.clone(),
        }
    }
}

/// A service behind the limit.
#[derive(Clone)]
pub(crate) struct Limited<S> {
    inner: S,
    rate: PerIdentity,
}

impl<S, B> Service<http::Request<B>> for Limited<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match self.rate.check(request.extensions().get(), request.uri().path()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use api::transport::ConnectInfo;
    use model::Name;
    use pki::{Peer, Rights, Role};
    use tonic::transport::server::TcpConnectInfo;

    use super::*;

    fn from(name: &str) -> ConnectInfo {
        ConnectInfo {
            peer: Peer {
                role: Role::User,
                name: Name::new(name).unwrap(),
                rights: Rights::default(),
            },
            tcp: TcpConnectInfo {
                local_addr: None,
                remote_addr: None,
            },
            is_private: true,
            needs_token: false,
            local: None,
            place: None,
        }
    }

    #[test]
    fn one_identity_takes_nothing_from_another() {
        let rate = PerIdentity::new(1);
        let anna = from("anna");
        let list = "/sawmill.v1.Queue/ListJobs";
        assert!(rate.check(Some(&anna), list).is_ok());
        assert!(rate.check(Some(&anna), list).is_ok());
        let refused = rate.check(Some(&anna), list).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert_eq!(api::reason(&refused).as_deref(), Some("TOO_MANY_REQUESTS"));
        assert!(rate.check(Some(&from("bert")), list).is_ok());
        assert!(rate.check(Some(&anna), "/grpc.health.v1.Health/Check").is_ok());
    }
}
