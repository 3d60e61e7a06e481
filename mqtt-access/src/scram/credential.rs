use super::{hmac, sha256, xor};
use crate::password::HashError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ctutils::CtEq;
use sha2::Sha256;
use std::fmt;
use std::str::FromStr;

/// What a server stores of a password: nobody can read the password from it, nor log in with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub(super) iterations: u32,
    pub(super) salt: Box<[u8]>,
    pub(super) stored_key: [u8; 32],
    pub(super) server_key: [u8; 32],
}

/// What is derived from a password, on both sides. Slow.
pub(super) fn salted(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut out = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut out);
    out
}

pub(super) fn client_key(salted: &[u8; 32]) -> [u8; 32] {
    hmac(salted, b"Client Key")
}

pub(super) fn server_key(salted: &[u8; 32]) -> [u8; 32] {
    hmac(salted, b"Server Key")
}

impl Credential {
    /// Stores a password. Slow.
    ///
    /// # Errors
    /// If the password has characters that SASLprep forbids.
    pub fn new(password: &str, salt: &[u8], iterations: u32) -> Result<Self, HashError> {
        let password = stringprep::saslprep(password).map_err(|_| HashError::Prohibited)?;
        let salted = salted(&password, salt, iterations);
        let (stored_key, server_key) = (sha256(&client_key(&salted)), server_key(&salted));
        Ok(Self { iterations, salt: salt.into(), stored_key, server_key })
    }

    /// Whether this is the password. Slow.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        // What is no text costs the same, and fits nothing.
        let password = std::str::from_utf8(password).ok();
        let prepared = password.and_then(|password| stringprep::saslprep(password).ok());
        let salted = salted(prepared.as_deref().unwrap_or("?"), &self.salt, self.iterations);
        prepared.is_some() & self.proves(&client_key(&salted))
    }

    /// Whether this is the client's key.
    pub(super) fn proves(&self, client_key: &[u8; 32]) -> bool {
        sha256(client_key).ct_eq(&self.stored_key).to_bool()
    }

    /// Whether the client that sent `proof` knows the password.
    pub(super) fn accepts(&self, auth_message: &[u8], proof: &[u8; 32]) -> bool {
        self.proves(&xor(proof, &hmac(&self.stored_key, auth_message)))
    }

    /// The same work, and no password that fits.
    pub(crate) fn decoy(&self) -> Self {
        Self { stored_key: [0; 32], server_key: [0; 32], ..self.clone() }
    }

    /// For a user that does not exist: like that of one who does, and always the same for `number`.
    pub(crate) fn invented(model: Option<&Self>, number: &[u8; 32]) -> Self {
        let len = model.map_or(16, |model| model.salt.len()).min(number.len());
        Self {
            iterations: model.map_or(super::DEFAULT_ITERATIONS, |model| model.iterations),
            salt: number.get(..len).unwrap_or(number).into(),
            stored_key: [0; 32],
            server_key: *number,
        }
    }
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key),
            STANDARD.encode(self.server_key)
        )
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl FromStr for Credential {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let (cost, keys) = text.split_once('$').ok_or(HashError::Damaged)?;
        let (iterations, salt) = cost.split_once(':').ok_or(HashError::Damaged)?;
        let (stored, server) = keys.split_once(':').ok_or(HashError::Damaged)?;
        let iterations: u32 = iterations.parse().map_err(|_| HashError::Damaged)?;
        if iterations == 0 || iterations > super::MAX_ITERATIONS {
            return Err(HashError::Cost);
        }
        let salt = STANDARD.decode(salt).map_err(|_| HashError::Damaged)?.into();
        let key = |text| super::decode(text).map_err(|_| HashError::Damaged);
        Ok(Self { iterations, salt, stored_key: key(stored)?, server_key: key(server)? })
    }
}
