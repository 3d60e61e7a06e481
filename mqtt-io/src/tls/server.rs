//! The server's side.

use super::{MinVersion, TlsError, files, not_after, provider_or_error};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// What a server's TLS is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSettings {
    /// The server's certificate, and behind it those of the authorities between it and the root (PEM).
    pub cert_file: PathBuf,
    /// Its private key (PEM, not encrypted).
    pub key_file: PathBuf,
    /// Whether clients are asked for certificates. Default: no.
    pub clients: Option<ClientCertificates>,
    /// The oldest version. Default 1.2.
    pub min_version: MinVersion,
    /// If not empty, only these cipher suites, by the names of IANA or OpenSSL.
    pub ciphers: Vec<String>,
}

/// How clients prove who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCertificates {
    /// The authorities that are believed: a PEM file, or a directory of them.
    pub ca_file: PathBuf,
    /// Whether clients without a certificate are turned away. A certificate that is wrong always is.
    pub required: bool,
    /// Certificates that are not believed any more (PEM). Lists for authorities that are not in the file
    /// are not missed.
    pub crl_file: Option<PathBuf>,
}

impl TlsSettings {
    /// A certificate and its key.
    #[must_use]
    pub fn new(cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        Self { cert_file: cert_file.into(), key_file: key_file.into(), ..Self::default() }
    }

    /// The same, asking clients for certificates.
    #[must_use]
    pub fn asking_clients(
        mut self,
        ca_file: impl Into<PathBuf>,
        required: bool,
        crl_file: Option<PathBuf>,
    ) -> Self {
        self.clients = Some(ClientCertificates { ca_file: ca_file.into(), required, crl_file });
        self
    }

    /// Reads all files.
    ///
    /// # Errors
    /// If one cannot be read or they do not fit together; it is named.
    pub fn read(&self) -> Result<TlsServer, TlsError> {
        let provider = limited(provider_or_error()?, &self.ciphers, self.min_version)?;
        let chain = files::chain(&self.cert_file)?;
        let key = files::key(&self.key_file)?;
        let end = chain.iter().filter_map(|certificate| not_after(certificate)).min();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.min_version.versions())
            .map_err(|e| TlsError::new(&self.cert_file, e.to_string(), "choose other ciphers"))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(clients.verifier(provider)?),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|e| {
            TlsError::new(
                &self.key_file,
                format!("certificate and key cannot be used: {e}"),
                "give the key that belongs to the first certificate in the certificate file",
            )
        })?;
        if let Some(ticketer) = ticketer() {
            config.ticketer = ticketer;
        }
        // What is sent early can be sent again by anybody who saw it.
        config.max_early_data_size = 0;
        Ok(TlsServer { config: Arc::new(config), not_after: end })
    }
}

impl ClientCertificates {
    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
        let roots = Arc::new(files::roots(&self.ca_file)?);
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        if let Some(path) = &self.crl_file {
            // An old list says nothing about who was revoked since.
            builder = builder
                .with_crls(files::crls(path)?)
                .allow_unknown_revocation_status()
                .enforce_revocation_expiration();
        }
        if !self.required {
            builder = builder.allow_unauthenticated();
        }
        let path = self.crl_file.as_ref().unwrap_or(&self.ca_file);
        builder.build().map_err(|e| TlsError::new(path, e.to_string(), "give PEM files of the authorities"))
    }
}

/// Tickets are encrypted by keys that only this configuration has, and that change by themselves: with
/// new settings old tickets are worth nothing.
fn ticketer() -> Option<Arc<dyn rustls::server::ProducesTickets>> {
    #[cfg(feature = "tls-aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::Ticketer::new().ok();
    #[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
    return rustls::crypto::ring::Ticketer::new().ok();
    // Sessions are remembered here then, as many as rustls likes.
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    None
}

/// The same cryptography with these cipher suites only.
fn limited(
    provider: Arc<CryptoProvider>,
    ciphers: &[String],
    min_version: MinVersion,
) -> Result<Arc<CryptoProvider>, TlsError> {
    if ciphers.is_empty() {
        return Ok(provider);
    }
    let fail = |problem: String, remedy| Err(TlsError::new(Path::new("ciphers"), problem, remedy));
    let mut suites = Vec::new();
    for name in ciphers {
        let wanted = plain_name(name);
        let found = provider
            .cipher_suites
            .iter()
            .find(|suite| suite.suite().as_str().is_some_and(|known| plain_name(known) == wanted));
        match found {
            Some(suite) => suites.push(*suite),
            None => {
                return fail(
                    format!("{name:?} is no cipher suite of this program"),
                    "name single suites as TLS_AES_128_GCM_SHA256 or ECDHE-ECDSA-AES128-GCM-SHA256",
                );
            }
        }
    }
    let v13 = suites.iter().any(|suite| suite.tls13().is_some());
    if !v13 && min_version == MinVersion::Tls13 {
        return fail("none of them is of TLS 1.3".to_owned(), "name one of TLS 1.3, or allow TLS 1.2");
    }
    let mut provider = CryptoProvider::clone(&provider);
    provider.cipher_suites = suites;
    Ok(Arc::new(provider))
}

/// The same for `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` and `ECDHE-RSA-AES128-GCM-SHA256`, and for
/// `TLS13_AES_128_GCM_SHA256` and `TLS_AES_128_GCM_SHA256`.
fn plain_name(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("TLS13").or_else(|| name.strip_prefix("TLS")).unwrap_or(&name);
    let name = name.replace("_WITH_", "_");
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    // OpenSSL leaves the hash of these two to the reader.
    match name.strip_suffix("CHACHA20POLY1305") {
        Some(_) => name + "SHA256",
        None => name,
    }
}

/// A server's TLS. Clones are the same.
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    not_after: Option<SystemTime>,
}

impl TlsServer {
    /// Settings of your own making.
    #[must_use]
    pub const fn new(config: Arc<ServerConfig>) -> Self {
        Self { config, not_after: None }
    }

    /// For a connection.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// When the first certificate of the chain ends, as far as it is known.
    #[must_use]
    pub const fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl PartialEq for TlsServer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for TlsServer {}

#[cfg(test)]
mod tests {
    use super::plain_name;

    #[test]
    fn cipher_suites_have_several_names() {
        for (one, other) in [
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
            ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
            ("TLS13_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
        ] {
            assert_eq!(plain_name(one), plain_name(other));
        }
    }
}
