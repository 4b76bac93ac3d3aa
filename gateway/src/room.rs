//! How much a gateway plans, merges and lists at once: what takes a processor, or has an answer in memory, takes a place.
//!
//! Promise: who reads an answer slowly holds up others who want one, and never who has a question planned; one identity gets
//! a part of the places of each kind, so that others find some whatever it does; who waits too long for a place is told so.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tonic::{Response, Status};

/// How many there are at once of one kind, and how many of them may be of one identity.
#[derive(Clone, Copy)]
struct Many {
    all: usize,
    each: usize,
}

/// Questions that are planned at once: the dispatcher beside must go on feeding. One identity has half of them, so that a
/// script with many questions leaves as many places to all others.
const PLANNED: Many = Many { all: 16, each: 8 };
/// Answers that are in memory at once, until their clients have taken them; as many as are planned, so that neither waits for
/// the other.
const ANSWERS: Many = Many { all: 16, each: 8 };
/// Jobs whose answers so far are made at once, each of at most 32 MiB of results.
const FOLLOWED: Many = Many { all: 4, each: 2 };
/// Outputs of tasks that are passed on at once. They go on for as long as their tasks, and all those of one worker share one
/// connection, on which it takes 256 streams: most are left to whatever is answered at once.
const OUTPUTS: Many = Many { all: 64, each: 16 };
/// Looks at the whole cluster at once, each with a session in ZooKeeper of its own: its status, its workers, its audit, what
/// holds up a job. ZooKeeper by default takes 60 sessions of one address, and the roles need some. One identity has a quarter:
/// a few people at one account who watch.
const LOOKS: Many = Many { all: 16, each: 4 };
/// Long lists that are in memory at once, until their clients have taken them: each of up to 100,000 documents,
/// some tens of MiB. Two identities that take all they may leave places.
const LISTS: Many = Many { all: 8, each: 3 };
/// How long somebody waits for a place.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long somebody waits to have a question planned: it may be behind hundreds of others, which is no fault of theirs.
const PLAN_PATIENCE: Duration = Duration::from_secs(60);
/// After how long another try makes sense.
const AGAIN: Duration = Duration::from_secs(5);
/// Identities from which on those without a place are forgotten.
const KNOWN_MAX: usize = 1024;

/// The places; clones share them.
#[derive(Clone)]
pub(crate) struct Room {
    planning: Seats,
    answers: Seats,
    followed: Seats,
    outputs: Seats,
    looks: Seats,
    lists: Seats,
}

/// Places of one kind.
#[derive(Clone)]
struct Seats {
    many: Many,
    all: Arc<Semaphore>,
    /// The places of each identity that has some.
    of: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

/// A place that is taken until this is dropped.
pub(crate) struct Taken {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Taken {
    /// Keeps the place until the client has taken the answer.
    pub(crate) fn until_taken<T>(self, mut response: Response<T>) -> Response<T> {
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

impl Seats {
    fn new(many: Many) -> Self {
        Self {
            many,
            all: Arc::new(Semaphore::new(many.all)),
            of: Arc::default(),
        }
    }

    fn own(&self, who: &str) -> Arc<Semaphore> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = of.get(who).and_then(Weak::upgrade) {
            return own;
        }
        if of.len() >= KNOWN_MAX {
            of.retain(|_, own| own.strong_count() > 0);
        }
        let own = Arc::new(Semaphore::new(self.many.each));
        of.insert(who.to_string(), Arc::downgrade(&own));
        own
    }

    /// Waits for a place, first among one's own. Dropping the future gives the turn up.
    async fn take(&self, who: &str, patience: Duration, what: &str) -> Result<Taken, Status> {
        let taking = async {
            // The semaphores are never closed.
            let own = self.own(who).acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Taken { _own: own, _all: all })
        };
        let taken = timeout(patience, taking).await.ok().flatten();
        taken.ok_or_else(|| self.full(what))
    }

    fn try_take(&self, who: &str, what: &str) -> Result<Taken, Status> {
        let taken = || {
            let own = self.own(who).try_acquire_owned().ok()?;
            let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
            Some(Taken { _own: own, _all: all })
        };
        taken().ok_or_else(|| self.full(what))
    }

    fn full(&self, what: &str) -> Status {
        let Many { all, each } = self.many;
        let message = format!(
            "no room: a gateway has {all} {what} at once, {each} of them for one identity; ask again later, or another dispatcher"
        );
        api::busy("NO_ROOM", message, AGAIN)
    }
}

impl Default for Room {
    fn default() -> Self {
        Self {
            planning: Seats::new(PLANNED),
            answers: Seats::new(ANSWERS),
            followed: Seats::new(FOLLOWED),
            outputs: Seats::new(OUTPUTS),
            looks: Seats::new(LOOKS),
            lists: Seats::new(LISTS),
        }
    }
}

impl Room {
    /// Waits for a place to plan or to merge.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, as of all of these.
    pub(crate) async fn plan(&self, who: &str) -> Result<Taken, Status> {
        self.planning.take(who, PLAN_PATIENCE, "questions planned").await
    }

    /// Waits for a place for an answer that is in memory until it is read; to be taken before one to make it.
    pub(crate) async fn answer(&self, who: &str) -> Result<Taken, Status> {
        self.answers.take(who, PATIENCE, "answers in memory").await
    }

    /// A place to follow the answer of a job.
    pub(crate) fn follow(&self, who: &str) -> Result<Taken, Status> {
        self.followed.try_take(who, "answers of unfinished jobs followed")
    }

    /// A place to pass on the output of a task.
    pub(crate) fn output(&self, who: &str) -> Result<Taken, Status> {
        self.outputs.try_take(who, "outputs of tasks followed")
    }

    /// Waits for a place to look at the whole cluster.
    pub(crate) async fn look(&self, who: &str) -> Result<Taken, Status> {
        self.looks.take(who, PATIENCE, "looks at the whole cluster").await
    }

    /// Waits for a place for a long list.
    pub(crate) async fn list(&self, who: &str) -> Result<Taken, Status> {
        self.lists.take(who, PATIENCE, "long lists in memory").await
    }
}

#[cfg(test)]
mod takers;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_holds_nobody_up_who_plans() {
        let room = Room::default();
        let mut unread = Vec::new();
        for who in ["anna", "bert"] {
            for _ in 0..ANSWERS.each {
                unread.push(room.answer(who).await.unwrap());
            }
        }
        let planned = timeout(Duration::from_secs(1), room.plan("carl")).await;
        assert!(planned.unwrap().is_ok());
        let refused = room.answer("carl").await.err().unwrap();
        assert_eq!(api::reason(&refused).as_deref(), Some("NO_ROOM"));
        unread.pop();
        assert!(room.answer("carl").await.is_ok());
        let followed: Vec<_> = ["anna", "bert"]
            .iter()
            .flat_map(|who| [room.follow(who).unwrap(), room.follow(who).unwrap()])
            .collect();
        assert!(room.follow("carl").is_err());
        drop(followed);
        assert!(room.follow("carl").is_ok());
        let outputs: Vec<_> = (0..OUTPUTS.each).map(|_| room.output("anna").unwrap()).collect();
        assert!(room.output("anna").is_err() && room.output("bert").is_ok());
        drop(outputs);
        assert!(room.output("anna").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_takes_all_places() {
        let room = Room::default();
        let mut taken = Vec::new();
        for _ in 0..LISTS.each {
            taken.push(room.list("anna").await.unwrap());
        }
        let refused = room.list("anna").await.err().unwrap();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(
            timeout(Duration::from_secs(1), room.list("bert"))
                .await
                .unwrap()
                .is_ok()
        );
        taken.pop();
        assert!(room.list("anna").await.is_ok());
        // Who waits for one of their own holds none of all.
        let (mut planned, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..PLANNED.all {
            let room = room.clone();
            waiting.push(tokio::spawn(async move { room.plan("anna").await }));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..PLANNED.all - PLANNED.each {
            planned.push(
                timeout(Duration::from_secs(1), room.plan("bert"))
                    .await
                    .unwrap()
                    .unwrap(),
            );
        }
        for waiting in waiting {
            waiting.abort();
        }
    }
}
