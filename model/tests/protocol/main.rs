//! The protocol of one job, explored in all orders of its steps: a leader and its successors, workers, watchers, ZooKeeper,
//! MongoDB, and faults. The leader's book is the real [`Ledger`](model::ledger::Ledger).
//!
//! - `system.rs`: the state of the cluster, what can happen next, and the rules that no state may break
//! - `leader.rs`: the requests of a leader in their order
//! - `stores.rs`: ZooKeeper and MongoDB as far as they matter; each request is atomic
//! - `explore.rs`: the search
//!
//! A deposed leader may do more here than it can: it goes on as if its session lived, and only the guards of its writes
//! stop it. Each [`Mutation`] takes one guard away and must be found. Whoever changes a step of the protocol changes it here.

#![allow(missing_docs, unreachable_pub)]

mod explore;
mod leader;
mod stores;
mod system;

use explore::explore;
pub use system::{Action, Fault, Mutation, Protocol, State};

const ALL: &[Fault] = &[
    Fault::LeaderLost,
    Fault::LeaderStumbles,
    Fault::WorkerLost,
    Fault::FinishUnanswered,
    Fault::WatcherSlow,
];

/// One subtask, one failed attempt, one fault of any kind.
fn small() -> Protocol {
    Protocol {
        blocks: 1,
        merges: false,
        bundles: &[1],
        window: 2,
        slots: 1,
        workers: 1,
        max_attempts: 3,
        low_water_step: 1,
        failures: 1,
        faults: 1,
        kinds: ALL,
        admitted: true,
        wrong_low_water: 0,
        mutation: Mutation::None,
    }
}

/// Two subtasks of which none fails.
fn pair() -> Protocol {
    Protocol {
        blocks: 2,
        failures: 0,
        ..small()
    }
}

fn holds(protocol: &Protocol) {
    let report = explore(protocol, protocol.start());
    println!(
        "{} states, {} steps, {} deep",
        report.states, report.steps, report.depth
    );
    if let Some(broken) = report.broken {
        panic!("{protocol:?}:\n{broken}");
    }
}

fn breaks(protocol: &Protocol, why: &str) {
    let report = explore(protocol, protocol.start());
    println!(
        "{} states, {} steps, {} deep",
        report.states, report.steps, report.depth
    );
    let broken = report.broken.expect("this mutant breaks a rule");
    println!("{broken}");
    assert!(
        broken.why.contains(why),
        "another rule than expected: {}",
        broken.why
    );
}

#[test]
fn one_subtask_survives_any_fault() {
    holds(&small());
}

#[test]
fn one_subtask_survives_any_two_faults() {
    holds(&Protocol {
        failures: 0,
        faults: 2,
        ..small()
    });
}

#[test]
fn two_subtasks_survive_the_loss_of_their_leader() {
    holds(&Protocol {
        kinds: &[Fault::LeaderLost],
        ..pair()
    });
}

#[test]
fn two_subtasks_survive_the_loss_of_a_worker() {
    holds(&Protocol {
        kinds: &[Fault::WorkerLost],
        ..pair()
    });
}

#[test]
fn two_subtasks_survive_lost_replies_while_one_fails() {
    for kind in [
        &[Fault::LeaderStumbles],
        &[Fault::FinishUnanswered],
        &[Fault::WatcherSlow],
    ] {
        holds(&Protocol {
            failures: 1,
            kinds: kind,
            ..pair()
        });
    }
}

#[test]
fn a_bundle_that_fails_in_part_survives_any_fault() {
    holds(&Protocol {
        bundles: &[2],
        window: 1,
        failures: 1,
        ..pair()
    });
}

#[test]
fn a_merge_survives_any_fault() {
    holds(&Protocol {
        merges: true,
        failures: 0,
        ..small()
    });
}

#[test]
fn an_election_survives_the_loss_of_the_elected() {
    holds(&Protocol {
        admitted: false,
        failures: 0,
        kinds: &[Fault::LeaderLost],
        ..small()
    });
}

#[test]
fn a_leader_that_does_not_look_for_its_candidate_after_it_took_its_epoch_is_found() {
    breaks(
        &Protocol {
            admitted: false,
            failures: 0,
            kinds: &[Fault::LeaderLost],
            mutation: Mutation::LateEpoch,
            ..small()
        },
        "can't end",
    );
}

#[test]
fn a_low_water_mark_from_counts_before_the_listing_is_found() {
    breaks(
        &Protocol {
            blocks: 2,
            mutation: Mutation::EarlyLowWater,
            ..small()
        },
        "the low-water mark 1 is above subtask 0",
    );
}

#[test]
fn a_low_water_mark_that_is_not_fenced_is_found() {
    breaks(
        &Protocol {
            kinds: &[Fault::LeaderLost],
            mutation: Mutation::UnfencedLowWater,
            ..pair()
        },
        "the low-water mark 1 is above subtask 0",
    );
}

#[test]
fn a_feed_without_guard_is_found() {
    breaks(
        &Protocol {
            kinds: &[Fault::LeaderLost],
            mutation: Mutation::UnguardedFeed,
            ..pair()
        },
        "the leader believes that 0 subtasks are in flight",
    );
}

#[test]
fn a_finish_without_guard_is_found() {
    breaks(
        &Protocol {
            blocks: 2,
            mutation: Mutation::UnguardedFinish,
            ..small()
        },
        "has a result and is run again",
    );
}

/// The check of `alive` is a second guard: that the entry must be deleted from the folder guards a finish alone.
#[test]
fn a_finish_without_alive_does_no_harm() {
    holds(&Protocol {
        mutation: Mutation::FinishWithoutAlive,
        ..small()
    });
}

#[test]
fn a_listing_from_right_to_left_is_found() {
    breaks(
        &Protocol {
            mutation: Mutation::BackwardListing,
            ..small()
        },
        "the leader believes that 0 subtasks are in flight",
    );
}

#[test]
fn ends_without_keys_are_found() {
    breaks(
        &Protocol {
            blocks: 2,
            mutation: Mutation::UnkeyedRecord,
            ..small()
        },
        "is recorded 2 times",
    );
}

#[test]
fn a_takeover_mends_a_low_water_mark_that_is_wrong() {
    let left_behind = Protocol {
        admitted: false,
        faults: 0,
        wrong_low_water: 2,
        ..pair()
    };
    holds(&left_behind);
    breaks(
        &Protocol {
            mutation: Mutation::TrustedLowWater,
            ..left_behind
        },
        "can't end",
    );
}
