//! Who may do what. Rights come with the certificate; each method asks here first.

use api::transport;
use pki::{Peer, Role};
use tonic::{Code, Request, Status};

/// All jobs are in this queue.
const QUEUE: &str = "default";

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

/// Submitting, and changing datasets and views, is for users who may submit to the queue, and for administrators.
///
/// # Errors
/// PERMISSION_DENIED.
pub(crate) fn change<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = transport::peer(request);
    may_change(&peer)?;
    Ok(peer)
}

/// As [`change`], of somebody who is known.
///
/// # Errors
/// PERMISSION_DENIED.
pub(crate) fn may_change(peer: &Peer) -> Result<(), Status> {
    if peer.may_submit_to(QUEUE) {
        return Ok(());
    }
    Err(denied(
        peer,
        "submit to the queue default or change what it works on",
    ))
}

/// Commands besides need a right of their own.
///
/// # Errors
/// PERMISSION_DENIED.
pub(crate) fn may_exec(peer: &Peer) -> Result<(), Status> {
    if peer.may_exec() {
        return Ok(());
    }
    Err(denied(
        peer,
        "submit commands: its certificate was issued without --may-exec",
    ))
}

/// Naming files that the mill is to read is for those who could read them by a command as well.
///
/// # Errors
/// PERMISSION_DENIED.
pub(crate) fn may_read_files(peer: &Peer) -> Result<(), Status> {
    if peer.may_exec() {
        return Ok(());
    }
    Err(denied(
        peer,
        "name files that the mill is to read: its certificate was issued without --may-exec",
    ))
}

/// Telling agents what to do, and the like, is for administrators.
///
/// # Errors
/// PERMISSION_DENIED.
pub(crate) fn administer<T>(request: &Request<T>, what: &str) -> Result<Peer, Status> {
    let peer = transport::peer(request);
    match peer.role {
        Role::Admin => Ok(peer),
        _ => Err(denied(&peer, &format!("{what}: that takes an administrator"))),
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

#[cfg(test)]
mod tests {
    use model::Name;
    use pki::Rights;

    use super::*;

    fn peer(role: Role, rights: Rights) -> Peer {
        Peer {
            role,
            name: Name::new("x").unwrap(),
            rights,
        }
    }

    #[test]
    fn rights_follow_the_certificate() {
        let queues = Rights {
            queues: vec!["def*".into()],
            ..Rights::default()
        };
        let exec = Rights {
            may_exec: true,
            ..queues.clone()
        };
        // Role, rights; may change, may exec.
        let cases = [
            (Role::Admin, Rights::default(), true, true),
            (Role::User, Rights::default(), false, false),
            (Role::User, queues.clone(), true, false),
            (Role::User, exec.clone(), true, true),
            (Role::Agent, exec.clone(), false, false),
            (Role::Worker, exec.clone(), false, false),
            (Role::Watcher, exec, false, false),
        ];
        for (role, rights, change, exec) in cases {
            let peer = peer(role, rights);
            assert_eq!(
                (may_change(&peer).is_ok(), may_exec(&peer).is_ok()),
                (change, exec),
                "{peer:?}"
            );
        }
    }
}
