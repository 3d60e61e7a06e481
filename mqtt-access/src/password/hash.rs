//! One stored password.

use crate::scram::Credential;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use ctutils::CtEq;
use sha2::{Digest, Sha512};
use std::fmt;
use std::str::FromStr;

/// Padding is written where Mosquitto writes it, and read with and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const UNPADDED: GeneralPurpose = general_purpose::STANDARD_NO_PAD;

/// What Mosquitto 2.1 writes: 46 MiB, one pass, one lane, 64 bytes of salt and of hash.
const ARGON2_MEMORY_KIB: u32 = 47_104;
const ARGON2_BYTES: usize = 64;
/// More memory than a login may cost.
const ARGON2_MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_ITERATIONS: u32 = 10_000_000;
/// What all versions of Mosquitto read.
const SHA512_SALT: usize = 12;
/// OWASP's advice for PBKDF2 with SHA-512.
const PBKDF2_ITERATIONS: u32 = 210_000;

/// How a password is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// `$argon2id$`: slow and hungry for memory, so that a stolen file is worth little. Mosquitto
    /// reads it since 2.1.
    #[default]
    Argon2id,
    /// `$7$`: PBKDF2 with HMAC-SHA-512. Mosquitto reads it since 2.0.
    Sha512Pbkdf2,
    /// `$6$`: one round of SHA-512. Every version of Mosquitto reads it, and so does a thief.
    Sha512,
    /// `SCRAM-SHA-256$`: for clients of MQTT 5.0 that prove that they know the password without
    /// sending it; it can be sent as well. Mosquitto does not read it.
    ScramSha256,
}

impl Method {
    /// The iterations that are used if none are asked for; `None` where they cannot be chosen.
    #[must_use]
    pub const fn default_iterations(self) -> Option<u32> {
        match self {
            Self::Argon2id | Self::Sha512 => None,
            Self::Sha512Pbkdf2 => Some(PBKDF2_ITERATIONS),
            Self::ScramSha256 => Some(crate::scram::DEFAULT_ITERATIONS),
        }
    }
}

/// A password that no longer can be read, only compared with.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Sha512 { salt: Box<[u8]>, hash: Box<[u8]> },
    Pbkdf2 { iterations: u32, salt: Box<[u8]>, hash: Box<[u8]> },
    Argon2id { memory_kib: u32, passes: u32, lanes: u32, salt: Box<[u8]>, hash: Box<[u8]> },
    Scram(Credential),
}

/// Why there is no stored password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// It is none of the known formats: perhaps the password itself.
    #[error("this is no password hash")]
    Unknown,
    /// The format is known, the content is broken.
    #[error("the password hash is damaged")]
    Damaged,
    /// Its cost is out of the range that is accepted.
    #[error("the password hash costs more than is accepted (1 GiB, 10,000,000 iterations), or nothing")]
    Cost,
    /// The password contains characters that SCRAM forbids.
    #[error("the password contains characters that SCRAM does not allow")]
    Prohibited,
    /// The operating system gives no randomness.
    #[error("the system gives no randomness")]
    Randomness,
}

impl PasswordHash {
    /// Stores a password, with a salt of its own. `iterations` means something for
    /// [`Method::Sha512Pbkdf2`] and [`Method::ScramSha256`] only.
    ///
    /// # Errors
    /// If the cost is out of range, or SCRAM forbids a character.
    pub fn new(method: Method, iterations: Option<u32>, password: &[u8]) -> Result<Self, HashError> {
        let iterations = iterations.or(method.default_iterations()).unwrap_or(1);
        if iterations == 0 || iterations > MAX_ITERATIONS {
            return Err(HashError::Cost);
        }
        let kind = match method {
            Method::Argon2id => {
                let salt = random(ARGON2_BYTES)?;
                let hash = vec![0; ARGON2_BYTES].into();
                Kind::Argon2id { memory_kib: ARGON2_MEMORY_KIB, passes: 1, lanes: 1, salt, hash }
            }
            Method::Sha512Pbkdf2 => {
                Kind::Pbkdf2 { iterations, salt: random(SHA512_SALT)?, hash: vec![0; 64].into() }
            }
            Method::Sha512 => Kind::Sha512 { salt: random(SHA512_SALT)?, hash: vec![0; 64].into() },
            Method::ScramSha256 => {
                let password = std::str::from_utf8(password).map_err(|_| HashError::Prohibited)?;
                return Ok(Self(Kind::Scram(Credential::new(password, &random(16)?, iterations)?)));
            }
        };
        Ok(Self(kind.clone().with_hash(kind.derive(password).ok_or(HashError::Cost)?)))
    }

    /// Whether this is the password. Slow: that is the point of it.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kind::Scram(credential) => credential.verify(password),
            kind => kind.derive(password).is_some_and(|derived| derived.ct_eq(kind.hash()).to_bool()),
        }
    }

    /// Something that costs the same to compare with, and that no password fits.
    pub(crate) fn decoy(&self) -> Self {
        match &self.0 {
            Kind::Scram(credential) => Self(Kind::Scram(credential.decoy())),
            kind => Self(kind.clone().with_hash(vec![0; kind.hash().len()].into())),
        }
    }

    /// How it is stored.
    #[must_use]
    pub const fn method(&self) -> Method {
        match &self.0 {
            Kind::Sha512 { .. } => Method::Sha512,
            Kind::Pbkdf2 { .. } => Method::Sha512Pbkdf2,
            Kind::Argon2id { .. } => Method::Argon2id,
            Kind::Scram(_) => Method::ScramSha256,
        }
    }

    /// What SCRAM needs of it.
    pub(crate) const fn scram(&self) -> Option<&Credential> {
        match &self.0 {
            Kind::Scram(credential) => Some(credential),
            _ => None,
        }
    }

    /// Why it should be made anew, if it is weaker than it might be.
    #[must_use]
    pub const fn weakness(&self) -> Option<&'static str> {
        match &self.0 {
            Kind::Sha512 { .. } => Some("one round of SHA-512 is quickly guessed from a stolen file"),
            _ => None,
        }
    }
}

impl Kind {
    fn hash(&self) -> &[u8] {
        match self {
            Self::Sha512 { hash, .. } | Self::Pbkdf2 { hash, .. } | Self::Argon2id { hash, .. } => hash,
            Self::Scram(_) => &[],
        }
    }

    fn with_hash(mut self, new: Box<[u8]>) -> Self {
        match &mut self {
            Self::Sha512 { hash, .. } | Self::Pbkdf2 { hash, .. } | Self::Argon2id { hash, .. } => {
                *hash = new
            }
            Self::Scram(_) => {}
        }
        self
    }

    /// What the hash of `password` would be.
    fn derive(&self, password: &[u8]) -> Option<Box<[u8]>> {
        let mut out = vec![0; self.hash().len()].into_boxed_slice();
        match self {
            Self::Sha512 { salt, .. } => {
                let mut digest = Sha512::new();
                digest.update(password);
                digest.update(salt);
                out = digest.finalize().to_vec().into();
            }
            Self::Pbkdf2 { iterations, salt, .. } => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, *iterations, &mut out);
            }
            Self::Argon2id { memory_kib, passes, lanes, salt, .. } => {
                let params = Params::new(*memory_kib, *passes, *lanes, Some(out.len())).ok()?;
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                argon2.hash_password_into(password, salt, &mut out).ok()?;
            }
            Self::Scram(_) => return None,
        }
        Some(out)
    }
}

fn random(len: usize) -> Result<Box<[u8]>, HashError> {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).map_err(|_| HashError::Randomness)?;
    Ok(bytes.into())
}

impl FromStr for PasswordHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        if let Some(rest) = text.strip_prefix(crate::scram::PREFIX) {
            return rest.parse().map(|credential| Self(Kind::Scram(credential)));
        }
        let mut parts = text.strip_prefix('$').ok_or(HashError::Unknown)?.split('$');
        let mut next = || parts.next().ok_or(HashError::Damaged);
        let bytes =
            |text: &str| BASE64.decode(text).map(Vec::into_boxed_slice).map_err(|_| HashError::Damaged);
        let kind = match next()? {
            "6" => Kind::Sha512 { salt: bytes(next()?)?, hash: bytes(next()?)? },
            "7" => {
                let iterations = next()?.parse().map_err(|_| HashError::Damaged)?;
                if iterations == 0 || iterations > MAX_ITERATIONS {
                    return Err(HashError::Cost);
                }
                Kind::Pbkdf2 { iterations, salt: bytes(next()?)?, hash: bytes(next()?)? }
            }
            "argon2id" => {
                if next()? != "v=19" {
                    return Err(HashError::Damaged);
                }
                let (mut memory_kib, mut passes, mut lanes) = (None, None, None);
                for setting in next()?.split(',') {
                    let (name, value) = setting.split_once('=').ok_or(HashError::Damaged)?;
                    let place = match name {
                        "m" => &mut memory_kib,
                        "t" => &mut passes,
                        "p" => &mut lanes,
                        _ => return Err(HashError::Damaged),
                    };
                    *place = Some(value.parse().map_err(|_| HashError::Damaged)?);
                }
                let (Some(memory_kib), Some(passes), Some(lanes)) = (memory_kib, passes, lanes) else {
                    return Err(HashError::Damaged);
                };
                let (salt, hash) = (bytes(next()?)?, bytes(next()?)?);
                let fits = Params::new(memory_kib, passes, lanes, Some(hash.len())).is_ok();
                if !fits || memory_kib > ARGON2_MAX_MEMORY_KIB || passes > 1000 || salt.len() < 8 {
                    return Err(HashError::Cost);
                }
                Kind::Argon2id { memory_kib, passes, lanes, salt, hash }
            }
            _ => return Err(HashError::Unknown),
        };
        let whole = match &kind {
            Kind::Sha512 { hash, .. } | Kind::Pbkdf2 { hash, .. } => hash.len() == 64,
            _ => true,
        };
        if !whole || parts.next().is_some() {
            return Err(HashError::Damaged);
        }
        Ok(Self(kind))
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Sha512 { salt, hash } => write!(f, "$6${}${}", BASE64.encode(salt), BASE64.encode(hash)),
            Kind::Pbkdf2 { iterations, salt, hash } => {
                write!(f, "$7${iterations}${}${}", BASE64.encode(salt), BASE64.encode(hash))
            }
            Kind::Argon2id { memory_kib, passes, lanes, salt, hash } => write!(
                f,
                "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${}${}",
                UNPADDED.encode(salt),
                UNPADDED.encode(hash)
            ),
            Kind::Scram(credential) => write!(f, "{}{credential}", crate::scram::PREFIX),
        }
    }
}

impl fmt::Debug for PasswordHash {
    /// Says how it is stored, and nothing else: it may end up in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PasswordHash").field(&self.method()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `mosquitto_passwd` 2.0.11.
    const PBKDF2: &str = "$7$101$dA0Yzuhm5Y/c5MYC$HUM9i/r2XN3ah1mzlRvSoUH6iWxPzCQky+sZMM2pRgs+bsHcwpr9wjyJH12DTzF0aE+QU57cVE5S7sV/NJ3D1w==";
    const SHA512: &str = "$6$vCFTMF1RV5fOoGjY$XX58WZ75lbXRTYSuqLcqmHQ+eQNYvC2SjTsn52afJptFsGrgZWviIeIO8pjJ4156eGxyCpoCNstpEmaimqADpQ==";

    #[test]
    fn what_mosquitto_wrote_is_read() {
        for text in [PBKDF2, SHA512] {
            let hash: PasswordHash = text.parse().unwrap();
            assert!(hash.verify(b"secret") && !hash.verify(b"Secret") && !hash.verify(b""));
            assert!(!hash.decoy().verify(b"secret"));
            assert_eq!(hash.to_string(), text);
            assert!(!format!("{hash:?}").contains("dA0Y"));
        }
    }

    /// RFC 9106 has this vector for other settings only; this one is from the reference program:
    /// `echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1 -l 24 -e`.
    #[test]
    fn argon2id_of_others_is_read() {
        let text = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let hash: PasswordHash = text.parse().unwrap();
        assert!(hash.verify(b"password") && !hash.verify(b"passwore"));
        assert_eq!(hash.to_string(), text);
    }

    #[test]
    fn what_is_written_is_read_and_salted() {
        for method in [Method::Argon2id, Method::Sha512Pbkdf2, Method::Sha512, Method::ScramSha256] {
            let iterations = method.default_iterations().map(|_| 4096);
            let [one, two] =
                [(); 2].map(|()| PasswordHash::new(method, iterations, b"p w").unwrap().to_string());
            assert_ne!(one, two);
            let hash: PasswordHash = one.parse().unwrap();
            assert!(hash.verify(b"p w") && !hash.verify(b"p  w"), "{one}");
            assert!(!hash.decoy().verify(b"p w"));
            assert_eq!((hash.to_string(), hash.method()), (one, method));
        }
    }

    #[test]
    fn what_is_damaged_or_too_dear_is_refused() {
        for (text, error) in [
            ("", HashError::Unknown),
            ("secret", HashError::Unknown),
            ("$5$a$b", HashError::Unknown),
            ("$7$101$dA0Yzuhm5Y/c5MYC", HashError::Damaged),
            ("$7$101$dA0Yzuhm5Y/c5MYC$AAAA", HashError::Damaged),
            ("$7$x$dA0Yzuhm5Y/c5MYC$AAAA", HashError::Damaged),
            ("$7$0$dA0Yzuhm5Y/c5MYC$AAAA", HashError::Cost),
            ("$7$4000000000$dA0Yzuhm5Y/c5MYC$AAAA", HashError::Cost),
            (
                "$argon2id$v=19$m=99999999,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                HashError::Cost,
            ),
            ("$argon2id$v=16$m=65536,t=2,p=1$c29tZXNhbHQ$CTFh", HashError::Damaged),
            ("$argon2id$v=19$m=65536,t=2$c29tZXNhbHQ$CTFh", HashError::Damaged),
            ("SCRAM-SHA-256$4096:AAAA$AAAA", HashError::Damaged),
        ] {
            assert_eq!(text.parse::<PasswordHash>(), Err(error), "{text}");
        }
        let whole = format!("{PBKDF2}$");
        assert_eq!(whole.parse::<PasswordHash>(), Err(HashError::Damaged));
    }
}
