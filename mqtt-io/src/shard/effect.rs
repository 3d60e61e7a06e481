//! What a shard asks of the adapter, and tells it.

use crate::stack::{Opened, StackError};
#[cfg(doc)]
use crate::{Command, Shard};
use crate::{Sink, Stack};
use mqtt_session::broker::{Ask, ConnectionId, Event, LocalId, Moved};
use mqtt_session::{Message, ShardId, ShardMessage};
use std::net::SocketAddr;

/// Something to be done when nobody borrows the shard.
#[non_exhaustive]
pub enum Effect<W> {
    /// Close the socket, whose connection is gone from the shard. With `linger` the last bytes
    /// written matter: shut down the writing side only, then read and throw away for a short, limited
    /// time, until the peer ends its side. (To close a socket with unread bytes resets the
    /// connection, and the reset destroys the farewell.)
    Close {
        /// The handle of the socket.
        wire: W,
        /// Whether to see the peer off.
        linger: bool,
    },
    /// Wait until the link's socket takes bytes, then call [`Shard::writable`].
    AwaitWritable(ConnectionId),
    /// Ask who decides; bring the answer by [`Command::Answer`].
    Ask(Box<Ask>),
    /// Something happened below MQTT, at this address.
    Transport(TransportEvent, Option<SocketAddr>),
    /// Something worth knowing happened, at this address if it happened on an open connection.
    Event(Box<Event>, Option<SocketAddr>),
    /// Call `sink` with the message; if it is gone, end the subscription by
    /// [`Command::Unsubscribe`].
    Deliver {
        /// The subscription.
        id: LocalId,
        /// Where its messages go.
        sink: Sink,
        /// The message.
        message: Message,
    },
    /// Call it.
    Call(Box<dyn FnOnce() + Send>),
    /// Carry these to another shard, whose [`Shard::letters`] takes them, in their order.
    Letters(ShardId, Vec<ShardMessage>),
    /// Carry this link to another shard, whose [`Shard::arrive`] takes it. Its socket is not read meanwhile.
    Move {
        /// The other shard.
        to: ShardId,
        /// What it has to know.
        link: Box<Travelling>,
        /// The handle of the socket.
        wire: W,
    },
}

/// A link on its way to another shard, without its socket.
pub struct Travelling {
    pub(super) moved: Moved,
    pub(super) stack: Stack,
    pub(super) address: Option<SocketAddr>,
}

/// What happens on a link below MQTT.
#[derive(Debug)]
#[non_exhaustive]
pub enum TransportEvent {
    /// All layers are open.
    Opened(Box<Opened>),
    /// A layer gave up, and the link is closed.
    Failed(StackError),
}

/// Links with layers below MQTT, as they opened and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportStats {
    /// All layers opened.
    pub opened: u64,
    /// No PROXY header came, or a wrong one.
    pub proxy_failed: u64,
    /// TLS did not come about, or was broken.
    pub tls_failed: u64,
    /// WebSocket did not come about, or was broken.
    pub websocket_failed: u64,
}

impl TransportStats {
    pub(super) const fn failed(&mut self, error: &StackError) {
        *match error {
            StackError::Proxy(_) => &mut self.proxy_failed,
            #[cfg(feature = "tls")]
            StackError::Tls(_) => &mut self.tls_failed,
            StackError::WebSocket(_) => &mut self.websocket_failed,
        } += 1;
    }
}

impl std::ops::AddAssign for TransportStats {
    fn add_assign(&mut self, other: Self) {
        let Self { opened, proxy_failed, tls_failed, websocket_failed } = other;
        self.opened += opened;
        self.proxy_failed += proxy_failed;
        self.tls_failed += tls_failed;
        self.websocket_failed += websocket_failed;
    }
}

/// How reading a link goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a paused link must not be read"]
pub enum Reading {
    /// Go on.
    Go,
    /// Stop until the waker that was given wakes.
    Paused,
    /// The connection is closed: end, or, when lingering, throw away what else comes.
    Gone,
}
