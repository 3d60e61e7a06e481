use mqtt_proto::{ReasonCode, Violation};
use mqtt_session::client::{AuthError, Cause, ConfigError, Outcome, RequestError};
use mqtt_session::{PublishError, PublishErrorKind};
use mqtt_store::StoreError;
use std::io;
use std::sync::Arc;

/// Why something did not work.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the server is none.
    #[error("{0}")]
    Address(&'static str),
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A session that is stored belongs to a client identifier, and there is none.
    #[error("a stored session needs a client identifier")]
    NoClientId,
    /// The store of the session cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The first connection did not come about.
    #[error("cannot connect: {cause}")]
    Connect {
        /// Why.
        cause: Cause,
        /// What the system said, if it was the system.
        #[source]
        io: Option<Arc<io::Error>>,
    },
    /// A message was not taken. It is handed back by [`PublishError::into_message`].
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A subscribe or an unsubscribe was not taken.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// An authentication step was not taken.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The server refused the message or the subscription.
    #[error("the server refused: {0}")]
    Refused(ReasonCode),
    /// The message expired before it was sent.
    #[error("the message expired before it was sent")]
    Expired,
    /// The server lost the session; the message may or may not have been delivered.
    #[error("the server lost the session, and with it what was under way")]
    SessionLost,
    /// QoS 0: the connection was lost before it had taken the message.
    #[error("the connection was lost before it had taken the message")]
    LinkLost,
    /// The packet is larger than the server takes.
    #[error("the packet would be {size} bytes, the server takes {max}")]
    TooLarge {
        /// The size of the packet in bytes.
        size: usize,
        /// What the server takes.
        max: u32,
    },
    /// The server, or the version in use, does not support it.
    #[error("not supported: {0}")]
    NotSupported(ReasonCode),
    /// It breaks a rule of the protocol.
    #[error("it breaks a rule: {}", .0.rule(mqtt_proto::Version::V5).text())]
    Invalid(Violation),
    /// There was no answer in time.
    #[error("there was no answer in time")]
    Timeout,
    /// The client is closed.
    #[error("the client is closed: {0}")]
    Closed(Cause),
}

impl Error {
    /// What an outcome that is no success means.
    pub(super) fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Acked { reason, .. } => Self::Refused(reason),
            Outcome::Expired => Self::Expired,
            Outcome::SessionLost => Self::SessionLost,
            Outcome::TooLarge { size, max } => Self::TooLarge { size, max },
            Outcome::NotSupported(reason) => Self::NotSupported(reason),
            Outcome::Invalid(violation) => Self::Invalid(violation),
            _ => Self::LinkLost,
        }
    }

    /// Whether the queue was full: trying later may work.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Publish(error) => error.kind == PublishErrorKind::QueueFull,
            Self::Request(error) => *error == RequestError::QueueFull,
            _ => false,
        }
    }
}
