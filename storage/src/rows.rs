//! Reading documents one after another, without turning each into a tree first.

use bson::{Document, RawDocument, RawDocumentBuf, doc};
use mongodb::{Cursor, options::FindOptions};

use crate::{Error, Store};

/// What to read, and how.
pub(crate) struct Query<'a> {
    pub(crate) collection: &'a str,
    /// What for, in errors.
    pub(crate) doing: String,
    pub(crate) filter: Document,
    pub(crate) options: FindOptions,
}

impl<'a> Query<'a> {
    pub(crate) fn new(collection: &'a str, doing: impl Into<String>, filter: Document) -> Self {
        Self {
            collection,
            doing: doing.into(),
            filter,
            options: FindOptions::default(),
        }
    }

    /// Only these fields.
    pub(crate) fn fields(mut self, fields: &[&str]) -> Self {
        self.options.projection = Some(fields.iter().map(|field| (field.to_string(), 1.into())).collect());
        self
    }

    pub(crate) fn sort(mut self, key: &str, direction: i32) -> Self {
        self.options.sort.get_or_insert_default().insert(key, direction);
        self
    }

    /// 0: all.
    pub(crate) fn limit(mut self, limit: usize) -> Self {
        self.options.limit = Some(i64::try_from(limit).unwrap_or(i64::MAX));
        self
    }

    /// Documents in one reply, where the server's first 101 would cost a second request.
    pub(crate) fn batch(mut self, documents: u32) -> Self {
        self.options.batch_size = Some(documents);
        self
    }
}

/// The documents found.
pub(crate) struct Rows {
    store: Store,
    doing: String,
    cursor: Cursor<RawDocumentBuf>,
}

impl Rows {
    /// The next document; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<&RawDocument>, Error> {
        match self.cursor.advance().await {
            Ok(true) => Ok(Some(self.cursor.current())),
            Ok(false) => Ok(None),
            Err(error) => Err(self.store.failed(self.doing.as_str())(error)),
        }
    }
}

impl Store {
    pub(crate) async fn find(&self, query: Query<'_>) -> Result<Rows, Error> {
        let Query {
            collection,
            doing,
            filter,
            options,
        } = query;
        let cursor = self.raw(collection).find(filter).with_options(options).await;
        let cursor = cursor.map_err(self.failed(doing.as_str()))?;
        Ok(Rows {
            store: self.clone(),
            doing,
            cursor,
        })
    }

    /// The document with this key.
    pub(crate) async fn find_by_id(
        &self,
        collection: &str,
        id: impl Into<bson::Bson>,
        doing: &str,
    ) -> Result<Option<RawDocumentBuf>, Error> {
        let id = id.into();
        self.raw(collection)
            .find_one(doc! { "_id": id })
            .await
            .map_err(self.failed(doing))
    }
}
