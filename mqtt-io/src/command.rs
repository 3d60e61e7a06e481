use crate::TransportStats;
use mqtt_proto::{EncodeError, ReasonCode, SubscriptionOptions};
use mqtt_session::acl::Acl;
use mqtt_session::broker::{Answer, ConnectionId, LocalId, QuestionId, Stats};
use mqtt_session::{Broker, Message, PublishError, ShardId, StoreSeq, Timestamp};
use std::net::SocketAddr;
use std::sync::Arc;

/// Where the result of a command goes. Called once, on the shard's thread, with the shard released.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// Where the messages of a local subscription go. Called on the shard's thread, with the shard
/// released; must not block.
pub type Sink = Arc<dyn Fn(Message) -> Taken + Send + Sync>;

/// A look at the machine, which changes nothing. On the shard's thread: must be short, and must not block.
pub type Look = Box<dyn FnOnce(&View<'_>) + Send>;

/// A machine and its links, to be looked at.
#[allow(missing_debug_implementations, reason = "it is for a moment")]
pub struct View<'a> {
    /// The machine.
    pub broker: &'a Broker,
    /// Now.
    pub now: Timestamp,
    pub(crate) addresses: &'a dyn Fn(ConnectionId) -> Option<SocketAddr>,
}

impl View<'_> {
    /// Where the peer of a connection is.
    #[must_use]
    pub fn address(&self, conn: ConnectionId) -> Option<SocketAddr> {
        (self.addresses)(conn)
    }
}

/// What became of a message that was given to a [`Sink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was taken, or dropped and counted.
    Yes,
    /// Nobody listens any more: the subscription is to end.
    Gone,
}

/// What other threads want of a shard.
///
/// Dropping a reply unused is how a command fails as a whole: the shard is gone.
#[non_exhaustive]
pub enum Command {
    /// Publish; the reply is the number of deliveries.
    Publish(Message, Reply<Result<usize, PublishError>>),
    /// Subscribe the program itself.
    Subscribe {
        /// The filter.
        filter: String,
        /// Its options.
        options: SubscriptionOptions,
        /// Where messages go.
        sink: Sink,
        /// Which subscription it is.
        reply: Reply<Result<LocalId, EncodeError>>,
    },
    /// End a subscription of the program itself.
    Unsubscribe(LocalId),
    /// Close the connection of a client; the reply tells whether there was one.
    Disconnect(String, ReasonCode, Reply<bool>),
    /// End a session and its connection; the reply tells whether there was one.
    RemoveSession(String, Reply<bool>),
    /// Remove the retained message of a topic; the reply tells whether there was one.
    RemoveRetained(String, Reply<bool>),
    /// Look at the machine.
    Look(Look),
    /// How many bytes of memory the program uses.
    Memory(u64),
    /// Put these tables of rights in place of those that there are.
    SetAcls(Vec<Arc<Acl>>, Reply<()>),
    /// Close the connections of all clients with one of these user names (`None`: without one); the
    /// reply is how many that were.
    DisconnectUsers(Vec<Option<String>>, ReasonCode, Reply<usize>),
    /// The answer to a question.
    Answer(QuestionId, Answer),
    /// The store has everything up to here.
    Stored(StoreSeq),
    /// The store failed at this group.
    StoreFailed(StoreSeq),
    /// The figures.
    Stats(Reply<Stats>),
    /// The figures of what lies below MQTT.
    Transports(Reply<TransportStats>),
    /// Take no new connections, take leave of all clients, and hang up.
    Shutdown,
    /// Another shard is gone.
    ShardLost(ShardId),
    /// Panic in the middle of a turn, to test what happens then.
    #[doc(hidden)]
    Panic,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Publish(..) => "Publish",
            Self::Subscribe { .. } => "Subscribe",
            Self::Unsubscribe(_) => "Unsubscribe",
            Self::Disconnect(..) => "Disconnect",
            Self::RemoveSession(..) => "RemoveSession",
            Self::RemoveRetained(..) => "RemoveRetained",
            Self::Look(_) => "Look",
            Self::Memory(_) => "Memory",
            Self::SetAcls(..) => "SetAcls",
            Self::DisconnectUsers(..) => "DisconnectUsers",
            Self::Answer(..) => "Answer",
            Self::Stored(_) => "Stored",
            Self::StoreFailed(_) => "StoreFailed",
            Self::Stats(_) => "Stats",
            Self::Transports(_) => "Transports",
            Self::Shutdown => "Shutdown",
            Self::ShardLost(_) => "ShardLost",
            Self::Panic => "Panic",
        })
    }
}
