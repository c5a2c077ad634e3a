//! Encryption of a connection, and what is asked of the server's certificate.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use crate::failure::Failure;
use crate::packets::Stream;
use crate::server::{Place, Server, Tls};

/// Encrypts a stream.
pub(super) async fn encrypt(stream: Box<dyn Stream>, server: &Server) -> Result<Box<dyn Stream>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Tls(error.to_string());
    let host = match &server.place {
        Place::Tcp { host, .. } => host.clone(),
        Place::Socket(_) => "localhost".to_owned(),
    };
    let name = ServerName::try_from(host).map_err(|error| failed(&error))?;
    let provider = Arc::new(ring::default_provider());
    let verifier = match server.tls {
        Tls::Disabled | Tls::Preferred | Tls::Required => Verifier { authorities: None, name: false, provider },
        Tls::VerifyCa | Tls::VerifyIdentity => {
            let roots = Arc::new(roots(server).await?);
            let authorities = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            let authorities = Some(authorities.map_err(|error| failed(&error))?);
            Verifier { authorities, name: server.tls == Tls::VerifyIdentity, provider }
        }
    };
    let config = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // Its error is one of input and output, with the reason in it.
    let encrypted = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| failed(&error))?;
    Ok(Box::new(encrypted))
}

async fn roots(server: &Server) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &server.tls_ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let wrong = |why: String| Failure::Tls(format!("`tls-ca`, {}: {why}", path.display()));
    let pem = tokio::fs::read(path).await.map_err(|error| wrong(error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("no certificate is in it".to_owned())) } else { Ok(roots) }
}

/// Accepts what the options ask for. Who has the certificate must have its key in any case.
#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate will do.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// Whether it must name the host.
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        match authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: all else is well.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
