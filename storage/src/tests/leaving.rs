//! Blocks that leave their dataset, and what goes with them.

use bson::doc;
use model::{
    Block, Codec, Content, Fingerprint,
    parts::Part,
    stats::{BlockStats, ColumnStats, Learned},
};

use super::*;
use crate::{
    Dataset, Departed, Limits,
    schema::{BLOCKS, RESULTS},
};

const DAY: i64 = 24 * 3600 * 1000;
/// Longer than what has left is let alone.
const MINUTES: i64 = 120_000;

/// A block of ten bytes that changed on that day.
fn block(url: &str, day: i64) -> Block {
    Block {
        content: Content::Object {
            url: url.into(),
            start: 0,
            end: 10,
            codec: Codec::None,
            size: 10,
            mtime_ms: day * DAY,
            mark: None,
        },
        checksum: None,
        raw_bytes: None,
        made: None,
        registered_ms: None,
    }
}

impl Fresh {
    /// A dataset with a page for each of these days.
    async fn dataset_of(&self, days: std::ops::Range<i64>) -> Dataset {
        self.store.create(&name("logs")).await.unwrap();
        for day in days {
            let blocks = vec![block(&format!("file:///log/{day}"), day)];
            self.store.append_blocks(&name("logs"), blocks).await.unwrap();
        }
        self.dataset().await
    }

    async fn dataset(&self) -> Dataset {
        self.store.get(&name("logs")).await.unwrap().unwrap()
    }

    async fn keep(&self, keep_ms: Option<i64>, max_bytes: Option<u64>) {
        let keep_ms = keep_ms.map(i64::cast_unsigned);
        let limits = Limits { keep_ms, max_bytes };
        self.store.set_limits(&name("logs"), limits).await.unwrap();
    }

    /// Nothing is left to be done.
    async fn is_settled(&self) {
        let fields =
            ["leaving", "resting_first", "resting_at"].map(|field| doc! { field: { "$exists": true } });
        let open = self.store.documents("datasets");
        let open = open.count_documents(doc! { "$or": fields.to_vec() }).await;
        assert_eq!(open.unwrap(), 0);
    }

    async fn leave(&self, now_ms: i64) -> (u64, u64) {
        let Departed { blocks, pages, .. } = self.store.let_leave(now_ms).await.unwrap();
        (blocks, pages)
    }
}

#[tokio::test]
async fn the_oldest_leave_by_age_and_by_size() {
    let fresh = Fresh::new().await;
    let dataset = fresh.dataset_of(0..10).await;
    assert_eq!(fresh.leave(20 * DAY).await, (0, 0), "without limits all stay");
    fresh.keep(Some(5 * DAY), None).await;
    let now = 8 * DAY;
    assert_eq!(fresh.leave(now).await, (3, 0));
    let left = fresh.dataset().await;
    assert_eq!((left.first, left.blocks, left.count()), (3, 10, 7));
    assert_eq!((left.bytes, left.left_bytes, left.left_ms), (70, 30, Some(now)));
    assert_eq!(fresh.leave(now).await, (0, 0));
    assert_eq!(
        fresh.leave(now + MINUTES).await,
        (1, 3),
        "the next is five days old by now"
    );

    fresh.keep(None, Some(40)).await;
    assert_eq!(fresh.leave(now + 2 * MINUTES).await, (2, 1));
    assert_eq!(
        fresh.dataset().await.limits,
        Limits {
            keep_ms: None,
            max_bytes: Some(40)
        }
    );
    assert_eq!(fresh.leave(now + 3 * MINUTES).await, (0, 2));
    assert_eq!(fresh.documents(BLOCKS).await, 4);
    assert_eq!(fresh.store.blocks(dataset.edition(), 0..10).await.unwrap(), []);
    assert_eq!(
        fresh.store.blocks(dataset.edition(), 6..10).await.unwrap().len(),
        4
    );
    fresh.keep(None, None).await;
    assert_eq!(fresh.leave(90 * DAY).await, (0, 0));
    let more = vec![block("file:///log/more", 9)];
    fresh.store.append_blocks(&name("logs"), more).await.unwrap();
    let grown = fresh.dataset().await;
    assert_eq!((grown.first, grown.blocks, grown.bytes), (6, 11, 50));
}

#[tokio::test]
async fn what_has_left_is_removed_while_more_leaves_all_the_time() {
    const ROUND: i64 = 5000;
    let fresh = Fresh::new().await;
    let now = 90 * DAY;
    fresh.store.create(&name("logs")).await.unwrap();
    fresh.keep(None, Some(10)).await;
    let mut removed = Vec::new();
    for round in 0..60 {
        let one = vec![block(&format!("file:///log/{round}"), 90)];
        fresh.store.append_blocks(&name("logs"), one).await.unwrap();
        let (left, pages) = fresh.leave(now + round * ROUND).await;
        assert_eq!(left, u64::from(round > 0), "one leaves in each round");
        if pages > 0 {
            removed.push((round, pages));
        }
    }
    // One had left when the first mark was made; each later mark is of what left in the minute before.
    assert_eq!(removed, [(13, 1), (25, 12), (37, 12), (49, 12)]);
    let rested = now + 61 * ROUND;
    assert_eq!(fresh.leave(rested).await, (0, 12));
    assert_eq!(fresh.leave(rested + MINUTES).await, (0, 10));
    assert_eq!(fresh.documents(BLOCKS).await, 1);
    fresh.is_settled().await;
}

#[tokio::test]
async fn what_can_not_leave_keeps_no_other_dataset_from_it() {
    let fresh = Fresh::new().await;
    let mill = fresh.store.mill().await.unwrap().to_string();
    let root = crate::files::url_of(fresh.folder.path()).unwrap();
    // A folder in place of an object can't be deleted as one.
    let stuck = format!("blocks/{mill}/stuck");
    std::fs::create_dir_all(fresh.folder.path().join(&stuck).join("inner")).unwrap();
    fresh.store.create(&name("a-stuck")).await.unwrap();
    let limits = Limits {
        keep_ms: Some(0),
        max_bytes: None,
    };
    fresh.store.set_limits(&name("a-stuck"), limits).await.unwrap();
    let one = vec![block(&format!("{root}/{stuck}"), 0)];
    fresh.store.append_blocks(&name("a-stuck"), one).await.unwrap();
    let newer = doc! { "_id": "a-newer", "v": i64::MAX, "keep_ms": 0_i64 };
    let datasets = fresh.store.documents("datasets");
    datasets.insert_one(newer).await.unwrap();
    fresh.dataset_of(0..2).await;
    fresh.keep(Some(0), None).await;
    assert_eq!(fresh.leave(2 * DAY).await, (3, 0));
    assert_eq!(fresh.leave(2 * DAY + MINUTES).await, (0, 2));
    // It is tried again.
    std::fs::remove_dir_all(fresh.folder.path().join(&stuck)).unwrap();
    assert_eq!(fresh.leave(2 * DAY + MINUTES).await, (0, 1));
}

#[tokio::test]
async fn what_was_recorded_goes_when_nobody_works_on_it() {
    let fresh = Fresh::new().await;
    let dataset = fresh.dataset_of(0..4).await;
    let over = |first: u32, merges: bool| {
        let source = Source {
            id: dataset.id,
            blocks: 4,
            ..Source::default()
        };
        let parts = Parts::of(
            vec![source],
            vec![Part {
                table: 0,
                first,
                count: 4 - first,
            }],
        )
        .unwrap();
        Job {
            blocks: parts.blocks(),
            parts,
            ..job(0, merges)
        }
    };
    // The last runs over later blocks alone, but is fed from the first on.
    let (merged, plain, waiting) = (over(1, true), over(0, false), over(3, true));
    let prints: Vec<Fingerprint> = (0..4)
        .map(|day| Fingerprint::of(&Processor::Noop, 0, &block("x", day)))
        .collect();
    let epoch = fresh.store.take_epoch("test").await.unwrap();
    for job in [&merged, &plain] {
        fresh.store.submit(vec![job.clone()]).await.unwrap();
        fresh.store.admit(&[job.id], epoch).await.unwrap();
        let ends = (0..job.blocks).map(|index| {
            let offered = Outcome::Ok {
                output: inline("part"),
                fingerprint: Some(prints[(index + 4 - job.blocks) as usize].to_string()),
                stderr_tail: String::new(),
            };
            end(index, 1, offered)
        });
        fresh.record(vec![done(job.id, 1, ends.collect())]).await;
    }
    fresh.record(vec![succeeded(merged.id, 3, 1)]).await;
    fresh.store.submit(vec![waiting.clone()]).await.unwrap();

    let learned = (0..4).map(|block| Learned {
        made: None,
        dataset: dataset.id,
        block,
        stats: BlockStats {
            rows: 1,
            columns: [("aa".to_string(), ColumnStats::default())].into(),
        },
    });
    fresh
        .store
        .keep_stats(&learned.collect::<Vec<_>>())
        .await
        .unwrap();

    fresh.keep(Some(0), None).await;
    assert_eq!(fresh.leave(2 * DAY).await, (2, 0));
    let later = 2 * DAY + MINUTES;
    fresh.keep(None, None).await;
    assert_eq!(fresh.leave(later).await, (0, 0), "a job runs over them");
    assert_eq!(fresh.store.find_reusable(&prints).await.unwrap().len(), 4);
    fresh.store.request_cancel(waiting.id).await.unwrap();
    fresh.store.cancel_pending(epoch).await.unwrap();
    assert_eq!(fresh.leave(later).await, (0, 2));
    let known = fresh
        .store
        .stats(dataset.edition(), 0..4, &["aa".into()])
        .await
        .unwrap();
    assert_eq!(known.into_keys().collect::<Vec<_>>(), [2, 3]);

    let mut kept = fresh
        .store
        .find_reusable(&prints)
        .await
        .unwrap()
        .into_keys()
        .collect::<Vec<_>>();
    kept.sort_unstable();
    let mut expected = prints[2..].to_vec();
    expected.sort_unstable();
    assert_eq!(kept, expected);
    // Every end is still there, and so is the output of the job that merges nothing.
    assert_eq!(fresh.documents(RESULTS).await, 8);
    let texts = async |id| {
        let partials = fresh.partials(id).await;
        let texts = partials.into_iter().map(|partial| partial.result.unwrap());
        texts.collect::<Vec<_>>()
    };
    assert_eq!(texts(plain.id).await, vec![inline("part"); 4]);
    assert_eq!(texts(merged.id).await[..2], [inline(""), inline("part")]);
    // Who was told of it before runs it again.
    let user = fresh.admitted(1, false).await;
    let reused = Outcome::Reused {
        job: merged.id,
        index: 0,
        waited: false,
    };
    fresh.record(vec![done(user, 1, vec![end(0, 1, reused)])]).await;
    assert_eq!(
        (fresh.counts(user).await.ok, fresh.counts(user).await.again),
        (0, 1)
    );
}

#[tokio::test]
async fn only_objects_of_our_own_go_and_only_with_their_last_block() {
    let fresh = Fresh::new().await;
    let mill = fresh.store.mill().await.unwrap().to_string();
    let root = crate::files::url_of(fresh.folder.path()).unwrap();
    let place = |object: &str| {
        let path = fresh.folder.path().join(object);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "0123456789").unwrap();
        (path, format!("{root}/{object}"))
    };
    let (own, own_url) = place(&format!("blocks/{mill}/own"));
    let (shared, shared_url) = place(&format!("blocks/{mill}/shared"));
    let (theirs, theirs_url) = place("blocks/another-mill/theirs");
    let (users, users_url) = place("users.log");
    fresh.store.create(&name("logs")).await.unwrap();
    fresh.store.create(&name("other")).await.unwrap();
    for url in [&own_url, &shared_url, &theirs_url, &users_url] {
        fresh
            .store
            .append_blocks(&name("logs"), vec![block(url, 0)])
            .await
            .unwrap();
    }
    fresh
        .store
        .append_blocks(&name("other"), vec![block(&shared_url, 0)])
        .await
        .unwrap();
    fresh.keep(Some(DAY), None).await;
    assert_eq!(fresh.leave(2 * DAY).await, (4, 0));
    let departed = fresh.store.let_leave(2 * DAY + MINUTES).await.unwrap();
    assert_eq!(
        departed,
        Departed {
            blocks: 0,
            pages: 4,
            objects: 1
        }
    );
    assert!(!own.exists() && shared.exists() && theirs.exists() && users.exists());
    fresh.is_settled().await;
    // A limit that is gone, and a dataset that nobody knows.
    let refused = fresh.store.set_limits(&name("none"), Limits::default()).await;
    assert!(matches!(refused, Err(crate::Error::NotFound { .. })));
}
