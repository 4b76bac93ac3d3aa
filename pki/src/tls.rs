//! What TLS is told: version 1.3 only, a certificate from both sides, checked against our authority and what it revoked.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    version::TLS13,
};

use crate::{Peer, Role};

/// What is read from an identity's files.
pub(crate) struct Material {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) revoked: Vec<CertificateRevocationListDer<'static>>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What checks the certificates of clients, and our own.
pub(crate) fn verifier(material: &Material) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    WebPkiClientVerifier::builder_with_provider(material.roots.clone(), provider())
        .with_crls(material.revoked.iter().cloned())
        .build()
}

/// The same, which also lets clients in that show no certificate.
pub(crate) fn lenient(material: &Material) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    WebPkiClientVerifier::builder_with_provider(material.roots.clone(), provider())
        .with_crls(material.revoked.iter().cloned())
        .allow_unauthenticated()
        .build()
}

/// For the side that listens.
pub(crate) fn server(
    material: &Material,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(material.chain.clone(), material.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session is not checked against what was revoked since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For the side that connects.
pub(crate) fn client(material: &Material) -> Result<ClientConfig, Error> {
    let inner = WebPkiServerVerifier::builder_with_provider(material.roots.clone(), provider())
        .with_crls(material.revoked.iter().cloned())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OfServers { inner }))
        .with_client_auth_cert(material.chain.clone(), material.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A server whose certificate is of another role.
#[derive(Debug, thiserror::Error)]
#[error("its certificate is that of {0}: one connects to a dispatcher or a worker only")]
struct WrongRole(Peer);

/// Checks servers as everybody does, and that they are what is connected to: an agent's certificate for some host must not
/// make it a worker.
#[derive(Debug)]
struct OfServers {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.inner
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let refused = |why| Error::InvalidCertificate(CertificateError::Other(OtherError(why)));
        let peer = Peer::of_certificate(end_entity).map_err(|error| refused(Arc::new(error)))?;
        match peer.role {
            Role::Dispatcher | Role::Worker => Ok(verified),
            _ => Err(refused(Arc::new(WrongRole(peer)))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
