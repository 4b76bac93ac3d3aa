//! `sawmill.v1.Registry`: who takes part.

mod attach;

use api::v1::{self, registry_server::Registry};
use futures::stream::BoxStream;
use storage::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use crate::session::Session;

/// The service.
pub(crate) struct Service {
    session: Session,
    store: Store,
    /// How this dispatcher is called.
    name: String,
    stop: CancellationToken,
    sessions: TaskTracker,
}

impl Service {
    pub(crate) fn new(session: Session, store: Store, name: String, stop: CancellationToken) -> Self {
        Self {
            session,
            store,
            name,
            stop,
            sessions: TaskTracker::new(),
        }
    }
}

#[tonic::async_trait]
impl Registry for Service {
    type AttachStream = BoxStream<'static, Result<v1::AttachReply, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        attach::attach(self, request).await
    }
}
