//! What a task printed, from its start and live, at the speed of the reader.

use std::{io::SeekFrom, sync::Arc};

use api::v1::{TaskOutputReply, task_output_reply::Message};
use futures::{Stream, stream};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::watch,
};
use tonic::{Code, Status};

use crate::record::{Progress, Record};

/// Bytes of one message.
const CHUNK_BYTES: usize = 64 * 1024;

/// One reader.
struct Follower {
    record: Arc<Record>,
    progress: watch::Receiver<Progress>,
    at: [u64; 2],
    files: [Option<File>; 2],
    /// Up to where, for one who does not want to wait.
    until: Option<[u64; 2]>,
    over: bool,
}

/// What a task prints from these bytes on, and its end as the last message. With `until_now` the stream ends, without one
/// of a task that runs, where the task is now. Dropping it costs nothing.
pub(crate) fn follow(
    record: Arc<Record>,
    from: [u64; 2],
    until_now: bool,
) -> impl Stream<Item = Result<TaskOutputReply, Status>> + Send {
    let progress = record.progress.subscribe();
    let until = until_now.then(|| progress.borrow().printed);
    let follower = Follower {
        record,
        progress,
        at: from,
        files: [None, None],
        until,
        over: false,
    };
    stream::try_unfold(follower, |mut follower| async move {
        let message = follower.next().await?;
        Ok(message.map(|message| {
            let reply = TaskOutputReply {
                message: Some(message),
            };
            (reply, follower)
        }))
    })
}

impl Follower {
    async fn next(&mut self) -> Result<Option<Message>, Status> {
        while !self.over {
            let Progress { printed, end } = self.progress.borrow_and_update().clone();
            let until = self.until.unwrap_or(printed);
            for (which, until) in until.into_iter().enumerate() {
                if self.at[which] < until {
                    let chunk = self.read(which, until).await?;
                    return Ok(Some(match which {
                        0 => Message::Stdout(chunk.into()),
                        _ => Message::Stderr(chunk.into()),
                    }));
                }
            }
            if end.is_some() && until == printed {
                self.over = true;
                return Ok(Some(Message::Ended(self.record.message())));
            }
            if self.until.is_some() || self.progress.changed().await.is_err() {
                self.over = true;
            }
        }
        Ok(None)
    }

    async fn read(&mut self, which: usize, until: u64) -> Result<Vec<u8>, Status> {
        let path = &self.record.files[which];
        let failed = |why: std::io::Error| {
            let message = format!("what {} printed can't be read: {why}", self.record.name());
            api::refusal(Code::Internal, "OUTPUT_GONE", message, [])
        };
        let file = match &mut self.files[which] {
            Some(file) => file,
            none => {
                let mut file = File::open(path).await.map_err(failed)?;
                file.seek(SeekFrom::Start(self.at[which])).await.map_err(failed)?;
                none.insert(file)
            }
        };
        let wanted = (until - self.at[which]).min(CHUNK_BYTES as u64);
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        file.take(wanted).read_to_end(&mut chunk).await.map_err(failed)?;
        if chunk.is_empty() {
            return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.at[which] += chunk.len() as u64;
        Ok(chunk)
    }
}
