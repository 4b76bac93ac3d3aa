//! Datasets and the bytes of blocks.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use bson::doc;
use model::{Block, Codec, Content};

use super::*;
use crate::{BlockReader, Error, Spill, codec::tests::compressed};

#[tokio::test]
async fn blocks_come_back_by_range_across_pages() {
    let fresh = Fresh::new().await;
    let (logs, store) = (name("logs"), &fresh.store);
    let id = store.create(&logs).await.unwrap();
    assert!(matches!(store.create(&logs).await, Err(Error::Exists { .. })));
    let all: Vec<Block> = (0..700).map(|i| Block::inline(format!("line {i}\n"))).collect();
    store.append_blocks(&logs, all[..300].to_vec()).await.unwrap();
    store.append_blocks(&logs, vec![]).await.unwrap();
    store.append_blocks(&logs, all[300..].to_vec()).await.unwrap();
    let dataset = store.get(&logs).await.unwrap().unwrap();
    assert_eq!((dataset.id, dataset.blocks, &dataset.name), (id, 700, &logs));
    assert_eq!(dataset.bytes, all.iter().map(Block::stored_bytes).sum::<u64>());
    for (from, to) in [
        (0, 700),
        (0, 1),
        (255, 257),
        (299, 301),
        (555, 556),
        (699, 700),
        (650, 9000),
        (5, 5),
        (700, 800),
    ] {
        let expected = all.get(from..to.min(700)).unwrap_or_default();
        assert_eq!(
            store.blocks(edition(id), from as u32..to as u32).await.unwrap(),
            expected,
            "{from}..{to}"
        );
    }
    assert_eq!(
        fresh.documents("blocks").await,
        4,
        "pages of 256, each append beginning a new one"
    );
    assert_eq!(
        store.blocks(edition(Uuid::from_u128(3)), 0..10).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn large_blocks_make_small_pages() {
    let fresh = Fresh::new().await;
    let logs = name("logs");
    let id = fresh.store.create(&logs).await.unwrap();
    let all: Vec<Block> = (0..30)
        .map(|i| Block::inline(vec![b'a' + i as u8; 1 << 20]))
        .collect();
    fresh.store.append_blocks(&logs, all.clone()).await.unwrap();
    assert_eq!(fresh.store.blocks(edition(id), 0..30).await.unwrap(), all);
    assert!(fresh.documents("blocks").await >= 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn appending_at_once_mixes_but_loses_nothing() {
    let fresh = Fresh::new().await;
    let logs = name("logs");
    let id = fresh.store.create(&logs).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for part in 0..4 {
        let (store, logs) = (fresh.store.clone(), logs.clone());
        tasks.spawn(async move {
            for i in 0..5 {
                let blocks = (0..10)
                    .map(|n| Block::inline(format!("{part} {i} {n}")))
                    .collect();
                store.append_blocks(&logs, blocks).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let blocks = fresh.store.blocks(edition(id), 0..1000).await.unwrap();
    let texts: std::collections::BTreeSet<_> = blocks.iter().map(|block| format!("{block:?}")).collect();
    assert_eq!((blocks.len(), texts.len()), (200, 200));
}

#[tokio::test]
async fn a_dataset_in_use_stays() {
    let fresh = Fresh::new().await;
    let (logs, store) = (name("logs"), &fresh.store);
    let id = store.create(&logs).await.unwrap();
    store
        .append_blocks(&logs, vec![Block::inline("x")])
        .await
        .unwrap();
    let mut user = job(1, false);
    // Of several datasets each counts, also one of which no block takes part.
    let sources = [Uuid::from_u128(1), id].map(|id| Source {
        id,
        blocks: 1,
        ..Source::default()
    });
    user.parts = Parts::selected(sources.to_vec(), vec![vec![0..1], vec![]]).unwrap();
    store.submit(vec![user.clone(), job(1, false)]).await.unwrap();
    let error = store.remove(&logs).await.unwrap_err();
    assert!(error.to_string().contains(&user.id.to_string()), "{error}");
    assert!(matches!(error, Error::InUse { jobs: 1, .. }));
    let epoch = store.take_epoch("test").await.unwrap();
    store.admit(&[user.id], epoch).await.unwrap();
    assert!(matches!(store.remove(&logs).await, Err(Error::InUse { .. })));
    fresh.record(vec![succeeded(user.id, 0, 1)]).await;
    store.remove(&logs).await.unwrap();
    assert_eq!(store.get(&logs).await.unwrap(), None);
    assert_eq!(fresh.documents("blocks").await, 0);
    assert!(matches!(store.remove(&logs).await, Err(Error::NotFound { .. })));
    assert!(matches!(
        store.append_blocks(&logs, vec![Block::inline("x")]).await,
        Err(Error::NotFound { .. })
    ));
    assert_ne!(store.create(&logs).await.unwrap(), id);
    assert_eq!(store.list_datasets().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_orphaned_page_of_a_newer_release_is_refused_by_name() {
    let fresh = Fresh::new().await;
    let logs = name("logs");
    let id = fresh.store.create(&logs).await.unwrap();
    fresh
        .store
        .append_blocks(&logs, vec![Block::inline("x")])
        .await
        .unwrap();
    fresh
        .store
        .documents("blocks")
        .update_one(doc! {}, doc! { "$set": { "v": 99 } })
        .await
        .unwrap();
    let error = fresh
        .store
        .blocks(edition(id), 0..1)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("page 0") && error.contains("99"), "{error}");
}

/// Splits `bytes` and reads all blocks; checks that they are the bytes, cut only behind newlines.
async fn split_and_read(fresh: &Fresh, bytes: &[u8], block_size: u64) -> Vec<Vec<u8>> {
    let path = fresh.folder.path().join("a file.log");
    fs::write(&path, bytes).unwrap();
    let blocks = fresh
        .store
        .split(path.to_str().unwrap(), block_size)
        .await
        .unwrap();
    let mut parts = Vec::new();
    for block in &blocks {
        parts.push(read(fresh, block).await.unwrap());
    }
    assert_eq!(parts.concat(), bytes);
    for part in parts.iter().rev().skip(1) {
        assert!(part.ends_with(b"\n"), "{part:?}");
    }
    parts
}

async fn read(fresh: &Fresh, block: &Block) -> Result<Vec<u8>, Error> {
    let mut reader = fresh.store.reader(block).await?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

#[tokio::test]
async fn blocks_begin_and_end_between_lines() {
    let fresh = Fresh::new().await;
    let parts = |list: &[&str]| {
        list.iter()
            .map(|part| part.as_bytes().to_vec())
            .collect::<Vec<_>>()
    };
    for (text, size, expected) in [
        ("", 4, &[][..]),
        ("a", 4, &["a"]),
        ("a\n", 4, &["a\n"]),
        ("aaa\nbbb\nccc\n", 4, &["aaa\n", "bbb\n", "ccc\n"]),
        ("aaaa\nbb\ncc\n", 4, &["aaaa\n", "bb\n", "cc\n"]),
        ("aa\nbb\ncc\ndd", 4, &["aa\nbb\n", "cc\n", "dd"]),
        ("a\r\nbb\r\nccc\r\n", 3, &["a\r\n", "bb\r\n", "ccc\r\n"]),
        (
            "a line much longer than a block\nb\nc\n",
            4,
            &["a line much longer than a block\n", "b\nc\n"],
        ),
        ("no newline at all, anywhere", 4, &["no newline at all, anywhere"]),
        ("\n\n\n\n\n", 2, &["\n\n", "\n\n", "\n"]),
        ("a\nb\n", 0, &["a\n", "b\n"]),
        ("a\nb\nc", u64::MAX, &["a\nb\nc"]),
    ] {
        assert_eq!(
            split_and_read(&fresh, text.as_bytes(), size).await,
            parts(expected),
            "{text:?} by {size}"
        );
    }
}

#[tokio::test]
async fn any_block_size_gives_the_same_bytes() {
    let fresh = Fresh::new().await;
    let text: String = (0..400)
        .map(|i| format!("{}\n", "x".repeat(i * 7919 % 97)))
        .collect();
    for size in [1, 2, 7, 64, 100, 1000, 4096, 1 << 20] {
        let parts = split_and_read(&fresh, text.as_bytes(), size).await;
        assert!(
            parts.iter().all(|part| (part.len() as u64) < size + 97 + 1),
            "at most a line too long"
        );
    }
}

#[tokio::test]
async fn compressed_files_are_one_block_and_come_out_whole() {
    let fresh = Fresh::new().await;
    for codec in [Codec::Gzip, Codec::Zstd, Codec::Bzip2, Codec::Xz] {
        let path = fresh.folder.path().join("misnamed.txt");
        fs::write(&path, compressed(codec, &[b"one\n", b"two\n"])).unwrap();
        let blocks = fresh.store.split(path.to_str().unwrap(), 4).await.unwrap();
        assert_eq!(blocks.len(), 1);
        assert!(
            matches!(&blocks[0].content, Content::Object { codec: found, start: 0, .. } if *found == codec)
        );
        assert_eq!(
            read(&fresh, &blocks[0]).await.unwrap(),
            b"one\ntwo\n",
            "{codec:?}"
        );
    }
}

#[tokio::test]
async fn paths_become_absolute_urls() {
    let fresh = Fresh::new().await;
    let real = fresh.folder.path().canonicalize().unwrap().join("ä b%20#?.log");
    fs::write(&real, "line\n").unwrap();
    let link = fresh.folder.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let blocks = fresh.store.split(link.to_str().unwrap(), 100).await.unwrap();
    let Content::Object {
        url,
        size: 5,
        mtime_ms,
        ..
    } = &blocks[0].content
    else {
        panic!("{blocks:?}")
    };
    assert!(
        url.ends_with("/%C3%A4%20b%2520%23%3F.log") && *mtime_ms > 1_600_000_000_000,
        "{url} {mtime_ms}"
    );
    assert_eq!(read(&fresh, &blocks[0]).await.unwrap(), b"line\n");
    assert_eq!(
        fresh.store.split(url, 100).await.unwrap(),
        blocks,
        "the URL is as good as the path"
    );
}

#[tokio::test]
async fn what_is_no_file_is_refused_by_name() {
    let fresh = Fresh::new().await;
    let folder = fresh.folder.path();
    let fails = async |path: &Path| {
        let error = fresh.store.split(path.to_str().unwrap(), 100).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        text
    };
    assert!(fails(folder).await.contains("a directory"));
    assert!(fails(Path::new("/dev/null")).await.contains("a device"));
    let pipe = folder.join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    assert!(fails(&pipe).await.contains("a pipe"));
    let socket = folder.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(fails(&socket).await.contains("a socket"));
    assert!(fails(&folder.join("missing")).await.contains("No such file"));
    let secret = folder.join("secret");
    fs::write(&secret, "x").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o0)).unwrap();
    // Root reads it all the same.
    if fs::File::open(&secret).is_err() {
        assert!(fails(&secret).await.contains("denied"));
    }
    assert!(matches!(
        fresh.store.split("xyz://host/a", 1).await,
        Err(Error::BadUrl { .. })
    ));
}

#[tokio::test]
async fn a_file_may_grow_but_not_change() {
    let fresh = Fresh::new().await;
    let path = fresh.folder.path().join("access.log");
    fs::write(&path, "aaa\nbbb\n").unwrap();
    let blocks = fresh.store.split(path.to_str().unwrap(), 4).await.unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(b"ccc\n").unwrap();
    assert_eq!(read(&fresh, &blocks[0]).await.unwrap(), b"aaa\n");
    assert_eq!(
        read(&fresh, &blocks[1]).await.unwrap(),
        b"bbb\n",
        "what was appended belongs to no block"
    );
    log.set_len(7).unwrap();
    let error = read(&fresh, &blocks[0]).await.unwrap_err();
    assert!(
        matches!(&error, Error::Changed { was, is, .. } if was.starts_with("8 ") && is.starts_with("7 ")),
        "{error}"
    );
    log.set_len(0).unwrap();
    log.write_all(b"ddd\neee\n").unwrap();
    log.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(
        matches!(read(&fresh, &blocks[0]).await, Err(Error::Changed { .. })),
        "as long, but of another time"
    );
    fs::remove_file(&path).unwrap();
    assert!(matches!(read(&fresh, &blocks[0]).await, Err(Error::Io { .. })));
}

#[tokio::test]
async fn a_plain_file_can_be_handed_on() {
    let fresh = Fresh::new().await;
    let path = fresh.folder.path().join("log");
    fs::write(&path, "aaa\nbbb\nccc\n").unwrap();
    let blocks = fresh.store.split(path.to_str().unwrap(), 4).await.unwrap();
    let BlockReader::File { mut file, remaining } = fresh.store.reader(&blocks[1]).await.unwrap() else {
        panic!("not a file")
    };
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!((remaining, &rest[..4]), (4, "bbb\n"));
    // Cut off while it is read.
    let mut reader = fresh.store.reader(&blocks[2]).await.unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(10)
        .unwrap();
    assert!(
        reader
            .read_to_end(&mut Vec::new())
            .unwrap_err()
            .to_string()
            .contains("cut off")
    );
    let inline = fresh.store.reader(&Block::inline("in memory")).await.unwrap();
    assert!(matches!(inline, BlockReader::Bytes(_)));
}

#[tokio::test]
async fn objects_elsewhere_are_split_and_read_alike() {
    let fresh = Fresh::new().await;
    let url = format!("memory:///{}/access.log", fresh.space.database());
    let (store, key) = crate::objects::remote(&url).unwrap();
    let put = async |bytes: Vec<u8>| {
        object_store::ObjectStoreExt::put(&*store, &key, bytes.into())
            .await
            .unwrap()
    };
    put(b"aaa\nbbbbbbb\nccc".to_vec()).await;
    let blocks = fresh.store.split(&url, 4).await.unwrap();
    let mut parts = Vec::new();
    for block in &blocks {
        parts.push(String::from_utf8(read(&fresh, block).await.unwrap()).unwrap());
    }
    assert_eq!(parts, ["aaa\n", "bbbbbbb\n", "ccc"]);
    put(b"aaa\nbbbbbbb\nccc\nddd".to_vec()).await;
    assert!(
        matches!(read(&fresh, &blocks[0]).await, Err(Error::Changed { .. })),
        "objects are written whole"
    );
    put(compressed(Codec::Gzip, &[b"one\n", b"two\n"])).await;
    let blocks = fresh.store.split(&url, 4).await.unwrap();
    assert_eq!(read(&fresh, &blocks[0]).await.unwrap(), b"one\ntwo\n");
    put(Vec::new()).await;
    assert_eq!(fresh.store.split(&url, 4).await.unwrap(), []);
    assert!(matches!(
        fresh.store.split("memory:///nowhere", 4).await,
        Err(Error::Object { .. })
    ));
}

#[tokio::test]
async fn outputs_are_kept_and_read() {
    let fresh = Fresh::new().await;
    let job = JobId(Uuid::now_v7());
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| i as u8).collect();
    let path = fresh.folder.path().join("spilled");
    fs::write(&path, &large).unwrap();
    let from_file = Spill::File(fs::File::open(&path).unwrap());
    let outputs = [
        (inline("small"), b"small".to_vec()),
        (
            fresh
                .store
                .put_output(job, "0-1", Spill::Bytes(b"bytes".to_vec()))
                .await
                .unwrap(),
            b"bytes".to_vec(),
        ),
        (
            fresh
                .store
                .put_output(job, "1-1", Spill::Bytes(Vec::new()))
                .await
                .unwrap(),
            Vec::new(),
        ),
        (
            fresh.store.put_output(job, "2-1", from_file).await.unwrap(),
            large,
        ),
    ];
    for (output, expected) in &outputs {
        let mut bytes = Vec::new();
        fresh
            .store
            .read_output(output)
            .await
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        assert!(bytes == *expected, "{output:?}");
        assert_eq!(output.len(), expected.len() as u64);
    }
    let Output::Stored { object: last, .. } = &outputs[3].0 else {
        panic!("{:?} is not stored", outputs[3].0)
    };
    let folder = last.strip_suffix("/2-1").unwrap();
    assert!(
        folder.starts_with("outputs/") && folder.ends_with(&format!("/{job}")),
        "{last}"
    );
    let partly = Output::Stored {
        object: format!("{folder}/0-1"),
        start: 1,
        length: 3,
    };
    let mut text = String::new();
    fresh
        .store
        .read_output(&partly)
        .await
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "yte");
    assert_eq!(fresh.store.delete_job_outputs(job).await.unwrap(), 3);
    assert_eq!(fresh.store.delete_job_outputs(job).await.unwrap(), 0);
    assert!(matches!(
        fresh.store.read_output(&outputs[1].0).await,
        Err(Error::Object { .. })
    ));
}

/// A server of one text at one place: over plain HTTP, with or without parts of it. Gives its address.
#[cfg(feature = "cloud")]
fn serve(text: &'static str, knows_ranges: bool) -> String {
    use std::io::{BufRead as _, BufReader};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.log", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
                while let Some(Ok(request)) = lines.next() {
                    let headers = lines.by_ref().map_while(Result::ok);
                    let headers: Vec<String> = headers.take_while(|line| !line.is_empty()).collect();
                    let range = headers.iter().find_map(|line| {
                        let line = line.to_lowercase();
                        let (from, to) = line.strip_prefix("range: bytes=")?.split_once('-')?;
                        Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?))
                    });
                    let (status, part, more) = match range.filter(|_| knows_ranges) {
                        Some((from, to)) => {
                            let to = to.min(text.len() - 1);
                            let more = format!("Content-Range: bytes {from}-{to}/{}\r\n", text.len());
                            ("206 Partial Content", &text[from..=to], more)
                        }
                        None => ("200 OK", text, String::new()),
                    };
                    let head = format!(
                        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLast-Modified: Mon, 06 Jan 2025 10:00:00 GMT\r\n{more}\r\n",
                        part.len()
                    );
                    let body = if request.starts_with("HEAD") { "" } else { part };
                    connection.write_all(format!("{head}{body}").as_bytes()).unwrap();
                }
            });
        }
    });
    url
}

#[cfg(feature = "cloud")]
#[tokio::test]
async fn files_are_read_over_plain_http() {
    let fresh = Fresh::new().await;
    let text = "one line\nanother\nthe last";
    for (knows_ranges, expected) in [(true, 3), (false, 1)] {
        let url = serve(text, knows_ranges);
        let blocks = fresh.store.split(&url, 8).await.unwrap();
        assert_eq!(blocks.len(), expected, "{blocks:?}");
        let mut all = Vec::new();
        for block in &blocks {
            all.extend(read(&fresh, block).await.unwrap());
        }
        assert_eq!(String::from_utf8(all).unwrap(), text);
        // A part of it, as samples are.
        let part = blocks[0].with_range(4..8);
        assert_eq!(read(&fresh, &part).await.unwrap(), b"line");
    }
}
