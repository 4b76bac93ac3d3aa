//! What is read of certificates and PEM files, over any bytes: for tests and fuzz targets.

use std::path::Path;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use crate::{Details, Peer, files};

/// A certificate in DER; whether it stands for somebody.
pub fn certificate(bytes: &[u8]) -> bool {
    let certificate = CertificateDer::from(bytes);
    let peer = Peer::of_certificate(&certificate).ok();
    if let Ok(details) = Details::of(&certificate) {
        assert_eq!(details.peer().ok(), peer);
    }
    peer.is_some()
}

/// A PEM file of any kind; whether there is something in it.
pub fn pem(bytes: &[u8]) -> bool {
    let path = Path::new("x.pem");
    let certificates = files::items::<CertificateDer<'_>>(path, bytes, "x").unwrap_or_default();
    let is_read = certificates
        .iter()
        .any(|certificate| Details::of(certificate).is_ok());
    let lists = files::items::<CertificateRevocationListDer<'_>>(path, bytes, "x");
    for list in lists.unwrap_or_default() {
        if let Ok((_, parsed)) = CertificateRevocationList::from_der(&list) {
            assert!(parsed.iter_revoked_certificates().count() <= bytes.len());
        }
    }
    let keys = files::items::<PrivateKeyDer<'_>>(path, bytes, "x");
    is_read || keys.is_ok()
}

/// The first certificate of a PEM file, in DER.
pub fn certificate_of(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_or_else(|_| Vec::new(), |der| der.to_vec())
}
