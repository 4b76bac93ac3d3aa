//! A role's life as a sequence of terms: connect, work under one session, and when that is lost begin anew.
//!
//! Called by the roles. Promise: nothing of a body outlives its term, since the body is dropped with it.

use std::{fmt::Display, future::Future, time::Duration};

use rand::RngExt;
use tokio_util::sync::CancellationToken;

use crate::{Config, Ending, Error, Term};

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
/// A store that is back is noticed at the latest after this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Runs `body` in term after term until `stop` is cancelled.
///
/// The body gets the term and `stop`; it must return in an orderly way once that is cancelled. It is dropped, with all
/// that it holds, when its term ends by the term's own clock. A body that returns `Ok` without a stop begins anew.
///
/// # Errors
/// The first fatal error, and any error of the very first connection: who has just been started should say at once
/// that nobody answers.
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
    let mut pause = SHORTEST_PAUSE;
    let mut first = true;
    let mut users = None;
    while !stop.is_cancelled() {
        let begun = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            begun = Term::begin_as(config, &[], users.as_ref()) => begun.map_err(E::from),
        };
        let ended = match begun {
            Ok(term) => {
                pause = SHORTEST_PAUSE;
                let over = term.ended();
                users = term.users().cloned();
                let ended = tokio::select! {
                    ended = body(term.clone()) => ended,
                    () = over.cancelled() => {
                        tracing::warn!(role, why = ?term.why(), "term over: the ZooKeeper session is lost");
                        Ok(())
                    }
                };
                term.close().await;
                ended
            }
            Err(failure) if first => return Err(failure),
            Err(failure) => Err(failure),
        };
        first = false;
        if let Err(failure) = ended {
            if failure.is_fatal() {
                return Err(failure);
            }
            if !stop.is_cancelled() {
                tracing::warn!(role, "term over, beginning anew: {failure}");
            }
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
