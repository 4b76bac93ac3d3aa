//! Blocks that are taken out of a dataset: those of one file, or what was added last.

use model::{Block, Name};
use storage::Dataset;

use crate::{Control, Error, Source};

/// What was taken out of a dataset.
#[derive(Clone, Debug)]
pub struct TakenOut {
    /// The dataset as it is now; none where it was removed, since what was taken back had made it.
    pub dataset: Option<Dataset>,
    /// Blocks that were taken out.
    pub blocks: u32,
    /// Bytes of these, as stored.
    pub bytes: u64,
    /// Blocks that had been taken out for these, and are back.
    pub back: u32,
}

impl Control {
    /// Takes the blocks of one file out of a dataset; the file stays, and may be gone.
    ///
    /// # Errors
    /// [`Error::NoSuchDataset`]; [`Error::Failed`] where it has no blocks of the file; [`Error::Storage`].
    pub async fn remove_file(&self, name: &Name, file: &Source) -> Result<TakenOut, Error> {
        if let Some(remote) = self.remote() {
            return remote.remove_file(name, file).await;
        }
        let (store, dataset) = (self.store()?, self.dataset(name).await?);
        let urls = store.urls_of(file.as_str());
        let is_of = |block: &Block| {
            let url = block.url().filter(|_| block.checksum.is_none());
            url.is_some_and(|url| url == file.as_str() || urls.iter().any(|one| one == url))
        };
        let mut out = self.first_blocks(&dataset, u32::MAX).await?;
        out.retain(|(_, block)| is_of(block));
        if out.is_empty() {
            return Err(Error::Failed(format!(
                "dataset {name} has no blocks of {}: `sawmill dataset show {name} --limit 1000000` lists what it has",
                file.as_str()
            )));
        }
        let blocks = u32::try_from(out.len()).unwrap_or(u32::MAX);
        let bytes = out.iter().map(|(_, block)| block.stored_bytes()).sum();
        store.take_out(&dataset, out).await?;
        Ok(TakenOut {
            dataset: Some(self.dataset(name).await?),
            blocks,
            bytes,
            back: 0,
        })
    }

    /// Takes back what was added last to a dataset, with the columns that came with it; a dataset that was made so is
    /// removed.
    ///
    /// # Errors
    /// [`Error::NoSuchDataset`]; [`Error::Storage`] where something else has changed since, with what.
    pub async fn undo_add(&self, name: &Name) -> Result<TakenOut, Error> {
        if let Some(remote) = self.remote() {
            return remote.undo_add(name).await;
        }
        let before = self.dataset(name).await?;
        self.store()?.take_back(&before).await?;
        let dataset = self.store()?.get(name).await?.filter(|now| now.id == before.id);
        let last = before.last.as_ref();
        let now = dataset.as_ref().map_or(0, |now| now.bytes);
        Ok(TakenOut {
            blocks: last.map_or(0, |last| last.until - last.first),
            bytes: before.bytes.saturating_sub(now),
            back: last.map_or(0, |last| u32::try_from(last.out.len()).unwrap_or(u32::MAX)),
            dataset,
        })
    }
}
