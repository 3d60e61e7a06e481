//! SCRAM-SHA-256 for clients.

use bytes::Bytes;
use mqtt_access::scram::{Client, ScramError};
use mqtt_tokio::client::{AuthFailed, AuthHandler};

/// Proves to the server that the user knows the password, and has the server prove it as well.
#[derive(Debug)]
pub(crate) struct Scram {
    user: String,
    password: String,
    /// The exchange that is under way.
    client: Client,
}

impl Scram {
    pub(crate) fn new(user: &str, password: &str) -> Result<Self, ScramError> {
        let client = Client::new(user, password)?;
        Ok(Self { user: user.to_owned(), password: password.to_owned(), client })
    }
}

impl AuthHandler for Scram {
    fn start(&mut self) -> Option<Bytes> {
        // Each exchange has a nonce of its own.
        self.client = Client::new(&self.user, &self.password).ok()?;
        Some(self.client.first().into())
    }

    fn answer(&mut self, data: &[u8]) -> Result<Bytes, AuthFailed> {
        self.client.proof(data).map(Bytes::from).map_err(|_| AuthFailed)
    }

    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthFailed> {
        self.client.check(data.unwrap_or_default()).map_err(|_| AuthFailed)
    }
}
