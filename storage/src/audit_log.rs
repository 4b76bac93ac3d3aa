//! The audit log: who changed what, and when. Kept for [`CHANGES_KEPT`], whatever happens to what was changed.

use std::time::Duration;

use bson::{Document, RawDocument, Uuid, doc};

use crate::{
    Error, Store,
    rows::Query,
    schema::{AUDIT, check_version, date},
};

/// How long a change is remembered.
pub const CHANGES_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

/// Most changes that are read at once.
pub const CHANGES_MAX: usize = 10_000;

/// A change of what a mill has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When it was made, in milliseconds since 1970 UTC, by the clock of who recorded it; by MongoDB's where the two are far
    /// apart.
    pub at_ms: i64,
    /// Who made it: a role and a name, or the user of a machine who works on the stores themselves.
    pub who: String,
    /// What was done, as in `dataset.remove`.
    pub what: String,
    /// To what, as in `access`.
    pub subject: String,
    /// What else there is to say.
    pub details: String,
}

/// Which changes.
#[derive(Clone, Debug, Default)]
pub struct ChangeFilter {
    /// Not before this time, in milliseconds since 1970 UTC.
    pub since_ms: Option<i64>,
    /// By these alone.
    pub who: Option<String>,
    /// So many, the newest.
    pub limit: usize,
}

impl Store {
    /// Remembers changes.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn log_changes(&self, changes: &[Change]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut documents = Vec::with_capacity(changes.len());
        for change in changes {
            let at_ms = self.set_right(change.at_ms).await?;
            documents.push(doc! {
                // Begins with the time: in the order of keys is in that of times.
                "_id": Uuid::from_uuid_1(at(at_ms)),
                "v": i64::from(model::FORMAT),
                "at": date(at_ms),
                "who": change.who.as_str(),
                "what": change.what.as_str(),
                "subject": change.subject.as_str(),
                "details": change.details.as_str(),
            });
        }
        let logged = self.documents(AUDIT).insert_many(documents).await;
        logged.map(drop).map_err(self.failed("writing the audit log"))
    }

    /// Changes, the newest first, at most [`CHANGES_MAX`].
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn changes(&self, filter: &ChangeFilter) -> Result<Vec<Change>, Error> {
        let mut wanted = Document::new();
        if let Some(since) = filter.since_ms {
            wanted.insert("at", doc! { "$gte": date(since) });
        }
        if let Some(who) = &filter.who {
            wanted.insert("who", who.as_str());
        }
        let limit = filter.limit.clamp(1, CHANGES_MAX);
        let query = Query::new(AUDIT, "reading the audit log", wanted).sort("_id", -1);
        let mut rows = self.find(query.limit(limit)).await?;
        let mut changes = Vec::new();
        while let Some(change) = rows.next().await? {
            changes.push(decode(change)?);
        }
        Ok(changes)
    }

    /// Forgets changes from before a time, in milliseconds since 1970 UTC; how many there were.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn forget_changes(&self, before_ms: i64) -> Result<u64, Error> {
        let old = doc! { "at": { "$lt": date(before_ms) } };
        let forgotten = self.documents(AUDIT).delete_many(old).await;
        let forgotten = forgotten.map_err(self.failed("pruning the audit log"))?;
        Ok(forgotten.deleted_count)
    }
}

/// A new id that begins with a time.
fn at(at_ms: i64) -> uuid::Uuid {
    let time = Duration::from_millis(u64::try_from(at_ms).unwrap_or_default());
    let stamp = uuid::Timestamp::from_unix_time(time.as_secs(), time.subsec_nanos(), 0, 0);
    uuid::Uuid::new_v7(stamp)
}

pub(crate) fn decode(document: &RawDocument) -> Result<Change, Error> {
    check_version(document, || "the audit log".to_string())?;
    let wrong = |error: bson::error::Error| Error::Decode {
        what: "the audit log".to_string(),
        why: error.to_string(),
    };
    let text = |key| document.get_str(key).map(str::to_string).map_err(wrong);
    Ok(Change {
        at_ms: document.get_datetime("at").map_err(wrong)?.timestamp_millis(),
        who: text("who")?,
        what: text("what")?,
        subject: text("subject")?,
        details: text("details")?,
    })
}
