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

    /// What the client says. Where the server gave a code, the program ends with it.
    pub(crate) fn client(error: &Error, version: Version) -> Self {
        match error {
            Error::Connect { cause, .. } | Error::Closed(cause)
                if matches!(cause, Cause::Refused(_) | Cause::ByServer(_)) =>
            {
                return Self::cause(cause, version);
            }
            Error::Refused(reason) | Error::NotSupported(reason) => {
                return Self::new(error.to_string()).with_code(reason.as_u8());
            }
            _ => {}
        }
        // The system's own words say most.
        match std::error::Error::source(error) {
            Some(source) => Self::new(format!("{error}: {source}")),
            None => Self::new(error.to_string()),
        }
    }

    /// Why there is no connection any more.
    pub(crate) fn cause(cause: &Cause, version: Version) -> Self {
        match cause {
            Cause::Refused(reason) => Self::new(format!("Connection refused by the server: {reason}"))
                .with_code(return_code(*reason, version)),
            Cause::ByServer(reason) => Self::new(cause.to_string()).with_code(reason.as_u8()),
            _ => Self::new(format!("the connection has ended: {cause}")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_code_is_the_programs_code() {
        let refused = Error::Connect { cause: Cause::Refused(ReasonCode::NotAuthorized), io: None };
        assert_eq!(Stop::client(&refused, Version::V311).code, 5);
        assert_eq!(Stop::client(&refused, Version::V5).code, 135);
        let taken_over = Error::Closed(Cause::ByServer(ReasonCode::SessionTakenOver));
        assert_eq!(Stop::client(&taken_over, Version::V5).code, 142);
        assert_eq!(Stop::client(&Error::Refused(ReasonCode::NotAuthorized), Version::V5).code, 135);
        assert_eq!(Stop::client(&Error::Expired, Version::V5).code, 1);
    }
}
