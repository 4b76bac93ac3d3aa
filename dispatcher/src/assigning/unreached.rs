//! Which workers agents could not reach, and for how long they are not sent there again. Pure: the caller has the clock.
//!
//! An agent tells the workers that it avoids when it asks for another. A worker that lives and that an agent avoids without
//! having been moved away from it could not be reached: the first time it is left alone for a minute, then for two, four and
//! so on. While it holds no agents at all, nobody is moved to make use of it.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use model::Name;

/// First and longest time for which an agent is not sent to a worker that it could not reach.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// Failures older than the longest time twice over are forgotten.
const FORGET: Duration = Duration::from_secs(7200);

/// What agents could not reach. Times are since any one beginning.
#[derive(Debug, Default)]
pub(super) struct Unreached {
    pairs: HashMap<(Name, u64), Failure>,
    /// Taken away from these workers by the leader, who are avoided for that.
    moved: HashMap<Name, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    times: u32,
    /// The connection of the agent that told of it.
    incarnation: u64,
    at: Duration,
}

impl Failure {
    fn until(&self) -> Duration {
        let (first, longest) = BACKOFF;
        let doubled = first.saturating_mul(1 << self.times.saturating_sub(1).min(20));
        self.at + doubled.min(longest)
    }
}

impl Unreached {
    /// The leader takes an agent away from a worker.
    pub(super) fn note_move(&mut self, agent: &Name, worker: u64) {
        self.moved.insert(agent.clone(), worker);
    }

    /// An agent asks for a worker other than these, by this connection.
    pub(super) fn note(&mut self, agent: &Name, incarnation: u64, avoid: &[u64], now: Duration) {
        let moved = self.moved.get(agent).copied();
        for &worker in avoid.iter().filter(|worker| Some(**worker) != moved) {
            let key = (agent.clone(), worker);
            let failure = self.pairs.entry(key).or_insert(Failure {
                times: 0,
                incarnation: 0,
                at: now,
            });
            // It avoids the worker for a while, over several connections: that is one failure.
            let is_same = failure.times > 0 && (failure.incarnation == incarnation || now < failure.until());
            if !is_same {
                failure.times += 1;
                failure.at = now;
            }
            failure.incarnation = incarnation;
        }
        self.pairs
            .retain(|_, failure| now.saturating_sub(failure.at) < FORGET);
    }

    /// An agent ships to a worker: it reaches it.
    pub(super) fn note_reached(&mut self, agent: &Name, worker: u64) {
        self.pairs.remove(&(agent.clone(), worker));
        if self.moved.get(agent).is_some_and(|moved| *moved != worker) {
            self.moved.remove(agent);
        }
    }

    /// The workers that an agent is not to be sent to now.
    pub(super) fn avoided(&self, agent: &Name, now: Duration) -> BTreeSet<u64> {
        let pairs = self.pairs.iter().filter(|((of, _), _)| of == agent);
        let current = pairs.filter(|(_, failure)| now < failure.until());
        current.map(|((_, worker), _)| *worker).collect()
    }

    /// The workers that somebody could not reach lately.
    pub(super) fn doubtful(&self, now: Duration) -> BTreeSet<u64> {
        let current = self.pairs.iter().filter(|(_, failure)| now < failure.until());
        current.map(|((_, worker), _)| *worker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_not_reached_is_left_alone_ever_longer() {
        let agent = Name::new("web7").unwrap();
        let mut unreached = Unreached::default();
        let mut now = SECOND;
        for (minutes, incarnation) in [(1, 10), (2, 20), (4, 30), (8, 40)] {
            // Told again and again while it lasts.
            for again in 0..3 {
                unreached.note(&agent, incarnation + again, &[4], now + SECOND * again as u32);
            }
            let end = now + SECOND * 60 * minutes;
            assert_eq!(unreached.avoided(&agent, end - SECOND), BTreeSet::from([4]));
            assert_eq!(unreached.doubtful(end - SECOND), BTreeSet::from([4]));
            assert!(unreached.avoided(&agent, end).is_empty());
            now = end + SECOND;
        }
        assert!(
            unreached
                .avoided(&Name::new("web8").unwrap(), now - SECOND * 9)
                .is_empty()
        );
        unreached.note(&agent, 50, &[4], now);
        unreached.note_reached(&agent, 4);
        assert!(unreached.doubtful(now).is_empty());
    }

    #[test]
    fn who_is_moved_avoids_for_another_reason() {
        let agent = Name::new("web7").unwrap();
        let mut unreached = Unreached::default();
        unreached.note_move(&agent, 4);
        unreached.note(&agent, 1, &[4], SECOND);
        assert!(unreached.avoided(&agent, SECOND).is_empty());
        unreached.note_reached(&agent, 5);
        unreached.note(&agent, 2, &[4], SECOND * 99);
        assert_eq!(unreached.avoided(&agent, SECOND * 99), BTreeSet::from([4]));
    }
}
