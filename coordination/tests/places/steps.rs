//! The steps as they go when nothing goes wrong, and when somebody was faster.

use std::collections::BTreeMap;

use coordination::{Candidacy, Census, Error, Office, Place, Recorder, Snapshot, Worker};
use model::{JobId, outcome::Outcome, znode::DoneData};
use testkit::{
    Space,
    proxy::{Fault, Proxy, ZkOp},
    wait,
};

use crate::*;

#[tokio::test]
async fn an_entry_goes_through_the_three_places() {
    let space = Space::new().await;
    let term = begin(&space).await;
    let mut leader = leader(&term).await;
    let worker = worker(&term).await;
    let recorder = Recorder::new(&term);

    let fed = leader.feed(new_entries(3), &[worker.number()]).await.unwrap();
    assert_eq!(
        fed.iter().map(|name| name.sequence).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(
        (leader.next_sequence(), leader.unowned_count().await.unwrap()),
        (3, 3)
    );
    worker.woken().await.unwrap();
    assert_eq!(sorted(worker.list_unowned().await.unwrap().entries), fed);
    let read = worker.read_unowned(&fed).await.unwrap();
    assert_eq!(read[1].as_deref(), Some(&new_entry(1).data[..]));

    let claimed = worker.claim(to_claim(&fed)).await.unwrap();
    assert_eq!((claimed.won, claimed.missed.len()), (fed.clone(), 0));
    assert_eq!(sorted(worker.held().await.unwrap()), fed);
    assert_eq!(worker.read_unowned(&fed).await.unwrap(), [None, None, None]);

    let finished = worker.finish(to_finish(&fed[..2])).await.unwrap();
    assert_eq!(
        (finished.done, finished.gone.len(), finished.stuck.len()),
        (fed[..2].to_vec(), 0, 0)
    );
    let census: Census = leader.census().await.unwrap();
    assert_eq!((census.before, census.len(), census.strange.len()), (3, 3, 0));
    assert_eq!(sorted(census.done.clone()), fed[..2]);
    assert_eq!(census.workers[0].entries, fed[2..]);
    assert!(census.workers[0].alive && census.workers[0].data.is_ok());
    let mut headers = leader.read_headers(&census).await.unwrap();
    headers.sort_by_key(|(name, ..)| name.sequence);
    let blocks: Vec<_> = headers
        .iter()
        .map(|(_, _, data)| data.as_ref().unwrap().run.first)
        .collect();
    assert_eq!(blocks, [0, 1, 2]);
    assert_eq!(headers[2].1, Place::Owned(worker.number()));

    let listing = recorder.list_done().await.unwrap();
    assert_eq!(
        (sorted(listing.entries.clone()), listing.strange),
        (fed[..2].to_vec(), 0)
    );
    let ends = recorder.read_done(&fed[..2]).await.unwrap();
    let end: DoneData = model::znode::decode(ends[0].as_ref().unwrap()).unwrap();
    assert_eq!(end, returned(&owned(0)));
    // The missing third is fine.
    recorder.clear(fed.clone()).await.unwrap();
    assert_eq!(below(&space, "/done").await, Vec::<String>::new());
    assert_eq!(leader.census().await.unwrap().len(), 1);
    assert_eq!(
        worker.read_unowned(&[]).await.unwrap(),
        Vec::<Option<Vec<u8>>>::new()
    );
}

#[tokio::test]
async fn an_end_may_be_fed_without_a_worker() {
    let space = Space::new().await;
    let term = begin(&space).await;
    let mut leader = leader(&term).await;
    let mut end = new_entry(7);
    end.place = Place::Done;
    let fed = leader.feed(vec![new_entry(6), end], &[]).await.unwrap();
    assert_eq!(below(&space, "/unowned").await, [fed[0].to_string()]);
    assert_eq!(below(&space, "/done").await, [fed[1].to_string()]);
    let mut wrong = new_entry(8);
    wrong.place = Place::Owned(coordination::WorkerNumber(1));
    assert!(leader.feed(vec![wrong], &[]).await.is_err());
    assert_eq!(leader.next_sequence(), 2);
}

#[tokio::test]
async fn sequences_go_on_under_the_next_leader() {
    let space = Space::new().await;
    let first = begin(&space).await;
    let mut leading = leader(&first).await;
    leading.feed(new_entries(1200), &[]).await.unwrap();
    first.close().await;
    let second = begin(&space).await;
    let mut leading = leader(&second).await;
    assert_eq!(leading.next_sequence(), 1200);
    assert_eq!(leading.feed(new_entries(1), &[]).await.unwrap()[0].sequence, 1200);
}

#[tokio::test]
async fn a_dead_workers_entries_are_recovered() {
    let space = Space::new().await;
    let (term, mortal) = (begin(&space).await, begin(&space).await);
    let mut leader = leader(&term).await;
    let worker = worker(&mortal).await;
    let fed = leader.feed(new_entries(600), &[]).await.unwrap();
    worker.claim(to_claim(&fed)).await.unwrap();
    let number = worker.number();
    let lost = |data: &OwnedData| done_with(data, Outcome::Lost);
    assert!(
        matches!(leader.recovery().recover(number, lost).await, Err(Error::WorkerLives(who)) if who == number)
    );

    mortal.close().await;
    let census = leader.census().await.unwrap();
    assert!(!census.workers[0].alive);
    let recovered = leader.recovery().recover(number, lost).await.unwrap();
    assert_eq!(
        (recovered.moved, recovered.strange.len(), recovered.folder_gone),
        (600, 0, true)
    );
    assert_eq!(below(&space, "/done").await.len(), 600);
    let again = leader.recovery().recover(number, lost).await.unwrap();
    assert_eq!((again.moved, again.folder_gone), (0, true));
    assert!(leader.census().await.unwrap().workers.is_empty());
}

#[tokio::test]
async fn the_leader_takes_entries_back() {
    let space = Space::new().await;
    let term = begin(&space).await;
    let mut leader = leader(&term).await;
    let worker = worker(&term).await;
    let fed = leader.feed(new_entries(4), &[]).await.unwrap();
    worker.claim(to_claim(&fed[..2])).await.unwrap();
    let end = |name: &EntryName| done_with(&owned(block(name)), Outcome::Cancelled);
    let number = Some(worker.number());
    let from = vec![
        (fed[0].clone(), number, end(&fed[0])),
        (fed[1].clone(), None, end(&fed[1])),
        (fed[2].clone(), None, end(&fed[2])),
        (fed[3].clone(), number, end(&fed[3])),
    ];
    let moved = leader.revoke(from).await.unwrap();
    assert_eq!(
        moved,
        [fed[0].clone(), fed[2].clone()],
        "the others are somewhere else"
    );
    let finished = worker.finish(to_finish(&fed[..2])).await.unwrap();
    assert_eq!(
        (finished.done, finished.gone),
        (vec![fed[1].clone()], vec![fed[0].clone()])
    );
}

#[tokio::test]
async fn workers_are_told_what_to_end() {
    let space = Space::new().await;
    let (term, mortal) = (begin(&space).await, begin(&space).await);
    let mut leader = leader(&term).await;
    let (worker, dead) = (worker(&term).await, worker(&mortal).await);
    assert_eq!(worker.stopping().await.unwrap(), []);
    let jobs = [1, 2].map(|number| JobId(uuid::Uuid::from_u128(number)));
    let workers = [dead.number(), worker.number()];
    let on = |which: &[JobId]| BTreeMap::from(workers.map(|number| (number, which.to_vec())));
    leader.stop_jobs(on(&jobs[..1])).await.unwrap();
    worker.woken().await.unwrap();
    assert_eq!(worker.stopping().await.unwrap(), jobs[..1]);
    assert_eq!(dead.stopping().await.unwrap(), jobs[..1]);
    // A worker that is gone is skipped, and a wake-up takes nothing back.
    dead.resign().await.unwrap();
    leader.stop_jobs(on(&jobs)).await.unwrap();
    leader.feed(new_entries(1), &workers[1..]).await.unwrap();
    assert_eq!(worker.stopping().await.unwrap(), jobs);
}

#[tokio::test]
async fn wake_ups_are_not_missed() {
    let space = Space::new().await;
    let (term, mortal) = (begin(&space).await, begin(&space).await);
    let mut leader = leader(&term).await;
    let (first, second, dead) = (worker(&term).await, worker(&term).await, worker(&mortal).await);
    let all = [dead.number(), first.number(), second.number()];
    leader.feed(new_entries(1), &all).await.unwrap();
    for worker in [&first, &second, &dead] {
        worker.woken().await.unwrap();
    }
    let none_yet = tokio::time::timeout(std::time::Duration::from_millis(50), first.woken()).await;
    assert!(none_yet.is_err(), "one wake-up was reported twice");

    // Two between two calls: reported, perhaps as one. A worker that has gone takes nobody's wake-up with it.
    dead.resign().await.unwrap();
    leader.feed(new_entries(1), &all).await.unwrap();
    leader.feed(new_entries(1), &all).await.unwrap();
    second.woken().await.unwrap();
    first.woken().await.unwrap();
    let waiting = tokio::spawn({
        let first = first.clone();
        async move {
            while tokio::time::timeout(std::time::Duration::from_millis(100), first.woken())
                .await
                .is_ok()
            {}
            first.woken().await
        }
    });
    tokio::time::timeout(SOON, async {
        while !waiting.is_finished() {
            leader.feed(new_entries(1), &[first.number()]).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        }
    })
    .await
    .unwrap();
    waiting.await.unwrap().unwrap();
    let data: WorkerData = {
        let tree = space.tree().await;
        model::znode::decode(tree[&format!("/owned/{}", second.number())].as_bytes()).unwrap()
    };
    assert!(
        data.wake >= 3
            && data
                == WorkerData {
                    wake: data.wake,
                    ..worker_data("node")
                },
        "{data:?}"
    );
}

#[tokio::test]
async fn a_watcher_waits_for_ends_without_listing() {
    let space = Space::new().await;
    let term = begin(&space).await;
    let mut leader = leader(&term).await;
    let recorder = Recorder::new(&term);
    recorder.list_done().await.unwrap();
    let short = std::time::Duration::from_millis(50);
    assert!(
        tokio::time::timeout(short, recorder.until_done_changes())
            .await
            .is_err()
    );
    let mut end = new_entry(1);
    end.place = Place::Done;
    let fed = leader.feed(vec![end.clone()], &[]).await.unwrap();
    tokio::time::timeout(SOON, recorder.until_done_changes())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(recorder.list_done().await.unwrap().entries, fed);
    recorder.clear(fed).await.unwrap();
    // Fed between the listing and the wait: not missed.
    leader.feed(vec![end], &[]).await.unwrap();
    tokio::time::timeout(SOON, recorder.until_done_changes())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn members_are_the_living() {
    let space = Space::new().await;
    let (term, mortal) = (begin(&space).await, begin(&space).await);
    let stays = Worker::register(&term, worker_data("stays")).await.unwrap();
    let goes = Worker::register(&mortal, worker_data("goes")).await.unwrap();
    let names = async || {
        let members = stays.members().await.unwrap();
        members
            .into_iter()
            .map(|(_, data)| data.node.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["stays", "goes"]);
    assert!(goes.number() > stays.number());
    mortal.close().await;
    assert_eq!(
        names().await,
        ["stays"],
        "close waits until the ephemerals are gone"
    );
    let snapshot = Snapshot::take(&term).await.unwrap();
    let views: Vec<_> = snapshot
        .census
        .workers
        .iter()
        .map(|view| (view.number, view.alive))
        .collect();
    assert_eq!(
        views,
        [(stays.number(), true), (goes.number(), false)],
        "its folder waits to be recovered"
    );
    stays.resign().await.unwrap();
    wait::until_true("the folder to go", SOON, async || {
        !space
            .tree()
            .await
            .keys()
            .any(|path| path.contains("worker-0000000000"))
    })
    .await;
}

/// Whether recreating the roots is refused because of exactly these, and changes nothing.
async fn is_refused(space: &Space, live: &[&str]) -> bool {
    let before = space.tree().await;
    let term = begin(space).await;
    let refused = coordination::recreate(&term, false).await;
    let is_told = matches!(&refused, Err(Error::LiveSessions { paths }) if paths == live);
    assert!(is_told, "{refused:?}, not {live:?}");
    space.tree().await == before
}

#[tokio::test]
async fn roots_are_recreated_unless_somebody_is_connected() {
    let space = Space::new().await;
    let dispatching = begin(&space).await;
    let mut leading = leader(&dispatching).await;
    let candidate = "/owned/dispatcher/candidate-0000000000";
    assert!(
        is_refused(&space, &[candidate]).await,
        "a dispatcher that stands by, or leads"
    );
    let term = begin(&space).await;
    let worker = worker(&term).await;
    let fed = leading.feed(new_entries(3), &[]).await.unwrap();
    let alive = "/owned/worker-0000000000/alive";
    assert!(is_refused(&space, &[candidate, alive]).await);
    worker.claim(to_claim(&fed[..1])).await.unwrap();
    dispatching.close().await;
    assert!(is_refused(&space, &[alive]).await, "a worker");
    assert_eq!(worker.held().await.unwrap(), fed[..1]);
    term.close().await;
    let watching = begin(&space).await;
    Candidacy::enter(&watching, Office::Watcher, &candidate_data())
        .await
        .unwrap();
    assert!(is_refused(&space, &["/owned/watcher/candidate-0000000000"]).await);
    watching.close().await;

    let term = begin(&space).await;
    coordination::recreate(&term, false).await.unwrap();
    assert_eq!(space.tree().await.len(), 5, "what the dead held is gone");
    let worker = crate::worker(&term).await;
    let mut leading = leader(&term).await;
    assert_eq!(
        (leading.next_sequence(), worker.number().0),
        (3, 1),
        "no name is used twice"
    );
    let fed = leading.feed(new_entries(3), &[]).await.unwrap();
    worker.claim(to_claim(&fed[..1])).await.unwrap();
    coordination::recreate(&term, true).await.unwrap();
    assert_eq!(space.tree().await.len(), 5, "three roots and two offices");
    assert!(matches!(worker.held().await, Err(Error::Deposed { .. })));
}

#[tokio::test]
async fn an_agent_that_waits_keeps_the_roots() {
    let space = Space::new().await;
    let options = zookeeper_client::CreateMode::Ephemeral.with_acls(zookeeper_client::Acls::anyone_all());
    let term = begin(&space).await;
    let agent = space.zookeeper_client().await;
    agent
        .create("/unowned/client-web7", b"{}", &options)
        .await
        .unwrap();
    assert!(is_refused(&space, &["/unowned/client-web7"]).await);
    drop(term);
}

#[tokio::test]
async fn more_znodes_than_a_transaction_takes_are_recreated_too() {
    let space = Space::new().await;
    let term = begin(&space).await;
    let fed = leader(&term).await.feed(new_entries(1_200), &[]).await;
    assert_eq!(fed.unwrap().len(), 1_200);
    term.close().await;
    let term = begin(&space).await;
    coordination::recreate(&term, false).await.unwrap();
    assert_eq!(space.tree().await.len(), 5);
    assert_eq!(leader(&term).await.next_sequence(), 1_200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_between_the_look_and_the_change_keeps_the_roots() {
    let space = Space::new().await;
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    let term = begin_through(&space, &proxy).await;
    let (address, mut came) = (space.zookeeper(), false);
    // Just before the transaction reaches the server.
    proxy.arm(Fault::CutAfterReply, move |request| {
        if request.op == ZkOp::MULTI && !std::mem::replace(&mut came, true) {
            let address = address.clone();
            let coming = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    let client = zookeeper_client::Client::connect(&address).await.unwrap();
                    let options = zookeeper_client::CreateMode::EphemeralSequential
                        .with_acls(zookeeper_client::Acls::anyone_all());
                    let created = client.create("/owned/watcher/candidate-", b"{}", &options).await;
                    created.unwrap();
                });
            });
            coming.join().unwrap();
        }
        false
    });
    let refused = coordination::recreate(&term, false).await;
    assert!(
        matches!(&refused, Err(Error::LiveSessions { paths }) if paths == &["/owned/watcher/candidate-0000000000"]),
        "{refused:?}"
    );
    assert_eq!(
        proxy.requests(ZkOp::MULTI),
        1,
        "it was tried, as there was nobody when it looked"
    );
}

#[tokio::test]
async fn a_server_tells_about_itself() {
    let space = Space::new().await;
    let servers = coordination::servers(&config(space.zookeeper())).await;
    let (address, info) = &servers[0];
    assert_eq!(address, space.zookeeper_address());
    let info = info.as_ref().unwrap();
    assert_eq!(
        (info.version.split('.').count(), info.mode.as_str()),
        (3, "standalone")
    );
}
