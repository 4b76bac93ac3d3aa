//! An authority that issues certificates for a test.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use api::transport::Security;
use pki::{Authority, Identity, Order, Peer};
use tempfile::TempDir;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An authority and what it has issued.
pub(crate) struct Office {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
}

impl Office {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::create(&dir.path().join("ca"), SystemTime::now()).unwrap();
        Self { dir, authority }
    }

    /// Issues at a time and for as long as said.
    pub(crate) fn order(&self, out: &str, uri: &str, host: &str, at: SystemTime, valid: Duration) -> PathBuf {
        let out = self.dir.path().join(out);
        let order = Order {
            peer: Peer::from_uri(uri).unwrap(),
            hosts: vec![host.to_string()],
            valid,
        };
        self.authority.issue(&order, &out, at).unwrap();
        out
    }

    pub(crate) fn issue(&self, out: &str, uri: &str) -> PathBuf {
        self.order(out, uri, "127.0.0.1", SystemTime::now(), DAY)
    }

    pub(crate) fn tls(&self, out: &str, uri: &str) -> Security {
        Security::Tls(Identity::load(&self.issue(out, uri)).unwrap())
    }
}

/// The beginning of a client that trusts the office's servers.
pub(crate) fn trusting(
    office: &Office,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(office.dir.path().join("ca/ca.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
}
