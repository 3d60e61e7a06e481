//! What lies between a socket's bytes and MQTT's.
//!
//! A stack holds no socket. It is passed what the socket gave, and gives what the machine is to read;
//! it is passed what the machine has to say, and gives what the socket is to write. So the layers
//! (PROXY, TLS, WebSocket) are the same for servers and clients, and for every runtime: an adapter
//! only makes stacks and hands them over.
//!
//! ```text
//! wire -> [PROXY] -> [TLS] -> [WebSocket] -> MQTT
//! wire <------------ [TLS] <- [WebSocket] <- MQTT
//! ```
//!
//! A plain connection is a stack without layers: nothing is copied, and nothing allocated.

#[cfg(not(all(feature = "tls", feature = "websocket")))]
mod absent;
mod error;
mod layers;
mod proxy;
#[cfg(all(test, feature = "broker", feature = "tls", feature = "websocket"))]
mod tests;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "websocket")]
mod ws;

#[cfg(not(feature = "tls"))]
use absent::Tls;
#[cfg(not(feature = "websocket"))]
use absent::WebSocket;
pub use error::{StackError, WebSocketError};
pub(crate) use layers::Layers;
use proxy::Proxy;
#[cfg(feature = "tls")]
use tls::Tls;
#[cfg(feature = "websocket")]
use ws::WebSocket;
#[cfg(feature = "websocket")]
pub use ws::{WebSocketClient, WebSocketServer};

use std::fmt;
use std::net::SocketAddr;

/// The layers of one connection. A plain one has none, occupies nothing but this place and copies
/// nothing.
#[derive(Default)]
pub struct Stack(Option<Box<Layers>>);

impl Stack {
    /// A plain connection: the socket carries MQTT itself.
    #[must_use]
    pub const fn plain() -> Self {
        Self(None)
    }

    /// The same layers behind a PROXY header (version 1 or 2), which has to come first. Whether the
    /// peer is one whose word on addresses counts is the caller's to know.
    #[must_use]
    pub fn behind_proxy(mut self) -> Self {
        self.layers().proxy = Some(Proxy::default());
        self
    }

    /// The server's side of TLS.
    ///
    /// # Errors
    /// If the settings cannot work.
    #[cfg(feature = "tls")]
    pub fn tls_server(mut self, config: std::sync::Arc<rustls::ServerConfig>) -> Result<Self, StackError> {
        self.layers().tls = Some(Tls::server(config)?);
        Ok(self)
    }

    /// The client's side of TLS with the server of this name or address.
    ///
    /// # Errors
    /// If the settings cannot work.
    #[cfg(feature = "tls")]
    pub fn tls_client(
        mut self,
        config: std::sync::Arc<rustls::ClientConfig>,
        server: rustls::pki_types::ServerName<'static>,
    ) -> Result<Self, StackError> {
        let layers = self.layers();
        layers.tls = Some(Tls::client(config, server)?);
        layers.descend();
        Ok(self)
    }

    /// The server's side of WebSocket, above TLS if there is that.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn websocket_server(mut self, settings: std::sync::Arc<WebSocketServer>) -> Self {
        self.layers().ws = Some(WebSocket::server(settings));
        self
    }

    /// The server's side of a WebSocket whose handshake somebody else has answered, with
    /// [`WebSocketServer::answer`]. Messages of more than `max_message` bytes are not taken.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn websocket_accepted(mut self, max_message: u64) -> Self {
        self.layers().ws = Some(WebSocket::accepted(max_message));
        self
    }

    /// The client's side of WebSocket, above TLS if there is that.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn websocket_client(mut self, request: &WebSocketClient) -> Self {
        let layers = self.layers();
        layers.ws = Some(WebSocket::client(request));
        layers.descend();
        self
    }

    fn layers(&mut self) -> &mut Layers {
        self.0.get_or_insert_default()
    }

    /// Whether there are no layers.
    #[inline]
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.0.is_none()
    }

    /// The layers, if there are any.
    #[inline]
    pub(crate) fn layers_mut(&mut self) -> Option<&mut Layers> {
        self.0.as_deref_mut()
    }

    /// The socket gave `wire`. What came of it is told by [`Incoming::next`], piece by piece, until
    /// there is no more.
    #[inline]
    pub(crate) const fn handle_wire<'a>(&'a mut self, wire: &'a [u8]) -> Incoming<'a> {
        Incoming { stack: self, wire }
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(layers) = &self.0 else { return f.write_str("Stack(plain)") };
        f.debug_struct("Stack")
            .field("proxy", &layers.proxy.is_some())
            .field("tls", &layers.tls.is_some())
            .field("websocket", &layers.ws.is_some())
            .finish()
    }
}

/// What arrives through a stack.
#[derive(Debug)]
pub(crate) enum Received<'a> {
    /// Every layer has been opened, and the peer said this of itself. Comes once, before any bytes;
    /// never through a plain stack.
    Open(Box<Opened>),
    /// Bytes of MQTT.
    Bytes(&'a [u8]),
}

/// What is known of a peer once its layers are open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// Where it connected from, as a proxy says.
    pub proxied: Option<SocketAddr>,
    /// What TLS says.
    pub tls: Option<Secured>,
}

/// What is known of a peer by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Secured {
    /// The version, as `TLSv1_3`.
    pub version: String,
    /// The cipher suite, as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The name by which a client addressed the server (SNI).
    pub server_name: Option<String>,
    /// The subject of the certificate by which the peer proved who it is, as text (RFC 4514).
    pub subject: Option<String>,
}

/// What comes of bytes from the socket.
pub(crate) struct Incoming<'a> {
    stack: &'a mut Stack,
    wire: &'a [u8],
}

impl Incoming<'_> {
    /// The next piece.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Received<'_>> {
        if self.stack.0.as_ref().is_some_and(|layers| layers.has_served()) {
            // The last layer went, and from here on the connection is plain.
            self.stack.0 = None;
        }
        match &mut self.stack.0 {
            None if self.wire.is_empty() => None,
            None => Some(Received::Bytes(std::mem::take(&mut self.wire))),
            Some(layers) => layers.next(&mut self.wire),
        }
    }
}

#[cfg(test)]
mod plain {
    use super::*;

    #[test]
    fn a_plain_stack_passes_bytes_through_and_costs_nothing() {
        let mut stack = Stack::plain();
        assert_eq!(size_of::<Stack>(), size_of::<usize>());
        assert!(stack.is_plain() && stack.layers_mut().is_none());
        let bytes = [1, 2, 3];
        let mut plain = stack.handle_wire(&bytes);
        let Some(Received::Bytes(first)) = plain.next() else { panic!("bytes") };
        assert_eq!(first.as_ptr(), bytes.as_ptr(), "nothing was copied");
        assert_eq!(first, [1, 2, 3]);
        assert!(plain.next().is_none());
    }
}
