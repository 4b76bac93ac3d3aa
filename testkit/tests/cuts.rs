//! Each fault of the proxy happens to a real client of a real server, once, and is counted.

#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

use mongodb::bson::doc;
use std::time::Duration;
use testkit::proxy::{Fault, Proxy, ZkOp};
use testkit::{Space, wait};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error};

const DEADLINE: Duration = Duration::from_secs(20);

fn persistent() -> CreateOptions<'static> {
    CreateMode::Persistent.with_acls(Acls::anyone_all())
}

async fn start() -> (Space, Proxy, Client) {
    let space = Space::new().await;
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    let client = Client::connect(&space.zookeeper_through(proxy.address()))
        .await
        .unwrap();
    (space, proxy, client)
}

#[tokio::test]
async fn a_lost_reply_leaves_the_deed() {
    let (space, proxy, client) = start().await;
    proxy.drop_reply_to(ZkOp::CREATE2);
    let error = client.create("/done", b"", &persistent()).await.unwrap_err();
    assert_eq!(error, Error::ConnectionLoss);
    assert_eq!(proxy.fired(), 1);
    assert!(space.tree().await.contains_key("/done"), "the server did it");
    // It happens once, and the client comes back on a line of its own accord.
    let again = wait::until("the session to go on", DEADLINE, async || {
        match client.create("/done", b"", &persistent()).await {
            Err(Error::ConnectionLoss) => None,
            other => Some(other.map(drop)),
        }
    });
    assert_eq!(again.await, Err(Error::NodeExists));
    assert_eq!(proxy.fired(), 1);
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn a_lost_request_leaves_nothing() {
    let (space, proxy, client) = start().await;
    proxy.drop_request(ZkOp::CREATE2);
    assert_eq!(
        client.create("/done", b"", &persistent()).await.unwrap_err(),
        Error::ConnectionLoss
    );
    assert_eq!(proxy.fired(), 1);
    assert!(space.tree().await.is_empty());
}

#[tokio::test]
async fn a_cut_after_the_reply_lets_it_pass() {
    let (_space, proxy, client) = start().await;
    proxy.cut_after_reply_to(ZkOp::CREATE2);
    client.create("/done", b"", &persistent()).await.unwrap();
    assert_eq!(proxy.fired(), 1);
    wait::until_true("a new line", DEADLINE, async || proxy.connections() == 2).await;
}

#[tokio::test]
async fn a_choice_looks_into_the_request() {
    let (space, proxy, client) = start().await;
    let mut creates = 0;
    proxy.arm(Fault::LoseReply, move |request| {
        creates += usize::from(request.op == ZkOp::MULTI && request.mentions("/b-"));
        creates == 2
    });
    for name in ["/a-1", "/b-1", "/b-2"] {
        let mut multi = client.new_multi_writer();
        multi.add_create(name, b"", &persistent()).unwrap();
        assert_eq!(multi.commit().await.is_ok(), name != "/b-2", "{name}");
    }
    assert_eq!(proxy.fired(), 1);
    assert_eq!(space.tree().await.len(), 3);
}

#[tokio::test]
async fn requests_are_counted_by_kind() {
    let (_space, proxy, client) = start().await;
    assert_eq!(proxy.requests(ZkOp::CONNECT), 1);
    proxy.reset_counts();
    client.create("/done", b"", &persistent()).await.unwrap();
    for _ in 0..3 {
        client.get_data("/done").await.unwrap();
    }
    assert_eq!(proxy.requests(ZkOp::CREATE2), 1);
    assert_eq!(proxy.requests(ZkOp::GET_DATA), 3);
    assert_eq!(proxy.requests_total(), 4);
    assert!(proxy.request_bytes(ZkOp::CREATE2) > 12);
}

#[tokio::test]
async fn an_outage_longer_than_the_session_ends_it() {
    let space = Space::new().await;
    let proxy = Proxy::zookeeper(space.zookeeper_address()).await;
    let connector = Client::connector().with_session_timeout(testkit::servers::MIN_SESSION_TIMEOUT);
    let client = connector
        .connect(&space.zookeeper_through(proxy.address()))
        .await
        .unwrap();
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    client.create("/alive", b"", &ephemeral).await.unwrap();
    proxy.down();
    wait::until_true("the server to give the session up", DEADLINE, async || {
        space.tree().await.is_empty()
    })
    .await;
    proxy.accept();
    wait::until_true("the client to notice", DEADLINE, async || {
        matches!(
            client.get_data("/").await,
            Err(Error::SessionExpired | Error::ClientClosed)
        )
    })
    .await;
}

#[tokio::test]
async fn a_stalled_line_holds_bytes_back() {
    let (_space, proxy, client) = start().await;
    proxy.stall();
    let mut asking = Box::pin(client.create("/done", b"", &persistent()));
    assert!(
        tokio::time::timeout(Duration::from_millis(100), &mut asking)
            .await
            .is_err()
    );
    proxy.resume();
    asking.await.unwrap();
}

#[tokio::test]
async fn a_plain_proxy_carries_mongodb() {
    let space = Space::new().await;
    let proxy = Proxy::plain(space.mongodb_address()).await;
    let driver = mongodb::Client::with_uri_str(space.mongodb_through(proxy.address()))
        .await
        .unwrap();
    let database = driver.default_database().unwrap();
    database.run_command(doc! { "ping": 1 }).await.unwrap();
    assert!(proxy.bytes().0 > 0 && proxy.bytes().1 > 0);
    proxy.down();
    assert!(database.run_command(doc! { "ping": 1 }).await.is_err());
    proxy.accept();
    wait::until_ok("MongoDB through the proxy again", DEADLINE, async || {
        database.run_command(doc! { "ping": 1 }).await
    })
    .await;
}
