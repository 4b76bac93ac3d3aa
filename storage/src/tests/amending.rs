//! Blocks are taken out of datasets, come back, and nothing else changes.

use std::{fs, io::Write as _, os::unix::fs::MetadataExt as _, path::Path, time::SystemTime};

use model::{
    Block,
    table::{Format, Table},
};

use super::*;
use crate::{Amendment, Dataset, Error, Held, Since, held};

/// Longer than what was replaced is let alone.
const MINUTES: i64 = 120_000;

fn blocks(numbers: std::ops::Range<u32>) -> Vec<Block> {
    numbers
        .map(|number| Block::inline(format!("{number}\n")))
        .collect()
}

async fn dataset(fresh: &Fresh) -> Dataset {
    fresh.store.get(&name("logs")).await.unwrap().unwrap()
}

/// Adds these as one revision.
async fn add(fresh: &Fresh, added: Vec<Block>, out: &[u32]) {
    let before = fresh.store.get(&name("logs")).await.unwrap();
    if before.is_none() {
        fresh.store.create(&name("logs")).await.unwrap();
    }
    let now = dataset(fresh).await;
    let numbered = numbers(fresh, &now).await;
    let of = |number: &u32| numbered.iter().find(|(at, _)| at == number).unwrap().clone();
    let amendment = Amendment {
        out: out.iter().map(of).collect(),
        added,
        ..Amendment::default()
    };
    fresh
        .store
        .revise(&now, &amendment, before.as_ref())
        .await
        .unwrap();
}

/// What a dataset has as it was read, with its numbers.
async fn numbers(fresh: &Fresh, dataset: &Dataset) -> Vec<(u32, Block)> {
    let range = dataset.first..dataset.blocks;
    let found = fresh
        .store
        .numbered(dataset.edition(), range.clone())
        .await
        .unwrap();
    assert_eq!(found.known, range);
    let void = fresh.store.void(dataset.edition(), range.clone()).await.unwrap();
    let void: u32 = void.iter().map(|range| range.end - range.start).sum();
    assert_eq!((dataset.void, dataset.count()), (void, found.blocks.len() as u32));
    let bytes: u64 = found.blocks.iter().map(|(_, block)| block.stored_bytes()).sum();
    assert_eq!(dataset.bytes, bytes);
    found.blocks
}

async fn now(fresh: &Fresh) -> Vec<u32> {
    let numbered = numbers(fresh, &dataset(fresh).await).await;
    numbered.into_iter().map(|(number, _)| number).collect()
}

#[tokio::test]
async fn blocks_are_taken_out_and_jobs_read_on_what_was_there() {
    let fresh = Fresh::new().await;
    add(&fresh, blocks(0..6), &[]).await;
    let before = dataset(&fresh).await;
    let all = numbers(&fresh, &before).await;
    let out = all.iter().filter(|(number, _)| [1, 2, 4].contains(number));
    let out: Vec<_> = out.cloned().collect();
    fresh.store.take_out(&before, out.clone()).await.unwrap();
    assert_eq!(now(&fresh).await, [0, 3, 5]);
    assert_eq!(numbers(&fresh, &before).await, all);
    let after = dataset(&fresh).await;
    assert_eq!((after.generation, after.cut), (1, 1));
    // Read before that, they can't be taken out once more.
    let again = fresh.store.take_out(&before, out).await;
    assert!(matches!(again, Err(Error::Concurrent { .. })), "{again:?}");
    let undone = fresh.store.take_back(&after).await.unwrap_err();
    assert!(undone.to_string().contains("not to add files"), "{undone}");
    // What is in their page stays when it is looked what was replaced.
    fresh
        .store
        .let_leave(crate::schema::now_ms() + MINUTES)
        .await
        .unwrap();
    assert_eq!(now(&fresh).await, [0, 3, 5]);
    add(&fresh, blocks(6..7), &[]).await;
    assert_eq!(now(&fresh).await, [0, 3, 5, 6]);
}

#[tokio::test]
async fn what_was_added_last_is_taken_back_with_its_columns() {
    let fresh = Fresh::new().await;
    let table = |format| Table {
        format,
        columns: Vec::new(),
        least: None,
    };
    add(&fresh, blocks(0..3), &[]).await;
    fresh
        .store
        .set_table(&dataset(&fresh).await, &table(Format::Json), "first")
        .await
        .unwrap();
    // The second adds a column, and two blocks that stand for the last one too.
    let before = dataset(&fresh).await;
    fresh
        .store
        .set_table(&before, &table(Format::Raw), "second")
        .await
        .unwrap();
    let amendment = Amendment {
        out: numbers(&fresh, &before).await.split_off(2),
        added: blocks(3..5),
        ..Amendment::default()
    };
    let learned = dataset(&fresh).await;
    fresh
        .store
        .revise(&learned, &amendment, Some(&before))
        .await
        .unwrap();
    assert_eq!(now(&fresh).await, [0, 1, 3, 4]);
    fresh.store.take_back(&dataset(&fresh).await).await.unwrap();
    assert_eq!(now(&fresh).await, [0, 1, 2]);
    let after = dataset(&fresh).await;
    assert_eq!(
        (after.table, after.table_why.as_deref(), after.last),
        (Some(table(Format::Json)), Some("first"), None)
    );
    // Again, and again: what came back can go out once more.
    for _ in 0..2 {
        add(&fresh, blocks(5..6), &[2]).await;
        fresh.store.take_back(&dataset(&fresh).await).await.unwrap();
        assert_eq!(now(&fresh).await, [0, 1, 2]);
    }
    fresh
        .store
        .let_leave(crate::schema::now_ms() + MINUTES)
        .await
        .unwrap();
    assert_eq!(now(&fresh).await, [0, 1, 2]);
}

#[tokio::test]
async fn what_others_did_since_is_not_taken_back() {
    let fresh = Fresh::new().await;
    let why = async || {
        let refused = fresh.store.take_back(&dataset(&fresh).await).await;
        refused.unwrap_err().to_string()
    };
    add(&fresh, blocks(0..2), &[]).await;
    add(&fresh, blocks(2..3), &[]).await;
    fresh
        .store
        .append_blocks(&name("logs"), blocks(3..4))
        .await
        .unwrap();
    assert!(why().await.contains("added since by somebody else"));
    add(&fresh, blocks(4..5), &[]).await;
    let table = Table {
        format: Format::Raw,
        columns: Vec::new(),
        least: None,
    };
    fresh
        .store
        .set_table(&dataset(&fresh).await, &table, "said")
        .await
        .unwrap();
    assert!(why().await.contains("types of its columns"));
    let made = fresh.other().await;
    made.remove(&name("logs")).await.unwrap();
    add(&fresh, blocks(0..2), &[]).await;
    fresh.store.take_back(&dataset(&fresh).await).await.unwrap();
    assert_eq!(fresh.store.get(&name("logs")).await.unwrap(), None);
}

async fn added(fresh: &Fresh, path: &Path) -> Held {
    let blocks = fresh.store.split(path.to_str().unwrap(), 8).await.unwrap();
    held((0..).zip(blocks).collect()).remove(0)
}

async fn since(fresh: &Fresh, file: &Held) -> Since {
    fresh.store.look(vec![file.clone()], false).await.remove(0).since
}

fn append(path: &Path, text: &str) {
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Writes a file anew with the time that it had.
fn rewrite(path: &Path, text: &str) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, text).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(modified).unwrap();
}

#[tokio::test]
async fn a_file_is_known_by_what_stands_in_it() {
    let fresh = Fresh::new().await;
    let path = fresh.folder.path().join("access.log");
    fs::write(&path, "aaaa\nbbbb\ncc").unwrap();
    let file = added(&fresh, &path).await;
    assert_eq!(since(&fresh, &file).await, Since::Unchanged);
    // Another name for it changes its change time, and nothing else.
    fs::hard_link(&path, path.with_extension("2")).unwrap();
    assert_eq!(since(&fresh, &file).await, Since::Unchanged);
    append(&path, "c\ndd\n");
    assert_eq!(since(&fresh, &file).await, Since::Grown(5));
    let tail = fresh.store.tail(&file, 1024).await.unwrap();
    let range = |block: &Block| match block.content {
        model::Content::Object { start, end, .. } => (start, end),
        model::Content::Inline(_) => (0, 0),
    };
    // The line that was not finished is cut anew.
    let last = file.blocks.last().unwrap();
    assert_eq!(tail.instead_of, std::slice::from_ref(last));
    let cut: Vec<_> = tail.blocks.iter().map(range).collect();
    assert_eq!(cut, [(range(&last.1).0, 17)]);
    let renamed = path.with_extension("1");
    fs::rename(&path, &renamed).unwrap();
    assert!(matches!(since(&fresh, &file).await, Since::Gone(_)));
    let url = fresh.store.url_of(renamed.to_str().unwrap()).unwrap();
    assert!(fresh.store.has(&url, &file).await);
    // A longer one under its name is another one.
    fs::write(&path, "something else, and longer\n").unwrap();
    assert!(matches!(since(&fresh, &file).await, Since::Changed(_)));
    let url = fresh.store.url_of(path.to_str().unwrap()).unwrap();
    assert!(!fresh.store.has(&url, &file).await);
}

#[tokio::test]
async fn a_file_with_other_bytes_under_the_old_size_and_time_has_changed() {
    let fresh = Fresh::new().await;
    let path = fresh.folder.path().join("a.log");
    fs::write(&path, "n=1\nn=2\n").unwrap();
    let file = added(&fresh, &path).await;
    let inode = fs::metadata(&path).unwrap().ino();
    rewrite(&path, "n=7\nn=8\n");
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "written in place");
    let Since::Changed(why) = since(&fresh, &file).await else {
        panic!("it has other bytes")
    };
    assert!(why.contains("with other bytes in it"), "{why}");
    let read = fresh.store.reader(&file.blocks[0].1).await;
    assert!(matches!(read, Err(Error::Changed { .. })), "{read:?}");
    let anew = added(&fresh, &path).await;
    let of = |file: &Held| model::Fingerprint::of_contents(&file.blocks[0].1);
    assert_ne!(of(&anew), of(&file));
    // The same bytes in another file are not the same file either, but can be read under its name.
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    let modified: SystemTime = fs::metadata(&path).unwrap().modified().unwrap();
    fs::File::options()
        .write(true)
        .open(&copy)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    fs::rename(&copy, &path).unwrap();
    assert!(fresh.store.reader(&anew.blocks[0].1).await.is_ok());
    assert!(crate::version_now(&anew.blocks[0].1).is_some());
    assert_ne!(of(&added(&fresh, &path).await), of(&anew));
}
