//! Both servers start, answer, freeze, die and come back with what they had.

use mongodb::bson::{Document, doc};
use servers::{Error, Mongo, MongoOptions, ZooKeeper, ZooKeeperOptions};
use std::time::Duration;

#[tokio::test]
async fn zookeeper_lives_dies_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = ZooKeeper::start(ZooKeeperOptions::new(directory.path()))
        .await
        .unwrap();
    assert_eq!(server.four_letters("ruok").await.unwrap(), "imok");
    assert!(server.srvr().await.unwrap().contains("Zookeeper version"));
    let count = |of: std::collections::BTreeMap<String, String>| of["zk_znode_count"].parse::<u64>().unwrap();
    assert!(count(server.mntr().await.unwrap()) > 0);
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", server.pid())).unwrap();
    assert!(command.contains("QuorumPeerMain"), "{command}");

    let address = server.address();
    server.kill().await;
    assert!(!server.is_running());
    assert!(server.srvr().await.is_err());
    server.restart().await.unwrap();
    assert_eq!(server.address(), address);
    server.freeze();
    assert!(server.srvr().await.is_err());
    server.thaw();
    assert!(server.srvr().await.is_ok());
    server.stop().await;
    assert!(!server.is_running());
}

#[tokio::test]
async fn zookeeper_on_a_taken_port_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = ZooKeeperOptions::new(directory.path());
    options.port = Some(taken.local_addr().unwrap().port());
    let error = ZooKeeper::start(options).await.unwrap_err();
    assert!(
        matches!(&error, Error::Died { tail, .. } if tail.contains("in use")),
        "{error}"
    );
}

#[tokio::test]
async fn two_servers_never_share_a_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Mongo::start(MongoOptions::new(directory.path())).await.unwrap();
    let error = Mongo::start(MongoOptions::new(directory.path()))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
}

#[tokio::test]
async fn mongo_keeps_what_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Mongo::start(MongoOptions::new(directory.path())).await.unwrap();
    let client = mongodb::Client::with_uri_str(server.uri_of("shop"))
        .await
        .unwrap();
    let things = client
        .default_database()
        .unwrap()
        .collection::<Document>("things");
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    things
        .insert_one(doc! { "_id": 1 })
        .session(&mut session)
        .await
        .unwrap();
    session.commit_transaction().await.unwrap();
    let pid = server.pid();
    server.kill().await;
    server.restart().await.unwrap();
    assert_ne!(server.pid(), pid);
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            // The driver may meet its dead connections first.
            if let Ok(found) = things.find_one(doc! { "_id": 1 }).await {
                break found;
            }
        }
    });
    assert!(found.await.unwrap().is_some());
    server.stop().await;
    assert!(!server.is_running());
}
