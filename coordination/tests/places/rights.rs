//! Digest authentication with matching rights.

use coordination::{Config, Error, Term};
use testkit::Space;

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
    assert!(!format!("{:?}", as_user(&space, Some("mill:secret"))).contains("secret"));
    // For the space to be cleaned up by somebody without the password.
    let client = zookeeper_client::Client::connector().with_auth("digest", b"mill:secret");
    let client = client.connect(&space.zookeeper()).await.unwrap();
    let acls = zookeeper_client::Acls::anyone_all();
    for path in [
        "/mill",
        "/mill/unowned",
        "/mill/done",
        "/mill/owned",
        "/mill/owned/dispatcher",
        "/mill/owned/watcher",
    ] {
        client.set_acl(path, &acls, None).await.unwrap();
    }
    drop((leader, worker));
}
