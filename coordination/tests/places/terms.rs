//! How terms begin and end, and what zombies can't do.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use coordination::{Candidacy, Config, Ending, Error, Office, Peers, Term, terms};
use model::outcome::Outcome;
use testkit::{Space, proxy::Proxy, wait};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{rights::OfRole, *};

fn short(connect: String) -> Config {
    Config {
        session_timeout: Duration::from_secs(1),
        ..config(connect)
    }
}

#[tokio::test]
async fn a_missing_chroot_is_made() {
    let space = Space::new().await;
    let connect = format!("{}/deep/mill", space.zookeeper());
    for _ in 0..2 {
        let term = Term::begin(&config(&connect)).await.unwrap();
        assert!(term.is_connected() && term.why().is_none());
        term.close().await;
    }
    let paths: Vec<String> = space.tree().await.into_keys().collect();
    assert!(
        paths.contains(&"/deep/mill/owned/watcher".to_string()),
        "{paths:?}"
    );
}

#[tokio::test]
async fn bad_addresses_are_named() {
    let begin = async |connect: &str| {
        let config = Config {
            connect_timeout: Duration::from_millis(300),
            ..config(connect)
        };
        Term::begin(&config).await.unwrap_err()
    };
    for bad in [
        "",
        "/chroot",
        "127.0.0.1:x",
        "127.0.0.1:2181/a//b",
        "127.0.0.1:2181/a/",
    ] {
        let error = begin(bad).await;
        assert!(matches!(error, Error::BadAddress { .. }), "{bad:?}: {error}");
    }
    let error = begin("127.0.0.1:1/mill").await;
    assert!(error.is_retryable());
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:1 ") && text.contains("refused"),
        "{text}"
    );
}

#[tokio::test]
async fn a_role_waits_for_zookeeper_and_not_for_what_waiting_does_not_mend() {
    let space = Space::new().await;
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    proxy.down();
    let config = Config {
        connect_timeout: Duration::from_millis(100),
        ..config(space.zookeeper_through(proxy.address()))
    };
    let stop = CancellationToken::new();
    let begun = AtomicU32::new(0);
    let serving = terms::serve(&config, &stop, "watcher", |_term| {
        begun.fetch_add(1, Ordering::Relaxed);
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            Ok::<(), OfRole>(())
        }
    });
    let looking = async {
        // Three times in vain.
        for _ in 0..3 {
            let failure = Term::begin(&config).await.unwrap_err();
            assert!(matches!(failure, Error::Unreachable { .. }), "{failure}");
        }
        assert_eq!(begun.load(Ordering::Relaxed), 0);
        proxy.accept();
        wait::until_equal("the first term", SOON, 1, async || begun.load(Ordering::Relaxed)).await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(serving, looking);
    served.unwrap();

    let stop = CancellationToken::new();
    let bad = Config {
        connect: "127.0.0.1:x".into(),
        ..config
    };
    let served = terms::serve(&bad, &stop, "watcher", |_| async { Ok::<(), OfRole>(()) });
    assert!(matches!(served.await, Err(OfRole(Error::BadAddress { .. }))));
}

#[tokio::test]
async fn what_a_term_left_behind_on_a_restarted_zookeeper_is_gone_when_the_next_begins() {
    let mut space = Space::private().await;
    let config = Config {
        session_timeout: Duration::from_secs(2),
        ..config(space.zookeeper())
    };
    let (stop, again, zookeeper) = (CancellationToken::new(), Notify::new(), space.zookeeper());
    let began = std::cell::RefCell::new(Vec::new());
    let serving = terms::serve(&config, &stop, "watcher", |term| {
        let (stop, again, began, zookeeper) = (&stop, &again, &began, &zookeeper);
        async move {
            let looking = Term::begin(&self::config(zookeeper)).await?;
            let before = coordination::Snapshot::take(&looking).await?.watchers.len();
            began.borrow_mut().push(before);
            Candidacy::enter(&term, Office::Watcher, &candidate_data()).await?;
            again.notify_one();
            stop.cancelled().await;
            Ok::<(), OfRole>(())
        }
    });
    let outage = async {
        again.notified().await;
        space.servers().zookeeper.kill().await;
        // Half of the session, after which the term is over, and until the client gives its session up.
        tokio::time::sleep(config.session_timeout * 3 / 2).await;
        space.servers().zookeeper.restart().await.unwrap();
        again.notified().await;
        stop.cancel();
    };
    let (served, ()) = tokio::join!(serving, outage);
    served.unwrap();
    assert_eq!(*began.borrow(), [0, 0]);
}

#[tokio::test]
async fn who_stands_for_an_office_is_known_as_they_come_and_go() {
    let space = Space::new().await;
    let (term, other) = (begin(&space).await, begin(&space).await);
    let me = candidate(&term).await;
    let mut peers = Peers::new(&me);
    assert!(peers.refresh().await.unwrap());
    assert_eq!(peers.names(), [me.name()]);
    assert!(!peers.refresh().await.unwrap());
    let second = candidate(&other).await;
    tokio::time::timeout(SOON, peers.changed()).await.unwrap();
    assert!(peers.refresh().await.unwrap());
    assert_eq!(peers.names(), [me.name(), second.name()]);
    let gone = other.close();
    let (changed, ()) = tokio::join!(tokio::time::timeout(SOON, peers.changed()), gone);
    changed.unwrap();
    assert!(peers.refresh().await.unwrap());
    assert_eq!(peers.names(), [me.name()]);
}

#[tokio::test]
async fn closing_ends_everything_at_once() {
    let space = Space::new().await;
    let (term, other) = (begin(&space).await, begin(&space).await);
    let worker = worker(&term).await;
    let waiting = tokio::spawn({
        let worker = worker.clone();
        async move { worker.woken().await }
    });
    let kept = term.clone();
    let begun = Instant::now();
    term.close().await;
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "nobody waits for a timeout"
    );
    assert!(
        !space
            .tree()
            .await
            .contains_key(&format!("/owned/{}/alive", worker.number()))
    );
    assert_eq!(kept.why(), Some(Ending::Closed));
    assert!(kept.ended().is_cancelled());
    assert!(matches!(
        waiting.await.unwrap(),
        Err(Error::TermOver(Ending::Closed))
    ));
    assert!(worker.held().await.unwrap_err().session_lost());
    assert!(other.is_connected());
}

#[tokio::test]
async fn half_a_session_without_connection_ends_the_term() {
    let space = Space::new().await;
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    let term = Term::begin(&short(space.zookeeper_through(proxy.address())))
        .await
        .unwrap();
    assert_eq!(term.session_timeout(), Duration::from_secs(1));
    let worker = worker(&term).await;
    proxy.down();
    let cut = Instant::now();
    tokio::time::timeout(SOON, term.ended().cancelled())
        .await
        .unwrap();
    assert_eq!(term.why(), Some(Ending::TooLongDisconnected));
    assert!(cut.elapsed() >= Duration::from_millis(490), "{:?}", cut.elapsed());
    assert!(!term.is_connected() && worker.held().await.unwrap_err().session_lost());
    // Nobody waits for ZooKeeper to confirm what it can't be told: the next term begins the sooner.
    let over = Instant::now();
    term.close().await;
    assert!(over.elapsed() < Duration::from_secs(1), "{:?}", over.elapsed());
    // The session is closed as soon as that can be told.
    proxy.accept();
    wait::until_true("the ephemeral to go", SOON, async || {
        !space
            .tree()
            .await
            .contains_key(&format!("/owned/{}/alive", worker.number()))
    })
    .await;
}

#[tokio::test]
async fn a_short_outage_ends_nothing() {
    let space = Space::new().await;
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    let term = begin_through(&space, &proxy).await;
    let worker = worker(&term).await;
    for _ in 0..3 {
        proxy.cut_all();
        worker.held().await.unwrap();
    }
    assert_eq!(term.why(), None);
}

#[tokio::test]
async fn an_expired_session_ends_the_term() {
    let space = Space::new().await;
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    let term = Term::begin(&short(space.zookeeper_through(proxy.address())))
        .await
        .unwrap();
    let worker = worker(&term).await;
    // A network that swallows packets: the server hears nothing and expires the session.
    proxy.stall();
    tokio::time::timeout(SOON, term.ended().cancelled())
        .await
        .unwrap();
    wait::until_true("the ephemeral to expire", SOON, async || {
        !space
            .tree()
            .await
            .contains_key(&format!("/owned/{}/alive", worker.number()))
    })
    .await;
    proxy.resume();
    assert!(
        worker
            .claim(Vec::new())
            .await
            .is_ok_and(|claimed| claimed.won.is_empty()),
        "nothing asks nobody"
    );
    assert!(
        worker
            .claim(to_claim(&["entry-100-d:1-0000000001".parse().unwrap()]))
            .await
            .unwrap_err()
            .session_lost()
    );
}

/// A term whose ephemerals are gone while its session lives: what a zombie looks like to ZooKeeper.
#[tokio::test]
async fn a_zombie_worker_can_do_nothing() {
    let space = Space::new().await;
    let (term, zombie) = (begin(&space).await, begin(&space).await);
    let mut leader = leader(&term).await;
    let worker = worker(&zombie).await;
    let fed = leader.feed(new_entries(3), &[]).await.unwrap();
    worker.claim(to_claim(&fed[..2])).await.unwrap();
    let alive = format!("/owned/{}/alive", worker.number());
    space.zookeeper_client().await.delete(&alive, None).await.unwrap();

    let failure = worker.finish(to_finish(&fed[..1])).await.unwrap_err();
    assert!(
        matches!(&failure, Error::Deposed { path } if *path == alive),
        "{failure}"
    );
    assert!(!failure.outcome_unknown());
    let recovered = leader
        .recovery()
        .recover(worker.number(), |data| done_with(data, Outcome::Lost))
        .await
        .unwrap();
    assert_eq!(recovered.moved, 2);
    assert!(
        worker
            .finish(to_finish(&fed[1..2]))
            .await
            .unwrap_err()
            .session_lost()
    );
    assert!(
        worker
            .claim(to_claim(&fed[2..]))
            .await
            .unwrap_err()
            .session_lost()
    );
    assert!(worker.woken().await.unwrap_err().session_lost());
    assert!(worker.held().await.unwrap_err().session_lost());
    assert_eq!(below(&space, "/unowned").await.len(), 1);
}

#[tokio::test]
async fn a_deposed_leader_can_write_nothing() {
    let space = Space::new().await;
    let (term, zombie) = (begin(&space).await, begin(&space).await);
    let mut old = leader(&zombie).await;
    let worker = worker(&term).await;
    let fed = old.feed(new_entries(2), &[]).await.unwrap();
    let candidate = below(&space, "/owned/dispatcher").await.remove(0);
    let successor = Candidacy::enter(&term, Office::Dispatcher, &candidate_data())
        .await
        .unwrap();
    space
        .zookeeper_client()
        .await
        .delete(&format!("/owned/dispatcher/{candidate}"), None)
        .await
        .unwrap();
    tokio::time::timeout(SOON, successor.until_leading())
        .await
        .unwrap()
        .unwrap();
    let mut new = coordination::Leader::take_office(&term, &successor)
        .await
        .unwrap();
    new.feed(new_entries(1), &[]).await.unwrap();

    let deposed = |error: Error| matches!(&error, Error::Deposed { path } if path.ends_with(&candidate));
    assert!(deposed(
        old.feed(new_entries(1), &[worker.number()]).await.unwrap_err()
    ));
    assert!(
        deposed(old.feed(new_entries(1), &[]).await.unwrap_err()),
        "also at the second try"
    );
    let from = vec![(fed[0].clone(), None, returned(&owned(0)))];
    assert!(deposed(old.revoke(from).await.unwrap_err()));
    assert_eq!(below(&space, "/unowned").await.len(), 3);
    assert_eq!(new.census().await.unwrap().before, 3);
}

#[tokio::test]
async fn the_roots_may_be_deleted_by_hand() {
    let space = Space::new().await;
    let term = begin(&space).await;
    let mut leading = leader(&term).await;
    let recorder = coordination::Recorder::new(&term);
    leading.feed(new_entries(5), &[]).await.unwrap();
    // Two of them: the leader still leads, and mends.
    space.delete_tree("/unowned").await;
    space.delete_tree("/done").await;
    assert!(recorder.list_done().await.unwrap().entries.is_empty());
    let worker = worker(&term).await;
    assert!(worker.list_unowned().await.unwrap().entries.is_empty());
    assert_eq!(leading.unowned_count().await.unwrap(), 0);
    let fed = leading.feed(new_entries(2), &[]).await.unwrap();
    assert_eq!(fed[0].sequence, 5, "the counter goes on");
    space.delete_tree("/done").await;
    worker.claim(to_claim(&fed)).await.unwrap();
    let failure = worker.finish(to_finish(&fed)).await.unwrap_err();
    assert!(matches!(&failure, Error::RootMissing { path } if path == "/done") && failure.is_retryable());
    leading.census().await.unwrap();
    assert_eq!(worker.finish(to_finish(&fed)).await.unwrap().done, fed);

    // All of them: whoever was in them begins a new term.
    let waiting = tokio::spawn({
        let worker = worker.clone();
        async move { worker.woken().await }
    });
    for root in ["/unowned", "/owned", "/done"] {
        space.delete_tree(root).await;
    }
    assert!(recorder.list_done().await.unwrap().entries.is_empty());
    for failure in [
        leading.feed(new_entries(1), &[]).await.unwrap_err(),
        leading.census().await.unwrap_err(),
        worker.list_unowned().await.unwrap_err(),
        worker.finish(to_finish(&fed)).await.unwrap_err(),
        tokio::time::timeout(SOON, waiting)
            .await
            .unwrap()
            .unwrap()
            .unwrap_err(),
    ] {
        assert!(matches!(failure, Error::Deposed { .. }), "{failure}");
    }
    let term = begin(&space).await;
    let mut leading = leader(&term).await;
    leading.feed(new_entries(1), &[]).await.unwrap();
}
