//! The step *claim*: from `/unowned` into the folder of a worker.

use model::{
    entry::EntryName,
    znode::{self, OwnedData},
};

use crate::{
    batch::{self, Fate, Step},
    error::Error,
    layout::Place,
    members::Worker,
};

/// What became of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Now in the worker's folder.
    pub won: Vec<EntryName>,
    /// No longer to be had, or not possible.
    pub missed: Vec<EntryName>,
}

impl Worker {
    /// Claims entries: each is won or missed on its own, whoever else reaches for it.
    ///
    /// Dropped half-way, any of them may be won: [`Worker::held`] tells.
    ///
    /// # Errors
    /// [`Error::Deposed`] when `alive` is gone; [`Error::TermOver`]; [`Error::Disconnected`]. Some may be won then.
    pub async fn claim(&self, entries: Vec<(EntryName, OwnedData)>) -> Result<Claimed, Error> {
        let owned = Place::Owned(self.inner.number);
        let steps: Vec<Step> = entries
            .iter()
            .map(|(name, data)| Step {
                delete: Place::Unowned.entry(name),
                create: Some((owned.entry(name), znode::encode(data))),
            })
            .collect();
        let fates = batch::carry_out(&self.inner.term, Some(&self.inner.alive), &steps).await?;
        let mut claimed = Claimed::default();
        for ((name, _), fate) in entries.into_iter().zip(fates) {
            match fate {
                Fate::Moved => claimed.won.push(name),
                // Only the leader takes from our folder: what was won and has left it is not ours any more.
                Fate::Gone | Fate::Left => claimed.missed.push(name),
                Fate::Stuck(why) => {
                    tracing::warn!(%name, why, "an entry can't be claimed");
                    claimed.missed.push(name);
                }
            }
        }
        Ok(claimed)
    }
}
