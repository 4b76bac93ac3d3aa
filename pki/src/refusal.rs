//! Why a handshake failed, in words that say what to do.

use std::error::Error as StdError;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Says why a handshake failed: what is wrong with the other side's certificate, or what the other side found wrong with
/// ours.
pub fn why(error: &(dyn StdError + 'static)) -> String {
    match tls(error) {
        Some(Error::InvalidCertificate(found)) => theirs(found),
        Some(Error::AlertReceived(alert)) => ours(*alert),
        Some(Error::NoCertificatesPresented) => {
            "the other side showed no certificate: it needs an identity (`sawmill pki issue`)".to_string()
        }
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the other side does not speak TLS".to_string()
        }
        Some(Error::PeerIncompatible(found)) => incompatible(found),
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

/// Whether it failed because the other side does not speak TLS at all.
pub fn is_plain_text(error: &(dyn StdError + 'static)) -> bool {
    matches!(
        tls(error),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType))
    )
}

/// The TLS error among the causes.
fn tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        cause = inner
            .map(|inner| inner as &(dyn StdError + 'static))
            .or_else(|| error.source());
    }
    None
}

/// What is wrong with their certificate.
pub(crate) fn theirs(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => {
            "its certificate has expired: renew it with `sawmill pki renew`, and compare the clocks"
                .to_string()
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "its certificate is not valid yet: compare the clocks".to_string()
        }
        E::Revoked => "its certificate was revoked".to_string(),
        E::UnknownIssuer | E::BadSignature => {
            "its certificate is from another authority than ours: compare ca.pem on both sides".to_string()
        }
        E::UnknownRevocationStatus => {
            "crl.pem is from another authority, or damaged: copy it again from the authority".to_string()
        }
        E::NotValidForNameContext { expected, presented } => format!(
            "its certificate is for {}, not for {host}: have it issued with --host {host}",
            presented.join(", "),
            host = expected.to_str()
        ),
        E::NotValidForName => "its certificate is for another host: issue it with --host".to_string(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "its certificate is of a role that is not connected to: it must be dispatcher or worker"
                .to_string()
        }
        E::Other(other) => other.0.to_string(),
        other => format!("its certificate is refused: {other}"),
    }
}

/// What they found wrong with ours.
fn ours(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::CertificateExpired => {
            "it refuses our certificate as expired: renew it with `sawmill pki renew`, and compare the clocks"
        }
        A::CertificateRevoked => "it refuses our certificate as revoked: have another one issued",
        A::UnknownCA | A::DecryptError => {
            "it refuses our certificate as from another authority: compare ca.pem on both sides"
        }
        A::CertificateRequired => {
            "it wants a certificate from us: set `identity` to a directory made by `sawmill pki issue`"
        }
        A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate | A::AccessDenied => {
            "it refuses our certificate: its log says why"
        }
        A::ProtocolVersion => "it speaks no TLS 1.3",
        A::NoApplicationProtocol => "it speaks no HTTP/2",
        other => return format!("it ended the handshake with {other:?}: its log says why"),
    }
    .to_string()
}

fn incompatible(found: &PeerIncompatible) -> String {
    match found {
        PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => "the other side speaks no TLS 1.3".to_string(),
        other => format!("the other side is not compatible: {other:?}"),
    }
}
