//! Digest authentication with matching rights: one user for all roles, or one for each.

use coordination::{Acceptance, Attachment, Candidacy, Config, Error, Office, Term, UserId, Users, rights};
use model::znode::{ClientData, WorkerOffer};
use testkit::{
    Space,
    proxy::{Fault, Proxy, ZkOp},
};
use zookeeper_client::{Client, CreateMode};

use crate::*;

fn as_user(space: &Space, auth: Option<&str>) -> Config {
    Config {
        auth: auth.map(Into::into),
        ..config(format!("{}/mill", space.zookeeper()))
    }
}

#[tokio::test]
async fn another_user_is_told_where_it_has_no_right() {
    let space = Space::new().await;
    let term = Term::begin(&as_user(&space, Some("mill:secret"))).await.unwrap();
    let mut leader = leader(&term).await;
    let worker = worker(&term).await;
    let fed = leader.feed(new_entries(2), &[worker.number()]).await.unwrap();
    worker.claim(to_claim(&fed)).await.unwrap();
    worker.finish(to_finish(&fed)).await.unwrap();

    for auth in [None, Some("mill:wrong"), Some("other:secret")] {
        let failure = Term::begin(&as_user(&space, auth)).await.unwrap_err();
        assert!(
            matches!(&failure, Error::NoAuth { path } if path == "/unowned"),
            "{auth:?}: {failure}"
        );
        assert!(!failure.is_retryable());
    }
    let again = Term::begin(&as_user(&space, Some("mill:secret"))).await.unwrap();
    assert_eq!(
        coordination::Snapshot::take(&again)
            .await
            .unwrap()
            .census
            .done
            .len(),
        2
    );
    assert_eq!(rights::loose(&again).await.unwrap(), []);
    assert!(!format!("{:?}", as_user(&space, Some("mill:secret"))).contains("secret"));
    drop((leader, worker));
}

/// The users of a test; the passwords are of a generation.
fn users(generation: u32) -> Users {
    let id = |role| UserId::of(&credentials(role, generation)).unwrap();
    Users::new(id("admin"), id("dispatcher"), id("worker"), id("watcher")).unwrap()
}

fn credentials(role: &str, generation: u32) -> String {
    format!("{role}:secret{generation}")
}

async fn term_of(space: &Space, role: &str) -> Term {
    let auth = credentials(role, 1);
    Term::begin(&as_user(space, Some(&auth))).await.unwrap()
}

/// A session of a role that does what it likes.
async fn rogue(space: &Space, role: &str) -> Client {
    let auth = credentials(role, 1);
    let connector = Client::connector().with_auth("digest", auth.as_bytes());
    let client = connector.connect(&space.zookeeper()).await.unwrap();
    client.chroot(format!("{}/mill", space.chroot())).unwrap()
}

async fn protected() -> Space {
    let space = Space::new().await;
    let admin = credentials("admin", 1);
    let count = rights::protect(&as_user(&space, Some(&admin)), &[], &users(1), false).await;
    assert_eq!(
        count.unwrap(),
        7,
        "chroot, three roots, two offices, and who may what"
    );
    space
}

fn agent() -> ClientData {
    ClientData {
        v: FORMAT,
        agent: Name::new("web7").unwrap(),
        instance: uuid::Uuid::from_u128(7),
        incarnation: 1,
        host: "there".into(),
        zone: String::new(),
        version: "0".into(),
        avoid: Vec::new(),
        offer: None,
    }
}

#[tokio::test]
async fn each_role_does_its_steps_as_its_own_user() {
    let space = protected().await;
    let (dispatching, working, watching) = (
        term_of(&space, "dispatcher").await,
        term_of(&space, "worker").await,
        term_of(&space, "watcher").await,
    );
    let mut leader = leader(&dispatching).await;
    let here = worker(&working).await;
    let other_term = term_of(&space, "worker").await;
    let there = worker(&other_term).await;
    let recording = Candidacy::enter(&watching, Office::Watcher, &candidate_data())
        .await
        .unwrap();
    recording.until_leading().await.unwrap();

    // Feed, claim, finish, revoke, record.
    let fed = leader.feed(new_entries(600), &[here.number()]).await.unwrap();
    here.woken().await.unwrap();
    here.claim(to_claim(&fed[..3])).await.unwrap();
    here.finish(to_finish(&fed[..1])).await.unwrap();
    there.claim(to_claim(&fed[3..4])).await.unwrap();
    let revoked = leader
        .revoke(vec![(fed[1].clone(), Some(here.number()), returned(&owned(1)))])
        .await;
    assert_eq!(revoked.unwrap().len(), 1);
    let recorder = coordination::Recorder::new(&watching);
    assert_eq!(
        recorder.list_done().await.unwrap().entries,
        sorted(fed[..2].to_vec())
    );
    recorder.clear(fed[..2].to_vec()).await.unwrap();

    // An agent: attached, offered, accepted, moved.
    let Attachment::Attached(mut attached) = coordination::clients::attach(&dispatching, &agent())
        .await
        .unwrap()
    else {
        panic!("not attached");
    };
    let waiting = leader.waiting().await.unwrap();
    let offer = WorkerOffer {
        number: 1,
        worker: here.number().0,
        node: Name::new("node").unwrap(),
        endpoint: "127.0.0.1:1".into(),
    };
    assert!(leader.offer(&waiting[0], &offer).await.unwrap());
    attached.changed().await.unwrap();
    assert_eq!(here.accept(&agent()).await.unwrap(), Acceptance::Held);
    assert!(leader.move_client(here.number(), &agent().agent).await.unwrap());

    // A worker resigns and leaves an entry, another dies: the leader deletes both folders.
    let dead = there.number();
    there.resign().await.unwrap();
    drop(other_term);
    let recovered = leader.recovery().recover(dead, returned).await.unwrap();
    assert!((recovered.moved, recovered.folder_gone) == (1, true));
    let gone = here.number();
    drop(here);
    working.close().await;
    let recovered = leader.recovery().recover(gone, returned).await.unwrap();
    assert!((recovered.moved, recovered.folder_gone) == (1, true));

    let operator = term_of(&space, "admin").await;
    for term in [&operator, &dispatching, &watching] {
        assert_eq!(rights::loose(term).await.unwrap(), []);
        let seen = coordination::Snapshot::take(term).await.unwrap();
        assert_eq!((seen.census.unowned.len(), seen.census.done.len()), (596, 2));
    }
    recording.withdraw().await;
}

#[tokio::test]
async fn no_role_does_the_steps_of_another() {
    let space = protected().await;
    let dispatching = term_of(&space, "dispatcher").await;
    let mut leader = leader(&dispatching).await;
    let working = term_of(&space, "worker").await;
    let worker = worker(&working).await;
    let fed = leader.feed(new_entries(3), &[]).await.unwrap();
    worker.claim(to_claim(&fed[..1])).await.unwrap();
    worker.finish(to_finish(&fed[..1])).await.unwrap();
    worker.claim(to_claim(&fed[1..2])).await.unwrap();
    let candidate = leader_candidate(&space).await;
    let folder = format!("/owned/{}", worker.number());
    let owned = Place::Owned(worker.number()).entry(&fed[1]);
    let (waiting, done) = (Place::Unowned.entry(&fed[2]), Place::Done.entry(&fed[0]));
    let alive = format!("{folder}/alive");

    let own = CreateMode::Persistent.with_acls(zookeeper_client::Acls::creator_all());
    let no = zookeeper_client::Error::NoAuth;
    // A stranger of the same role, too: another worker in the folder of this one.
    let creates = [
        ("watcher", "/unowned/x".to_string()),
        ("watcher", "/done/x".into()),
        ("watcher", "/owned/worker-0000000009".into()),
        ("watcher", "/owned/dispatcher/candidate-0000000000".into()),
        ("worker", "/unowned/x".into()),
        ("worker", format!("{folder}/x")),
        ("worker", "/owned/dispatcher/candidate-0000000000".into()),
        ("worker", "/owned/watcher/candidate-0000000000".into()),
        ("worker", "/x".into()),
        ("dispatcher", format!("{folder}/x")),
        ("dispatcher", "/owned/watcher/candidate-0000000000".into()),
    ];
    for (role, path) in &creates {
        let made = rogue(&space, role).await.create(path, b"", &own).await.map(drop);
        assert_eq!(made, Err(no.clone()), "{role} creates {path}");
    }
    let deletes = [
        ("watcher", &waiting),
        ("watcher", &owned),
        ("watcher", &candidate),
        ("watcher", &alive),
        ("worker", &owned),
        ("worker", &alive),
        ("worker", &done),
        ("worker", &candidate),
        ("dispatcher", &done),
    ];
    for (role, path) in deletes {
        let deleted = rogue(&space, role).await.delete(path, None).await;
        assert_eq!(deleted, Err(no.clone()), "{role} deletes {path}");
    }
    let writes = [
        ("watcher", "/unowned"),
        ("watcher", "/owned"),
        ("watcher", "/rights"),
        ("worker", "/unowned"),
        ("worker", "/rights"),
        ("worker", &folder),
        ("worker", &waiting),
        ("dispatcher", "/rights"),
        ("dispatcher", &owned),
        ("dispatcher", &candidate),
    ];
    for (role, path) in writes {
        let client = rogue(&space, role).await;
        let written = client.set_data(path, b"{}", None).await.map(drop);
        assert_eq!(written, Err(no.clone()), "{role} writes {path}");
        let opened = client
            .set_acl(path, &zookeeper_client::Acls::anyone_all(), None)
            .await;
        assert_eq!(opened.map(drop), Err(no.clone()), "{role} opens {path}");
    }
    // Nobody, and who has the old password, see nothing.
    for auth in [None, Some("worker:wrong")] {
        let failure = Term::begin(&as_user(&space, auth)).await.unwrap_err();
        assert!(matches!(&failure, Error::NoAuth { .. }), "{auth:?}: {failure}");
        let nobody = space.zookeeper_client().await;
        for path in ["/mill", "/mill/rights", "/mill/unowned", &format!("/mill{owned}")] {
            let listed = nobody.list_children(path).await.map(drop);
            assert_eq!(listed, Err(no.clone()), "{path}");
            let read = nobody.get_data(path).await.map(drop);
            assert_eq!(read, Err(no.clone()), "{path}");
        }
    }
    // The session that is the worker can still do what it was about to.
    worker.finish(to_finish(&fed[1..2])).await.unwrap();
}

/// The path of the only candidate for the office of the dispatcher.
async fn leader_candidate(space: &Space) -> String {
    let admin = rogue(space, "admin").await;
    let names = admin.list_children("/owned/dispatcher").await.unwrap();
    format!("/owned/dispatcher/{}", names[0])
}

#[tokio::test]
async fn passwords_change_and_what_is_loose_is_told() {
    let space = protected().await;
    let working = term_of(&space, "worker").await;
    let worker = worker(&working).await;
    let admins = [credentials("admin", 1), credentials("admin", 2)];
    let by = as_user(&space, Some(&admins[0]));
    let refused = rights::protect(&by, &[&admins[1]], &users(2), false)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, Error::LiveSessions { paths } if paths.len() == 1),
        "{refused}"
    );
    let role = Term::begin(&as_user(&space, Some(&credentials("worker", 1)))).await;
    assert!(role.is_ok(), "a refusal changes nothing");
    for _ in 0..2 {
        // Again, as after a kill between the two.
        let count = rights::protect(&by, &[&admins[1]], &users(2), true)
            .await
            .unwrap();
        assert_eq!(count, 9);
    }
    let failure = Term::begin(&as_user(&space, Some(&credentials("worker", 1)))).await;
    assert!(matches!(failure, Err(Error::NoAuth { path }) if path == "/rights"));
    let operator = Term::begin(&as_user(&space, Some(&admins[1]))).await.unwrap();
    assert_eq!(rights::loose(&operator).await.unwrap(), []);

    // Its folder is still the worker's; what it registered is not lost.
    let term = Term::begin(&as_user(&space, Some(&credentials("dispatcher", 2))))
        .await
        .unwrap();
    let mut leader = leader(&term).await;
    let fed = leader.feed(new_entries(1), &[worker.number()]).await.unwrap();
    assert_eq!(fed.len(), 1);

    let client = Client::connector().with_auth("digest", admins[1].as_bytes());
    let client = client.connect(&space.zookeeper()).await.unwrap();
    client
        .set_acl("/mill/done", &zookeeper_client::Acls::anyone_all(), None)
        .await
        .unwrap();
    let loose = rights::loose(&operator).await.unwrap();
    assert_eq!(loose.len(), 1, "{loose:?}");
    assert_eq!(
        (loose[0].path.as_str(), &loose[0].found[0][..9]),
        ("/done", "everybody")
    );

    let rootless = Config {
        auth: Some(admins[1].clone()),
        ..config(space.zookeeper_address())
    };
    let failure = rights::protect(&rootless, &[], &users(2), false)
        .await
        .unwrap_err();
    assert!(matches!(failure, Error::BadAddress { .. }), "{failure}");
}

#[tokio::test]
async fn a_worker_is_itself_again_after_a_lost_connection() {
    let space = protected().await;
    let dispatching = term_of(&space, "dispatcher").await;
    let mut leader = leader(&dispatching).await;
    let fed = leader.feed(new_entries(2), &[]).await.unwrap();
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    let through = Config {
        auth: Some(credentials("worker", 1)),
        ..config(format!("{}/mill", space.zookeeper_through(proxy.address())))
    };
    let working = Term::begin(&through).await.unwrap();
    let worker = worker(&working).await;
    proxy.arm(Fault::LoseRequest, |request| {
        request.op == ZkOp::MULTI && request.mentions("/unowned/entry")
    });
    let claimed = worker.claim(to_claim(&fed)).await.unwrap();
    assert_eq!((proxy.fired(), claimed.won.len()), (1, 2));
}

/// The error of a role.
#[derive(Debug)]
pub(crate) struct OfRole(pub(crate) Error);

impl From<Error> for OfRole {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl std::fmt::Display for OfRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl coordination::terms::TermError for OfRole {
    fn is_fatal(&self) -> bool {
        self.0.is_fatal()
    }
}

#[tokio::test]
async fn who_was_running_puts_the_rights_back_on_an_emptied_zookeeper() {
    let space = protected().await;
    let dispatching = as_user(&space, Some(&credentials("dispatcher", 1)));
    let stop = tokio_util::sync::CancellationToken::new();
    let terms = std::cell::Cell::new(0);
    let ended: Result<(), OfRole> = coordination::terms::serve(&dispatching, &stop, "dispatcher", |term| {
        terms.set(terms.get() + 1);
        let (space, stop, count) = (&space, &stop, terms.get());
        async move {
            if count == 1 {
                empty(space).await;
            } else {
                assert_eq!(term.users(), Some(&users(1)));
                assert_eq!(rights::loose(&term).await.unwrap(), []);
                stop.cancel();
            }
            Ok(())
        }
    })
    .await;
    ended.unwrap();
    assert_eq!(terms.get(), 2);
    let worker_term = term_of(&space, "worker").await;
    assert!(worker_term.users().is_some());
}

/// Deletes all, as somebody who administers ZooKeeper may.
async fn empty(space: &Space) {
    let admin = rogue(space, "admin").await;
    for path in ["/rights", "/unowned", "/done"] {
        admin.delete(path, None).await.unwrap();
    }
    for path in ["/owned/dispatcher", "/owned/watcher", "/owned"] {
        admin.delete(path, None).await.unwrap();
    }
    space.delete_tree("/mill").await;
}
