//! A wrong clock removes nothing.

use std::time::{Duration, SystemTime};

use bson::doc;
use model::Content;

use super::{
    shipping::{puts, shipment},
    *,
};
use crate::{Change, ChangeFilter, Error, Limits, MOST_APART, Retention, ShippedBlock};

const DAY_MS: i64 = 86_400_000;
/// Longer than anything in these tests is kept.
const LONG_MS: i64 = 40 * DAY_MS;

#[tokio::test]
async fn the_time_is_mongodbs_and_clocks_that_are_apart_agree_on_none() {
    let store = Fresh::new().await.store;
    let clock = store.clock().await.unwrap();
    assert!(!clock.is_apart(), "{clock:?}");
    assert_eq!(clock.agreed().unwrap(), clock.now_ms);
    let reckoned = store.now_ms().await.unwrap();
    assert!(
        (clock.now_ms..clock.now_ms + 60_000).contains(&reckoned),
        "{clock:?}, {reckoned}"
    );
    let within = i64::try_from(MOST_APART.as_millis()).unwrap() / 2;
    assert!(
        store
            .clone()
            .with_clock_ahead(-within)
            .clock()
            .await
            .unwrap()
            .agreed()
            .is_ok()
    );
    for ahead_ms in [LONG_MS, -LONG_MS] {
        let wrong = store.clone().with_clock_ahead(ahead_ms);
        let clock = wrong.clock().await.unwrap();
        assert!((clock.now_ms - reckoned).abs() < 60_000, "{clock:?}");
        let why = clock.agreed().unwrap_err();
        assert!(
            matches!(why, Error::ClocksApart { .. }) && why.to_string().contains("NTP"),
            "{why}"
        );
    }
}

#[tokio::test]
async fn jobs_are_kept_from_when_mongodb_says_that_they_ended() {
    let fresh = Fresh::new().await;
    let ended = fresh.admitted(1, false).await;
    fresh.record(vec![succeeded(ended, 0, 1)]).await;
    // Ends of several jobs are recorded by another command, and others are ended by the leader.
    let two = [fresh.admitted(1, false).await, fresh.admitted(1, false).await];
    fresh.record(two.map(|job| succeeded(job, 0, 1)).to_vec()).await;
    let failed = fresh.admitted(1, false).await;
    let epoch = fresh.store.take_epoch("test").await.unwrap();
    let counts = Counts::default();
    let why = Some("why".to_string());
    let is_ended = fresh
        .store
        .end_job(failed, epoch, JobState::Failed, 1, why, &counts);
    assert!(is_ended.await.unwrap());
    let now_ms = fresh.store.now_ms().await.unwrap();
    for job in [ended, two[0], two[1], failed] {
        let finished_ms = fresh.job(job).await.finished_ms.unwrap();
        assert!(
            (now_ms - 60_000..=now_ms + 1000).contains(&finished_ms),
            "{finished_ms}, {now_ms}"
        );
        // In MongoDB's own type, and written by MongoDB itself.
        let document = doc! { "_id": crate::schema::uuid(job), "finished_at": { "$type": "date" } };
        let found = fresh
            .store
            .documents("jobs")
            .count_documents(document)
            .await
            .unwrap();
        assert_eq!(found, 1);
    }
    fresh.store.prune(now_ms, Retention::default()).await.unwrap();
    assert_eq!(fresh.documents("jobs").await, 4);
}

#[tokio::test]
async fn blocks_are_kept_from_when_they_were_registered() {
    let fresh = Fresh::new().await;
    let (store, to) = (&fresh.store, shipment("access"));
    let mut blocks = puts(store, &to, 1..=2).await;
    // As a node writes it whose clock is wrong.
    let old = SystemTime::now() - Duration::from_millis(LONG_MS as u64);
    written_at(&mut blocks[0], old);
    store.register_shipped(&to, &blocks).await.unwrap();
    let keep = Limits {
        keep_ms: Some(30 * DAY_MS as u64),
        max_bytes: None,
    };
    store.set_limits(&to.dataset, keep).await.unwrap();
    let now_ms = store.clock().await.unwrap().now_ms;
    assert_eq!(
        store.let_leave(now_ms).await.unwrap().blocks,
        0,
        "they were just shipped"
    );
    let dataset = store.get(&to.dataset).await.unwrap().unwrap();
    let read = store.blocks(dataset.edition(), 0..2).await.unwrap();
    assert!(
        read[0]
            .registered_ms
            .is_some_and(|at| (at - now_ms).abs() < 60_000),
        "{:?}",
        read[0]
    );
    assert_eq!(
        read[1].registered_ms, None,
        "its own time is right, and costs no more"
    );
    store.reader(&read[0]).await.unwrap();
    let later = now_ms + LONG_MS;
    assert_eq!(store.let_leave(later).await.unwrap().blocks, 2);
}

/// Sets when the object of a block was written, as far as anybody can tell.
fn written_at(shipped: &mut ShippedBlock, at: SystemTime) {
    let Content::Object { url, mtime_ms, .. } = &mut shipped.block.content else {
        panic!("{:?}", shipped.block);
    };
    let path = crate::files::path_of(url).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(at).unwrap();
    *mtime_ms = crate::files::size_and_mtime(&file.metadata().unwrap()).1;
}

#[tokio::test]
async fn changes_are_kept_from_when_mongodb_says_that_they_were_made() {
    let store = Fresh::new().await.store;
    let wrong = store.clone().with_clock_ahead(-500 * DAY_MS);
    let change = Change {
        at_ms: crate::schema::now_ms() - 500 * DAY_MS,
        who: "somebody".into(),
        what: "dataset.remove".into(),
        subject: "access".into(),
        details: String::new(),
    };
    wrong.log_changes(&[change]).await.unwrap();
    let now_ms = store.clock().await.unwrap().now_ms;
    store.prune(now_ms, Retention::default()).await.unwrap();
    let filter = ChangeFilter {
        limit: 10,
        ..ChangeFilter::default()
    };
    let kept = store.changes(&filter).await.unwrap();
    assert!(
        kept.len() == 1 && (kept[0].at_ms - now_ms).abs() < 60_000,
        "{kept:?}"
    );
}
