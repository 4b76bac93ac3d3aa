//! Spaces are apart from each other, and private servers can be killed.

use mongodb::bson::{Document, doc};
use std::time::Duration;
use testkit::{Space, wait};
use zookeeper_client::{Acls, Client, CreateMode};

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn two_spaces_do_not_see_each_other() {
    let (one, two) = (Space::new().await, Space::new().await);
    assert_ne!(one.database(), two.database());
    let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let client = one.zookeeper_client().await;
    client.create("/unowned", b"7", &persistent).await.unwrap();
    client.create("/unowned/entry", b"x", &persistent).await.unwrap();
    let tree: Vec<_> = one.tree().await.into_iter().collect();
    assert_eq!(
        tree,
        [
            ("/unowned".into(), "7".into()),
            ("/unowned/entry".into(), "x".into())
        ]
    );
    assert!(two.tree().await.is_empty());

    one.mongo()
        .await
        .collection::<Document>("jobs")
        .insert_one(doc! { "_id": 1 })
        .await
        .unwrap();
    assert_eq!(
        two.mongo()
            .await
            .collection::<Document>("jobs")
            .count_documents(doc! {})
            .await
            .unwrap(),
        0
    );
    let by_uri = mongodb::Client::with_uri_str(one.mongodb()).await.unwrap();
    assert_eq!(by_uri.default_database().unwrap().name(), one.database());

    one.delete_tree("/unowned").await;
    assert!(one.tree().await.is_empty());
}

#[tokio::test]
async fn a_dropped_space_leaves_nothing() {
    let space = Space::new().await;
    let client = Client::connect(space.zookeeper_address()).await.unwrap();
    let driver = space.mongo().await;
    driver
        .collection::<Document>("jobs")
        .insert_one(doc! { "_id": 1 })
        .await
        .unwrap();
    let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client
        .create(&format!("{}/done", space.chroot()), b"", &persistent)
        .await
        .unwrap();
    let (chroot, database) = (space.chroot(), space.database().to_owned());
    assert!(client.check_stat(&chroot).await.unwrap().is_some());
    drop(space);
    assert!(client.check_stat(&chroot).await.unwrap().is_none());
    assert!(
        !driver
            .client()
            .list_database_names()
            .await
            .unwrap()
            .contains(&database)
    );
}

#[tokio::test]
async fn private_servers_die_and_come_back() {
    let mut space = Space::private().await;
    let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
    space
        .zookeeper_client()
        .await
        .create("/kept", b"", &persistent)
        .await
        .unwrap();
    space.servers().zookeeper.kill().await;
    assert!(
        Client::connector()
            .with_fail_eagerly()
            .connect(&space.zookeeper())
            .await
            .is_err()
    );
    space.servers().zookeeper.restart().await.unwrap();
    assert!(space.tree().await.contains_key("/kept"));

    space.servers().mongo.freeze();
    let answer = tokio::time::timeout(Duration::from_millis(300), async {
        space.mongo().await.run_command(doc! { "ping": 1 }).await
    });
    assert!(answer.await.is_err(), "a frozen server answers nothing");
    space.servers().mongo.thaw();
    wait::until_ok("MongoDB to answer again", DEADLINE, async || {
        space.mongo().await.run_command(doc! { "ping": 1 }).await
    })
    .await;
}

#[tokio::test]
async fn sessions_are_as_short_as_promised() {
    let space = Space::new().await;
    let connector = Client::connector().with_session_timeout(testkit::servers::MIN_SESSION_TIMEOUT);
    let client = connector.connect(&space.zookeeper()).await.unwrap();
    assert_eq!(client.session_timeout(), testkit::servers::MIN_SESSION_TIMEOUT);
}
