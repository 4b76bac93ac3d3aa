//! Streams of answers: made by a task, taken by a client at its own pace.
//!
//! Promise: what at most [`AHEAD`] calls have put in waits for a client; one that leaves a message unread for too long, or goes away, ends the task
//! with all that it holds; when the gateway stops, each stream ends with UNAVAILABLE, so that its client asks another.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status};

/// How often something may be put in that the client has not begun to take.
const AHEAD: usize = 2;

/// What a method of a stream gives.
pub(crate) type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// Starts the tasks behind streams; clones share them.
#[derive(Clone)]
pub(crate) struct Feeds {
    tasks: TaskTracker,
    stop: CancellationToken,
    patience: Duration,
}

/// The end of a stream into which its task puts messages.
pub(crate) struct Feed<T> {
    sender: mpsc::Sender<Result<Vec<T>, Status>>,
    patience: Duration,
}

impl Feeds {
    /// Streams that end at `stop`, and when a client leaves a message unread for longer than `patience`.
    pub(crate) fn new(stop: CancellationToken, patience: Duration) -> Self {
        Self {
            tasks: TaskTracker::new(),
            stop,
            patience,
        }
    }

    /// A stream of what `make` puts into its feed, and of its error at the end.
    pub(crate) fn stream<T, F>(&self, make: impl FnOnce(Feed<T>) -> F) -> Answers<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let making = make(Feed {
            sender: sender.clone(),
            patience: self.patience,
        });
        let (stop, patience) = (self.stop.clone(), self.patience);
        self.tasks.spawn(async move {
            let ended = tokio::select! {
                ended = making => ended,
                () = sender.closed() => return,
                () = stop.cancelled() => Err(stopping()),
            };
            if let Err(status) = ended {
                // Whoever does not take it does not need it.
                timeout(patience, sender.send(Err(status))).await.ok();
            }
        });
        ReceiverStream::new(receiver).flat_map(one_by_one).boxed()
    }

    /// Waits until all tasks have ended. To be called after the stop.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<T> Feed<T> {
    /// Puts a message in; waits while the client has not taken those before.
    ///
    /// # Errors
    /// A client that is gone or takes too long: the task must end with this.
    pub(crate) async fn put(&self, message: T) -> Result<(), Status> {
        self.put_all(vec![message]).await
    }

    /// Puts several messages in at once, which costs the making task one wait instead of many.
    ///
    /// # Errors
    /// As [`Feed::put`].
    pub(crate) async fn put_all(&self, messages: Vec<T>) -> Result<(), Status> {
        match timeout(self.patience, self.sender.send(Ok(messages))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the client is gone")),
            Err(_) => Err(api::refusal(
                Code::ResourceExhausted,
                "SLOW_READER",
                format!("nothing was read for {} s", self.patience.as_secs()),
                [],
            )),
        }
    }
}

fn one_by_one<T: Send + 'static>(messages: Result<Vec<T>, Status>) -> BoxStream<'static, Result<T, Status>> {
    match messages {
        Ok(messages) => stream::iter(messages.into_iter().map(Ok)).boxed(),
        Err(status) => stream::iter([Err(status)]).boxed(),
    }
}

/// What is told when the gateway stops.
pub(crate) fn stopping() -> Status {
    api::refusal(
        Code::Unavailable,
        "STOPPING",
        "this dispatcher stops: ask another",
        [],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_reading_ends_what_is_made_for_it() {
        let feeds = Feeds::new(CancellationToken::new(), Duration::from_secs(60));
        let (made, mut makes) = tokio::sync::watch::channel(0);
        let mut stream = feeds.stream(|feed| async move {
            loop {
                feed.put(()).await?;
                made.send_modify(|made| *made += 1);
            }
        });
        assert!(stream.next().await.is_some());
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(
            *makes.borrow_and_update(),
            AHEAD + 1,
            "no more is made than waits"
        );
        // The task is gone, and what it held.
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert!(makes.has_changed().is_err());
        let rest: Vec<_> = stream.collect().await;
        let last = rest.last().unwrap().as_ref().unwrap_err();
        assert_eq!(api::reason(last).as_deref(), Some("SLOW_READER"));
    }

    #[tokio::test]
    async fn streams_end_when_the_gateway_stops() {
        let stop = CancellationToken::new();
        let feeds = Feeds::new(stop.clone(), Duration::from_secs(60));
        let mut stream = feeds.stream(|_: Feed<()>| std::future::pending());
        stop.cancel();
        let told = stream.next().await.unwrap().unwrap_err();
        assert_eq!(api::reason(&told).as_deref(), Some("STOPPING"));
        feeds.ended().await;
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_what_is_made_for_it() {
        let feeds = Feeds::new(CancellationToken::new(), Duration::from_secs(60));
        drop(feeds.stream(|_: Feed<()>| std::future::pending()));
        feeds.ended().await;
    }
}
