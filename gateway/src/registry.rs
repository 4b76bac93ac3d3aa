//! `sawmill.v1.Registry`: who takes part.

mod attach;

use api::v1::{self, registry_server::Registry};
use control::{Control, wire};
use futures::stream::BoxStream;
use storage::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use crate::{catalog::document, queue::told, refuse, session::Session};

/// The service.
pub(crate) struct Service {
    control: Control,
    session: Session,
    store: Store,
    /// How this dispatcher is called.
    name: String,
    stop: CancellationToken,
    sessions: TaskTracker,
}

impl Service {
    pub(crate) fn new(
        control: Control,
        session: Session,
        store: Store,
        name: String,
        stop: CancellationToken,
    ) -> Self {
        Self {
            control,
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

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersReply>, Status> {
        refuse::look(&request)?;
        let status = self.control.status().await.map_err(told)?;
        Ok(Response::new(v1::ListWorkersReply {
            workers: status.workers.iter().map(wire::worker_message).collect(),
        }))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        refuse::look(&request)?;
        let status = self.control.status().await.map_err(told)?;
        Ok(Response::new(wire::status_message(&status)))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Result<Response<v1::AuditReply>, Status> {
        refuse::look(&request)?;
        let report = self.control.audit().await.map_err(told)?;
        Ok(Response::new(v1::AuditReply {
            clean: report.clean,
            document_json: document(&report)?,
        }))
    }
}
