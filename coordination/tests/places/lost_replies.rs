//! A reply that is lost means *unknown*: each step looks, and happens once.

use coordination::{Candidacy, Office, Recorder, Snapshot, Worker};
use model::outcome::Outcome;
use testkit::{
    Space,
    proxy::{Fault, Proxy, ZkOp},
};

use crate::*;

/// A space, and a proxy in front of its ZooKeeper.
async fn space_and_proxy() -> (Space, Proxy) {
    let space = Space::new().await;
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    (space, proxy)
}

/// Both ways that a connection may break under a request: it was carried out, or it was not.
const FAULTS: [Fault; 2] = [Fault::LoseReply, Fault::LoseRequest];

fn arm(proxy: &Proxy, fault: Fault, text: &'static str) {
    proxy.arm(fault, move |request| {
        request.op == ZkOp::MULTI && request.mentions(text)
    });
}

#[tokio::test]
async fn feed() {
    let (space, proxy) = space_and_proxy().await;
    let term = begin_through(&space, &proxy).await;
    let mut leader = leader(&term).await;
    let mut fed = Vec::new();
    for (nth, fault) in (1..).zip(FAULTS) {
        // Three transactions under way: the second is hit.
        let mut seen = 0;
        proxy.arm(fault, move |request| {
            seen += usize::from(request.op == ZkOp::MULTI);
            seen == 2
        });
        fed.extend(leader.feed(new_entries(1200), &[]).await.unwrap());
        assert_eq!(proxy.fired(), nth);
    }
    assert_eq!(fed.len(), 2400);
    assert!(
        fed.windows(2)
            .all(|pair| pair[0].sequence + 1 == pair[1].sequence)
    );
    let names: Vec<String> = fed.iter().map(ToString::to_string).collect();
    let mut there = below(&space, "/unowned").await;
    there.sort_by_key(|name| name.parse::<EntryName>().unwrap().sequence);
    assert_eq!(there, names);
    assert_eq!(leader.next_sequence(), 2400);
}

#[tokio::test]
async fn feed_when_claimed_before_the_look() {
    let (space, proxy) = space_and_proxy().await;
    let term = begin_through(&space, &proxy).await;
    let mut leader = leader(&term).await;
    let (direct, feeding) = (begin(&space).await, new_entries(5));
    let worker = worker(&direct).await;
    arm(&proxy, Fault::LoseReply, "/unowned/entry");
    let feed = leader.feed(feeding, &[]);
    let claim = async {
        let listing = testkit::wait::until("the entries", SOON, async || {
            let listing = worker.list_unowned().await.unwrap();
            (listing.entries.len() == 5).then_some(listing)
        });
        worker.claim(to_claim(&listing.await.entries)).await.unwrap()
    };
    let (fed, claimed) = tokio::join!(feed, claim);
    assert_eq!(
        fed.unwrap(),
        sorted(claimed.won),
        "fed once, though nothing was left to see in /unowned"
    );
    assert_eq!((proxy.fired(), leader.census().await.unwrap().len()), (1, 5));
}

#[tokio::test]
async fn claim_and_finish() {
    let (space, proxy) = space_and_proxy().await;
    let (direct, term) = (begin(&space).await, begin_through(&space, &proxy).await);
    let mut leader = leader(&direct).await;
    let worker = worker(&term).await;
    for (nth, fault) in (0..).zip(FAULTS) {
        let fed = leader.feed(new_entries(600), &[]).await.unwrap();
        arm(&proxy, fault, "/unowned/entry");
        let claimed = worker.claim(to_claim(&fed)).await.unwrap();
        assert_eq!((claimed.won, claimed.missed.len()), (fed.clone(), 0));
        assert_eq!(proxy.fired(), 2 * nth + 1);
        arm(&proxy, fault, "/done/entry");
        let finished = worker.finish(to_finish(&fed)).await.unwrap();
        assert_eq!((finished.done, finished.gone.len()), (fed, 0));
        assert_eq!(proxy.fired(), 2 * nth + 2);
    }
    assert_eq!(
        (
            below(&space, "/done").await.len(),
            worker.held().await.unwrap().len()
        ),
        (1200, 0)
    );
}

#[tokio::test]
async fn clear_recover_and_revoke() {
    let (space, proxy) = space_and_proxy().await;
    let (mortal, term) = (begin(&space).await, begin_through(&space, &proxy).await);
    let mut leader = leader(&term).await;
    let worker = worker(&mortal).await;
    let fed = leader.feed(new_entries(300), &[]).await.unwrap();
    worker.claim(to_claim(&fed[..200])).await.unwrap();
    mortal.close().await;
    arm(&proxy, Fault::LoseReply, "/done/entry");
    let lost = |data: &OwnedData| done_with(data, Outcome::Lost);
    let recovered = leader.recovery().recover(worker.number(), lost).await.unwrap();
    assert_eq!(
        (recovered.moved, recovered.folder_gone, proxy.fired()),
        (200, true, 1)
    );
    arm(&proxy, Fault::LoseReply, "/done/entry");
    let from = to_finish(&fed[200..])
        .into_iter()
        .map(|(name, end)| (name, None, end))
        .collect();
    assert_eq!(leader.revoke(from).await.unwrap(), fed[200..]);
    let recorder = Recorder::new(&term);
    arm(&proxy, Fault::LoseReply, "/done/entry");
    recorder.clear(fed).await.unwrap();
    assert_eq!((proxy.fired(), below(&space, "/done").await.len()), (3, 0));
}

#[tokio::test]
async fn registration() {
    let (space, proxy) = space_and_proxy().await;
    let term = begin_through(&space, &proxy).await;
    for (nth, fault) in (0u64..).zip(FAULTS) {
        arm(&proxy, fault, "/alive");
        let worker = Worker::register(&term, worker_data("node")).await.unwrap();
        assert_eq!((worker.number().0, proxy.fired() as u64), (nth, nth + 1));
        worker.held().await.unwrap();
    }
    assert_eq!(Snapshot::take(&term).await.unwrap().census.workers.len(), 2);
}

#[tokio::test]
async fn election() {
    let (space, proxy) = space_and_proxy().await;
    for (nth, fault) in (1..).zip(FAULTS) {
        let term = begin_through(&space, &proxy).await;
        proxy.arm(fault, |request| {
            request.op == ZkOp::CREATE2 && request.mentions("candidate-")
        });
        let candidacy = Candidacy::enter(&term, Office::Dispatcher, &candidate_data())
            .await
            .unwrap();
        assert_eq!(
            candidacy.peers().await.unwrap(),
            [candidacy.name()],
            "one per session"
        );
        candidacy.until_leading().await.unwrap();
        assert_eq!(proxy.fired(), nth);
        term.close().await;
    }
}
