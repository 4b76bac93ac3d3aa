//! What nodes say of their load: statistics, which would cost a quorum write each in ZooKeeper.

use bson::doc;
use model::{Name, cache::CacheUse};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Store,
    rows::Query,
    schema::{NODES, check_version},
};

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its name; the next report under it replaces this one.
    #[serde(rename = "_id")]
    pub node: Name,
    /// Number of its worker, as in `/owned/worker-…`.
    pub worker: u64,
    /// Host name of its machine.
    pub host: String,
    /// Entries that run at this moment.
    pub running: u32,
    /// Part of the machine's processors in use, 0.0 to 1.0.
    pub cpu: f64,
    /// Memory that its process uses, in bytes.
    pub memory_bytes: u64,
    /// The columns of blocks that it keeps for queries.
    #[serde(default)]
    pub cache: CacheUse,
    /// Whether it has taken itself out after failing too often.
    #[serde(default)]
    pub out: bool,
    /// When, in milliseconds since 1970 UTC by its own clock.
    pub at_ms: i64,
}

impl Store {
    /// Keeps the report in place of the node's last one.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn report(&self, report: &NodeReport) -> Result<(), Error> {
        let failed = |why: bson::error::Error| Error::Decode {
            what: "a report".into(),
            why: why.to_string(),
        };
        let mut document = bson::serialize_to_document(report).map_err(failed)?;
        document.insert("v", i64::from(model::FORMAT));
        let node = report.node.as_str();
        let kept = self
            .documents(NODES)
            .replace_one(doc! { "_id": node }, document)
            .upsert(true)
            .await;
        kept.map_err(self.failed(format!("reporting node {node}")))?;
        Ok(())
    }

    /// The last report of each node, by name; those of dead nodes too, which their time tells.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn list_nodes(&self) -> Result<Vec<NodeReport>, Error> {
        let mut rows = self
            .find(Query::new(NODES, "reading nodes", doc! {}).sort("_id", 1))
            .await?;
        let mut reports = Vec::new();
        while let Some(document) = rows.next().await? {
            let what = || format!("node {}", document.get_str("_id").unwrap_or_default());
            check_version(document, what)?;
            let report = bson::deserialize_from_slice(document.as_bytes());
            reports.push(report.map_err(|error| Error::Decode {
                what: what(),
                why: error.to_string(),
            })?);
        }
        Ok(reports)
    }
}
