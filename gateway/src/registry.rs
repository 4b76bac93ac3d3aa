//! `sawmill.v1.Registry`: who takes part.

mod attach;

use api::v1::{self, registry_server::Registry};
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::session::Session;

/// The service.
pub(crate) struct Service {
    session: Session,
    stop: CancellationToken,
}

impl Service {
    pub(crate) fn new(session: Session, stop: CancellationToken) -> Self {
        Self { session, stop }
    }
}

#[tonic::async_trait]
impl Registry for Service {
    type AttachStream = BoxStream<'static, Result<v1::AttachReply, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        attach::attach(&self.session, &self.stop, request).await
    }
}
