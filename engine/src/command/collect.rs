//! Reading what a command prints.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::fd::OwnedFd,
    path::Path,
    sync::{Mutex, PoisonError},
};

use model::{Codec, Failure, FailureKind, Spot, limits::STDERR_TAIL_BYTES};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
};

use super::Task;
use crate::product::{MEMORY_BYTES, Product};

/// Room made for each read, in bytes: what a pipe holds.
const PIECE_BYTES: usize = 64 * 1024;
/// A NUL byte among so many first bytes makes an output binary.
const LOOKED_AT_BYTES: usize = 8 * 1024;

/// All of standard output, in memory while it is small. Text of a partial result that does not end with a line feed gets one:
/// what follows in the job would go on in its last line.
///
/// # Errors
/// A failure of kind `OutputLimit`, or `Store` for the folder `spool`.
pub(super) async fn output(stdout: OwnedFd, task: &Task<'_>, spool: &Path) -> Result<Product, Failure> {
    let broken = |error: io::Error| {
        Failure::new(
            FailureKind::Start,
            format!("reading the output of the {} command: {error}", task.role),
        )
    };
    let store = |error: io::Error| {
        let text = format!(
            "keeping the output of the {} command in {}: {error}",
            task.role,
            spool.display()
        );
        Failure::new(FailureKind::Store, text)
    };
    let limit = task.output_limit_bytes;
    let mut pipe = pipe::Receiver::from_owned_fd(stdout).map_err(broken)?;
    let mut bytes = Vec::new();
    let mut length = 0_u64;
    let mut file: Option<tokio::fs::File> = None;
    let mut is_text = None;
    let mut last = None;
    loop {
        if bytes.len() >= MEMORY_BYTES {
            is_text.get_or_insert_with(|| looks_like_text(&bytes));
            let file = match &mut file {
                Some(file) => file,
                None => file.insert(tokio::fs::File::from_std(unnamed(spool).await.map_err(store)?)),
            };
            file.write_all(&bytes).await.map_err(store)?;
            bytes.clear();
        }
        bytes.reserve(PIECE_BYTES.min(MEMORY_BYTES - bytes.len()));
        let room = (MEMORY_BYTES - bytes.len()) as u64;
        let read = (&mut pipe)
            .take(room)
            .read_buf(&mut bytes)
            .await
            .map_err(broken)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        last = bytes.last().copied();
        if length > limit {
            let text = format!(
                "{} command printed more than its limit of {limit} bytes",
                task.role
            );
            return Err(Failure::new(FailureKind::OutputLimit, text));
        }
    }
    let is_partial = matches!(task.spot, Spot::Block(_));
    let is_open = last.is_some_and(|last| last != b'\n');
    if is_partial && is_open && is_text.unwrap_or_else(|| looks_like_text(&bytes)) {
        bytes.push(b'\n');
        length += 1;
    }
    let Some(mut file) = file else {
        return Ok(Product::Memory(bytes));
    };
    file.write_all(&bytes).await.map_err(store)?;
    file.flush().await.map_err(store)?;
    let mut file = file.into_std().await;
    file.seek(SeekFrom::Start(0)).map_err(store)?;
    Ok(Product::File { file, length })
}

/// By its beginning.
fn looks_like_text(begin: &[u8]) -> bool {
    let looked_at = &begin[..begin.len().min(LOOKED_AT_BYTES)];
    !looked_at.contains(&0) && Codec::detect(looked_at) == Codec::None
}

async fn unnamed(folder: &Path) -> io::Result<File> {
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || tempfile::tempfile_in(folder))
        .await
        .map_err(io::Error::other)?
}

/// Reads standard error to its end and keeps the last of it in `kept`: more than a failure shows, so that it can tell
/// that something was cut.
pub(super) async fn tail(stderr: OwnedFd, kept: &Mutex<Vec<u8>>) {
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(stderr) else {
        return;
    };
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = pipe.read(&mut piece).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&piece[..read]);
        if kept.len() > 8 * STDERR_TAIL_BYTES {
            let surplus = kept.len() - 4 * STDERR_TAIL_BYTES;
            kept.drain(..surplus);
        }
    }
}
