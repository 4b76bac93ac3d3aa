//! What time it is by MongoDB's clock, by which everything is removed that is kept for a while.
//!
//! A machine whose clock is wrong must not delete what others still need. So ages are taken between times that MongoDB
//! told: when a job ended, when a block was registered, and now. And who removes something compares its own clock with
//! MongoDB's: where the two are far apart, one of them is wrong, nobody knows which, and nothing is removed.

use std::{
    future::IntoFuture as _,
    time::{Duration, Instant},
};

use bson::{Bson, doc};

use crate::{
    Error, Store,
    fence::DISPATCHER,
    leadership::Epoch,
    schema::{LEADER, now_ms, number, signed},
};

/// How far apart the clocks of MongoDB and of a machine may be for that machine to remove anything: half of the minute for
/// which what has left a dataset is let alone, the shortest time that anything is kept for. NTP keeps clocks within a tenth
/// of a second.
pub const MOST_APART: Duration = Duration::from_secs(30);

/// For how long MongoDB's time is reckoned from the last time it told it: no clock drifts by more than a few milliseconds.
const RECKONED: Duration = Duration::from_secs(60);

/// The time by MongoDB's clock, beside this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// MongoDB's time, in milliseconds since 1970 UTC.
    pub now_ms: i64,
    /// How far this machine's clock is ahead of it, in milliseconds; negative where it is behind.
    pub ahead_ms: i64,
}

impl Clock {
    /// Whether the two are so far apart that nothing may be removed: see [`MOST_APART`].
    pub fn is_apart(&self) -> bool {
        are_apart(self.ahead_ms, 0)
    }

    /// The time by which to remove what is old.
    ///
    /// # Errors
    /// [`Error::ClocksApart`].
    pub fn agreed(&self) -> Result<i64, Error> {
        match self.is_apart() {
            true => Err(Error::ClocksApart {
                ahead_ms: self.ahead_ms,
            }),
            false => Ok(self.now_ms),
        }
    }
}

/// When MongoDB told its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    at: Instant,
    now_ms: i64,
}

pub(crate) fn are_apart(one_ms: i64, other_ms: i64) -> bool {
    u128::from(one_ms.abs_diff(other_ms)) > MOST_APART.as_millis()
}

impl Store {
    /// Asks MongoDB what time it is.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Decode`] from a server that does not tell.
    pub async fn clock(&self) -> Result<Clock, Error> {
        let begun = Instant::now();
        let before = self.machine_ms();
        let (hello, _) = self.hello().await?;
        let took = begun.elapsed();
        let there = hello.get_datetime("localTime").map_err(|why| Error::Decode {
            what: "the reply to hello".into(),
            why: why.to_string(),
        })?;
        // Told half a round trip ago, and half of one after `before`.
        let half = i64::try_from(took.as_millis() / 2).unwrap_or(i64::MAX);
        let there = there.timestamp_millis();
        let now_ms = there.saturating_add(half);
        self.reckon_from(Told {
            at: Instant::now(),
            now_ms,
        });
        Ok(Clock {
            now_ms,
            ahead_ms: before.saturating_add(half).saturating_sub(there),
        })
    }

    /// What time it is by MongoDB's clock, in milliseconds since 1970 UTC. Asks MongoDB at most once a minute, and in
    /// between goes by how long that is ago, which does not depend on what this machine thinks the time is.
    ///
    /// # Errors
    /// As [`Store::clock`].
    pub async fn now_ms(&self) -> Result<i64, Error> {
        match self.told().filter(|told| told.at.elapsed() < RECKONED) {
            Some(told) => {
                let since = i64::try_from(told.at.elapsed().as_millis()).unwrap_or(i64::MAX);
                Ok(told.now_ms.saturating_add(since))
            }
            None => Ok(self.clock().await?.now_ms),
        }
    }

    /// What this machine's clock says, in milliseconds since 1970 UTC.
    pub(crate) fn machine_ms(&self) -> i64 {
        now_ms().saturating_add(self.ahead_ms())
    }

    /// A time that this machine's clock told a moment ago; by MongoDB's where that is another.
    pub(crate) async fn set_right(&self, at_ms: i64) -> Result<i64, Error> {
        let ahead = self.machine_ms().saturating_sub(self.now_ms().await?);
        Ok(match are_apart(ahead, 0) {
            true => at_ms.saturating_sub(ahead),
            false => at_ms,
        })
    }

    /// Keeps, for people, how far the leader's clock is ahead of MongoDB's where that keeps it from removing anything; none
    /// where it does not. Nothing when a later leader has taken office.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn note_leader_clock(&self, epoch: Epoch, ahead_ms: Option<i64>) -> Result<(), Error> {
        let mine = doc! { "_id": DISPATCHER, "epoch": signed(epoch.0) };
        let change = match ahead_ms {
            Some(ahead) => doc! { "$set": { "clock_ahead_ms": ahead } },
            None => doc! { "$unset": { "clock_ahead_ms": Bson::Int32(1) } },
        };
        let leader = self.documents(LEADER);
        let noting = leader.update_one(mine, change);
        let noted = self.patiently(noting.into_future()).await;
        noted
            .map(drop)
            .map_err(self.failed("noting what the leader's clock says"))
    }

    /// How far the leader's clock is ahead of MongoDB's, in milliseconds, where that keeps it from removing anything.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn leader_clock(&self) -> Result<Option<i64>, Error> {
        let leader = self.documents(LEADER).find_one(doc! { "_id": DISPATCHER }).await;
        let leader = leader.map_err(self.failed("reading what the leader's clock says"))?;
        Ok(leader.and_then(|leader| number(leader.get("clock_ahead_ms"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_half_a_minute_apart_are_too_far_apart() {
        for (ahead_ms, expected) in [
            (0, false),
            (30_000, false),
            (-30_000, false),
            (30_001, true),
            (-30_001, true),
            (i64::MIN, true),
            (i64::MAX, true),
        ] {
            let clock = Clock { now_ms: 1, ahead_ms };
            assert_eq!(clock.is_apart(), expected, "{ahead_ms}");
        }
    }
}
