//! Which entries a worker reaches for.

use std::{cmp::Reverse, time::Duration};

use crate::{
    entry::EntryName,
    name::Name,
    outcome::Past,
    processor::{Offer, Processor},
};

/// An entry in `/unowned` as a worker sees it.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a EntryName,
    /// Since when this worker has seen it wait.
    pub age: Duration,
    /// Whether this worker is the nearest to its data.
    pub nearest: bool,
}

/// What to reach for, and when to look again at what was left for nearer workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Positions in what was seen, the best first.
    pub take: Vec<usize>,
    /// Time until something that was left may be taken.
    pub look_again_in: Option<Duration>,
}

/// What has waited for so many times the locality wait is nobody's in particular any more.
const OVERDUE: u32 = 4;

/// Chooses up to `room` entries: higher priority first, then lower sequence; what is nearer to another worker is
/// left to it for `locality_wait`, and for a while longer comes behind what is nearest to this one, so that workers
/// with room do not all reach for the same entries.
pub fn choose(seen: &[Seen<'_>], room: usize, locality_wait: Duration) -> Choice {
    let may_take = |entry: &Seen<'_>| entry.nearest || entry.age >= locality_wait;
    let mut take: Vec<usize> = (0..seen.len()).filter(|&i| may_take(&seen[i])).collect();
    let rank = |i: usize| {
        let entry = &seen[i];
        let behind = !entry.nearest && entry.age < locality_wait * OVERDUE;
        (Reverse(entry.name.priority), behind, entry.name)
    };
    if take.len() > room {
        if room > 0 {
            take.select_nth_unstable_by(room - 1, |&a, &b| rank(a).cmp(&rank(b)));
        }
        take.truncate(room);
    }
    take.sort_unstable_by(|&a, &b| rank(a).cmp(&rank(b)));
    let left = seen
        .iter()
        .filter(|entry| !may_take(entry))
        .map(|entry| locality_wait - entry.age)
        .min();
    Choice {
        look_again_in: left.filter(|_| take.len() < room),
        take,
    }
}

/// What a worker that has read an entry does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Claim it.
    Take,
    /// Claim it once nothing else runs here, and nothing else before.
    WhenIdle,
    /// Leave it to others.
    Leave,
}

/// How long an entry that this node failed before is left to others.
pub const AVOID_WAIT: Duration = Duration::from_secs(5);

/// Whether this node should claim an entry that it has read.
///
/// `idle` tells that nothing runs here, `age` since when the entry has been seen to wait.
pub fn admit(
    node: &Name,
    offer: Offer<'_>,
    idle: bool,
    age: Duration,
    entry: (&Processor, &Past, &[Name]),
) -> Admission {
    let (processor, past, avoid) = entry;
    if !processor.fits(offer) || (avoid.contains(node) && age < AVOID_WAIT) {
        Admission::Leave
    } else if past.alone() && !idle {
        Admission::WhenIdle
    } else {
        Admission::Take
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::{Death, Evidence};
    use crate::processor::{Query, Requirement};
    use uuid::Uuid;

    fn name(priority: u16, sequence: u64) -> EntryName {
        format!("entry-{priority:03}-d:1-{sequence:010}").parse().unwrap()
    }

    const WAIT: Duration = Duration::from_millis(50);

    #[test]
    fn leaves_to_nearer_workers_for_a_while() {
        let names = [name(100, 1), name(100, 2), name(500, 3)];
        let seen = |ages: [u64; 3], nearest: [bool; 3]| {
            let ages = ages.map(Duration::from_millis);
            (0..3)
                .map(|i| Seen {
                    name: &names[i],
                    age: ages[i],
                    nearest: nearest[i],
                })
                .collect::<Vec<_>>()
        };
        let choice = choose(&seen([0, 0, 0], [true, false, false]), 3, WAIT);
        assert_eq!(
            choice,
            Choice {
                take: vec![0],
                look_again_in: Some(WAIT)
            }
        );
        let choice = choose(&seen([60, 60, 60], [true, false, false]), 2, WAIT);
        assert_eq!(
            choice,
            Choice {
                take: vec![2, 0],
                look_again_in: None
            }
        );
        // Its own first, then by age of the wait: what is overdue comes in its order again.
        assert_eq!(
            choose(&seen([60, 60, 0], [false, true, false]), 2, WAIT).take,
            [1, 0]
        );
        assert_eq!(
            choose(&seen([200, 60, 0], [false, true, false]), 2, WAIT).take,
            [0, 1]
        );
        assert_eq!(
            choose(&seen([60; 3], [true; 3]), 0, WAIT).take,
            Vec::<usize>::new()
        );
    }

    #[test]
    fn admits_what_fits() {
        let me = Name::new("me").unwrap();
        let exec = Processor::Command(crate::processor::Command {
            map: "x".into(),
            ..crate::processor::Command::default()
        });
        let suspect = Past {
            deaths: vec![Death {
                process: Uuid::nil(),
                evidence: Evidence::Suspect,
            }],
            ..Past::default()
        };
        let fresh = Past::default();
        let all = Offer {
            capabilities: &[Requirement::Exec],
            sql: None,
        };
        let zero = Duration::ZERO;
        let avoid = [me.clone()];
        assert_eq!(
            admit(&me, Offer::default(), true, zero, (&exec, &fresh, &[])),
            Admission::Leave
        );
        assert_eq!(
            admit(&me, all, false, zero, (&exec, &fresh, &[])),
            Admission::Take
        );
        assert_eq!(
            admit(&me, all, false, zero, (&exec, &suspect, &[])),
            Admission::WhenIdle
        );
        assert_eq!(
            admit(&me, all, true, zero, (&exec, &suspect, &[])),
            Admission::Take
        );
        assert_eq!(
            admit(&me, all, true, zero, (&exec, &fresh, &avoid)),
            Admission::Leave
        );
        assert_eq!(
            admit(&me, all, true, AVOID_WAIT, (&exec, &fresh, &avoid)),
            Admission::Take
        );
    }

    #[test]
    fn a_query_is_left_to_workers_of_its_version() {
        let me = Name::new("me").unwrap();
        let query = Processor::Query(Query {
            version: "2".into(),
            ..Query::default()
        });
        for (sql, expected) in [
            (Some("2"), Admission::Take),
            (Some("1"), Admission::Leave),
            (Some("3"), Admission::Leave),
            (None, Admission::Leave),
        ] {
            let offer = Offer {
                capabilities: &[Requirement::Sql],
                sql,
            };
            let found = admit(&me, offer, true, Duration::ZERO, (&query, &Past::default(), &[]));
            assert_eq!(found, expected, "{sql:?}");
        }
        let unable = Offer {
            capabilities: &[],
            sql: Some("2"),
        };
        assert!(!query.fits(unable));
    }

    proptest! {
        #[test]
        fn takes_the_best_and_never_too_many(entries in prop::collection::vec((0u16..4, any::<bool>()), 0..40), room in 0usize..20) {
            let names: Vec<_> = entries.iter().enumerate().map(|(i, e)| name(e.0, i as u64)).collect();
            let seen: Vec<_> = entries.iter().zip(&names)
                .map(|(e, name)| Seen { name, age: Duration::ZERO, nearest: e.1 }).collect();
            let Choice { take, .. } = choose(&seen, room, WAIT);
            let allowed = entries.iter().filter(|e| e.1).count();
            prop_assert_eq!(take.len(), allowed.min(room));
            prop_assert!(take.windows(2).all(|pair| names[pair[0]] < names[pair[1]]));
            if let Some(&worst) = take.last() {
                for i in 0..seen.len() {
                    prop_assert!(!seen[i].nearest || take.contains(&i) || names[i] > names[worst]);
                }
            }
        }
    }
}
