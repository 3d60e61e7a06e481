//! The client's side.

use super::{MinVersion, TlsError, files, provider_or_error};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a client's TLS is made of. By default the server's certificate is checked against the
/// authorities that the system trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsClient {
    /// The authorities that are believed, in the place of the system's: a PEM file, or a directory of
    /// them.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate and key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
    /// **Believes every server.** Whoever sits between client and server reads and changes everything.
    pub insecure: bool,
    /// The name that the server's certificate has to have, in the place of the one in the address.
    pub server_name: Option<String>,
    /// What is offered as application protocol (ALPN), as `mqtt`. Default: nothing.
    pub alpn: Vec<String>,
    /// The oldest version. Default 1.2.
    pub min_version: MinVersion,
}

impl TlsClient {
    /// Reads all files.
    ///
    /// # Errors
    /// If one cannot be read or they do not fit together; it is named.
    pub fn read(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = provider_or_error()?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.min_version.versions())
            .map_err(|e| TlsError::new(Path::new("TLS"), e.to_string(), "allow other versions"))?;
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Believer(provider)))
        } else {
            let (roots, path) = match &self.ca_file {
                Some(path) => (files::roots(path)?, path.as_path()),
                None => (system()?, Path::new("system")),
            };
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|e| TlsError::new(path, e.to_string(), "name a file with authorities"))?;
            builder.with_webpki_verifier(verifier)
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert_file, key_file)) => builder
                .with_client_auth_cert(files::chain(cert_file)?, files::key(key_file)?)
                .map_err(|e| {
                    let problem = format!("certificate and key cannot be used: {e}");
                    TlsError::new(key_file, problem, "give the key that belongs to the certificate")
                })?,
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        Ok(Arc::new(config))
    }
}

/// What the system trusts.
fn system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // What rustls cannot use it passes over, as every client does.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(TlsError::new(
            Path::new("authorities that the system trusts"),
            why,
            "install them (on Debian: ca-certificates), or name a file",
        ));
    }
    Ok(roots)
}

/// Believes every certificate, and checks only that the server has its key.
#[derive(Debug)]
struct Believer(Arc<CryptoProvider>);

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
