//! What others put under the roots by hand: skipped, reported, never deleted, never a crash.

use coordination::{Recorder, Snapshot};
use model::outcome::Outcome;
use testkit::Space;
use zookeeper_client::{Acls, Client, CreateMode};

use crate::*;

async fn put(client: &Client, path: &str, data: &[u8]) {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.create(path, data, &options).await.unwrap();
}

#[tokio::test]
async fn garbage_is_skipped_and_reported() {
    let space = Space::new().await;
    let (term, mortal) = (begin(&space).await, begin(&space).await);
    let mut leader = leader(&term).await;
    let (worker, dying) = (worker(&term).await, worker(&mortal).await);
    let client = space.zookeeper_client().await;
    let garbage = [
        "/unowned/hello".to_string(),
        "/unowned/entry-1-d:1-0000000001".into(),
        "/owned/hello".into(),
        "/owned/worker-1".into(),
        "/owned/worker-0000000099".into(),
        format!("/owned/{}/hello", worker.number()),
        format!("/owned/{}/hello", dying.number()),
        "/done/hello".into(),
        "/done/hello/deep".into(),
    ];
    for path in &garbage {
        put(&client, path, b"{\"what\":").await;
    }
    // Before every real candidate, and of a name that one could have.
    put(&client, "/owned/watcher/candidate-0000000000", b"").await;
    let foreign = "/owned/worker-0000000001/entry-100-d:1-0000000000";
    put(&client, foreign, b"?").await;

    let fed = leader.feed(new_entries(3), &[worker.number()]).await.unwrap();
    assert_eq!(worker.list_unowned().await.unwrap().strange, 2);
    assert_eq!(dying.claim(to_claim(&fed[..1])).await.unwrap().won, fed[..1]);
    let census = leader.census().await.unwrap();
    let mut strange: Vec<&str> = census
        .strange
        .iter()
        .map(|strange| strange.path.as_str())
        .collect();
    strange.sort_unstable();
    let mut expected: Vec<&str> = garbage
        .iter()
        .map(String::as_str)
        .filter(|path| !path.ends_with("deep"))
        .collect();
    expected.sort_unstable();
    assert_eq!(strange, expected);
    let headers = leader.read_headers(&census).await.unwrap();
    assert_eq!(headers.iter().filter(|(.., data)| data.is_err()).count(), 1);
    assert_eq!(worker.members().await.unwrap().len(), 2);

    let recorder = Recorder::new(&term);
    assert_eq!(recorder.list_done().await.unwrap().strange, 1);
    let watcher = Candidacy::enter(&term, Office::Watcher, &candidate_data())
        .await
        .unwrap();
    tokio::time::timeout(SOON, watcher.until_leading())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(watcher.peers().await.unwrap(), [watcher.name()]);

    mortal.close().await;
    let recovered = leader
        .recovery()
        .recover(dying.number(), |data| done_with(data, Outcome::Lost))
        .await
        .unwrap();
    assert_eq!((recovered.moved, recovered.folder_gone), (1, false));
    assert_eq!(recovered.strange.len(), 2, "{:?}", recovered.strange);
    let snapshot = Snapshot::take(&term).await.unwrap();
    assert_eq!(snapshot.dispatchers.len() + snapshot.watchers.len(), 2);
    let tree = space.tree().await;
    for path in garbage.iter().map(String::as_str).chain([foreign]) {
        assert!(tree.contains_key(path), "{path} was deleted");
    }
}

#[tokio::test]
async fn something_foreign_in_the_way_stops_nobody_else() {
    let space = Space::new().await;
    let term = begin(&space).await;
    let mut leader = leader(&term).await;
    let worker = worker(&term).await;
    let client = space.zookeeper_client().await;
    leader.feed(new_entries(1), &[]).await.unwrap();
    // A name that the leader is about to give.
    put(&client, "/unowned/entry-100-d:1-0000000002", b"").await;
    let fed = leader.feed(new_entries(3), &[]).await.unwrap();
    let sequences: Vec<u64> = fed.iter().map(|name| name.sequence).collect();
    assert_eq!(sequences, [2, 3, 4], "a gap instead of a clash");

    put(&client, &format!("/unowned/{}/child", fed[1]), b"").await;
    let claimed = worker.claim(to_claim(&fed)).await.unwrap();
    assert_eq!(
        (claimed.won, claimed.missed),
        (vec![fed[0].clone(), fed[2].clone()], vec![fed[1].clone()])
    );
    put(&client, &format!("/done/{}", fed[2]), b"").await;
    let finished = worker
        .finish(to_finish(&[fed[0].clone(), fed[2].clone()]))
        .await
        .unwrap();
    assert_eq!(finished.done, fed[..1]);
    assert_eq!(finished.stuck[0].1.path, format!("/done/{}", fed[2]));
}

#[tokio::test]
async fn counters_written_by_hand_are_survived() {
    let space = Space::new().await;
    let term = begin(&space).await;
    let mut leading = leader(&term).await;
    let first = worker(&term).await;
    leading.feed(new_entries(2), &[]).await.unwrap();
    let client = space.zookeeper_client().await;
    client.set_data("/unowned", b"hello", None).await.unwrap();
    client.set_data("/owned", b"", None).await.unwrap();
    assert_eq!(leading.feed(new_entries(1), &[]).await.unwrap()[0].sequence, 2);
    assert_eq!(worker(&term).await.number().0, first.number().0 + 1);
    client.set_data("/unowned", b"", None).await.unwrap();
    let second = begin(&space).await;
    term.close().await;
    let leading = leader(&second).await;
    assert_eq!(leading.next_sequence(), 3, "behind the highest in use");
    client
        .set_data("/unowned", br#"{"v":99,"next":7}"#, None)
        .await
        .unwrap();
    let third = begin(&space).await;
    second.close().await;
    let candidacy = candidate(&third).await;
    candidacy.until_leading().await.unwrap();
    let failure = coordination::Leader::take_office(&third, &candidacy)
        .await
        .unwrap_err();
    assert!(
        failure.to_string().contains("/unowned") && failure.to_string().contains("upgrade"),
        "{failure}"
    );
}
