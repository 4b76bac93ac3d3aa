//! The answer so far: the merge over the partial results that are recorded, made while the job runs.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use model::{Job, JobId, Processor, processor::Query};
use tokio::{runtime::Handle, time::sleep};

use super::refreshed::runtime_of;
use crate::{Control, Error};

/// Shortest time between two answers.
const PAUSE: Duration = Duration::from_millis(250);
/// An answer is made for at most this part of the time: the query itself needs the processor too.
const PART: u32 = 4;
/// Most bytes of partial results that are merged.
const MOST_BYTES: usize = 32 << 20;

/// What is known of a job's partial results.
struct SoFar {
    control: Control,
    job: JobId,
    blocks: u32,
    query: Query,
    runtime: sql::Runtime,
    partials: BTreeMap<u32, Vec<u8>>,
    bytes: usize,
    /// How long the last answer took; none before the first look.
    took: Option<Duration>,
}

/// The answers of a query so far, each as [`crate::Control::answer`] gives it, whenever more results are recorded; ends when the
/// job is final.
pub(crate) async fn answers(
    control: &Control,
    job: &Job,
) -> Result<BoxStream<'static, Result<Vec<u8>, Error>>, Error> {
    let Processor::Query(query) = &job.spec.processor else {
        return Err(Error::Usage(format!(
            "job {} is no query: only queries have answers",
            job.id
        )));
    };
    let so_far = SoFar {
        control: control.clone(),
        job: job.id,
        blocks: job.blocks,
        query: query.clone(),
        runtime: runtime_of(control, query).await?,
        partials: BTreeMap::new(),
        bytes: 0,
        took: None,
    };
    let answers = stream::try_unfold(so_far, async |mut so_far| {
        let next = so_far.next().await?;
        Ok(next.map(|answer| (answer, so_far)))
    });
    Ok(answers.boxed())
}

impl SoFar {
    /// The next answer, when there is something new to see; none when the job is final and there is nothing. What can't be
    /// read or merged now is left for the next one.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(took) = self.took {
                sleep(PAUSE.max(took * PART)).await;
            }
            let begun = Instant::now();
            let looked = self.look().await;
            self.took = Some(begun.elapsed());
            match looked {
                Ok((Some(answer), _)) => return Ok(Some(answer)),
                Ok((None, true)) => return Ok(None),
                Ok((None, false)) => {}
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "partial results can't be read yet");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The answer, if it is another than before, and whether the job is final.
    async fn look(&mut self) -> Result<(Option<Vec<u8>>, bool), Error> {
        let progress = self.control.store()?.progress(&[self.job]).await?;
        // A job that retention has removed ends it, too.
        let is_final = progress.first().is_none_or(|job| job.state.is_final());
        let answer = match self.gather().await? {
            true => self.merged().await,
            false => None,
        };
        Ok((answer, is_final))
    }

    /// Reads what has been recorded since; whether there was anything.
    async fn gather(&mut self) -> Result<bool, Error> {
        if self.bytes >= MOST_BYTES {
            return Ok(false);
        }
        let recorded = self.control.store()?.result_ids_from(self.job, 0).await?;
        let fresh = recorded
            .into_iter()
            .filter(|index| *index < self.blocks && !self.partials.contains_key(index));
        let mut grew = false;
        for range in ranges(fresh) {
            let mut found = self.control.store()?.outputs(self.job, range).await?;
            while let Some(partial) = found.try_next().await? {
                let index = partial.index;
                let bytes = self.control.partial_bytes(partial).await?;
                self.bytes += bytes.len();
                self.partials.insert(index, bytes);
                grew = true;
                if self.bytes >= MOST_BYTES {
                    return Ok(grew);
                }
            }
        }
        Ok(grew)
    }

    async fn merged(&self) -> Option<Vec<u8>> {
        let mut all = Vec::with_capacity(self.bytes);
        self.partials
            .values()
            .for_each(|partial| all.extend_from_slice(partial));
        let (query, runtime) = (self.query.clone(), self.runtime.clone());
        let handle = Handle::current();
        let merging =
            tokio::task::spawn_blocking(move || handle.block_on(sql::upper(&runtime, &query, &all)));
        merging.await.ok()?.ok()
    }
}

/// Neighbours together: each range is one query.
fn ranges(indexes: impl IntoIterator<Item = u32>) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some(last) if last.end == index => last.end = index + 1,
            _ => ranges.push(index..index + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_read_together() {
        assert_eq!(ranges([0, 1, 2, 5, 7, 8]), [0..3, 5..6, 7..9]);
        assert_eq!(ranges([]), []);
    }
}
