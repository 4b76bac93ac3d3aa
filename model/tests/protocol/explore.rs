//! Walks all states of the protocol, breadth first, and so finds a shortest way to whatever must not be.
//!
//! Only the fingerprint of a state is kept once its successors are known. Two things are checked: no state breaks a rule,
//! and from each state the job can end without further faults.
//!
//! This is not the crate `stateright` (0.31): it can't express the second check. Its `eventually` is about all paths, and
//! by its documentation misses violations on paths that meet again. It also brings a web server, which no feature turns off.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{Action, Protocol, State};

/// What the walk came to.
pub struct Report {
    pub states: usize,
    pub steps: usize,
    /// Longest of the shortest ways to the states.
    pub depth: u32,
    pub broken: Option<Counterexample>,
}

/// A way to a state that must not be.
pub struct Counterexample {
    pub why: String,
    pub steps: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in (1..).zip(&self.steps) {
            writeln!(f, "{at:3}. {step}")?;
        }
        write!(f, "=> {}", self.why)
    }
}

/// How a state was first reached.
struct Reached {
    from: u32,
    by: Option<Action>,
    ended: bool,
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Walks all states from `start`, or until one breaks a rule.
pub fn explore(protocol: &Protocol, start: State) -> Report {
    let mut seen = HashMap::from([(fingerprint(&start), 0)]);
    let mut reached = vec![Reached {
        from: 0,
        by: None,
        ended: protocol.ended(&start),
    }];
    // Pairs of (to, from), by steps that are no faults.
    let mut back: Vec<(u32, u32)> = Vec::new();
    let mut frontier = vec![(0, start.clone())];
    let (mut steps, mut depth) = (0, 0);
    let mut actions = Vec::new();
    let mut broken = protocol.violation(&start).map(|why| (0, why));
    while broken.is_none() && !frontier.is_empty() {
        let mut beyond = Vec::new();
        'level: for (from, state) in &frontier {
            protocol.actions(state, &mut actions);
            for action in actions.drain(..) {
                let Some(next) = protocol.step(state, action) else {
                    continue;
                };
                steps += 1;
                let new = reached.len() as u32;
                let to = match seen.entry(fingerprint(&next)) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(free) => {
                        free.insert(new);
                        reached.push(Reached {
                            from: *from,
                            by: Some(action),
                            ended: protocol.ended(&next),
                        });
                        broken = protocol.violation(&next).map(|why| (new, why));
                        beyond.push((new, next));
                        new
                    }
                };
                if !protocol.is_fault(state, action) {
                    back.push((to, *from));
                }
                if broken.is_some() {
                    break 'level;
                }
            }
        }
        depth += u32::from(!beyond.is_empty());
        frontier = beyond;
    }
    let broken = broken.or_else(|| {
        let at = dead_end(&reached, back)?;
        Some((
            at,
            "without further faults the job can't end any more".to_string(),
        ))
    });
    let broken = broken.map(|(at, why)| Counterexample {
        why,
        steps: way(protocol, start, &reached, at),
    });
    Report {
        states: reached.len(),
        steps,
        depth,
        broken,
    }
}

/// The first state from which no end can be reached.
fn dead_end(reached: &[Reached], mut back: Vec<(u32, u32)>) -> Option<u32> {
    back.sort_unstable();
    let mut good: Vec<bool> = reached.iter().map(|state| state.ended).collect();
    let mut open: Vec<u32> = (0..)
        .zip(&good)
        .filter(|(_, good)| **good)
        .map(|(at, _)| at)
        .collect();
    while let Some(to) = open.pop() {
        let begin = back.partition_point(|pair| pair.0 < to);
        for (_, from) in back[begin..].iter().take_while(|pair| pair.0 == to) {
            if !std::mem::replace(&mut good[*from as usize], true) {
                open.push(*from);
            }
        }
    }
    (0..).zip(good).find(|(_, good)| !good).map(|(at, _)| at)
}

fn way(protocol: &Protocol, mut state: State, reached: &[Reached], mut at: u32) -> Vec<String> {
    let mut actions = Vec::new();
    while let Some(action) = reached[at as usize].by {
        actions.push(action);
        at = reached[at as usize].from;
    }
    let mut steps = Vec::with_capacity(actions.len());
    for action in actions.into_iter().rev() {
        steps.push(protocol.describe(&state, action));
        state = protocol.step(&state, action).expect("this step was taken before");
    }
    steps
}
