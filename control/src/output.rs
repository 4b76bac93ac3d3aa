//! The results of jobs.

use std::{future::ready, io::Read as _};

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use model::{Job, JobState, Output};
use storage::{BlockReader, Partial, Store};

use crate::{Control, Error};

/// Bytes of a stored output that are in memory at once.
const CHUNK_BYTES: u64 = 256 * 1024;
/// How many results are looked through for failures: the others are told by their number alone.
const SCANNED_RESULTS: u32 = 100_000;

impl Control {
    /// The result of a successful job in chunks: what the merge gave, else all partial results in the order of blocks.
    ///
    /// # Errors
    /// [`Error::NoResult`] for a job that has not succeeded; in the stream [`Error::ResultsGone`] when retention has
    /// removed a part, and [`Error::Storage`].
    pub async fn output(&self, job: &Job) -> Result<BoxStream<'static, Result<Vec<u8>, Error>>, Error> {
        if job.state != JobState::Successful {
            return Err(Error::NoResult {
                job: job.id,
                state: job.state,
                error: job.error.clone(),
            });
        }
        if let Some(remote) = self.remote() {
            return remote.output(job.id, false).await;
        }
        let range = if job.has_merge() {
            job.blocks..job.blocks + 1
        } else {
            0..job.blocks
        };
        let partials = self
            .store()?
            .outputs(job.id, range.clone())
            .await?
            .map_err(Error::from);
        let gone = {
            let (id, expected, first) = (job.id, range.len() as u64, range.start);
            move |index: u32| Error::ResultsGone {
                job: id,
                found: u64::from(index - first),
                expected,
            }
        };
        let (next, end) = (range.start, range.end);
        let in_order = stream::try_unfold((partials, next), move |(mut partials, next)| async move {
            match partials.try_next().await? {
                Some(partial) if partial.index == next => Ok(Some((partial, (partials, next + 1)))),
                None if next == end => Ok(None),
                _ => Err(gone(next)),
            }
        });
        let store = self.store()?.clone();
        let chunks = in_order
            .and_then(move |partial: Partial| chunks(store.clone(), partial))
            .try_flatten();
        Ok(chunks.boxed())
    }

    /// The bytes of one partial result; none of one that failed for good.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Unreadable`].
    pub async fn partial_bytes(&self, partial: Partial) -> Result<Vec<u8>, Error> {
        chunks(self.store()?.clone(), partial).await?.try_concat().await
    }

    /// The first subtasks of a job that failed for good, at most `limit`, looked for among its first results.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn dead(&self, job: &Job, limit: u32) -> Result<Vec<Partial>, Error> {
        let wanted = usize::try_from(job.counts.failed.min(limit.into())).unwrap_or(usize::MAX);
        let mut dead = Vec::new();
        if wanted == 0 {
            return Ok(dead);
        }
        let mut results = self.store()?.outputs(job.id, 0..SCANNED_RESULTS).await?;
        while let Some(partial) = results.try_next().await? {
            if partial.result.is_err() {
                dead.push(partial);
                if dead.len() == wanted {
                    break;
                }
            }
        }
        Ok(dead)
    }
}

/// The bytes of one output.
async fn chunks(store: Store, partial: Partial) -> Result<BoxStream<'static, Result<Vec<u8>, Error>>, Error> {
    let output = match partial.result {
        Ok(Output::Inline(payload)) => return Ok(stream::once(ready(Ok(payload.0))).boxed()),
        Ok(output) => output,
        // A successful job has no failed subtask.
        Err(_) => return Ok(stream::empty().boxed()),
    };
    let reader = store.read_output(&output).await?;
    Ok(stream::try_unfold(reader, read_chunk).boxed())
}

async fn read_chunk(mut reader: BlockReader) -> Result<Option<(Vec<u8>, BlockReader)>, Error> {
    let read = tokio::task::spawn_blocking(move || {
        let mut chunk = Vec::new();
        reader
            .by_ref()
            .take(CHUNK_BYTES)
            .read_to_end(&mut chunk)
            .map(|_| (chunk, reader))
    });
    let unreadable = |why: String| Error::Unreadable {
        what: "a stored output".to_string(),
        why,
    };
    let (chunk, reader) = read
        .await
        .map_err(|error| unreadable(error.to_string()))?
        .map_err(|error| unreadable(error.to_string()))?;
    Ok(if chunk.is_empty() {
        None
    } else {
        Some((chunk, reader))
    })
}
