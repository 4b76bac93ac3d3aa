//! Waiting for a server that is away, without filling the log.
//!
//! Promise: the first failure is logged at once, the same one again after 2, 4, 8 … seconds and then once a minute, a
//! different one at most every two seconds; the end of the wait is logged too. Called by the roles.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use rand::RngExt;

/// Pause before the first new try; doubles up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// A server that is back is noticed at the latest after this.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Shortest time between two log lines; doubles up to [`LONGEST_SILENCE`] while the failure stays the same.
const SHORTEST_SILENCE: Duration = Duration::from_secs(2);
/// Who looks at the log of a process that still waits finds the reason this far back.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// Tries again until something that is away is back; pauses and log lines.
#[derive(Debug)]
pub struct Waiting {
    what: &'static str,
    pause: Duration,
    since: Option<Instant>,
    log: Rarely,
}

/// Decides which of many failures are logged.
#[derive(Debug, Default)]
pub(crate) struct Rarely {
    last: Option<Said>,
}

/// The last log line.
#[derive(Debug)]
struct Said {
    why: String,
    at: Instant,
    /// Until the same is said again.
    silence: Duration,
}

impl Rarely {
    /// Whether a failure is to be logged, now that it has happened.
    pub(crate) fn is_due(&mut self, why: String, now: Instant) -> bool {
        let mut silence = SHORTEST_SILENCE;
        if let Some(last) = &self.last {
            let is_same = last.why == why;
            let until = if is_same { last.silence } else { SHORTEST_SILENCE };
            let passed = now.duration_since(last.at);
            if passed < until {
                return false;
            }
            // Long after the last one it is news.
            if is_same && passed < LONGEST_SILENCE * 2 {
                silence = (until * 2).min(LONGEST_SILENCE);
            }
        }
        self.last = Some(Said {
            why,
            at: now,
            silence,
        });
        true
    }
}

impl Waiting {
    /// Has not failed yet. `what` names what is waited for in the log, as in `ZooKeeper`.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            pause: SHORTEST_PAUSE,
            since: None,
            log: Rarely::default(),
        }
    }

    /// Tries until it succeeds or fails with what is not `away`. Dropping the future ends the wait.
    ///
    /// # Errors
    /// The first failure that is not `away`.
    pub async fn until<T, E, F>(
        what: &'static str,
        away: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        E: Display,
        F: Future<Output = Result<T, E>>,
    {
        let mut waiting = Self::new(what);
        loop {
            match attempt().await {
                Ok(found) => {
                    waiting.over();
                    return Ok(found);
                }
                Err(failure) if away(&failure) => tokio::time::sleep(waiting.failed(&failure)).await,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Takes note of a failed try; gives the pause before the next, with jitter.
    pub fn failed(&mut self, why: &impl Display) -> Duration {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if self.log.is_due(why.to_string(), now) {
            let waited_s = now.duration_since(since).as_secs();
            tracing::warn!(waited_s, "waiting for {}: {why}", self.what);
        }
        let pause = self.pause.mul_f64(rand::rng().random_range(0.5..1.0));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        pause
    }

    /// It is back. The next failure begins a new wait.
    pub fn over(&mut self) {
        if let Some(since) = self.since {
            let waited_s = since.elapsed().as_secs_f64();
            tracing::info!(waited_s, "{} answers again", self.what);
        }
        *self = Self::new(self.what);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_same_reason_is_said_ever_more_rarely_and_another_one_soon() {
        let (mut log, begun) = (Rarely::default(), Instant::now());
        let mut said =
            |tenths: u64, why: &str| log.is_due(why.to_string(), begun + Duration::from_millis(100 * tenths));
        let mut at: Vec<u64> = (0..3000).filter(|&tenths| said(tenths, "refused")).collect();
        assert_eq!(at, [0, 20, 60, 140, 300, 620, 1220, 1820, 2420]);
        at = (3000..3100).filter(|&tenths| said(tenths, "no route")).collect();
        assert_eq!(at, [3000, 3020, 3060]);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut waiting = Waiting::new("ZooKeeper");
        let pauses: Vec<Duration> = (0..20).map(|_| waiting.failed(&"refused")).collect();
        assert!(pauses[0] <= SHORTEST_PAUSE && pauses[19] >= LONGEST_PAUSE / 2);
        assert!(pauses.iter().all(|&pause| pause <= LONGEST_PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn tries_until_it_is_back_and_ends_at_once_at_what_no_waiting_mends() {
        let tries = Cell::new(0);
        let found = Waiting::until(
            "it",
            |_: &&str| true,
            || {
                tries.set(tries.get() + 1);
                std::future::ready(if tries.get() == 5 {
                    Ok("found")
                } else {
                    Err("away")
                })
            },
        );
        assert_eq!(found.await, Ok("found"));
        let refused = Waiting::until(
            "it",
            |why| *why == "away",
            || std::future::ready(Err::<(), _>("wrong password")),
        );
        assert_eq!((refused.await, tries.get()), (Err("wrong password"), 5));
    }
}
