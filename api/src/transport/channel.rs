//! A channel that shows on loopback who its user is.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    body::Body,
    codegen::http::{self, header::AUTHORIZATION},
    transport::{self, channel::ResponseFuture},
};
use tower::Service;

use super::local::Shown;

/// The connection to a server; clones share it. On loopback without TLS each request shows the token of the port, where this
/// user can read it.
#[derive(Clone, Debug)]
pub struct Channel {
    inner: transport::Channel,
    shown: Option<Arc<Shown>>,
}

impl Channel {
    pub(super) fn new(inner: transport::Channel, shown: Option<Arc<Shown>>) -> Self {
        Self { inner, shown }
    }
}

/// One that was made elsewhere, which shows nothing by itself.
impl From<transport::Channel> for Channel {
    fn from(inner: transport::Channel) -> Self {
        Self::new(inner, None)
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = transport::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(shown) = &self.shown
            && !request.headers().contains_key(AUTHORIZATION)
            && let Some(header) = shown.header()
        {
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        self.inner.call(request)
    }
}
