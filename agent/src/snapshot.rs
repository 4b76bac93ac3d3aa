//! `files.json`: where every file is, up to what the mill has registered.
//!
//! Promise: whole at any time. It is written before the blocks that it stands for are removed from the spool, so what was
//! read is this and the blocks in the spool.

use std::{collections::BTreeMap, fs, io, path::Path};

use model::Name;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, block::Position, disk::Disk, state::FORMAT};

/// Name of the file in the state directory.
pub(crate) const NAME: &str = "files.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    v: u32,
    /// Up to where the blocks of each dataset are registered.
    pub(crate) registered: BTreeMap<Name, u64>,
    /// With the offsets up to where lines are registered.
    pub(crate) files: Vec<Kept>,
}

/// A position, and when its file was last there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    pub(crate) position: Position,
    /// Since when the file is gone, in milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gone_ms: Option<i64>,
    /// The incarnation of the dataset that took its first lines; nil where another took others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) incarnation: Option<Uuid>,
    /// Some of it is kept by one node alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) alone: bool,
}

impl Snapshot {
    pub(crate) fn new(registered: BTreeMap<Name, u64>, files: Vec<Kept>) -> Self {
        Self {
            v: FORMAT,
            registered,
            files,
        }
    }

    /// What is in the state directory; an empty one without the file.
    pub(crate) fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::new(BTreeMap::new(), Vec::new()));
            }
            Err(source) => return Err(Error::State { path, source }),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(snapshot) if snapshot.v <= FORMAT => Ok(snapshot),
            Ok(snapshot) => Err(Error::BadState {
                path,
                why: format!("format {} is newer than {FORMAT}", snapshot.v),
            }),
            Err(error) => Err(Error::BadState {
                path,
                why: error.to_string(),
            }),
        }
    }

    pub(crate) fn write(&self, dir: &Path, disk: &Disk) -> io::Result<()> {
        disk.put(&dir.join(NAME), &[&serde_json::to_vec(self)?])
    }
}
