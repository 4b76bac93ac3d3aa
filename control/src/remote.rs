//! The mill behind a gateway.
//!
//! Promise: what is only looked at is asked again, of whichever gateway answers, when the connection broke; what changes
//! something is asked once, as nobody knows whether it was done.

mod admin;
mod catalog;
mod queue;
mod registry;

use std::{fmt, sync::Arc};

use api::transport::{self, Channel, Security};
use futures::{StreamExt as _, stream::BoxStream};
use tokio::sync::RwLock;
use tonic::{Code, Response, Status, Streaming};

use crate::{Error, wire};

/// A handle on the gateways of a mill; clones share the connection.
#[derive(Clone)]
pub(crate) struct Remote {
    inner: Arc<Inner>,
}

struct Inner {
    addresses: Vec<String>,
    security: Security,
    current: RwLock<Current>,
}

/// Whom is asked now.
#[derive(Clone)]
struct Current {
    channel: Channel,
    address: String,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("addresses", &self.inner.addresses)
            .finish()
    }
}

impl Remote {
    /// Connects to the first gateway that answers.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub(crate) async fn connect(addresses: &str, security: Security) -> Result<Self, Error> {
        let addresses: Vec<String> = addresses
            .split(',')
            .map(|address| address.trim().to_string())
            .filter(|address| !address.is_empty())
            .collect();
        let (channel, address) = transport::connect_any(&addresses, &security).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                addresses,
                security,
                current: RwLock::new(Current { channel, address }),
            }),
        })
    }

    async fn current(&self) -> Current {
        self.inner.current.read().await.clone()
    }

    /// Connects anew to the first gateway that answers.
    async fn renew(&self) -> Result<(), Error> {
        let (channel, address) = transport::connect_any(&self.inner.addresses, &self.inner.security).await?;
        *self.inner.current.write().await = Current { channel, address };
        Ok(())
    }

    /// Asks for something that changes nothing: once more where the connection broke.
    async fn look<Q, T, F>(&self, request: Q, call: impl Fn(Channel, Q) -> F) -> Result<T, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let current = self.current().await;
        match call(current.channel, request.clone()).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) if is_broken(&status) => {
                self.renew().await?;
                self.change(request, call).await
            }
            Err(status) => Err(wire::refused(&status, &current.address)),
        }
    }

    /// Asks for a change.
    async fn change<Q, T, F>(&self, request: Q, call: impl Fn(Channel, Q) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let current = self.current().await;
        match call(current.channel, request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(wire::refused(&status, &current.address)),
        }
    }

    /// The errors of a stream, as ours.
    async fn told<T: Send + 'static>(&self, stream: Streaming<T>) -> BoxStream<'static, Result<T, Error>> {
        let address = self.current().await.address;
        stream
            .map(move |item| item.map_err(|status| wire::refused(&status, &address)))
            .boxed()
    }
}

/// Whether it was the connection that failed, not the gateway that refused.
fn is_broken(status: &Status) -> bool {
    let is_code = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
    is_code && api::reason(status).is_none()
}
