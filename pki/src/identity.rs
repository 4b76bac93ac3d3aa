//! Our own certificate and key with the authority that vouches for others, as files that may change at any time.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ClientConfig, Error as TlsError, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, UnixTime},
    server::{VerifierBuilderError, danger::ClientCertVerifier},
};
use tracing::{info, warn};

use crate::{
    Details, Error, Peer, files, refusal,
    tls::{self, Material},
};

/// How often the files are looked at, at most: when somebody connects, and while somebody is connected.
pub const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// Our own certificate and key with the authority that vouches for others; clones share it. Read again when its files
/// change; a new file that is broken is told in the log, and the old one stays in use.
#[derive(Clone)]
pub struct Identity {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    loaded: ArcSwap<Loaded>,
    look: Mutex<Look>,
}

/// What was seen when the files were looked at last.
struct Look {
    at: Instant,
    /// Of the files that are in use.
    stamps: Stamps,
    /// Why newer files are not in use, and whether it was told: a renewal replaces two files one after the other, so that
    /// only what is still wrong at the next look is.
    failure: Option<(String, bool)>,
}

/// One good state of the files.
struct Loaded {
    generation: u64,
    peer: Peer,
    verifier: Arc<dyn ClientCertVerifier>,
    server: Arc<ServerConfig>,
    lenient: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

type Stamps = [Option<(u64, i64, i64, u64)>; 4];

impl Identity {
    /// Reads `ca.pem`, `cert.pem`, `key.pem` and, where it is there, `crl.pem` in a directory and checks that others will
    /// accept them.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`], [`Error::OpenKey`], [`Error::KeyMismatch`], [`Error::Refused`] for a
    /// certificate that is expired, revoked or from another authority, [`Error::NoPeer`].
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let stamps = stamps(dir);
        let loaded = Loaded::read(dir, 0)?;
        Ok(Self {
            shared: Arc::new(Shared {
                dir: dir.into(),
                loaded: ArcSwap::from_pointee(loaded),
                look: Mutex::new(Look {
                    at: Instant::now(),
                    stamps,
                    failure: None,
                }),
            }),
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Who we are.
    pub fn peer(&self) -> Peer {
        self.shared.loaded.load().peer.clone()
    }

    /// How to listen, as of now.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.refresh();
        self.shared.loaded.load().server.clone()
    }

    /// How to listen where clients may show a token instead of a certificate: whoever shows none is let in, and must be
    /// refused by whoever serves until the token is checked.
    pub fn lenient_server_config(&self) -> Arc<ServerConfig> {
        self.refresh();
        self.shared.loaded.load().lenient.clone()
    }

    /// How to connect, as of now.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.refresh();
        self.shared.loaded.load().client.clone()
    }

    /// Rises with each change of the files: what was checked before may be revoked now.
    pub fn generation(&self) -> u64 {
        self.refresh();
        self.shared.loaded.load().generation
    }

    /// Checks the certificate of somebody who is connected, as of now: authority, time, revocation.
    ///
    /// # Errors
    /// Why it is refused, in words.
    pub fn check(&self, chain: &[CertificateDer<'_>]) -> Result<Peer, String> {
        let (first, rest) = chain
            .split_first()
            .ok_or("the other side showed no certificate")?;
        let verifier = self.shared.loaded.load().verifier.clone();
        verifier
            .verify_client_cert(first, rest, UnixTime::now())
            .map_err(|error| refusal::why(&error))?;
        Peer::of_certificate(first).map_err(|error| error.to_string())
    }

    /// Looks at the files, unless that was done within [`RELOAD_EVERY`]. Reads a few small files when they have changed.
    fn refresh(&self) {
        // Somebody else is looking: what is in use is good enough.
        let Ok(mut look) = self.shared.look.try_lock() else {
            return;
        };
        if look.at.elapsed() < RELOAD_EVERY {
            return;
        }
        look.at = Instant::now();
        let dir = &self.shared.dir;
        let stamps = stamps(dir);
        if stamps == look.stamps {
            look.failure = None;
            return;
        }
        let generation = self.shared.loaded.load().generation + 1;
        match Loaded::read(dir, generation) {
            Ok(loaded) => {
                info!(dir = %dir.display(), peer = %loaded.peer, "identity read again");
                self.shared.loaded.store(Arc::new(loaded));
                look.stamps = stamps;
                look.failure = None;
            }
            Err(error) => {
                let error = error.to_string();
                look.failure = match look.failure.take() {
                    Some((same, told)) if same == error => {
                        if !told {
                            warn!(dir = %dir.display(), "the changed identity is not used, the old one is: {error}");
                        }
                        Some((same, true))
                    }
                    _ => Some((error, false)),
                };
            }
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("dir", &self.shared.dir).finish()
    }
}

impl Loaded {
    fn read(dir: &Path, generation: u64) -> Result<Self, Error> {
        let path = |name| dir.join(name);
        let (ca, certificate, crl) = (path(files::CA), path(files::CERTIFICATE), path(files::CRL));
        let mut roots = RootCertStore::empty();
        for root in files::certificates(&ca)? {
            roots.add(root).map_err(|error| Error::Content {
                path: ca.clone(),
                what: "authority",
                why: error.to_string(),
            })?;
        }
        let material = Material {
            roots: Arc::new(roots),
            revoked: files::revoked(&crl)?,
            chain: files::certificates(&certificate)?,
            key: files::key(&path(files::KEY))?,
        };
        let unreadable = |error: VerifierBuilderError| Error::Content {
            path: crl.clone(),
            what: "list of revoked certificates",
            why: error.to_string(),
        };
        let verifier = tls::verifier(&material).map_err(unreadable)?;
        let lenient = tls::lenient(&material).map_err(unreadable)?;
        let broken = |error: TlsError| match error {
            TlsError::InconsistentKeys(_) => Error::KeyMismatch {
                key: path(files::KEY),
                certificate: certificate.clone(),
            },
            other => Error::Refused {
                path: certificate.clone(),
                why: other.to_string(),
            },
        };
        let server = tls::server(&material, verifier.clone()).map_err(broken)?;
        let lenient = tls::server(&material, lenient).map_err(broken)?;
        let client = tls::client(&material).map_err(broken)?;
        let (first, rest) = material.chain.split_first().expect("at least one was read");
        verifier
            .verify_client_cert(first, rest, UnixTime::now())
            .map_err(|error| Error::Refused {
                why: of_own(&certificate, &error),
                path: certificate.clone(),
            })?;
        Ok(Self {
            generation,
            peer: Peer::of_certificate(first)?,
            verifier,
            server: Arc::new(server),
            lenient: Arc::new(lenient),
            client: Arc::new(client),
        })
    }
}

/// What is wrong with our own certificate.
fn of_own(path: &Path, error: &TlsError) -> String {
    let until = || Details::of_file(path).map_or(0, |details| details.not_after);
    match error {
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            let ended = time::OffsetDateTime::from_unix_timestamp(until())
                .map_or_else(|_| "long ago".to_string(), |end| format!("on {}", end.date()));
            format!("it expired {ended}: run `sawmill pki renew` and copy the new files")
        }
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the authority in ca.pem did not sign it: copy both from where it was issued".to_string()
        }
        TlsError::InvalidCertificate(CertificateError::Revoked) => {
            "crl.pem says that it was revoked: have another one issued".to_string()
        }
        other => refusal::why(other),
    }
}

/// Inode, time of change and size of each file: enough to see that one was replaced or rewritten.
fn stamps(dir: &Path) -> Stamps {
    [files::CA, files::CERTIFICATE, files::KEY, files::CRL].map(|name| {
        let found = fs::metadata(dir.join(name)).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    })
}
