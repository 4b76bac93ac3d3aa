//! The runtime of a whole program.

use std::io;

use tokio::runtime::Builder;

/// Runs `work` to its end on a new runtime, which ends with the process; that is to follow at once.
///
/// Shutting it down would drop tasks one by one while others still run: MongoDB's driver panics in a task that wants a
/// connection when the one that gives them is gone. And a blocked read of a file or a name service would keep a program
/// that is done.
///
/// # Errors
/// What the system says when it refuses a thread.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    std::mem::forget(runtime);
    Ok(done)
}
