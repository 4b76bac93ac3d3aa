//! Why a certificate, key or authority can't be used.

use std::{io, path::PathBuf};

use model::Name;

use crate::{BadUri, Role};

/// Why a certificate, key or authority can't be used; each says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that can't be read or written.
    #[error("can't use {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that holds something else than it should.
    #[error("{path} holds no {what}: {why}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it does not.
        why: String,
    },
    /// A key that others on the machine may read.
    #[error("{path} may be read by every user of this machine (mode {mode:04o}): run `chmod 600 {path}`")]
    OpenKey {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A certificate with another key.
    #[error("{key} does not belong to {certificate}: copy both from where they were issued")]
    KeyMismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// A certificate that nobody would accept.
    #[error("{path} is of no use: {why}")]
    Refused {
        /// The certificate.
        path: PathBuf,
        /// Why not, and what to do.
        why: String,
    },
    /// A certificate that does not tell whom it stands for.
    #[error("a certificate without a role: {0}")]
    NoPeer(#[from] BadUri),
    /// Something would be overwritten.
    #[error("{path} is there already: choose another directory or remove it")]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// No authority there.
    #[error(
        "{path} is no authority: make one with `sawmill pki init {path}`, or name its directory with --ca"
    )]
    NoAuthority {
        /// The directory.
        path: PathBuf,
    },
    /// Roles that are connected to need the names of their hosts.
    #[error(
        "a {role} is connected to, and is known by its host: add --host with a DNS name or an IP address"
    )]
    NoHosts {
        /// The role.
        role: Role,
    },
    /// A host that no certificate can name.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    BadHost(String),
    /// A time that a certificate can't have.
    #[error("a certificate is valid for at least a minute, and not longer than its authority")]
    BadValidity,
    /// The authority has issued nothing of the kind.
    #[error("nothing that is valid was issued for {0:?}: `sawmill pki show` lists what was issued")]
    NotIssued(String),
    /// One name stands for several roles.
    #[error(
        "{name} is the name of several roles: revoke by role and name, as in {role}/{name}, or by serial number"
    )]
    Ambiguous {
        /// The name.
        name: Name,
        /// One of its roles.
        role: Role,
    },
    /// A certificate of another authority.
    #[error("{path} was issued by another authority")]
    Foreign {
        /// The certificate.
        path: PathBuf,
    },
    /// What making a certificate failed by.
    #[error("can't make the certificate: {0}")]
    Making(#[from] rcgen::Error),
}

impl Error {
    /// Whether the one who called asked for something that can't be: nothing was done.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NoPeer(_)
                | Self::Exists { .. }
                | Self::NoAuthority { .. }
                | Self::NoHosts { .. }
                | Self::BadHost(_)
                | Self::BadValidity
                | Self::Ambiguous { .. }
        )
    }
}
