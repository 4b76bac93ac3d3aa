//! The step *recover*: a worker has died, the leader moves what it held to `/done` and deletes its folder.
//!
//! Promise: only what `alive` no longer guards is touched; `alive` is never recreated, so a zombie can neither claim
//! nor finish meanwhile. What can't be decoded stays where it is and is reported.

use model::znode::{self, DoneData, OwnedData, WorkerData};
use zookeeper_client as zk;
use zookeeper_client::MultiWriteError;

use crate::{
    batch::{self, ANY_VERSION, Fate, Step, guard_failed},
    census::{self, WorkerView},
    error::{Error, is_lost_reply},
    layout::{Place, WorkerNumber, alive, folder},
    leader::Leader,
    listing::{self, ReadSize, Strange},
    term::Term,
};

/// What was recovered from a dead worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Entries moved to `/done`.
    pub moved: usize,
    /// What is no entry of ours, or not readable; it stays in the folder, and the folder with it.
    pub strange: Vec<Strange>,
    /// Whether the folder is deleted.
    pub folder_gone: bool,
}

/// Looks for dead workers and recovers what they held, beside whatever else the leader does.
#[derive(Clone, Debug)]
pub struct Recovery {
    term: Term,
    guard: String,
}

impl Leader {
    /// A handle for the step *recover*.
    pub fn recovery(&self) -> Recovery {
        Recovery {
            term: self.term.clone(),
            guard: self.guard.clone(),
        }
    }
}

impl Recovery {
    /// All workers that have a folder, in the order of their numbers.
    ///
    /// # Errors
    /// [`Error::RootMissing`], [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn workers(&self) -> Result<Vec<WorkerView>, Error> {
        census::workers(&self.term, &mut Vec::new()).await
    }

    /// Recovers a dead worker: each entry of its folder goes to `/done` with the data that `done` makes of it.
    ///
    /// Safe to repeat, and to drop half-way.
    ///
    /// # Errors
    /// [`Error::WorkerLives`]; [`Error::Deposed`] when the candidate is gone; [`Error::RootMissing`],
    /// [`Error::TermOver`], [`Error::Disconnected`], [`Error::NoAuth`].
    pub async fn recover(
        &self,
        worker: WorkerNumber,
        done: impl Fn(&OwnedData) -> DoneData,
    ) -> Result<Recovered, Error> {
        let (folder, alive) = (folder(worker), alive(worker));
        match self.term.ask(&alive, |client| client.check_stat(&alive)).await? {
            Ok(Some(_)) => return Err(Error::WorkerLives(worker)),
            Ok(None) | Err(zk::Error::NoNode) => {}
            Err(failure) => return Err(Error::refused(alive, failure)),
        }
        let mut recovered = Recovered::default();
        let Some((names, _)) = listing::children(&self.term, &folder).await? else {
            return Ok(Recovered {
                folder_gone: true,
                ..recovered
            });
        };
        let owned = Place::Owned(worker);
        let entries = listing::sort(&folder, names, &mut recovered.strange);
        let mut paths: Vec<String> = vec![folder.clone()];
        paths.extend(entries.iter().map(|name| owned.entry(name)));
        let mut found = listing::read_data(&self.term, &paths, &ReadSize::default())
            .await?
            .into_iter();
        let who = found.next().flatten().unwrap_or_default();
        if let Err(why) = znode::decode::<WorkerData>(&who) {
            recovered.strange.push(Strange {
                path: folder.clone(),
                why: why.to_string(),
            });
        }
        let mut steps = Vec::with_capacity(entries.len());
        for (name, data) in entries.iter().zip(found) {
            let Some(data) = data else { continue };
            match znode::decode::<OwnedData>(&data) {
                Ok(held) => steps.push(Step {
                    delete: owned.entry(name),
                    create: Some((Place::Done.entry(name), znode::encode(&done(&held)))),
                }),
                Err(why) => recovered.strange.push(Strange {
                    path: owned.entry(name),
                    why: why.to_string(),
                }),
            }
        }
        for (step, fate) in steps
            .iter()
            .zip(batch::carry_out(&self.term, Some(&self.guard), &steps).await?)
        {
            match fate {
                Fate::Moved | Fate::Left => recovered.moved += 1,
                Fate::Gone => {}
                Fate::Stuck(why) => recovered.strange.push(Strange {
                    path: step.delete.clone(),
                    why,
                }),
            }
        }
        recovered.folder_gone = recovered.strange.is_empty() && self.delete_folder(&folder).await?;
        Ok(recovered)
    }

    /// Deletes an empty folder; false when it is not empty.
    async fn delete_folder(&self, folder: &str) -> Result<bool, Error> {
        let mut losses = 0;
        loop {
            let reply = {
                let client = self.term.client()?;
                let mut writer = client.new_multi_writer();
                let built = writer
                    .add_check_version(&self.guard, ANY_VERSION)
                    .and_then(|()| writer.add_delete(folder, None));
                built.map_err(|failure| Error::refused(folder, failure))?;
                self.term.wait(writer.commit()).await?
            };
            return match reply {
                Ok(_) => Ok(true),
                Err(MultiWriteError::OperationFailed { index: 0, source }) => {
                    Err(guard_failed(&self.guard, source))
                }
                Err(MultiWriteError::OperationFailed {
                    source: zk::Error::NoNode,
                    ..
                }) => Ok(true),
                Err(MultiWriteError::OperationFailed {
                    source: zk::Error::NotEmpty,
                    ..
                }) => Ok(false),
                Err(MultiWriteError::RequestFailed { source }) if is_lost_reply(&source) => {
                    self.term.after_loss(&mut losses, folder, &source).await?;
                    continue;
                }
                Err(failure) => Err(Error::refused(folder, failure.into())),
            };
        }
    }
}
