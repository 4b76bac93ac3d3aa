//! `lanes.json`: what the numbers of each dataset belong to, and which of its blocks the mill has lost.
//!
//! Blocks are numbered here 1, 2, 3, … for as long as the state directory lives. A mill that was restored from an older
//! backup ends the numbering that it knows and gives another; the mill counts in that from where it began here.

use std::{collections::BTreeMap, fs, io, path::Path};

use model::Name;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, disk::Disk, state::FORMAT};

/// Name of the file in the state directory.
const NAME: &str = "lanes.json";

/// What is known of the numbers of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lane {
    /// The numbering that the mill counts in; none: that of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) numbering: Option<Uuid>,
    /// The number here before its first one.
    #[serde(default)]
    pub(crate) base: u64,
    /// Blocks that were acknowledged and that the mill has lost, as ranges with both ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) lost: Vec<(u64, u64)>,
    /// The incarnation of the dataset that took the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) incarnation: Option<Uuid>,
}

#[derive(Serialize, Deserialize)]
struct File {
    v: u32,
    lanes: BTreeMap<Name, Lane>,
}

impl Lane {
    /// Takes a block off those that are lost.
    pub(super) fn find(&mut self, sequence: u64) {
        let split = |(first, last): (u64, u64)| {
            if sequence < first || sequence > last {
                return vec![(first, last)];
            }
            let mut rest = vec![(first, sequence.saturating_sub(1)), (sequence + 1, last)];
            rest.retain(|(first, last)| first <= last);
            rest
        };
        self.lost = std::mem::take(&mut self.lost)
            .into_iter()
            .flat_map(split)
            .collect();
    }
}

pub(super) fn read(dir: &Path) -> Result<BTreeMap<Name, Lane>, Error> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(Error::State { path, source }),
    };
    match serde_json::from_slice::<File>(&bytes) {
        Ok(file) if file.v <= FORMAT => Ok(file.lanes),
        Ok(file) => Err(Error::BadState {
            path,
            why: format!("format {} is newer than {FORMAT}", file.v),
        }),
        Err(error) => Err(Error::BadState {
            path,
            why: error.to_string(),
        }),
    }
}

pub(super) fn write(dir: &Path, disk: &Disk, lanes: BTreeMap<Name, Lane>) -> io::Result<()> {
    let file = File { v: FORMAT, lanes };
    disk.put(&dir.join(NAME), &[&serde_json::to_vec(&file)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_found_is_lost_no_more() {
        let mut lane = Lane {
            lost: vec![(3, 5), (9, 9)],
            ..Lane::default()
        };
        lane.find(4);
        assert_eq!(lane.lost, [(3, 3), (5, 5), (9, 9)]);
        [9, 3, 7].into_iter().for_each(|sequence| lane.find(sequence));
        assert_eq!(lane.lost, [(5, 5)]);
    }
}
