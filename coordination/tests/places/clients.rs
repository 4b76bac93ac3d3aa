//! Agents: many reach for one name, and each connection is held once.

use coordination::{Acceptance, Attached, Attachment, Change, Error, Lost, Refusal, WaitingClient, clients};
use model::znode::{ClientData, WorkerOffer};
use testkit::{
    Space,
    proxy::{Fault, Proxy, ZkOp},
    wait,
};
use uuid::Uuid;

use crate::*;

fn agent(instance: u128, incarnation: u64) -> ClientData {
    ClientData {
        v: FORMAT,
        agent: Name::new("web7").unwrap(),
        instance: Uuid::from_u128(instance),
        incarnation,
        host: format!("host{instance}"),
        version: "0".into(),
        zone: String::new(),
        avoid: Vec::new(),
        offer: None,
    }
}

fn offer(worker: &Worker, number: u32) -> WorkerOffer {
    WorkerOffer {
        worker: worker.number().0,
        node: Name::new("node").unwrap(),
        endpoint: "127.0.0.1:1".into(),
        number,
    }
}

async fn attached(term: &Term, data: &ClientData) -> Box<Attached> {
    match clients::attach(term, data).await.unwrap() {
        Attachment::Attached(attached) => attached,
        Attachment::Refused(why) => panic!("refused: {why}"),
    }
}

async fn refused(term: &Term, data: &ClientData) -> Refusal {
    match clients::attach(term, data).await.unwrap() {
        Attachment::Attached(_) => panic!("attached"),
        Attachment::Refused(why) => why,
    }
}

async fn waiting(leader: &Leader) -> WaitingClient {
    let mut waiting = leader.waiting().await.unwrap();
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    waiting.remove(0)
}

/// Where web7 is held.
async fn places(space: &Space) -> Vec<String> {
    let tree = space.tree().await;
    let all = tree.into_keys().filter(|path| path.ends_with("/client-web7"));
    all.collect()
}

fn held_by(worker: &Worker) -> Vec<String> {
    vec![format!("/owned/{}/client-web7", worker.number())]
}

/// Offers `worker` to web7, which waits as `data`, and lets it accept as the next connection.
async fn given(leader: &Leader, worker: &Worker, number: u32, data: &ClientData) -> ClientData {
    let offer = offer(worker, number);
    assert!(leader.offer(&waiting(leader).await, &offer).await.unwrap());
    let next = ClientData {
        incarnation: data.incarnation + 1,
        ..data.clone()
    };
    assert_eq!(worker.accept(&next).await.unwrap(), Acceptance::Held);
    next
}

#[tokio::test]
async fn an_agent_goes_from_a_dispatcher_to_a_worker_and_back() {
    let space = Space::new().await;
    let (term, other) = (begin(&space).await, begin(&space).await);
    let (leader, worker) = (leader(&term).await, worker(&other).await);
    let first = agent(1, 1);
    let mut holding = attached(&term, &first).await;
    let census = leader.census().await.unwrap();
    assert_eq!(census.waiting, std::slice::from_ref(&first.agent));
    let not_yet = worker.accept(&agent(1, 2)).await.unwrap();
    assert_eq!(not_yet, Acceptance::Refused(Refusal::NotOffered));

    let seen = waiting(&leader).await;
    assert!(leader.offer(&seen, &offer(&worker, 1)).await.unwrap());
    assert_eq!(
        holding.changed().await.unwrap(),
        Change::Offered(offer(&worker, 1))
    );
    // Over a version that is no longer there nothing is offered.
    assert!(!leader.offer(&seen, &offer(&worker, 2)).await.unwrap());
    let second = agent(1, 2);
    assert_eq!(worker.accept(&second).await.unwrap(), Acceptance::Held);
    assert_eq!(
        worker.accept(&second).await.unwrap(),
        Acceptance::Held,
        "safe to repeat"
    );
    assert_eq!(holding.changed().await.unwrap(), Change::Gone);
    // The dispatcher lets go of what is no longer its own.
    holding.detach().await.unwrap();
    assert_eq!(places(&space).await, held_by(&worker));
    assert_eq!(
        worker.clients().await.unwrap(),
        std::slice::from_ref(&first.agent)
    );
    let census = leader.census().await.unwrap();
    assert_eq!((census.workers[0].clients.len(), census.waiting.len()), (1, 0));
    let snapshot = coordination::Snapshot::take(&term).await.unwrap();
    assert_eq!(snapshot.clients[0].place, Place::Owned(worker.number()));
    assert_eq!(snapshot.clients[0].data.as_ref().unwrap(), &second);
    assert!(census.strange.is_empty() && snapshot.census.strange.is_empty());

    // The leader moves it: the worker notices.
    let lost = tokio::spawn({
        let (worker, second) = (worker.clone(), second.clone());
        async move { worker.client_lost(&second).await }
    });
    assert!(leader.move_client(worker.number(), &first.agent).await.unwrap());
    assert!(!leader.move_client(worker.number(), &first.agent).await.unwrap());
    let lost = tokio::time::timeout(SOON, lost).await.unwrap().unwrap();
    assert_eq!(lost, Lost::Moved);
    let third = agent(1, 3);
    let holding = attached(&term, &third).await;
    holding.detach().await.unwrap();
    assert_eq!(places(&space).await, Vec::<String>::new());
}

#[tokio::test]
async fn one_name_is_held_once() {
    let space = Space::new().await;
    let (term, other) = (begin(&space).await, begin(&space).await);
    let (leader, worker) = (leader(&term).await, worker(&other).await);
    let host = || "host1".to_string();
    let mut old = attached(&term, &agent(1, 1)).await;
    // Waiting: another instance is refused, a newer connection takes over at another dispatcher.
    assert!(
        matches!(refused(&other, &agent(2, 9)).await, Refusal::OtherInstance { host: on, .. } if on == host())
    );
    let mut holding = attached(&other, &agent(1, 2)).await;
    assert_eq!(old.changed().await.unwrap(), Change::Gone);
    old.detach().await.unwrap();
    assert_eq!(
        places(&space).await,
        ["/unowned/client-web7"],
        "what another holds stays"
    );
    assert!(matches!(
        refused(&term, &agent(1, 1)).await,
        Refusal::Newer { .. }
    ));
    // The same at the dispatcher that holds it already.
    let mut newest = attached(&other, &agent(1, 3)).await;
    assert_eq!(holding.changed().await.unwrap(), Change::Gone);
    holding.detach().await.unwrap();
    assert_eq!(waiting(&leader).await.data, agent(1, 3));

    // An offer over the znode of the connection before is mended by who holds it.
    let seen = waiting(&leader).await;
    let before = WaitingClient {
        data: agent(1, 1),
        ..seen
    };
    assert!(leader.offer(&before, &offer(&worker, 1)).await.unwrap());
    let mended = wait::until("the data to be mended", SOON, async || {
        let short = std::time::Duration::from_millis(100);
        let _ = tokio::time::timeout(short, newest.changed()).await;
        let now = waiting(&leader).await.data;
        (now == agent(1, 3)).then_some(now)
    });
    mended.await;

    // Held by a worker: the same.
    let at_worker = given(&leader, &worker, 2, &agent(1, 3)).await;
    assert!(matches!(
        refused(&term, &agent(2, 9)).await,
        Refusal::OtherInstance { .. }
    ));
    assert!(matches!(refused(&term, &at_worker).await, Refusal::Newer { .. }));
    let other_instance = worker.accept(&agent(2, 9)).await.unwrap();
    assert!(matches!(
        other_instance,
        Acceptance::Refused(Refusal::OtherInstance { .. })
    ));
    // It comes back to the same worker before that noticed that its connection broke.
    assert_eq!(worker.accept(&agent(1, 7)).await.unwrap(), Acceptance::Held);
    let lost = tokio::time::timeout(SOON, worker.client_lost(&at_worker)).await;
    assert_eq!(lost.unwrap(), Lost::Replaced);
    worker.release(&at_worker).await.unwrap();
    assert_eq!(
        places(&space).await,
        held_by(&worker),
        "released by an older connection"
    );
    // A partition from its worker: it asks a dispatcher while the worker still holds it.
    let _holding = attached(&term, &agent(1, 8)).await;
    assert_eq!(places(&space).await, ["/unowned/client-web7"]);
    let zombie = worker.accept(&agent(1, 7)).await.unwrap();
    assert!(matches!(zombie, Acceptance::Refused(Refusal::Newer { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_instances_one_wins() {
    let space = Space::new().await;
    let mut reaching = tokio::task::JoinSet::new();
    for instance in 1..=6 {
        let term = begin(&space).await;
        reaching.spawn(async move {
            let attachment = clients::attach(&term, &agent(instance, 1)).await.unwrap();
            (term, matches!(attachment, Attachment::Attached(_)))
        });
    }
    let ends = reaching.join_all().await;
    assert_eq!(ends.iter().filter(|(_, won)| *won).count(), 1);
    assert_eq!(places(&space).await, ["/unowned/client-web7"]);
}

#[tokio::test]
async fn an_offer_that_was_replaced_is_void() {
    let space = Space::new().await;
    let (term, one, two) = (begin(&space).await, begin(&space).await, begin(&space).await);
    let leader = leader(&term).await;
    let (first, second) = (worker(&one).await, worker(&two).await);
    let mut holding = attached(&term, &agent(1, 1)).await;
    assert!(
        leader
            .offer(&waiting(&leader).await, &offer(&first, 1))
            .await
            .unwrap()
    );
    assert!(
        leader
            .offer(&waiting(&leader).await, &offer(&second, 2))
            .await
            .unwrap()
    );
    assert_eq!(
        holding.changed().await.unwrap(),
        Change::Offered(offer(&second, 2))
    );
    let late = first.accept(&agent(1, 2)).await.unwrap();
    assert_eq!(late, Acceptance::Refused(Refusal::NotOffered));
    assert_eq!(second.accept(&agent(1, 3)).await.unwrap(), Acceptance::Held);
    assert_eq!(places(&space).await, held_by(&second));
}

#[tokio::test]
async fn the_dead_let_go() {
    let space = Space::new().await;
    let (term, mortal) = (begin(&space).await, begin(&space).await);
    let (leader, worker) = (leader(&term).await, worker(&mortal).await);
    let _holding = attached(&term, &agent(1, 1)).await;
    let held = given(&leader, &worker, 1, &agent(1, 1)).await;
    mortal.close().await;
    assert_eq!(places(&space).await, Vec::<String>::new());
    let gone = worker.accept(&held).await.unwrap_err();
    assert!(gone.session_lost(), "{gone}");
    let recovered = leader
        .recovery()
        .recover(worker.number(), returned)
        .await
        .unwrap();
    assert!(
        recovered.folder_gone && recovered.strange.is_empty(),
        "{recovered:?}"
    );

    // A worker whose `alive` is gone accepts nobody, though its session lives.
    let zombie = crate::worker(&term).await;
    let _holding = attached(&term, &agent(1, 5)).await;
    assert!(
        leader
            .offer(&waiting(&leader).await, &offer(&zombie, 2))
            .await
            .unwrap()
    );
    space
        .delete_tree(&format!("/owned/{}/alive", zombie.number()))
        .await;
    let deposed = zombie.accept(&agent(1, 6)).await.unwrap_err();
    assert!(matches!(deposed, Error::Deposed { .. }), "{deposed}");
    assert_eq!(places(&space).await, ["/unowned/client-web7"]);
}

#[tokio::test]
async fn lost_replies_to_each_step() {
    let space = Space::new().await;
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    let term = begin_through(&space, &proxy).await;
    let (leader, worker) = (leader(&term).await, worker(&term).await);
    let mut incarnation = 0;
    let mut cuts = 0;
    let arm = |fault| {
        proxy.arm(fault, move |request| {
            request.op == ZkOp::MULTI && request.mentions("client-web7")
        });
    };
    for (round, fault) in (0..).zip([Fault::LoseReply, Fault::LoseRequest]) {
        incarnation += 1;
        arm(fault);
        let _holding = attached(&term, &agent(1, incarnation)).await;
        arm(fault);
        let offer = offer(&worker, 10 + round);
        assert!(leader.offer(&waiting(&leader).await, &offer).await.unwrap());
        incarnation += 1;
        arm(fault);
        let data = agent(1, incarnation);
        assert_eq!(worker.accept(&data).await.unwrap(), Acceptance::Held);
        assert_eq!(places(&space).await, held_by(&worker));
        arm(fault);
        assert!(leader.move_client(worker.number(), &data.agent).await.unwrap());
        cuts += 4;
        assert_eq!((proxy.fired(), places(&space).await), (cuts, Vec::new()));
    }
}
