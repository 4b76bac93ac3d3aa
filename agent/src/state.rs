//! The state directory of an agent: who it is, and that no other process uses it.
//!
//! Promise: a directory has one agent and one process at a time, and keeps its instance for ever.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use model::Name;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, disk::Disk};

/// Format number of the files in the state directory.
pub(crate) const FORMAT: u32 = 1;

/// A state directory that is ours alone for as long as this lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    agent: AgentFile,
    _lock: Flock<File>,
}

/// `agent.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct AgentFile {
    v: u32,
    name: Name,
    instance: Uuid,
    /// How often an agent was started here.
    starts: u64,
}

impl StateDir {
    /// Opens the directory, which is made where it is missing, and counts the start.
    pub(crate) fn open(path: &Path, name: &Name, disk: &Disk) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            |source| Error::State { path, source }
        };
        // Lines of logs are kept here, for nobody else to read.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed(path))?;
        let lock = File::create(path.join("lock")).map_err(failed(path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| Error::InUse {
            path: path.to_path_buf(),
        })?;
        let file = path.join("agent.json");
        let mut agent = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice::<AgentFile>(&bytes).map_err(|error| Error::BadState {
                path: file.clone(),
                why: error.to_string(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => AgentFile {
                v: FORMAT,
                name: name.clone(),
                instance: Uuid::new_v4(),
                starts: 0,
            },
            Err(error) => return Err(failed(&file)(error)),
        };
        if agent.v > FORMAT {
            return Err(Error::BadState {
                path: file,
                why: format!("format {} is newer than {FORMAT}", agent.v),
            });
        }
        if agent.name != *name {
            return Err(Error::OtherAgent {
                path: path.to_path_buf(),
                owner: agent.name.to_string(),
            });
        }
        agent.starts += 1;
        let json = serde_json::to_vec(&agent).unwrap_or_default();
        disk.put(&file, &[&json]).map_err(failed(&file))?;
        Ok(Self {
            path: path.to_path_buf(),
            agent,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Identifies the directory.
    pub(crate) fn instance(&self) -> Uuid {
        self.agent.instance
    }

    /// How often an agent was started here, this time included.
    pub(crate) fn starts(&self) -> u64 {
        self.agent.starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_process_and_one_agent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/state");
        let [web7, other] = ["web7", "other"].map(|name| Name::new(name).unwrap());
        let disk = Disk::default();
        let first = StateDir::open(&path, &web7, &disk).unwrap();
        assert!(matches!(
            StateDir::open(&path, &web7, &disk),
            Err(Error::InUse { .. })
        ));
        let (instance, starts) = (first.instance(), first.starts());
        drop(first);
        assert!(matches!(
            StateDir::open(&path, &other, &disk),
            Err(Error::OtherAgent { .. })
        ));
        let second = StateDir::open(&path, &web7, &disk).unwrap();
        assert_eq!((second.instance(), second.starts()), (instance, starts + 1));
        drop(second);
        fs::write(path.join("agent.json"), "{}").unwrap();
        assert!(matches!(
            StateDir::open(&path, &web7, &disk),
            Err(Error::BadState { .. })
        ));
    }
}
