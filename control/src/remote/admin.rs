//! Tokens and the audit log, asked of a gateway.

use std::time::Duration;

use api::{
    Malformed,
    v1::{self, admin_client::AdminClient},
};
use futures::TryStreamExt as _;
use pki::{Peer, Token};
use storage::{Change, ChangeFilter, TokenRecord};

use super::Remote;
use crate::{Error, wire};

impl Remote {
    pub(crate) async fn create_token(
        &self,
        peer: &Peer,
        valid: Duration,
    ) -> Result<(Token, TokenRecord), Error> {
        let request = v1::CreateTokenRequest {
            name: peer.name.to_string(),
            queues: peer.rights.queues.clone(),
            may_exec: peer.rights.may_exec,
            may_manage: peer.rights.manages.iter().map(ToString::to_string).collect(),
            valid_ms: u64::try_from(valid.as_millis()).unwrap_or(u64::MAX),
        };
        let asked = self.change(request, async |channel, request| {
            AdminClient::new(channel).create_token(request).await
        });
        let made = asked.await?;
        let token = made.token.parse();
        let token = token.map_err(|error| Malformed::new("token", error))?;
        let info = made.info.ok_or_else(|| Malformed::new("info", "it is missing"))?;
        Ok((token, wire::token(info)))
    }

    pub(crate) async fn tokens(&self) -> Result<Vec<TokenRecord>, Error> {
        let asked = self.look(v1::ListTokensRequest {}, async |channel, request| {
            AdminClient::new(channel).list_tokens(request).await
        });
        let tokens = self.told(asked.await?).await;
        tokens.map_ok(wire::token).try_collect().await
    }

    pub(crate) async fn revoke_tokens(&self, reference: &str) -> Result<Vec<TokenRecord>, Error> {
        let request = v1::TokenReference {
            reference: reference.to_string(),
        };
        let asked = self.change(request, async |channel, request| {
            AdminClient::new(channel).revoke_tokens(request).await
        });
        Ok(asked.await?.tokens.into_iter().map(wire::token).collect())
    }

    pub(crate) async fn changes(&self, filter: &ChangeFilter) -> Result<Vec<Change>, Error> {
        let request = v1::ListChangesRequest {
            since_ms: filter.since_ms,
            who: filter.who.clone(),
            limit: u32::try_from(filter.limit).unwrap_or(u32::MAX),
        };
        let asked = self.look(request, async |channel, request| {
            AdminClient::new(channel).list_changes(request).await
        });
        let changes = self.told(asked.await?).await;
        changes.map_ok(wire::change).try_collect().await
    }
}
