//! What agents ship is stored and registered once.

use std::io::Read;

use bytes::Bytes;
use model::{Block, Content};

use super::*;
use crate::{Error, Registration, Shipment, ShippedBlock, Volume};

/// What was registered, or was refused, up to where.
fn ended(end: Registration) -> Result<u64, u64> {
    match end {
        Registration::Registered { mark, .. } => Ok(mark),
        Registration::Gap(mark) => Err(mark),
    }
}

async fn marks(store: &Store, shipment: &Shipment) -> Vec<(Name, u64)> {
    let marks = store.marks(&shipment.agent, shipment.instance).await.unwrap();
    marks
        .into_iter()
        .map(|mark| (mark.dataset, mark.registered))
        .collect()
}

pub(super) fn shipment(dataset: &str) -> Shipment {
    Shipment {
        agent: name("web7"),
        instance: Uuid::from_u128(7),
        dataset: name(dataset),
    }
}

fn frames(text: &str) -> Vec<Bytes> {
    let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
    packed.chunks(5).map(Bytes::copy_from_slice).collect()
}

fn checksum(frames: &[Bytes]) -> blake3::Hash {
    blake3::hash(&frames.concat())
}

async fn put(store: &Store, shipment: &Shipment, sequence: u64, text: &str) -> ShippedBlock {
    let frames = frames(text);
    let checksum = checksum(&frames);
    let block = store
        .put_block(shipment, sequence, frames, checksum, true)
        .await
        .unwrap();
    ShippedBlock {
        sequence,
        block,
        lines: text.lines().count() as u64,
        raw_bytes: text.len() as u64,
    }
}

pub(super) async fn puts(
    store: &Store,
    shipment: &Shipment,
    sequences: std::ops::RangeInclusive<u64>,
) -> Vec<ShippedBlock> {
    let mut blocks = Vec::new();
    for sequence in sequences {
        blocks.push(put(store, shipment, sequence, &format!("line {sequence}\n")).await);
    }
    blocks
}

async fn lines(store: &Store, dataset: &str) -> Vec<String> {
    let dataset = store.get(&name(dataset)).await.unwrap().unwrap();
    let mut lines = Vec::new();
    for block in store.blocks(dataset.edition(), 0..dataset.blocks).await.unwrap() {
        let mut reader = store.reader(&block).await.unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

fn numbered(count: u64) -> Vec<String> {
    (1..=count).map(|n| format!("line {n}")).collect()
}

#[tokio::test]
async fn blocks_are_registered_in_order_and_once() {
    let fresh = Fresh::new().await;
    let (store, access) = (&fresh.store, shipment("access"));
    let blocks = puts(store, &access, 1..=5).await;
    let register =
        async |blocks: &[ShippedBlock]| ended(store.register_shipped(&access, blocks).await.unwrap());
    assert_eq!(register(&blocks[1..2]).await, Err(0));
    assert_eq!(register(&blocks[..1]).await, Ok(1));
    assert_eq!(register(&blocks[..1]).await, Ok(1), "a repeat");
    assert_eq!(register(&blocks[2..4]).await, Err(1));
    assert_eq!(register(&[blocks[1].clone(), blocks[3].clone()]).await, Err(1));
    assert_eq!(register(&blocks[..3]).await, Ok(3), "two new behind an old one");
    assert_eq!(register(&blocks[3..]).await, Ok(5));
    assert_eq!(register(&blocks[1..3]).await, Ok(5));
    assert_eq!(lines(store, "access").await, numbered(5));
    assert_eq!(marks(store, &access).await, [(name("access"), 5)]);

    // Another instance, and another dataset, count from 1.
    let other = Shipment {
        instance: Uuid::from_u128(8),
        ..access.clone()
    };
    let one = puts(store, &other, 1..=1).await;
    store.register_shipped(&other, &one).await.unwrap();
    let errors = shipment("errors.log");
    let one = puts(store, &errors, 1..=1).await;
    store.register_shipped(&errors, &one).await.unwrap();
    assert_eq!(
        marks(store, &access).await,
        [(name("access"), 5), (name("errors.log"), 1)]
    );
    let shipped = store.shipped(Some(&access.agent)).await.unwrap();
    let total = shipped
        .iter()
        .fold(Volume::default(), |all, one| all.plus(one.total));
    assert_eq!(
        (shipped.len(), total.blocks, total.lines, total.raw_bytes),
        (3, 7, 7, 49)
    );
    assert!(shipped.iter().all(|one| one.today == one.total));
    assert_eq!(store.shipped(Some(&name("web"))).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_register_the_same_at_once_do_it_once() {
    let fresh = Fresh::new().await;
    let access = shipment("access");
    let blocks = puts(&fresh.store, &access, 1..=8).await;
    for from in [0, 4] {
        let mut racing = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let (store, access) = (fresh.other().await, access.clone());
            let blocks = blocks[from..from + 4].to_vec();
            racing.spawn(async move { store.register_shipped(&access, &blocks).await.unwrap() });
        }
        for end in racing.join_all().await {
            assert_eq!(ended(end), Ok(from as u64 + 4));
        }
    }
    assert_eq!(lines(&fresh.store, "access").await, numbered(8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_agents_append_to_one_dataset_at_once() {
    let fresh = Fresh::new().await;
    let mut racing = tokio::task::JoinSet::new();
    for number in 0..8 {
        let store = if number % 2 == 0 {
            fresh.store.clone()
        } else {
            fresh.other().await
        };
        racing.spawn(async move {
            let from = Shipment {
                agent: name(&format!("web{number}")),
                ..shipment("access")
            };
            for block in puts(&store, &from, 1..=5).await {
                store.register_shipped(&from, &[block]).await.unwrap();
            }
        });
    }
    racing.join_all().await;
    let dataset = fresh.store.get(&name("access")).await.unwrap().unwrap();
    assert_eq!(dataset.blocks, 40);
    assert_eq!(lines(&fresh.store, "access").await.len(), 40);
}

#[tokio::test]
async fn a_dataset_that_was_removed_begins_anew() {
    let fresh = Fresh::new().await;
    let (store, access) = (&fresh.store, shipment("access"));
    let blocks = puts(store, &access, 1..=2).await;
    store.register_shipped(&access, &blocks).await.unwrap();
    store.remove(&access.dataset).await.unwrap();
    let gone = store.reader(&blocks[0].block).await.unwrap_err();
    assert!(
        gone.is_not_found(),
        "what was shipped goes with its dataset: {gone}"
    );
    // The agent goes on where it was.
    assert_eq!(
        ended(store.register_shipped(&access, &blocks).await.unwrap()),
        Ok(2)
    );
    assert_eq!(store.get(&access.dataset).await.unwrap(), None);
    let third = put(store, &access, 3, "line 3\n").await;
    assert_eq!(
        ended(store.register_shipped(&access, &[third]).await.unwrap()),
        Ok(3)
    );
    assert_eq!(lines(store, "access").await, ["line 3"]);
}

#[tokio::test]
async fn a_numbering_that_is_behind_ends_and_another_follows() {
    let fresh = Fresh::new().await;
    let (store, access) = (&fresh.store, shipment("access"));
    let blocks = puts(store, &access, 1..=4).await;
    let end = store.register_shipped(&access, &blocks[..2]).await.unwrap();
    let first = store.get(&access.dataset).await.unwrap().unwrap().id;
    let incarnation = Some(first);
    assert_eq!(end, Registration::Registered { mark: 2, incarnation });
    let whole = store.end_numbering(&access, 2).await.unwrap();
    assert_eq!((whole.registered, whole.next), (2, None), "nothing is missing");
    let ended_mark = store.end_numbering(&access, 3).await.unwrap();
    assert_eq!(ended_mark.incarnation, incarnation);
    let next = ended_mark.next.unwrap();
    // What is still under way in the old one is not registered any more, and a repeat gives the same.
    assert_eq!(
        ended(store.register_shipped(&access, &blocks[2..]).await.unwrap()),
        Err(2)
    );
    assert_eq!(store.end_numbering(&access, 9).await.unwrap().next, Some(next));
    let anew = Shipment {
        instance: next,
        ..access.clone()
    };
    assert_eq!(store.lane_mark(&anew).await.unwrap().registered, 0);
    let one = puts(store, &anew, 1..=1).await;
    assert_eq!(ended(store.register_shipped(&anew, &one).await.unwrap()), Ok(1));
    // One of which nothing is there at all ends as well.
    let lost = shipment("lost");
    let mark = store.end_numbering(&lost, 57).await.unwrap();
    assert!(mark.registered == 0 && mark.next.is_some(), "{mark:?}");
    let late = puts(store, &lost, 1..=1).await;
    assert_eq!(ended(store.register_shipped(&lost, &late).await.unwrap()), Err(0));
}

#[tokio::test]
async fn an_object_is_put_once_and_mended_where_it_is_wrong() {
    let fresh = Fresh::new().await;
    let (store, access) = (&fresh.store, shipment("access"));
    let first = put(store, &access, 1, "line 1\n").await;
    let again = put(&fresh.other().await, &access, 1, "line 1\n").await;
    assert_eq!(first, again, "with the time that it had");
    let Content::Object { url, .. } = &first.block.content else {
        panic!("an object");
    };
    let path = crate::files::path_of(url).unwrap();
    assert!(path.starts_with(fresh.folder.path()), "{url}");
    // Broken at rest before it was registered: written anew.
    std::fs::write(&path, b"broken").unwrap();
    let mended = put(store, &access, 1, "line 1\n").await;
    store.register_shipped(&access, &[mended]).await.unwrap();
    assert_eq!(lines(store, "access").await, ["line 1"]);
    let block: Block = first.block;
    assert_eq!(
        block.checksum.as_deref(),
        Some(checksum(&frames("line 1\n")).to_hex().as_str())
    );

    // A store that takes nothing.
    let taken = fresh.folder.path().join("blocks");
    std::fs::remove_dir_all(&taken).unwrap();
    std::fs::write(&taken, b"in the way").unwrap();
    let bytes = frames("line 2\n");
    let sum = checksum(&bytes);
    let refused = store.put_block(&access, 2, bytes, sum, false).await.unwrap_err();
    assert!(matches!(refused, Error::Object { .. }), "{refused}");
}

#[tokio::test]
async fn agents_are_known_with_what_is_wanted_of_them() {
    let fresh = Fresh::new().await;
    let store = &fresh.store;
    let mut seen = crate::AgentSeen {
        agent: name("web7"),
        instance: Uuid::from_u128(7),
        incarnation: 1,
        host: "web7.example.com".into(),
        version: "1.2.3".into(),
        protocol: 1,
        zone: "east".into(),
        worker: Some((4, name("node1"))),
        datasets: vec![name("access"), name("app")],
        once: true,
    };
    let load = crate::AgentLoad {
        lag_bytes: 5,
        spool_full: true,
        files: 3,
        ..crate::AgentLoad::default()
    };
    assert!(matches!(
        store.pause_agent(&seen.agent, true).await,
        Err(Error::NotFound { .. })
    ));
    store.note_agent(&seen).await.unwrap();
    store.pause_agent(&seen.agent, true).await.unwrap();
    store
        .want_agent_at(&seen.agent, Some(&name("node2")))
        .await
        .unwrap();
    store
        .note_agent_load(&seen.agent, Uuid::from_u128(8), &load)
        .await
        .unwrap();
    let found = store.agent(&seen.agent).await.unwrap().unwrap();
    assert_eq!((&found.seen, found.load), (&seen, None), "of another instance");
    store
        .note_agent_load(&seen.agent, seen.instance, &load)
        .await
        .unwrap();
    seen.worker = None;
    seen.incarnation = 2;
    store.note_agent(&seen).await.unwrap();
    let found = store.agents().await.unwrap().remove(0);
    assert_eq!((&found.seen, found.paused), (&seen, true));
    assert_eq!(found.wanted, Some(name("node2")));
    assert_eq!(found.load.unwrap().0, load);
    assert!(store.paused_agents().await.unwrap().contains(&seen.agent));
    store.pause_agent(&seen.agent, false).await.unwrap();
    store.want_agent_at(&seen.agent, None).await.unwrap();
    let found = store.agent(&seen.agent).await.unwrap().unwrap();
    assert_eq!((found.paused, found.wanted), (false, None));
    store.remove_agent(&seen.agent).await.unwrap();
    assert_eq!(store.agent(&seen.agent).await.unwrap(), None);
}
