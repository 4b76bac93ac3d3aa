//! The protocol, in all orders.

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

fn small() -> Protocol {
    Protocol {
        blocks: 2,
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
        wrong_low_water: 0,
        mutation: Mutation::None,
    }
}

fn walk(name: &str, protocol: &Protocol) -> explore::Report {
    let begun = std::time::Instant::now();
    let report = explore(protocol, protocol.start());
    println!(
        "{name}: {} states, {} steps, {} deep, {:.1?}",
        report.states,
        report.steps,
        report.depth,
        begun.elapsed()
    );
    if let Some(broken) = &report.broken {
        println!("{broken}");
    }
    report
}

#[test]
fn measure() {
    let default = "f=0 k=5".to_string();
    for spec in std::env::var("SPEC").unwrap_or(default).split(';') {
        let mut p = small();
        for word in spec.split_whitespace() {
            let (key, value) = word.split_once('=').unwrap();
            let n: usize = value.parse().unwrap();
            match key {
                "b" => p.blocks = n as u32,
                "u" => p.bundles = [&[1][..], &[1], &[2], &[1, 2]][n],
                "w" => p.window = n,
                "s" => p.slots = n,
                "wk" => p.workers = n as u8,
                "fl" => p.failures = n as u8,
                "f" => p.faults = n as u8,
                "k" => {
                    p.kinds = if n == 5 {
                        ALL
                    } else if n < 5 {
                        &ALL[n..=n]
                    } else {
                        [&ALL[0..=1], &ALL[0..=2], &ALL[1..=2]][n - 6]
                    }
                }
                "g" => p.merges = n > 0,
                "wr" => p.wrong_low_water = n as u32,
                "st" => p.low_water_step = n as u32,
                "ma" => p.max_attempts = n as u32,
                "m" => {
                    p.mutation = [
                        Mutation::None,
                        Mutation::UnguardedFinish,
                        Mutation::FinishWithoutAlive,
                        Mutation::UnguardedFeed,
                        Mutation::UnfencedLowWater,
                        Mutation::EarlyLowWater,
                        Mutation::TrustedLowWater,
                        Mutation::BackwardListing,
                        Mutation::UnkeyedRecord,
                    ][n]
                }
                _ => panic!("{word}"),
            }
        }
        walk(&format!("{spec} {:?} {:?}", p.mutation, p.kinds), &p);
    }
}
