//! PEM files.

use super::TlsError;
use rustls::RootCertStore;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|e| {
        TlsError::new(path, format!("cannot open it: {e}"), "correct the name or the rights of the file")
    })
}

fn all<T: PemObject>(path: &Path, what: &str) -> Result<Vec<T>, TlsError> {
    let bytes = read(path)?;
    let found: Result<Vec<T>, Error> = T::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(TlsError::new(path, format!("there is no {what} in it"), "give a PEM file"))
        }
        Ok(found) => Ok(found),
        Err(e) => Err(TlsError::new(path, format!("it is damaged: {e}"), "give a PEM file")),
    }
}

pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    all(path, "certificate")
}

pub(super) fn crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    all(path, "list of revoked certificates (X509 CRL)")
}

pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| match e {
        Error::NoItemsFound if bytes.windows(20).any(|text| text == b"BEGIN ENCRYPTED PRIV") => {
            TlsError::new(
                path,
                "the key is encrypted, and there is nobody to ask for the passphrase",
                "store it without one (openssl pkey -in OLD -out NEW), readable by the broker only",
            )
        }
        Error::NoItemsFound => TlsError::new(path, "there is no private key in it", "give a PEM file"),
        e => TlsError::new(path, format!("it is damaged: {e}"), "give a PEM file"),
    })
}

/// The authorities in a file, or in all files of a directory.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for path in files(path)? {
        for certificate in chain(&path)? {
            roots.add(certificate).map_err(|e| {
                TlsError::new(&path, format!("a certificate in it cannot be trusted: {e}"), "take it out")
            })?;
        }
    }
    Ok(roots)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, TlsError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let fail =
        |e| TlsError::new(path, format!("cannot read the directory: {e}"), "correct the name or the rights");
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(TlsError::new(path, "there is no file in it", "put certificates of authorities there")),
        false => Ok(files),
    }
}
