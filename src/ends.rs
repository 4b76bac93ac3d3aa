//! Waiting for the ends of many jobs at once, as the harness and the bench do.
//!
//! Promise: what is looked at is bounded however many jobs there are, and an end is noticed within milliseconds.
//! No promise to return while nobody works on the jobs.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::bail;
use model::JobId;
use storage::{Progress, Store};
use tracing::info;

/// Pause before looking again at jobs of which none has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Most jobs looked at in one request, the oldest first.
const LOOKED_AT: usize = 1000;
/// Up to so many are looked at each time; of more first a sample, since looking is work for those who record.
const FEW: usize = 16;
/// All are looked at after this long, whatever the sample says.
const LOOK_AT_ALL: Duration = Duration::from_millis(100);

/// Waits until all jobs are final and gives how each ended, in the order of ending. Dropping it loses nothing.
///
/// # Errors
/// A job that is gone; what MongoDB says.
pub(crate) async fn of_all(store: &Store, ids: &[JobId]) -> anyhow::Result<Vec<Progress>> {
    let mut outstanding = ids.to_vec();
    let mut ended = Vec::with_capacity(ids.len());
    while !outstanding.is_empty() {
        let looked_at = outstanding.len().min(LOOKED_AT);
        until_sample_ended(store, &outstanding[..looked_at]).await?;
        let progress = progress(store, &outstanding[..looked_at]).await?;
        let is_final = |id: &JobId| progress.get(id).is_some_and(|job| job.state.is_final());
        let before = ended.len();
        ended.extend(
            outstanding
                .iter()
                .filter(|id| is_final(id))
                .map(|id| progress[id]),
        );
        outstanding.retain(|id| !is_final(id));
        if ended.len() == before {
            tokio::time::sleep(LOOK_AGAIN).await;
        } else {
            info!(ended = ended.len(), outstanding = outstanding.len(), "jobs ended");
        }
    }
    Ok(ended)
}

/// Waits until the job in the middle has ended: jobs end about in the order in which they were submitted.
async fn until_sample_ended(store: &Store, ids: &[JobId]) -> anyhow::Result<()> {
    if ids.len() <= FEW {
        return Ok(());
    }
    let middle = ids[ids.len() / 2];
    let since = Instant::now();
    while since.elapsed() < LOOK_AT_ALL {
        if progress(store, &[middle]).await?[&middle].state.is_final() {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// How far these jobs are; all of them are in it.
async fn progress(store: &Store, ids: &[JobId]) -> anyhow::Result<HashMap<JobId, Progress>> {
    let progress = store.progress(ids).await?;
    let progress: HashMap<JobId, Progress> = progress.into_iter().map(|job| (job.id, job)).collect();
    match ids.iter().find(|id| !progress.contains_key(id)) {
        Some(gone) => bail!("job {gone} is gone from MongoDB"),
        None => Ok(progress),
    }
}
