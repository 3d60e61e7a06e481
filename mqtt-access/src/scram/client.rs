use super::credential::{client_key, salted, server_key};
use super::{MAX_ITERATIONS, MIN_ITERATIONS, ScramError, attribute, decode, hmac, nonce, sha256, text, xor};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ctutils::CtEq;

/// A client's side of an exchange.
#[derive(Clone)]
pub struct Client {
    password: String,
    nonce: String,
    /// The first message without its header.
    bare: String,
    /// What the server has to answer in the end.
    expected: Option<[u8; 32]>,
}

impl Client {
    /// A client that is about to begin.
    ///
    /// # Errors
    /// If the name or the password has characters that SASLprep forbids.
    pub fn new(user_name: &str, password: &str) -> Result<Self, ScramError> {
        Self::begin_with(user_name, password, nonce()?)
    }

    pub(super) fn begin_with(user_name: &str, password: &str, nonce: String) -> Result<Self, ScramError> {
        let prepare = |text| stringprep::saslprep(text).map_err(|_| ScramError::Prohibited);
        let name = prepare(user_name)?.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={name},r={nonce}");
        Ok(Self { password: prepare(password)?.into_owned(), nonce, bare, expected: None })
    }

    /// The first message.
    #[must_use]
    pub fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.bare).into_bytes()
    }

    /// Answers the server's first message. Slow, as slow as the server's user wanted it.
    ///
    /// # Errors
    /// If the message is malformed, belongs to another exchange, or asks for too little or too much
    /// work.
    pub fn proof(&mut self, server_first: &[u8]) -> Result<Vec<u8>, ScramError> {
        let server_first = text(server_first)?;
        let mut attributes = server_first.split(',');
        let nonce = attribute(&mut attributes, "r")?;
        let salt = STANDARD.decode(attribute(&mut attributes, "s")?).map_err(|_| ScramError::Malformed)?;
        let iterations: u32 = attribute(&mut attributes, "i")?.parse().map_err(|_| ScramError::Malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(ScramError::Iterations);
        }
        let salted = salted(&self.password, &salt, iterations);
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{server_first},{without_proof}", self.bare);
        let key = client_key(&salted);
        let proof = xor(&key, &hmac(&sha256(&key), auth_message.as_bytes()));
        self.expected = Some(hmac(&server_key(&salted), auth_message.as_bytes()));
        Ok(format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes())
    }

    /// Checks the server's last message: that it knows the password as well.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(&self, server_final: &[u8]) -> Result<(), ScramError> {
        let signature: [u8; 32] = decode(attribute(&mut text(server_final)?.split(','), "v")?)?;
        match self.expected {
            Some(expected) if expected.ct_eq(&signature).to_bool() => Ok(()),
            _ => Err(ScramError::Proof),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
