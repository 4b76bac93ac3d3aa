//! Objects that Sawmill itself wrote, which go with their last block.

use std::collections::HashSet;

use bson::{Document, doc, raw::RawBsonRef};
use object_store::{ObjectStoreExt as _, path::Path as Key};

use crate::{Error, Store, rows::Query, schema::BLOCKS};

/// Folder of the block store in which blocks lie that Sawmill itself wrote, below it one of each database.
const OWN_BLOCKS: &str = "blocks";
/// Objects looked for by one query, which reads all pages.
const OBJECTS: usize = 1000;

/// The folder of the blocks that this database's Sawmill wrote.
pub(crate) fn folder(mill: &str) -> String {
    format!("{OWN_BLOCKS}/{mill}/")
}

impl Store {
    /// The URL of a block that Sawmill itself wrote.
    pub(super) fn own_object(&self, block: &RawBsonRef<'_>, own: &str) -> Option<String> {
        let content = block.as_document()?.get_document("content").ok()?;
        let url = content.get_document("object").ok()?.get_str("url").ok()?;
        self.own_key(url, own).map(|_| url.to_string())
    }

    /// The key of an object that Sawmill itself wrote; none of another.
    pub(crate) fn own_key(&self, url: &str, own: &str) -> Option<Key> {
        let object = url.strip_prefix(&self.root().url(""))?;
        object.starts_with(own).then(|| self.root().key(object))
    }

    /// Deletes the objects that no page names, besides those that are about to be removed.
    pub(crate) async fn delete_unnamed(
        &self,
        urls: HashSet<String>,
        own: &str,
        besides: &Document,
    ) -> Result<u64, Error> {
        let mut deleted = 0;
        let urls: Vec<String> = urls.into_iter().collect();
        for urls in urls.chunks(OBJECTS) {
            let named = self.named(urls, own, besides).await?;
            for url in urls.iter().filter(|url| !named.contains(*url)) {
                let Some(key) = self.own_key(url, own) else {
                    continue;
                };
                match self.root().store().delete(&key).await {
                    Ok(()) => deleted += 1,
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(source) => {
                        let (doing, url) = ("can't delete", url.clone());
                        let source = Box::new(source);
                        return Err(Error::Object { doing, url, source });
                    }
                }
            }
        }
        Ok(deleted)
    }

    /// Deletes the objects that only these pages name, which are about to be removed.
    pub(crate) async fn delete_own_objects(&self, pages: &Document) -> Result<(), Error> {
        let own = folder(self.mill().await?);
        let query = Query::new(BLOCKS, "looking for objects to remove", pages.clone());
        let mut rows = self.find(query.fields(&["blocks.content.object.url"])).await?;
        let mut urls = HashSet::new();
        while let Some(page) = rows.next().await? {
            if let Ok(blocks) = page.get_array("blocks") {
                let blocks = blocks.into_iter().flatten();
                urls.extend(blocks.filter_map(|block| self.own_object(&block, &own)));
            }
            if urls.len() >= OBJECTS {
                self.delete_unnamed(std::mem::take(&mut urls), &own, pages)
                    .await?;
            }
        }
        self.delete_unnamed(urls, &own, pages).await?;
        Ok(())
    }

    /// The objects of our own in the pages that name any of these, besides some pages.
    async fn named(&self, urls: &[String], own: &str, besides: &Document) -> Result<HashSet<String>, Error> {
        let filter = doc! { "blocks.content.object.url": { "$in": urls }, "$nor": [besides.clone()] };
        let query = Query::new(BLOCKS, "looking who names an object", filter);
        let mut pages = self.find(query.fields(&["blocks.content.object.url"])).await?;
        let mut named = HashSet::new();
        while let Some(page) = pages.next().await? {
            if let Ok(blocks) = page.get_array("blocks") {
                let blocks = blocks.into_iter().flatten();
                named.extend(blocks.filter_map(|block| self.own_object(&block, own)));
            }
        }
        Ok(named)
    }
}
