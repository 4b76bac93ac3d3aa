//! The state directory of an agent: who it is, and that no other process uses it.
//!
//! Promise: a directory has one agent and one process at a time, keeps its instance for ever, and belongs to the first mill
//! that it meets.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use model::Name;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tracing::warn;
use uuid::Uuid;

use crate::{Error, disk::Disk};

/// Format number of the files in the state directory.
pub(crate) const FORMAT: u32 = 1;

/// The file that tells whose the directory is.
const NAME: &str = "agent.json";

/// A state directory that is ours alone for as long as this lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    agent: AgentFile,
    disk: Disk,
    mill: Mutex<Option<Mill>>,
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
    /// The mill that numbers and positions belong to, once it was met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mill: Option<Mill>,
    /// It was found to be an old copy: never used again, as what it cuts since then has numbers that the mill gave to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outdated: Option<Outdated>,
}

/// [`Error::Outdated`].
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Outdated {
    dataset: String,
    registered: u64,
    known: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mill {
    id: Uuid,
    /// The dispatcher at which it was met first.
    met_at: String,
}

impl StateDir {
    /// Opens the directory, which is made where it is missing, and counts the start.
    pub(crate) fn open(path: &Path, name: &Name, disk: &Disk) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            |source| Error::State { path, source }
        };
        // Lines of logs are kept here, for nobody else to read.
        folders::own(path).map_err(failed(path))?;
        let lock = File::create(path.join("lock")).map_err(failed(path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| Error::InUse {
            path: path.to_path_buf(),
        })?;
        let file = path.join(NAME);
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
                mill: None,
                outdated: None,
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
        if let Some(Outdated {
            dataset,
            registered,
            known,
        }) = agent.outdated
        {
            return Err(Error::Outdated {
                dataset,
                registered,
                known,
            });
        }
        agent.starts += 1;
        let json = serde_json::to_vec(&agent).unwrap_or_default();
        disk.put(&file, &[&json]).map_err(failed(&file))?;
        Ok(Self {
            path: path.to_path_buf(),
            mill: Mutex::new(agent.mill.clone()),
            agent,
            disk: disk.clone(),
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

    /// The mill that it belongs to; none before one was met.
    pub(crate) fn mill(&self) -> Option<Uuid> {
        self.lock().as_ref().map(|mill| mill.id)
    }

    /// The dispatcher `server` is of this mill, to which the directory belongs from now on.
    ///
    /// # Errors
    /// [`Error::OtherMill`], [`Error::State`].
    pub(crate) fn meet(&self, id: Uuid, server: &str) -> Result<(), Error> {
        let mut known = self.lock();
        match &*known {
            Some(mill) if mill.id == id => return Ok(()),
            Some(mill) => {
                return Err(Error::OtherMill {
                    path: self.path.clone(),
                    ours: mill.id.to_string(),
                    met_at: mill.met_at.clone(),
                    theirs: id.to_string(),
                    server: server.to_string(),
                });
            }
            None => {}
        }
        let mill = Mill {
            id,
            met_at: server.to_string(),
        };
        let agent = AgentFile {
            mill: Some(mill.clone()),
            ..self.agent.clone()
        };
        let path = self.path.join(NAME);
        let json = serde_json::to_vec(&agent).unwrap_or_default();
        let written = self.disk.put(&path, &[&json]);
        written.map_err(|source| Error::State { path, source })?;
        *known = Some(mill);
        Ok(())
    }

    /// Lets no agent start here again where this error tells that the directory is an old copy. A disk that takes no note
    /// of that is told in the log.
    pub(crate) fn refuse(&self, error: &Error) {
        let Error::Outdated {
            dataset,
            registered,
            known,
        } = error
        else {
            return;
        };
        let agent = AgentFile {
            mill: self.lock().clone(),
            outdated: Some(Outdated {
                dataset: dataset.clone(),
                registered: *registered,
                known: *known,
            }),
            ..self.agent.clone()
        };
        let path = self.path.join(NAME);
        let json = serde_json::to_vec(&agent).unwrap_or_default();
        if let Err(error) = self.disk.put(&path, &[&json]) {
            warn!(path = %path.display(), "can't write that this directory must not be used again: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Mill>> {
        self.mill.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mills = [1, 2].map(Uuid::from_u128);
        assert_eq!(second.mill(), None);
        second.meet(mills[0], "a:1").unwrap();
        drop(second);
        let third = StateDir::open(&path, &web7, &disk).unwrap();
        assert_eq!((third.mill(), third.instance()), (Some(mills[0]), instance));
        third.meet(mills[0], "b:1").unwrap();
        let other = third.meet(mills[1], "b:1").unwrap_err().to_string();
        for part in [
            "met at a:1",
            "but b:1 is",
            &mills[0].to_string(),
            &mills[1].to_string(),
        ] {
            assert!(other.contains(part), "{part}: {other}");
        }
        // An old copy stays refused, with the same words.
        third.refuse(&Error::OtherAgent {
            path: path.clone(),
            owner: "web7".into(),
        });
        let outdated = Error::Outdated {
            dataset: "access".into(),
            registered: 8,
            known: 5,
        };
        drop(third);
        let fourth = StateDir::open(&path, &web7, &disk).unwrap();
        fourth.refuse(&outdated);
        drop(fourth);
        for _ in 0..2 {
            let told = StateDir::open(&path, &web7, &disk).unwrap_err();
            assert_eq!(told.to_string(), outdated.to_string());
        }
        fs::write(path.join("agent.json"), "{}").unwrap();
        assert!(matches!(
            StateDir::open(&path, &web7, &disk),
            Err(Error::BadState { .. })
        ));
    }
}
