//! A role's life as a sequence of terms: connect, work under one session, and when that is lost begin anew.
//!
//! Called by the roles. Promise: nothing of a body outlives its term, since the body is dropped with it.

use std::{
    fmt::Display,
    future::Future,
    time::{Duration, Instant},
};

use rand::RngExt;
use tokio_util::sync::CancellationToken;

use crate::{Config, Ending, Error, Term, Waiting, connect::end_session, waiting::Rarely};

/// What the loop must know of a role's error.
pub trait TermError: Display + From<Error> {
    /// Whether waiting can't mend it: the role ends with it instead of beginning a new term.
    fn is_fatal(&self) -> bool;
}

impl Error {
    /// Whether no waiting mends it: a wrong address, file or right.
    pub fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::BadAddress { .. }
                | Self::BadTls { .. }
                | Self::NoAuth { .. }
                | Self::TermOver(Ending::AuthFailed)
        )
    }
}

/// Pause before the first new term; doubles up to [`LONGEST_PAUSE`] while terms end early.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// What ends terms early is looked at again at the latest after this.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A term that lasted this long did not end early.
const LASTING: Duration = Duration::from_secs(2);

/// Runs `body` in term after term until `stop` is cancelled. Waits for ZooKeeper when it is away, at the start too.
///
/// The body gets the term and `stop`; it must return in an orderly way once that is cancelled. It is dropped, with all
/// that it holds, when its term ends by the term's own clock. A body that returns `Ok` without a stop begins anew.
///
/// # Errors
/// The first fatal error.
pub async fn serve<E, B, F>(
    config: &Config,
    stop: &CancellationToken,
    role: &str,
    mut body: B,
) -> Result<(), E>
where
    E: TermError,
    B: FnMut(Term) -> F,
    F: Future<Output = Result<(), E>>,
{
    let (mut users, mut given_up) = (None, None);
    let mut log = Rarely::default();
    let mut pause = SHORTEST_PAUSE;
    while !stop.is_cancelled() {
        let begun = Waiting::until(
            "ZooKeeper",
            |failure: &Error| !failure.is_fatal(),
            || Term::begin_as(config, &[], users.as_ref()),
        );
        let term = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            begun = begun => begun.map_err(E::from)?,
        };
        if let Some(session) = given_up.take() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = end_session(config, session) => {}
            }
        }
        let begun_at = Instant::now();
        let over = term.ended();
        users = term.users().cloned();
        let ended = tokio::select! {
            ended = body(term.clone()) => ended,
            () = over.cancelled() => {
                tracing::warn!(role, why = ?term.why(), "term over: the ZooKeeper session is lost");
                Ok(())
            }
        };
        given_up = term.given_up();
        term.close().await;
        if let Err(failure) = ended {
            if failure.is_fatal() {
                return Err(failure);
            }
            if !stop.is_cancelled() && log.is_due(failure.to_string(), Instant::now()) {
                tracing::warn!(role, "term over, beginning anew: {failure}");
            }
        }
        if begun_at.elapsed() >= LASTING {
            pause = SHORTEST_PAUSE;
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}
