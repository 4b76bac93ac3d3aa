//! Who takes part, asked of a gateway.

use api::{
    Malformed,
    v1::{self, registry_client::RegistryClient},
};

use super::Remote;
use crate::{AuditReport, Error, Status};

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
}

/// Reads a document that travels as JSON.
pub(super) fn document<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Error> {
    let read = serde_json::from_str(json);
    Ok(read.map_err(|error| Malformed::new("document_json", error))?)
}
