//! Reading documents one after another, without turning each into a tree first.

use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::{Cursor, options::FindOptions};

use crate::{
    Error, Store,
    error::{code, is_ended, passes_by},
    transaction::pause,
};

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

/// How often a read is taken up again without a document coming of it, before its error is the caller's.
const TRIES: u32 = 10;

/// The documents found.
pub(crate) struct Rows {
    store: Store,
    wanted: Wanted,
    cursor: Cursor<RawDocumentBuf>,
    /// In the order of keys, the last key that was given, and how many documents were.
    given: Option<(Bson, i64)>,
}

/// A query that may be sent again.
struct Wanted {
    collection: String,
    doing: String,
    filter: Document,
    options: FindOptions,
}

impl Rows {
    /// The next document; none at the end.
    ///
    /// A cursor ends with the session, the operation or the server that it belongs to. One in the order of keys is then
    /// replaced by another behind what was given; others are the caller's to begin again.
    pub(crate) async fn next(&mut self) -> Result<Option<&RawDocument>, Error> {
        let mut tries = 0;
        loop {
            let error = match self.cursor.advance().await {
                Ok(true) => break,
                Ok(false) => return Ok(None),
                Err(error) => error,
            };
            let rest = self
                .given
                .as_ref()
                .filter(|_| tries < TRIES)
                .and_then(|given| self.wanted.behind(given));
            let Some(rest) = rest.filter(|_| code(&error).is_some_and(passes_by)) else {
                return Err(self.store.failed(self.wanted.doing.as_str())(error));
            };
            tries += 1;
            tracing::debug!("{}: taken up again: {error}", self.wanted.doing);
            tokio::time::sleep(pause(tries)).await;
            self.cursor = self.store.cursor(&rest).await?;
        }
        if self.wanted.direction().is_some() {
            let key = self.cursor.current().get("_id").ok().flatten();
            let count = self.given.take().map_or(0, |(_, count)| count);
            self.given = key.and_then(|key| Some((Bson::try_from(key).ok()?, count + 1)));
        }
        Ok(Some(self.cursor.current()))
    }
}

impl Wanted {
    /// 1 or -1 where it is in the order of keys alone.
    fn direction(&self) -> Option<i32> {
        let sort = self.options.sort.as_ref()?;
        sort.get_i32("_id").ok().filter(|_| sort.len() == 1)
    }

    /// The query for what is behind a key, after so many documents; none where the order is not that of keys.
    fn behind(&self, (key, count): &(Bson, i64)) -> Option<Self> {
        let operator = if self.direction()? < 0 { "$lt" } else { "$gt" };
        let mut options = self.options.clone();
        // A limit of 0 is none. What another allows was not given in full, or the cursor had come to its end.
        options.limit = options.limit.map(|limit| match limit {
            0 => 0,
            limit => (limit - count).max(1),
        });
        Some(Self {
            collection: self.collection.clone(),
            doing: self.doing.clone(),
            filter: doc! { "$and": [self.filter.clone(), { "_id": { operator: key.clone() } }] },
            options,
        })
    }
}

impl Store {
    pub(crate) async fn find(&self, query: Query<'_>) -> Result<Rows, Error> {
        let wanted = Wanted {
            collection: query.collection.to_string(),
            doing: query.doing,
            filter: query.filter,
            options: query.options,
        };
        Ok(Rows {
            cursor: self.cursor(&wanted).await?,
            store: self.clone(),
            wanted,
            given: None,
        })
    }

    async fn cursor(&self, wanted: &Wanted) -> Result<Cursor<RawDocumentBuf>, Error> {
        let collection = self.raw(&wanted.collection);
        let mut tries = 0;
        loop {
            let find = collection.find(wanted.filter.clone());
            match find.with_options(wanted.options.clone()).await {
                // The driver itself tries again where the server changes; not where somebody ended the operation.
                Err(error) if tries < TRIES && code(&error).is_some_and(is_ended) => {
                    tries += 1;
                    tokio::time::sleep(pause(tries)).await;
                }
                found => return found.map_err(self.failed(wanted.doing.as_str())),
            }
        }
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

#[cfg(test)]
mod tests {
    use testkit::Space;

    use super::*;
    use crate::Config;

    /// What a query gives in all when somebody ends its session, and so its cursor, after so many documents.
    async fn numbers(store: &Store, query: Query<'_>, end_at: usize) -> Result<Vec<i64>, Error> {
        let session = store.client().start_session().await.unwrap();
        let id = session.id().clone();
        drop(session);
        // The driver takes it back in a task of its own; the next read is the first that gets it.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let mut rows = store.find(query.batch(10)).await?;
        let mut found = Vec::new();
        loop {
            if found.len() == end_at {
                let command = doc! { "killSessions": [&id] };
                let admin = store.client().database("admin");
                admin.run_command(command).await.unwrap();
            }
            match rows.next().await? {
                Some(row) => found.push(row.get_i64("_id").unwrap()),
                None => return Ok(found),
            }
        }
    }

    #[tokio::test]
    async fn a_read_goes_on_behind_what_was_given_when_its_cursor_ends() {
        let (space, folder) = (Space::new().await, tempfile::TempDir::new().unwrap());
        let url = crate::files::url_of(folder.path()).unwrap();
        let store = Store::open(&Config::new(space.mongodb(), url)).await.unwrap();
        let numbered = (0..100_i64).map(|number| doc! { "_id": number });
        store.documents("numbers").insert_many(numbered).await.unwrap();
        let query = || Query::new("numbers", "counting", doc! { "_id": { "$gte": 5_i64 } });
        let up: Vec<i64> = (5..100).collect();
        let down: Vec<i64> = (5..100).rev().collect();
        // In no order there is nothing to go on behind; who reads may begin again. That the cursor ends is seen here.
        let ended = numbers(&store, query(), 20).await.unwrap_err();
        assert!(ended.is_retryable(), "{ended}");
        for end_at in [0, 35, 80] {
            assert_eq!(numbers(&store, query().sort("_id", 1), end_at).await.unwrap(), up);
            assert_eq!(
                numbers(&store, query().sort("_id", -1), end_at).await.unwrap(),
                down
            );
        }
        let limited = query().sort("_id", 1).limit(42);
        assert_eq!(numbers(&store, limited, 35).await.unwrap(), up[..42]);
    }
}
