//! Agents that have no worker.

use api::v1;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::session::Session;

/// Holds an agent in `/unowned` for as long as its stream lives, and passes on what the leader decides.
///
/// # Errors
/// Without ZooKeeper.
pub(super) async fn attach(
    session: &Session,
    _stop: &CancellationToken,
    _request: Request<Streaming<v1::AttachRequest>>,
) -> Result<Response<BoxStream<'static, Result<v1::AttachReply, Status>>>, Status> {
    let Some(_term) = session.term() else {
        return Err(Status::unavailable("ZooKeeper does not answer this dispatcher"));
    };
    Err(Status::unimplemented("this release has no agents"))
}
