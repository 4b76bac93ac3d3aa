//! Who may do what. Rights come with the certificate; each method asks here first.

use api::transport;
use pki::{Peer, Role};
use tonic::{Code, Request, Status};

/// Looking at jobs, datasets and who works is for users and administrators.
///
/// # Errors
/// PERMISSION_DENIED.
pub(crate) fn look<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = transport::peer(request);
    match peer.role {
        Role::User | Role::Admin => Ok(peer),
        _ => Err(denied(
            &peer,
            "look at what the mill has: that takes a user or an administrator",
        )),
    }
}

fn denied(peer: &Peer, what: &str) -> Status {
    api::refusal(
        Code::PermissionDenied,
        "PERMISSION_DENIED",
        format!("{peer} may not {what}"),
        [],
    )
}
