//! Who takes part, asked of a gateway.

use api::{
    Malformed,
    v1::{self, registry_client::RegistryClient, set_agent_request},
};
use model::Name;

use super::Remote;
use crate::{Agent, AuditReport, Error, Status};

impl Remote {
    pub(crate) async fn status(&self) -> Result<Status, Error> {
        let asked = self.look(v1::StatusRequest {}, async |channel, request| {
            RegistryClient::new(channel).status(request).await
        });
        document(&asked.await?.document_json)
    }

    pub(crate) async fn audit(&self) -> Result<AuditReport, Error> {
        let asked = self.look(v1::AuditRequest {}, async |channel, request| {
            RegistryClient::new(channel).audit(request).await
        });
        document(&asked.await?.document_json)
    }

    pub(crate) async fn agents(&self) -> Result<Vec<Agent>, Error> {
        let asked = self.look(v1::ListAgentsRequest {}, async |channel, request| {
            RegistryClient::new(channel).list_agents(request).await
        });
        let agents = asked.await?.agents;
        agents
            .iter()
            .map(|agent| document(&agent.document_json))
            .collect()
    }

    /// `place`: none leaves it as it is, none within leaves it to the leader.
    pub(crate) async fn set_agent(
        &self,
        name: &Name,
        paused: Option<bool>,
        place: Option<Option<&str>>,
    ) -> Result<Agent, Error> {
        let request = v1::SetAgentRequest {
            name: name.to_string(),
            paused,
            place: place.map(|worker| match worker {
                Some(worker) => set_agent_request::Place::Worker(worker.to_string()),
                None => set_agent_request::Place::Anywhere(true),
            }),
        };
        let set = self.change(request, async |channel, request| {
            RegistryClient::new(channel).set_agent(request).await
        });
        document(&set.await?.document_json)
    }

    pub(crate) async fn remove_agent(&self, name: &Name) -> Result<Agent, Error> {
        let name = name.to_string();
        let removed = self.change(v1::AgentReference { name }, async |channel, request| {
            RegistryClient::new(channel).remove_agent(request).await
        });
        document(&removed.await?.document_json)
    }
}

/// Reads a document that travels as JSON.
pub(super) fn document<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Error> {
    let read = serde_json::from_str(json);
    Ok(read.map_err(|error| Malformed::new("document_json", error))?)
}
