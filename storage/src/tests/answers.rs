//! Answers as documents: whole, once, and only of the latest run of a merge.

use bson::{Bson, Document, doc};
use futures::TryStreamExt;
use model::answer::{Rows, Value};
use mongodb::options::FindOptions;

use super::*;
use crate::{Error, MergeRun, Retention, schema::ROWS};

fn rows(columns: &[&str], rows: Vec<Vec<Value>>) -> Rows {
    Rows {
        columns: columns.iter().map(ToString::to_string).collect(),
        rows: Box::new(rows.into_iter()),
    }
}

/// `count` rows with their own number.
fn numbered(count: i64) -> Rows {
    rows(&["n"], (0..count).map(|n| vec![Value::Integer(n)]).collect())
}

impl Fresh {
    async fn all(&self, collection: &str) -> Vec<Document> {
        let in_order = FindOptions::builder().sort(doc! { "_id": 1 }).build();
        let found = self
            .store
            .documents(collection)
            .find(doc! {})
            .with_options(in_order)
            .await;
        found.unwrap().try_collect().await.unwrap()
    }

    async fn numbers(&self, collection: &str) -> Vec<i64> {
        let all = self.all(collection).await;
        all.iter().map(|row| row.get_i64("n").unwrap()).collect()
    }
}

#[tokio::test]
async fn only_the_latest_run_of_a_merge_keeps_its_rows() {
    let fresh = Fresh::new().await;
    let (job, other) = (fresh.admitted(0, true).await, fresh.admitted(0, true).await);
    let run = |attempt| MergeRun { job, attempt };
    let elsewhere = MergeRun {
        job: other,
        attempt: 1,
    };
    assert!(fresh.store.keep_rows(elsewhere, numbered(2)).await.unwrap());
    assert!(fresh.store.keep_rows(run(2), numbered(5)).await.unwrap());
    assert!(
        fresh.store.keep_rows(run(2), numbered(4)).await.unwrap(),
        "repeated"
    );
    assert!(
        !fresh.store.keep_rows(run(1), numbered(7)).await.unwrap(),
        "a zombie"
    );
    assert_eq!(fresh.documents(ROWS).await, 6);
    assert!(
        fresh.store.keep_rows(run(3), numbered(0)).await.unwrap(),
        "nothing in its place"
    );
    assert_eq!(fresh.documents(ROWS).await, 2);
    assert!(fresh.store.keep_rows(run(4), numbered(3)).await.unwrap());

    fresh.record(vec![succeeded(job, 0, 1)]).await;
    assert!(
        !fresh.store.keep_rows(run(5), numbered(9)).await.unwrap(),
        "the job has ended"
    );
    assert_eq!(fresh.documents(ROWS).await, 5);

    // They stay as long as the job, which outlives its results.
    let now = fresh.job(job).await.finished_ms.unwrap();
    let day = 24 * 3600 * 1000;
    for (days, left) in [(8, 5), (31, 2)] {
        fresh
            .store
            .prune(now + days * day, Retention::default())
            .await
            .unwrap();
        assert_eq!(fresh.documents(ROWS).await, left, "after {days} days");
    }
}

#[tokio::test]
async fn types_are_kept() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(0, true).await;
    let columns = ["job", "sum(t.bytes)", "d", "e", "f", "g", "h", "h", "i", "j", "k"];
    let digits = "1".repeat(40);
    let row = vec![
        Value::Text("web".into()),
        Value::Integer(i64::MIN),
        Value::Decimal("-12.50".into()),
        Value::Decimal(digits.clone()),
        Value::Float(0.5),
        Value::Boolean(true),
        Value::Date(1_500),
        Value::Null,
        Value::List(vec![Value::Integer(1), Value::Null]),
        Value::Struct(vec![("x.y".into(), Value::Text("z".into()))]),
        Value::Bytes(vec![0xff]),
    ];
    let kept = rows(&columns, vec![row]);
    assert!(
        fresh
            .store
            .keep_rows(MergeRun { job, attempt: 1 }, kept)
            .await
            .unwrap()
    );
    let mut found = fresh.all(ROWS).await.remove(0);
    assert!(matches!(found.remove("_id"), Some(Bson::Binary(_))));
    assert_eq!(found.remove("job"), Some(Bson::from(crate::schema::uuid(job))));
    assert_eq!(
        found.remove("k").map(|bytes| bytes.to_string().is_empty()),
        Some(false)
    );
    let expected = doc! {
        "job_2": "web",
        "sum(t_bytes)": i64::MIN,
        "d": Bson::Decimal128("-12.50".parse().unwrap()),
        "e": digits,
        "f": 0.5,
        "g": true,
        "h": bson::DateTime::from_millis(1500),
        "h_2": Bson::Null,
        "i": [1_i64, Bson::Null],
        "j": { "x_y": "z" },
    };
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_collection_is_replaced_as_a_whole() {
    let fresh = Fresh::new().await;
    let job = fresh.admitted(0, true).await;
    let store = &fresh.store;
    let run = |attempt| MergeRun { job, attempt };
    // What another program keeps there stays.
    let others = store.documents("top");
    others.insert_one(doc! { "_id": "old" }).await.unwrap();
    let refused = store.keep_collection("top", run(2), numbered(3)).await;
    assert!(
        matches!(&refused, Err(Error::Taken { what }) if what.contains("top")),
        "{refused:?}"
    );
    assert_eq!(fresh.documents("top").await, 1);
    let late = async {
        others.insert_one(doc! { "_id": "made meanwhile" }).await.unwrap();
        Ok(true)
    };
    others.drop().await.unwrap();
    let refused = store
        .replace_collection("top", &format!("{job}-2"), numbered(3), late)
        .await;
    assert!(matches!(refused, Err(Error::Taken { .. })), "{refused:?}");
    assert_eq!(fresh.documents("top").await, 1);
    others.drop().await.unwrap();
    assert_eq!(
        store
            .keep_collection("top", run(2), numbered(25_000))
            .await
            .unwrap(),
        Some(25_000)
    );
    assert_eq!(fresh.numbers("top").await, (0..25_000).collect::<Vec<_>>());
    assert_eq!(
        store.keep_collection("top", run(1), numbered(3)).await.unwrap(),
        None,
        "a zombie"
    );
    assert_eq!(fresh.documents("top").await, 25_000);
    // What fails on the way leaves the old rows.
    let never = async { Err(Error::NotFound { what: "it".into() }) };
    assert!(
        store
            .replace_collection("top", &format!("{job}-7"), numbered(1), never)
            .await
            .is_err()
    );
    assert_eq!(fresh.documents("top").await, 25_000);
    assert_eq!(
        store.keep_collection("top", run(3), numbered(0)).await.unwrap(),
        Some(0)
    );
    assert_eq!(fresh.documents("top").await, 0);
    let refused = store.keep_collection("jobs", run(4), numbered(1)).await;
    assert!(matches!(refused, Err(Error::BadCollection { .. })), "{refused:?}");

    let left = async || {
        let names = store.db().list_collection_names().await.unwrap();
        names.iter().filter(|name| name.starts_with("filling_")).count()
    };
    let now = fresh.job(job).await.submitted_ms;
    assert_eq!(left().await, 1, "the one that failed");
    store.prune(now, Retention::default()).await.unwrap();
    assert_eq!(left().await, 1, "its job still runs");
    fresh.record(vec![succeeded(job, 0, 1)]).await;
    store.prune(now, Retention::default()).await.unwrap();
    assert_eq!(left().await, 0);
    assert!(
        store
            .db()
            .list_collection_names()
            .await
            .unwrap()
            .contains(&"top".to_string())
    );
}

#[tokio::test]
async fn collections_that_releases_without_marks_made_are_replaced() {
    let fresh = Fresh::new().await;
    let store = &fresh.store;
    let mut asked = job(0, true);
    asked.spec.processor = Processor::Query(model::processor::Query {
        into: Some("top".into()),
        ..Default::default()
    });
    asked.state = JobState::Successful;
    let id = asked.id;
    let top = store.documents("top");
    top.insert_many([0_i64, 1].map(|number| doc! { "_id": number, "n": number }))
        .await
        .unwrap();
    let checked = store.check_replaceable("top").await;
    assert!(
        matches!(checked, Err(Error::Taken { .. })),
        "no job is known that made it: {checked:?}"
    );
    store.submit(vec![asked]).await.unwrap();
    assert!(store.check_replaceable("top").await.unwrap());
    top.insert_one(doc! { "_id": "of another program" })
        .await
        .unwrap();
    let checked = store.check_replaceable("top").await;
    assert!(
        matches!(checked, Err(Error::Taken { .. })),
        "somebody else keeps something there: {checked:?}"
    );
    top.delete_one(doc! { "_id": "of another program" })
        .await
        .unwrap();
    let go_ahead = async { Ok(true) };
    let filled = store
        .replace_collection("top", &format!("{id}-1"), numbered(5), go_ahead)
        .await;
    assert_eq!(filled.unwrap(), Some(5));
    // From now on it has its mark, and the job is not needed.
    store.documents("jobs").delete_many(doc! {}).await.unwrap();
    assert!(store.check_replaceable("top").await.unwrap());
    assert!(!store.check_replaceable("none").await.unwrap(), "there is none");
}
