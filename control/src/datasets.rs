//! Datasets: named lists of blocks.

use model::{Block, Name, name::nearest};
use storage::Dataset;

use crate::{Control, Error};

/// A file or an object to add to a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source(String);

impl Source {
    /// A URL as it is; a path made absolute, since other machines have other working directories.
    ///
    /// # Errors
    /// [`Error::BadFile`] for an empty path or when there is no working directory.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.contains("://") {
            return Ok(Self(text.to_string()));
        }
        let bad = |why: String| Error::BadFile {
            path: text.to_string(),
            why,
        };
        let path = std::path::absolute(text).map_err(|error| bad(error.to_string()))?;
        let path = path.into_os_string().into_string();
        Ok(Self(path.map_err(|_| {
            bad("the path is no UTF-8, which a URL must be".to_string())
        })?))
    }

    /// The absolute path or the URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What was added.
#[derive(Clone, Debug)]
pub struct AddReport {
    /// The dataset as it is now.
    pub dataset: Dataset,
    /// Files that were split.
    pub files: usize,
    /// Blocks that they gave.
    pub blocks: u32,
    /// Bytes of these blocks, as stored.
    pub bytes: u64,
}

impl Control {
    /// All datasets by name.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn datasets(&self) -> Result<Vec<Dataset>, Error> {
        Ok(self.store().list_datasets().await?)
    }

    /// The dataset of this name.
    ///
    /// # Errors
    /// [`Error::NoSuchDataset`], [`Error::Storage`].
    pub async fn dataset(&self, name: &Name) -> Result<Dataset, Error> {
        if let Some(found) = self.store().get(name).await? {
            return Ok(found);
        }
        let all = self.datasets().await?;
        let near = nearest(name.as_str(), all.iter().map(|dataset| dataset.name.as_str()));
        Err(Error::NoSuchDataset {
            name: name.clone(),
            near: near.and_then(|near| Name::new(near).ok()),
        })
    }

    /// Splits files into blocks of about `block_size` bytes: those of each file by themselves.
    ///
    /// # Errors
    /// [`Error::Storage`] that names the file that is missing, no file or not readable.
    pub async fn split(&self, sources: &[Source], block_size: u64) -> Result<Vec<Vec<Block>>, Error> {
        let mut files = Vec::with_capacity(sources.len());
        for source in sources {
            files.push(self.store().split(source.as_str(), block_size).await?);
        }
        Ok(files)
    }

    /// Makes sure that there is a dataset of this name, and gives it.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn dataset_or_new(&self, name: &Name) -> Result<Dataset, Error> {
        match self.store().create(name).await {
            Ok(_) | Err(storage::Error::Exists { .. }) => self.dataset(name).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Appends the blocks of files to the dataset, a new one where there is none of this name.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn append(&self, name: &Name, files: Vec<Vec<Block>>) -> Result<AddReport, Error> {
        let count = files.len();
        let blocks: Vec<Block> = files.into_iter().flatten().collect();
        let added = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
        let bytes = blocks.iter().map(Block::stored_bytes).sum();
        self.dataset_or_new(name).await?;
        if !blocks.is_empty() {
            self.store().append_blocks(name, blocks).await?;
        }
        let dataset = self.dataset(name).await?;
        Ok(AddReport {
            dataset,
            files: count,
            blocks: added,
            bytes,
        })
    }

    /// Splits files into blocks of about `block_size` bytes and appends them to the dataset, a new one where there is
    /// none of this name. All files are split before anything is written.
    ///
    /// # Errors
    /// [`Error::Storage`] that names the file that is missing, no file or not readable; then nothing was changed.
    pub async fn add_dataset(
        &self,
        name: &Name,
        sources: &[Source],
        block_size: u64,
    ) -> Result<AddReport, Error> {
        let files = self.split(sources, block_size).await?;
        self.append(name, files).await
    }

    /// Forgets a dataset; the files stay.
    ///
    /// # Errors
    /// [`Error::NoSuchDataset`]; [`Error::Storage`], also while unfinished jobs run over it.
    pub async fn remove_dataset(&self, name: &Name) -> Result<(), Error> {
        self.dataset(name).await?;
        Ok(self.store().remove(name).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute_and_urls_stay() {
        assert_eq!(Source::parse("s3://bucket/x").unwrap().as_str(), "s3://bucket/x");
        assert_eq!(Source::parse("/var/log/x").unwrap().as_str(), "/var/log/x");
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            Source::parse("x").unwrap().as_str(),
            here.join("x").to_str().unwrap()
        );
        assert!(matches!(Source::parse(""), Err(Error::BadFile { .. })));
    }
}
