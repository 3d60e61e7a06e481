//! Why a stack gave up.

/// Why a connection ended below MQTT.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// A proxy was to say first where the client connected from, and did not, or not by the protocol.
    #[error("PROXY protocol: {0}")]
    Proxy(&'static str),
    /// TLS did not come about, or was broken.
    #[cfg(feature = "tls")]
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// WebSocket did not come about, or was broken.
    #[error("WebSocket: {0}")]
    WebSocket(#[from] WebSocketError),
}

/// What was wrong about WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// The peer spoke no HTTP, or broke its rules.
    #[error("no HTTP request that could be a WebSocket handshake: {0}")]
    Http(String),
    /// The request was understood and refused with this status.
    #[error("request refused with status {status}: {why}")]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// Why.
        why: String,
    },
    /// The server answered something else than a WebSocket.
    #[error("the server does not speak MQTT over WebSocket there: {0}")]
    Answer(String),
    /// A frame broke a rule of RFC 6455.
    #[error("protocol error: {0}")]
    Frame(&'static str),
    /// A frame held text: MQTT comes in binary frames only ([MQTT-6.0.0-1]).
    #[error("a text frame, and MQTT comes in binary frames only")]
    Text,
    /// A frame or message is larger than an MQTT packet may be.
    #[error("a message of more than {0} bytes, the largest that is taken")]
    TooLarge(u64),
}

impl WebSocketError {
    /// The code of the close frame that tells it.
    #[cfg(feature = "websocket")]
    pub(super) const fn code(&self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::TooLarge(_) => 1009,
            _ => 1002,
        }
    }
}
