//! Datasets: named lists of blocks.

use model::{Block, Name, name::nearest, table::ColumnType};
use storage::{Dataset, Limits};

use crate::{Control, Error, FileReport, Lesson};

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

/// Files that are to be added to a dataset.
#[derive(Clone, Debug)]
pub struct Adding {
    /// Its name; it is made where there is none.
    pub dataset: Name,
    /// The files, in this order.
    pub sources: Vec<Source>,
    /// Bytes of a block; at least 1 KiB.
    pub block_size: u64,
    /// What the lines are; none: what the first of them look like.
    pub format: Option<String>,
    /// Types of columns, where they are not to be told by the first lines.
    pub types: Vec<(String, ColumnType)>,
    /// Whether files that the dataset has already are added once more, all of them.
    pub again: bool,
    /// Whether a named format is taken for lines that hardly are of it, which is refused otherwise.
    pub force: bool,
}

/// What is to change of a dataset.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// How long blocks stay, in milliseconds; the inner none: for ever.
    pub keep_ms: Option<Option<u64>>,
    /// Bytes of all blocks together; the inner none: any number.
    pub max_bytes: Option<Option<u64>>,
    /// Columns that get another type.
    pub types: Vec<(String, ColumnType)>,
}

/// What was added.
#[derive(Clone, Debug)]
pub struct AddReport {
    /// The dataset as it is now.
    pub dataset: Dataset,
    /// Files of which something was added.
    pub files: usize,
    /// Blocks that they gave.
    pub blocks: u32,
    /// Bytes of these blocks, as stored.
    pub bytes: u64,
    /// What became of each file.
    pub reports: Vec<FileReport>,
    /// What was learned of their columns.
    pub learned: Lesson,
}

/// Numbers of blocks that are looked up together at least, where some are void.
const LISTED_TOGETHER: u32 = 256;

impl Control {
    /// All datasets by name.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn datasets(&self) -> Result<Vec<Dataset>, Error> {
        if let Some(remote) = self.remote() {
            return remote.datasets().await;
        }
        Ok(self.store()?.list_datasets().await?)
    }

    /// The dataset of this name.
    ///
    /// # Errors
    /// [`Error::NoSuchDataset`], [`Error::Storage`].
    pub async fn dataset(&self, name: &Name) -> Result<Dataset, Error> {
        if let Some(remote) = self.remote() {
            return remote.dataset(name, false).await;
        }
        if let Some(found) = self.store()?.get(name).await? {
            return Ok(found);
        }
        let all = self.datasets().await?;
        let near = nearest(name.as_str(), all.iter().map(|dataset| dataset.name.as_str()));
        Err(Error::NoSuchDataset {
            name: name.clone(),
            near: near.and_then(|near| Name::new(near).ok()),
        })
    }

    /// The dataset of this name with its table: where that is not known yet its first lines are looked at, and what they are is
    /// kept. A build without SQL can't tell.
    ///
    /// # Errors
    /// As [`Control::dataset`]; [`Error::Failed`] for a first block that can't be read.
    pub async fn described(&self, name: &Name) -> Result<Dataset, Error> {
        if let Some(remote) = self.remote() {
            return remote.dataset(name, true).await;
        }
        #[cfg(feature = "sql")]
        crate::query::table_of(self, &self.dataset(name).await?).await?;
        self.dataset(name).await
    }

    /// The first blocks of a dataset with their numbers, at most so many.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn first_blocks(&self, dataset: &Dataset, limit: u32) -> Result<Vec<(u32, Block)>, Error> {
        if let Some(remote) = self.remote() {
            return remote.blocks(&dataset.name, limit).await;
        }
        let (mut blocks, mut next) = (Vec::new(), dataset.first);
        while next < dataset.blocks && blocks.len() < limit as usize {
            // Void numbers are none of them.
            let more = u32::try_from(limit as usize - blocks.len()).unwrap_or(u32::MAX);
            let end = dataset.blocks.min(next.saturating_add(more.max(LISTED_TOGETHER)));
            let found = self.store()?.numbered(dataset.edition(), next..end).await?;
            if found.known.is_empty() {
                break;
            }
            next = found.known.end;
            blocks.extend(found.blocks);
        }
        blocks.truncate(limit as usize);
        Ok(blocks)
    }

    /// Asks to merge small blocks of a dataset, as many as can be, into larger ones; gives it as it was.
    /// [`Dataset::compacting`] tells until when the leader is at it.
    ///
    /// # Errors
    /// [`Error::NoSuchDataset`], [`Error::Storage`].
    pub async fn compact_dataset(&self, name: &Name) -> Result<Dataset, Error> {
        if let Some(remote) = self.remote() {
            return remote.compact_dataset(name).await;
        }
        let dataset = self.dataset(name).await?;
        self.store()?.ask_to_compact(&dataset).await?;
        Ok(dataset)
    }

    /// Changes what holds for a dataset, and gives it as it is then.
    ///
    /// # Errors
    /// [`Error::NoSuchDataset`]; [`Error::Usage`] for an unknown column, or a format that fixes its types; [`Error::Storage`].
    pub async fn set_dataset(&self, name: &Name, changes: &Changes) -> Result<Dataset, Error> {
        if let Some(remote) = self.remote() {
            return remote.set_dataset(name, changes).await;
        }
        let before = self.dataset(name).await?;
        if !changes.types.is_empty() {
            #[cfg(feature = "sql")]
            crate::query::retype(self, name, &changes.types).await?;
            #[cfg(not(feature = "sql"))]
            return Err(Error::NoSql);
        }
        if changes.keep_ms.is_some() || changes.max_bytes.is_some() {
            let limits = Limits {
                keep_ms: changes.keep_ms.unwrap_or(before.limits.keep_ms),
                max_bytes: changes.max_bytes.unwrap_or(before.limits.max_bytes),
            };
            self.store()?.set_limits(name, limits).await?;
        }
        self.dataset(name).await
    }

    /// Makes sure that there is a dataset of this name, and gives it.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn dataset_or_new(&self, name: &Name) -> Result<Dataset, Error> {
        match self.store()?.create(name).await {
            Ok(_) | Err(storage::Error::Exists { .. }) => self.dataset(name).await,
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets a dataset and gives it as it was; the files stay.
    ///
    /// # Errors
    /// [`Error::NoSuchDataset`]; [`Error::Storage`], also while unfinished jobs run over it.
    pub async fn remove_dataset(&self, name: &Name) -> Result<Dataset, Error> {
        if let Some(remote) = self.remote() {
            return remote.remove_dataset(name).await;
        }
        let dataset = self.dataset(name).await?;
        self.store()?.remove(name).await?;
        Ok(dataset)
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
