//! The step *revoke*: the leader takes entries from living workers, or from `/unowned`, and moves them to `/done`.

use model::{
    entry::EntryName,
    znode::{self, DoneData},
};

use crate::{
    batch::{Fate, Step},
    error::Error,
    layout::{Place, WorkerNumber},
    leader::Leader,
};

impl Leader {
    /// Takes entries from where they were seen (a worker, or `/unowned` for none) to `/done`, each with its end.
    ///
    /// Gives those that moved; what has moved on by itself meanwhile is skipped. Dropped half-way, any may have moved.
    ///
    /// # Errors
    /// [`Error::Deposed`] when the candidate is gone; [`Error::TermOver`], [`Error::Disconnected`],
    /// [`Error::NoAuth`].
    pub async fn revoke(
        &self,
        from: Vec<(EntryName, Option<WorkerNumber>, DoneData)>,
    ) -> Result<Vec<EntryName>, Error> {
        let steps: Vec<Step> = from
            .iter()
            .map(|(name, worker, end)| Step {
                delete: worker.map_or(Place::Unowned, Place::Owned).entry(name),
                create: Some((Place::Done.entry(name), znode::encode(end))),
            })
            .collect();
        let fates = self.move_all(&steps).await?;
        let mut moved = Vec::with_capacity(from.len());
        for ((name, ..), fate) in from.into_iter().zip(fates) {
            match fate {
                Fate::Moved => moved.push(name),
                // After a lost reply it may have been either; it is on its way to be recorded, which is what counts.
                Fate::Gone | Fate::Left => {}
                Fate::Stuck(why) => tracing::warn!(%name, why, "an entry can't be revoked"),
            }
        }
        Ok(moved)
    }
}
