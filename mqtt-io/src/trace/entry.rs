use super::code::{Code, variants};
use bytes::Bytes;
use mqtt_proto::{ReasonCode, SubscriptionOptions};
use mqtt_session::acl::Acl;
use mqtt_session::broker::{Answer, BrokerConfig, Closed, ConnectionId, LocalId, Peer, QuestionId};
use mqtt_session::{Message, StoreOp, StoreSeq, Timestamp};
use std::sync::Arc;

/// What stands in a record.
#[derive(Debug)]
pub(super) enum Entry {
    /// The first record.
    Header(Box<Header>),
    /// What a store had, if the broker was restored.
    Stored(Box<StoreOp>),
    /// That was all that it had; what the wall clock showed then.
    Restored(u64),
    /// Something happened, so many microseconds after what happened before.
    Input(u64, Box<Input>),
    /// Nothing follows; true if something would have, had there been room.
    End(bool),
}

variants! {
    Entry { 0 Header(header), 1 Stored(op), 2 Restored(unix_ms), 3 Input(after, input), 4 End(full), }
    Input {
        0 Accept,
        1 Identified(conn, peer),
        2 Read(conn, bytes),
        3 Close(conn, why),
        4 Timeout,
        5 WallClock(unix_ms),
        6 Stored(through),
        7 StoreFailed(from),
        8 Answer(id, answer),
        9 Publish(message),
        10 Subscribe(filter, options),
        11 Unsubscribe(id),
        12 Disconnect(client_id, reason),
        13 DisconnectUser(user_name, reason),
        14 SetAcls(acls),
        15 Shutdown,
        16 Outbox { conn, max, taken },
        17 RemoveSession(client_id),
        18 RemoveRetained(topic),
        19 Memory(bytes),
    }
}

/// What a trace begins with.
#[derive(Clone, Debug)]
pub struct Header {
    /// The version of the program that wrote it.
    pub program: String,
    /// When it was begun, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Machine time when it was begun; that of a broker that was restored follows from the store.
    pub now: Timestamp,
    /// The broker was restored from a store.
    pub restored: bool,
    /// Payloads are as they were sent.
    pub payloads: bool,
    /// Settings of the machine.
    pub config: BrokerConfig,
}

impl Code for Header {
    fn put(&self, out: &mut Vec<u8>) {
        let Self { program, unix_ms, now, restored, payloads, config } = self;
        program.put(out);
        (*unix_ms, *now).put(out);
        (*restored, *payloads).put(out);
        config.put(out);
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        let program = Code::get(from)?;
        let (unix_ms, now) = Code::get(from)?;
        let (restored, payloads) = Code::get(from)?;
        Some(Self { program, unix_ms, now, restored, payloads, config: Code::get(from)? })
    }
}

/// What happened to a machine: each is a method of [`mqtt_session::Broker`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// A peer connected.
    Accept,
    /// It was known who it is.
    Identified(ConnectionId, Peer),
    /// Bytes arrived.
    Read(ConnectionId, Bytes),
    /// A connection was closed.
    Close(ConnectionId, Closed),
    /// A deadline came.
    Timeout,
    /// The wall clock was told, in milliseconds since 1970.
    WallClock(u64),
    /// The store confirmed.
    Stored(StoreSeq),
    /// The store failed.
    StoreFailed(StoreSeq),
    /// A question was answered.
    Answer(QuestionId, Answer),
    /// The program published.
    Publish(Message),
    /// The program subscribed.
    Subscribe(String, SubscriptionOptions),
    /// A subscription of the program ended.
    Unsubscribe(LocalId),
    /// A client was disconnected.
    Disconnect(String, ReasonCode),
    /// All clients of a user were disconnected.
    DisconnectUser(Option<String>, ReasonCode),
    /// A session was removed.
    RemoveSession(String),
    /// A retained message was removed.
    RemoveRetained(String),
    /// How many bytes of memory the program uses.
    Memory(u64),
    /// Tables of rights were put in place.
    SetAcls(Vec<Arc<Acl>>),
    /// The broker was shut down.
    Shutdown,
    /// An outbox was drained.
    Outbox {
        /// Whose.
        conn: ConnectionId,
        /// How many bytes were asked for.
        max: usize,
        /// How many the socket took; `None` if none were offered to it.
        taken: Option<usize>,
    },
}

impl Input {
    /// The connection that it is about, if it is about one.
    #[must_use]
    pub const fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Identified(conn, _) | Self::Read(conn, _) | Self::Close(conn, _) => Some(*conn),
            Self::Outbox { conn, .. } => Some(*conn),
            _ => None,
        }
    }
}
