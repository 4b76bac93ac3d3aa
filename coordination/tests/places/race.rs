//! Many reach for the same.

use coordination::{Candidacy, Office};
use testkit::{Space, wait};

use crate::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_entry_is_claimed_once() {
    const ENTRIES: u32 = 700;
    let space = Space::new().await;
    let term = begin(&space).await;
    let mut leader = leader(&term).await;
    let fed = leader.feed(new_entries(ENTRIES), &[]).await.unwrap();
    let mut claims = tokio::task::JoinSet::new();
    for shift in 0..4usize {
        let worker = worker(&term).await;
        let mut wanted = fed.clone();
        // Different workers begin at different ends, and meet.
        wanted.rotate_left(shift * 150);
        claims.spawn(async move {
            let mut won = Vec::new();
            for part in wanted.chunks(100) {
                let claimed = worker.claim(to_claim(part)).await.unwrap();
                assert_eq!(claimed.won.len() + claimed.missed.len(), part.len());
                won.extend(claimed.won);
            }
            assert_eq!(sorted(won.clone()), sorted(worker.held().await.unwrap()));
            won
        });
    }
    let mut won: Vec<EntryName> = claims.join_all().await.into_iter().flatten().collect();
    won.sort();
    assert_eq!(won, fed);
}

#[tokio::test]
async fn the_lowest_candidate_leads() {
    let space = Space::new().await;
    let terms = [begin(&space).await, begin(&space).await, begin(&space).await];
    let mut candidates = Vec::new();
    for term in &terms {
        candidates.push(
            Candidacy::enter(term, Office::Watcher, &candidate_data())
                .await
                .unwrap(),
        );
    }
    let names: Vec<&str> = candidates.iter().map(Candidacy::name).collect();
    assert_eq!(candidates[2].peers().await.unwrap(), names);
    candidates[0].until_leading().await.unwrap();
    let second = tokio::spawn({
        let candidate = candidates[1].clone();
        async move { candidate.until_leading().await }
    });
    let third = tokio::spawn({
        let candidate = candidates[2].clone();
        async move { candidate.until_leading().await }
    });
    // The middle one goes: the last one still waits for the first.
    candidates[1].clone().withdraw().await;
    assert!(
        second.await.unwrap().is_err(),
        "a candidate that is gone can't lead"
    );
    candidates[1].lost().await;
    assert!(!third.is_finished());
    let [first, ..] = terms;
    first.close().await;
    tokio::time::timeout(SOON, third).await.unwrap().unwrap().unwrap();
    candidates[0].lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_register_at_once() {
    let space = Space::new().await;
    let term = begin(&space).await;
    let mut registering = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let term = term.clone();
        registering.spawn(async move { worker(&term).await.number() });
    }
    let mut numbers = registering.join_all().await;
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 20);
    wait::until_equal("twenty folders", SOON, 20, async || {
        space
            .tree()
            .await
            .keys()
            .filter(|path| path.ends_with("/alive"))
            .count()
    })
    .await;
}
