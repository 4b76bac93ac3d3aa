//! Which collections of the database Sawmill made: those alone are replaced by answers, or dropped with views.
//!
//! A mark in a document of ours would outlive a collection that somebody drops, and stand for another one that somebody else
//! makes under its name. So the mark is in the collection: an index of a field that no row has, which is there before the
//! first row and goes where the collection goes, also into a dump and back.

use bson::{Bson, doc};
use model::{JobState, Name};
use mongodb::{IndexModel, options::IndexOptions};

use crate::{Error, Store, error::code, rows::Query, schema::JOBS};

/// The index that marks a collection; it has no entries.
const MARK: &str = "made_by_sawmill";
/// MongoDB's codes for "there is no such collection" and "it is a view of MongoDB".
const NO_INDEXES: [i32; 2] = [26, 166];

impl Store {
    /// Marks a new collection as made by Sawmill.
    pub(crate) async fn mark_made(&self, collection: &str) -> Result<(), Error> {
        let options = IndexOptions::builder()
            .name(MARK.to_string())
            .sparse(true)
            .build();
        let index = IndexModel::builder()
            .keys(doc! { MARK: 1 })
            .options(options)
            .build();
        let marked = self.documents(collection).create_index(index).await;
        marked
            .map(drop)
            .map_err(self.failed(format!("marking the collection {collection}")))
    }

    /// Checks that an answer may take the place of a collection: there is none, or Sawmill made it. Gives whether there is
    /// one.
    ///
    /// # Errors
    /// [`Error::Taken`], [`Error::Mongo`].
    pub async fn check_replaceable(&self, collection: &str) -> Result<bool, Error> {
        let there = self
            .db()
            .list_collection_names()
            .filter(doc! { "name": collection });
        let there = there.await.map_err(self.failed("looking for a collection"))?;
        if there.is_empty() {
            return Ok(false);
        }
        if self.is_marked(collection).await? || self.was_made_before_marks(collection).await? {
            return Ok(true);
        }
        Err(not_ours(collection))
    }

    async fn is_marked(&self, collection: &str) -> Result<bool, Error> {
        match self.documents(collection).list_index_names().await {
            Ok(names) => Ok(names.iter().any(|name| name == MARK)),
            Err(error) if code(&error).is_some_and(|code| NO_INDEXES.contains(&code)) => Ok(false),
            Err(error) => Err(self
                .failed(format!("looking who made the collection {collection}"))(
                error
            )),
        }
    }

    /// Whether a release without marks made it: a view shows its answer there, or a job that is still known kept its answer
    /// there, and the rows are numbered as those of answers are.
    async fn was_made_before_marks(&self, collection: &str) -> Result<bool, Error> {
        if let Ok(name) = Name::new(collection)
            && let Some(view) = self.view(&name).await?
        {
            return Ok(view.refreshed_ms.is_some());
        }
        let kept = doc! { "processor.query.into": collection, "state": JobState::Successful.as_str() };
        let jobs = Query::new(JOBS, "looking for a job that made a collection", kept);
        if self
            .find(jobs.fields(&["_id"]).limit(1))
            .await?
            .next()
            .await?
            .is_none()
        {
            return Ok(false);
        }
        let failed = || self.failed(format!("looking at the rows of the collection {collection}"));
        let documents = self.documents(collection);
        let rows = documents.count_documents(doc! {}).await.map_err(failed())?;
        let numbered = doc! { "_id": { "$type": "long", "$gte": 0_i64, "$lt": Bson::Int64(crate::schema::signed(rows)) } };
        let numbered = documents.count_documents(numbered).await.map_err(failed())?;
        Ok(rows == numbered)
    }
}

pub(crate) fn not_ours(collection: &str) -> Error {
    Error::Taken {
        what: format!("a collection {collection} that Sawmill did not make"),
    }
}
