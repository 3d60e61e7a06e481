//! What a client tells, and what it hands out.

use crate::store::{StoreGroup, StoreSeq};
use crate::{Message, Timestamp};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use mqtt_proto::{DecodeError, PacketId, PropertiesBuf, QoS, ReasonCode, Violation};

/// What is to be done, in order.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Open a connection to the server, then call `handle_link_up`, or `handle_link_down` if that
    /// fails.
    Dial {
        /// 1 for the first attempt since the last lasting connection.
        attempt: u32,
    },
    /// There may be bytes to send: drain `outbox`.
    Flush,
    /// Send what `outbox` still holds, as far as that is possible without waiting long, close the
    /// connection (or stop dialling), and call `handle_link_down`, all before a later `Dial`.
    HangUp,
    /// Store this group, then call `handle_stored`.
    Store(StoreSeq, StoreGroup),
    /// Something for the application.
    Event(Event),
}

const _: () = assert!(size_of::<Output>() <= 64);

/// Something for the application.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The server accepted the connection.
    Connected(Box<Connected>),
    /// The connection is gone, or did not come about.
    Disconnected(Box<Disconnected>),
    /// A message arrived.
    Message(Box<Received>),
    /// A publish, subscribe or unsubscribe is finished. Comes exactly once for each token, unless the
    /// client is dropped before.
    Done {
        /// What `publish`, `subscribe` or `unsubscribe` returned.
        token: Token,
        /// What became of it.
        outcome: Outcome,
    },
    /// A step of enhanced authentication.
    Auth(Box<AuthStep>),
    /// The server had lost the session, and refused to make this subscription again.
    SubscriptionLost {
        /// The filter.
        filter: String,
        /// Why.
        reason: ReasonCode,
    },
}

/// Names one command until its [`Event::Done`]. With a store it stays the same over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub(super) u64);

impl Token {
    /// The token as a number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// QoS 0: the connection took the bytes.
    Sent,
    /// The server answered a publish. From 0x80 on, `reason` tells that it refused the message.
    Acked {
        /// The server's answer; below 5.0 always success.
        reason: ReasonCode,
        /// The properties of the answer (5.0).
        properties: PropertiesBuf,
    },
    /// The server answered a subscribe or an unsubscribe.
    Granted(Box<Granted>),
    /// The message expired before it was sent.
    Expired,
    /// The server lost the session, and with it knows nothing of the message any more. It may or may
    /// not have been delivered.
    SessionLost,
    /// QoS 0: the connection was lost before it had taken all bytes of the message.
    LinkLost,
    /// The packet would be larger than this server takes [MQTT-3.2.2-15].
    TooLarge {
        /// The size of the packet in bytes.
        size: usize,
        /// What the server takes.
        max: u32,
    },
    /// The server does not support what is asked for: QoS, retain, or a kind of subscription.
    NotSupported(ReasonCode),
    /// A rule of the protocol forbids it.
    Invalid(Violation),
}

/// The server's answer to a subscribe or an unsubscribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// One code for each filter, in order: the granted QoS (or success), or from 0x80 on a refusal.
    /// Below 5.0 the only refusal is 0x80, and an unsubscribe always succeeds.
    pub codes: Vec<ReasonCode>,
    /// The properties of the answer (5.0).
    pub properties: PropertiesBuf,
}

/// A received message.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    /// The message; its topic is complete, also where the server used an alias.
    pub message: Message,
    /// The server may have sent it before.
    pub dup: bool,
    /// To be given to [`Client::ack`](super::Client::ack), if acknowledging is up to the application.
    pub delivery: Option<Delivery>,
}

// Small enough for the allocators' fast paths: there is one for each message.
const _: () = assert!(size_of::<usize>() < 8 || size_of::<Received>() <= 120);

/// The right to acknowledge one message, once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a message whose delivery is dropped stays unacknowledged"]
pub struct Delivery {
    /// QoS 1 ends with the link, QoS 2 with the session.
    pub(super) epoch: u32,
    pub(super) id: PacketId,
    pub(super) qos: QoS,
    /// Place among the acknowledgements of its link.
    pub(super) number: u64,
}

impl Delivery {
    /// The QoS at which the message came.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }
}

/// What the server answered to CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The server went on with the session. If it did not, subscriptions are gone (and are made again
    /// if [`ClientConfig::resubscribe`](super::ClientConfig::resubscribe) says so).
    pub session_present: bool,
    /// The identifier in force, which the server may have assigned.
    pub client_id: String,
    /// What may be asked of this server.
    pub limits: Limits,
    /// All properties of the answer, response information and user properties among them (5.0).
    pub properties: PropertiesBuf,
}

/// What a server supports, and what is in force on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many QoS 1 and 2 messages may be unacknowledged.
    pub in_flight: u16,
    /// The largest packet that the server takes, in bytes.
    pub max_packet_size: u32,
    /// The highest QoS for publishing.
    pub max_qos: QoS,
    /// Whether messages may be retained.
    pub retain: bool,
    /// Whether filters may contain wildcards.
    pub wildcard_subscriptions: bool,
    /// Whether filters may be shared.
    pub shared_subscriptions: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_ids: bool,
    /// How many topic aliases may be used.
    pub topic_aliases: u16,
    /// The keep alive in force, in seconds; 0 is off.
    pub keep_alive_secs: u16,
    /// How long the session outlives the connection, in seconds; `u32::MAX` is for ever.
    pub session_expiry_secs: u32,
}

/// Why a connection ended, and what comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnected {
    /// Why.
    pub cause: Cause,
    /// When the next attempt is due. `None`: the client has stopped, and only `connect` starts it
    /// again.
    pub retry_at: Option<Timestamp>,
    /// The properties of the packet by which the server ended it: reason string, server reference,
    /// user properties (5.0).
    pub properties: PropertiesBuf,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// `disconnect` was called.
    #[error("the application disconnected")]
    Requested,
    /// The server refused in CONNACK.
    #[error("the server refused the connection: {0}")]
    Refused(ReasonCode),
    /// The server sent DISCONNECT.
    #[error("the server disconnected: {0}")]
    ByServer(ReasonCode),
    /// The connection failed, or was closed without a word.
    #[error("{0}")]
    Link(LinkDown),
    /// Dialling and CONNACK together took too long.
    #[error("there was no connection in time")]
    ConnectTimeout,
    /// The server did not answer PINGREQ, and sent nothing else.
    #[error("the server fell silent")]
    PingTimeout,
    /// The server sent what is no packet.
    #[error("the server sent a bad packet: {0}")]
    Malformed(DecodeError),
    /// The server broke a rule.
    #[error("the server broke a rule: {what} ({reason})")]
    Violation {
        /// What it did, and the statement that forbids it.
        what: &'static str,
        /// The code that was sent to it (5.0).
        reason: ReasonCode,
    },
    /// The server has a session that this client does not know [MQTT-3.2.2-4].
    #[error("the server has a session that this client does not know; start clean, or adopt it")]
    UnknownSession,
    /// More received messages wait for their acknowledgement than the settings allow.
    #[error("too many received messages wait for their acknowledgement")]
    TooManyUnacknowledged,
}

/// How a connection failed, as far as the machine has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LinkDown {
    /// It could not be opened.
    #[error("the connection could not be opened")]
    DialFailed,
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// It broke.
    #[error("the connection broke")]
    Failed,
}

/// A step of enhanced authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthStep {
    /// True: the server wants an answer by [`Client::authenticate`](super::Client::authenticate).
    /// False: a re-authentication succeeded.
    pub wants_answer: bool,
    /// The server's data.
    pub data: Option<Bytes>,
    /// All properties of the packet.
    pub properties: PropertiesBuf,
}

/// Why a subscribe or an unsubscribe was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It breaks a rule of the protocol.
    #[error("the request breaks a rule: {}: {}", .0.rule(mqtt_proto::Version::V5).text(),
        .0.rule(mqtt_proto::Version::V5).remedy())]
    Invalid(Violation),
    /// Too many requests are unanswered.
    #[error("too many requests are unanswered: wait for one of them")]
    QueueFull,
    /// The client would have to remember more subscriptions than it may.
    #[error("too many subscriptions: give some back, or raise max_subscriptions")]
    TooManySubscriptions,
    /// The server does not support it.
    #[error("the server does not support it: {0}")]
    NotSupported(ReasonCode),
    /// The packet would be larger than the server takes.
    #[error("the packet would be {size} bytes, the server takes {max}")]
    TooLarge {
        /// The size of the packet in bytes.
        size: usize,
        /// What the server takes.
        max: u32,
    },
    /// `disconnect` was called, or the machine gave up.
    #[error("the client is closed")]
    Closed,
}

/// Why an acknowledgement was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The connection (QoS 1) or the session (QoS 2) of the message is gone: the server will deliver
    /// it again, or has forgotten it.
    #[error("the message belongs to a connection or session that is gone")]
    Stale,
    /// The code does not exist in an acknowledgement.
    #[error("{0} is no code of an acknowledgement")]
    Reason(ReasonCode),
}

/// Why an authentication step was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The settings name no authentication method [MQTT-4.12.0-7].
    #[error("the settings name no authentication method")]
    NoMethod,
    /// The server asked for nothing, or (to re-authenticate) there is no connection.
    #[error("no authentication step is due")]
    NotDue,
    /// The data does not fit into a packet.
    #[error("the data does not fit into a packet")]
    TooLarge,
}
