//! Waking workers by name, and telling them what to end: the leader sets the data of their folders, which they watch.
//!
//! Promise: a worker that can't be woken fails nobody else's wake-up and no feed. Not promised: that every wake-up
//! arrives; a worker looks now and then by itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use model::{
    JobId,
    limits::MULTI_OPS,
    znode::{self, WorkerData},
};
use zookeeper_client as zk;
use zookeeper_client::{MultiWriteError, MultiWriter};

use crate::{
    batch::{ANY_VERSION, guard_failed},
    error::Error,
    layout::{WorkerNumber, folder},
    leader::Leader,
    listing::{self, ReadSize},
};

/// Most workers woken by one feed: they go into its last transaction.
const MOST_WOKEN: usize = MULTI_OPS;

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

    /// Tells workers of which jobs they are to end what they have, in the place of what they were told before; who was told so
    /// already is left alone. One that is gone meanwhile is skipped.
    ///
    /// # Errors
    /// [`Error::Deposed`] when the candidate is gone; [`Error::TermOver`], [`Error::Disconnected`],
    /// [`Error::NoAuth`].
    pub async fn stop_jobs(&self, on: BTreeMap<WorkerNumber, Vec<JobId>>) -> Result<(), Error> {
        let workers: Vec<WorkerNumber> = on.keys().copied().collect();
        self.load_workers(&workers).await?;
        for (worker, jobs) in on {
            let known = {
                let known = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
                known.get(&worker).cloned()
            };
            let Some(mut data) = known.filter(|data| data.stop != jobs) else {
                continue;
            };
            data.wake += 1;
            data.stop = jobs;
            let (path, bytes) = (folder(worker), znode::encode(&data));
            let (path, bytes, guard) = (&path, &bytes, &self.guard);
            let write = |client: Arc<zk::Client>| async move {
                let mut writer = client.new_multi_writer();
                writer.add_check_version(guard, ANY_VERSION)?;
                writer.add_set_data(path, bytes, None)?;
                match writer.commit().await {
                    Ok(_) => Ok(None),
                    Err(MultiWriteError::RequestFailed { source }) => Err(source),
                    Err(MultiWriteError::OperationFailed { index, source }) => Ok(Some((index, source))),
                }
            };
            let answer = self.term.ask(path, write).await?;
            match answer.map_err(|failure| Error::refused(path, failure))? {
                None => {
                    let mut known = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
                    known.insert(worker, data);
                }
                Some((0, failure)) => return Err(guard_failed(guard, failure)),
                Some((_, zk::Error::NoNode)) => self.forget_worker(worker),
                Some((_, failure)) => return Err(Error::refused(path, failure)),
            }
        }
        Ok(())
    }

    /// Adds the wake-ups to a transaction; gives who is woken by it, in this order.
    pub(crate) fn add_wakes(
        &self,
        writer: &mut MultiWriter<'_>,
        wake: &[WorkerNumber],
    ) -> Result<Vec<WorkerNumber>, zk::Error> {
        let mut known = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut woken = Vec::with_capacity(wake.len());
        for &worker in wake.iter().take(MOST_WOKEN) {
            if let Some(data) = known.get_mut(&worker) {
                data.wake += 1;
                writer.add_set_data(&folder(worker), &znode::encode(data), None)?;
                woken.push(worker);
            }
        }
        Ok(woken)
    }

    /// Wakes a worker no more: its folder is gone.
    pub(crate) fn forget_worker(&self, worker: WorkerNumber) {
        let mut known = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&worker);
    }
}
