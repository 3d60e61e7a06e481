//! How a client program ends: what it says, and its exit code, which are those of Mosquitto's.

use mqtt_proto::{ReasonCode, Version};
use mqtt_session::client::Cause;
use mqtt_tokio::client::Error;
use std::process::ExitCode;

/// The wait of `-W` is over.
pub(crate) const TIMED_OUT: u8 = 27;

/// Why a program ends before its work is done.
#[derive(Debug)]
pub(crate) struct Stop {
    message: String,
    code: u8,
}

impl Stop {
    /// A mistake in the options, or anything else without a code of its own.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// What the client says; a refused CONNECT ends the program with the server's code.
    pub(crate) fn client(error: &Error, version: Version) -> Self {
        if let Error::Connect { cause: Cause::Refused(reason), .. } = error {
            let code = return_code(*reason, version);
            return Self::new(format!("Connection refused by the server: {reason}")).with_code(code);
        }
        // The system's own words say most.
        match std::error::Error::source(error) {
            Some(source) => Self::new(format!("{error}: {source}")),
            None => Self::new(error.to_string()),
        }
    }

    /// Tells why, and ends.
    pub(crate) fn exit(&self, quiet: bool) -> ExitCode {
        if !quiet && !self.message.is_empty() {
            eprintln!("Error: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

/// The code as it stood in CONNACK.
fn return_code(reason: ReasonCode, version: Version) -> u8 {
    match reason.to_return_code() {
        Some(code) if !version.is_v5() => code,
        _ => reason.as_u8(),
    }
}
