//! `sawmill.v1.Admin`: tokens, and the audit log.

use std::time::Duration;

use api::{
    transport::holder,
    v1::{self, admin_server::Admin},
};
use control::{Control, wire};
use pki::{Peer, Rights, Role};
use storage::{CHANGES_MAX, ChangeFilter};
use tonic::{Request, Response, Status};

use crate::{
    catalog::named,
    feed::{Answers, Feed, Feeds},
    queue::told,
    refuse,
    room::Room,
};

/// The service.
pub(crate) struct Service {
    control: Control,
    feeds: Feeds,
    room: Room,
}

impl Service {
    pub(crate) fn new(control: Control, feeds: Feeds, room: Room) -> Self {
        Self { control, feeds, room }
    }
}

#[tonic::async_trait]
impl Admin for Service {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreatedToken>, Status> {
        let peer = refuse::asker(&request);
        let request = request.into_inner();
        let manages = request.may_manage.iter().map(|managed| managed.parse());
        let manages: Result<_, pki::BadManaged> = manages.collect();
        let rights = Rights {
            queues: request.queues,
            may_exec: request.may_exec,
            manages: manages.map_err(|error| {
                told(control::Error::BadToken {
                    why: error.to_string(),
                })
            })?,
            ..Rights::default()
        };
        let user = Peer::new(Role::User, named(&request.name)?, rights).map_err(|error| {
            told(control::Error::BadToken {
                why: error.to_string(),
            })
        })?;
        let valid = Duration::from_millis(request.valid_ms);
        let made = self.control.create_token(&user, valid, &peer.to_string()).await;
        let (token, record) = made.map_err(told)?;
        Ok(Response::new(v1::CreatedToken {
            token: token.expose(),
            info: Some(wire::token_message(&record)),
        }))
    }

    type ListTokensStream = Answers<v1::TokenInfo>;

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<Self::ListTokensStream>, Status> {
        let taken = self.room.list(&holder(&request)).await?;
        let tokens = self.control.tokens().await.map_err(told)?;
        Ok(Response::new(self.feeds.stream(async move |feed: Feed<_>| {
            let _taken = taken;
            for token in &tokens {
                feed.put(wire::token_message(token)).await?;
            }
            Ok(())
        })))
    }

    async fn revoke_tokens(
        &self,
        request: Request<v1::TokenReference>,
    ) -> Result<Response<v1::RevokedTokens>, Status> {
        let peer = refuse::asker(&request);
        let reference = request.into_inner().reference;
        let revoked = self.control.revoke_token(&reference, &peer.to_string()).await;
        Ok(Response::new(v1::RevokedTokens {
            tokens: revoked.map_err(told)?.iter().map(wire::token_message).collect(),
        }))
    }

    type ListChangesStream = Answers<v1::AuditedChange>;

    async fn list_changes(
        &self,
        request: Request<v1::ListChangesRequest>,
    ) -> Result<Response<Self::ListChangesStream>, Status> {
        let taken = self.room.list(&holder(&request)).await?;
        let request = request.into_inner();
        let filter = ChangeFilter {
            since_ms: request.since_ms,
            who: request.who,
            limit: (request.limit as usize).min(CHANGES_MAX),
        };
        let changes = self.control.changes(&filter).await.map_err(told)?;
        Ok(Response::new(self.feeds.stream(async move |feed: Feed<_>| {
            let _taken = taken;
            for change in changes {
                feed.put(wire::change_message(change)).await?;
            }
            Ok(())
        })))
    }
}
