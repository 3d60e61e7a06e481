//! The short ways of a message to those who have nothing else to be sent. It goes from where it came straight into their
//! outboxes, without being held or queued. Above QoS 0 that is so for sessions that end with their connection; for others
//! it is held, because it may have to be sent again, and not queued.
//!
//! They bind what otherwise binds when a socket has room, and so are taken only where that moment is now: the
//! link is not stalled, nothing of the session waits, and the adapter is told to write before the next
//! turn. Whoever is not free gets the message through the queue.

use super::connection::{Connection, Phase};
use super::count::Counters;
use super::message::{Content, Held, MessageKey, expiry_left};
use super::offer::leaves_from_where_it_is;
use super::outbox::write_publish;
use super::output::DropReason;
use super::route::{Fate, Routed};
use super::router::{Matches, Receiver, SessionKey};
use super::session::{Delivery, Session};
use super::{Broker, delivery_qos};
use crate::shared::ledger::Ledger;
use crate::shared::rules::Rules;
use crate::{Run, Timestamp};
use alloc::vec::Vec;
use mqtt_proto::{MAX_PACKET_SIZE, PacketId, PublishHead, QoS, SharedPublish, Version};

/// What all outboxes together take on this way until the adapter asks for them, by the size of a message: memory
/// that a held one would not need once for each receiver. Small ones need hardly more than a place in a queue.
/// Large ones are better copied when they are sent, one outbox after the other, than while they come: measured, see
/// `benches/README.md`.
const fn most_unflushed(size: usize) -> usize {
    match size {
        ..=256 => 32 << 20,
        257..=1024 => 8 << 20,
        1025..=8192 => 256 << 10,
        _ => 0,
    }
}

/// Whether a message leaves better from where it is held than by a copy for each receiver: when it is large, and for so
/// many that the copies would not stay in the cache.
const fn is_better_held(payload: usize, receivers: usize) -> bool {
    leaves_from_where_it_is(payload) && payload.saturating_mul(receivers) >= 32 << 10
}

/// What this way needs from one message to the next.
#[derive(Debug, Default)]
pub(super) struct Through {
    /// Bytes that are in outboxes and that the adapter has not asked for yet.
    unflushed: usize,
    template: Template,
    /// The message that is being routed is held, and has many receivers.
    is_for_many: bool,
}

impl Through {
    const fn has_room_for(&self, size: usize) -> bool {
        self.unflushed < most_unflushed(size)
    }

    /// A held message is going to so many receivers; none is when that is done.
    pub(super) const fn begin(&mut self, receivers: usize) {
        self.template.version = None;
        self.is_for_many = receivers > 1;
    }

    /// Writes a message into an outbox: as it was written last if many get the same.
    #[inline]
    fn write(
        &mut self,
        c: &mut Connection,
        counters: &mut Counters,
        shared: &SharedPublish<'_>,
        head: &mut PublishHead<'_>,
        is_for_many: bool,
    ) {
        let before = c.out.len();
        let is_same_for_all = is_for_many && c.extras.is_none() && head.subscription_ids.is_empty();
        if is_same_for_all && self.template.is_for(c.version, head) {
            self.template.write(head.packet_id, &mut c.out);
            c.note_publish(counters, head.qos, shared.payload.len());
        } else {
            write_publish(c, counters, shared, head);
            if is_same_for_all {
                let written = c.out.get(before..).unwrap_or_default();
                self.template.learn(c.version, head, shared.topic.len(), written);
            }
        }
        self.note(c, before);
    }

    /// What is in the outbox behind its first `before` bytes came on this way.
    pub(super) fn note(&mut self, c: &mut Connection, before: usize) {
        let written = c.out.len().saturating_sub(before);
        c.through = c.through.saturating_add(u32::try_from(written).unwrap_or(u32::MAX));
        self.unflushed += written;
    }
}

/// How a message gets to a session.
pub(super) enum Way {
    /// There is no such session any more.
    Gone,
    /// Something stands before it.
    Barred,
    /// Into the outbox of this connection.
    Free(u32),
}

/// The packet of the message that is being routed: the same for many receivers, but for its identifier.
#[derive(Debug, Default)]
struct Template {
    /// `None` as long as it was not written.
    version: Option<Version>,
    qos: QoS,
    retain: bool,
    bytes: Vec<u8>,
    /// Where the identifier is.
    id_at: usize,
}

impl Template {
    /// Larger packets are encoded for each receiver, which then costs little more.
    const MOST: usize = 4096;

    fn is_for(&self, version: Version, head: &PublishHead<'_>) -> bool {
        self.version == Some(version) && self.qos == head.qos && self.retain == head.retain
    }

    fn write(&self, id: Option<PacketId>, out: &mut Vec<u8>) {
        let at = out.len() + self.id_at;
        out.extend_from_slice(&self.bytes);
        if let Some(id) = id
            && let Some(place) = out.get_mut(at..at + 2)
        {
            place.copy_from_slice(&id.get().to_be_bytes());
        }
    }

    /// Keeps a packet as it was written, with the topic in full.
    fn learn(&mut self, version: Version, head: &PublishHead<'_>, topic_len: usize, bytes: &[u8]) {
        self.version = None;
        if bytes.is_empty() || bytes.len() > Self::MOST {
            return;
        }
        let length = bytes.iter().skip(1).take_while(|byte| **byte >= 0x80).count() + 1;
        (self.version, self.qos, self.retain) = (Some(version), head.qos, head.retain);
        self.id_at = 1 + length + 2 + topic_len;
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }
}

impl Broker {
    /// Whether a message goes to those whom it matches without being held first. `publisher` is the session that
    /// published it here.
    #[inline]
    pub(super) fn goes_through(
        &self,
        content: &Content<'_>,
        matches: &Matches,
        publisher: Option<SessionKey>,
    ) -> bool {
        // What may have to be sent again is held where that is done.
        let is_for_others = || {
            !self.journal.is_on()
                && matches.elsewhere != 0
                && matches.receivers.is_empty()
                && matches.groups.is_empty()
        };
        !content.retain
            && content.expires > self.now
            && self.through.has_room_for(content.len())
            && !is_better_held(content.shared.payload.len(), matches.receivers.len())
            && (content.qos == QoS::AtMostOnce || is_for_others())
            && (matches.elsewhere == 0 || Run::takes(content.len()))
            // Behind the publisher's earlier messages.
            && self.barrier_of(publisher) <= self.journal.stored()
    }

    /// Routes a message that [goes through](Self::goes_through) to the sessions and groups here.
    pub(super) fn deliver_through(&mut self, content: &Content<'_>, matches: &Matches) {
        self.through.template.version = None;
        let is_alone = matches.receivers.len() == 1;
        let mut held = None;
        for receiver in &matches.receivers {
            if self.write_through(receiver, content, is_alone) {
                continue;
            }
            let message = *held.get_or_insert_with(|| self.messages.hold_content(content));
            self.enqueue_through(receiver, message);
        }
        for &group in &matches.groups {
            let message = *held.get_or_insert_with(|| self.messages.hold_content(content));
            if self.group_takes(group, message) == Fate::Taken {
                self.hand_to_group(group, message, None);
            }
        }
        if let Some(held) = held {
            self.release_message(held);
        }
    }

    /// Whether [`Broker::deliver_counted`] takes a message above QoS 0.
    #[inline]
    pub(super) fn may_go_unheld(&self, content: &Content<'_>, matches: &Matches) -> bool {
        !self.journal.is_on()
            && !content.retain
            && content.expires > self.now
            && matches.elsewhere == 0
            && matches.groups.is_empty()
            && !is_better_held(content.shared.payload.len(), matches.receivers.len())
    }

    /// Routes a message above QoS 0 to the sessions here. It is held only for those that may have to get it again.
    pub(super) fn deliver_counted(&mut self, content: &Content<'_>, matches: &Matches) -> Routed {
        self.through.begin(matches.receivers.len());
        let mut routed = Routed::default();
        let mut held = None;
        for receiver in &matches.receivers {
            let qos = delivery_qos(content.qos, receiver.qos);
            if self.write_unheld(receiver, content, qos) {
                routed.count(Fate::Taken);
                continue;
            }
            let message = *held.get_or_insert_with(|| self.messages.hold_content(content));
            let (group, retain, entry, ids) = (None, false, None, receiver.ids.clone());
            let mut delivery = Delivery { message, group, qos, retain, entry, ids };
            let size = self.messages.get(message).map_or(0, Held::size);
            routed.count(self.enqueue(receiver.session, &mut delivery, size));
        }
        self.through.begin(0);
        if let Some(held) = held {
            self.release_message(held);
        }
        routed
    }

    /// Writes the message into the outbox of a session's link and begins an exchange, if the session ends with the link
    /// and so gets it once at most. False if something stands before it.
    #[inline(always)]
    fn write_unheld(&mut self, receiver: &Receiver, content: &Content<'_>, qos: QoS) -> bool {
        let counted = qos > QoS::AtMostOnce;
        // Asked first: those that last should not pay for the others.
        if counted && self.sessions.get(receiver.session as usize).is_none_or(Session::outlives_link) {
            return false;
        }
        let Way::Free(index) = self.way_to(receiver.session, content.shared.payload.len()) else {
            return false;
        };
        let (Some(session), Some(c)) =
            (self.sessions.get_mut(receiver.session as usize), self.connections.get_mut(index))
        else {
            return false;
        };
        let resends = self.config.resend_after.is_some() && Rules::of(c.version).may_resend_live;
        let has_room = c.window.has_room() && session.ledger.has_room(c.window.max());
        if counted && (resends || !has_room) {
            return false;
        }
        let shared = &content.shared;
        let message_expiry = expiry_left(content.expires, self.now);
        // Which identifier does not matter for the length.
        let packet_id = counted.then_some(PacketId::MIN);
        let subscription_ids = receiver.ids.as_slice();
        let mut head =
            PublishHead { qos, packet_id, message_expiry, subscription_ids, ..PublishHead::default() };
        if !is_ready(c, &mut session.ledger, shared, &mut head) {
            return false;
        }
        self.budget = self.budget.saturating_sub(1);
        self.spares.lend(c);
        let is_for_many = self.through.is_for_many;
        self.through.write(c, &mut self.counters, shared, &mut head, is_for_many);
        if let Some(id) = head.packet_id {
            session.ledger.begin_sent(id, qos, None, &mut c.window);
        }
        if !c.flush_queued {
            self.queue_flush(index);
        }
        true
    }

    /// What did not go through waits.
    pub(super) fn enqueue_through(&mut self, receiver: &Receiver, message: MessageKey) {
        let size = self.messages.get(message).map_or(0, Held::size);
        let (group, qos, retain, entry) = (None, QoS::AtMostOnce, false, None);
        let ids = receiver.ids.clone();
        self.enqueue(receiver.session, &mut Delivery { message, group, qos, retain, entry, ids }, size);
    }

    /// Whether messages with so many bytes may be written into the outbox of a session's link now.
    #[inline(always)]
    pub(super) fn way_to(&mut self, key: SessionKey, len: usize) -> Way {
        let Some(session) = self.sessions.get_mut(key as usize) else { return Way::Gone };
        // Rights were asked about in this same call.
        let Some(index) = session.link.filter(|_| !session.has_work()) else { return Way::Barred };
        let Some(c) = self.connections.get(index) else { return Way::Barred };
        if !is_free(c) || c.gate > self.journal.stored() || !self.through.has_room_for(len) {
            return Way::Barred;
        }
        Way::Free(index)
    }

    /// Writes the message into the outbox of a session's link. False if something stands before it.
    #[inline(always)]
    pub(super) fn write_through(
        &mut self,
        receiver: &Receiver,
        content: &Content<'_>,
        is_alone: bool,
    ) -> bool {
        let index = match self.way_to(receiver.session, content.shared.payload.len()) {
            Way::Gone => return true,
            Way::Barred => return false,
            Way::Free(index) => index,
        };
        let Some(c) = self.connections.get_mut(index) else { return false };
        self.budget = self.budget.saturating_sub(1);
        let message_expiry = expiry_left(content.expires, self.now);
        let subscription_ids = receiver.ids.as_slice();
        let mut head = PublishHead { message_expiry, subscription_ids, ..PublishHead::default() };
        let shared = &content.shared;
        if c.max_packet < MAX_PACKET_SIZE && shared.encoded_len(c.version, &head) > c.max_packet as usize {
            // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
            self.count_drop(receiver.session, DropReason::TooLarge);
            return true;
        }
        self.spares.lend(c);
        self.through.write(c, &mut self.counters, shared, &mut head, !is_alone);
        if !c.flush_queued {
            self.queue_flush(index);
        }
        true
    }

    /// Sends a message that is held, if its receiver has nothing else to be sent and may have it now. What is to be
    /// queued is left as it is.
    pub(super) fn send_at_once(&mut self, key: SessionKey, delivery: &mut Delivery) -> bool {
        if delivery.entry.is_some() || delivery.group.is_some() {
            return false;
        }
        let (message, counted) = (delivery.message, delivery.qos > QoS::AtMostOnce);
        let Some(session) = self.sessions.get_mut(key as usize) else { return false };
        // What a stored session begins is stored.
        let Some(index) = session.link.filter(|_| !(counted && session.stored)) else {
            return false;
        };
        let (Some(c), Some(held)) = (self.connections.get_mut(index), self.messages.get(delivery.message))
        else {
            return false;
        };
        let has_room = !counted || c.window.has_room() && session.ledger.has_room(c.window.max());
        if !has_room
            || !is_free(c)
            || c.gate > self.journal.stored()
            || session.has_work()
            || !self.through.has_room_for(held.size())
            || held.is_expired(self.now)
            // Routed perhaps before the tables changed.
            || session.recheck && !self.acls.may_read(session, held.topic_str())
        {
            return false;
        }
        let shared = held.shared();
        let mut head = delivery.largest_head(held.expiry_left(self.now));
        head.retain = delivery.retain;
        // An alias makes it longer only if that fits.
        if !is_ready(c, &mut session.ledger, &shared, &mut head) {
            return false;
        }
        self.spares.lend(c);
        let is_for_many = self.through.is_for_many;
        self.through.write(c, &mut self.counters, &shared, &mut head, is_for_many);
        if let Some(id) = head.packet_id {
            session.ledger.begin_sent(id, delivery.qos, Some(delivery.take()), &mut c.window);
        }
        let flush = !c.flush_queued;
        if counted {
            self.messages.hold(message);
            self.arm_resend(index);
        }
        if flush {
            self.queue_flush(index);
        }
        true
    }

    /// The adapter asks for the outbox, or it is gone.
    pub(super) fn note_flushed(&mut self, index: u32) {
        if let Some(c) = self.connections.get_mut(index) {
            // Never below zero: it was added when it was written.
            self.through.unflushed =
                self.through.unflushed.saturating_sub(core::mem::take(&mut c.through) as usize);
        }
    }
}

/// Whether the client takes a packet that is so large; gives it a free identifier in place of the one that it has.
#[inline(always)]
fn is_ready(
    c: &Connection,
    ledger: &mut Ledger<Delivery>,
    shared: &SharedPublish<'_>,
    head: &mut PublishHead<'_>,
) -> bool {
    if c.max_packet < MAX_PACKET_SIZE && shared.encoded_len(c.version, head) > c.max_packet as usize {
        return false;
    }
    if head.packet_id.is_none() {
        return true;
    }
    head.packet_id = ledger.free_id(|_| false);
    head.packet_id.is_some()
}

/// Whether what is written now is on its way at once.
fn is_free(c: &Connection) -> bool {
    let is_open = c.phase == Phase::Live && !c.gone && !c.moving;
    is_open && c.stalled == Timestamp::MAX && c.out_len() < c.room as usize
}
