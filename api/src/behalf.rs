//! For whom a dispatcher asks a worker: the worker then grants what that one may, not what the dispatcher may.

use pki::{Peer, Role};
use tonic::{Code, Request, Status, metadata::MetadataValue};

use crate::{refusal, transport};

/// The header that names the one who asked, as in a certificate.
const HEADER: &str = "sawmill-for";

/// Names the one for whom a request is passed on.
///
/// # Errors
/// INTERNAL for a name that can't stand in a header, which none is.
pub fn pass_on<T>(message: T, peer: &Peer) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    // A worker has nothing that is managed, and one of an earlier release does not know these rights.
    let mut peer = peer.clone();
    peer.rights.manages.clear();
    let named = MetadataValue::try_from(peer.to_uri());
    let named =
        named.map_err(|why| refusal(Code::Internal, "INTERNAL", format!("naming {peer}: {why}"), []))?;
    request.metadata_mut().insert(HEADER, named);
    Ok(request)
}

/// Who asks: the one whom a dispatcher (or an administrator) names, or an administrator. Others ask a dispatcher, which
/// counts and writes down what they ask.
///
/// # Errors
/// PERMISSION_DENIED for everybody else; INVALID_ARGUMENT for a name that is none.
pub fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = transport::peer(request);
    if !matches!(peer.role, Role::Dispatcher | Role::Admin) {
        let message = format!("{peer} may not ask a worker: ask a dispatcher");
        return Err(refusal(Code::PermissionDenied, "PERMISSION_DENIED", message, []));
    }
    let Some(named) = request.metadata().get(HEADER) else {
        return Ok(peer);
    };
    let bad = |why: String| {
        refusal(
            Code::InvalidArgument,
            "BAD_NAME",
            format!("the header {HEADER}: {why}"),
            [],
        )
    };
    let named = named.to_str().map_err(|why| bad(why.to_string()))?;
    Peer::from_uri(named).map_err(|why| bad(why.to_string()))
}
