//! What is read out of certificates.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The subject of a certificate (DER) as text by RFC 4514: `CN=alice,O=Example`. `None` if it is no
/// certificate, or its subject is empty.
#[must_use]
pub fn subject(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let subject = certificate.tbs_certificate().subject().to_string();
    (!subject.is_empty()).then_some(subject)
}

/// When a certificate (DER) ends. `None` if it is no certificate.
#[must_use]
pub fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let since: Duration = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    UNIX_EPOCH.checked_add(since)
}
