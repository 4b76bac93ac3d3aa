//! `sawmill.v1.Registry`: who takes part.

mod attach;

use api::{
    transport::holder,
    v1::{self, registry_server::Registry},
};
use control::{Control, wire};
use futures::stream::BoxStream;
use model::Name;
use pki::Peer;
use storage::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    catalog::{document, named},
    queue::told,
    refuse,
    room::Room,
    session::Session,
};

/// The service.
pub(crate) struct Service {
    control: Control,
    session: Session,
    store: Store,
    room: Room,
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
        room: Room,
        name: String,
        stop: CancellationToken,
    ) -> Self {
        Self {
            control,
            session,
            store,
            room,
            name,
            stop,
            sessions: TaskTracker::new(),
        }
    }
}

impl Service {
    async fn log(&self, peer: &Peer, what: &str, subject: &Name, details: String) {
        let who = peer.to_string();
        self.control.log(&who, what, subject.as_str(), details).await;
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
        let taken = self.room.look(&holder(&request)).await?;
        let status = self.control.status().await.map_err(told)?;
        Ok(taken.until_taken(Response::new(v1::ListWorkersReply {
            workers: status.workers.iter().map(wire::worker_message).collect(),
        })))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        let taken = self.room.look(&holder(&request)).await?;
        let status = self.control.status().await.map_err(told)?;
        Ok(taken.until_taken(Response::new(wire::status_message(&status))))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Result<Response<v1::AuditReply>, Status> {
        let taken = self.room.look(&holder(&request)).await?;
        let report = self.control.audit().await.map_err(told)?;
        Ok(taken.until_taken(Response::new(v1::AuditReply {
            clean: report.clean,
            document_json: document(&report)?,
        })))
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsReply>, Status> {
        let taken = self.room.look(&holder(&request)).await?;
        let agents = self.control.agents().await.map_err(told)?;
        Ok(taken.until_taken(Response::new(v1::ListAgentsReply {
            agents: agents.iter().map(wire::agent_message).collect(),
        })))
    }

    async fn set_agent(
        &self,
        request: Request<v1::SetAgentRequest>,
    ) -> Result<Response<v1::AgentInfo>, Status> {
        let peer = refuse::asker(&request);
        let request = request.into_inner();
        let name = named(&request.name)?;
        let mut agent = None;
        if let Some(paused) = request.paused {
            agent = Some(self.control.pause_agent(&name, paused).await.map_err(told)?);
            let what = if paused { "agent.pause" } else { "agent.resume" };
            self.log(&peer, what, &name, String::new()).await;
        }
        let place = match request.place {
            Some(v1::set_agent_request::Place::Worker(worker)) => Some(Some(worker)),
            Some(v1::set_agent_request::Place::Anywhere(true)) => Some(None),
            Some(v1::set_agent_request::Place::Anywhere(false)) | None => None,
        };
        if let Some(to) = place {
            let moved = self.control.move_agent(&name, to.as_deref()).await;
            agent = Some(moved.map_err(told)?);
            self.log(&peer, "agent.move", &name, to.unwrap_or_default()).await;
        }
        let agent = match agent {
            Some(agent) => agent,
            None => self.control.agent(&name).await.map_err(told)?,
        };
        Ok(Response::new(wire::agent_message(&agent)))
    }

    async fn remove_agent(
        &self,
        request: Request<v1::AgentReference>,
    ) -> Result<Response<v1::AgentInfo>, Status> {
        let peer = refuse::asker(&request);
        let name = named(&request.get_ref().name)?;
        let agent = self.control.remove_agent(&name).await.map_err(told)?;
        self.log(&peer, "agent.remove", &name, String::new()).await;
        Ok(Response::new(wire::agent_message(&agent)))
    }
}
