//! What outlives a connection.

use super::message::MessageKey;
use super::output::LocalId;
use super::queue::Queue;
use super::replays::Replays;
use super::router::{GroupKey, SessionKey, SubscriptionIds};
use super::shards::FarReplay;
use crate::Timestamp;
use crate::random::IdMap;
use crate::shared::ledger::Ledger;
use crate::shared::received::Received;
use crate::store::{EntryId, SessionId, StoreSeq, StoredDelivery, StoredReplay};
use alloc::boxed::Box;
use alloc::vec::Vec;
use mqtt_proto::QoS;

/// A message on its way to one session: which, and what differs for this receiver. Packet
/// identifier, alias, DUP and remaining lifetime bind when it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) message: MessageKey,
    /// The group through which it came, if it may go back there. Its place in the store is then one
    /// in the group's queue.
    pub(super) group: Option<GroupKey>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Its place in the store, if it is stored.
    pub(super) entry: Option<EntryId>,
    pub(super) ids: SubscriptionIds,
}

impl Delivery {
    /// The same without what costs memory, which goes with what is returned.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Self {
        let &mut Self { message, group, qos, retain, entry, ref mut ids } = self;
        Self { message, group, qos, retain, entry, ids: core::mem::take(ids) }
    }

    /// What the store keeps of it.
    pub(super) fn to_stored(&self, session: SessionId, entry: EntryId) -> StoredDelivery {
        let subscription_ids = self.ids.as_slice().into();
        StoredDelivery { session, entry, qos: self.qos, retain: self.retain, subscription_ids }
    }
}

/// Retained messages that a new subscription has to get, outside the queue's limit: looked up when
/// the outbox gets to them, and sent as it drains.
#[derive(Debug)]
pub(super) struct Replay {
    /// Also that of the question to other shards, if there is one.
    pub(super) number: u64,
    pub(super) filter: Box<str>,
    /// Which it still has to get: what was retained after the subscription was made comes to it live.
    pub(super) left: StoredReplay,
    /// The store has a record of it.
    pub(super) noted: bool,
    /// The messages of this shard, once they are looked up.
    pub(super) found: Option<Vec<MessageKey>>,
    pub(super) next: usize,
    pub(super) qos: QoS,
    pub(super) ids: SubscriptionIds,
    /// What comes from other shards.
    pub(super) far: Option<Box<FarReplay>>,
}

/// A will and when it is due.
#[derive(Debug)]
pub(super) struct Will {
    pub(super) message: MessageKey,
    pub(super) delay_secs: u32,
}

/// A will that is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct DueWill {
    pub(super) message: MessageKey,
    /// Whose it is, while there is such a session.
    pub(super) publisher: Option<SessionKey>,
    /// The record that goes when it is published, in the same group.
    pub(super) stored: Option<SessionId>,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) client_id: Box<str>,
    pub(super) user_name: Option<Box<str>>,
    /// Number of the table that says what it may do.
    pub(super) acl: u16,
    /// The listener that its latest connection came by.
    pub(super) listener: u16,
    /// The tables changed since it began: what waits was perhaps queued by a right that is gone.
    pub(super) recheck: bool,
    pub(super) id: SessionId,
    /// It has a record in the store.
    pub(super) stored: bool,
    /// The last packet identifier that the store was told.
    pub(super) noted_id: u16,
    /// The connection, while there is one.
    pub(super) link: Option<u32>,
    /// The program that the broker is part of.
    pub(super) local: Option<LocalId>,
    /// How long it outlives a connection, in seconds; `u32::MAX`: for ever.
    pub(super) expiry_secs: u32,
    pub(super) expires: Timestamp,
    pub(super) will: Option<Box<Will>>,
    pub(super) will_due: Timestamp,
    /// The timer that is armed.
    pub(super) armed: Timestamp,
    pub(super) ledger: Ledger<Delivery>,
    pub(super) received: Received,
    /// Stored entries of exchanges that wait for PUBCOMP. Most sessions never have one.
    pub(super) releasing: Option<Box<IdMap<u16, EntryId>>>,
    pub(super) queue: Queue,
    pub(super) queued_bytes: usize,
    /// Nothing in the queue expires before this: a full queue need not be searched for what has.
    pub(super) first_expiry: Timestamp,
    pub(super) replays: Replays,
    /// Its latest operation: what acknowledgements of this session wait for.
    pub(super) after: StoreSeq,
    /// The latest of its publishes that waits to be routed; later ones wait behind it.
    pub(super) barrier: StoreSeq,
    pub(super) dropped: u64,
}

impl Session {
    pub(super) fn new(client_id: &str, id: SessionId) -> Self {
        Self {
            client_id: client_id.into(),
            user_name: None,
            acl: 0,
            listener: 0,
            recheck: false,
            id,
            stored: false,
            noted_id: 0,
            link: None,
            local: None,
            expiry_secs: 0,
            expires: Timestamp::MAX,
            will: None,
            will_due: Timestamp::MAX,
            armed: Timestamp::MAX,
            ledger: Ledger::default(),
            received: Received::default(),
            releasing: None,
            queue: Queue::default(),
            queued_bytes: 0,
            first_expiry: Timestamp::ZERO,
            replays: Replays::default(),
            after: StoreSeq(0),
            barrier: StoreSeq(0),
            dropped: 0,
        }
    }

    /// Whether it outlives its connection.
    pub(super) const fn outlives_link(&self) -> bool {
        self.expiry_secs > 0 && self.local.is_none()
    }

    /// Whether anything waits to be sent.
    pub(super) fn has_work(&mut self) -> bool {
        !self.queue.is_empty()
            || !self.replays.is_empty()
            || !self.ledger.is_empty() && self.ledger.has_next()
    }
}
