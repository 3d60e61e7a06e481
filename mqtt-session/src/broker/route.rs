//! From a message to the queues of those who want it.

use super::message::MessageKey;
use super::output::{DropReason, Event, Output};
use super::router::{Added, GroupKey, Matches, SessionKey, SubscriptionIds};
use super::session::{Delivery, Replay, Session};
use super::{Broker, Overflow, delivery_qos};
use crate::store::{SessionId, StoredDelivery};
use crate::{StoreOp, StoreSeq};
use alloc::boxed::Box;
use alloc::vec::Vec;
use mqtt_proto::{QoS, RetainHandling, SubscriptionOptions, TopicFilter};

/// What became of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Routed {
    /// Sessions and groups that it matched.
    pub(super) matched: usize,
    /// Those of them that took it.
    pub(super) accepted: usize,
    /// Those of them whose queues are full.
    pub(super) refused: usize,
    /// What an acknowledgement waits for.
    pub(super) after: StoreSeq,
}

/// What became of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in the queue.
    Taken,
    /// The session does not want it now: QoS 0 without a connection.
    Unwanted,
    /// The queue is full.
    Refused,
}

/// A message whose routing is stored and must not be seen before that is confirmed.
#[derive(Debug)]
pub(super) struct Deferred {
    after: StoreSeq,
    message: MessageKey,
    deliveries: Vec<(SessionKey, SessionId, Delivery)>,
    groups: Vec<GroupKey>,
}

impl Routed {
    fn count(&mut self, fate: Fate) {
        self.matched += 1;
        self.accepted += usize::from(fate == Fate::Taken);
        self.refused += usize::from(fate == Fate::Refused);
    }
}

impl Broker {
    /// Routes a message that the caller holds. With `wait`, nobody sees it before its operations are
    /// confirmed, nor before the publisher's earlier messages.
    pub(super) fn route(&mut self, key: MessageKey, publisher: Option<SessionKey>, wait: bool) -> Routed {
        let mut matches = core::mem::take(&mut self.matches);
        if let Some(held) = self.messages.get(key) {
            self.router.matching(held.topic(), publisher, &mut matches);
        }
        if !self.acls.is_empty() {
            self.withhold(key, &mut matches);
        }
        let routed = if self.journal.is_on() {
            self.route_stored(key, publisher, wait, &matches)
        } else {
            self.retain_if_asked(key);
            self.route_at_once(key, &mut matches)
        };
        self.matches = matches;
        routed
    }

    fn route_at_once(&mut self, key: MessageKey, matches: &mut Matches) -> Routed {
        let Some(held) = self.messages.get(key) else {
            return Routed::default();
        };
        let (qos, retain, size) = (held.qos, held.retain, held.size());
        let mut routed = Routed::default();
        for receiver in &mut matches.receivers {
            let delivery = Delivery {
                message: key,
                group: None,
                qos: delivery_qos(qos, receiver.qos),
                // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
                retain: retain && receiver.retain_as_published,
                entry: None,
                ids: core::mem::take(&mut receiver.ids),
            };
            routed.count(self.enqueue(receiver.session, delivery, size));
        }
        for &group in &matches.groups {
            routed.count(self.offer_to_group(group, key));
        }
        routed
    }

    /// One group holds everything that the message changes; see the module `store`.
    fn route_stored(
        &mut self,
        key: MessageKey,
        publisher: Option<SessionKey>,
        wait: bool,
        matches: &Matches,
    ) -> Routed {
        let mut deliveries = Vec::with_capacity(matches.receivers.len());
        let mut appended = Vec::new();
        let mut routed = Routed::default();
        let Some(held) = self.messages.get(key) else {
            return Routed::default();
        };
        let (qos, retain, size) = (held.qos, held.retain, held.size());
        for receiver in &matches.receivers {
            let Some(session) = self.sessions.get(receiver.session as usize) else { continue };
            let (id, durable) = (session.id, session.is_durable());
            let qos = delivery_qos(qos, receiver.qos);
            let retain = retain && receiver.retain_as_published;
            let fate = self.room_for(receiver.session, size, qos);
            routed.count(fate);
            if fate != Fate::Taken {
                continue;
            }
            let entry = (durable && qos > QoS::AtMostOnce).then(|| self.journal.new_entry());
            if let Some(entry) = entry {
                let subscription_ids = receiver.ids.as_slice().into();
                appended.push(StoredDelivery { session: id, entry, qos, retain, subscription_ids });
            }
            let ids = receiver.ids.clone();
            deliveries.push((
                receiver.session,
                id,
                Delivery { message: key, group: None, qos, retain, entry, ids },
            ));
        }
        if !appended.is_empty() {
            let stored = self.store_body(key);
            self.journal.op(StoreOp::Append(stored, appended));
        }
        self.retain_if_asked(key);
        let barrier =
            publisher.and_then(|p| self.sessions.get(p as usize)).map_or(StoreSeq(0), |s| s.barrier);
        let own = self.journal.commit(&mut self.outputs);
        let stored = self.journal.stored();
        let after = if qos == QoS::AtMostOnce { barrier } else { own.max(barrier) };
        if barrier > stored || wait && own > stored {
            if let Some(session) = publisher.and_then(|p| self.sessions.get_mut(p as usize)) {
                session.barrier = after;
            }
            self.messages.hold(key);
            let groups = matches.groups.clone();
            // Deferred messages are kept in the order of what they wait for, which only grows.
            routed.matched += groups.len();
            routed.accepted += groups.len();
            self.deferred.push_back(Deferred { after, message: key, deliveries, groups });
        } else {
            for (session, _, delivery) in deliveries {
                self.enqueue(session, delivery, size);
            }
            for &group in &matches.groups {
                routed.count(self.offer_to_group(group, key));
            }
        }
        Routed { after, ..routed }
    }

    /// Routes what is confirmed by now.
    pub(super) fn route_deferred(&mut self) {
        while let Some(at) = self.deferred.iter().position(|d| d.after <= self.journal.stored()) {
            let Some(deferred) = self.deferred.remove(at) else { return };
            let size = self.messages.get(deferred.message).map_or(0, super::message::Held::size);
            for (session, id, delivery) in deferred.deliveries {
                if self.sessions.get(session as usize).is_some_and(|s| s.id == id) {
                    self.enqueue(session, delivery, size);
                }
            }
            for group in deferred.groups {
                self.offer_to_group(group, deferred.message);
            }
            self.release_message(deferred.message);
        }
    }

    /// The body's number in the store, where it is put if it is not there.
    fn store_body(&mut self, key: MessageKey) -> crate::store::MessageId {
        let id = self.journal.new_message();
        match self.messages.get_mut(key) {
            Some(held) => {
                if let Some(id) = held.stored {
                    return id;
                }
                held.stored = Some(id);
                let body = held.to_stored();
                self.journal.op(StoreOp::PutMessage(id, Box::new(body)));
                id
            }
            None => id,
        }
    }

    /// Keeps or removes the topic's retained message ([MQTT-3.3.1-5], [MQTT-3.3.1-6], [MQTT-3.3.1-7],
    /// [MQTT-3.3.1-8]; also [MQTT-3.3.1-7] of 3.1.1). It belongs to no session ([MQTT-3.1.2-7] of 3.1.1).
    fn retain_if_asked(&mut self, key: MessageKey) {
        let Some(held) = self.messages.get(key).filter(|held| held.retain) else { return };
        let topic = held.topic_str();
        let old = if held.payload().is_empty() {
            if self.journal.is_on() {
                self.journal.op(StoreOp::DeleteRetained(topic.into()));
            }
            self.router.retain(topic, None)
        } else {
            let full = self.router.retained() >= self.config.max_retained as usize;
            if full && self.router.retained_at(topic).is_none() {
                self.dropped += 1;
                return;
            }
            let old = self.router.retain(topic, Some(key));
            self.messages.hold(key);
            self.retained_writes += 1;
            if let Some(held) = self.messages.get_mut(key) {
                held.retained_at = self.retained_writes;
            }
            if self.journal.is_on() {
                let stored = self.store_body(key);
                if let Some(held) = self.messages.get(key) {
                    self.journal.op(StoreOp::PutRetained(held.topic_str().into(), stored));
                }
            }
            old
        };
        if let Some(old) = old {
            if let Some(held) = self.messages.get_mut(old)
                && old != key
            {
                held.retained_at = 0;
            }
            self.release_message(old);
        }
    }

    /// Puts a delivery into the session's queue ([MQTT-4.5.0-1]), behind all that came before
    /// ([MQTT-4.6.0-5], [MQTT-4.6.0-6]).
    pub(super) fn enqueue(&mut self, key: SessionKey, delivery: Delivery, size: usize) -> Fate {
        // A call that used up its budget leaves the packets behind this one to the next call.
        self.budget = self.budget.saturating_sub(1);
        let Some(session) = self.sessions.get_mut(key as usize) else { return Fate::Unwanted };
        if let Some(subscriber) = session.local {
            if let Some(held) = self.messages.get(delivery.message) {
                let ids = delivery.ids.as_slice();
                let message = held.to_message(self.now, delivery.qos, delivery.retain, ids);
                self.outputs.push_back(Output::Event(Box::new(Event::Message { subscriber, message })));
            }
            return Fate::Taken;
        }
        // What has a place in the store found room when it got it.
        if delivery.entry.is_none() {
            let fate = self.room_for(key, size, delivery.qos);
            if fate != Fate::Taken {
                return fate;
            }
        }
        let Some(session) = self.sessions.get_mut(key as usize) else { return Fate::Unwanted };
        session.queued_bytes += size;
        self.messages.hold(delivery.message);
        session.queue.push_back(delivery);
        if let Some(link) = session.link {
            self.queue_flush(link);
        }
        Fate::Taken
    }

    /// Whether the session takes a message of this size. Makes room by its policy.
    fn room_for(&mut self, key: SessionKey, size: usize, qos: QoS) -> Fate {
        let Some(session) = self.sessions.get(key as usize) else { return Fate::Unwanted };
        if session.local.is_some() {
            return Fate::Taken;
        }
        if session.link.is_none() && qos == QoS::AtMostOnce && !self.config.queue_qos0 {
            return Fate::Unwanted;
        }
        if self.has_space(key, size) || self.make_room(key, size) { Fate::Taken } else { Fate::Refused }
    }

    /// A full queue: expired messages go first, then the policy decides. False if the message that
    /// comes has to go.
    #[cold]
    fn make_room(&mut self, key: SessionKey, size: usize) -> bool {
        if self.purge_expired(key) {
            return true;
        }
        match self.config.overflow {
            Overflow::DropNewest => {}
            Overflow::DropOldest => {
                let Some(session) = self.sessions.get_mut(key as usize) else { return false };
                if size <= self.config.max_queued_bytes
                    && let Some(oldest) = session.queue.pop_front()
                {
                    self.discard(key, oldest, true);
                    self.count_drop(key, DropReason::QueueFull);
                    return self.has_space(key, size) || self.make_room_again(key, size);
                }
            }
            Overflow::Disconnect => {
                let link = self.sessions.get(key as usize).and_then(|session| session.link);
                if let Some(link) = link {
                    // Not here: ending a link may route further messages.
                    self.condemned.push_back(self.id_of(link));
                }
            }
        }
        self.count_drop(key, DropReason::QueueFull);
        false
    }

    fn has_space(&self, key: SessionKey, size: usize) -> bool {
        self.sessions.get(key as usize).is_some_and(|session| {
            session.queue.len() < self.config.max_queued_messages as usize
                && session.queued_bytes + size <= self.config.max_queued_bytes
        })
    }

    /// Drops the oldest until `size` fits; each turn makes the queue shorter.
    fn make_room_again(&mut self, key: SessionKey, size: usize) -> bool {
        while !self.has_space(key, size) {
            let oldest = self.sessions.get_mut(key as usize).and_then(|session| session.queue.pop_front());
            let Some(oldest) = oldest else { return false };
            self.discard(key, oldest, true);
            self.count_drop(key, DropReason::QueueFull);
        }
        true
    }

    /// Drops what expired in the queue. Whether anything did.
    fn purge_expired(&mut self, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get_mut(key as usize) else { return false };
        let (now, messages) = (self.now, &self.messages);
        let is_expired = |d: &Delivery| messages.get(d.message).is_none_or(|held| held.is_expired(now));
        if !session.queue.iter().any(is_expired) {
            return false;
        }
        let queue = core::mem::take(&mut session.queue);
        let (gone, kept): (Vec<_>, Vec<_>) = queue.into_iter().partition(is_expired);
        session.queue = kept.into();
        for delivery in gone {
            self.discard(key, delivery, true);
            self.count_drop(key, DropReason::Expired);
        }
        true
    }

    /// A delivery of this session is over: acknowledged, dropped or void.
    pub(super) fn discard(&mut self, key: SessionKey, delivery: Delivery, was_queued: bool) {
        if let Some(session) = self.sessions.get_mut(key as usize) {
            if was_queued && let Some(held) = self.messages.get(delivery.message) {
                // Never below zero: the same size was added when it was queued.
                session.queued_bytes = session.queued_bytes.saturating_sub(held.size());
            }
            if let Some(entry) = delivery.entry {
                self.journal.op(StoreOp::RemoveEntry(session.id, entry));
            }
        }
        self.release_message(delivery.message);
    }

    pub(super) fn count_drop(&mut self, key: SessionKey, reason: DropReason) {
        self.dropped += 1;
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        session.dropped += 1;
        if session.dropped.is_power_of_two() {
            let event = Event::Dropped {
                client_id: session.client_id.as_ref().into(),
                reason,
                count: session.dropped,
            };
            self.event(event);
        }
    }

    /// Finds the member whose turn it is among those that can take a message now, and moves the turn
    /// on. Members without a connection do not count.
    fn choose_member(
        &mut self,
        key: GroupKey,
        message: MessageKey,
        qos: QoS,
    ) -> Option<super::router::Member> {
        let group = self.router.group(key)?;
        let topic = self.messages.get(message)?.topic_str();
        let members = &group.members;
        let turn = group.turn % members.len().max(1);
        let order = (turn..members.len()).chain(0..turn);
        let mut chosen = None;
        for at in order {
            let Some(member) = members.get(at) else { continue };
            let Some(session) = self.sessions.get(member.session as usize) else { continue };
            if !self.acls.may_read(session, topic) {
                continue;
            }
            if session.local.is_none() {
                let Some(connection) = session.link.and_then(|link| self.connections.get(link)) else {
                    continue;
                };
                let busy = session.queue.len() + session.ledger.len();
                let slots = match delivery_qos(qos, member.options.qos) {
                    QoS::AtMostOnce => self.config.max_queued_messages as usize,
                    _ => usize::from(connection.window.max()),
                };
                if busy >= slots {
                    continue;
                }
            }
            chosen = Some((at, *member));
            break;
        }
        let (at, member) = chosen?;
        if let Some(group) = self.router.group_mut(key) {
            group.turn = at + 1;
        }
        Some(member)
    }

    /// Gives a message to one member of a group, or keeps it for the first that can take it.
    fn offer_to_group(&mut self, key: GroupKey, message: MessageKey) -> Fate {
        let Some(held) = self.messages.get(message) else { return Fate::Unwanted };
        let (qos, retain, size) = (held.qos, held.retain, held.size());
        let delivery =
            Delivery { message, group: Some(key), qos, retain, entry: None, ids: SubscriptionIds::None };
        let waits = self.router.group(key).is_some_and(|group| !group.queue.is_empty());
        if !waits && let Some(member) = self.choose_member(key, message, qos) {
            return self.give_to_member(member, delivery, size);
        }
        let Some(held) = self.messages.get(message) else { return Fate::Unwanted };
        let Some(group) = self.router.group_mut(key) else { return Fate::Unwanted };
        let persistent = |member: &super::router::Member| {
            self.sessions.get(member.session as usize).is_some_and(|s| {
                (s.link.is_some() || s.is_durable()) && self.acls.may_read(s, held.topic_str())
            })
        };
        if qos == QoS::AtMostOnce || !group.members.iter().any(persistent) {
            self.dropped += 1;
            return Fate::Unwanted;
        }
        if group.queue.len() >= self.config.max_queued_messages as usize
            || group.queued_bytes + size > self.config.max_queued_bytes
        {
            self.dropped += 1;
            return Fate::Refused;
        }
        group.queued_bytes += size;
        group.queue.push_back(delivery);
        self.messages.hold(message);
        Fate::Taken
    }

    /// The delivery takes the member's own options ([MQTT-4.8.2-3]).
    fn give_to_member(&mut self, member: super::router::Member, mut delivery: Delivery, size: usize) -> Fate {
        delivery.qos = delivery_qos(delivery.qos, member.options.qos);
        delivery.retain &= member.options.retain_as_published;
        delivery.ids = SubscriptionIds::new(member.id);
        self.enqueue(member.session, delivery, size)
    }

    /// Whether no member of the group may read the message any more.
    fn is_for_nobody(&self, key: GroupKey, message: MessageKey) -> bool {
        let (Some(group), Some(held)) = (self.router.group(key), self.messages.get(message)) else {
            return true;
        };
        let mut sessions = group.members.iter().filter_map(|m| self.sessions.get(m.session as usize));
        !self.acls.is_empty() && !sessions.any(|session| self.acls.may_read(session, held.topic_str()))
    }

    /// Hands what waits in a group to members that can take it.
    pub(super) fn pump_group(&mut self, key: GroupKey) {
        loop {
            let front = self.router.group(key).and_then(|group| group.queue.front());
            let Some((message, qos)) = front.map(|front| (front.message, front.qos)) else { return };
            let member = self.choose_member(key, message, qos);
            if member.is_none() && !self.is_for_nobody(key, message) {
                return;
            }
            let size = self.messages.get(message).map_or(0, super::message::Held::size);
            let Some(group) = self.router.group_mut(key) else { return };
            let Some(delivery) = group.queue.pop_front() else { return };
            // Never below zero: the same size was added when it was queued.
            group.queued_bytes = group.queued_bytes.saturating_sub(size);
            match member {
                Some(member) => {
                    let _ = self.give_to_member(member, delivery, size);
                }
                None => self.dropped += 1,
            }
            self.release_message(message);
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
        let queue = core::mem::take(&mut session.queue);
        let (shared, kept): (Vec<_>, Vec<_>) =
            queue.into_iter().partition(|delivery| delivery.group.is_some());
        session.queue = kept.into();
        for delivery in &shared {
            if let Some(held) = self.messages.get(delivery.message) {
                session.queued_bytes = session.queued_bytes.saturating_sub(held.size());
            }
        }
        returned.extend(shared);
        let mut groups = Vec::new();
        for mut delivery in returned.into_iter().rev() {
            let message = delivery.message;
            if let Some(held) = self.messages.get(message)
                && let Some(group_key) = delivery.group
                && let Some(group) = self.router.group_mut(group_key)
                && group.members.iter().any(|m| m.session != key)
                && held.qos > QoS::AtMostOnce
            {
                (delivery.qos, delivery.retain, delivery.entry) = (held.qos, held.retain, None);
                group.queued_bytes += held.size();
                group.queue.push_front(delivery);
                groups.push(group_key);
            } else if let Some(session) = self.sessions.get_mut(key as usize)
                && delivery.qos > QoS::AtMostOnce
            {
                session.queued_bytes += self.messages.get(message).map_or(0, super::message::Held::size);
                session.queue.push_front(delivery);
            } else {
                self.release_message(message);
            }
        }
        groups.dedup();
        for group in groups {
            self.pump_group(group);
        }
    }

    /// Has a new subscription get the retained messages ([MQTT-3.3.1-9], [MQTT-3.3.1-10],
    /// [MQTT-3.3.1-11]; [MQTT-3.3.1-6] of 3.1.1). Shared subscriptions get none.
    pub(super) fn replay_retained(
        &mut self,
        key: SessionKey,
        filter: TopicFilter<'_>,
        options: SubscriptionOptions,
        id: Option<u32>,
        added: Added,
    ) {
        let wanted = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => added == Added::New,
            RetainHandling::DoNotSend => false,
        };
        if !wanted || filter.shared().is_some() || self.router.retained() == 0 {
            return;
        }
        let ids = SubscriptionIds::new(id);
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if session.local.is_some() {
            self.replay_locally(key, filter, options.qos, &ids);
            return;
        }
        let (filter, until) = (filter.as_str().into(), self.retained_writes);
        session.replays.push_back(Replay { filter, until, found: None, next: 0, qos: options.qos, ids });
        if let Some(link) = session.link {
            self.queue_flush(link);
        }
    }

    fn replay_locally(&mut self, key: SessionKey, filter: TopicFilter<'_>, qos: QoS, ids: &SubscriptionIds) {
        for message in self.router.retained_matching(filter.as_str()) {
            if let Some(held) = self.messages.get(message)
                && !held.is_expired(self.now)
            {
                let (qos, size) = (delivery_qos(held.qos, qos), held.size());
                let ids = ids.clone();
                self.enqueue(
                    key,
                    Delivery { message, group: None, qos, retain: true, entry: None, ids },
                    size,
                );
            }
        }
    }

    /// An expired retained message is none any more.
    pub(super) fn forget_retained(&mut self, key: MessageKey) {
        let Some(held) = self.messages.get_mut(key).filter(|held| held.retained_at != 0) else { return };
        held.retained_at = 0;
        let topic = held.topic_str();
        self.router.retain(topic, None);
        if self.journal.is_on() {
            self.journal.op(StoreOp::DeleteRetained(topic.into()));
        }
        self.release_message(key);
    }

    /// Ends the replay for a subscription that was given back.
    pub(super) fn cancel_replay(&mut self, key: SessionKey, filter: TopicFilter<'_>) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        let replays = core::mem::take(&mut session.replays);
        let (gone, kept): (Vec<_>, Vec<_>) = replays.into_iter().partition(|r| &*r.filter == filter.as_str());
        session.replays = kept.into();
        gone.into_iter().for_each(|replay| self.release_replay(replay));
    }

    fn release_replay(&mut self, replay: Replay) {
        for &message in replay.found.unwrap_or_default().get(replay.next..).unwrap_or_default() {
            self.release_message(message);
        }
    }

    /// Frees everything that waits in a session that ends. Tells how many messages that were.
    pub(super) fn empty_session(&mut self, session: &mut Session) -> usize {
        let mut lost = 0;
        let queue = core::mem::take(&mut session.queue);
        let begun: Vec<Delivery> = session.ledger.drain().filter_map(|exchange| exchange.message).collect();
        for delivery in queue.into_iter().chain(begun) {
            lost += 1;
            self.release_message(delivery.message);
        }
        for replay in core::mem::take(&mut session.replays) {
            self.release_replay(replay);
        }
        lost
    }
}
