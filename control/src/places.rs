//! Where a mill can be reached: its gateways and its workers.

use coordination::Snapshot;

use crate::{Control, Error, Worker, status};

impl Control {
    /// Compute nodes, dead ones too whose entries have not been recovered yet. Without their load.
    ///
    /// # Errors
    /// [`Error::Coordination`].
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        let snapshot = self.snapshot().await?;
        let workers = snapshot.census.workers.iter();
        Ok(workers.map(|view| status::worker(view, &[], 0)).collect())
    }

    /// `HOST:PORT` of the gateways, that of the leader first.
    ///
    /// # Errors
    /// [`Error::Coordination`].
    pub async fn gateways(&self) -> Result<Vec<String>, Error> {
        let snapshot = self.snapshot().await?;
        let dispatchers = snapshot.dispatchers.into_iter();
        Ok(dispatchers
            .filter_map(|candidate| candidate.data.ok()?.gateway)
            .collect())
    }

    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Error> {
        let term = self.term().await?;
        let snapshot = Snapshot::take(&term).await;
        term.close().await;
        Ok(snapshot?)
    }
}
