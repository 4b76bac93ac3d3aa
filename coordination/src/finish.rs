//! The step *finish*: from the folder of a worker to `/done`.

use model::{
    entry::EntryName,
    znode::{self, DoneData},
};

use crate::{
    batch::{self, Fate, Step},
    error::Error,
    layout::Place,
    listing::Strange,
    members::Worker,
};

/// What became of finished entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Now in `/done`.
    pub done: Vec<EntryName>,
    /// Had left the folder before: the leader took them away.
    pub gone: Vec<EntryName>,
    /// Still in the folder: something foreign is in the way.
    pub stuck: Vec<(EntryName, Strange)>,
}

impl Worker {
    /// Hands in how entries ended.
    ///
    /// Dropped half-way, any of them may be done: [`Worker::held`] tells.
    ///
    /// # Errors
    /// [`Error::Deposed`] when `alive` is gone, and then nothing of the failing transaction was handed in;
    /// [`Error::RootMissing`] when `/done` was deleted by hand, until the leader has recreated it;
    /// [`Error::TooLarge`] before anything was sent; [`Error::TermOver`]; [`Error::Disconnected`].
    pub async fn finish(&self, entries: Vec<(EntryName, DoneData)>) -> Result<Finished, Error> {
        let owned = Place::Owned(self.inner.number);
        let steps: Vec<Step> = entries
            .iter()
            .map(|(name, data)| Step {
                delete: owned.entry(name),
                create: Some((Place::Done.entry(name), znode::encode(data))),
            })
            .collect();
        let fates = batch::carry_out(&self.inner.term, Some(&self.inner.alive), &steps).await?;
        let mut finished = Finished::default();
        for ((name, _), fate) in entries.into_iter().zip(fates) {
            match fate {
                // `Left`: the reply was lost and a watcher has recorded it since, or the leader took it away.
                Fate::Moved | Fate::Left => finished.done.push(name),
                Fate::Gone => finished.gone.push(name),
                Fate::Stuck(why) => {
                    tracing::warn!(%name, why, "an entry can't be finished");
                    let path = Place::Done.entry(&name);
                    finished.stuck.push((name, Strange { path, why }));
                }
            }
        }
        Ok(finished)
    }
}
