//! What the machine asks of its adapter, and what it tells.

use super::rate::Rates;
use crate::{Message, ShardId, ShardMessage, StoreGroup, StoreSeq};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;
use core::time::Duration;
use mqtt_proto::{DecodeError, QoS, ReasonCode, Version};

/// A connection. Never reused: a connection that is gone is known to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl ConnectionId {
    /// A small number that no other open connection has, for tables of the adapter. Numbers of
    /// closed connections are given again.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// A number for it, for a record of what happened.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The connection with this number, in a replay of what was recorded.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        // The lower half, and the upper one.
        #[allow(clippy::cast_possible_truncation, reason = "it is cut in two")]
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// Who is at the other end, as far as the transport knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The address, after PROXY if there is one.
    pub address: Option<SocketAddr>,
    /// The subject of the TLS certificate by which the peer has proved who it is, as text (RFC 4514:
    /// `CN=alice,O=Example`).
    pub tls_identity: Option<String>,
    /// Number of the listener, as the adapter counts them.
    pub listener: u16,
    /// How fast it may send, in the place of [`BrokerConfig::rates`](super::BrokerConfig::rates).
    pub rates: Option<Rates>,
}

/// Why a connection is closed, as the adapter saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The peer ended its stream.
    Eof,
    /// Reading or writing failed.
    Error,
    /// The machine said [`Output::Hangup`].
    Hangup,
}

/// Whether the adapter may go on reading a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a paused connection must not be read until Output::Resume"]
pub enum ReadStatus {
    /// Go on.
    Ready,
    /// Stop until [`Output::Resume`], then call `handle_read` with no bytes and go on.
    Paused,
}

/// A question, for matching its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub(super) u64);

impl QuestionId {
    /// A number for it, for a record of what happened.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The question with this number, in a replay of what was recorded.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// A local subscriber: the program that the broker is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalId(pub(super) u32);

impl LocalId {
    /// A number for it, for a record of what happened.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The subscriber with this number, in a replay of what was recorded.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// A decision that is made outside. Answer with `handle_answer`; in the meantime the connection's
/// later packets wait in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// To be given back with the answer.
    pub id: QuestionId,
    /// About which connection; `None` for a will that fires.
    pub conn: Option<ConnectionId>,
    /// Number of the listener that the client's connection came by.
    pub listener: u16,
    /// Who asks: the client identifier (empty if it is to be assigned).
    pub client_id: String,
    /// Who asks: the user name, once it is known.
    pub user_name: Option<String>,
    /// What is to be decided.
    pub question: Question,
}

/// What is to be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// May this client connect?
    Connect {
        /// The version it speaks.
        version: Version,
        /// The password.
        password: Option<Bytes>,
        /// The other end.
        peer: Peer,
        /// Authentication method and data (5.0).
        authentication: Option<(String, Bytes)>,
    },
    /// The next step of an authentication exchange.
    Authenticate {
        /// The method named in CONNECT [MQTT-4.12.0-5].
        method: String,
        /// The data of this step.
        data: Bytes,
        /// Whether the client is connected and authenticates again.
        again: bool,
    },
    /// May it publish this?
    Publish {
        /// The topic.
        topic: String,
        /// The QoS.
        qos: QoS,
        /// Whether it is to be retained.
        retain: bool,
        /// Length of the payload in bytes.
        payload_len: usize,
    },
    /// May it subscribe to these?
    Subscribe {
        /// Filters (`$share/` included) and the QoS asked for.
        filters: Vec<(String, QoS)>,
    },
    /// May this will be published? Asked when it fires.
    Will {
        /// The topic.
        topic: String,
        /// The QoS.
        qos: QoS,
        /// Whether it is to be retained.
        retain: bool,
    },
}

/// What a connection that may connect is given beyond that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The user name from now on, if it is not the one in CONNECT.
    pub user_name: Option<String>,
    /// A shorter session expiry, in seconds.
    pub session_expiry: Option<u32>,
    /// Another keep alive, in seconds.
    pub keep_alive: Option<u16>,
    /// Authentication data for CONNACK (5.0).
    pub authentication_data: Option<Bytes>,
    /// Number of the table that says what the client may do: see
    /// [`Broker::set_acls`](crate::Broker::set_acls).
    pub acl: u16,
    /// How long the permission to be connected lasts; then the connection is closed (0x87). A client
    /// that authenticates again meanwhile gets what the new answer says.
    pub valid_for: Option<Duration>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Allow,
    /// Yes, with particulars; for CONNECT and authentication.
    Grant(Box<Grant>),
    /// No, and why (5.0 tells the peer).
    Deny(ReasonCode),
    /// The exchange goes on: send this to the client (authentication only).
    Continue(Bytes),
    /// For each filter in order: yes, or why not. What is missing is a no.
    Filters(Vec<Result<(), ReasonCode>>),
}

/// What the adapter is to do. An output that names a connection which is closed is to be ignored.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// The connection has bytes to send: drain its outbox. At most one is queued for a connection.
    Flush(ConnectionId),
    /// Reading may go on, beginning with `handle_read` of no bytes.
    Resume(ConnectionId),
    /// Close the connection, then call `handle_close`.
    Hangup {
        /// Which one.
        conn: ConnectionId,
        /// Write what is in the outbox first.
        after_flush: bool,
    },
    /// Decide.
    Ask(Box<Ask>),
    /// Store this group, then call `handle_stored`.
    Store(StoreSeq, StoreGroup),
    /// Carry this to another shard.
    Shard {
        /// Which one.
        to: ShardId,
        /// What.
        message: Box<ShardMessage>,
    },
    /// Move the connection to another shard.
    Rehome {
        /// Which one.
        conn: ConnectionId,
        /// Where to.
        to: ShardId,
    },
    /// Something worth knowing happened.
    Event(Box<Event>),
}

const _: () = assert!(size_of::<Output>() <= 64);

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The session's queue was full.
    QueueFull,
    /// The broker's message memory was full.
    MemoryFull,
    /// It expired.
    Expired,
    /// It is larger than the client takes [MQTT-3.1.2-25].
    TooLarge,
    /// The client may not read it any more.
    NotAuthorized,
}

/// What a client was denied by its table of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// To publish.
    Publish,
    /// To subscribe.
    Subscribe,
    /// To have its will published.
    Will,
}

/// Something worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A client is connected.
    Connected {
        /// Which connection.
        conn: ConnectionId,
        /// The client identifier, assigned or sent.
        client_id: String,
        /// The user name.
        user_name: Option<String>,
        /// The version.
        version: Version,
        /// Clean Start or Clean Session.
        clean_start: bool,
        /// Keep alive in force, in seconds.
        keep_alive: u16,
        /// Whether a session was resumed.
        session_present: bool,
    },
    /// A CONNECT was refused.
    Refused {
        /// Which connection.
        conn: ConnectionId,
        /// The client identifier, where a CONNECT was understood; empty if it was to be assigned.
        client_id: Option<String>,
        /// Why.
        reason: ReasonCode,
    },
    /// A packet broke a rule; the connection is being closed.
    Malformed {
        /// Which connection.
        conn: ConnectionId,
        /// Which rule and where.
        error: DecodeError,
    },
    /// A connection is gone.
    Disconnected {
        /// Which connection.
        conn: ConnectionId,
        /// The client identifier, if CONNECT was accepted.
        client_id: Option<String>,
        /// Why: Success after a DISCONNECT of the client.
        reason: ReasonCode,
        /// How the adapter saw the connection end, if that was before the machine ended it.
        closed: Option<Closed>,
    },
    /// A client subscribed.
    Subscribed {
        /// The client identifier.
        client_id: String,
        /// The filter.
        filter: String,
        /// The granted QoS.
        qos: QoS,
    },
    /// A client unsubscribed.
    Unsubscribed {
        /// The client identifier.
        client_id: String,
        /// The filter.
        filter: String,
    },
    /// A client wanted what its table of rights does not allow.
    Denied {
        /// The client identifier.
        client_id: String,
        /// The user name.
        user_name: Option<String>,
        /// What it wanted to do.
        what: Denied,
        /// The topic, or the filter as it was sent.
        topic: String,
    },
    /// Messages for a session were dropped. Reported with the first of a row and then at each power
    /// of two.
    Dropped {
        /// The client identifier.
        client_id: String,
        /// Why.
        reason: DropReason,
        /// How many for this session so far.
        count: u64,
    },
    /// A session and all that waited in it are gone.
    SessionEnded {
        /// The client identifier.
        client_id: String,
        /// Messages that were waiting.
        lost: usize,
    },
    /// A message was delivered but not retained: there are too many, or the store does not work.
    NotRetained {
        /// Its topic.
        topic: String,
    },
    /// The store does not work. Nothing that has to be stored is acknowledged or taken on.
    StoreFailed,
    /// Everything is stored again.
    StoreRecovered,
    /// All shards know of this local subscription. Not told where there is one shard, which knows at once.
    InForce {
        /// Which one.
        subscriber: LocalId,
    },
    /// A message for a local subscriber.
    Message {
        /// Whose.
        subscriber: LocalId,
        /// The message.
        message: Message,
    },
    /// A broken invariant closed a session; please report it.
    Internal {
        /// The client identifier.
        client_id: String,
        /// What did not hold.
        what: &'static str,
    },
}
