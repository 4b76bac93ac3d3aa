//! How much room the mill takes in MongoDB.

use bson::{Bson, Document, doc};

use crate::{Error, Store};

/// What the database of the mill takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Documents in all collections.
    pub documents: u64,
    /// Bytes of these documents before compression.
    pub data_bytes: u64,
    /// Bytes on disk of collections and indexes.
    pub disk_bytes: u64,
}

impl Store {
    /// Asks MongoDB how much room the database takes; numbers that the server does not tell are 0.
    ///
    /// # Errors
    /// [`Error::Mongo`], also where the server does not know the question.
    pub async fn usage(&self) -> Result<Usage, Error> {
        let stats = self
            .db()
            .run_command(doc! { "dbStats": 1 })
            .await
            .map_err(self.failed("dbStats"))?;
        let disk_bytes = match number(&stats, "totalSize") {
            0 => number(&stats, "storageSize") + number(&stats, "indexSize"),
            total => total,
        };
        Ok(Usage {
            documents: number(&stats, "objects"),
            data_bytes: number(&stats, "dataSize"),
            disk_bytes,
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes are far below 2^53 and not negative"
)]
fn number(stats: &Document, key: &str) -> u64 {
    match stats.get(key) {
        Some(Bson::Int32(value)) => u64::try_from(*value).unwrap_or(0),
        Some(Bson::Int64(value)) => u64::try_from(*value).unwrap_or(0),
        Some(Bson::Double(value)) => *value as u64,
        _ => 0,
    }
}
