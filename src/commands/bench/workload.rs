//! Datasets of inline blocks, jobs over them, and how long these take.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use control::Control;
use model::{Block, Counts, Job, JobId, JobSpec, JobState, Name, Processor};
use storage::Store;

use crate::ends;

/// Blocks added by one call.
const BLOCKS: usize = 16 * 1024;
/// Jobs submitted by one call.
const JOBS: usize = 1000;

/// What a measured job, or many of them, came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed {
    /// From submit to the last end recorded.
    pub(super) took: Duration,
    /// All ends.
    pub(super) counts: Counts,
}

/// Makes a dataset of `count` inline blocks of `payload` bytes, each with content of its own.
pub(super) async fn dataset(store: &Store, name: &str, count: u32, payload: usize) -> anyhow::Result<Name> {
    let name = Name::new(name)?;
    store.create(&name).await?;
    let numbers: Vec<u32> = (0..count).collect();
    for chunk in numbers.chunks(BLOCKS) {
        let blocks = chunk.iter().map(|&number| block(number, payload)).collect();
        store.append_blocks(&name, blocks).await?;
    }
    Ok(name)
}

/// The block with this number: its number, then filler up to `payload` bytes.
pub(super) fn block(number: u32, payload: usize) -> Block {
    let mut bytes = format!("{number:010} ").into_bytes();
    bytes.resize(payload, b'.');
    if let Some(last) = bytes.last_mut() {
        *last = b'\n';
    }
    Block::inline(bytes)
}

/// A no-op job; nothing of it is answered by reuse.
pub(super) fn noop(dataset: &Name) -> JobSpec {
    spec(dataset, Processor::Noop)
}

/// A job with the defaults of everything but what to do.
pub(super) fn spec(dataset: &Name, processor: Processor) -> JobSpec {
    JobSpec::new(dataset.clone(), processor)
}

/// Submits a job and waits for its end.
pub(super) async fn time_job(control: &Control, spec: JobSpec) -> anyhow::Result<(Timed, Job)> {
    let begin = Instant::now();
    let id = control.submit(spec).await?;
    let job = control.wait(id, None, |_| {}).await?;
    let took = begin.elapsed();
    check(job.id, job.state, &job.counts, job.subtasks())?;
    Ok((
        Timed {
            took,
            counts: job.counts,
        },
        job,
    ))
}

/// Submits `count` no-op jobs of one subtask each in batches, and waits for the end of all.
pub(super) async fn time_jobs(
    control: &Control,
    store: &Store,
    dataset: &Name,
    count: u32,
) -> anyhow::Result<Timed> {
    let begin = Instant::now();
    let mut ids = Vec::with_capacity(count as usize);
    while ids.len() < count as usize {
        let batch = JOBS.min(count as usize - ids.len());
        ids.extend(control.submit_many(vec![noop(dataset); batch]).await?);
    }
    let ended = ends::of_all(store, &ids).await?;
    let took = begin.elapsed();
    let mut counts = Counts::default();
    for job in ended {
        check(job.id, job.state, &job.counts, 1)?;
        counts.add(&job.counts);
    }
    Ok(Timed { took, counts })
}

/// A measurement counts only when all ran and succeeded, and none was answered by reuse.
fn check(id: JobId, state: JobState, counts: &Counts, subtasks: u64) -> anyhow::Result<()> {
    if state != JobState::Successful {
        bail!("job {id} of the bench ended as {state}: {counts:?}");
    }
    ensure!(
        counts.ok == subtasks,
        "job {id} of the bench has {} results of {subtasks}",
        counts.ok
    );
    ensure!(
        counts.already + counts.executed == 0,
        "job {id} of the bench was answered by reuse: {counts:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_their_size_and_differ() {
        assert_eq!(block(7, 200).stored_bytes(), 200);
        assert_eq!(block(7, 0).stored_bytes(), 0);
        assert_ne!(block(7, 20), block(8, 20));
    }
}
