use crate::Seed;
use core::time::Duration;
use mqtt_proto::{DecodeError, EncodeError, ReasonCode};

/// Settings of a [`ServerConnection`](super::ServerConnection). All limits are finite.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Keys the table of topic aliases, whose topics others choose. Take it from the system.
    pub seed: Seed,
    /// How long a client may take to send CONNECT, and its owner to answer it. Default 10 s.
    pub connect_timeout: Duration,
    /// How long a peer may take nothing of what waits for it. Default 30 s.
    pub write_timeout: Duration,
    /// How long a farewell may take to be written. Default 5 s.
    pub close_timeout: Duration,
    /// The largest CONNECT, and whatever comes before CONNACK, in bytes. Default 64 KiB.
    pub max_connect_size: u32,
    /// The largest other packet of the client, in bytes, unless CONNACK says less. Default 2 MiB.
    pub max_packet_size: u32,
    /// Bytes that wait for the socket at most; beyond it [`ServerConnection::send`](super::ServerConnection::send) refuses. Default
    /// 4 MiB.
    pub max_outbox_bytes: usize,
    /// Topic aliases for the client at most, if it takes any. Default 16.
    pub max_outbound_aliases: u16,
    /// Answer PINGREQ without asking the owner, who sees it all the same. Switch it off to pass it
    /// on. Default true.
    pub answer_pings: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            seed: Seed::default(),
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            max_connect_size: 64 << 10,
            max_packet_size: 2 << 20,
            max_outbox_bytes: 4 << 20,
            max_outbound_aliases: 16,
            answer_pings: true,
        }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// CONNECT is awaited.
    Connecting,
    /// The owner has CONNECT, and is to answer by CONNACK, or by AUTH first. What the client sent behind
    /// it waits.
    Greeted,
    /// CONNACK said yes.
    Live,
    /// There is nothing more to come, in either direction.
    Closing,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// There are bytes to be written: see [`ServerConnection::outbox`](super::ServerConnection::outbox).
    Flush,
    /// Close the socket, after what waits was written or at once; then tell by
    /// [`ServerConnection::handle_close`](super::ServerConnection::handle_close).
    Hangup {
        /// Write first.
        after_flush: bool,
    },
    /// The connection is ending for this reason; nothing more comes from it.
    Closed(Closed),
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// The client sent what is no acceptable packet.
    Malformed(DecodeError),
    /// The client broke a rule, or a limit; this is what it was told, if its version can be told.
    Violation(ReasonCode),
    /// Nothing came in time: no CONNECT, no CONNACK, or no sign of life.
    Timeout,
    /// The client took nothing for too long.
    Stalled,
    /// The socket is closed.
    Socket,
    /// The client sent DISCONNECT.
    ByClient(ReasonCode),
    /// The owner hung up, or refused the client, with this code.
    ByOwner(ReasonCode),
}

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// Its fields break a rule.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A server does not send this packet, or not in this phase, or not in this version.
    #[error(
        "this packet is not the server's to send now: before CONNACK only CONNACK and AUTH, after it no second one"
    )]
    NotNow,
    /// Topic aliases are set by the connection itself; leave the property out.
    #[error("a topic alias is set by the connection itself: leave the property out")]
    TopicAlias,
    /// The client takes no packet of this size [MQTT-3.1.2-24].
    #[error("the packet would be {size} bytes, the client takes {max}")]
    TooLarge {
        /// Size of the packet in bytes.
        size: usize,
        /// What the client takes.
        max: u32,
    },
    /// Too much waits for the socket: try again after some of it was taken.
    #[error("too much waits for the socket already")]
    Full,
    /// The connection is ending.
    #[error("the connection is ending")]
    Closed,
}
