//! Waking workers by name: the leader sets the data of their folders, which they watch.
//!
//! Promise: a worker that can't be woken fails nobody else's wake-up and no feed. Not promised: that every wake-up
//! arrives; a worker looks now and then by itself.

use std::sync::PoisonError;

use model::{
    limits::MULTI_OPS,
    znode::{self, WorkerData},
};
use zookeeper_client as zk;
use zookeeper_client::{Client, MultiWriteError, MultiWriteResult};

use crate::{
    batch::{ANY_VERSION, guard_failed},
    error::Error,
    layout::{WorkerNumber, folder},
    leader::Leader,
    listing::{self, ReadSize},
};

/// Most workers woken by one feed: they go into one transaction.
const MOST_WOKEN: usize = MULTI_OPS - 1;

type Reply = Result<Vec<MultiWriteResult>, MultiWriteError>;

impl Leader {
    /// Reads the data of workers that are to be woken for the first time.
    pub(crate) async fn load_workers(&self, wake: &[WorkerNumber]) -> Result<(), Error> {
        let unknown: Vec<WorkerNumber> = {
            let known = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            wake.iter()
                .copied()
                .filter(|worker| !known.contains_key(worker))
                .collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let paths: Vec<String> = unknown.iter().map(|&worker| folder(worker)).collect();
        let found = listing::read_data(&self.term, &paths, &ReadSize::default()).await?;
        let mut known = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for (worker, data) in unknown.into_iter().zip(found) {
            if let Some(data) = data.and_then(|data| znode::decode::<WorkerData>(&data).ok()) {
                known.insert(worker, data);
            }
        }
        Ok(())
    }

    /// Sends one guarded transaction that wakes workers; none where there is nobody to wake.
    pub(crate) fn send_wake<'c>(
        &self,
        client: &'c Client,
        wake: &[WorkerNumber],
    ) -> Result<Option<impl Future<Output = Reply> + Send + use<'c>>, Error> {
        let mut known = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut writer = client.new_multi_writer();
        let mut add = || {
            writer.add_check_version(&self.guard, ANY_VERSION)?;
            let mut woken = 0;
            for worker in wake.iter().take(MOST_WOKEN) {
                if let Some(data) = known.get_mut(worker) {
                    data.wake += 1;
                    writer.add_set_data(&folder(*worker), &znode::encode(data), None)?;
                    woken += 1;
                }
            }
            Ok(woken)
        };
        let woken = add().map_err(|failure: zk::Error| Error::refused(&self.guard, failure))?;
        Ok((woken > 0).then(|| writer.commit()))
    }

    /// Wakes the others again when one of them has vanished.
    ///
    /// # Errors
    /// [`Error::Deposed`], [`Error::TermOver`]; whatever else goes wrong is ignored.
    pub(crate) async fn after_wake(&self, wake: &[WorkerNumber], woken: Option<Reply>) -> Result<(), Error> {
        let mut left: Vec<WorkerNumber> = wake.iter().copied().take(MOST_WOKEN).collect();
        let mut reply = woken;
        while let Some(Err(MultiWriteError::OperationFailed { index, source })) = reply {
            if index == 0 {
                return Err(guard_failed(&self.guard, source));
            }
            {
                let mut known = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
                left.retain(|worker| known.contains_key(worker));
                let Some(culprit) = left.get(index - 1).copied() else {
                    return Ok(());
                };
                tracing::debug!(%culprit, %source, "a worker can't be woken");
                known.remove(&culprit);
                left.retain(|&worker| worker != culprit);
            }
            let client = self.term.client()?;
            reply = match self.send_wake(&client, &left)? {
                Some(waking) => Some(self.term.wait(waking).await?),
                None => None,
            };
        }
        Ok(())
    }
}
