//! The audit log: each change of a mill is written down with who made it.

use storage::{Change, ChangeFilter};

use crate::{Control, Error, submit::now_ms};

impl Control {
    /// Writes down a change that was made. What can't be written is told in the log of this process: the change stands.
    pub async fn log(&self, who: &str, what: &str, subject: &str, details: String) {
        let change = Change {
            at_ms: now_ms(),
            who: who.to_string(),
            what: what.to_string(),
            subject: subject.to_string(),
            details,
        };
        tracing::info!(target: "audit", who, what, subject, details = change.details);
        self.log_changes(std::slice::from_ref(&change)).await;
    }

    /// Writes down changes that were made, as [`Control::log`].
    pub async fn log_changes(&self, changes: &[Change]) {
        let written = match self.store() {
            Ok(store) => store.log_changes(changes).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::error!("{} changes are not in the audit log: {error}", changes.len());
        }
    }

    /// Changes, the newest first.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn changes(&self, filter: &ChangeFilter) -> Result<Vec<Change>, Error> {
        if let Some(remote) = self.remote() {
            return remote.changes(filter).await;
        }
        Ok(self.store()?.changes(filter).await?)
    }
}
