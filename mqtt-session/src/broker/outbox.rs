//! Building the bytes that leave a connection. Packet identifiers, aliases, DUP and what is left of
//! a message's lifetime bind here, when the socket has room.

use super::access::Acls;
use super::connection::{Connection, Phase};
use super::count::Counters;
use super::message::{Held, MessageKey};
use super::offer::{Bodies, Outbox, leaves_from_where_it_is};
use super::output::{ConnectionId, DropReason};
use super::replay::Next;
use super::router::SessionKey;
use super::session::{Delivery, Session};
use super::shrink::Pool;
use super::timers::Timer;
use super::{Broker, delivery_qos};
use crate::defects::defect;
use crate::random::IdMap;
use crate::shared::alias::Alias;
use crate::shared::ledger::{Exchange, Stage};
use crate::shared::rules::Rules;
use crate::shared::window::Window;
use crate::store::{MessageId, StoredStage};
use crate::{StoreOp, StoreSeq, Timestamp};
use alloc::vec::Vec;
use mqtt_proto::{
    AckRef, MAX_PACKET_SIZE, PacketId, PacketRef, PacketType, PublishHead, QoS, SharedPublish, Version,
};

/// Buffers of at most this size are kept for other connections, so many of them, and so many bytes.
const SPARE_CAPACITY: usize = 256 << 10;
const SPARES: usize = 1024;
const SPARE_BYTES: usize = 16 << 20;

/// Buffers that connections have no use for at present, so that steady traffic allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Spares {
    buffers: Pool<Vec<u8>>,
    bytes: usize,
}

impl Spares {
    /// Lends one to a connection that has none.
    #[inline]
    pub(super) fn lend(&mut self, c: &mut Connection) {
        if c.out.capacity() == 0
            && let Some(spare) = self.buffers.take()
        {
            // Never below zero: it was added.
            self.bytes = self.bytes.saturating_sub(spare.capacity());
            c.out = spare;
        }
    }

    pub(super) fn shrink(&mut self) {
        let gone: usize = self.buffers.cut().map(|buffer| buffer.capacity()).sum();
        self.bytes = self.bytes.saturating_sub(gone);
    }

    #[inline]
    pub(super) fn put(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        let fits = self.bytes + buffer.capacity() <= SPARE_BYTES && self.buffers.len() < SPARES;
        if fits && buffer.capacity() <= SPARE_CAPACITY {
            self.bytes += buffer.capacity();
            self.buffers.put(buffer);
        }
    }
}

/// More than this is not written ahead, however much the adapter takes.
const MOST_ROOM: u32 = 128 << 10;

/// What draining left to be done.
#[derive(Default)]
struct Drained {
    finished: Vec<Delivery>,
    dropped: Vec<(Delivery, DropReason)>,
    /// Identifiers were bound that have to be stored first.
    bound: bool,
    /// Exchanges were sent.
    began: bool,
    /// Retained messages that have expired, or whose publisher may not publish them any more.
    expired: Vec<MessageKey>,
    /// How often retained messages were looked up.
    lookups: usize,
    /// What a retained message waits for.
    blocked_by: Option<StoreSeq>,
    /// A question of which other shards have more to say.
    more: Option<u64>,
    /// Questions to which the answers are all sent.
    answered: Vec<u64>,
}

impl Broker {
    /// Builds about `max` bytes for the connection (one packet may go over) and offers them. Counts
    /// as an input: what is built has bound its identifiers. With `max` of 0 nothing is built; call
    /// again when there is room.
    pub fn outbox(&mut self, now: Timestamp, conn: ConnectionId, max: usize) -> Outbox<'_> {
        self.begin(now);
        let index = self.index_of(conn).filter(|&index| self.fill(index, max));
        self.finish();
        Outbox::new(self, index)
    }

    /// Whether something may leave.
    fn fill(&mut self, index: u32, max: usize) -> bool {
        let stored = self.journal.stored();
        self.note_flushed(index);
        let Some(c) = self.connections.get_mut(index) else { return false };
        c.flush_queued = false;
        c.more = false;
        c.room = u32::try_from(max).unwrap_or(u32::MAX).min(MOST_ROOM);
        if c.gone || c.gate > stored {
            return false;
        }
        self.spares.lend(c);
        let key = c.session.filter(|_| c.phase == Phase::Live);
        // Who has no room comes back by itself once there is some.
        if let Some(key) = key.filter(|_| max > 0) {
            self.drain_session(index, key, max);
        }
        if self.connections.get(index).is_some_and(|c| c.more && c.out_len() == 0) {
            // Nothing is there to be taken yet, so nobody would come back for the rest.
            self.queue_flush(index);
        }
        self.note_outbox(index);
        true
    }

    fn drain_session(&mut self, index: u32, key: SessionKey, max: usize) {
        let mut drained =
            Drained { finished: core::mem::take(&mut self.spare_deliveries), ..Drained::default() };
        let Some(c) = self.connections.get_mut(index) else { return };
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        let mut drain = Drain {
            now: self.now,
            messages: &mut self.messages,
            router: &mut self.router,
            journal: &mut self.journal,
            unstored_retained: &self.unstored_retained,
            counters: &mut self.counters,
            acls: &self.acls,
            bodies: &mut self.bodies,
            is_prompt: c.stalled == Timestamp::MAX,
            drained: &mut drained,
        };
        let replayed = session.replays.front().map(|replay| (replay.number, replay.left.after));
        c.more = drain.run(c, session, max);
        drain.note_replay(session, replayed);
        let unstored = drained.bound;
        if drained.began {
            self.arm_resend(index);
        }
        for delivery in drained.finished.drain(..) {
            self.discard(key, delivery, true);
        }
        self.spare_deliveries = drained.finished;
        for message in drained.expired {
            self.forget_retained(message);
        }
        for (delivery, reason) in drained.dropped {
            self.discard(key, delivery, true);
            self.count_drop(key, reason);
        }
        for query in drained.answered {
            self.forget_question(query);
        }
        if let Some(query) = drained.more {
            self.ask_for_more(query);
        }
        let blocked_by = drained.blocked_by;
        let bound = unstored.then(|| self.journal.commit(&mut self.outputs));
        if let Some(after) = bound.max(blocked_by) {
            let conn = self.id_of(index);
            self.waiting.push_back((after, conn));
        }
        if !self.router.groups_of(key).is_empty() {
            self.pump_hungry_groups_of(key);
        }
    }

    /// Something above QoS 0 was sent or answered: the time without an answer begins anew.
    pub(super) fn arm_resend(&mut self, index: u32) {
        let Some(after) = self.config.resend_after else { return };
        let at = self.now + after;
        let Some(c) = self.connections.get_mut(index) else { return };
        // [MQTT-4.4.0-1] of 5.0: only on a new link.
        if !Rules::of(c.version).may_resend_live {
            return;
        }
        c.resend = at;
        let generation = c.generation;
        if at < c.deadline {
            c.deadline = at;
            self.timers.at(at, Timer::Connection { index, generation });
        }
    }

    /// No answer for too long: everything that is not finished is sent again, in its order.
    pub(super) fn resend(&mut self, index: u32) {
        let Some(c) = self.connections.get_mut(index) else { return };
        c.resend = Timestamp::MAX;
        let Some(session) = c.session.and_then(|key| self.sessions.get_mut(key as usize)) else { return };
        if session.ledger.is_empty() {
            return;
        }
        session.ledger.rewind();
        c.window = Window::new(c.window.max());
        c.acks.retain(|ack| ack.kind != PacketType::Pubrel);
        self.queue_flush(index);
    }

    /// The session may have room: lets those of its groups that want it hand over something, or tell others of it.
    pub(super) fn pump_hungry_groups_of(&mut self, key: SessionKey) {
        debug_assert!(self.only_the_hungry_want_something(key), "a group would wait for ever");
        if !self.router.has_hungry() {
            return;
        }
        let mut groups = core::mem::take(&mut self.spare_groups);
        self.router.hungry_of(key, &mut groups);
        for group in groups.drain(..) {
            self.pump_group(group);
        }
        self.spare_groups = groups;
    }

    /// Lets all groups of the session, which has a connection again, hand it what it has room for.
    pub(super) fn pump_groups_of(&mut self, key: SessionKey) {
        for at in 0..self.router.groups_of(key).len() {
            if let Some(&group) = self.router.groups_of(key).get(at) {
                self.pump_group(group);
            }
        }
    }
}

struct Drain<'a> {
    now: Timestamp,
    messages: &'a mut super::message::Messages,
    router: &'a mut super::router::Router,
    journal: &'a mut super::journal::Journal,
    unstored_retained: &'a IdMap<MessageKey, StoreSeq>,
    counters: &'a mut Counters,
    acls: &'a Acls,
    bodies: &'a mut Bodies,
    /// Whether the socket took all that it was offered so far. What it leaves has to be copied, so somebody slow
    /// gets copies from the start.
    is_prompt: bool,
    drained: &'a mut Drained,
}

impl Drain<'_> {
    /// Writes until `max` bytes are there, or nothing may be sent. Whether it stopped for `max`.
    ///
    /// What is begun comes first, in its order ([MQTT-4.6.0-1]); then retained messages for new
    /// subscriptions; then the queue.
    fn run(&mut self, c: &mut Connection, session: &mut Session, max: usize) -> bool {
        loop {
            if c.out_len() + self.bodies.len() >= max || self.bodies.is_full() {
                return true;
            }
            if let Some(exchange) = session.ledger.next_to_send() {
                if exchange.after > self.journal.stored() {
                    // Bound and not stored. What follows is bound meanwhile, so that one group
                    // carries many.
                    while self.begin_next(c, session) {}
                    return false;
                }
                let Some((exchange, dup)) = session.ledger.send_next(&mut c.window) else { return false };
                self.send_exchange(c, exchange, dup);
                continue;
            }
            if !session.replays.is_empty() {
                match self.replay_next(c, session) {
                    Replayed::Some => continue,
                    Replayed::Blocked => return false,
                    Replayed::Later => return true,
                }
            }
            match session.queue.front() {
                None => return false,
                Some((_, QoS::AtMostOnce)) => {
                    let Some(delivery) = session.queue.pop_front() else { return false };
                    self.send_once(c, session, delivery);
                }
                Some(_) => {
                    if !self.begin_next(c, session) {
                        return false;
                    }
                }
            }
        }
    }

    /// Stores how far the retained messages of a new subscription are, if that has changed. In one
    /// group with the entries that they became.
    fn note_replay(&mut self, session: &Session, before: Option<(u64, MessageId)>) {
        let Some(replay) = session.replays.front().filter(|replay| replay.noted) else { return };
        if before == Some((replay.number, replay.left.after)) {
            return;
        }
        self.journal.op(replay.to_stored(session.id));
    }

    /// Binds an identifier to the front of the queue, if it is above QoS 0 and the window has room.
    fn begin_next(&mut self, c: &mut Connection, session: &mut Session) -> bool {
        if !session.ledger.has_room(c.window.max()) {
            return false;
        }
        let Some(delivery) = session.queue.pop_front_if(|qos| qos > QoS::AtMostOnce) else { return false };
        if let Some(reason) = self.unwanted(c, session, &delivery) {
            self.drained.dropped.push((delivery, reason));
            return true;
        }
        let Some(id) = session.ledger.free_id(|_| false) else {
            session.queue.push_front(&delivery);
            return false;
        };
        if let Some(held) = self.messages.get(delivery.message) {
            // Never below zero: the same size was added when it was queued.
            session.queued_bytes = session.queued_bytes.saturating_sub(held.size());
        }
        self.bind(session, id, delivery);
        true
    }

    /// The delivery holds the identifier from now on. For a stored session that is stored: of QoS 2
    /// before the packet may leave, of QoS 1 without waiting, since a repetition under another
    /// identifier does no harm.
    fn bind(&mut self, session: &mut Session, id: PacketId, mut delivery: Delivery) {
        let mut after = StoreSeq(0);
        let twice = delivery.qos == QoS::ExactlyOnce;
        if twice && let (Some(entry), Some(group)) = (delivery.entry, delivery.group.take()) {
            // Begun with one member, it never goes to another [MQTT-4.8.2-5].
            if let Some(owner) = self.router.owner(Some(group), session.id) {
                self.journal.op(StoreOp::RemoveEntry(owner, entry));
            }
            delivery.entry = None;
            after = self.journal.next_seq();
        }
        if twice && delivery.entry.is_none() && session.stored {
            // Also what waited in a group that nobody's stored session was a member of: after a crash the
            // client still has the identifier, so it must not be given to another message.
            self.append(session, &mut delivery);
        }
        // A session that ends with its connection has no record any more, and nothing may refer to it.
        if let (Some(entry), None, true) = (delivery.entry, delivery.group, session.stored) {
            let number = self.journal.new_entry().0;
            let (session, packet_id, stage) = (session.id, id, StoredStage::Published);
            self.journal.op(StoreOp::PutExchange { session, entry, packet_id, number, stage });
            if twice {
                after = self.journal.next_seq();
            }
        }
        self.drained.bound |= after > StoreSeq(0);
        if session.stored && session.noted_id.abs_diff(id.get()) >= NOTED_EVERY {
            session.noted_id = id.get();
            self.journal.op(StoreOp::PutPacketId(session.id, id));
        }
        session.ledger.begin(id, delivery.qos, delivery, after);
    }

    /// Gives the delivery a place in the session's stored queue.
    fn append(&mut self, session: &Session, delivery: &mut Delivery) {
        let Some(stored) = self.messages.store_body(delivery.message, self.journal) else { return };
        let entry = self.journal.new_entry();
        delivery.entry = Some(entry);
        self.journal.op(StoreOp::Append(stored, [delivery.to_stored(session.id, entry)].into()));
    }

    /// Why a delivery must not be sent, if so: it expired ([MQTT-3.3.2-5]), may not be read any more, or
    /// is too large ([MQTT-3.1.2-24], [MQTT-3.1.2-25]).
    fn unwanted(&self, c: &Connection, session: &Session, delivery: &Delivery) -> Option<DropReason> {
        let held = self.messages.get(delivery.message)?;
        if held.is_expired(self.now) && !defect!(ExpiryIgnored) {
            return Some(DropReason::Expired);
        }
        if session.recheck && !self.acls.may_read(session, held.topic_str()) {
            return Some(DropReason::NotAuthorized);
        }
        let head = delivery.largest_head(held.expiry_left(self.now));
        // An alias that is set makes the packet three bytes longer, and is left out if it does not fit.
        let len = held.shared().encoded_len(c.version, &head);
        (len > c.max_packet as usize && !defect!(TooLargeSent)).then_some(DropReason::TooLarge)
    }

    fn send_exchange(&mut self, c: &mut Connection, exchange: &Exchange<Delivery>, dup: bool) {
        let id = exchange.id;
        if exchange.stage == Stage::Release {
            // [MQTT-4.4.0-1]
            let _ = PacketRef::Pubrel(AckRef::from(id)).encode(c.version, &mut c.out);
            c.packets += 1;
        } else if let Some(delivery) = &exchange.message {
            // [MQTT-3.3.1-1] [MQTT-3.3.1-3]
            self.write(c, delivery, Some(id), dup);
        }
        self.drained.began = true;
    }

    fn send_once(&mut self, c: &mut Connection, session: &Session, delivery: Delivery) {
        match self.unwanted(c, session, &delivery) {
            Some(reason) => self.drained.dropped.push((delivery, reason)),
            None => {
                self.write(c, &delivery, None, false);
                self.drained.finished.push(delivery);
            }
        }
    }

    fn write(&mut self, c: &mut Connection, delivery: &Delivery, packet_id: Option<PacketId>, dup: bool) {
        let Some(held) = self.messages.get(delivery.message) else { return };
        let shared = held.shared();
        let mut head = PublishHead {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            packet_id,
            alias: None,
            topic_known: false,
            message_expiry: held.expiry_left(if defect!(ExpiryNotReduced) {
                Timestamp::ZERO
            } else {
                self.now
            }),
            subscription_ids: if defect!(SubscriptionIdMissing) { &[] } else { delivery.ids.as_slice() },
        };
        if !self.is_prompt || !leaves_from_where_it_is(shared.payload.len()) {
            write_publish(c, self.counters, &shared, &mut head);
        } else if write_head_or_all::<false>(c, self.counters, &shared, &mut head) {
            self.bodies.push(c.out.len(), delivery.message, shared.payload.len());
            self.messages.hold(delivery.message);
        }
    }

    /// Sends the next retained message of a new subscription ([MQTT-3.3.1-8] of 3.1.1).
    fn replay_next(&mut self, c: &mut Connection, session: &mut Session) -> Replayed {
        let has_room = session.ledger.has_room(c.window.max());
        let Some(replay) = session.replays.front_mut() else { return Replayed::Some };
        // Those that ask other shards look up what is here when these have answered.
        if replay.found.is_none() && replay.far.is_none() {
            // A client may subscribe to very many filters, and a look-up may find nothing.
            if self.drained.lookups == LOOKUPS {
                return Replayed::Later;
            }
            self.drained.lookups += 1;
            let mut found = self.router.retained_matching(&replay.filter);
            // In the order in which they were retained, so that one number tells how far it is.
            let number = |key: &MessageKey| MessageId(self.messages.get(*key).map_or(0, Held::retained_at));
            // What was set later came live.
            found.retain(|key| replay.left.wants(number(key)));
            found.sort_unstable_by_key(number);
            found.iter().for_each(|&message| self.messages.hold(message));
            replay.found = Some(found);
        }
        let next = replay.next(self.messages);
        if replay.far.as_ref().is_some_and(|far| far.is_low()) {
            self.drained.more = Some(replay.number);
        }
        let (number, message, from) = match next {
            Next::Message(number, message, from) => (number, message, from),
            Next::Unknown => return Replayed::Blocked,
            Next::Nothing => {
                let Some(done) = session.replays.pop_front() else { return Replayed::Some };
                self.drained.answered.extend(done.far.as_ref().map(|_| done.number));
                if done.noted {
                    let filter = done.filter.into();
                    self.journal.op(StoreOp::DeleteReplay { session: session.id, filter });
                }
                return Replayed::Some;
            }
        };
        if let Some(&after) = self.unstored_retained.get(&message)
            && after > self.journal.stored()
        {
            self.drained.blocked_by = Some(after);
            return Replayed::Blocked;
        }
        let qos =
            self.messages.get(message).map_or(QoS::AtMostOnce, |held| delivery_qos(held.qos, replay.qos));
        if qos > QoS::AtMostOnce && !has_room {
            return Replayed::Blocked;
        }
        replay.pass(number, from);
        let Some(held) = self.messages.get(message) else { return Replayed::Some };
        // What was replaced came live, and what was removed is not wanted.
        let stale = number == MessageId(0);
        let ids = replay.ids.clone();
        let delivery = Delivery { message, group: None, qos, retain: true, entry: None, ids };
        let size = held.size();
        let author = self.messages.author(message);
        let revoked = author.is_some_and(|s| !self.acls.may_keep(s, held.topic_str()));
        if revoked || held.is_expired(self.now) {
            self.drained.expired.push(message);
            self.drained.finished.push(delivery.uncounted(session, size));
        } else if stale || !self.acls.may_read(session, held.topic_str()) {
            self.drained.finished.push(delivery.uncounted(session, size));
        } else if let Some(reason) = self.unwanted(c, session, &delivery) {
            self.drained.dropped.push((delivery.uncounted(session, size), reason));
        } else if qos == QoS::AtMostOnce {
            self.write(c, &delivery, None, false);
            self.drained.finished.push(delivery.uncounted(session, size));
        } else if let Some(id) = session.ledger.free_id(|_| false) {
            let mut delivery = delivery;
            if session.stored {
                self.append(session, &mut delivery);
            }
            self.bind(session, id, delivery);
        }
        Replayed::Some
    }
}

/// How many packet identifiers a session gets until the store is told again. Well below the distance
/// that a restart keeps from the last one that it knows.
const NOTED_EVERY: u16 = 4096;
/// Look-ups of retained messages that one drain makes at most.
const LOOKUPS: usize = 16;

/// What came of sending a retained message.
enum Replayed {
    /// It went out, or there was nothing to send.
    Some,
    /// The window has no room.
    Blocked,
    /// Enough for now.
    Later,
}

impl Delivery {
    /// What stands before the message in a packet without an alias.
    pub(super) fn largest_head(&self, message_expiry: Option<u32>) -> PublishHead<'_> {
        PublishHead {
            qos: self.qos,
            packet_id: (self.qos > QoS::AtMostOnce).then_some(PacketId::MIN),
            message_expiry,
            subscription_ids: self.ids.as_slice(),
            ..PublishHead::default()
        }
    }

    /// For a delivery that never was in the queue: makes up for what discarding it will take off.
    fn uncounted(self, session: &mut Session, size: usize) -> Self {
        session.queued_bytes += size;
        self
    }
}

/// Writes a PUBLISH, by an alias if the topic has one.
pub(super) fn write_publish(
    c: &mut Connection,
    counters: &mut Counters,
    shared: &SharedPublish<'_>,
    head: &mut PublishHead<'_>,
) {
    write_head_or_all::<true>(c, counters, shared, head);
}

/// The same, or all but the payload. Whether it was written.
#[inline(always)]
fn write_head_or_all<const ALL: bool>(
    c: &mut Connection,
    counters: &mut Counters,
    shared: &SharedPublish<'_>,
    head: &mut PublishHead<'_>,
) -> bool {
    if let Some(extras) = &mut c.extras {
        // Three bytes more must still fit.
        let fits = shared.encoded_len(c.version, head).saturating_add(8) <= c.max_packet as usize;
        match if fits { extras.outbound.assign(shared.topic) } else { Alias::None } {
            Alias::None => {}
            Alias::Set(alias) => (head.alias, head.topic_known) = (Some(alias), defect!(AliasUnknown)),
            Alias::Use(alias) => (head.alias, head.topic_known) = (Some(alias), true),
        }
    }
    let written = if ALL {
        shared.encode(c.version, head, &mut c.out)
    } else {
        shared.encode_head(c.version, head, &mut c.out)
    };
    if written {
        c.note_publish(counters, head.qos, shared.payload.len());
    }
    written
}

/// Writes a packet whose fields are ours. One that is larger than the client takes is left out
/// ([MQTT-3.1.2-24]), as is what cannot be encoded, which would be a fault of ours.
#[inline(always)]
pub(super) fn put(c: &mut Connection, packet: &PacketRef<'_>) -> bool {
    let version: Version = c.version;
    if c.max_packet < MAX_PACKET_SIZE
        && packet.encoded_len(version).is_ok_and(|len| len > c.max_packet as usize)
    {
        return false;
    }
    let written = packet.encode(version, &mut c.out).is_ok();
    c.packets += u32::from(written);
    written
}
