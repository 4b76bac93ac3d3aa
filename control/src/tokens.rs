//! Tokens for scripts: made, listed, revoked, and known by those who serve.

use std::time::Duration;

use pki::{Peer, Token};
use storage::TokenRecord;

use crate::{Control, Error};

/// Longest time for which a token counts.
pub const TOKEN_VALID_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// How long expired tokens are still listed.
const EXPIRED_SHOWN: Duration = Duration::from_secs(30 * 24 * 3600);

/// Fewest digits of a hash by which a token is meant.
const ID_DIGITS_MIN: usize = 8;

/// Digits of a hash by which the audit log tells a token from others.
const ID_DIGITS: usize = 12;

impl Control {
    /// Makes a token that stands for `peer` for so long, at most [`TOKEN_VALID_MAX`]; its text is nowhere else. A gateway knows
    /// itself by whom it is made, as in [`Control::revoke_token`].
    ///
    /// # Errors
    /// [`Error::BadToken`] for another role than user, or another time; [`Error::Storage`].
    pub async fn create_token(
        &self,
        peer: &Peer,
        valid: Duration,
        created_by: &str,
    ) -> Result<(Token, TokenRecord), Error> {
        if let Some(remote) = self.remote() {
            return remote.create_token(peer, valid).await;
        }
        let bad = |why: String| Error::BadToken { why };
        if peer.role != pki::Role::User {
            return Err(bad(format!("it stands for a user, not for {peer}")));
        }
        peer.rights
            .check(peer.role)
            .map_err(|error| bad(error.to_string()))?;
        if valid.is_zero() || valid > TOKEN_VALID_MAX {
            return Err(bad("it counts for a year at most".to_string()));
        }
        let token = Token::generate().map_err(|error| bad(error.to_string()))?;
        let store = self.store()?;
        let created_ms = store.now_ms().await?;
        let record = TokenRecord {
            hash: token.hash(),
            peer: peer.to_uri(),
            created_ms,
            expires_ms: created_ms.saturating_add(millis(valid)),
            created_by: created_by.to_string(),
        };
        store
            .remove_tokens_expired(created_ms.saturating_sub(millis(EXPIRED_SHOWN)))
            .await?;
        store.keep_token(&record).await?;
        let id = record.hash.get(..ID_DIGITS).unwrap_or_default();
        let details = format!("{id}: {}", record.peer);
        self.log(created_by, "token.create", peer.name.as_str(), details)
            .await;
        Ok((token, record))
    }

    /// All tokens.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, Error> {
        if let Some(remote) = self.remote() {
            return remote.tokens().await;
        }
        Ok(self.store()?.tokens().await?)
    }

    /// Revokes all tokens of a name, or the one whose hash begins with at least eight digits that are given; gives those
    /// that were revoked. Gateways that have just seen one believe it for a few more seconds.
    ///
    /// # Errors
    /// [`Error::NoSuchToken`], [`Error::Storage`].
    pub async fn revoke_token(&self, who: &str, revoked_by: &str) -> Result<Vec<TokenRecord>, Error> {
        if let Some(remote) = self.remote() {
            return remote.revoke_tokens(who).await;
        }
        let mut tokens = self.tokens().await?;
        tokens.retain(|token| {
            let named = Peer::from_uri(&token.peer).is_ok_and(|peer| peer.name.as_str() == who);
            named || (who.len() >= ID_DIGITS_MIN && token.hash.starts_with(&who.to_ascii_lowercase()))
        });
        if tokens.is_empty() {
            return Err(Error::NoSuchToken {
                reference: who.to_string(),
            });
        }
        let hashes: Vec<String> = tokens.iter().map(|token| token.hash.clone()).collect();
        self.store()?.remove_tokens(&hashes).await?;
        let ids = hashes.iter().filter_map(|hash| hash.get(..ID_DIGITS));
        let ids: Vec<&str> = ids.collect();
        self.log(revoked_by, "token.revoke", who, ids.join(" ")).await;
        Ok(tokens)
    }

    /// For whom a token stands now; none for one that is unknown, revoked or expired.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn peer_of_token(&self, token: &Token) -> Result<Option<(Peer, i64)>, Error> {
        let store = self.store()?;
        let (found, now_ms) = (store.token(&token.hash()).await?, store.now_ms().await?);
        let found = found.filter(|found| found.expires_ms > now_ms);
        Ok(found.and_then(|found| {
            let peer = Peer::from_uri(&found.peer).ok()?;
            (peer.role == pki::Role::User).then_some((peer, found.expires_ms))
        }))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
