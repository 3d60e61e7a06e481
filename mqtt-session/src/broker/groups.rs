//! Groups of shared subscriptions: who gets a message, and what comes back.
//!
//! The queue belongs to the group, and so does a message's place in the store until it is acknowledged,
//! or begun at QoS 2: whoever of the members is lost, the message is not.

use super::message::{Held, MessageKey};
use super::route::Fate;
use super::router::{Group, GroupKey, Member, SessionKey, SubscriptionIds, bit};
use super::session::Delivery;
use super::{Broker, delivery_qos};
use crate::defects::defect;
use crate::store::{EntryId, StoredDelivery};
use crate::{ShardId, StoreOp, Timestamp};
use alloc::boxed::Box;
use alloc::vec::Vec;
use mqtt_proto::{QoS, TopicFilter};

/// Who gets a message of a group.
#[derive(Clone, Copy, Debug)]
pub(super) enum Taker {
    /// A member here.
    Member(Member),
    /// A member of another shard.
    Shard(ShardId),
}

impl Broker {
    /// Gives the group of a shared filter a place in the store, if it has none.
    pub(super) fn store_group(&mut self, filter: TopicFilter<'_>) {
        let Some(key) = self.router.group_of_filter(filter) else { return };
        let Some(group) = self.router.group_mut(key).filter(|group| group.stored.is_none()) else { return };
        let id = self.journal.new_session();
        group.stored = Some(id);
        self.journal.op(StoreOp::PutGroup(id, filter.as_str().into()));
    }

    /// Writes a message into the store behind what waits for the group of a filter, and gives the number
    /// of the entry. `None` without such a group or message.
    pub(super) fn append_to_group(
        &mut self,
        filter: TopicFilter<'_>,
        message: MessageKey,
    ) -> Option<EntryId> {
        self.store_group(filter);
        let session = self.router.group(self.router.group_of_filter(filter)?)?.stored?;
        let held = self.messages.get(message)?;
        let (qos, retain) = (held.qos, held.retain());
        let body = self.messages.store_body(message, &mut self.journal)?;
        let entry = self.journal.new_entry();
        let delivery = StoredDelivery { session, entry, qos, retain, subscription_ids: Box::default() };
        self.journal.op(StoreOp::Append(body, [delivery].into()));
        Some(entry)
    }

    /// A session is about to leave the group of a filter. What it was given and has not begun goes to
    /// the others; what it has begun it goes on with ([MQTT-3.10.4-3]), on its own account.
    pub(super) fn leave_group(&mut self, key: SessionKey, filter: TopicFilter<'_>) {
        let Some(group) = self.router.group_of_filter(filter) else { return };
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if !self.router.is_member(key, group) {
            return;
        }
        let stored = self.router.group(group).and_then(|group| group.stored);
        if self.router.group(group).is_some_and(Group::has_others) {
            let shared = session.queue.extract(|delivery| delivery.group == Some(group));
            for delivery in shared.into_iter().rev() {
                let size = self.messages.get(delivery.message).map_or(0, Held::size);
                if let Some(session) = self.sessions.get_mut(key as usize) {
                    // Never below zero: the same size was added when it was queued.
                    session.queued_bytes = session.queued_bytes.saturating_sub(size);
                }
                self.give_back(key, group, delivery);
            }
        }
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        let (id, is_stored) = (session.id, session.stored);
        let mut keep = |delivery: &mut Delivery| {
            if delivery.group.take_if(|its| *its == group).is_none() {
                return;
            }
            let Some(entry) = delivery.entry.take() else { return };
            if let Some(stored) = stored {
                self.journal.op(StoreOp::RemoveEntry(stored, entry));
            }
            let body = self.messages.get(delivery.message).and_then(Held::stored);
            if let Some(body) = body.filter(|_| is_stored) {
                let entry = self.journal.new_entry();
                self.journal.op(StoreOp::Append(body, [delivery.to_stored(id, entry)].into()));
                delivery.entry = Some(entry);
            }
        };
        session.ledger.messages_mut().for_each(&mut keep);
        session.queue.update(keep);
    }

    /// Puts a delivery at the head of the group's queue, for another member, who gets it when the group is pumped. What
    /// nobody waits for ends.
    fn give_back(&mut self, key: SessionKey, group: GroupKey, mut delivery: Delivery) {
        if let Some(held) = self.messages.get(delivery.message)
            && let Some(group) = self.router.group_mut(group)
            && held.qos > QoS::AtMostOnce
        {
            (delivery.qos, delivery.retain) = (held.qos, held.retain());
            group.queued_bytes += held.size();
            group.queue.push_front(&delivery);
        } else {
            self.discard(key, delivery, false);
        }
    }

    /// The member whose turn it is among those that can take a message now, and its place. Members
    /// without a connection do not count.
    fn ready_member(&self, group: &Group, message: MessageKey, qos: QoS) -> Option<(usize, Member)> {
        let topic = self.messages.get(message)?.topic_str();
        let members = &group.members;
        let turn = group.turn % members.len().max(1);
        (turn..members.len()).chain(0..turn).find_map(|at| {
            let member = members.get(at)?;
            let session = self.sessions.get(member.session as usize)?;
            if !self.acls.may_read(session, topic) {
                return None;
            }
            if session.local.is_none() {
                let connection = self.connections.get(session.link?)?;
                let busy = session.queue.len() + session.ledger.len();
                let slots = match delivery_qos(qos, member.options.qos) {
                    QoS::AtMostOnce => self.config.max_queued_messages as usize,
                    _ => usize::from(connection.window.max()),
                };
                if busy >= slots {
                    return None;
                }
            }
            Some((at, *member))
        })
    }

    /// Whether a member here can take a message now.
    pub(super) fn has_ready_member(&self, key: GroupKey, message: MessageKey) -> bool {
        let (Some(group), Some(held)) = (self.router.group(key), self.messages.get(message)) else {
            return false;
        };
        self.ready_member(group, message, held.qos).is_some()
    }

    /// As [`Broker::ready_member`], and moves the turn on. Other shards that have members with room come after
    /// those here.
    fn choose_member(&mut self, key: GroupKey, message: MessageKey, qos: QoS) -> Option<Taker> {
        let group = self.router.group(key)?;
        let members = group.members.len();
        let here = self.ready_member(group, message, qos).map(|(at, member)| (at, Taker::Member(member)));
        let there = (!group.shares.is_empty()).then(|| self.ready_share(key, message)).flatten();
        let there = there.map(|(at, shard)| (members + at, Taker::Shard(shard)));
        let turn = group.turn % (members + group.shares.len()).max(1);
        let (at, taker) = match (here, there) {
            // Whoever comes first from the turn on.
            (Some(here), Some(there)) if (here.0 < turn) == (there.0 < turn) => here,
            (Some(here), Some(there)) => {
                if there.0 >= turn {
                    there
                } else {
                    here
                }
            }
            (here, there) => here.or(there)?,
        };
        if let Some(group) = self.router.group_mut(key) {
            group.turn = (at + 1) % (members + group.shares.len()).max(1);
        }
        Some(taker)
    }

    /// Whether a group takes a message: a member can have it now, or it may wait for one.
    pub(super) fn group_takes(&mut self, key: GroupKey, message: MessageKey) -> Fate {
        let (Some(group), Some(held)) = (self.router.group(key), self.messages.get(message)) else {
            return Fate::Unwanted;
        };
        let (qos, size) = (held.qos, held.size());
        let is_ready =
            || self.ready_member(group, message, qos).is_some() || self.ready_share(key, message).is_some();
        if group.queue.is_empty() && is_ready() {
            return Fate::Taken;
        }
        let persistent = |member: &Member| {
            self.sessions.get(member.session as usize).is_some_and(|s| {
                (s.link.is_some() || s.outlives_link()) && self.acls.may_read(s, held.topic_str())
            })
        };
        let lasts = || !group.shares.is_empty() || group.members.iter().any(persistent);
        let fate = if qos == QoS::AtMostOnce || !lasts() {
            Fate::Unwanted
        } else if group.queue.len() >= self.config.max_queued_messages as usize
            || group.queued_bytes + size > self.config.max_queued_bytes
        {
            Fate::Refused
        } else {
            return Fate::Taken;
        };
        let dropped = &mut self.counters.dropped;
        *(if fate == Fate::Refused { &mut dropped.queue_full } else { &mut dropped.no_member }) += 1;
        fate
    }

    /// Gives a message that a group takes to one member, or keeps it for the first that can have it.
    pub(super) fn hand_to_group(&mut self, key: GroupKey, message: MessageKey, entry: Option<EntryId>) {
        let Some(held) = self.messages.get(message) else { return };
        let (qos, retain, size) = (held.qos, held.retain(), held.size());
        let delivery = Delivery { message, group: Some(key), qos, retain, entry, ids: SubscriptionIds::None };
        let waits = self.router.group(key).is_some_and(|group| !group.queue.is_empty());
        if !waits && let Some(taker) = self.choose_member(key, message, qos) {
            if defect!(GroupTwice)
                && let Some(taker) = self.choose_member(key, message, qos)
            {
                self.hand_to(key, taker, delivery.clone(), size);
            }
            self.hand_to(key, taker, delivery, size);
            return;
        }
        let Some(group) = self.router.group_mut(key) else { return };
        if qos == QoS::AtMostOnce {
            // The member that could have had it is gone meanwhile.
            group.take_refused(message);
            self.counters.dropped.no_member += 1;
            return;
        }
        group.queued_bytes += size;
        group.queue.push_back(&delivery);
        self.router.set_hungry(key, true);
        self.messages.hold(message);
        self.messages.settle(message);
    }

    /// The delivery takes the member's own options ([MQTT-4.8.2-3]).
    pub(super) fn give_to_member(&mut self, member: Member, mut delivery: Delivery, size: usize) -> Fate {
        delivery.qos = delivery_qos(delivery.qos, member.options.qos);
        delivery.retain &= member.options.retain_as_published;
        delivery.ids = SubscriptionIds::new(member.id);
        self.enqueue(member.session, &mut delivery, size)
    }

    /// Whether no member of the group may read the message any more.
    fn is_for_nobody(&self, key: GroupKey, message: MessageKey) -> bool {
        let (Some(group), Some(held)) = (self.router.group(key), self.messages.get(message)) else {
            return true;
        };
        let mut sessions = group.members.iter().filter_map(|m| self.sessions.get(m.session as usize));
        let forbidden = group.refused(message).forbidden;
        if group.shares.iter().any(|share| forbidden & bit(share.shard) == 0) {
            return false;
        }
        !self.acls.is_empty() && !sessions.any(|session| self.acls.may_read(session, held.topic_str()))
    }

    /// Hands what waits in a group to members that can take it.
    pub(super) fn pump_group(&mut self, key: GroupKey) {
        loop {
            let front = self.router.group(key).and_then(|group| group.queue.front());
            let Some((message, qos)) = front else { break };
            let taker = self.choose_member(key, message, qos);
            if taker.is_none() && !self.is_for_nobody(key, message) {
                break;
            }
            let size = self.messages.get(message).map_or(0, Held::size);
            let Some(group) = self.router.group_mut(key) else { return };
            let Some(delivery) = group.queue.pop_front() else { return };
            // Never below zero: the same size was added when it was queued.
            group.queued_bytes = group.queued_bytes.saturating_sub(size);
            let leaf = group.leaf.as_ref().map(|leaf| (leaf.owner, leaf.filter.clone()));
            let stored = group.stored;
            match (taker, delivery.entry, stored) {
                (Some(taker), ..) => self.hand_to(key, taker, delivery, size),
                (None, ..) if leaf.is_some() => {
                    if let Some((owner, filter)) = leaf {
                        let mut refused = group.take_refused(message);
                        refused.forbidden |= bit(self.config.shard);
                        self.give_back_to(owner, &filter, stored, [delivery], refused);
                    }
                    continue;
                }
                (None, entry, stored) => {
                    group.take_refused(message);
                    self.counters.dropped.not_authorized += 1;
                    if let (Some(entry), Some(stored)) = (entry, stored) {
                        self.journal.op(StoreOp::RemoveEntry(stored, entry));
                    }
                }
            }
            self.release_message(message);
        }
        let group = self.router.group(key);
        if group.is_some_and(|group| group.leaf.is_some()) {
            self.settle_leaf(key);
        } else if let Some(group) = group {
            let waits = !group.queue.is_empty();
            self.router.set_hungry(key, waits);
        }
    }

    /// Gives a group back what a session that lost its connection did not acknowledge: QoS 1, and
    /// what was never sent. A QoS 2 message that was begun stays ([MQTT-4.8.2-4], [MQTT-4.8.2-5]).
    pub(super) fn return_to_groups(&mut self, key: SessionKey) {
        if self.router.groups_of(key).is_empty() {
            return;
        }
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        let begun = session.ledger.extract(|e| {
            e.qos == QoS::AtLeastOnce && e.message.as_ref().is_some_and(|delivery| delivery.group.is_some())
        });
        let mut returned: Vec<Delivery> = begun.into_iter().filter_map(|exchange| exchange.message).collect();
        let shared = session.queue.extract(|delivery| delivery.group.is_some());
        for delivery in &shared {
            if let Some(held) = self.messages.get(delivery.message) {
                session.queued_bytes = session.queued_bytes.saturating_sub(held.size());
            }
        }
        returned.extend(shared);
        let mut groups = Vec::new();
        for delivery in returned.into_iter().rev() {
            let others =
                delivery.group.filter(|&group| self.router.group(group).is_some_and(Group::has_others));
            if let Some(group) = others {
                self.give_back(key, group, delivery);
                groups.push(group);
            } else if let Some(session) = self.sessions.get_mut(key as usize)
                && delivery.qos > QoS::AtMostOnce
            {
                session.queued_bytes += self.messages.get(delivery.message).map_or(0, Held::size);
                // It may expire before what is there.
                session.first_expiry = Timestamp::ZERO;
                session.queue.push_front(&delivery);
            } else {
                self.discard(key, delivery, false);
            }
        }
        groups.dedup();
        for group in groups {
            self.pump_group(group);
        }
        for at in 0..self.router.groups_of(key).len() {
            if let Some(&group) = self.router.groups_of(key).get(at) {
                self.settle_leaf(group);
            }
        }
    }
}
