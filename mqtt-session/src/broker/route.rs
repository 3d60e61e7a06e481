//! From a message to the queues of those who want it.

use super::message::{Content, Held, MessageKey};
use super::output::{DropReason, Event, LocalId, Output};
use super::router::{Matches, SessionKey, SubscriptionIds};
use super::session::{Delivery, Session};
use super::shards::Arrival;
use super::{Broker, Overflow, delivery_qos};
use crate::defects::defect;
use crate::shared::ledger::Stage;
use crate::shared::received::Receipt;
use crate::{Run, StoreOp, StoreSeq, Timestamp};
use alloc::boxed::Box;
use mqtt_proto::{PacketId, QoS};

/// What became of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Routed {
    /// Sessions and groups that it matched.
    pub(super) matched: usize,
    /// Those of them that took it.
    pub(super) accepted: usize,
    /// Those of them whose queues are full.
    pub(super) refused: usize,
    /// Nobody took it, nothing changed, and the publisher is to be told.
    pub(super) is_refused: bool,
    /// What an acknowledgement waits for.
    pub(super) after: StoreSeq,
    /// And what it waits for on other shards; 0 for nothing.
    pub(super) ticket: u64,
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

/// From where a message comes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Source {
    /// The session that published it.
    pub(super) publisher: Option<SessionKey>,
    /// The identifier of a QoS 2 publication. Nobody sees the message before the identifier and all
    /// that the message changes are stored, in one group.
    pub(super) exactly_once: Option<PacketId>,
    /// It can be refused if nobody has room.
    pub(super) may_refuse: bool,
    /// It is a will, which is gone from the store when it is published.
    pub(super) is_will: bool,
    /// It came from another shard.
    pub(super) arrival: Option<Arrival>,
}

impl Routed {
    pub(super) fn count(&mut self, fate: Fate) {
        self.matched += 1;
        self.accepted += usize::from(fate == Fate::Taken);
        self.refused += usize::from(fate == Fate::Refused);
    }

    /// Everybody who wants it has a full queue.
    pub(super) const fn has_no_room(&self) -> bool {
        self.accepted == 0 && self.refused > 0
    }
}

impl Broker {
    /// Routes a message of a client, behind the publisher's earlier messages.
    #[inline]
    pub(super) fn route_content(&mut self, content: &Content<'_>, source: Source) -> Routed {
        if self.batch.is_for(content.shared.topic, source.publisher)
            && Run::takes(content.len())
            && self.goes_through(content, self.batch.matches(), source.publisher)
        {
            let Matches { elsewhere, .. } = *self.batch.matches();
            let matched = self.batch.matches().len();
            self.cross(content, elsewhere, source.publisher);
            self.push_to_batch(content);
            return Routed { matched, ..Routed::default() };
        }
        let mut matches = core::mem::take(&mut self.matches);
        let mut origin = self.match_content(content, source.publisher, &mut matches);
        let routed = if self.goes_through(content, &matches, source.publisher) {
            let matched = matches.len();
            self.cross(content, matches.elsewhere, source.publisher);
            if !self.may_join_batch(&matches)
                || !self.join_batch(content, source.publisher, &mut matches, &mut origin)
            {
                self.deliver_through(content, &matches);
            }
            self.note_received(source);
            Routed { matched, ..Routed::default() }
        } else if self.may_go_unheld(content, &matches) {
            self.close_batch();
            let routed = self.deliver_counted(content, &matches);
            self.refuse_or_note(source, routed, false)
        } else {
            self.close_batch();
            let key = self.messages.hold_content(content);
            let routed = if self.journal.is_on() || content.retain || matches.elsewhere != 0 {
                self.sign(key, source.publisher);
                self.route_to(key, source, &matches)
            } else {
                let routed = self.route_at_once(key, &matches);
                self.refuse_or_note(source, routed, false)
            };
            self.release_message(key);
            routed
        };
        self.router.give_back(origin, &mut matches);
        self.matches = matches;
        routed
    }

    /// Routes a message that the caller holds, behind the publisher's earlier messages.
    pub(super) fn route(&mut self, key: MessageKey, source: Source) -> Routed {
        self.close_batch();
        let mut matches = core::mem::take(&mut self.matches);
        let origin = self.match_here(key, source.publisher, &mut matches);
        let routed = self.route_to(key, source, &matches);
        self.router.give_back(origin, &mut matches);
        self.matches = matches;
        routed
    }

    fn route_to(&mut self, key: MessageKey, source: Source, matches: &Matches) -> Routed {
        let (qos, retain) =
            self.messages.get(key).map_or((QoS::AtMostOnce, false), |held| (held.qos, held.retain()));
        let elsewhere = matches.elsewhere.count_ones() as usize;
        let routed = if self.journal.is_on()
            && (qos > QoS::AtMostOnce || self.barrier_of(source.publisher) > self.journal.stored())
        {
            self.route_stored(key, source, matches)
        } else {
            if let Some(mut onward) = self.onward(key, source.publisher, matches.elsewhere) {
                self.announce(key, &mut onward);
                self.send_onward(key, &onward);
            }
            if retain {
                self.retain_if_asked(key);
            }
            let mut routed = self.route_at_once(key, matches);
            routed.matched += elsewhere;
            routed.accepted += elsewhere;
            // What is retained was taken, whoever else has no room for it.
            return self.refuse_or_note(source, routed, retain);
        };
        if !routed.is_refused {
            self.note_received(source);
        }
        routed
    }

    /// A message that nobody who wants it has room for is refused, if it can be and is not `kept`; any other is noted.
    #[inline]
    fn refuse_or_note(&mut self, source: Source, routed: Routed, kept: bool) -> Routed {
        let is_refused = source.may_refuse && !kept && routed.has_no_room();
        if !is_refused {
            self.note_received(source);
        }
        Routed { is_refused, ..routed }
    }

    pub(super) fn barrier_of(&self, publisher: Option<SessionKey>) -> StoreSeq {
        publisher.and_then(|key| self.sessions.get(key as usize)).map_or(StoreSeq(0), |s| s.barrier)
    }

    /// Remembers the identifier of a QoS 2 publication.
    pub(super) fn note_received(&mut self, source: Source) {
        if let Some(id) = source.exactly_once
            && let Some(session) = source.publisher.and_then(|key| self.sessions.get_mut(key as usize))
            && session.received.get(id).is_none()
        {
            session.received.set(id, Receipt::Taken);
            if session.stored {
                self.journal.op(StoreOp::PutReceived(session.id, id));
            }
        }
    }

    pub(super) fn route_at_once(&mut self, key: MessageKey, matches: &Matches) -> Routed {
        let Some(held) = self.messages.get(key) else {
            return Routed::default();
        };
        let (qos, retain, size) = (held.qos, held.retain(), held.size());
        let mut routed = Routed::default();
        // One for all: what was written a moment ago is slow to move.
        let mut delivery =
            Delivery { message: key, group: None, qos, retain, entry: None, ids: SubscriptionIds::None };
        self.through.begin(matches.receivers.len());
        for receiver in &matches.receivers {
            delivery.qos = delivery_qos(qos, receiver.qos);
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            delivery.retain = retain && (receiver.retain_as_published || defect!(RetainAsPublished));
            delivery.ids.clone_from(&receiver.ids);
            routed.count(self.enqueue(receiver.session, &mut delivery, size));
        }
        self.through.begin(0);
        for &group in &matches.groups {
            let fate = self.group_takes(group, key);
            if fate == Fate::Taken {
                self.hand_to_group(group, key, None);
            }
            routed.count(fate);
        }
        routed
    }

    /// Keeps or removes the topic's retained message ([MQTT-3.3.1-5], [MQTT-3.3.1-6], [MQTT-3.3.1-7],
    /// [MQTT-3.3.1-8]; also [MQTT-3.3.1-7] of 3.1.1). It belongs to no session ([MQTT-3.1.2-7] of 3.1.1).
    pub(super) fn retain_if_asked(&mut self, key: MessageKey) {
        if self.shards.is_none() {
            self.retain_here(key);
        } else if self.messages.get(key).is_some_and(|held| held.retain())
            && self.retained_owner(key).is_none()
        {
            let is_kept = self.retain_here(key);
            self.note_own_retained(key, is_kept);
        }
    }

    /// The same on the shard where what is retained under the topic lives. Whether the message is kept.
    pub(super) fn retain_here(&mut self, key: MessageKey) -> bool {
        let Some(held) = self.messages.get(key).filter(|held| held.retain()) else { return false };
        let topic = held.topic_str();
        let mut is_kept = false;
        // What the broker says of itself is over with it.
        let own = super::sys::is_own(topic.as_bytes());
        let old = if held.payload().is_empty() && !defect!(RetainedStays) {
            if self.journal.is_on() && !own {
                self.journal.op(StoreOp::DeleteRetained(topic.into()));
            }
            self.router.retain(topic, None)
        } else {
            let retained = self.router.retained() + self.used_elsewhere().retained;
            let full = retained >= self.config.max_retained as usize;
            let there = self.router.retained_at(topic).is_some();
            if !own && (full && !there || self.journal.is_overfull()) || there && defect!(RetainedNewest) {
                self.counters.dropped.not_retained += 1;
                let event = Event::NotRetained { topic: topic.into() };
                self.event(event);
                return false;
            }
            is_kept = true;
            let old = self.router.retain(topic, Some(key));
            self.messages.hold(key);
            self.messages.settle(key);
            self.retained_writes += 1;
            if own && self.journal.is_on() {
                // In the order of those that are stored.
                self.retained_writes = self.journal.new_message().0;
            } else if self.journal.is_on()
                && let Some(stored) = self.messages.store_body(key, &mut self.journal)
            {
                // Numbers of stored messages grow as well, and outlive a restart.
                self.retained_writes = stored.0;
                if let Some(held) = self.messages.get(key) {
                    self.journal.op(StoreOp::PutRetained(held.topic_str().into(), stored));
                }
            }
            if let Some(held) = self.messages.get_mut(key) {
                held.set_retained_at(self.retained_writes);
            }
            old
        };
        if let Some(old) = old {
            if let Some(held) = self.messages.get_mut(old)
                && old != key
            {
                held.set_retained_at(0);
            }
            self.forget_origin(old);
            self.release_message(old);
        }
        is_kept
    }

    /// Puts a delivery into the session's queue ([MQTT-4.5.0-1]), behind all that came before
    /// ([MQTT-4.6.0-5], [MQTT-4.6.0-6]).
    pub(super) fn enqueue(&mut self, key: SessionKey, delivery: &mut Delivery, size: usize) -> Fate {
        debug_assert!(!self.batch.is_open(), "what came before is delivered before");
        // A call that used up its budget leaves the packets behind this one to the next call.
        self.budget = self.budget.saturating_sub(1);
        let Some(session) = self.sessions.get_mut(key as usize) else { return Fate::Unwanted };
        if let Some(subscriber) = session.local {
            self.tell_program(subscriber, delivery);
            return Fate::Taken;
        }
        if self.send_at_once(key, delivery) {
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
        let message = delivery.message;
        let mut is_loose = false;
        if let Some(held) = self.messages.get(message) {
            session.first_expiry = session.first_expiry.min(held.expires());
            is_loose = held.is_loose();
        }
        session.queued_bytes += size;
        self.messages.hold(message);
        if defect!(QueueReversed) {
            session.queue.push_front(delivery);
        } else {
            session.queue.push_back(delivery);
        }
        match session.link {
            Some(link) => self.queue_flush(link),
            None if is_loose => self.messages.settle(message),
            None => {}
        }
        Fate::Taken
    }

    #[cold]
    fn tell_program(&mut self, subscriber: LocalId, delivery: &Delivery) {
        if let Some(held) = self.messages.get(delivery.message) {
            let message = held.to_message(self.now, delivery.qos, delivery.retain, delivery.ids.as_slice());
            self.outputs.push_back(Output::Event(Box::new(Event::Message { subscriber, message })));
        }
    }

    /// Whether the session takes a message of this size. Makes room by its policy.
    pub(super) fn room_for(&mut self, key: SessionKey, size: usize, qos: QoS) -> Fate {
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
            defect!(QueueUnbounded)
                || session.queue.len() < self.config.max_queued_messages as usize
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
        if now < session.first_expiry {
            return false;
        }
        let expiry = |key| messages.get(key).map_or(Timestamp::ZERO, Held::expires);
        let (mut first, mut any) = (Timestamp::MAX, false);
        for (key, _) in session.queue.iter() {
            let expires = expiry(key);
            if expires > now { first = first.min(expires) } else { any = true }
        }
        session.first_expiry = first;
        if !any {
            return false;
        }
        let gone = session.queue.extract(|delivery| expiry(delivery.message) <= now);
        for delivery in gone {
            self.discard(key, delivery, true);
            self.count_drop(key, DropReason::Expired);
        }
        true
    }

    /// A delivery of this session is over: acknowledged, dropped or void.
    #[inline]
    pub(super) fn discard(&mut self, key: SessionKey, delivery: Delivery, was_queued: bool) {
        if let Some(session) = self.sessions.get_mut(key as usize) {
            if was_queued && let Some(held) = self.messages.get(delivery.message) {
                // Never below zero: the same size was added when it was queued.
                session.queued_bytes = session.queued_bytes.saturating_sub(held.size());
            }
            if let Some(entry) = delivery.entry.filter(|_| !defect!(EntryStays))
                && let Some(owner) = self.router.owner(delivery.group, session.id)
            {
                self.journal.op(StoreOp::RemoveEntry(owner, entry));
            }
        }
        self.release_message(delivery.message);
    }

    pub(super) fn count_drop(&mut self, key: SessionKey, reason: DropReason) {
        self.counters.dropped.add(reason);
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

    /// Frees everything that waits in a session that ends. Tells how many messages that were.
    pub(super) fn empty_session(&mut self, session: &mut Session) -> usize {
        let mut lost = 0;
        let queue = core::mem::take(&mut session.queue);
        for delivery in queue {
            lost += 1;
            self.release_message(delivery.message);
        }
        for exchange in session.ledger.drain() {
            lost += usize::from(exchange.stage == Stage::Publish);
            if let Some(delivery) = exchange.message {
                self.release_message(delivery.message);
            }
        }
        for replay in core::mem::take(&mut session.replays).into_values() {
            self.release_replay(replay);
        }
        lost
    }
}
