//! What is stored of one shard.

use super::super::message::{Held, MessageKey};
use super::super::router::{GroupKey, SessionKey, SubscriptionIds};
use super::super::session::{Delivery, Replay, Session};
use super::super::sys::{Sys, is_own};
use super::super::{Broker, BrokerConfig, ConfigError};
use crate::defects::defect;
use crate::random::IdMap;
use crate::shared::ledger::Stage;
use crate::shared::received::Receipt;
use crate::store::{
    EntryId, MessageId, SessionId, StoredDelivery, StoredLimits, StoredMessage, StoredReplay, StoredSession,
    StoredStage, StoredWill,
};
use crate::{ShardId, StoreOp, Timestamp};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use mqtt_proto::{PacketId, QoS, SubscriptionOptions, TopicFilter, TopicName};

/// Who has a queue in the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    Session(SessionKey),
    Group(GroupKey),
}

/// An exchange whose place among the others is not settled yet.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) session: SessionKey,
    pub(super) number: u64,
    pub(super) packet_id: PacketId,
    pub(super) qos: QoS,
    pub(super) stage: Stage,
    pub(super) entry: EntryId,
    pub(super) delivery: Option<Delivery>,
}

/// Whether a Subscription Identifier can be sent.
const fn is_subscription_id(id: u32) -> bool {
    id != 0 && id < 1 << 28
}

/// The body of a message that other shards refer to as well: here it gets a number of its own. What is retained never does,
/// because its number tells whether a subscription has got it.
#[derive(Debug)]
struct Copied {
    key: MessageKey,
    deliveries: Vec<StoredDelivery>,
}

/// One shard that is being restored.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) broker: Broker,
    pub(super) owners: IdMap<u64, Owner>,
    /// The numbers that the groups of this shard have in the store, by filter. What is in those but the first moves
    /// there: it was handed to other shards.
    pub(super) groups: BTreeMap<String, Vec<SessionId>>,
    moving: BTreeMap<SessionId, Vec<(MessageKey, StoredDelivery)>>,
    pub(super) messages: IdMap<u64, MessageKey>,
    copies: BTreeMap<u64, Copied>,
    /// Who waits for bodies that may be retained, perhaps on another shard.
    retainable: IdMap<u64, Vec<StoredDelivery>>,
    pub(super) exchanges: IdMap<(u64, u64), (PacketId, u64, StoredStage)>,
    pub(super) begun: Vec<Begun>,
    /// Sessions whose subscriptions still have to get retained messages.
    replaying: Vec<SessionKey>,
    /// When sessions lost their connections.
    pub(super) since: Vec<(SessionKey, Option<Timestamp>)>,
    pub(super) wills: Vec<(SessionId, Box<StoredWill>)>,
    /// Sessions that another with the same client identifier replaces.
    pub(super) replaced: Vec<SessionKey>,
    /// Those of whom something is left, but no record.
    pub(super) void: BTreeSet<SessionId>,
    /// Shared filters whose groups have no record.
    pub(super) unkept: BTreeSet<String>,
    pub(super) dropped: usize,
}

impl Part {
    pub(super) fn new(config: BrokerConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            broker: Broker::new(config, Timestamp::ZERO)?,
            owners: IdMap::default(),
            groups: BTreeMap::new(),
            moving: BTreeMap::new(),
            messages: IdMap::default(),
            copies: BTreeMap::new(),
            retainable: IdMap::default(),
            exchanges: IdMap::default(),
            begun: Vec::new(),
            replaying: Vec::new(),
            since: Vec::new(),
            wills: Vec::new(),
            replaced: Vec::new(),
            void: BTreeSet::new(),
            unkept: BTreeSet::new(),
            dropped: 0,
        })
    }

    pub(super) fn packet_id(&mut self, id: SessionId, packet_id: PacketId) -> bool {
        self.with_session(id, |session| session.noted_id = packet_id.get())
    }

    pub(super) fn received(&mut self, id: SessionId, packet_id: PacketId) -> bool {
        self.with_session(id, |session| {
            if !defect!(RestoreForgetsReceived) {
                session.received.set(packet_id, Receipt::Acknowledged);
            }
        })
    }

    pub(super) fn exchange(
        &mut self,
        session: SessionId,
        entry: EntryId,
        exchange: (PacketId, u64, StoredStage),
    ) -> bool {
        self.exchanges.insert((session.0, entry.0), exchange).is_none()
    }

    pub(super) fn will(&mut self, id: SessionId, will: Box<StoredWill>) {
        self.wills.push((id, will));
    }

    pub(super) fn group(&mut self, id: SessionId, filter: String) {
        self.groups.entry(filter).or_default().push(id);
    }

    fn with_session(&mut self, id: SessionId, act: impl FnOnce(&mut Session)) -> bool {
        let Some(key) = self.owner(id) else { return false };
        self.broker.sessions.get_mut(key as usize).map(act).is_some()
    }

    /// The session with this number. What else is stored for one that is not there is void, and goes
    /// in the end.
    fn owner(&mut self, id: SessionId) -> Option<SessionKey> {
        if let Some(Owner::Session(key)) = self.owners.get(&id.0) {
            return Some(*key);
        }
        self.void.insert(id);
        None
    }

    pub(super) fn session(&mut self, id: SessionId, stored: &StoredSession) -> bool {
        let broker = &mut self.broker;
        let mut session = Session::new(&stored.client_id, id);
        session.user_name = stored.user_name.as_deref().map(Into::into);
        session.acl = stored.acl;
        session.expiry_secs = stored.expiry_secs;
        session.stored = true;
        // Which rights it has is known when it is back.
        session.recheck = true;
        let key = SessionKey::try_from(broker.sessions.insert(session)).unwrap_or(SessionKey::MAX);
        self.owners.insert(id.0, Owner::Session(key));
        self.since.push((key, stored.disconnected_at.map(Timestamp::from_micros)));
        let replaced = broker.clients.insert(stored.client_id.as_str().into(), key);
        self.replaced.extend(replaced);
        replaced.is_none()
    }

    pub(super) fn subscription(
        &mut self,
        id: SessionId,
        filter: &str,
        options: SubscriptionOptions,
        subscription_id: Option<u32>,
    ) -> bool {
        let Some(key) = self.owner(id) else { return false };
        let subscription_id = subscription_id.filter(|id| is_subscription_id(*id));
        let broker = &mut self.broker;
        let Ok(parsed) = TopicFilter::new(filter) else {
            broker.journal.op(StoreOp::DeleteSubscription { session: id, filter: filter.into() });
            return false;
        };
        broker.router.subscribe(key, parsed, options, subscription_id);
        if let Some(group) = broker.router.group_of_filter(parsed) {
            self.settle_group(filter, group);
        }
        true
    }

    /// Another shard has members of a group of this one.
    pub(super) fn share(&mut self, filter: &str, with: ShardId) {
        let Ok(parsed) = TopicFilter::new(filter) else { return };
        self.broker.router.add_share(parsed, with);
        if let Some(group) = self.broker.router.group_of_filter(parsed) {
            self.settle_group(filter, group);
        }
    }

    fn settle_group(&mut self, filter: &str, key: GroupKey) {
        let Some(ids) = self.groups.get(filter) else {
            self.unkept.insert(filter.into());
            return;
        };
        for id in ids {
            self.owners.insert(id.0, Owner::Group(key));
        }
        for id in ids.iter().skip(1) {
            self.moving.entry(*id).or_default();
        }
        if let Some(group) = self.broker.router.group_mut(key) {
            group.stored = ids.first().copied();
        }
    }

    pub(super) fn replay(&mut self, id: SessionId, filter: &str, left: StoredReplay) -> bool {
        let Some(key) = self.owner(id) else { return false };
        let subscription =
            TopicFilter::new(filter).ok().and_then(|parsed| self.broker.router.subscription(key, parsed));
        let Some((options, id)) = subscription else {
            self.broker.journal.op(StoreOp::DeleteReplay { session: id, filter: filter.into() });
            return false;
        };
        // The other shards are asked again, for what is left.
        let number = self.broker.next_replay();
        let far = self.broker.new_far_replay(key, number);
        let Some(session) = self.broker.sessions.get_mut(key as usize) else { return false };
        self.replaying.push(key);
        session.replays.push(Replay {
            number,
            filter: filter.into(),
            left,
            noted: true,
            found: None,
            next: 0,
            qos: options.qos,
            ids: SubscriptionIds::new(id),
            far,
        });
        true
    }

    /// Tells replays what comes live from now on.
    pub(super) fn resume_replays(&mut self, last: MessageId, now: &[MessageId]) {
        let mut replaying = core::mem::take(&mut self.replaying);
        replaying.dedup();
        for key in replaying {
            let Some(session) = self.broker.sessions.get_mut(key as usize) else { continue };
            for replay in session.replays.iter_mut() {
                if replay.left.resume(last, now) {
                    self.broker.journal.op(replay.to_stored(session.id));
                }
            }
        }
    }

    pub(super) fn message(&mut self, id: MessageId, stored: &StoredMessage) -> bool {
        let Some(key) = self.broker.messages.restore(stored) else {
            self.broker.journal.op(StoreOp::DeleteMessage(id));
            return false;
        };
        if let Some(held) = self.broker.messages.get_mut(key) {
            held.set_stored(id);
        }
        self.messages.insert(id.0, key);
        true
    }

    /// A message that another shard has as well.
    pub(super) fn copy(&mut self, id: MessageId, stored: &StoredMessage) {
        if let Some(key) = self.broker.messages.restore(stored) {
            self.messages.insert(id.0, key);
            self.copies.insert(id.0, Copied { key, deliveries: Vec::new() });
        }
    }

    /// Another shard has that message from now on, and this one a copy.
    pub(super) fn give_away(&mut self, id: MessageId) {
        let Some(&key) = self.messages.get(&id.0) else { return };
        if let Some(held) = self.broker.messages.get_mut(key) {
            held.forget_stored();
        }
        let deliveries = self.retainable.remove(&id.0).unwrap_or_default();
        self.copies.insert(id.0, Copied { key, deliveries });
    }

    /// This shard has that message from now on, and others copies. False if it has none either.
    pub(super) fn take_back(&mut self, id: MessageId) -> bool {
        let Some(copied) = self.copies.remove(&id.0) else { return false };
        if let Some(held) = self.broker.messages.get_mut(copied.key) {
            held.set_stored(id);
        }
        true
    }

    pub(super) fn entry(&mut self, message: MessageId, delivery: StoredDelivery) {
        if let Some(copied) = self.copies.get_mut(&message.0) {
            copied.deliveries.push(delivery.clone());
        } else if self.broker.shards.is_some() && self.is_retainable(message) {
            self.retainable.entry(message.0).or_default().push(delivery.clone());
        }
        let moving = Some(delivery.clone()).filter(|delivery| self.primary_of(delivery.session).is_some());
        let StoredDelivery { session: id, entry, qos, retain, subscription_ids } = delivery;
        let exchange = self.exchanges.remove(&(id.0, entry.0)).filter(|_| !defect!(RestoreForgetsStage));
        // A record that is not ours: what is of QoS 0 has no exchange.
        let exchange =
            exchange.filter(|(_, _, stage)| qos > QoS::AtMostOnce || *stage == StoredStage::Released);
        let message = self.messages.get(&message.0).copied();
        let mut subscription_ids = subscription_ids.into_vec();
        subscription_ids.retain(|id| is_subscription_id(*id));
        let Some(&owner) = self.owners.get(&id.0) else {
            self.void.insert(id);
            self.dropped += 1;
            return;
        };
        let delivery = message.map(|message| Delivery {
            message,
            group: match owner {
                Owner::Session(_) => None,
                Owner::Group(group) => Some(group),
            },
            qos,
            retain,
            entry: Some(entry),
            ids: SubscriptionIds::from(&*subscription_ids),
        });
        let broker = &mut self.broker;
        let size = message.and_then(|key| broker.messages.get(key)).map_or(0, Held::size);
        match (owner, exchange, delivery) {
            (Owner::Session(session), Some((packet_id, number, StoredStage::Released)), _) => {
                let (stage, qos) = (Stage::Release, QoS::ExactlyOnce);
                self.begun.push(Begun { session, number, packet_id, qos, stage, entry, delivery: None });
            }
            (Owner::Session(session), Some((packet_id, number, StoredStage::Published)), Some(delivery)) => {
                broker.messages.hold(delivery.message);
                let (stage, delivery) = (Stage::Publish, Some(delivery));
                self.begun.push(Begun { session, number, packet_id, qos, stage, entry, delivery });
            }
            (Owner::Session(session), None, Some(delivery)) => {
                if let Some(session) = broker.sessions.get_mut(session as usize) {
                    broker.messages.hold(delivery.message);
                    session.queued_bytes += size;
                    session.queue.push_back(&delivery);
                }
            }
            (Owner::Group(group), _, Some(delivery)) => {
                if let Some(group) = broker.router.group_mut(group) {
                    broker.messages.hold(delivery.message);
                    if let Some(moving) = moving {
                        self.moving.entry(id).or_default().push((delivery.message, moving));
                    }
                    group.queued_bytes += size;
                    group.queue.push_back(&delivery);
                }
                broker.router.set_hungry(group, true);
            }
            (_, _, None) => {
                self.dropped += 1;
                broker.journal.op(StoreOp::RemoveEntry(id, entry));
            }
        }
    }

    fn held(&self, id: MessageId) -> Option<&Held> {
        self.messages.get(&id.0).and_then(|key| self.broker.messages.get(*key))
    }

    fn is_retainable(&self, id: MessageId) -> bool {
        self.held(id).is_some_and(Held::retain)
    }

    pub(super) fn is_retained(&self, id: MessageId) -> bool {
        self.held(id).is_some_and(|held| held.retained_at() != 0)
    }

    /// Under which number a group is stored whose number `id` was on another shard.
    fn primary_of(&self, id: SessionId) -> Option<SessionId> {
        let Some(&Owner::Group(group)) = self.owners.get(&id.0) else { return None };
        self.broker.router.group(group)?.stored.filter(|primary| *primary != id)
    }

    pub(super) fn retained(&mut self, topic: &str, id: MessageId) -> bool {
        let broker = &mut self.broker;
        let is_its_topic = |key: &MessageKey| {
            broker.messages.get(*key).is_some_and(|held| held.topic_str() == topic)
                && TopicName::new(topic).is_ok()
                && !is_own(topic.as_bytes())
        };
        let key = self.messages.get(&id.0).copied().filter(is_its_topic);
        let Some(key) = key else {
            broker.journal.op(StoreOp::DeleteRetained(topic.into()));
            return false;
        };
        broker.messages.hold(key);
        if let Some(old) = broker.router.retain(topic, Some(key)) {
            broker.release_message(old);
        }
        if let Some(held) = broker.messages.get_mut(key) {
            held.set_retained_at(id.0);
        }
        broker.retained_writes = broker.retained_writes.max(id.0);
        true
    }

    /// Time goes on from here, and numbers behind those that were ever given.
    pub(super) fn resume(&mut self, now: Timestamp, limits: StoredLimits) {
        self.broker.now = now;
        self.broker.sys = Sys::new(self.broker.config.sys_interval, now);
        self.broker.journal.restore_limits(limits);
    }

    /// The bodies that another shard has as well.
    pub(super) fn copied(&self) -> impl Iterator<Item = u64> {
        self.copies.keys().copied()
    }

    /// Counts the bodies that nothing refers to, but for those that `is_wanted`.
    pub(super) fn count_orphans(&mut self, is_wanted: impl Fn(u64) -> bool) {
        let messages = &self.broker.messages;
        // Each is held for the restore itself.
        let is_alone = |key: MessageKey| messages.get(key).is_some_and(|held| held.is_held_once());
        let orphans = self.messages.iter().filter(|(id, key)| is_alone(**key) && !is_wanted(**id));
        self.dropped += orphans.count();
    }

    /// Gives a body that other shards have as well a number of its own. The operations are left in the open group. False
    /// if there is no such body any more.
    pub(super) fn settle_copy(&mut self) -> bool {
        let Some((_, Copied { key, deliveries })) = self.copies.pop_first() else { return false };
        let broker = &mut self.broker;
        let Some(id) = broker.messages.store_body(key, &mut broker.journal) else { return true };
        if !deliveries.is_empty() {
            broker.journal.op(StoreOp::Append(id, deliveries));
        }
        true
    }

    /// Moves what was handed to the members of a group on another shard back to the group. As [`Part::settle_copy`].
    pub(super) fn settle_moving(&mut self) -> bool {
        let Some((id, entries)) = self.moving.pop_first() else { return false };
        let Some(primary) = self.primary_of(id) else { return true };
        for (key, delivery) in entries {
            let body = self.broker.messages.get(key).and_then(Held::stored);
            if let Some(body) = body {
                let delivery = StoredDelivery { session: primary, ..delivery };
                self.broker.journal.op(StoreOp::Append(body, [delivery].into()));
            }
        }
        self.broker.journal.op(StoreOp::DeleteGroup(id));
        true
    }

    pub(super) fn sessions(&self) -> usize {
        self.since.len() - self.replaced.len()
    }

    /// Nobody refers to this body.
    pub(super) fn forget_body(&mut self, id: MessageId) {
        self.broker.journal.op(StoreOp::DeleteMessage(id));
        self.dropped += 1;
    }
}
