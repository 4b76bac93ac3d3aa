//! Where the input of a command comes from.
//!
//! The traits here are all that this crate needs of storage, so that it can be tried without.

use std::{
    fs::File,
    io::{self, Read},
};

use bytes::Bytes;
use futures::{Stream, stream::BoxStream};
use model::{Block, Failure, FailureKind, JobId, Output, answer::Rows, processor::Merged};
use storage::MergeRun;

/// The input of one command.
pub enum Source {
    /// Bytes in memory.
    Bytes(Bytes),
    /// The next `length` bytes of a local file from where it stands; the kernel moves them without a copy.
    File {
        /// The file, positioned at the first byte.
        file: File,
        /// How many bytes belong to the input. A file that ends earlier has changed.
        length: u64,
        /// What to call it in messages.
        name: String,
    },
    /// Anything else that is read by blocking calls, such as a decompressor.
    Reader {
        /// Read to its end on a thread that may block.
        reader: Box<dyn Read + Send>,
        /// What to call it in messages.
        name: String,
    },
    /// Pieces that arrive one after another.
    Stream(BoxStream<'static, Result<Bytes, Failure>>),
}

impl Source {
    /// A stream of pieces.
    pub fn stream(pieces: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static) -> Self {
        Self::Stream(Box::pin(pieces))
    }
}

/// Gives the raw lines of blocks.
pub trait Blocks {
    /// Opens a block. Dropping the future has no effect.
    ///
    /// # Errors
    /// A [`Failure`] of kind `Changed` when the object is no longer what it was, `Missing` when it is not there, `Away` when
    /// the nodes that keep it are, else `Read`.
    fn open(&self, block: &Block) -> impl Future<Output = Result<Source, Failure>> + Send;

    /// Opens what was stored with a job. Dropping the future has no effect.
    ///
    /// # Errors
    /// A [`Failure`] of kind `Read`.
    fn open_stored(&self, stored: &Output) -> impl Future<Output = Result<Source, Failure>> + Send;
}

/// Gives the partial results of a job.
pub trait Partials {
    /// All recorded partial results of subtasks `0..count` one after another in index order; those of subtasks that
    /// ended as failed are left out. Bounded in memory, whatever the size of the results.
    ///
    /// # Errors
    /// A [`Failure`] of kind `Read` as an item, after which the stream ends.
    fn partials(&self, job: JobId, count: u32) -> BoxStream<'static, Result<Bytes, Failure>>;

    /// What the merge with this index gave, of any job. Bounded in memory as well.
    ///
    /// # Errors
    /// As [`Partials::partials`].
    fn merged(&self, merged: Merged) -> BoxStream<'static, Result<Bytes, Failure>>;
}

/// Keeps the rows of answers.
pub trait Answers {
    /// Keeps rows among those of all jobs, or in the collection `into` in the place of what is there; which one was asked
    /// for can't be refused, the other is left out where MongoDB does not take it. Nothing is kept of a run that is not
    /// the latest. `rows` gives the rows again for each try.
    ///
    /// # Errors
    /// A [`Failure`] of kind `Store`.
    fn keep(
        &self,
        run: MergeRun,
        into: Option<&str>,
        rows: impl Fn() -> Result<Rows, Failure> + Send + Sync,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What a read error of an input is in the words of failures.
///
/// An end of file where there should be more bytes means that the object is no longer what it was when it was added.
pub(crate) fn read_failure(name: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Failure::new(
            FailureKind::Changed,
            format!("{name} is cut short or has changed: {error}"),
        ),
        _ => Failure::new(FailureKind::Read, format!("reading {name}: {error}")),
    }
}
