//! What commands that succeeded printed to standard error.

use model::{Job, Processor};

use crate::{Control, Error};

/// How many results are looked through.
const SCANNED_RESULTS: u32 = 100_000;

/// What a command printed to standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StderrTail {
    /// Index of the subtask; that of the merge is the number of blocks.
    pub subtask: u32,
    /// The end of it.
    pub tail: String,
}

impl Control {
    /// What is kept of that, of the first subtasks of a job and of its merge; at most `limit`.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn stderr_tails(&self, job: &Job, limit: u32) -> Result<Vec<StderrTail>, Error> {
        if limit == 0 || !matches!(job.spec.processor, Processor::Command(_)) {
            return Ok(Vec::new());
        }
        if let Some(remote) = self.remote() {
            return remote.stderr_tails(job.id, limit).await;
        }
        let store = self.store()?;
        let first = 0..job.blocks.min(SCANNED_RESULTS);
        let mut tails = store.stderr_tails(job.id, first, limit).await?;
        if job.has_merge() && (tails.len() as u64) < u64::from(limit) {
            let merge = job.blocks..job.blocks + 1;
            tails.extend(store.stderr_tails(job.id, merge, 1).await?);
        }
        let tail = |(subtask, tail)| StderrTail { subtask, tail };
        Ok(tails.into_iter().map(tail).collect())
    }
}
