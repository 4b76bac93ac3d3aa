//! What a certificate says.

use std::{net::IpAddr, path::Path};

use rustls::{crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256, pki_types::CertificateDer};
use serde::Serialize;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{CertificateRevocationList, FromDer as _},
};

use crate::{BadUri, Error, Peer, files};

/// What a certificate says; times in seconds since 1970 UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Details {
    /// Subject, as in `CN=worker node1, O=Sawmill`.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Role, name and rights as a URI; none in the certificate of an authority.
    pub uri: Option<String>,
    /// DNS names and IP addresses under which it may be connected to.
    pub hosts: Vec<String>,
    /// Serial number in hexadecimal digits.
    pub serial: String,
    /// SHA-256 of the certificate in hexadecimal digits.
    pub fingerprint: String,
    /// Valid from.
    pub not_before: i64,
    /// Valid until.
    pub not_after: i64,
    /// Whether it may sign others.
    pub is_authority: bool,
}

impl Details {
    /// Of the first certificate in a PEM file.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`].
    pub fn of_file(path: &Path) -> Result<Self, Error> {
        let certificates = files::certificates(path)?;
        let first = certificates.first().ok_or("it is empty".to_string());
        first.and_then(Self::of).map_err(|why| Error::Content {
            path: path.into(),
            what: "certificate",
            why,
        })
    }

    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        let names = names(&parsed);
        let hosts = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_string()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        });
        Ok(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            uri: Peer::of_names(&names).ok().map(|peer| peer.to_uri()),
            hosts: hosts.collect(),
            serial: hex(parsed.raw_serial()),
            fingerprint: hex(&sha256(certificate)),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            is_authority: parsed.is_ca(),
        })
    }

    /// Whom it stands for.
    ///
    /// # Errors
    /// [`BadUri`].
    pub fn peer(&self) -> Result<Peer, BadUri> {
        Peer::from_uri(self.uri.as_deref().ok_or(BadUri::Count(0))?)
    }

    /// Whether a list of revoked certificates in a PEM file names it; no file names none.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Content`].
    pub fn is_revoked(&self, list: &Path) -> Result<bool, Error> {
        for list_der in files::revoked(list)? {
            let (_, parsed) =
                CertificateRevocationList::from_der(&list_der).map_err(|error| Error::Content {
                    path: list.into(),
                    what: "list of revoked certificates",
                    why: error.to_string(),
                })?;
            let mut revoked = parsed.iter_revoked_certificates();
            if revoked.any(|revoked| hex(revoked.raw_serial()) == self.serial) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Peer {
    /// Whom a certificate stands for. Says nothing about whether to believe it.
    ///
    /// # Errors
    /// [`BadUri`], also for what is no certificate.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, BadUri> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| BadUri::Count(0))?;
        Self::of_names(&names(&parsed))
    }

    fn of_names(names: &[GeneralName<'_>]) -> Result<Self, BadUri> {
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let uris: Vec<&str> = uris.collect();
        match uris.as_slice() {
            [uri] => Self::from_uri(uri),
            _ => Err(BadUri::Count(uris.len())),
        }
    }
}

fn names<'a>(certificate: &'a X509Certificate<'a>) -> Vec<GeneralName<'a>> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    extension.map_or_else(Vec::new, |extension| extension.value.general_names.clone())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256, by the library that does TLS.
pub(crate) fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}
