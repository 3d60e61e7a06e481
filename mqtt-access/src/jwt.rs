//! JSON Web Tokens in the place of passwords.
//!
//! The keys come from a file, never from the token: which algorithms are accepted is set, and a
//! token that names another is refused, whatever it brings along.

use crate::file::{self, FileError};
use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde_json::{Map, Value};
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a token has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtConfig {
    /// Algorithms that are accepted, by their names in RFC 7518 and RFC 8037: `HS256`, `HS384`,
    /// `HS512`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`.
    /// Those of a key file must fit its key.
    pub algorithms: Vec<String>,
    /// The claim with the user name. Default `sub`.
    pub user_claim: String,
    /// If set, `iss` must be this.
    pub issuer: Option<String>,
    /// If set, `aud` must be or hold this.
    pub audience: Option<String>,
    /// Seconds by which clocks may differ. Default 30.
    pub leeway: u64,
    /// Whether a token must have an end (`exp`). Default true. A client is disconnected when its
    /// token ends.
    pub require_expiry: bool,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            algorithms: Vec::new(),
            user_claim: "sub".to_owned(),
            issuer: None,
            audience: None,
            leeway: 30,
            require_expiry: true,
        }
    }
}

/// Keys and rules by which tokens are judged.
#[derive(Clone)]
pub struct JwtVerifier {
    config: JwtConfig,
    algorithms: Vec<Algorithm>,
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, if it says so.
    only: Option<Algorithm>,
    family: AlgorithmFamily,
    key: DecodingKey,
}

/// Whom a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The user.
    pub user_name: String,
    /// How long the token is good for yet.
    pub valid_for: Option<Duration>,
}

impl std::fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtVerifier").field("config", &self.config).field("keys", &self.keys.len()).finish()
    }
}

impl JwtVerifier {
    /// Takes one key from a file: a public key in PEM for RS, PS, ES and `EdDSA`, or a secret for HS
    /// (all bytes of the file; a line break at its end does not count).
    ///
    /// # Errors
    /// If the file cannot be read, is no such key, or the algorithms do not fit it.
    pub fn from_key_file(path: &Path, config: JwtConfig) -> Result<Self, FileError> {
        let algorithms = algorithms(path, &config)?;
        let fail = |problem: String, remedy: &str| Err(FileError::whole(path, problem, remedy));
        let Some(family) = algorithms.first().map(|first| first.family()) else {
            return fail(
                "no algorithm is set for this key".into(),
                "name those that are accepted in \"algorithms\"",
            );
        };
        if algorithms.iter().any(|other| other.family() != family) {
            return fail(
                "the algorithms need keys of different kinds".into(),
                "name algorithms of one kind, or use a JWKS file",
            );
        }
        let bytes = file::read(path)?;
        let private = bytes.windows(11).any(|window| window == b"PRIVATE KEY");
        let key = match family {
            AlgorithmFamily::Hmac => {
                let secret = trimmed(&bytes);
                if secret.starts_with(b"-----BEGIN") {
                    return fail(
                        "this is a PEM file, and the algorithms want a secret".into(),
                        "name algorithms for public keys, or the file with the secret",
                    );
                }
                if secret.len() < 16 {
                    return fail("a secret of fewer than 16 bytes is guessed".into(), "use a longer one");
                }
                Ok(DecodingKey::from_secret(secret))
            }
            _ if private => {
                return fail("this is a private key".into(), "give the broker the public key only");
            }
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(&bytes),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(&bytes),
            _ => DecodingKey::from_ed_pem(&bytes),
        };
        match key {
            Ok(key) => {
                let keys = vec![Key { id: None, only: None, family, key }];
                Ok(Self { config, algorithms, keys })
            }
            Err(e) => fail(
                format!("this is no public key for {:?}: {e}", config.algorithms),
                "write the public key as PEM",
            ),
        }
    }

    /// Takes keys from a JWK set (RFC 7517). Keys for other purposes are passed over.
    ///
    /// # Errors
    /// If the file cannot be read, is no such set, or holds no key that can be used.
    pub fn from_jwks_file(path: &Path, config: JwtConfig) -> Result<Self, FileError> {
        let algorithms = algorithms(path, &config)?;
        let text = file::read_text(path)?;
        let set: JwkSet = serde_json::from_str(&text).map_err(|e| {
            let line = u32::try_from(e.line()).unwrap_or(u32::MAX);
            FileError::at(
                path,
                line,
                format!("this is no JWK set: {e}"),
                "write {\"keys\": [...]} as in RFC 7517",
            )
        })?;
        let keys: Vec<Key> = set
            .keys
            .iter()
            .filter_map(|jwk| {
                let family = match &jwk.algorithm {
                    AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
                    AlgorithmParameters::EllipticCurve(_) => AlgorithmFamily::Ec,
                    AlgorithmParameters::OctetKeyPair(_) => AlgorithmFamily::Ed,
                    AlgorithmParameters::OctetKey(_) => AlgorithmFamily::Hmac,
                    _ => return None,
                };
                let key = DecodingKey::from_jwk(jwk).ok()?;
                let only = match jwk.common.key_algorithm {
                    // An algorithm that we do not know is not one to guess at.
                    Some(name) => Some(Algorithm::from_str(&name.to_string()).ok()?),
                    None => None,
                };
                Some(Key { id: jwk.common.key_id.clone(), only, family, key })
            })
            .collect();
        if keys.is_empty() {
            return Err(FileError::whole(
                path,
                "there is no key in it that can be used",
                "add a signing key",
            ));
        }
        Ok(Self { config, algorithms, keys })
    }

    /// Whether a password looks like a token, so that it is worth a try.
    #[must_use]
    pub fn is_token(password: &[u8]) -> bool {
        let parts = password.split(|&b| b == b'.').count();
        parts == 3 && password.starts_with(b"ey") && password.is_ascii()
    }

    /// Judges a token. `user_name` is what CONNECT says, if it says something; it must be the
    /// token's.
    #[must_use]
    pub fn verify(&self, token: &[u8], user_name: Option<&str>) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let algorithm = header.alg;
        // Without a list, the keys themselves say what they are for.
        if !self.algorithms.is_empty() && !self.algorithms.contains(&algorithm) {
            return None;
        }
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.config.leeway;
        validation.validate_nbf = true;
        validation.required_spec_claims.clear();
        if self.config.require_expiry {
            validation.required_spec_claims.insert("exp".to_owned());
        }
        match &self.config.issuer {
            Some(issuer) => {
                validation.set_issuer(&[issuer]);
                validation.required_spec_claims.insert("iss".to_owned());
            }
            None => validation.iss = None,
        }
        match &self.config.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        let fits = |key: &&Key| {
            key.family == algorithm.family()
                && key.only.is_none_or(|only| only == algorithm)
                && (key.id.is_none() || header.kid.is_none() || key.id == header.kid)
        };
        let decoded =
            self.keys.iter().filter(fits).find_map(|key| {
                jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation).ok()
            })?;
        let claims = decoded.claims;
        let user = claims.get(&self.config.user_claim)?.as_str().filter(|user| !user.is_empty())?;
        if user_name.is_some_and(|name| !name.is_empty() && name != user) {
            return None;
        }
        let valid_for = match claims.get("exp") {
            Some(end) => {
                let end = Duration::from_secs(end.as_f64().filter(|&end| end >= 0.0)? as u64);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Some((end + Duration::from_secs(self.config.leeway)).saturating_sub(now))
            }
            None => None,
        };
        Some(Claims { user_name: user.to_owned(), valid_for })
    }
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

fn algorithms(path: &Path, config: &JwtConfig) -> Result<Vec<Algorithm>, FileError> {
    let known = |name: &String| {
        Algorithm::from_str(name).map_err(|_| {
            let remedy = "name HS256, RS256, PS256, ES256 (or 384, 512) or EdDSA";
            FileError::whole(path, format!("{name:?} is no algorithm"), remedy)
        })
    };
    config.algorithms.iter().map(known).collect()
}
