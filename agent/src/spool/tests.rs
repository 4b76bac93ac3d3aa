//! What a spool does with files that are not as it wrote them.

use std::sync::atomic::AtomicI64;

use super::*;
use crate::{block::CutBlock, object::Packer};

fn dataset() -> Name {
    Name::new("access").unwrap()
}

fn cut(text: &str) -> CutBlock {
    CutBlock {
        dataset: dataset(),
        raw: text.as_bytes().to_vec(),
        lines: 1,
        origins: Vec::new(),
        positions: Vec::new(),
        begins: Vec::new(),
        rebuilds: None,
        read_ms: 0,
    }
}

fn commit(spool: &Spool, text: &str) -> u64 {
    let block = cut(text);
    let object = Packer::new().unwrap().pack(&block).unwrap();
    spool.announce(&block.dataset, block.raw.len() as u64);
    spool.commit(&block, &object).unwrap()
}

fn open(dir: &Path) -> Result<Spool, Error> {
    Spool::open(dir, &BTreeMap::new(), Disk::default())
}

fn three_blocks() -> (tempfile::TempDir, [PathBuf; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path()).unwrap();
    let paths = [1, 2, 3].map(|number| {
        assert_eq!(commit(&spool, &format!("line {number}\n")), number);
        spool.path(&dataset(), number)
    });
    assert_eq!(spool.bytes(), spool.bytes_of(&dataset()));
    (dir, paths)
}

#[test]
fn only_a_torn_last_block_is_dropped() {
    let (dir, paths) = three_blocks();
    let bytes = fs::read(&paths[2]).unwrap();
    fs::write(&paths[2], &bytes[..bytes.len() - 1]).unwrap();
    let spool = open(dir.path()).unwrap();
    assert_eq!(spool.headers().len(), 2);
    assert_eq!(commit(&spool, "line 3 again\n"), 3);
    drop(spool);
    fs::write(&paths[1], &bytes[..20]).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::BadBlock { path, .. }) if path == paths[1]));
    assert!(paths[1].exists(), "it stays for who mends it");
}

#[test]
fn a_number_is_not_given_twice_for_a_block_that_can_not_be_read() {
    // A disk that fails to read: here because there is no file to be read.
    let (dir, paths) = three_blocks();
    let whole = fs::read(&paths[2]).unwrap();
    fs::remove_file(&paths[2]).unwrap();
    fs::create_dir(&paths[2]).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::BadBlock { path, .. }) if path == paths[2]));
    fs::remove_dir(&paths[2]).unwrap();
    // A newer release has written it.
    let newer = br#"{"v":99,"of":"another shape"}"#;
    let text = [newer, &b"\n"[..], blake3::hash(newer).to_hex().as_bytes(), b"\n"].concat();
    fs::write(&paths[2], text).unwrap();
    let told = open(dir.path())
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(told.contains("format 99 is newer"), "{told}");
    fs::write(&paths[2], whole).unwrap();
    assert_eq!(open(dir.path()).unwrap().headers().len(), 3);
    // One in the midst is gone.
    fs::remove_file(&paths[1]).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::BadBlock { path, .. }) if path == paths[2]));
}

#[test]
fn what_was_not_sent_from_here_is_not_taken_for_registered() {
    let (dir, _) = three_blocks();
    // An old copy that reads on before it meets the mill, which has others as 4 and 5.
    let spool = open(dir.path()).unwrap();
    assert_eq!(
        [4, 5].map(|number| commit(&spool, &format!("other {number}\n"))),
        [4, 5]
    );
    let outdated = |registered| {
        let told = spool.acknowledge(&dataset(), registered, None);
        assert!(
            matches!(told, Err(Error::Outdated { registered: of, known, .. }) if of == registered && known < of),
            "{told:?}"
        );
    };
    outdated(5);
    outdated(4);
    assert_eq!(spool.headers().len(), 5, "they stay");
    // What was on disk at the start may have been sent before it.
    spool.acknowledge(&dataset(), 3, None).unwrap();
    outdated(4);
    spool.note_sent(&spool.next(&dataset(), 3).unwrap());
    outdated(5);
    spool.acknowledge(&dataset(), 4, None).unwrap();
    assert_eq!(spool.headers().len(), 1);
}

#[test]
fn what_was_refused_is_gone_and_what_may_be_registered_stays() {
    let fuse = |steps| Disk {
        fuse: Some(Arc::new(steps)),
    };
    // Wherever the process dies in the midst of it, there is no gap.
    for steps in 0.. {
        let (dir, paths) = three_blocks();
        let spool = Spool::open(dir.path(), &BTreeMap::new(), fuse(AtomicI64::new(i64::MAX))).unwrap();
        for number in 4..=6 {
            assert_eq!(commit(&spool, &format!("line {number}\n")), number);
        }
        spool.note_sent(&spool.block(&dataset(), 4).unwrap());
        spool.doubt(&dataset(), 4);
        spool
            .disk
            .fuse
            .as_ref()
            .unwrap()
            .store(steps, std::sync::atomic::Ordering::SeqCst);
        let done = spool.abandon().is_ok();
        drop(spool);
        let left: Vec<u64> = open(dir.path())
            .unwrap()
            .headers()
            .iter()
            .map(|header| header.sequence)
            .collect();
        assert_eq!(left, (1..=left.len() as u64).collect::<Vec<_>>());
        assert!(left.len() >= 4 && paths.iter().all(|path| path.exists()));
        if done {
            assert_eq!(left.len(), 4);
            break;
        }
    }
}

#[test]
fn a_lost_block_that_was_refused_is_lost_again() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path()).unwrap();
    commit(&spool, "line 1\n");
    spool.note_sent(&spool.block(&dataset(), 1).unwrap());
    spool.acknowledge(&dataset(), 1, None).unwrap();
    let acknowledged = spool.take_acknowledged();
    let headers: Vec<_> = acknowledged.into_iter().map(|(header, _)| header).collect();
    spool.remove(&headers).unwrap();
    assert_eq!(spool.renumber(&dataset(), Uuid::from_u128(1), 0).unwrap(), 1);
    let lost = spool.lost();
    assert_eq!(lost[&dataset()], [(1, 1)]);
    let again = CutBlock {
        rebuilds: Some(1),
        ..cut("line 1\n")
    };
    let object = Packer::new().unwrap().pack(&again).unwrap();
    spool.commit(&again, &object).unwrap();
    assert!(spool.lost().is_empty());
    spool.abandon().unwrap();
    drop(spool);
    let registered = BTreeMap::from([(dataset(), 1)]);
    let spool = Spool::open(dir.path(), &registered, Disk::default()).unwrap();
    assert_eq!((spool.lost(), spool.headers().len()), (lost, 0));
}
