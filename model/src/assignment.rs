//! Which agent ships to which worker: offers to those that wait, and moves of those that ship.
//!
//! An agent gets a worker that it does not avoid, in its own zone where there is one, and the least loaded of these by
//! bytes per second, lag and processors. A worker that is new gets its share gradually, so that it is not flooded while
//! nothing is known of its load; where only new ones are left, nobody waits for that. Pure: called by the leader with
//! what it has seen.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use crate::name::Name;

/// An offer that was not accepted for this long lapses, and another may follow.
pub const OFFER_LIFE: Duration = Duration::from_secs(5);
/// In each span of this length a new worker gets twice as many agents as in the one before: 1, 2, 4, ….
pub const RAMP_STEP: Duration = Duration::from_secs(5);
/// After so many spans a worker is new no more.
const RAMP_STEPS: u32 = 8;
/// A lag below this grows and shrinks with each block, in bytes: it is no reason to move.
pub const SMALL_LAG_BYTES: u64 = 16 << 20;
/// Bytes per second that a worker takes, at most this part of those of another, to be idle beside it.
const IDLE_PART: f64 = 0.5;
/// Part of the processors in use above which no worker is idle.
const IDLE_CPU: f64 = 0.7;
/// Most agents moved in one round: each costs a connection, and what follows from it should be seen first.
pub const MOST_MOVES: usize = 4;

/// A live worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// Its number.
    pub number: u64,
    /// Name of its node.
    pub node: Name,
    /// Where it stands; empty: nowhere.
    pub zone: String,
    /// Whether it takes blocks of agents, in the protocol of the leader.
    pub takes_agents: bool,
    /// Agents that it holds.
    pub agents: u32,
    /// Bytes of log per second that these ship.
    pub rate: u64,
    /// What these have read and not yet registered, in bytes.
    pub lag_bytes: u64,
    /// Part of its processors in use, 0.0 to 1.0; 0.0 where it is not known.
    pub cpu: f64,
    /// Since when it lives; what the leader found when it took office has lived for long.
    pub lives_for: Duration,
}

/// An agent without a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub agent: Name,
    /// Where it stands; empty: nowhere.
    pub zone: String,
    /// Workers that it could not reach or was told to leave.
    pub avoid: Vec<u64>,
    /// The node that a user wants it to ship to.
    pub wanted: Option<Name>,
    /// The worker offered last, and how long ago.
    pub offer: Option<(u64, Duration)>,
}

/// An agent that ships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipping {
    /// Its name.
    pub agent: Name,
    /// Its worker.
    pub worker: u64,
    /// Where it stands; empty: nowhere.
    pub zone: String,
    /// The node that a user wants it to ship to.
    pub wanted: Option<Name>,
    /// How long its lag has grown.
    pub lag_grows_for: Duration,
    /// How long it has been at its worker, as far as is known.
    pub stays_for: Duration,
}

/// How many agents a worker may have by now, so that it is not flooded.
fn share_by_now(worker: &Worker) -> u32 {
    let steps = worker.lives_for.as_secs() / RAMP_STEP.as_secs();
    if steps >= u64::from(RAMP_STEPS) {
        return u32::MAX;
    }
    (2 << steps) - 1
}

fn is_ramping(worker: &Worker) -> bool {
    worker.agents >= share_by_now(worker)
}

fn is_elsewhere(zone: &str, worker: &Worker) -> bool {
    !zone.is_empty() && zone != worker.zone
}

/// What the loads of workers are measured by: the greatest of each kind.
struct Scale {
    agents: f64,
    rate: f64,
    lag: f64,
}

impl Scale {
    fn of(workers: &[Worker]) -> Self {
        let most = |of: fn(&Worker) -> f64| workers.iter().map(of).fold(1.0, f64::max);
        Self {
            agents: most(|worker| f64::from(worker.agents)),
            rate: most(|worker| worker.rate as f64),
            lag: most(|worker| worker.lag_bytes as f64),
        }
    }

    /// 0.0 for a worker that does nothing, 4.0 for one that is first in all respects.
    fn load(&self, worker: &Worker) -> f64 {
        let agents = f64::from(worker.agents) / self.agents;
        let rate = worker.rate as f64 / self.rate;
        let lag = worker.lag_bytes as f64 / self.lag;
        agents + rate + lag + worker.cpu.clamp(0.0, 1.0)
    }
}

/// Whom to offer which worker now: names of agents and numbers of workers. An offer that stands is left alone.
///
/// Each agent without a standing offer gets one where any worker takes agents.
pub fn offers(workers: &[Worker], waiting: &[Waiting]) -> Vec<(Name, u64)> {
    let mut workers: Vec<Worker> = workers
        .iter()
        .filter(|worker| worker.takes_agents)
        .cloned()
        .collect();
    let shipping: u32 = workers.iter().map(|worker| worker.agents).sum();
    let rate: u64 = workers.iter().map(|worker| worker.rate).sum();
    let rate_of_one = rate / u64::from(shipping.max(1));
    let mut open = Vec::new();
    for agent in waiting {
        let standing = agent.offer.filter(|(_, age)| *age < OFFER_LIFE);
        let offered = standing.and_then(|(number, _)| place(&workers, number));
        match offered {
            Some(at) => take(&mut workers[at], rate_of_one),
            None => open.push(agent),
        }
    }
    let mut offers = Vec::with_capacity(open.len());
    for agent in open {
        if let Some(at) = choose(&workers, agent) {
            take(&mut workers[at], rate_of_one);
            offers.push((agent.agent.clone(), workers[at].number));
        }
    }
    offers
}

fn place(workers: &[Worker], number: u64) -> Option<usize> {
    workers.iter().position(|worker| worker.number == number)
}

/// So that the next agent is not offered the same worker before this one has arrived.
fn take(worker: &mut Worker, rate: u64) {
    worker.agents = worker.agents.saturating_add(1);
    worker.rate = worker.rate.saturating_add(rate);
}

/// The best worker for an agent; one that it avoids, or that did not answer its last offer, only where there is no other.
fn choose(workers: &[Worker], agent: &Waiting) -> Option<usize> {
    let lapsed = agent.offer.map(|(number, _)| number);
    let is_avoided = |worker: &Worker| agent.avoid.contains(&worker.number) || lapsed == Some(worker.number);
    let scale = Scale::of(workers);
    let rank = |worker: &Worker| {
        (
            is_avoided(worker),
            agent.wanted.is_some() && agent.wanted.as_ref() != Some(&worker.node),
            is_ramping(worker),
            is_elsewhere(&agent.zone, worker),
        )
    };
    let all = workers.iter().enumerate();
    let best = all.min_by(|(_, a), (_, b)| {
        let by_rank = rank(a).cmp(&rank(b));
        by_rank
            .then(scale.load(a).total_cmp(&scale.load(b)))
            .then(a.number.cmp(&b.number))
    });
    best.map(|(at, _)| at)
}

/// Which agents to take away from their workers now, so that they are offered others; at most [`MOST_MOVES`].
///
/// Moved is an agent that a user wants at another live node; one whose lag has grown for `patience` while another worker
/// is idle; and one of a worker that has more than its share while another has less.
pub fn moves(workers: &[Worker], shipping: &[Shipping], patience: Duration) -> Vec<(Name, u64)> {
    let workers: Vec<Worker> = workers
        .iter()
        .filter(|worker| worker.takes_agents)
        .cloned()
        .collect();
    let mut moves: Vec<(Name, u64)> = Vec::new();
    for agent in shipping {
        let wanted = agent.wanted.as_ref();
        let target = wanted.and_then(|node| workers.iter().find(|worker| worker.node == *node));
        // One that could not reach it comes back here: not to be sent there again at once.
        let is_wanted =
            agent.stays_for >= OFFER_LIFE && target.is_some_and(|target| target.number != agent.worker);
        let is_slow = agent.wanted.is_none()
            && agent.lag_grows_for >= patience
            && agent.stays_for >= patience
            && has_idle(&workers, agent);
        if is_wanted || is_slow {
            moves.push((agent.agent.clone(), agent.worker));
        }
    }
    moves.truncate(MOST_MOVES);
    if moves.is_empty() {
        moves.extend(to_even_out(&workers, shipping));
    }
    moves
}

/// Whether another worker has little to do beside that of this agent.
fn has_idle(workers: &[Worker], agent: &Shipping) -> bool {
    let Some(own) = place(workers, agent.worker).map(|at| &workers[at]) else {
        return false;
    };
    let is_idle = |other: &Worker| {
        other.number != own.number
            && (other.rate as f64) <= IDLE_PART * own.rate as f64
            && other.lag_bytes < SMALL_LAG_BYTES
            && other.cpu < IDLE_CPU
            && !is_ramping(other)
            && (is_elsewhere(&agent.zone, own) || !is_elsewhere(&agent.zone, other))
    };
    workers.iter().any(is_idle)
}

/// An agent of a worker with many that would go to one with at least two fewer, and less load, that may have more by now. It
/// moves into its zone, or between workers that are alike for it, never out of it. Each such move makes the numbers of
/// agents more even, so there is an end to it.
fn to_even_out(workers: &[Worker], shipping: &[Shipping]) -> Option<(Name, u64)> {
    let scale = Scale::of(workers);
    let mut by_agents: Vec<&Worker> = workers.iter().collect();
    by_agents.sort_by_key(|worker| (Reverse(worker.agents), worker.number));
    let least = by_agents.last().map_or(0, |worker| worker.agents);
    for from in by_agents {
        if from.agents < least.saturating_add(2) {
            break;
        }
        let would_go = |agent: &&Shipping| {
            let waiting = Waiting {
                agent: agent.agent.clone(),
                zone: agent.zone.clone(),
                avoid: vec![from.number],
                wanted: None,
                offer: None,
            };
            choose(workers, &waiting)
                .map(|at| &workers[at])
                .is_some_and(|to| {
                    to.agents.saturating_add(2) <= from.agents
                        && scale.load(to) < scale.load(from)
                        && !is_ramping(to)
                        && is_elsewhere(&agent.zone, from) >= is_elsewhere(&agent.zone, to)
                })
        };
        let of_from = shipping.iter().filter(|agent| {
            agent.worker == from.number && agent.wanted.is_none() && agent.stays_for >= OFFER_LIFE
        });
        if let Some(agent) = of_from.into_iter().find(would_go) {
            return Some((agent.agent.clone(), agent.worker));
        }
    }
    None
}

/// How long the lag of agents has grown.
#[derive(Clone, Debug, Default)]
pub struct Trends {
    of: BTreeMap<Name, Trend>,
}

#[derive(Clone, Copy, Debug)]
struct Trend {
    lag_bytes: u64,
    /// Since when it has not shrunk.
    since: Duration,
    /// When it was last heard of.
    at: Duration,
}

/// A report that is older says nothing of now.
const REPORT_LIFE: Duration = Duration::from_secs(30);

impl Trends {
    /// Notes a lag at `now`, a clock that only moves forward.
    pub fn note(&mut self, agent: &Name, now: Duration, lag_bytes: u64) {
        let before = self.of.get(agent).copied();
        let grows = lag_bytes >= SMALL_LAG_BYTES;
        let since = match before {
            Some(before) if grows && lag_bytes >= before.lag_bytes => before.since,
            _ => now,
        };
        let at = now;
        self.of.insert(agent.clone(), Trend { lag_bytes, since, at });
    }

    /// How long the lag has grown, seen from `now`.
    pub fn grows_for(&self, agent: &Name, now: Duration) -> Duration {
        self.of.get(agent).map_or(Duration::ZERO, |trend| {
            if now.saturating_sub(trend.at) > REPORT_LIFE {
                Duration::ZERO
            } else {
                trend.at.saturating_sub(trend.since)
            }
        })
    }

    /// Forgets those of which nothing was heard for long.
    pub fn forget_silent(&mut self, now: Duration) {
        self.of
            .retain(|_, trend| now.saturating_sub(trend.at) <= REPORT_LIFE);
    }
}

#[cfg(test)]
mod tests;
