//! The size rules hold whatever the load: a packet over 1 MB would close the connection.

use coordination::{Error, Recorder};
use model::limits::ENTRY_BYTES;
use testkit::{
    Space,
    proxy::{Proxy, ZkOp},
};

use crate::*;

fn large(count: u32) -> Vec<NewEntry> {
    let entries = new_entries(count).into_iter();
    entries
        .map(|entry| NewEntry {
            data: vec![b'x'; ENTRY_BYTES],
            ..entry
        })
        .collect()
}

#[tokio::test]
async fn large_entries_by_the_hundred_never_lose_the_connection() {
    let space = Space::new().await;
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    let term = begin_through(&space, &proxy).await;
    let mut leader = leader(&term).await;
    let worker = worker(&term).await;
    let fed = leader.feed(large(100), &[worker.number()]).await.unwrap();
    assert_eq!(fed.len(), 100);
    let read = worker.read_unowned(&fed).await.unwrap();
    assert!(
        read.iter()
            .all(|data| data.as_ref().is_some_and(|data| data.len() == ENTRY_BYTES))
    );
    let claimed = worker.claim(to_claim(&fed)).await.unwrap();
    assert_eq!(claimed.won.len(), 100);
    let ends: Vec<_> = to_finish(&fed)
        .into_iter()
        .map(|(name, mut end)| {
            let failure = model::Failure::new(model::FailureKind::Exit, "x".repeat(ENTRY_BYTES - 400));
            end.ends[0].outcome = model::Outcome::Failed(failure);
            (name, end)
        })
        .collect();
    assert_eq!(worker.finish(ends).await.unwrap().done.len(), 100);
    let recorder = Recorder::new(&term);
    assert_eq!(
        recorder.read_done(&fed).await.unwrap().iter().flatten().count(),
        100
    );
    recorder.clear(fed).await.unwrap();
    assert_eq!(proxy.connections(), 1, "the connection was lost");
}

#[tokio::test]
async fn what_fits_nowhere_is_refused_before_anything_is_sent() {
    let space = Space::new().await;
    let term = begin(&space).await;
    let mut leader = leader(&term).await;
    let mut entries = new_entries(2);
    entries[1].data = vec![b'x'; 600 * 1024];
    let failure = leader.feed(entries, &[]).await.unwrap_err();
    assert!(
        matches!(failure, Error::TooLarge { bytes: 614_400, .. }),
        "{failure}"
    );
    assert_eq!(
        (leader.next_sequence(), leader.unowned_count().await.unwrap()),
        (0, 0)
    );
}

#[tokio::test]
async fn small_entries_go_in_few_requests() {
    let space = Space::new().await;
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    let term = begin_through(&space, &proxy).await;
    let mut leader = leader(&term).await;
    let worker = worker(&term).await;
    proxy.reset_counts();
    let fed = leader.feed(new_entries(4000), &[worker.number()]).await.unwrap();
    worker.read_unowned(&fed).await.unwrap();
    worker.claim(to_claim(&fed)).await.unwrap();
    worker.finish(to_finish(&fed)).await.unwrap();
    let recorder = Recorder::new(&term);
    recorder.read_done(&fed).await.unwrap();
    recorder.clear(fed).await.unwrap();
    let multis = proxy.requests(ZkOp::MULTI);
    assert!(
        multis <= 9 + 1 + 17 + 17 + 8,
        "{multis} transactions for 4000 entries"
    );
    assert!(
        proxy.requests(ZkOp::MULTI_READ) <= 200,
        "{} reads",
        proxy.requests(ZkOp::MULTI_READ)
    );
    assert_eq!(
        (proxy.connections(), leader.census().await.unwrap().len()),
        (1, 0)
    );
}
