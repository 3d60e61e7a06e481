use bytes::Bytes;

/// Carries out an authentication method (5.0). It runs inside the driver, so it must not wait.
pub trait AuthHandler: Send + 'static {
    /// Begins an exchange: the data that goes with CONNECT, each time anew.
    fn start(&mut self) -> Option<Bytes>;

    /// Answers what the server sent.
    ///
    /// # Errors
    /// If the server failed to prove what it had to, or asks for what there is no answer to: the
    /// client then disconnects.
    fn answer(&mut self, data: &[u8]) -> Result<Bytes, AuthFailed>;

    /// The exchange is over, and the server sent this with its success. Nothing by default.
    ///
    /// # Errors
    /// If the server failed to prove what it had to: the client then disconnects.
    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthFailed> {
        let _ = data;
        Ok(())
    }
}

/// An authentication exchange cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authentication exchange cannot go on")]
pub struct AuthFailed;
