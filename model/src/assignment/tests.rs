use proptest::prelude::*;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn worker(number: u64, agents: u32) -> Worker {
    Worker {
        number,
        node: name(&format!("node{number}")),
        zone: String::new(),
        takes_agents: true,
        agents,
        rate: 0,
        lag_bytes: 0,
        cpu: 0.0,
        lives_for: LONG,
    }
}

fn waiting(number: usize) -> Waiting {
    Waiting {
        agent: name(&format!("agent{number}")),
        zone: String::new(),
        avoid: Vec::new(),
        wanted: None,
        offer: None,
    }
}

fn shipping(number: usize, worker: u64) -> Shipping {
    Shipping {
        agent: name(&format!("agent{number}")),
        worker,
        zone: String::new(),
        wanted: None,
        lag_grows_for: Duration::ZERO,
        stays_for: LONG,
    }
}

fn chosen(workers: &[Worker], agent: Waiting) -> Option<u64> {
    offers(workers, &[agent]).first().map(|(_, number)| *number)
}

#[test]
fn the_least_loaded_of_the_zone_is_offered() {
    let mut workers = vec![worker(1, 5), worker(2, 1), worker(3, 2)];
    assert_eq!(chosen(&workers, waiting(0)), Some(2));
    workers[1].rate = 1000;
    assert_eq!(chosen(&workers, waiting(0)), Some(3), "by bytes per second too");
    workers[0].zone = "east".into();
    let east = Waiting {
        zone: "east".into(),
        ..waiting(0)
    };
    assert_eq!(chosen(&workers, east.clone()), Some(1));
    let wanted = Waiting {
        wanted: Some(name("node2")),
        ..east.clone()
    };
    assert_eq!(chosen(&workers, wanted), Some(2), "what a user wants goes before");
    let avoiding = Waiting {
        avoid: vec![1],
        ..east
    };
    assert_eq!(chosen(&workers, avoiding), Some(3));
    workers.retain(|worker| worker.number == 1);
    let avoiding = Waiting {
        avoid: vec![1],
        ..waiting(0)
    };
    assert_eq!(chosen(&workers, avoiding), Some(1), "nobody else is there");
    workers[0].takes_agents = false;
    assert_eq!(chosen(&workers, waiting(0)), None);
}

#[test]
fn an_offer_stands_until_it_lapses() {
    let workers = [worker(1, 0), worker(2, 9)];
    let offered = |worker, age| Waiting {
        offer: Some((worker, age)),
        ..waiting(0)
    };
    let young = OFFER_LIFE - Duration::from_millis(1);
    assert_eq!(chosen(&workers, offered(1, young)), None);
    assert_eq!(
        chosen(&workers, offered(1, OFFER_LIFE)),
        Some(2),
        "another than before"
    );
    assert_eq!(
        chosen(&workers, offered(7, young)),
        Some(1),
        "of a worker that is gone"
    );
    assert_eq!(chosen(&workers[..1], offered(1, OFFER_LIFE)), Some(1));
}

#[test]
fn a_new_worker_gets_its_share_gradually() {
    let mut new = worker(2, 0);
    let all: Vec<Waiting> = (0..100).map(waiting).collect();
    for (seconds, most) in [(0, 1), (4, 1), (5, 3), (10, 7), (40, 100)] {
        new.lives_for = Duration::from_secs(seconds);
        let to_new = offers(&[worker(1, 100), new.clone()], &all)
            .iter()
            .filter(|(_, number)| *number == 2)
            .count();
        assert_eq!(to_new, most, "after {seconds} s");
    }
    new.lives_for = Duration::ZERO;
    assert_eq!(
        offers(&[new], &all).len(),
        100,
        "nobody waits for a new worker's share"
    );
}

#[test]
fn lag_and_users_move_agents() {
    let patience = Duration::from_secs(30);
    let mut workers = [worker(1, 2), worker(2, 1)];
    workers[0].rate = 100_000;
    let slow = Shipping {
        lag_grows_for: patience,
        ..shipping(0, 1)
    };
    let moved = |workers: &[Worker], agent: &Shipping| moves(workers, std::slice::from_ref(agent), patience);
    assert_eq!(moved(&workers, &slow), [(name("agent0"), 1)]);
    let just_came = Shipping {
        stays_for: Duration::from_secs(1),
        ..slow.clone()
    };
    assert_eq!(moved(&workers, &just_came), []);
    workers[1].rate = 90_000;
    assert_eq!(moved(&workers, &slow), [], "nobody is idle");
    let wanted = Shipping {
        wanted: Some(name("node2")),
        ..shipping(0, 1)
    };
    assert_eq!(moved(&workers, &wanted), [(name("agent0"), 1)]);
    let there = Shipping { worker: 2, ..wanted };
    assert_eq!(moved(&workers, &there), []);
    let nowhere = Shipping {
        wanted: Some(name("gone")),
        ..there
    };
    assert_eq!(
        moved(&workers, &nowhere),
        [],
        "a node that is not there is waited for"
    );
}

#[test]
fn trends_count_growth_alone() {
    let (mut trends, web7) = (Trends::default(), name("web7"));
    let at = Duration::from_secs;
    let mib = |mib: u64| mib << 20;
    for (second, lag, grows_for) in [
        (0, 20, 0),
        (10, 30, 10),
        (20, 30, 20),
        (25, 29, 0),
        (30, 31, 5),
        (35, 1, 0),
    ] {
        trends.note(&web7, at(second), mib(lag));
        assert_eq!(
            trends.grows_for(&web7, at(second)),
            at(grows_for),
            "at {second} s"
        );
    }
    assert_eq!(trends.grows_for(&name("other"), at(35)), Duration::ZERO);
    trends.forget_silent(at(66));
    assert!(trends.of.is_empty());
}

fn any_worker(number: u64) -> impl Strategy<Value = Worker> {
    let load = (0..20u32, 0..1_000_000u64, 0..(64u64 << 20), 0.0..1.0f64);
    (load, 0..60u64, 0..3usize, any::<bool>()).prop_map(move |(load, seconds, zone, takes_agents)| {
        let (agents, rate, lag_bytes, cpu) = load;
        Worker {
            zone: ["", "east", "west"][zone].into(),
            takes_agents,
            rate,
            lag_bytes,
            cpu,
            lives_for: Duration::from_secs(seconds),
            ..worker(number, agents)
        }
    })
}

fn any_workers() -> impl Strategy<Value = Vec<Worker>> {
    (0..6u64).prop_flat_map(|count| (0..count).map(any_worker).collect::<Vec<_>>())
}

fn any_waiting() -> impl Strategy<Value = Vec<Waiting>> {
    let one = (
        0..3usize,
        proptest::collection::vec(0..8u64, 0..4),
        proptest::option::of((0..8u64, 0..10_000u64)),
        proptest::option::of(0..8u64),
    );
    proptest::collection::vec(one, 0..30).prop_map(|all| {
        let agents = all.into_iter().enumerate();
        agents
            .map(|(number, (zone, avoid, offer, wanted))| Waiting {
                zone: ["", "east", "west"][zone].into(),
                avoid,
                wanted: wanted.map(|node| name(&format!("node{node}"))),
                offer: offer.map(|(worker, ms)| (worker, Duration::from_millis(ms))),
                ..waiting(number)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn every_agent_without_an_offer_gets_one_that_it_can_take(workers in any_workers(), all in any_waiting()) {
        let given = offers(&workers, &all);
        let takes = |number: u64| workers.iter().any(|worker| worker.number == number && worker.takes_agents);
        let usable: Vec<u64> = workers.iter().filter(|worker| worker.takes_agents).map(|worker| worker.number).collect();
        for agent in &all {
            let got: Vec<u64> = given.iter().filter(|(name, _)| *name == agent.agent).map(|(_, number)| *number).collect();
            let stands = agent.offer.is_some_and(|(number, age)| age < OFFER_LIFE && takes(number));
            prop_assert_eq!(got.len(), usize::from(!stands && !usable.is_empty()));
            for number in got {
                prop_assert!(takes(number));
                let lapsed = agent.offer.map(|(number, _)| number);
                let is_avoided = |number: &u64| agent.avoid.contains(number) || lapsed == Some(*number);
                prop_assert!(!is_avoided(&number) || usable.iter().all(is_avoided));
            }
        }
        prop_assert_eq!(offers(&workers, &all), given, "the same again");
    }

    #[test]
    fn a_ramping_worker_is_spared_while_others_are_there(workers in any_workers(), count in 0..60usize) {
        let all: Vec<Waiting> = (0..count).map(waiting).collect();
        let given = offers(&workers, &all);
        let has_veteran = workers.iter().any(|worker| worker.takes_agents && share_by_now(worker) == u32::MAX);
        for worker in workers.iter().filter(|_| has_veteran) {
            let got = given.iter().filter(|(_, number)| *number == worker.number).count() as u32;
            prop_assert!(got == 0 || worker.agents + got <= share_by_now(worker));
        }
    }

    #[test]
    fn moving_comes_to_an_end_with_even_workers(counts in proptest::collection::vec(0..12u32, 1..5)) {
        let mut workers: Vec<Worker> = (0..).zip(&counts).map(|(number, &agents)| worker(number, agents)).collect();
        let mut agents: Vec<Shipping> = Vec::new();
        for worker in &workers {
            agents.extend((0..worker.agents).map(|_| shipping(0, worker.number)));
        }
        for (number, agent) in agents.iter_mut().enumerate() {
            agent.agent = name(&format!("agent{number}"));
        }
        let total: u32 = counts.iter().sum();
        let mut rounds = 0;
        loop {
            let moved = moves(&workers, &agents, LONG + LONG);
            let Some((who, from)) = moved.first().cloned() else { break };
            rounds += 1;
            prop_assert!(rounds <= total, "it goes on and on");
            workers[from as usize].agents -= 1;
            let to = offers(&workers, &[Waiting { agent: who.clone(), avoid: vec![from], ..waiting(0) }])[0].1;
            prop_assert_ne!(to, from);
            workers[to as usize].agents += 1;
            agents.iter_mut().find(|agent| agent.agent == who).unwrap().worker = to;
        }
        let (least, most) = (workers.iter().map(|worker| worker.agents).min(), workers.iter().map(|worker| worker.agents).max());
        prop_assert!(most.unwrap() - least.unwrap() <= 1);
    }
}
