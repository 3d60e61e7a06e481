//! What a machine wants kept, as data: the adapter writes it, and reports when it is safe.
//!
//! State changes leave a machine as groups, `Output::Store(seq, group)`. A group is atomic. Every
//! operation is an absolute put or delete, never a counter, so that replaying one is harmless. What
//! has to wait for a group (an acknowledgement, a QoS 2 message) waits inside the machine until
//! `handle_stored` confirms it.
//!
//! A machine is made from what is stored by [`Broker::restore`](crate::Broker::restore) and
//! [`Client::restore`](crate::Client::restore), which take the puts that are left, in the order that
//! [`Contents::records`] documents. [`Contents`] is all that a store has to know, as a value.

mod clock;
mod contents;
mod replay;

pub use clock::StoredClock;
pub use contents::Contents;
pub use replay::StoredReplay;

use crate::ShardId;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use mqtt_proto::{PacketId, QoS, SubscriptionOptions};

/// The number of a group. Groups are numbered without gaps from 1; confirming one confirms all
/// before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreSeq(pub u64);

impl StoreSeq {
    pub(crate) const fn next(self) -> Self {
        // 2^64 groups are never reached.
        Self(self.0.saturating_add(1))
    }
}

/// How much an acknowledgement means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Nothing is stored; acknowledgements leave at once.
    #[default]
    Off,
    /// Acknowledged means: handed to the operating system, safe from a crash of the program.
    Written,
    /// Acknowledged means: on the disk, safe from a loss of power.
    Synced,
}

/// The number of a stored session. Never used again: a session that is discarded and made anew has
/// another, so that what is left of the old one can be swept later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// The number of a stored message body. Never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// The place of a message in a session's queue. Grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub u64);

/// Operations that take effect together or not at all. Cheap to clone: the machine keeps what it
/// emitted until it is confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreGroup {
    /// In the order in which they are to be applied.
    pub ops: Arc<[StoreOp]>,
}

impl StoreGroup {
    pub(crate) fn new(ops: Vec<StoreOp>) -> Self {
        Self { ops: ops.into() }
    }

    /// About how many bytes the group occupies, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        self.ops.iter().map(StoreOp::size).sum()
    }
}

/// A message as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Topic name, property list without its length, and payload, one behind the other.
    pub body: Bytes,
    /// How many bytes of `body` are the topic.
    pub topic_len: u16,
    /// How many bytes of `body` are properties.
    pub properties_len: u32,
    /// QoS of the publication.
    pub qos: QoS,
    /// Retain flag of the publication.
    pub retain: bool,
    /// When the message expires, in microseconds of machine time.
    pub expires_at: Option<u64>,
    /// Who published it, where that is needed later: a retained message goes with the right to
    /// publish it.
    pub author: Option<Box<StoredAuthor>>,
}

/// Who published a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredAuthor {
    /// The number of the table of rights.
    pub acl: u16,
    /// The client identifier.
    pub client_id: String,
    /// The user name.
    pub user_name: Option<String>,
}

/// How one session is to get a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDelivery {
    /// Whose queue: a session's, or that of a group of shared subscriptions.
    pub session: SessionId,
    /// Where in the queue.
    pub entry: EntryId,
    /// Delivery QoS.
    pub qos: QoS,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub subscription_ids: Box<[u32]>,
}

/// How far a stored exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredStage {
    /// PUBLISH was sent or may have been.
    Published,
    /// PUBREC arrived.
    Released,
}

/// A will as it is stored: with the identity that set it, so that it can be authorised again when it
/// fires. It outlives the record of its session: a session that ends with its connection has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWill {
    /// The message. Its expiry counts from the epoch until it fires.
    pub message: StoredMessage,
    /// Seconds between the loss of the connection and the will.
    pub delay_secs: u32,
    /// Who set it.
    pub author: StoredAuthor,
}

/// A session as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// The client identifier.
    pub client_id: String,
    /// The user that owns it.
    pub user_name: Option<String>,
    /// The number of its table of rights.
    pub acl: u16,
    /// How long it outlives its connection, in seconds; `u32::MAX` means for ever.
    pub expiry_secs: u32,
    /// When it lost its connection, in microseconds of machine time; `None` while it is connected.
    pub disconnected_at: Option<u64>,
}

/// Numbers below which all that were ever given lie. A machine reserves them in blocks, so that none
/// is given twice, whatever was deleted before a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredLimits {
    /// For [`SessionId`].
    pub sessions: u64,
    /// For [`MessageId`].
    pub messages: u64,
    /// For [`EntryId`].
    pub entries: u64,
}

/// How a broker's sessions are spread over its shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredShards {
    /// How many there are.
    pub count: u16,
    /// The secret key by which a client identifier tells its shard.
    pub key: [u8; 16],
}

/// A message that one shard has taken over and that another has to get. The receiver stores the number
/// together with what the message changes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHandOver {
    /// The shard that has it.
    pub from: ShardId,
    /// The shard that is to get it.
    pub to: ShardId,
    /// Its number among those of the two. Grows.
    pub number: u64,
    /// The message.
    pub message: MessageId,
    /// What is to become of it there.
    pub purpose: HandOver,
}

/// What is to become of a message on another shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// It was published.
    Publish {
        /// There are sessions that want it.
        deliver: bool,
        /// What is retained under its topic lives there, and it is to be retained.
        retain: bool,
    },
    /// It is for a member of this group of shared subscriptions.
    Group(String),
    /// It comes back to this group, because no member there can have it.
    Back(String),
}

/// One absolute change. Exhaustive on purpose: a store that does not know an operation must not
/// compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    /// Put how sessions are spread over shards. A store gives this record first.
    PutShards(StoredShards),
    /// Put how far a shard has reserved numbers.
    PutLimits(ShardId, StoredLimits),
    /// Put what the clocks showed.
    PutClock(StoredClock),
    /// Put a session's record.
    PutSession(SessionId, Box<StoredSession>),
    /// Delete a session's record. Everything else of the session, but for its will, is void from then
    /// on: a store sweeps it when it has time, and `restore` ignores it.
    DeleteSession(SessionId),
    /// Put a packet identifier near the last that the session was given.
    PutPacketId(SessionId, PacketId),
    /// Put a group of shared subscriptions: its queue is kept like a session's.
    PutGroup(SessionId, String),
    /// Delete a group. Its queue is void from then on.
    DeleteGroup(SessionId),
    /// Put a subscription.
    PutSubscription {
        /// Whose.
        session: SessionId,
        /// The filter as it was sent.
        filter: String,
        /// Its options.
        options: SubscriptionOptions,
        /// Its identifier.
        id: Option<u32>,
    },
    /// Delete a subscription.
    DeleteSubscription {
        /// Whose.
        session: SessionId,
        /// The filter as it was sent.
        filter: String,
    },
    /// A subscription still has to get retained messages.
    PutReplay {
        /// Whose.
        session: SessionId,
        /// The filter as it was sent.
        filter: String,
        /// Which.
        replay: Box<StoredReplay>,
    },
    /// A subscription has got its retained messages.
    DeleteReplay {
        /// Whose.
        session: SessionId,
        /// The filter as it was sent.
        filter: String,
    },
    /// Put a message body.
    PutMessage(MessageId, Box<StoredMessage>),
    /// Delete a message body that nothing refers to any more.
    DeleteMessage(MessageId),
    /// Append a message to queues.
    Append(MessageId, Vec<StoredDelivery>),
    /// Remove an entry from a queue, with its identifier if it holds one.
    RemoveEntry(SessionId, EntryId),
    /// An entry holds a packet identifier from now on, or has come further.
    PutExchange {
        /// Whose.
        session: SessionId,
        /// The entry.
        entry: EntryId,
        /// Its identifier.
        packet_id: PacketId,
        /// Its place among the session's exchanges, which are sent again in this order.
        number: u64,
        /// How far it is. Once released, the body may be deleted before the entry is.
        stage: StoredStage,
    },
    /// A QoS 2 message with this identifier was taken and is not released.
    PutReceived(SessionId, PacketId),
    /// The identifier was released.
    DeleteReceived(SessionId, PacketId),
    /// The topic's retained message is this one.
    PutRetained(String, MessageId),
    /// The topic has no retained message.
    DeleteRetained(String),
    /// The session has this will.
    PutWill(SessionId, Box<StoredWill>),
    /// The session has no will.
    DeleteWill(SessionId),
    /// Put a message on its way to another shard.
    PutHandOver(Box<StoredHandOver>),
    /// It is there.
    DeleteHandOver {
        /// From this shard.
        from: ShardId,
        /// To this one.
        to: ShardId,
        /// The number.
        number: u64,
    },
    /// Shard `by` has taken over all that `from` had for it up to this number.
    PutTaken {
        /// The receiver.
        by: ShardId,
        /// The sender.
        from: ShardId,
        /// The number.
        number: u64,
    },
    /// Numbers between these shards begin anew.
    DeleteTaken {
        /// The receiver.
        by: ShardId,
        /// The sender.
        from: ShardId,
    },
}

impl StoreOp {
    fn size(&self) -> usize {
        32 + match self {
            Self::PutSession(_, s) => s.client_id.len(),
            Self::PutReplay { filter, replay, .. } => filter.len() + replay.size(),
            Self::PutSubscription { filter, .. }
            | Self::DeleteSubscription { filter, .. }
            | Self::DeleteReplay { filter, .. }
            | Self::PutGroup(_, filter) => filter.len(),
            Self::PutMessage(_, m) => m.body.len(),
            Self::Append(_, deliveries) => deliveries.len() * 32,
            Self::PutRetained(topic, _) | Self::DeleteRetained(topic) => topic.len(),
            Self::PutWill(_, will) => will.message.body.len(),
            Self::PutHandOver(record) => match &record.purpose {
                HandOver::Group(filter) | HandOver::Back(filter) => filter.len(),
                HandOver::Publish { .. } => 0,
            },
            _ => 0,
        }
    }
}
