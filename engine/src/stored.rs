//! The blocks and partial results of [`storage`], as this crate asks for them.

use std::{
    io::{self, Read},
    ops::Range,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream, stream::BoxStream};
use model::{Block, Content, Failure, FailureKind, JobId, Output, answer::Rows, processor::Merged};
use storage::{BlockReader, Error, MergeRun, Partial, Store};

use crate::{Answers, Blocks, Partials, Source, source::read_failure};

/// Results read with one query. An inline one is small, so a page is some megabytes at most; and no cursor is held open
/// while a slow command digests what it got, which MongoDB would close after ten minutes.
const PAGE_RESULTS: u32 = 1000;
/// How much of a stored output is read at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;
/// How long an outage of MongoDB is waited for before it costs the merge an attempt.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

impl Blocks for Store {
    async fn open(&self, block: &Block) -> Result<Source, Failure> {
        let name = match &block.content {
            Content::Inline(_) => "an inline block".to_owned(),
            Content::Object { url, .. } => url.clone(),
        };
        let reader = self.reader(block).await;
        reader
            .map(|reader| source(reader, name))
            .map_err(|error| match error.is_not_found() {
                true => Failure::new(FailureKind::Missing, error.to_string()),
                false => failure(&error),
            })
    }

    async fn open_stored(&self, stored: &Output) -> Result<Source, Failure> {
        let name = match stored {
            Output::Inline(_) => "an inline output".to_owned(),
            Output::Stored { object, .. } => object.clone(),
        };
        let reader = self.read_output(stored).await;
        reader
            .map(|reader| source(reader, name))
            .map_err(|error| failure(&error))
    }
}

fn source(reader: BlockReader, name: String) -> Source {
    match reader {
        BlockReader::File { file, remaining } => Source::File {
            file,
            length: remaining,
            name,
        },
        BlockReader::Stream(reader) => Source::Reader { reader, name },
        BlockReader::Bytes(bytes) => Source::Bytes(bytes.into_inner().into()),
    }
}

impl Partials for Store {
    fn partials(&self, job: JobId, count: u32) -> BoxStream<'static, Result<Bytes, Failure>> {
        results(self, job, 0..count)
    }

    fn merged(&self, Merged { job, index }: Merged) -> BoxStream<'static, Result<Bytes, Failure>> {
        results(self, job, index..index.saturating_add(1))
    }
}

fn results(store: &Store, job: JobId, range: Range<u32>) -> BoxStream<'static, Result<Bytes, Failure>> {
    let (first, end) = (range.start, range.end);
    let pages = stream::try_unfold((store.clone(), first), move |(store, from)| async move {
        if from >= end {
            return Ok(None);
        }
        let range = from..end.min(from.saturating_add(PAGE_RESULTS));
        let next = range.end;
        let parts = parts(page(&store, job, range).await?);
        Ok::<_, Failure>(Some((stream::iter(parts.into_iter().map(Ok)), (store, next))))
    });
    let store = store.clone();
    pages
        .try_flatten()
        .map_ok(move |part| bytes_of(store.clone(), part))
        .try_flatten()
        .boxed()
}

impl Answers for Store {
    async fn keep(
        &self,
        run: MergeRun,
        into: Option<&str>,
        rows: impl Fn() -> Result<Rows, Failure> + Send + Sync,
    ) -> Result<(), Failure> {
        let begin = Instant::now();
        loop {
            let rows = rows()?;
            let kept = match into {
                Some(name) => self
                    .keep_collection(name, run, rows)
                    .await
                    .map(|rows| rows.is_some()),
                None => self.keep_rows(run, rows).await,
            };
            let job = run.job;
            match kept {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    tracing::info!(%job, "the answer is not kept: the job has ended or another run has kept it");
                    return Ok(());
                }
                Err(error) if error.is_retryable() && begin.elapsed() < PATIENCE => {
                    tracing::warn!(%job, %error, "the answer can't be kept yet");
                    tokio::time::sleep(PAUSE).await;
                }
                // Another run would meet it as well.
                Err(error @ Error::Taken { .. }) => {
                    return Err(Failure::new(FailureKind::Query, error.to_string()));
                }
                Err(error) if error.is_retryable() || into.is_some() => {
                    return Err(Failure::new(FailureKind::Store, error.to_string()));
                }
                Err(error) => {
                    tracing::warn!(%job, %error, "the answer is not kept as rows");
                    return Ok(());
                }
            }
        }
    }
}

/// What belongs together in the stream: results that are at hand, or one that must be fetched.
enum Part {
    Inline(Bytes),
    Stored(Output),
}

/// The recorded ends of all of `range`, however long MongoDB is away, within bounds.
async fn page(store: &Store, job: JobId, range: Range<u32>) -> Result<Vec<Partial>, Failure> {
    let begin = Instant::now();
    let partials = loop {
        let read = async {
            store
                .outputs(job, range.clone())
                .await?
                .try_collect::<Vec<_>>()
                .await
        };
        match read.await {
            Ok(partials) => break partials,
            Err(error) if error.is_retryable() && begin.elapsed() < PATIENCE => {
                tracing::warn!(%job, %error, "partial results can't be read yet");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(failure(&error)),
        }
    };
    // All others have ended when a merge is fed. A gap means that somebody removed results meanwhile; without them the
    // result of the job would be wrong.
    let mut found = partials.iter().map(|partial| partial.index);
    if let Some(missing) = range.into_iter().find(|index| found.next() != Some(*index)) {
        return Err(Failure::new(
            FailureKind::Read,
            format!("partial result {missing} of job {job} is missing"),
        ));
    }
    Ok(partials)
}

/// Joins neighbours that are at hand or lie one behind the other in one object, and leaves out what failed for good.
fn parts(partials: Vec<Partial>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut inline = BytesMut::new();
    for partial in partials {
        match partial.result {
            Ok(Output::Inline(payload)) => inline.extend_from_slice(&payload.0),
            Ok(output) => {
                if !inline.is_empty() {
                    parts.push(Part::Inline(inline.split().freeze()));
                }
                let joined = match parts.last_mut() {
                    Some(Part::Stored(before)) => is_lengthened(before, &output),
                    _ => false,
                };
                if !joined {
                    parts.push(Part::Stored(output));
                }
            }
            Err(_) => {}
        }
    }
    parts.push(Part::Inline(inline.freeze()));
    parts
}

/// Lengthens a piece of an object by the one right behind it; false for any other.
fn is_lengthened(piece: &mut Output, next: &Output) -> bool {
    match (piece, next) {
        (
            Output::Stored {
                object,
                start,
                length,
            },
            Output::Stored {
                object: same,
                start: behind,
                length: more,
            },
        ) if object == same && *start + *length == *behind => {
            *length += more;
            true
        }
        _ => false,
    }
}

fn bytes_of(store: Store, part: Part) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    match part {
        Part::Inline(bytes) => stream::iter([Ok(bytes)]).left_stream(),
        Part::Stored(output) => stream::once(async move {
            let reader = store
                .read_output(&output)
                .await
                .map_err(|error| failure(&error))?;
            let name = match output {
                Output::Stored { object, .. } => object,
                Output::Inline(_) => String::new(),
            };
            Ok(pieces(reader, name))
        })
        .try_flatten()
        .right_stream(),
    }
}

/// Reads on threads that may block.
fn pieces(
    reader: impl Read + Send + 'static,
    name: String,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    stream::try_unfold((reader, name), |(mut reader, name)| async move {
        let joined = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::new();
            let read = (&mut reader).take(PIECE_BYTES as u64).read_to_end(&mut piece);
            (read, piece, reader)
        });
        let (read, piece, reader) = joined
            .await
            .map_err(|error| read_failure(&name, &io::Error::other(error)))?;
        read.map_err(|error| read_failure(&name, &error))?;
        Ok((!piece.is_empty()).then(|| (piece.into(), (reader, name))))
    })
}

fn failure(error: &Error) -> Failure {
    let kind = match error {
        Error::Changed { .. } | Error::Corrupt { .. } | Error::Broken { .. } => FailureKind::Changed,
        error if error.is_away() => FailureKind::Away,
        _ => FailureKind::Read,
    };
    Failure::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial(index: u32, result: Result<Output, Failure>) -> Partial {
        Partial {
            index,
            attempt: 1,
            result,
        }
    }

    #[test]
    fn neighbours_are_joined_and_failures_left_out() {
        let inline = |text: &str| Ok(Output::Inline(text.into()));
        let piece = |object: &str, start, length| Output::Stored {
            object: object.into(),
            start,
            length,
        };
        let found = parts(vec![
            partial(0, inline("a")),
            partial(1, Err(Failure::new(FailureKind::Exit, "dead"))),
            partial(2, inline("b")),
            partial(3, Ok(piece("o", 2, 3))),
            partial(4, Ok(piece("o", 5, 4))),
            partial(5, Ok(piece("o", 10, 1))),
            partial(6, Ok(piece("p", 11, 1))),
            partial(7, inline("c")),
        ]);
        let shown: Vec<_> = found
            .iter()
            .map(|part| match part {
                Part::Inline(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Part::Stored(output) => format!("{output:?}"),
            })
            .collect();
        let stored = |object, start, length| format!("{:?}", piece(object, start, length));
        assert_eq!(
            shown,
            [
                "ab".to_owned(),
                stored("o", 2, 7),
                stored("o", 10, 1),
                stored("p", 11, 1),
                "c".to_owned()
            ]
        );
    }

    #[tokio::test]
    async fn a_reader_is_read_in_pieces() {
        let bytes: Vec<u8> = (0..PIECE_BYTES * 2 + 7).map(|i| i as u8).collect();
        let found: Vec<Bytes> = pieces(io::Cursor::new(bytes.clone()), "x".into())
            .try_collect()
            .await
            .unwrap();
        assert_eq!(
            found.iter().map(Bytes::len).collect::<Vec<_>>(),
            [PIECE_BYTES, PIECE_BYTES, 7]
        );
        assert!(found.concat() == bytes);
    }
}
