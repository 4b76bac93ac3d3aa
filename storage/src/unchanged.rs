//! Whether the files behind blocks are still what they were, as far as this machine can tell.

use std::{collections::BTreeMap, ops::Range, path::Path};

use model::{Block, Content, parts::Edition};

use crate::{Error, Store, files};

/// What a file was when its blocks were added, and where the last of them ends.
struct Was {
    size_and_mtime: (u64, i64),
    end: u64,
}

impl Store {
    /// The first file of these blocks that has changed or is gone, with what is wrong with it. Files that are not on this
    /// machine are taken for unchanged: those of which not even the folder is here, and objects elsewhere.
    ///
    /// Costs a query and a look at each file.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn first_changed(&self, edition: Edition, range: Range<u32>) -> Result<Option<String>, Error> {
        let found = self.numbered(edition, range).await?;
        let blocks: Vec<Block> = found.blocks.into_iter().map(|(_, block)| block).collect();
        let looked = tokio::task::spawn_blocking(move || {
            let files = of_blocks(&blocks);
            files.into_iter().find_map(|(url, was)| changed(url, &was))
        });
        // Who can't look does not know of a change.
        Ok(looked.await.unwrap_or_default())
    }
}

fn of_blocks(blocks: &[Block]) -> BTreeMap<&str, Was> {
    let mut files: BTreeMap<&str, Was> = BTreeMap::new();
    for block in blocks {
        if let Content::Object {
            url,
            end,
            size,
            mtime_ms,
            ..
        } = &block.content
        {
            let was = files.entry(url).or_insert(Was {
                size_and_mtime: (*size, *mtime_ms),
                end: *end,
            });
            was.end = was.end.max(*end);
        }
    }
    files
}

fn changed(url: &str, was: &Was) -> Option<String> {
    let path = files::path_of(url)?;
    match std::fs::metadata(&path) {
        Ok(is) => {
            let is = files::size_and_mtime(&is);
            let same = files::check_unchanged(url, was.size_and_mtime, is, was.end);
            same.err().map(|error| error.to_string())
        }
        Err(error) => {
            let is_ours = path.parent().is_some_and(Path::exists);
            is_ours.then(|| format!("can't read {}: {error}", path.display()))
        }
    }
}
