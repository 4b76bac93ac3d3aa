//! How much a gateway plans and merges at once: what takes a processor, or has an answer in memory, waits for a place.
//!
//! Promise: who reads an answer slowly holds up others who want one, and never who has a question planned.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tonic::{Code, Status};

/// Questions that are planned at once: the dispatcher beside must go on feeding.
const PLANNED: usize = 16;
/// Answers that are in memory at once, until their clients have taken them.
const ANSWERS: usize = 16;
/// Jobs whose answers so far are made at once, each of at most 32 MiB of results.
const FOLLOWED: usize = 4;
/// How long somebody waits for a place for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The places; clones share them.
#[derive(Clone)]
pub(crate) struct Room {
    planning: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    followed: Arc<Semaphore>,
}

/// A place that is taken until this is dropped.
pub(crate) struct Taken {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            planning: Arc::new(Semaphore::new(PLANNED)),
            answers: Arc::new(Semaphore::new(ANSWERS)),
            followed: Arc::new(Semaphore::new(FOLLOWED)),
        }
    }
}

impl Room {
    /// Waits for a place to plan or to merge. Dropping the future gives the turn up.
    pub(crate) async fn plan(&self) -> Taken {
        // The semaphore is never closed.
        Taken {
            _permit: self.planning.clone().acquire_owned().await.ok(),
        }
    }

    /// Waits for a place for an answer that is in memory until it is read; to be taken before one to make it.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where others leave theirs unread.
    pub(crate) async fn answer(&self) -> Result<Taken, Status> {
        match timeout(PATIENCE, self.answers.clone().acquire_owned()).await {
            Ok(permit) => Ok(Taken { _permit: permit.ok() }),
            Err(_) => Err(no_room(format!(
                "{ANSWERS} answers wait for those who asked for them"
            ))),
        }
    }

    /// A place to follow the answer of a job.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where there is none.
    pub(crate) fn follow(&self) -> Result<Taken, Status> {
        match self.followed.clone().try_acquire_owned() {
            Ok(permit) => Ok(Taken {
                _permit: Some(permit),
            }),
            Err(_) => Err(no_room(format!(
                "the answers of {FOLLOWED} jobs are followed already"
            ))),
        }
    }
}

fn no_room(why: String) -> Status {
    let message = format!("no room: {why}; ask again later, or another dispatcher");
    api::refusal(Code::ResourceExhausted, "NO_ROOM", message, [])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_holds_nobody_up_who_plans() {
        let room = Room::default();
        let mut unread = Vec::new();
        for _ in 0..ANSWERS {
            unread.push(room.answer().await.unwrap());
        }
        let planned = timeout(Duration::from_secs(1), room.plan()).await;
        assert!(planned.is_ok());
        let refused = room.answer().await.err().unwrap();
        assert_eq!(api::reason(&refused).as_deref(), Some("NO_ROOM"));
        unread.pop();
        assert!(room.answer().await.is_ok());
        let followed: Vec<_> = (0..FOLLOWED).map(|_| room.follow().unwrap()).collect();
        assert!(room.follow().is_err());
        drop(followed);
        assert!(room.follow().is_ok());
    }
}
