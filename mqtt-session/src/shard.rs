//! The language in which the shards of one broker talk.
//!
//! A broker process is N machines that share nothing, each on a thread of its own. What one has to
//! tell another leaves as `Output::Shard` and enters by `handle_shard`; the adapter carries it, first
//! in, first out for each pair, and loses nothing. With one shard nobody talks.

use crate::Run;
use crate::broker::Stats;
use crate::store::{MessageId, StoredMessage, StoredReplay};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// The most shards that a broker may have.
pub const MAX_SHARDS: u16 = 64;

/// The number of a shard: 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Room for deliveries that a shard grants to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardCredit {
    /// Messages.
    pub messages: u32,
    /// Bytes of their bodies.
    pub bytes: u64,
}

impl Default for ShardCredit {
    fn default() -> Self {
        Self { messages: 4_096, bytes: 8 << 20 }
    }
}

/// What one shard tells another.
///
/// Large bodies are shared, not copied. Times in them are machine time, which is one for all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardMessage {
    /// The sender has (or has no longer) a use for messages that match these filters. In this order.
    Interest(Vec<(String, bool)>),
    /// Tell when you have come to this.
    Sync(u64),
    /// All before that [`ShardMessage::Sync`] is in force here.
    Synced {
        /// Which one.
        sync: u64,
        /// How many retained writes the sender had for each shard by then.
        writes: Vec<u64>,
    },
    /// A message. Uses up credit.
    Deliver {
        /// The message.
        message: StoredMessage,
        /// It matches the receiver's interest.
        deliver: bool,
        /// The receiver owns what is retained under its topic, and this is the sender's retained write
        /// with that number.
        retain: Option<u64>,
        /// What the sender keeps until it hears that the message is safe.
        care: Care,
    },
    /// Messages that match the receiver's interest, and that the sender at most waits for. Use up credit.
    DeliverRun(Run),
    /// The next messages with [`Care`] that the receiver of this had sent are safe with the sender: so many.
    Safe(u32),
    /// Deliveries were handled: their room is free again.
    Credit(ShardCredit),
    /// Which of your retained messages match these filters? Without those that came later than the marks say, because
    /// these come live. Wait until you have as many writes from each shard.
    RetainedAsk {
        /// Questions.
        questions: Vec<RetainedQuestion>,
        /// By origin: the number of its last retained write to you that counts.
        marks: Vec<u64>,
    },
    /// None, to these questions.
    RetainedNone {
        /// Which questions.
        queries: Vec<u64>,
        /// What has a higher number comes live.
        until: MessageId,
    },
    /// More of them.
    RetainedMore {
        /// Which question.
        query: u64,
    },
    /// No more.
    RetainedCancel {
        /// Which question.
        query: u64,
    },
    /// Some of them.
    RetainedPage {
        /// Which question.
        query: u64,
        /// The messages with their numbers, which grow from page to page.
        messages: Vec<(MessageId, StoredMessage)>,
        /// Whether that is not all.
        more: bool,
        /// What has a higher number comes live.
        until: MessageId,
        /// What else does, told once. Only the first of very many.
        except: Vec<MessageId>,
    },
    /// The sender has members of a group that the receiver owns.
    GroupJoin {
        /// The filter, `$share/` included.
        filter: String,
        /// To be told when the group is in force everywhere.
        sync: u64,
        /// One of them has a stored session: what waits for the group has to be stored.
        stored: bool,
    },
    /// The group is in force.
    GroupJoined {
        /// The number in [`ShardMessage::GroupJoin`].
        sync: u64,
    },
    /// The sender has no more members of the group.
    GroupLeave {
        /// The filter.
        filter: String,
    },
    /// So many more messages of the group find a member at once.
    GroupSlots {
        /// The filter.
        filter: String,
        /// How many.
        more: u32,
    },
    /// No member can have one any more.
    GroupClosed {
        /// The filter.
        filter: String,
    },
    /// A message of the group, against a slot.
    GroupDeliver {
        /// The filter.
        filter: String,
        /// The message.
        message: StoredMessage,
        /// The number of its hand-over, if that is stored.
        number: Option<u64>,
        /// By which shards, to be given back with it.
        refused: Refused,
    },
    /// Messages of the group for which no member was there.
    GroupReturn {
        /// The filter.
        filter: String,
        /// In their order, each with the number of its hand-over, if that is stored.
        messages: Vec<(StoredMessage, Option<u64>)>,
        /// By which shards, the sender included. Without it the members have no room.
        refused: Refused,
    },
    /// Something has changed for the members: one may be able to have what came back as passed over.
    GroupAgain {
        /// The filter.
        filter: String,
    },
    /// The sender is shutting down: it reads no client any more, and hands over nothing more but wills. What it has
    /// handed over as stored, and has not heard of, comes after the restart.
    Leaving,
    /// What the sender has of what is limited for all shards together.
    Usage(Usage),
    /// The sender's figures, for `$SYS`.
    Figures(Box<Stats>),
}

/// Which retained messages a subscription gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedQuestion {
    /// The number of the question.
    pub query: u64,
    /// The filter as it was sent.
    pub filter: String,
    /// How far it is is stored. So what is answered has to be stored before.
    pub stored: bool,
    /// The subscription was there before a restart, and these are left to it; marks do not matter then.
    pub left: Option<Box<StoredReplay>>,
}

/// What is limited for all shards together, and how much of it one has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Open connections.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Bytes of messages.
    pub message_bytes: usize,
    /// Bytes kept for connections without an accepted CONNECT.
    pub unauthenticated: usize,
}

/// Which shards sent a message of a group back because of their members' rights, a bit for each. It travels with the
/// message, which otherwise would go round between such shards for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// None of the members may read it.
    pub forbidden: u64,
    /// The members that have room may not read it, but others may.
    pub passed_over: u64,
}

/// How much a shard depends on what becomes of a message on another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Care {
    /// It does not.
    #[default]
    None,
    /// Its publisher gets the acknowledgement when the message is safe there.
    Acknowledged,
    /// It keeps it as a stored hand-over with this number until then. Nobody sees it there before it is taken over.
    HandedOver(u64),
}

impl ShardMessage {
    /// Takes in what is to be said next, if the two can be one message. Otherwise gives it back. For those who carry several
    /// at once.
    pub fn join(&mut self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::DeliverRun(run), Self::DeliverRun(next)) => run.join(next).map(Self::DeliverRun),
            (_, next) => Some(next),
        }
    }

    /// How many deliveries it has, which use up credit.
    #[must_use]
    pub const fn deliveries(&self) -> u32 {
        match self {
            Self::Deliver { .. } => 1,
            Self::DeliverRun(run) => run.messages(),
            _ => 0,
        }
    }

    /// About how many bytes it holds.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Interest(changes) => changes.iter().map(|(filter, _)| filter.len() + 32).sum(),
                Self::Deliver { message, .. } | Self::GroupDeliver { message, .. } => message.body.len(),
                Self::DeliverRun(run) => run.size(),
                Self::RetainedPage { messages, .. } => {
                    messages.iter().map(|(_, message)| message.body.len()).sum()
                }
                Self::GroupReturn { messages, .. } => {
                    messages.iter().map(|(message, _)| message.body.len()).sum()
                }
                Self::RetainedAsk { questions, .. } => {
                    questions.iter().map(|question| question.filter.len() + 48).sum()
                }
                _ => 0,
            }
    }
}
