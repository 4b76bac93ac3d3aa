//! The tasks of a worker.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use engine::Program;
use pki::Peer;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    Config, Error,
    record::{Progress, Record, now_ms},
    run::{self, Bounds},
};

/// The tasks of a worker; clones share them.
#[derive(Clone)]
pub struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    /// By id, which sorts by time.
    records: Mutex<BTreeMap<Uuid, Arc<Record>>>,
    running: TaskTracker,
    stop: CancellationToken,
}

/// What somebody asks for.
pub(crate) struct Order {
    pub(crate) command: String,
    pub(crate) owner: Peer,
    pub(crate) time: Option<Duration>,
    pub(crate) output_bytes: Option<u64>,
    pub(crate) input: Vec<u8>,
}

impl Tasks {
    /// None yet; the folder for what they print is made, for this user alone, or emptied.
    ///
    /// # Errors
    /// [`Error::Io`], also for a folder that another user may have made.
    pub fn new(config: Config) -> Result<Self, Error> {
        let folder = &config.folder;
        let failed = |doing: &str| {
            let doing = format!("{doing} {}", folder.display());
            move |source| Error::Io { doing, source }
        };
        folders::private(folder).map_err(failed("keep what tasks print in"))?;
        empty(folder).map_err(failed("empty"))?;
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                records: Mutex::default(),
                running: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
        })
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<Record>>> {
        self.inner.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node, where it runs commands.
    pub(crate) fn runs_commands(&self) -> Option<&model::Name> {
        let config = &self.inner.config;
        config.allow_exec.then_some(&config.node)
    }

    /// Starts a command.
    ///
    /// # Errors
    /// [`Error::NoExec`], [`Error::Full`], [`Error::BadCommand`], [`Error::Io`].
    pub(crate) async fn start(&self, order: Order) -> Result<Arc<Record>, Error> {
        let config = &self.inner.config;
        let node = config.node.clone();
        if !config.allow_exec {
            return Err(Error::NoExec { node });
        }
        if order.command.trim().is_empty() {
            let why = "it is empty".to_string();
            return Err(Error::BadCommand { why });
        }
        let record = self.enter(&order)?;
        let io_failed = |source| Error::Io {
            doing: "make pipes for a task".into(),
            source,
        };
        let begun = async {
            let (theirs, ours) = run::streams().map_err(io_failed)?;
            let variables = vec![("SAWMILL_TASK".to_owned(), record.name())];
            let program = Program::start(&config.guard, order.command.clone(), variables, theirs).await;
            let program = program.map_err(|why| Error::BadCommand { why: why.to_string() })?;
            Ok((program, ours))
        };
        let (program, ours) = match begun.await {
            Ok(begun) => begun,
            Err(failure) => {
                self.records().remove(&record.id);
                return Err(failure);
            }
        };
        let most = config.limits.output_bytes;
        let bounds = Bounds {
            time: order.time,
            output_bytes: order.output_bytes.map_or(most, |asked| asked.min(most)),
        };
        tracing::info!(task = record.name(), owner = %record.owner, "task started");
        let running = run::run(Arc::clone(&record), program, ours, order.input, bounds);
        self.inner.running.spawn(running);
        Ok(record)
    }

    /// A new record in its place, and the oldest ended ones forgotten.
    fn enter(&self, order: &Order) -> Result<Arc<Record>, Error> {
        let config = &self.inner.config;
        let limits = config.limits;
        let mut records = self.records();
        let (running, ended): (Vec<_>, Vec<_>) =
            records.values().cloned().partition(|record| record.is_running());
        if running.len() >= limits.running {
            return Err(Error::Full {
                node: config.node.clone(),
                most: limits.running,
            });
        }
        for old in ended.iter().take(ended.len().saturating_sub(limits.ended)) {
            records.remove(&old.id);
            for file in &old.files {
                // Who still reads it has it open.
                let _ = std::fs::remove_file(file);
            }
        }
        let id = Uuid::now_v7();
        let file = |ending: &str| config.folder.join(format!("{}.{ending}", id.simple()));
        let record = Arc::new(Record {
            id,
            node: config.node.clone(),
            command: order.command.clone(),
            owner: order.owner.clone(),
            started_ms: now_ms(),
            files: [file("out"), file("err")],
            progress: watch::channel(Progress::default()).0,
            stop: self.inner.stop.child_token(),
        });
        records.insert(id, Arc::clone(&record));
        Ok(record)
    }

    /// The task of this name, `NODE/ID`, or of a beginning of its id, where it is open to the peer.
    ///
    /// # Errors
    /// [`Error::NoSuchTask`], also for the task of somebody else; [`Error::Ambiguous`].
    pub(crate) fn find(&self, name: &str, peer: &Peer) -> Result<Arc<Record>, Error> {
        let none = || Error::NoSuchTask {
            task: name.to_string(),
        };
        let (node, id) = name
            .rsplit_once('/')
            .unwrap_or((self.inner.config.node.as_str(), name));
        if node != self.inner.config.node.as_str() || id.is_empty() {
            return Err(none());
        }
        let records = self.records();
        let mut found = records
            .values()
            .filter(|record| record.is_open_to(peer) && record.id.simple().to_string().starts_with(id));
        match (found.next(), found.next()) {
            (Some(record), None) => Ok(Arc::clone(record)),
            (None, _) => Err(none()),
            _ => Err(Error::Ambiguous {
                task: name.to_string(),
            }),
        }
    }

    /// Those that are open to the peer, the newest first.
    pub(crate) fn list(&self, peer: &Peer) -> Vec<Arc<Record>> {
        let records = self.records();
        let open = records.values().rev().filter(|record| record.is_open_to(peer));
        open.cloned().collect()
    }

    /// Ends all of them, and returns when they have ended.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.running.close();
        self.inner.running.wait().await;
    }
}

/// Removes the files of a folder: those of an earlier run. A directory in it is not of this process.
fn empty(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks")
            .field("node", &self.inner.config.node)
            .field("records", &self.records().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_directory_among_the_files_of_an_earlier_run_is_left() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        std::fs::create_dir(folder.path().join("lost+found")).unwrap();
        super::empty(folder.path()).unwrap();
        let left = std::fs::read_dir(folder.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lost+found"]);
    }
}
