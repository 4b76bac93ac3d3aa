//! Where the lines of blocks lay that the mill has acknowledged: what it loses by a restore from an older backup can be read
//! again from the files that still are there.
//!
//! Promise: bounded, and never wrong about a block that it knows. No promise to know a block: it is not synced, and keeps
//! the last 32 to 64 MiB.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead as _, BufReader},
    path::Path,
    sync::Arc,
};

use model::Name;
use serde::{Deserialize, Serialize};

use crate::{disk::Disk, mark::Mark, spool::Header};

/// Bytes after which a new file is begun; the one before is kept. About 300,000 blocks of one file each.
const MOST_BYTES: u64 = 32 << 20;
/// Names of the file that is written, and of the one before it.
const NAMES: [&str; 2] = ["journal.jsonl", "journal.old.jsonl"];

/// Lines of a stream in a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    #[serde(rename = "n")]
    pub(crate) stream: u64,
    #[serde(rename = "a")]
    pub(crate) begin: u64,
    #[serde(rename = "b")]
    pub(crate) end: u64,
    /// The last bytes before the end.
    #[serde(rename = "t")]
    pub(crate) tail: Mark,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "d")]
    dataset: Name,
    #[serde(rename = "s")]
    sequence: u64,
    #[serde(rename = "p")]
    parts: Vec<Part>,
    /// It has the lines of this block once more.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    rebuilds: Option<u64>,
}

/// A block by its dataset and number.
pub(crate) type Number = (Name, u64);

/// Takes down where the lines of these blocks lie.
pub(crate) fn append(dir: &Path, disk: &Disk, blocks: &[Arc<Header>]) -> io::Result<()> {
    let mut lines = Vec::new();
    for header in blocks {
        let parts = header.positions.iter().zip(&header.begins);
        let parts: Vec<Part> = parts
            .map(|(position, begin)| Part {
                stream: position.stream,
                begin: *begin,
                end: position.offset,
                tail: position.tail,
            })
            .collect();
        if parts.is_empty() && header.rebuilds.is_none() {
            continue;
        }
        let entry = Entry {
            dataset: header.dataset.clone(),
            sequence: header.sequence,
            parts,
            rebuilds: header.rebuilds,
        };
        serde_json::to_writer(&mut lines, &entry)?;
        lines.push(b'\n');
    }
    let [path, old] = NAMES.map(|name| dir.join(name));
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= MOST_BYTES) {
        fs::rename(&path, old)?;
    }
    disk.append(&path, &lines)
}

/// Where the lines of the blocks in these ranges lay, as far as it is known.
pub(crate) fn find(dir: &Path, wanted: &BTreeMap<Name, Vec<(u64, u64)>>) -> BTreeMap<Number, Vec<Part>> {
    let (mut found, twice) = read(dir, wanted);
    // One that was lost before is known as what it was then.
    let mut firsts: BTreeMap<Name, Vec<(u64, u64)>> = BTreeMap::new();
    for ((dataset, _), first) in &twice {
        firsts.entry(dataset.clone()).or_default().push((*first, *first));
    }
    if !firsts.is_empty() {
        let lines = find(dir, &firsts);
        for ((dataset, sequence), first) in twice {
            if let Some(parts) = lines.get(&(dataset.clone(), first)) {
                found.insert((dataset, sequence), parts.clone());
            }
        }
    }
    found
}

/// What stands in the files of these blocks: where their lines lay, or which block they are once more.
fn read(
    dir: &Path,
    wanted: &BTreeMap<Name, Vec<(u64, u64)>>,
) -> (BTreeMap<Number, Vec<Part>>, BTreeMap<Number, u64>) {
    let (mut found, mut twice) = (BTreeMap::new(), BTreeMap::new());
    let is_wanted = |entry: &Entry| {
        let mut ranges = wanted.get(&entry.dataset).into_iter().flatten();
        ranges.any(|(first, last)| (*first..=*last).contains(&entry.sequence))
    };
    for name in NAMES {
        let Ok(file) = fs::File::open(dir.join(name)) else {
            continue;
        };
        // What a crash tore is no JSON.
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            let entry = serde_json::from_slice::<Entry>(&line).ok().filter(is_wanted);
            let Some(entry) = entry else { continue };
            let number = (entry.dataset, entry.sequence);
            match entry.rebuilds.filter(|first| *first < number.1) {
                Some(first) => drop(twice.insert(number, first)),
                None => drop(found.insert(number, entry.parts)),
            }
        }
    }
    (found, twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_torn_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |sequence: u64| format!("{{\"d\":\"a\",\"s\":{sequence},\"p\":[]}}\n");
        let text = format!("{}{{\"d\":\"a\",\"s\n{}{}", entry(1), entry(2), entry(9));
        fs::write(dir.path().join(NAMES[0]), text).unwrap();
        let wanted = BTreeMap::from([(Name::new("a").unwrap(), vec![(1, 3)])]);
        let found: Vec<u64> = find(dir.path(), &wanted)
            .into_keys()
            .map(|(_, sequence)| sequence)
            .collect();
        assert_eq!(found, [1, 2]);
        assert!(find(&dir.path().join("none"), &wanted).is_empty());
    }
}
