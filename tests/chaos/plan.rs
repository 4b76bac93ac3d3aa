//! What is done to whom, and when: all from the seed, so that a seed names a run.

use std::{fmt, time::Duration};

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Victim {
    Dispatcher(u8),
    Compute(u8),
    Watcher(u8),
    Agent,
    ZooKeeper,
    Mongo,
}

impl Victim {
    /// All roles, in the order in which they are started.
    pub(crate) const ROLES: [Self; 8] = [
        Self::Watcher(1),
        Self::Watcher(2),
        Self::Compute(1),
        Self::Compute(2),
        Self::Compute(3),
        Self::Dispatcher(1),
        Self::Dispatcher(2),
        Self::Agent,
    ];
    pub(crate) const STORES: [Self; 2] = [Self::ZooKeeper, Self::Mongo];

    /// What it is, without its number.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Dispatcher(_) => "dispatcher",
            Self::Compute(_) => "compute",
            Self::Watcher(_) => "watcher",
            Self::Agent => "agent",
            Self::ZooKeeper => "zookeeper",
            Self::Mongo => "mongodb",
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dispatcher(number) | Self::Compute(number) | Self::Watcher(number) => {
                write!(f, "{}{number}", self.kind())
            }
            _ => f.pad(self.kind()),
        }
    }
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum How {
    /// SIGKILL, and a start after the time.
    Kill,
    /// SIGSTOP, and SIGCONT after the time.
    Freeze,
    /// SIGTERM, the end of it by itself, and a start after the time.
    Stop,
    /// Nothing reaches it or comes from it for the time.
    Cut,
    /// Its clock is 40 days ahead for the time.
    Ahead,
    /// Its clock is a day behind for the time.
    Behind,
    /// The disk with the blocks that it keeps is full for the time.
    Full,
}

impl How {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Stop => "stop",
            Self::Cut => "cut",
            Self::Ahead => "ahead",
            Self::Behind => "behind",
            Self::Full => "full",
        }
    }

    pub(crate) fn of(word: &str) -> Option<Self> {
        let all = [
            Self::Kill,
            Self::Freeze,
            Self::Stop,
            Self::Cut,
            Self::Ahead,
            Self::Behind,
            Self::Full,
        ];
        all.into_iter().find(|how| how.as_str() == word)
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) victim: Victim,
    pub(crate) how: How,
    /// How long it lasts.
    pub(crate) lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lasts.as_secs_f64();
        write!(f, "{} {} {seconds:.1} s", self.how.as_str(), self.victim)
    }
}

/// Faults that happen together, and the pause after the last of them is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) faults: Vec<Fault>,
    pub(crate) pause: Duration,
}

/// An endless sequence of strikes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    dice: Dice,
    hows: Vec<How>,
    session: Duration,
    alone: bool,
}

impl Plan {
    /// `alone`: one fault at a time, with a pause in which everything recovers, so that times can be measured.
    pub(crate) fn new(seed: u64, hows: &[How], session: Duration, alone: bool) -> Self {
        Self {
            dice: Dice(seed),
            hows: hows.to_vec(),
            session,
            alone,
        }
    }

    fn fault(&mut self) -> Fault {
        // Stores are hit less often: each of their faults hits everybody.
        let hows = self.hows.clone();
        let possible = |victim: Victim| {
            let hows = hows.iter().copied();
            hows.filter(move |&how| is_possible(how, victim))
                .collect::<Vec<How>>()
        };
        let mut pool: Vec<Victim> = [&Victim::ROLES[..], &Victim::ROLES, &Victim::STORES].concat();
        pool.retain(|&victim| !possible(victim).is_empty());
        let victim = self.dice.choose(&pool);
        let how = self.dice.choose(&possible(victim));
        let sessions = match how {
            How::Kill => self.dice.choose(&[0.0, 0.0, 0.5, 1.5, 2.0]),
            How::Stop => self.dice.choose(&[0.0, 0.5]),
            // Longer than a session but for one: then it goes on where it was.
            How::Freeze | How::Cut => self.dice.choose(&[0.4, 1.3, 1.6, 2.2]),
            How::Ahead | How::Behind | How::Full => 2.0,
        };
        Fault {
            victim,
            how,
            lasts: self.session.mul_f64(sessions),
        }
    }
}

/// Whether a fault can be done to it: the stores have the network and the clock of this machine.
fn is_possible(how: How, victim: Victim) -> bool {
    match how {
        How::Kill | How::Freeze | How::Stop => true,
        How::Cut | How::Ahead | How::Behind => !Victim::STORES.contains(&victim),
        How::Full => victim == Victim::Compute(3),
    }
}

impl Iterator for Plan {
    type Item = Strike;

    fn next(&mut self) -> Option<Strike> {
        let mut faults = vec![self.fault()];
        let pause = if self.alone {
            8.0 + f64::from(self.dice.below(4))
        } else {
            if self.dice.below(10) < 3 {
                let second = self.fault();
                if second.victim != faults[0].victim {
                    faults.push(second);
                }
            }
            self.dice.choose(&[0.5, 1.0, 2.0, 3.0])
        };
        Some(Strike {
            faults,
            pause: Duration::from_secs_f64(pause),
        })
    }
}

/// Random numbers that stay the same over releases of any library: SplitMix64, Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", OOPSLA 2014.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `bound`, which is small.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound)).unwrap_or(0)
    }

    pub(crate) fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(u32::try_from(from.len()).unwrap()) as usize]
    }
}

#[test]
fn a_seed_names_a_run() {
    let plan = |seed| {
        Plan::new(
            seed,
            &[How::Kill, How::Freeze, How::Stop],
            Duration::from_secs(2),
            false,
        )
    };
    let first: Vec<Strike> = plan(7).take(200).collect();
    assert_eq!(first, plan(7).take(200).collect::<Vec<_>>());
    assert_ne!(first, plan(8).take(200).collect::<Vec<_>>());
    let hit = |victim| {
        first
            .iter()
            .flat_map(|strike| &strike.faults)
            .any(|fault| fault.victim == victim)
    };
    assert!(
        Victim::ROLES.into_iter().chain(Victim::STORES).all(hit),
        "all are hit"
    );
}
