//! Blocks that nodes keep: placed, read from whoever has a good copy, mended, swept.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read as _, Write},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{
    Block, Content,
    place::{BlockKey, NodeUrl, Placement, Spread},
};

use super::*;
use crate::{Error, Kept, LocalStore, Missed, Neighbours, Registration, Shipment, ShippedBlock};

/// Nodes in one process, of which some are away.
#[derive(Debug, Default)]
struct Rack {
    nodes: Vec<LocalStore>,
    away: Mutex<BTreeSet<Name>>,
    fetched: Mutex<Vec<Name>>,
}

impl Rack {
    fn find(&self, node: &Name) -> Result<&LocalStore, String> {
        let is_away = self.away.lock().unwrap().contains(node);
        let found = self.nodes.iter().find(|store| store.node() == node && !is_away);
        found.ok_or_else(|| "it is away".to_string())
    }

    fn leave(&self, nodes: &[&str]) {
        *self.away.lock().unwrap() = nodes.iter().map(|node| name(node)).collect();
    }

    fn fetched(&self) -> Vec<String> {
        let mut fetched = self.fetched.lock().unwrap();
        std::mem::take(&mut *fetched)
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

impl Neighbours for Rack {
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Name>, String>> {
        let live = self
            .nodes
            .iter()
            .map(LocalStore::node)
            .filter(|node| self.find(node).is_ok());
        let live = live.cloned().collect();
        Box::pin(async move { Ok(live) })
    }

    fn put<'a>(&'a self, node: &'a Name, block: Kept<'a>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let put = self
                .find(node)?
                .put(block.key, block.bytes.to_vec(), block.checksum, block.verify);
            put.await.map_err(|error| error.to_string())
        })
    }

    fn get<'a>(
        &'a self,
        node: &'a Name,
        key: &'a BlockKey,
        _bytes: u64,
        into: &'a mut (dyn Write + Send),
    ) -> BoxFuture<'a, Result<(), Missed>> {
        Box::pin(async move {
            self.fetched.lock().unwrap().push(node.clone());
            let opened = self.find(node).map_err(Missed::Gone)?.open_block(key).await;
            let (mut file, _) = opened.map_err(|error| Missed::Gone(error.to_string()))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            into.write_all(&bytes).map_err(Missed::Here)
        })
    }
}

/// Three nodes and a store that is none of them.
struct Yard {
    fresh: Fresh,
    folder: TempDir,
    rack: Arc<Rack>,
}

impl Yard {
    async fn new() -> Self {
        let (fresh, folder) = (Fresh::new().await, TempDir::new().unwrap());
        let open = |node: &str| LocalStore::open(folder.path().join(node), &name(node)).unwrap();
        let rack = Rack {
            nodes: ["a", "b", "c"].map(open).into(),
            ..Rack::default()
        };
        Self {
            fresh,
            folder,
            rack: Arc::new(rack),
        }
    }

    /// The stores as a node has them.
    fn at(&self, node: &str) -> Store {
        let local = self.rack.nodes.iter().find(|store| store.node().as_str() == node);
        let store = self.outside();
        match local {
            Some(local) => store.with_local(local.clone()),
            None => store,
        }
    }

    fn outside(&self) -> Store {
        self.fresh
            .store
            .clone()
            .with_neighbours(Arc::clone(&self.rack) as Arc<dyn Neighbours>)
    }

    fn path(&self, node: &str, block: &Block) -> std::path::PathBuf {
        self.folder.path().join(node).join(url(block).key.as_str())
    }
}

fn url(block: &Block) -> NodeUrl {
    let Content::Object { url, .. } = &block.content else {
        panic!("{block:?}")
    };
    NodeUrl::parse(url).unwrap()
}

fn hosts(block: &Block) -> Vec<String> {
    block.hosts().iter().map(ToString::to_string).collect()
}

fn shipment() -> Shipment {
    Shipment {
        agent: name("web7"),
        instance: Uuid::from_u128(7),
        dataset: name("access"),
    }
}

async fn place(store: &Store, sequence: u64, copies: u32, spread: Spread) -> Result<Block, Error> {
    let bytes = zstd::encode_all(&b"one\ntwo\n"[..], 1).unwrap();
    let checksum = blake3::hash(&bytes);
    let placement = Placement {
        copies,
        spread,
        nodes: None,
    };
    let bytes = vec![Bytes::from(bytes)];
    store
        .place_block(&shipment(), sequence, bytes, (checksum, true), &placement)
        .await
}

async fn text(store: &Store, block: &Block) -> Result<String, Error> {
    let mut text = String::new();
    store.reader(block).await?.read_to_string(&mut text).unwrap();
    Ok(text)
}

#[tokio::test]
async fn a_block_is_read_where_it_is_or_from_who_keeps_it() {
    let yard = Yard::new().await;
    let at_b = yard.at("b");
    let block = place(&at_b, 1, 2, Spread::Receiver).await.unwrap();
    let [first, second] = &hosts(&block)[..] else {
        panic!("{block:?}")
    };
    assert_eq!(first, "b");
    assert_eq!(text(&at_b, &block).await.unwrap(), "one\ntwo\n");
    assert!(yard.rack.fetched().is_empty());
    let third = ["a", "c"].into_iter().find(|node| node != second).unwrap();
    // Fetched once, then read from the copy.
    let at_third = yard
        .at(third)
        .with_copies(yard.folder.path().join("copies"), 1 << 20);
    for _ in 0..2 {
        assert_eq!(text(&at_third, &block).await.unwrap(), "one\ntwo\n");
    }
    assert_eq!(yard.rack.fetched(), ["b"]);
    // One that is away is passed over.
    yard.rack.leave(&["b"]);
    assert_eq!(text(&yard.outside(), &block).await.unwrap(), "one\ntwo\n");
    assert_eq!(yard.rack.fetched(), ["b", second.as_str()]);
    yard.rack.leave(&["b", second]);
    let error = text(&yard.outside(), &block).await.unwrap_err().to_string();
    assert!(
        error.contains("b: it is away") && error.contains(&format!("{second}: it is away")),
        "{error}"
    );
}

#[tokio::test]
async fn a_broken_copy_is_passed_over_and_mended_by_its_node() {
    let yard = Yard::new().await;
    let block = place(&yard.at("a"), 1, 2, Spread::Receiver).await.unwrap();
    let path = yard.path("a", &block);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    assert_eq!(text(&yard.outside(), &block).await.unwrap(), "one\ntwo\n");
    assert_eq!(yard.rack.fetched(), hosts(&block));
    assert_eq!(std::fs::read(&path).unwrap(), bad, "nobody else touches it");
    assert_eq!(text(&yard.at("a"), &block).await.unwrap(), "one\ntwo\n");
    assert_eq!(std::fs::read(&path).unwrap(), good);
    // A broken copy is not a block that is gone: whether the other copy is gone, or away, or broken as well.
    std::fs::write(&path, &bad).unwrap();
    let second = hosts(&block)[1].clone();
    let error = async || {
        let error = text(&yard.outside(), &block).await.unwrap_err();
        assert!(
            matches!(error, Error::Broken { .. }) && !error.is_away(),
            "{error}"
        );
        error.to_string()
    };
    yard.rack.away.lock().unwrap().insert(name(&second));
    let away = format!("{second}: it is away");
    assert!(error().await.contains(&away));
    yard.rack.away.lock().unwrap().clear();
    std::fs::write(yard.path(&second, &block), &bad).unwrap();
    assert!(error().await.contains("is not what was written"));
    let at_a = text(&yard.at("a"), &block).await.unwrap_err();
    assert!(matches!(at_a, Error::Broken { .. }), "{at_a}");
    std::fs::remove_file(yard.path(&second, &block)).unwrap();
    error().await;
    std::fs::remove_file(&path).unwrap();
    let gone = text(&yard.outside(), &block).await.unwrap_err();
    assert!(gone.is_away(), "{gone}");
}

#[tokio::test]
async fn files_are_spread_and_copies_are_apart() {
    let yard = Yard::new().await;
    let mut firsts = Vec::new();
    for turn in 0..3 {
        let block = place(&yard.outside(), turn + 1, 3, Spread::Turn(turn))
            .await
            .unwrap();
        let mut all = hosts(&block);
        firsts.push(all[0].clone());
        all.sort();
        assert_eq!(all, ["a", "b", "c"]);
        for node in all {
            assert!(yard.path(&node, &block).exists());
        }
    }
    assert_eq!(firsts, ["a", "b", "c"]);
    yard.rack.leave(&["a", "b"]);
    let few = place(&yard.outside(), 9, 2, Spread::Key("x".into()))
        .await
        .unwrap_err();
    assert!(
        matches!(few, Error::Misplaced(_)) && few.to_string().contains("there are 1: c"),
        "{few}"
    );
    // Its folder can't be written to: whoever asked learns which node that was.
    yard.rack.leave(&[]);
    let full = yard.folder.path().join("c/blocks");
    std::fs::remove_dir_all(&full).unwrap();
    std::fs::write(&full, "in the way").unwrap();
    let failed = place(&yard.outside(), 10, 3, Spread::Turn(0)).await.unwrap_err();
    assert!(
        matches!(&failed, Error::Unplaced { why, .. } if why.starts_with("c: ")),
        "{failed}"
    );
    // Where others will do, they are chosen.
    let block = place(&yard.at("c"), 11, 2, Spread::Receiver).await.unwrap();
    let mut all = hosts(&block);
    all.sort();
    assert_eq!(all, ["a", "b"]);
}

#[tokio::test]
async fn what_no_dataset_names_is_swept() {
    let yard = Yard::new().await;
    let at_a = yard.at("a");
    let mut blocks = Vec::new();
    for sequence in 1..=2 {
        let block = place(&at_a, sequence, 2, Spread::Receiver).await.unwrap();
        blocks.push(ShippedBlock {
            sequence,
            block,
            lines: 2,
            raw_bytes: 8,
        });
    }
    let registered = at_a.register_shipped(&shipment(), &blocks[..1]).await.unwrap();
    assert!(matches!(registered, Registration::Registered { mark: 1, .. }));
    assert_eq!(at_a.sweep_local().await.unwrap(), 0, "both are young");
    let paths = [0, 1].map(|at: usize| yard.path("a", &blocks[at].block));
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    for path in &paths {
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
    assert_eq!(at_a.sweep_local().await.unwrap(), 1);
    assert_eq!([paths[0].exists(), paths[1].exists()], [true, false]);
    at_a.remove(&name("access")).await.unwrap();
    // Another database in the place of the one of the start.
    let meta = at_a.documents(crate::schema::META);
    let mine = bson::doc! { "_id": "identity" };
    let identity = meta.find_one(mine.clone()).await.unwrap().unwrap();
    meta.delete_one(mine).await.unwrap();
    assert!(matches!(at_a.sweep_local().await, Err(Error::Decode { .. })));
    assert!(paths[0].exists());
    meta.insert_one(identity).await.unwrap();
    assert_eq!(at_a.sweep_local().await.unwrap(), 1);
    assert!(!paths[0].exists());
}

#[tokio::test]
async fn what_comes_for_a_remote_store_is_at_hand() {
    let fresh = Fresh::new().await;
    let folder = TempDir::new().unwrap();
    let config = Config::new(
        fresh.space.mongodb(),
        format!("memory:///{}", fresh.space.mongodb().len()),
    );
    let store = Store::open(&config)
        .await
        .unwrap()
        .with_copies(folder.path().join("copies"), 1 << 20);
    let bytes = zstd::encode_all(&b"one\ntwo\n"[..], 1).unwrap();
    let checksum = blake3::hash(&bytes);
    let shipment = shipment();
    let put = store.put_block(&shipment, 1, vec![Bytes::from(bytes)], checksum, true);
    let block = put.await.unwrap();
    let copies: Vec<_> = std::fs::read_dir(folder.path().join("copies")).unwrap().collect();
    let [Ok(copy)] = &copies[..] else {
        panic!("{copies:?}")
    };
    // What is read is the copy, not the store.
    std::fs::write(copy.path(), zstd::encode_all(&b"the\ncop\n"[..], 1).unwrap()).unwrap();
    assert_eq!(text(&store, &block).await.unwrap(), "the\ncop\n");
}
