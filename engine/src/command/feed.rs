//! Writing the input of a command into its pipe.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use model::{Failure, FailureKind};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SpliceFFlags, fcntl, splice},
};
use tokio::{io::AsyncWriteExt, net::unix::pipe};

use crate::{Source, source::read_failure};

/// Size asked for the pipe to a command that reads a file, in bytes: fewer switches between reader and writer. The kernel
/// refuses it to users who have many pipes already, which is fine.
const PIPE_BYTES: i32 = 256 * 1024;
/// Most that one system call moves, in bytes.
const SPLICE_BYTES: usize = 1 << 20;
/// How much of a decompressed input is moved at once, in bytes.
const PIECE_BYTES: usize = 128 * 1024;

/// Writes all of `source` and closes the pipe. That the command stops reading early is no error.
///
/// Dropping the future leaves the blocking part to end by itself when the command's end of the pipe closes.
///
/// # Errors
/// A failure of kind `Read` or `Changed`.
pub(super) async fn feed(source: Source, stdin: OwnedFd) -> Result<(), Failure> {
    match source {
        Source::Bytes(bytes) => feed_stream(futures::stream::iter([Ok(bytes)]).boxed(), stdin).await,
        Source::Stream(pieces) => feed_stream(pieces, stdin).await,
        Source::File { file, length, name } => {
            blocking(move || {
                feed_file(file, length, File::from(stdin)).map_err(|error| read_failure(&name, &error))
            })
            .await
        }
        Source::Reader { reader, name } => {
            blocking(move || {
                feed_reader(reader, File::from(stdin)).map_err(|error| read_failure(&name, &error))
            })
            .await
        }
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Result<(), Failure> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| {
        Err(Failure::new(
            FailureKind::Read,
            format!("reading the input: {error}"),
        ))
    })
}

async fn feed_stream(
    mut pieces: BoxStream<'static, Result<Bytes, Failure>>,
    stdin: OwnedFd,
) -> Result<(), Failure> {
    let failure =
        |error: &io::Error| Failure::new(FailureKind::Start, format!("feeding the command: {error}"));
    let mut pipe = pipe::Sender::from_owned_fd(stdin).map_err(|error| failure(&error))?;
    while let Some(piece) = pieces.next().await {
        match pipe.write_all(&piece?).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(failure(&error)),
        }
    }
    Ok(())
}

/// Moves the pages of the file into the pipe without a copy. (`io::copy` no longer does so between a file and a pipe.)
fn feed_file(mut file: File, length: u64, mut pipe: File) -> io::Result<()> {
    let _ = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(SPLICE_BYTES);
        match splice(&file, None, &pipe, None, most, SpliceFFlags::empty()) {
            Ok(0) => break,
            Ok(moved) => left -= moved as u64,
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE) => return Ok(()),
            // A file system that can't.
            Err(Errno::EINVAL | Errno::ENOSYS) => match io::copy(&mut (&mut file).take(left), &mut pipe) {
                Ok(copied) => {
                    left -= copied;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error.into()),
        }
    }
    if left > 0 {
        let text = format!("{} bytes where {length} were expected", length - left);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    Ok(())
}

fn feed_reader(mut reader: Box<dyn Read + Send>, mut pipe: File) -> io::Result<()> {
    let _ = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = match reader.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match pipe.write_all(&piece[..length]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
