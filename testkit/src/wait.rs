//! Waiting for a condition with a deadline: a test never sleeps and hopes.
//!
//! Each function looks every few milliseconds, at once for the first time, and panics at the deadline with what it
//! waited for. Deadlines are for a slow, busy machine: generous, since a test that works never waits for one.
//! Dropping the future half-way stops the looking.

use std::fmt::{Debug, Display};
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks.
pub const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `look` answers `Some`, and returns that.
///
/// `what` completes "waited in vain for …".
///
/// # Panics
/// At the deadline.
#[track_caller]
pub fn until<T>(
    what: impl Display,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    until_ok(what, deadline, async move || look().await.ok_or("not yet"))
}

/// Waits until `look` answers true.
///
/// # Panics
/// At the deadline.
#[track_caller]
pub fn until_true(
    what: impl Display,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> bool,
) -> impl Future<Output = ()> {
    until_ok(what, deadline, async move || {
        if look().await { Ok(()) } else { Err("it is false") }
    })
}

/// Waits until `look` answers `Ok`, and returns that; the last `Err` is the note in the panic, so put there what was
/// seen instead.
///
/// # Panics
/// At the deadline, with the last note.
#[track_caller]
pub fn until_ok<T, N: Display>(
    what: impl Display,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, N>,
) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let begin = Instant::now();
        let mut last = "nothing: the first look hangs".to_owned();
        loop {
            match tokio::time::timeout_at(begin + deadline, look()).await {
                Ok(Ok(found)) => return found,
                Ok(Err(note)) => last = note.to_string(),
                Err(_) => last = format!("{last} (the last look hung)"),
            }
            assert!(
                begin.elapsed() < deadline,
                "{place}: waited {deadline:?} in vain for {what}; last seen: {last}"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Waits until `look` answers exactly `expected`; the panic shows what it answered last.
///
/// # Panics
/// At the deadline, with the last answer.
#[track_caller]
pub fn until_equal<T: PartialEq + Debug>(
    what: impl Display,
    deadline: Duration,
    expected: T,
    mut look: impl AsyncFnMut() -> T,
) -> impl Future<Output = ()> {
    until_ok(what, deadline, async move || {
        let seen = look().await;
        if seen == expected {
            Ok(())
        } else {
            Err(format!("{seen:?}, not {expected:?}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_third_look() {
        let mut looks = 0;
        let found = until("three looks", Duration::from_secs(1), async || {
            looks += 1;
            (looks == 3).then_some("found")
        });
        assert_eq!(found.await, "found");
        until_equal("four looks", Duration::from_secs(1), 4, async || {
            looks += 1;
            looks
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "in vain for seven; last seen: 6, not 7")]
    async fn the_panic_tells_what_was_seen() {
        until_equal("seven", Duration::from_secs(60), 7, async || 6).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "the last look hung")]
    async fn a_look_that_hangs_ends_at_the_deadline() {
        until_true("a hanging look", Duration::from_secs(1), async || {
            std::future::pending().await
        })
        .await;
    }
}
