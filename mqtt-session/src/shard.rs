//! The language in which the shards of one broker talk.
//!
//! A broker process is N machines that share nothing, each on a thread of its own. What one has to
//! tell another leaves as `Output::Shard` and enters by `handle_shard`; the adapter carries it, first
//! in, first out for each pair. With one shard nobody talks.

use crate::{Message, StoreSeq};
use alloc::string::String;
use alloc::vec::Vec;

/// The number of a shard: 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Room for deliveries that a shard grants to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardCredit {
    /// Messages.
    pub messages: u32,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// How many retained writes each shard had sent to an owner when a question was asked: the owner
/// answers only after it has applied that many from each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardMark(pub Vec<u64>);

/// The number of a durable hand-over, consecutive for each pair of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandOver(pub u64);

/// What one shard tells another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardMessage {
    /// The sender has (or has no longer) a subscriber of `filter`.
    Interest {
        /// The filter, without `$share/name/`.
        filter: String,
        /// Whether there is one.
        wanted: bool,
        /// Numbers the change, so that it can be confirmed.
        change: u64,
    },
    /// The change of interest is in force here.
    InterestApplied {
        /// Which one.
        change: u64,
    },
    /// A message that matches the receiver's interest.
    Deliver {
        /// The message.
        message: Message,
        /// Its hand-over number, if it has to survive a crash.
        hand_over: Option<HandOver>,
        /// Its number among the retained writes from this shard, if it is retained.
        retained_write: Option<u64>,
    },
    /// The hand-over is stored here up to this number.
    Taken {
        /// The number.
        through: HandOver,
        /// The receiver's group that holds it.
        stored: StoreSeq,
    },
    /// Deliveries were handled: their room is free again.
    Credit(ShardCredit),
}
