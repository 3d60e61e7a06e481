//! Building packets. Everything binds as late as possible: identifiers, aliases, DUP and what is left
//! of an expiry are decided while a packet is copied into the outbox.

use super::Client;
use super::event::{Event, Outcome};
use super::link::{Link, ReplyKind};
use super::persist;
use super::publish::{packet_size, refusal};
use super::session::{Filters, Outgoing};
use crate::defects::defect;
use crate::shared::alias::Alias;
use crate::shared::ledger::{Exchange, Stage};
use crate::shared::segments::SHARE;
use crate::store::{StoreSeq, StoredStage};
use crate::{Message, Timestamp};
use alloc::vec;
use core::marker::PhantomData;
use mqtt_proto::{AckRef, PacketId, PacketRef, PublishHead, QoS, ReasonCode, SharedPublish, Version};

/// An alias adds at most this many bytes to a packet: the property and longer lengths in front of it.
const ALIAS_COST: usize = 3 + 1 + 1;
/// A packet has at most this many bytes beside what [`Message::size`] counts: header, lengths,
/// identifier and expiry.
const OVERHEAD: usize = 5 + 2 + 2 + 4 + 5;

/// Bytes for the connection, in order. Give the slices to it, then tell how many bytes it took.
///
/// It borrows the machine and cannot be kept, nor sent to another thread: nothing else may happen
/// between filling and consuming.
pub struct Outbox<'a> {
    client: &'a mut Client,
    now: Timestamp,
    not_send: PhantomData<*const ()>,
}

impl Outbox<'_> {
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.client.link.as_ref().map_or(0, |link| link.out.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets `slices` to the next bytes, in order, and tells how many slices were set.
    #[must_use]
    pub fn fill_slices<'b>(&'b self, slices: &mut [&'b [u8]]) -> usize {
        self.client.link.as_ref().map_or(0, |link| link.out.fill(slices))
    }

    /// The connection took the first `n` bytes.
    pub fn consume(&mut self, n: usize) {
        self.client.consume(self.now, n);
    }
}

/// What came of trying to send one thing.
enum Step {
    /// A packet was built, or something was dropped: try again.
    Progress,
    /// Nothing to send.
    Nothing,
    /// There is something, but it has to wait for a window or the store.
    Blocked,
}

impl Client {
    /// The bytes to send: builds packets until there are at least `max` bytes or nothing is left that
    /// may be sent. Empty without a connection. With `max` of 0 nothing is built; call again when there
    /// is room.
    pub fn outbox(&mut self, now: Timestamp, max: usize) -> Outbox<'_> {
        let now = self.advance(now);
        self.fill(now, max);
        Outbox { client: self, now, not_send: PhantomData }
    }

    fn fill(&mut self, now: Timestamp, max: usize) {
        loop {
            let Some(link) = self.link.as_mut().filter(|link| link.is_online()) else { return };
            // Who has no room comes back by itself once there is some.
            link.more = max > 0 && link.out.len() >= max;
            if max == 0 {
                return;
            }
            if link.more || !self.build(now) {
                return;
            }
        }
    }

    fn consume(&mut self, now: Timestamp, n: usize) {
        let Some(link) = &mut self.link else { return };
        if n > 0 {
            link.sent.touch(now);
        }
        link.out.consume(n);
        let position = link.out.position();
        // If bytes remain, the connection is full: it comes back by itself.
        let more = link.more && link.out.is_empty();
        while let Some((end, token)) = self.link.as_ref().and_then(|link| link.marks.front().copied()) {
            if end > position {
                break;
            }
            if let Some(link) = &mut self.link {
                link.marks.pop_front();
            }
            self.done(token, Outcome::Sent);
        }
        if more {
            self.flush();
        }
        self.finish_closing(now);
    }

    /// Builds the next packet. Answers go first: no window may hold them back ([MQTT-4.9.0-3],
    /// [MQTT-3.3.4-8]).
    fn build(&mut self, now: Timestamp) -> bool {
        self.build_reply() || self.build_ack() || self.build_request() || self.build_publish(now)
    }

    fn build_reply(&mut self) -> bool {
        let version = self.config.version;
        let stored = self.store.stored();
        let Some(link) = &mut self.link else { return false };
        let Some(reply) = link.replies.front().copied().filter(|reply| reply.after <= stored) else {
            return false;
        };
        link.replies.pop_front();
        let ack = AckRef { reason: reply.reason, ..AckRef::from(reply.id) };
        let packet = match reply.kind {
            ReplyKind::Pubrel => PacketRef::Pubrel(ack),
            ReplyKind::Pubcomp => {
                link.give_inbound(Some(reply.id));
                PacketRef::Pubcomp(ack)
            }
        };
        // Cannot fail: the reasons are of their tables.
        packet.encode(version, link.out.tail()).is_ok()
    }

    /// PUBACK or PUBREC, in the order of the PUBLISH packets, whatever the application made of them
    /// ([MQTT-3.3.4-1], [MQTT-4.5.0-2]). Holds neither a Reason String nor User Properties
    /// ([MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2], [MQTT-3.5.2-3]).
    fn build_ack(&mut self) -> bool {
        let version = self.config.version;
        let stored = if defect!(ClientAckEarly) { StoreSeq(u64::MAX) } else { self.store.stored() };
        let Some(link) = &mut self.link else { return false };
        let Some((owed, reason)) = link.acks.ready(stored) else { return false };
        link.acks.pop();
        let ack = AckRef { reason, ..AckRef::from(owed.id) };
        let packet =
            if owed.qos == QoS::ExactlyOnce { PacketRef::Pubrec(ack) } else { PacketRef::Puback(ack) };
        match owed.qos {
            QoS::ExactlyOnce if reason.is_error() => link.give_inbound(Some(owed.id)),
            QoS::ExactlyOnce => {}
            _ => link.give_inbound(None),
        }
        // Cannot fail: the reason was checked.
        packet.encode(version, link.out.tail()).is_ok()
    }

    fn build_request(&mut self) -> bool {
        let version = self.config.version;
        // They are sent in order, so that those that were not are at the end.
        if self.session.requests.back().is_none_or(|request| request.id.is_some()) {
            return false;
        }
        let Some(at) = self.session.requests.iter().position(|request| request.id.is_none()) else {
            return false;
        };
        let Some(id) = self.session.free_id() else { return false };
        let Some(link) = &mut self.link else { return false };
        let Some(request) = self.session.requests.get_mut(at) else { return false };
        let packet = request.packet(id);
        let refused = match packet.encoded_len(version) {
            Ok(size) => request.refusal(&link.limits, size),
            Err(error) => Some(Outcome::Invalid(error.violation())),
        };
        if refused.is_none() && packet.encode(version, link.out.tail()).is_ok() {
            request.id = Some(id);
            return true;
        }
        // It was asked for without a connection, and this server cannot get it.
        let (Some(request), Some(outcome)) = (self.session.requests.remove(at), refused) else { return true };
        match (request.token, &request.filters) {
            (Some(token), _) => self.done(token, outcome),
            (None, Filters::Subscribe(list)) => {
                let reason = match outcome {
                    Outcome::NotSupported(reason) => reason,
                    _ => ReasonCode::PacketTooLarge,
                };
                for (filter, _) in list.as_filters() {
                    self.session.subscriptions.remove(filter.as_str());
                    self.event(Event::SubscriptionLost { filter: filter.as_str().into(), reason });
                }
            }
            (None, Filters::Unsubscribe(_)) => {}
        }
        true
    }

    fn build_publish(&mut self, now: Timestamp) -> bool {
        loop {
            match self.send_exchange(now) {
                Step::Progress => return true,
                // What is behind it in the queue and needs no window may pass, what does is bound, so
                // that the store can work on several at once.
                Step::Nothing | Step::Blocked => {}
            }
            match self.session.queue.front().map(|outgoing| outgoing.message.qos) {
                None => return false,
                Some(QoS::AtMostOnce) => return self.send_unacknowledged(now),
                Some(_) => match self.bind(now) {
                    Step::Progress => {}
                    Step::Nothing | Step::Blocked => return false,
                },
            }
        }
    }

    /// The next of the ledger: new or again, PUBLISH or PUBREL.
    fn send_exchange(&mut self, now: Timestamp) -> Step {
        let version = self.config.version;
        let Some(link) = &mut self.link else { return Step::Nothing };
        let ledger = &mut self.session.ledger;
        let Some(exchange) = ledger.next_to_send() else { return Step::Nothing };
        let after = match exchange.stage {
            Stage::Publish => exchange.after,
            Stage::Release => self.session.released_after,
        };
        if after > self.store.stored() {
            return Step::Blocked;
        }
        if let Some((id, outcome)) = misfit(link, exchange, version) {
            self.drop_exchange(id, outcome);
            return Step::Progress;
        }
        // [MQTT-3.3.4-7] [MQTT-4.9.0-2]: repetitions count as well.
        if !ledger.admit_next(&mut link.window) {
            return Step::Blocked;
        }
        let Some(exchange) = ledger.next_to_send() else { return Step::Nothing };
        match (exchange.stage, &exchange.message) {
            (Stage::Publish, Some(outgoing)) => {
                // [MQTT-3.3.1-1]
                let (id, dup) = (Some(exchange.id), exchange.published);
                write_publish(link, version, &outgoing.message, id, dup, remaining(outgoing, now));
            }
            _ => {
                // Cannot fail: it has no fields but the identifier.
                let _ = PacketRef::Pubrel(AckRef::from(exchange.id)).encode(version, link.out.tail());
            }
        }
        ledger.sent();
        link.progress = now;
        Step::Progress
    }

    /// Takes an exchange out of the ledger that this server cannot get.
    fn drop_exchange(&mut self, id: PacketId, outcome: Outcome) {
        for exchange in self.session.ledger.extract(|exchange| exchange.id == id) {
            if let Some(outgoing) = exchange.message {
                self.finish(outgoing.token, outgoing.stored, outcome.clone());
            }
        }
    }

    /// Gives the first of the queue an identifier ([MQTT-4.3.2-1], [MQTT-4.3.3-1]).
    fn bind(&mut self, now: Timestamp) -> Step {
        if self.drop_front(now) {
            return Step::Progress;
        }
        let Some(link) = &self.link else { return Step::Nothing };
        if !self.session.ledger.has_room(link.window.max()) {
            return Step::Blocked;
        }
        let Some(id) = self.session.free_id() else { return Step::Blocked };
        let Some(outgoing) = self.session.pop() else { return Step::Nothing };
        let mut after = StoreSeq(0);
        if outgoing.stored {
            let session = self.store.session;
            let op = persist::put_exchange(session, outgoing.token, id, StoredStage::Published);
            after = self.store_ops(|| vec![op]);
        }
        let qos = outgoing.message.qos;
        self.session.ledger.begin(id, qos, outgoing, after);
        Step::Progress
    }

    /// QoS 0: sent once, without an identifier [MQTT-4.3.1-1].
    fn send_unacknowledged(&mut self, now: Timestamp) -> bool {
        if self.drop_front(now) {
            return true;
        }
        let Some(outgoing) = self.session.pop() else { return false };
        let version = self.config.version;
        let Some(link) = &mut self.link else { return false };
        let expiry = remaining(&outgoing, now);
        write_publish(link, version, &outgoing.message, None, false, expiry);
        link.marks.push_back((link.out.end(), outgoing.token));
        true
    }

    /// Drops the first of the queue if it has expired or this server cannot get it; the queue goes on.
    fn drop_front(&mut self, now: Timestamp) -> bool {
        let version = self.config.version;
        let (Some(outgoing), Some(link)) = (self.session.queue.front(), &self.link) else { return false };
        let outcome = if outgoing.expires_at.is_some_and(|at| at <= now) {
            Some(Outcome::Expired)
        } else {
            unfit(link, outgoing, version)
        };
        let Some(outcome) = outcome else { return false };
        if let Some(outgoing) = self.session.pop() {
            self.finish(outgoing.token, outgoing.stored, outcome);
        }
        true
    }
}

/// Whether the server can get a message at all.
fn unfit(link: &Link, outgoing: &Outgoing, version: Version) -> Option<Outcome> {
    let rough = outgoing.message.size() + OVERHEAD;
    let certain = usize::try_from(link.limits.max_packet_size).is_ok_and(|max| rough <= max);
    let size = if certain { rough } else { packet_size(outgoing, version) };
    refusal(&link.limits, &outgoing.message, size)
}

/// As [`unfit`], for an exchange whose PUBLISH is next.
fn misfit(link: &Link, exchange: &Exchange<Outgoing>, version: Version) -> Option<(PacketId, Outcome)> {
    let outgoing = exchange.message.as_ref().filter(|_| exchange.stage == Stage::Publish)?;
    Some((exchange.id, unfit(link, outgoing, version)?))
}

/// What is left of the expiry, in seconds. What was sent before goes on, however late
/// [MQTT-4.3.3-7].
fn remaining(outgoing: &Outgoing, now: Timestamp) -> Option<u32> {
    let micros = outgoing.expires_at?.since(now).as_micros();
    Some(u32::try_from(micros.div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1))
}

/// Appends a PUBLISH. The message was checked when it was taken; false if the format cannot express
/// the packet, which the check excludes.
fn write_publish(
    link: &mut Link,
    version: Version,
    message: &Message,
    packet_id: Option<PacketId>,
    dup: bool,
    message_expiry: Option<u32>,
) -> bool {
    let mut alias = Alias::None;
    if link.limits.topic_aliases > 0 {
        // An alias must not make a packet too large that would fit without.
        let rough = message.size() + OVERHEAD + ALIAS_COST;
        if usize::try_from(link.limits.max_packet_size).is_ok_and(|max| rough <= max) {
            alias = link.aliases.assign(message.topic.as_bytes());
        }
    }
    let (alias, topic_known) = match alias {
        Alias::None => (None, false),
        Alias::Set(number) => (Some(number), false),
        Alias::Use(number) => (Some(number), true),
    };
    let publish = SharedPublish {
        topic: message.topic.as_bytes(),
        properties: message.properties.as_properties().as_bytes(),
        payload: &message.payload,
    };
    let (qos, retain) = (message.qos, message.retain);
    let subscription_ids = &[];
    let head =
        PublishHead { dup, qos, retain, packet_id, alias, topic_known, message_expiry, subscription_ids };
    if message.payload.len() < SHARE {
        return publish.encode(version, &head, link.out.tail());
    }
    let written = publish.encode_head(version, &head, link.out.tail());
    if written {
        link.out.share(message.payload.clone());
    }
    written
}
