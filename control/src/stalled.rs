//! Jobs that wait although nothing keeps them from running: their leader has lost track of them.

use std::{collections::HashSet, time::Duration};

use coordination::{Snapshot, Term};
use model::{Counts, Job, JobId};
use storage::Store;
use tokio::time::Instant;

use crate::Error;

/// A job that could run is fed within a fraction of a second, after a change of the leader within a few seconds.
const PATIENCE: Duration = Duration::from_secs(8);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// The jobs that wait, of which nothing is in flight, although a worker that fits has a free slot, for
/// [`PATIENCE`]. Gives at once that there are none in a cluster where everything moves.
///
/// # Errors
/// [`Error::Coordination`], [`Error::Storage`].
pub(crate) async fn stalled(term: &Term, store: &Store) -> Result<Vec<JobId>, Error> {
    let begun = Instant::now();
    let mut stalled = look(term, store).await?;
    while !stalled.is_empty() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(PAUSE).await;
        let again = look(term, store).await?;
        stalled.retain(|job| again.contains(job));
    }
    Ok(stalled.into_iter().map(|(job, _)| job).collect())
}

async fn look(term: &Term, store: &Store) -> Result<Vec<(JobId, Counts)>, Error> {
    let snapshot = Snapshot::take(term).await?;
    if snapshot.dispatchers.is_empty() || !snapshot.census.unowned.is_empty() {
        return Ok(Vec::new());
    }
    let headers = snapshot.read_headers(term).await?;
    let in_flight: HashSet<JobId> = headers
        .into_iter()
        .filter_map(|(_, _, header)| Some(header.ok()?.job))
        .collect();
    let mut stalled = Vec::new();
    for job in store.active().await? {
        let waits = job.counts.ended() < job.subtasks() && !in_flight.contains(&job.id);
        // What another job computes for it may take long.
        let awaits_others = job.spec.reuse && !in_flight.is_empty();
        if waits
            && !job.cancel_requested
            && !awaits_others
            && has_room(&snapshot, &job)
            && !backs_off(store, &job).await?
        {
            stalled.push((job.id, job.counts));
        }
    }
    Ok(stalled)
}

/// Whether a live worker that may run the job has a free slot.
fn has_room(snapshot: &Snapshot, job: &Job) -> bool {
    let mut live = snapshot.census.workers.iter().filter(|worker| worker.alive);
    live.any(|worker| {
        worker.data.as_ref().is_ok_and(|data| {
            job.spec.processor.fits(data.offer()) && worker.entries.len() < data.slots as usize
        })
    })
}

/// Whether the latest unsuccessful end is so recent that its subtask may still wait for its next attempt.
async fn backs_off(store: &Store, job: &Job) -> Result<bool, Error> {
    let latest = store.failures(job.id, 1).await?.pop();
    let longest = i64::try_from(job.spec.retry.max_ms).unwrap_or(i64::MAX);
    let now_ms = store.now_ms().await?;
    Ok(latest.is_some_and(|end| end.at_ms.saturating_add(longest) > now_ms))
}
