//! Settings of TLS, from files.
//!
//! No cryptography is chosen here: what the program installed for its process counts
//! ([`CryptoProvider::install_default`]), then what was built in by a feature (`tls-aws-lc-rs`, then
//! `tls-ring`).

mod certificate;
mod client;
mod files;
mod server;

pub use certificate::{not_after, subject};
pub use client::TlsClient;
pub use rustls;
pub use server::{ClientCertificates, TlsServer, TlsSettings};

use rustls::crypto::CryptoProvider;
use rustls::{SupportedProtocolVersion, version};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why settings of TLS cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}: {remedy}", path.display())]
#[non_exhaustive]
pub struct TlsError {
    /// The file that is wrong; empty if it is none.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

impl TlsError {
    fn new(path: &Path, problem: impl Into<String>, remedy: &'static str) -> Self {
        Self { path: path.to_owned(), problem: problem.into(), remedy }
    }
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MinVersion {
    /// 1.2 and 1.3.
    #[default]
    Tls12,
    /// 1.3 only.
    Tls13,
}

impl MinVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            Self::Tls12 => &BOTH,
            Self::Tls13 => BOTH.split_at(1).0,
        }
    }
}

/// The cryptography of this process, if there is any.
#[must_use]
pub fn provider() -> Option<Arc<CryptoProvider>> {
    let installed = CryptoProvider::get_default().map(Arc::clone);
    #[cfg(feature = "tls-aws-lc-rs")]
    let built_in = Some(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
    let built_in = Some(rustls::crypto::ring::default_provider());
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    let built_in = None;
    installed.or_else(|| built_in.map(Arc::new))
}

fn provider_or_error() -> Result<Arc<CryptoProvider>, TlsError> {
    provider().ok_or_else(|| {
        TlsError::new(
            Path::new("TLS"),
            "there is no cryptography in this program",
            "build it with the feature tls-aws-lc-rs or tls-ring, or install a provider of rustls",
        )
    })
}
