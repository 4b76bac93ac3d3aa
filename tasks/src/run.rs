//! Running one task: its streams to files, its limits, its end.

use std::{io, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use api::v1::TaskState;
use engine::{
    Program,
    program::{Exit, ProgramEnd},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    time::timeout,
};

use crate::record::{End, Record, now_ms};

/// Bytes read of a pipe at once.
const READ_BYTES: usize = 64 * 1024;
/// How long what is left in the pipes of an ended task is waited for.
const DRAIN: Duration = Duration::from_secs(2);

/// This side of the streams of a task.
pub(crate) struct Streams {
    stdin: pipe::Sender,
    printed: [pipe::Receiver; 2],
}

/// Three pipes: the command's ends in order, and ours.
pub(crate) fn streams() -> io::Result<([OwnedFd; 3], Streams)> {
    let (stdin, to_stdin) = io::pipe()?;
    let (from_stdout, stdout) = io::pipe()?;
    let (from_stderr, stderr) = io::pipe()?;
    let ours = Streams {
        stdin: pipe::Sender::from_owned_fd(to_stdin.into())?,
        printed: [
            pipe::Receiver::from_owned_fd(from_stdout.into())?,
            pipe::Receiver::from_owned_fd(from_stderr.into())?,
        ],
    };
    Ok(([stdin.into(), stdout.into(), stderr.into()], ours))
}

/// What a task may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) time: Option<Duration>,
    pub(crate) output_bytes: u64,
}

/// Why the output of a task is no longer kept.
enum Full {
    Limit(u64),
    Disk(io::Error),
}

/// Follows a program to its end, which it tells in the record.
pub(crate) async fn run(
    record: Arc<Record>,
    program: Program,
    streams: Streams,
    input: Vec<u8>,
    bounds: Bounds,
) {
    let Streams { stdin, printed } = streams;
    let [stdout, stderr] = printed;
    let feeding = feed(stdin, &input);
    let keeping = async {
        tokio::try_join!(
            keep(&record, 0, stdout, bounds.output_bytes),
            keep(&record, 1, stderr, bounds.output_bytes)
        )
    };
    let limit = async {
        match bounds.time {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    let mut keeping = std::pin::pin!(keeping);
    let mut kept = false;
    let work = async {
        tokio::pin!(feeding);
        let mut fed = false;
        loop {
            tokio::select! {
                ended = program.ended() => return Ok(ended),
                () = &mut feeding, if !fed => fed = true,
                done = &mut keeping, if !kept => {
                    kept = true;
                    done?;
                }
            }
        }
    };
    let end = tokio::select! {
        ended = work => match ended {
            Ok(ended) => by_itself(ended),
            Err(full) => Err(of_full(full)),
        },
        () = record.stop.cancelled() => Err(End::new(TaskState::Stopped, "somebody asked for its end")),
        () = limit => Err(End::new(TaskState::TimedOut, format!("it ran longer than its limit of {} s", bounds.time.unwrap_or_default().as_secs_f64()))),
    };
    let end = match end {
        Ok((end, true)) => {
            program.release();
            end
        }
        Ok((end, false)) | Err(end) => {
            program.kill().await;
            end
        }
    };
    // What it printed before its end is still in the pipes.
    let drained = match kept {
        true => Ok(Ok(((), ()))),
        false => timeout(DRAIN, keeping).await,
    };
    let end = match drained {
        Ok(Err(full)) if end.state == TaskState::Exited => of_full(full),
        _ => end,
    };
    tracing::info!(
        task = record.name(),
        state = end.state.as_str_name(),
        "task ended"
    );
    record.progress.send_modify(|progress| progress.end = Some(end));
}

/// The end of a program that nobody stopped, and whether nothing of it is left.
fn by_itself(ended: io::Result<ProgramEnd>) -> Result<(End, bool), End> {
    let ProgramEnd { exit, clear } =
        ended.map_err(|why| End::new(TaskState::Lost, format!("it was lost with its guard: {why}")))?;
    let end = match exit {
        Exit::Code(code) => End {
            exit_code: Some(code),
            ..End::new(TaskState::Exited, "")
        },
        Exit::Signal(signal) => End {
            signal: Some(signal),
            ..End::new(TaskState::Signalled, format!("it was ended by signal {signal}"))
        },
    };
    Ok((end, clear))
}

fn of_full(full: Full) -> End {
    let why = match full {
        Full::Limit(most) => format!("it printed more than its limit of {most} bytes"),
        Full::Disk(why) => format!("what it prints can't be kept: {why}"),
    };
    End {
        ended_ms: now_ms(),
        ..End::new(TaskState::OutputLimit, why)
    }
}

/// Gives a task its standard input. One that stops reading is fine.
async fn feed(mut stdin: pipe::Sender, input: &[u8]) {
    if let Err(why) = stdin.write_all(input).await
        && why.kind() != io::ErrorKind::BrokenPipe
    {
        tracing::debug!("the input of a task: {why}");
    }
}

/// Copies one stream into its file until it closes, and tells how far it is.
async fn keep(record: &Record, which: usize, mut from: pipe::Receiver, most: u64) -> Result<(), Full> {
    let mut file = open(&record.files[which]).await.map_err(Full::Disk)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = from.read(&mut buffer).await.map_err(Full::Disk)?;
        if read == 0 {
            return Ok(());
        }
        let total: u64 = record.progress.borrow().printed.iter().sum();
        let room = usize::try_from(most.saturating_sub(total)).unwrap_or(usize::MAX);
        let taken = read.min(room);
        file.write_all(&buffer[..taken]).await.map_err(Full::Disk)?;
        // A reader opens the file by itself: it must find there what it is told of.
        file.flush().await.map_err(Full::Disk)?;
        record
            .progress
            .send_modify(|progress| progress.printed[which] += taken as u64);
        if taken < read {
            return Err(Full::Limit(most));
        }
    }
}

async fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).append(true).mode(0o600);
    options.open(path).await
}
