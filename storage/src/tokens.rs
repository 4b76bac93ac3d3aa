//! Tokens: who they stand for and until when, under their hashes. The tokens themselves are nowhere.

use bson::{Document, RawDocument, doc};

use crate::{
    Error, Store,
    rows::Query,
    schema::{TOKENS, check_version, date},
};

/// Most tokens that are listed: so many are no longer kept by hand.
pub const TOKENS_MAX: usize = 10_000;

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// BLAKE3 of the token in hexadecimal digits.
    pub hash: String,
    /// Role, name and rights, as in a certificate.
    pub peer: String,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// From when on it counts no more.
    pub expires_ms: i64,
    /// Who made it.
    pub created_by: String,
}

impl Store {
    /// Keeps a new token.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn keep_token(&self, token: &TokenRecord) -> Result<(), Error> {
        let document = doc! {
            "v": i64::from(model::FORMAT),
            "peer": token.peer.as_str(),
            "created_at": date(token.created_ms),
            "expires_at": date(token.expires_ms),
            "created_by": token.created_by.as_str(),
        };
        // By its hash it may be kept twice, after a lost reply.
        let kept = self
            .documents(TOKENS)
            .replace_one(doc! { "_id": token.hash.as_str() }, document)
            .upsert(true)
            .await;
        kept.map(drop).map_err(self.failed("keeping a token"))
    }

    /// The token of this hash, also when it has expired.
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn token(&self, hash: &str) -> Result<Option<TokenRecord>, Error> {
        let found = self.find_by_id(TOKENS, hash, "reading a token").await?;
        found.map(|token| decode(&token)).transpose()
    }

    /// All tokens, at most [`TOKENS_MAX`].
    ///
    /// # Errors
    /// [`Error::Mongo`], [`Error::Newer`], [`Error::Decode`].
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, Error> {
        let query = Query::new(TOKENS, "reading tokens", doc! {}).sort("_id", 1);
        let mut rows = self.find(query).await?;
        let mut tokens = Vec::new();
        while let Some(token) = rows.next().await?.filter(|_| tokens.len() < TOKENS_MAX) {
            tokens.push(decode(token)?);
        }
        Ok(tokens)
    }

    /// Removes tokens by their hashes; how many there were.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn remove_tokens(&self, hashes: &[String]) -> Result<u64, Error> {
        self.remove_from_tokens(doc! { "_id": { "$in": hashes } }).await
    }

    /// Removes tokens that have expired before a time, in milliseconds since 1970 UTC; how many there were.
    ///
    /// # Errors
    /// [`Error::Mongo`].
    pub async fn remove_tokens_expired(&self, before_ms: i64) -> Result<u64, Error> {
        self.remove_from_tokens(doc! { "expires_at": { "$lt": date(before_ms) } })
            .await
    }

    async fn remove_from_tokens(&self, filter: Document) -> Result<u64, Error> {
        let removed = self.documents(TOKENS).delete_many(filter).await;
        let removed = removed.map_err(self.failed("removing tokens"))?;
        Ok(removed.deleted_count)
    }
}

pub(crate) fn decode(document: &RawDocument) -> Result<TokenRecord, Error> {
    let hash = document.get_str("_id").unwrap_or_default().to_string();
    let what = || format!("token {}", hash.get(..8).unwrap_or_default());
    check_version(document, what)?;
    let wrong = |error: bson::error::Error| Error::Decode {
        what: what(),
        why: error.to_string(),
    };
    let text = |key| document.get_str(key).map(str::to_string).map_err(wrong);
    let time = |key| {
        document
            .get_datetime(key)
            .map(|time| time.timestamp_millis())
            .map_err(wrong)
    };
    Ok(TokenRecord {
        peer: text("peer")?,
        created_ms: time("created_at")?,
        expires_ms: time("expires_at")?,
        created_by: text("created_by")?,
        hash,
    })
}
