//! Runs of small shipped blocks become one, and nothing else changes.

use std::{collections::BTreeSet, io::Read, ops::Range};

use bson::doc;
use bytes::Bytes;
use model::{
    Block, View,
    origin::{Origin, Origins},
    processor::Query,
    stats::{BlockStats, ColumnStats, Learned},
    table::{Format, Table},
    view::Covered,
};

use super::*;
use crate::{
    Compaction, Cursors, Dataset, Error, Found, Limits, Shipment, ShippedBlock,
    schema::{BLOCKS, COMPACTED, DATASETS, failure_key, key, now_ms},
};

/// Longer than blocks are let alone, and what was replaced.
const MINUTES: i64 = 120_000;

fn shipment() -> Shipment {
    Shipment {
        agent: name("web7"),
        instance: Uuid::from_u128(7),
        dataset: name("access"),
    }
}

/// An agent, and a leader with the first epoch.
struct Yard {
    fresh: Fresh,
    shipped: u64,
    epoch: Epoch,
    cursors: Cursors,
}

impl Yard {
    async fn new() -> Self {
        let fresh = Fresh::new().await;
        let epoch = fresh.store.take_epoch("test").await.unwrap();
        Self {
            fresh,
            shipped: 0,
            epoch,
            cursors: Cursors::default(),
        }
    }

    /// Ships blocks of one line each, each registered by itself.
    async fn ship(&mut self, count: u64) {
        for _ in 0..count {
            self.shipped += 1;
            let text = format!("line {}\n", self.shipped);
            self.ship_one(text.as_bytes()).await;
        }
    }

    async fn ship_one(&self, text: &[u8]) {
        let origin = Origin {
            host: "web7".into(),
            path: format!("/log/{}", self.shipped % 3),
            offset: 0,
            lines: 1,
            bytes: text.len() as u64,
        };
        let mut stored = Origins::new(vec![origin]).to_frame();
        stored.extend(zstd::encode_all(text, 1).unwrap());
        let (store, sequence) = (&self.fresh.store, self.shipped);
        let checksum = blake3::hash(&stored);
        let frames = vec![Bytes::from(stored)];
        let shipment = shipment();
        let put = store.put_block(&shipment, sequence, frames, checksum, false);
        let block = ShippedBlock {
            sequence,
            block: put.await.unwrap(),
            lines: 1,
            raw_bytes: text.len() as u64,
        };
        store.register_shipped(&shipment, &[block]).await.unwrap();
    }

    async fn dataset(&self) -> Dataset {
        self.fresh.store.get(&name("access")).await.unwrap().unwrap()
    }

    async fn find(&mut self) -> Option<Compaction> {
        let now_ms = now_ms() + MINUTES;
        let (store, epoch) = (&self.fresh.store, self.epoch);
        let Found { compaction, .. } = store
            .find_compaction(epoch, &mut self.cursors, now_ms)
            .await
            .unwrap();
        self.cursors = Cursors::default();
        compaction
    }

    async fn swap(&self, compaction: &Compaction) -> bool {
        self.fresh.store.compact(self.epoch, compaction).await.unwrap()
    }

    async fn compact(&mut self) -> Range<u32> {
        let compaction = self.find().await.unwrap();
        assert!(self.swap(&compaction).await);
        compaction.range()
    }

    /// The lines of an edition, with the numbers of their blocks.
    async fn numbered(&self, generation: u32) -> Vec<(u32, String)> {
        let dataset = self.dataset().await;
        let edition = Edition {
            generation,
            ..dataset.edition()
        };
        let all = dataset.first..dataset.blocks;
        let blocks = self.fresh.store.blocks(edition, all.clone()).await.unwrap();
        let mut lines = Vec::new();
        for (number, block) in all.zip(blocks) {
            let mut text = String::new();
            let mut reader = self.fresh.store.reader(&block).await.unwrap();
            reader.read_to_string(&mut text).unwrap();
            lines.extend(text.lines().map(|line| (number, line.to_string())));
        }
        lines
    }

    async fn lines(&self, generation: u32) -> Vec<String> {
        let lines = self.numbered(generation).await;
        lines.into_iter().map(|(_, line)| line).collect()
    }

    async fn lines_now(&self) -> Vec<String> {
        self.lines(self.dataset().await.generation).await
    }

    fn expected(&self) -> Vec<String> {
        (1..=self.shipped).map(|n| format!("line {n}")).collect()
    }

    /// Objects of blocks in the store.
    fn objects(&self) -> usize {
        files(&self.fresh.folder.path().join("blocks"))
    }

    async fn clean(&self, after_ms: i64) -> (u64, u64) {
        let departed = self.fresh.store.let_leave(now_ms() + after_ms).await.unwrap();
        (departed.pages, departed.objects)
    }

    /// A view that covers this, with a refresh over that.
    async fn view(&self, covered: Range<u32>, under_way: Option<JobId>) -> View {
        let covered = Covered {
            dataset: name("access"),
            id: self.dataset().await.id,
            blocks: vec![covered],
            generation: 0,
        };
        let view = View::new(name("v"), Uuid::now_v7(), Query::default(), vec![covered], 0);
        let view = View { under_way, ..view };
        self.fresh.store.create_view(&view).await.unwrap();
        self.fresh.store.view(&name("v")).await.unwrap().unwrap()
    }
}

fn files(folder: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| if path.is_dir() { files(&path) } else { 1 })
        .sum()
}

#[tokio::test]
async fn many_become_one_and_whoever_read_the_many_reads_on() {
    let mut yard = Yard::new().await;
    yard.ship(5).await;
    assert!(yard.find().await.is_none(), "too few to be worth it");
    yard.ship(15).await;
    let before = yard.dataset().await;
    // Submitted before: it reads what was there.
    let reader = Job {
        parts: Parts::whole(vec![before.source()]).unwrap(),
        blocks: 20,
        ..job(20, false)
    };
    yard.fresh.store.submit(vec![reader.clone()]).await.unwrap();
    assert_eq!(yard.compact().await, 0..20);
    let after = yard.dataset().await;
    assert_eq!((after.blocks, after.count(), after.void), (20, 1, 19));
    assert!(after.bytes < before.bytes);
    for generation in [0, 1] {
        assert_eq!(yard.lines(generation).await, yard.expected());
    }
    assert!(yard.numbered(1).await.iter().all(|(number, _)| *number == 19));
    let void = yard.fresh.store.void(after.edition(), 0..20).await.unwrap();
    assert_eq!(void.first(), Some(&(0..19)));
    let [found] = &yard.fresh.store.blocks(after.edition(), 19..20).await.unwrap()[..] else {
        panic!("one block");
    };
    assert_eq!(found.raw_bytes, Some(20 * 7 + 11));
    assert!(found.newest_ms().unwrap() <= now_ms());

    // Neither at once, nor while somebody reads it.
    assert_eq!(yard.objects(), 21);
    assert_eq!(yard.clean(0).await, (0, 0));
    assert_eq!(yard.clean(MINUTES).await, (0, 0));
    let stored = yard.fresh.job(reader.id).await;
    assert_eq!(stored.parts, reader.parts);
    yard.fresh.store.request_cancel(reader.id).await.unwrap();
    yard.fresh.store.cancel_pending(yard.epoch).await.unwrap();
    assert_eq!(yard.clean(MINUTES).await, (20, 20));
    assert_eq!(yard.clean(MINUTES).await, (0, 0));
    assert_eq!((yard.objects(), yard.fresh.documents(BLOCKS).await), (1, 0));
    assert_eq!(yard.lines_now().await, yard.expected());
    assert_eq!(yard.lines(0).await, [] as [String; 0], "never a part of them");

    // More follow, and are merged with what was merged.
    yard.ship(18).await;
    assert_eq!(yard.lines_now().await, yard.expected());
    assert_eq!(
        yard.compact().await,
        20..38,
        "what there was has more than half of the bytes"
    );
    yard.ship(16).await;
    assert_eq!(yard.compact().await, 0..54);
    let whole = yard.dataset().await;
    assert_eq!((whole.count(), whole.void, whole.generation), (1, 53, 3));
    for generation in 1..=3 {
        assert_eq!(yard.lines(generation).await.len(), 54, "{generation}");
    }
    assert_eq!(yard.clean(MINUTES).await, (36, 36));
    assert_eq!((yard.objects(), yard.fresh.documents(COMPACTED).await), (1, 1));
    assert_eq!(yard.lines_now().await, yard.expected());
    // All of it goes with the dataset.
    yard.fresh.store.remove(&name("access")).await.unwrap();
    assert_eq!((yard.objects(), yard.fresh.documents(COMPACTED).await), (0, 0));
}

#[tokio::test]
async fn a_leader_that_dies_leaves_the_old_or_the_new() {
    let mut yard = Yard::new().await;
    yard.ship(20).await;
    // Between the object and the transaction.
    let late = yard.find().await.unwrap();
    assert_eq!(yard.objects(), 21);
    let other = yard.fresh.other().await;
    let next = other.take_epoch("next").await.unwrap();
    let deposed = yard.fresh.store.compact(yard.epoch, &late).await;
    assert!(matches!(deposed, Err(Error::Deposed { .. })), "{deposed:?}");
    let before = std::mem::replace(&mut yard.epoch, next);
    assert_eq!(yard.dataset().await.generation, 0);
    let compaction = yard.find().await.unwrap();
    assert_eq!(yard.objects(), 22);
    // Who led before must not remove what is about to be named; who leads removes what nobody can name.
    assert_eq!(yard.fresh.store.sweep_compacted(before).await.unwrap(), 0);
    assert_eq!(other.sweep_compacted(next).await.unwrap(), 1);
    assert_eq!(yard.objects(), 21);
    assert!(yard.swap(&compaction).await);
    // Whose reply was lost asks again.
    assert!(yard.swap(&compaction).await);
    let third = other.take_epoch("third").await.unwrap();
    assert_eq!(other.sweep_compacted(third).await.unwrap(), 0);
    assert_eq!(yard.lines_now().await, yard.expected());
    assert_eq!(yard.dataset().await.count(), 1);
}

#[tokio::test]
async fn what_changed_meanwhile_keeps_a_run_from_being_replaced() {
    let mut yard = Yard::new().await;
    yard.ship(40).await;
    let limits = Limits {
        keep_ms: None,
        max_bytes: Some(yard.dataset().await.bytes - 1),
    };
    let compaction = yard.find().await.unwrap();
    yard.fresh
        .store
        .set_limits(&name("access"), limits)
        .await
        .unwrap();
    yard.fresh.store.let_leave(now_ms()).await.unwrap();
    assert_eq!(yard.dataset().await.first, 1);
    yard.fresh
        .store
        .set_limits(&name("access"), Limits::default())
        .await
        .unwrap();
    assert!(!yard.swap(&compaction).await, "its first block has left");
    assert_eq!(yard.objects(), 40, "the new object is gone");
    // What is appended meanwhile does not matter.
    let compaction = yard.find().await.unwrap();
    yard.ship(1).await;
    assert!(yard.swap(&compaction).await);
    assert_eq!(compaction.range(), 1..40);
    assert_eq!(yard.lines_now().await, yard.expected()[1..]);
}

#[tokio::test]
async fn a_run_lies_on_one_side_of_what_a_view_covers() {
    let mut yard = Yard::new().await;
    yard.ship(60).await;
    let refresh = job(0, true);
    let view = yard.view(0..20, None).await;
    assert_eq!(yard.find().await.unwrap().range(), 0..20);
    let compaction = yard.find().await.unwrap();
    // The view goes on.
    let gone_on = |covered: Range<u32>, under_way| {
        let mut view = view.clone();
        (view.covered[0].blocks[0], view.under_way) = (covered, under_way);
        view
    };
    let mut now = gone_on(0..10, None);
    assert!(yard.fresh.store.keep_view(yard.epoch, &now, None).await.unwrap());
    assert!(!yard.swap(&compaction).await, "it is half covered");
    // A refresh that runs keeps all that it reads as it is.
    let source = yard.dataset().await.source();
    let refresh = Job {
        parts: Parts::selected(vec![source], vec![vec![10..40]]).unwrap(),
        blocks: 30,
        ..refresh
    };
    now.revision += 1;
    now.under_way = Some(refresh.id);
    let kept = yard.fresh.store.keep_view(yard.epoch, &now, Some(&refresh));
    assert!(kept.await.unwrap());
    assert_eq!(yard.find().await.unwrap().range(), 40..60);
    now.revision += 1;
    (now.covered[0].blocks[0], now.under_way) = (0..40, None);
    assert!(yard.fresh.store.keep_view(yard.epoch, &now, None).await.unwrap());
    assert_eq!(yard.compact().await, 0..40);
    assert_eq!(yard.compact().await, 40..60);
    let seen = yard.fresh.store.seen_by(&now).await.unwrap();
    assert_eq!(now.lag_blocks(&seen), 1, "one block is not in it");
    assert_eq!(yard.lines_now().await, yard.expected());
}

#[tokio::test]
async fn what_is_kept_is_counted_by_the_age_of_lines() {
    let mut yard = Yard::new().await;
    yard.ship(22).await;
    yard.compact().await;
    yard.ship(20).await;
    assert_eq!(yard.compact().await, 22..42);
    yard.ship(3).await;
    let dataset = yard.dataset().await;
    assert_eq!((dataset.count(), dataset.void), (5, 40));
    let store = &yard.fresh.store;
    let blocks = store.numbered(dataset.edition(), 0..45).await.unwrap().blocks;
    let numbers: Vec<u32> = blocks.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [21, 41, 42, 43, 44]);
    let (newest, bytes) = (
        blocks[0].1.newest_ms().unwrap(),
        blocks.iter().map(|(_, block)| block.stored_bytes()).sum::<u64>(),
    );
    assert_eq!(dataset.bytes, bytes);
    let limits = |keep_ms, max_bytes| Limits { keep_ms, max_bytes };
    store
        .set_limits(&name("access"), limits(Some(1000), None))
        .await
        .unwrap();
    assert_eq!(store.let_leave(newest + 1000).await.unwrap().blocks, 0);
    let last = bytes - blocks[0].1.stored_bytes() - blocks[1].1.stored_bytes();
    store
        .set_limits(&name("access"), limits(None, Some(last)))
        .await
        .unwrap();
    assert_eq!(store.let_leave(now_ms()).await.unwrap().blocks, 2);
    let left = yard.dataset().await;
    assert_eq!(
        (left.first, left.count(), left.void, left.bytes),
        (42, 3, 0, last)
    );
    assert_eq!(yard.lines_now().await, yard.expected()[42..]);
    yard.clean(MINUTES).await;
    assert_eq!((yard.objects(), yard.fresh.documents(COMPACTED).await), (3, 0));
    assert_eq!(yard.fresh.documents(BLOCKS).await, 3);
}

#[tokio::test]
async fn what_was_learned_of_a_number_is_not_taken_for_another_block() {
    let mut yard = Yard::new().await;
    yard.ship(20).await;
    let before = yard.dataset().await;
    yard.compact().await;
    let after = yard.dataset().await;
    let learned = |block, made, rows| {
        let columns = [("aa".to_string(), ColumnStats::default())].into();
        Learned {
            dataset: after.id,
            block,
            made,
            stats: BlockStats { rows, columns },
        }
    };
    // Somebody still reads what was there, others what is there now.
    let all = [
        learned(19, None, 1),
        learned(3, None, 1),
        learned(19, Some(1), 20),
    ];
    let store = &yard.fresh.store;
    store.keep_stats(&all[..2]).await.unwrap();
    let known = async |edition| {
        let known = store.stats(edition, 0..20, &["aa".into()]).await.unwrap();
        known
            .into_iter()
            .map(|(number, stats)| (number, stats.rows))
            .collect::<Vec<_>>()
    };
    assert_eq!(known(after.edition()).await, []);
    store.keep_stats(&all).await.unwrap();
    assert_eq!(known(after.edition()).await, [(19, 20)]);
    assert_eq!(known(before.edition()).await, [(3, 1), (19, 1)]);
}

#[tokio::test]
async fn only_what_agents_shipped_is_merged_and_on_demand_all_of_it() {
    let mut yard = Yard::new().await;
    yard.ship(3).await;
    let added = vec![Block::inline("added\n")];
    yard.fresh
        .store
        .append_blocks(&name("access"), added)
        .await
        .unwrap();
    yard.ship(3).await;
    assert!(yard.find().await.is_none());
    let dataset = yard.dataset().await;
    assert!(yard.fresh.store.ask_to_compact(&dataset).await.unwrap());
    assert_eq!(yard.compact().await, 0..3);
    assert_eq!(yard.compact().await, 4..7);
    let found = yard
        .fresh
        .store
        .find_compaction(yard.epoch, &mut yard.cursors, now_ms());
    let found = found.await.unwrap();
    let done: BTreeSet<_> = found.done.iter().map(|dataset| dataset.id).collect();
    assert!(found.compaction.is_none() && done == [dataset.id].into());
    yard.fresh.store.end_compacting(&found.done[0]).await.unwrap();
    let after = yard.dataset().await;
    assert!(!after.compacting && after.count() == 3);
    let mut lines = yard.expected();
    lines.insert(3, "added".into());
    assert_eq!(yard.lines_now().await, lines);

    // A line without an end is the last of its block.
    yard.shipped += 1;
    yard.ship_one(b"half").await;
    yard.ship(20).await;
    assert_eq!(yard.compact().await, 4..8);
    assert_eq!(yard.compact().await, 8..28);
    assert_eq!(yard.lines_now().await.len(), 28);
    // What has no lines.
    let table = Table {
        format: Format::Parquet,
        columns: Vec::new(),
        least: None,
    };
    yard.ship(20).await;
    let dataset = yard.dataset().await;
    assert!(yard.fresh.store.set_table(&dataset, &table, "so").await.unwrap());
    assert!(yard.find().await.is_none());
}

#[tokio::test]
async fn what_can_not_be_read_of_a_dataset_keeps_no_other_from_being_compacted_and_cleaned() {
    let mut yard = Yard::new().await;
    yard.ship(20).await;
    let (store, broken) = (yard.fresh.store.clone(), name("aaa"));
    store.create(&broken).await.unwrap();
    store
        .append_blocks(&broken, vec![Block::inline("added\n")])
        .await
        .unwrap();
    let broken = store.get(&broken).await.unwrap().unwrap();
    let without_span = doc! { "_id": key(&failure_key(JobId(broken.id), 0, 1)), "v": 1 };
    store.documents(COMPACTED).insert_one(without_span).await.unwrap();
    let generation = doc! { "$set": { "generation": 1_i64 } };
    store
        .documents(DATASETS)
        .update_one(doc! { "_id": "aaa" }, generation)
        .await
        .unwrap();
    store.ask_to_compact(&broken).await.unwrap();
    let later = now_ms() + MINUTES;
    let found = store.find_compaction(yard.epoch, &mut yard.cursors, later);
    let found = found.await.unwrap();
    assert_eq!(found.done[0].id, broken.id, "nobody waits for it for ever");
    assert!(yard.swap(&found.compaction.unwrap()).await);
    assert_eq!(yard.clean(MINUTES).await, (20, 20));
    let datasets = store.documents(DATASETS);
    let merged = datasets
        .find_one(doc! { "_id": "access" })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        merged.get_i64("v").unwrap(),
        2,
        "releases before refuse to read it"
    );
}

#[tokio::test]
async fn asking_to_compact_ends_though_more_is_shipped() {
    let mut yard = Yard::new().await;
    yard.ship(3).await;
    let dataset = yard.dataset().await;
    assert!(yard.fresh.store.ask_to_compact(&dataset).await.unwrap());
    yard.ship(4).await;
    let compaction = yard.find().await.unwrap();
    assert_eq!(compaction.range(), 0..3);
    assert!(yard.swap(&compaction).await);
    yard.ship(2).await;
    let store = yard.fresh.store.clone();
    let found = store.find_compaction(yard.epoch, &mut yard.cursors, now_ms());
    let found = found.await.unwrap();
    assert!(found.compaction.is_none() && found.done.len() == 1);
}

#[tokio::test]
async fn a_store_that_fails_only_postpones() {
    let mut yard = Yard::new().await;
    yard.ship(30).await;
    let objects = yard.fresh.folder.path().join("blocks");
    let aside = yard.fresh.folder.path().join("aside");
    std::fs::rename(&objects, &aside).unwrap();
    assert!(yard.find().await.is_none(), "none of them can be read");
    std::fs::rename(&aside, &objects).unwrap();
    assert_eq!(yard.compact().await, 0..30);
    assert_eq!(yard.lines_now().await, yard.expected());
}
