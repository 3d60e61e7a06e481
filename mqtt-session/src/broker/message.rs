//! The messages that the broker holds, each once however many sessions want it.

pub(crate) use super::content::Content;
pub(super) use super::content::Incoming;
use super::journal::Journal;
use super::shrink::{Pool, Shrink};
use crate::random::IdMap;
use crate::store::{MessageId, StoredAuthor, StoredMessage};
use crate::{StoreOp, Timestamp};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use mqtt_proto::{Properties, PropertiesBuf, PropertyContext, PropertyId, QoS, SharedPublish, TopicName};
use slab::Slab;

/// The number of a message in memory.
pub(super) type MessageKey = u32;

/// A message and how many hold it: queues, exchanges, the retained tree, and whoever routes it.
#[derive(Debug)]
pub(super) struct Held {
    /// Topic, forwarded properties and payload, one behind the other; then the moment when it expires, if it does; then
    /// perhaps room that it does not need.
    body: Box<[u8]>,
    /// Its number in the store, or of the retained write that made it the present retained message of its topic. What
    /// has both has one for both.
    number: u64,
    /// Of topic, properties and payload.
    len: u32,
    properties_len: u32,
    holders: u32,
    topic_len: u16,
    pub(super) qos: QoS,
    marks: u8,
}

/// The retain flag of the publication.
const RETAIN: u8 = 1;
/// It is the present retained message of its topic.
const RETAINED: u8 = 1 << 1;
/// It is in the store.
const STORED: u8 = 1 << 2;
/// It expires.
const EXPIRES: u8 = 1 << 3;

/// Bytes that the moment takes at which it expires.
const EXPIRY: usize = size_of::<u64>();

impl Held {
    /// What is held once, of these lengths: all of it, its topic, and its properties.
    #[inline]
    fn new(body: Box<[u8]>, lens: [usize; 3], qos: QoS, retain: bool, expires: Timestamp) -> Self {
        let [len, topic_len, properties_len] = lens;
        let expires = if expires == Timestamp::MAX { 0 } else { EXPIRES };
        Self {
            body,
            number: 0,
            properties_len: u32::try_from(properties_len).unwrap_or(u32::MAX),
            len: u32::try_from(len).unwrap_or(u32::MAX),
            holders: 1,
            topic_len: u16::try_from(topic_len).unwrap_or(u16::MAX),
            qos,
            marks: if retain { RETAIN } else { 0 } | expires,
        }
    }

    #[inline]
    fn part(&self, from: usize, to: usize) -> &[u8] {
        self.body.get(from..to).unwrap_or_default()
    }

    #[inline]
    pub(super) fn topic(&self) -> &[u8] {
        self.part(0, usize::from(self.topic_len))
    }

    pub(super) fn topic_str(&self) -> &str {
        // It was text when it came in.
        core::str::from_utf8(self.topic()).unwrap_or_default()
    }

    #[inline]
    fn payload_at(&self) -> usize {
        usize::from(self.topic_len) + usize::try_from(self.properties_len).unwrap_or_default()
    }

    #[inline]
    pub(super) fn payload(&self) -> &[u8] {
        self.part(self.payload_at(), self.body_len())
    }

    #[inline]
    fn properties(&self) -> &[u8] {
        self.part(usize::from(self.topic_len), self.payload_at())
    }

    /// The parts that all receivers share.
    #[inline(always)]
    pub(super) fn shared(&self) -> SharedPublish<'_> {
        let body = self.body.get(..self.body_len()).unwrap_or_default();
        let (topic, rest) = body.split_at_checked(usize::from(self.topic_len)).unwrap_or_default();
        let properties_len = usize::try_from(self.properties_len).unwrap_or_default();
        let (properties, payload) = rest.split_at_checked(properties_len).unwrap_or_default();
        SharedPublish { topic, properties, payload }
    }

    /// What is routed. Without its author.
    pub(super) fn content(&self) -> Content<'_> {
        Content { shared: self.shared(), qos: self.qos, retain: self.retain(), expires: self.expires() }
    }

    const fn has(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    /// The retain flag of the publication.
    pub(super) const fn retain(&self) -> bool {
        self.has(RETAIN)
    }

    #[inline]
    pub(super) fn expires(&self) -> Timestamp {
        if !self.has(EXPIRES) {
            return Timestamp::MAX;
        }
        self.written_expiry()
    }

    #[cold]
    fn written_expiry(&self) -> Timestamp {
        let at = self.body.get(self.body_len()..).and_then(|rest| rest.first_chunk());
        at.map_or(Timestamp::MAX, |at| Timestamp::from_micros(u64::from_le_bytes(*at)))
    }

    /// What expires does so at another moment.
    pub(super) fn set_expires(&mut self, expires: Timestamp) {
        let at = self.body_len();
        if self.has(EXPIRES)
            && let Some(place) = self.body.get_mut(at..).and_then(|rest| rest.first_chunk_mut())
        {
            *place = expires.as_micros().to_le_bytes();
        }
    }

    /// Since which retained write it is the present retained message of its topic; 0 if it is not.
    pub(super) const fn retained_at(&self) -> u64 {
        if self.has(RETAINED) { self.number } else { 0 }
    }

    /// It is the present retained message since this retained write, or with 0 no longer. For what is stored, the write
    /// has the number in the store.
    pub(super) const fn set_retained_at(&mut self, write: u64) {
        if write == 0 {
            self.marks &= !RETAINED;
            return;
        }
        self.marks |= RETAINED;
        if !self.has(STORED) {
            self.number = write;
        }
    }

    /// Its number in the store, once it has one.
    pub(super) fn stored(&self) -> Option<MessageId> {
        self.has(STORED).then_some(MessageId(self.number))
    }

    pub(super) const fn set_stored(&mut self, id: MessageId) {
        self.marks |= STORED;
        self.number = id.0;
    }

    /// It has none any more.
    pub(super) const fn forget_stored(&mut self) {
        self.marks &= !STORED;
        self.number = 0;
    }

    #[inline]
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.has(EXPIRES) && self.written_expiry() <= now
    }

    /// What is left of the lifetime in seconds, rounded up, if it has one
    /// ([MQTT-3.3.2-6]).
    #[inline]
    pub(super) fn expiry_left(&self, now: Timestamp) -> Option<u32> {
        if self.has(EXPIRES) { expiry_left(self.written_expiry(), now) } else { None }
    }

    pub(super) const fn is_held_once(&self) -> bool {
        self.holders == 1
    }

    /// Bytes of topic, properties and payload.
    #[inline]
    pub(super) fn body_len(&self) -> usize {
        usize::try_from(self.len).unwrap_or_default()
    }

    /// Bytes of the body that it needs.
    fn needed(&self) -> usize {
        self.body_len() + if self.has(EXPIRES) { EXPIRY } else { 0 }
    }

    /// Whether its body is much larger than it needs.
    #[inline]
    pub(super) fn is_loose(&self) -> bool {
        self.body.len() > SLACK + self.body_len() / 2 * 3
    }

    /// Bytes that count against limits.
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.body_len() + OVERHEAD
    }

    /// Copies it out for somebody who gets it as a value.
    pub(super) fn to_message(&self, now: Timestamp, qos: QoS, retain: bool, ids: &[u32]) -> crate::Message {
        let list = Properties::parse(self.properties(), PropertyContext::Publish).unwrap_or_default();
        let mut properties = PropertiesBuf::from(list);
        if let Some(left) = self.expiry_left(now) {
            // Not there yet: it is none of the forwarded ones.
            let _ = properties.push(mqtt_proto::Property::MessageExpiryInterval(left));
        }
        for &id in ids {
            let _ = properties.push(mqtt_proto::Property::SubscriptionIdentifier(id));
        }
        let payload = Bytes::copy_from_slice(self.payload());
        crate::Message { topic: self.topic_str().into(), payload, qos, retain, properties }
    }

    fn to_stored(&self, author: Option<&StoredAuthor>) -> StoredMessage {
        StoredMessage {
            body: Bytes::copy_from_slice(self.part(0, self.body_len())),
            topic_len: self.topic_len,
            properties_len: self.properties_len,
            qos: self.qos,
            retain: self.retain(),
            expires_at: self.has(EXPIRES).then(|| self.expires().as_micros()),
            author: author.cloned().map(Box::new),
        }
    }
}

pub(super) fn expiry_left(expires: Timestamp, now: Timestamp) -> Option<u32> {
    (expires != Timestamp::MAX).then(|| {
        let micros = expires.since(now).as_micros();
        u32::try_from(micros.div_ceil(1_000_000)).unwrap_or(u32::MAX)
    })
}

/// What a message costs beyond its bytes, about: its record, its place in a queue, and what the allocator adds.
const OVERHEAD: usize = size_of::<Held>() + 24;
/// Bodies up to this many bytes are kept for the next message, so that steady traffic allocates
/// nothing; so many of them, and so many bytes.
const SPARE_CAPACITY: usize = 8 << 10;
const SPARES: usize = 8192;
const SPARE_BYTES: usize = 4 << 20;
/// A body has at most this and half of what it needs for nothing while it waits for somebody who is away.
const SLACK: usize = 64;

/// Copies a part to where a body has room, and gives the room behind it.
#[inline]
fn put<'a>(body: &'a mut [u8], part: &[u8]) -> &'a mut [u8] {
    let Some((place, behind)) = body.split_at_mut_checked(part.len()) else { return &mut [] };
    place.copy_from_slice(part);
    behind
}

#[derive(Debug, Default)]
pub(super) struct Messages {
    held: Slab<Held>,
    bytes: usize,
    spares: Pool<Box<[u8]>>,
    spare_bytes: usize,
    /// Who published what is retained, where rights matter.
    authors: IdMap<MessageKey, Box<StoredAuthor>>,
    scratch: PropertiesBuf,
}

impl Messages {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn shrink(&mut self) {
        self.held.shrink();
        let gone: usize = self.spares.cut().map(|body| body.len()).sum();
        self.spare_bytes = self.spare_bytes.saturating_sub(gone);
        self.authors.shrink();
    }

    /// Bytes of all messages, each counted once.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Holds a message that came at `now` for the caller, who releases it.
    pub(super) fn insert(&mut self, now: Timestamp, message: &Incoming<'_>) -> MessageKey {
        let mut scratch = core::mem::take(&mut self.scratch);
        let key = self.hold_content(&message.content(now, &mut scratch));
        self.scratch = scratch;
        key
    }

    /// Holds a message for the caller, who releases it.
    #[inline]
    pub(super) fn hold_content(&mut self, content: &Content<'_>) -> MessageKey {
        let SharedPublish { topic, properties, payload } = content.shared;
        let len = content.len();
        let expires = content.expires != Timestamp::MAX;
        let expiry = content.expires.as_micros().to_le_bytes();
        let needed = len + if expires { EXPIRY } else { 0 };
        let mut spare = self.spares.take().unwrap_or_default();
        // Never below zero: it was added.
        self.spare_bytes = self.spare_bytes.saturating_sub(spare.len());
        let body = if spare.len() < needed {
            let mut body = Vec::with_capacity(needed);
            body.extend_from_slice(topic);
            body.extend_from_slice(properties);
            body.extend_from_slice(payload);
            if expires {
                body.extend_from_slice(&expiry);
            }
            body.into()
        } else {
            let mut rest = put(&mut spare, topic);
            // Mostly there are none.
            if !properties.is_empty() {
                rest = put(rest, properties);
            }
            rest = put(rest, payload);
            if expires {
                put(rest, &expiry);
            }
            spare
        };
        let lens = [len, topic.len(), properties.len()];
        self.add(Held::new(body, lens, content.qos, content.retain, content.expires))
    }

    #[inline]
    fn add(&mut self, held: Held) -> MessageKey {
        self.bytes += held.size();
        MessageKey::try_from(self.held.insert(held)).unwrap_or(MessageKey::MAX)
    }

    /// Keeps a body for the next message.
    #[inline]
    fn spare(&mut self, body: Box<[u8]>) {
        let fits = self.spares.len() < SPARES && self.spare_bytes + body.len() <= SPARE_BYTES;
        if fits && body.len() <= SPARE_CAPACITY {
            self.spare_bytes += body.len();
            self.spares.put(body);
        }
    }

    /// A message is going to stay: gives back what its body has too much.
    pub(super) fn settle(&mut self, key: MessageKey) {
        if let Some(held) = self.held.get_mut(key as usize)
            && held.is_loose()
            && let Some(needed) = held.body.get(..held.needed())
        {
            let needed = needed.into();
            let large = core::mem::replace(&mut held.body, needed);
            self.spare(large);
        }
    }

    /// Holds a message of the store for the caller, who releases it. `None` if it is none.
    pub(super) fn restore(&mut self, stored: &StoredMessage) -> Option<MessageKey> {
        let topic_len = usize::from(stored.topic_len);
        let properties_len = usize::try_from(stored.properties_len).ok()?;
        let (topic, rest) = stored.body.split_at_checked(topic_len)?;
        let (properties, _) = rest.split_at_checked(properties_len)?;
        TopicName::new(core::str::from_utf8(topic).ok()?).ok()?;
        let properties = Properties::parse(properties, PropertyContext::Publish).ok()?;
        // These belong to one connection, and are never part of a message.
        let of_link = [PropertyId::TopicAlias, PropertyId::SubscriptionIdentifier];
        if of_link.into_iter().any(|id| properties.contains(id)) {
            return None;
        }
        Some(self.adopt(stored.clone()))
    }

    /// Holds a message of another shard for the caller, who releases it. It was one there, so it is not looked at; its
    /// body is taken over if nobody else has it.
    pub(super) fn adopt(&mut self, stored: StoredMessage) -> MessageKey {
        let StoredMessage { body, topic_len, properties_len, qos, retain, expires_at, author } = stored;
        let (topic, properties) =
            (usize::from(topic_len), usize::try_from(properties_len).unwrap_or_default());
        let lens = [body.len(), topic, properties];
        let expires = expires_at.map_or(Timestamp::MAX, Timestamp::from_micros);
        let mut body = Vec::from(body);
        if expires != Timestamp::MAX {
            body.extend_from_slice(&expires.as_micros().to_le_bytes());
        }
        // What it has too much stays, instead of being copied.
        body.resize(body.capacity(), 0);
        let key = self.add(Held::new(body.into(), lens, qos, retain, expires));
        if let Some(author) = author {
            self.sign(key, author);
        }
        key
    }

    /// Notes who published a message.
    pub(super) fn sign(&mut self, key: MessageKey, author: Box<StoredAuthor>) {
        self.authors.insert(key, author);
    }

    /// Who published a message, if that was noted.
    pub(super) fn author(&self, key: MessageKey) -> Option<&StoredAuthor> {
        self.authors.get(&key).map(|author| &**author)
    }

    /// What the store keeps of a message.
    pub(super) fn to_stored(&self, key: MessageKey) -> Option<StoredMessage> {
        Some(self.get(key)?.to_stored(self.author(key)))
    }

    pub(super) fn get(&self, key: MessageKey) -> Option<&Held> {
        self.held.get(key as usize)
    }

    pub(super) fn get_mut(&mut self, key: MessageKey) -> Option<&mut Held> {
        self.held.get_mut(key as usize)
    }

    /// The body's number in the store, where it is put if it is not there.
    pub(super) fn store_body(&mut self, key: MessageKey, journal: &mut Journal) -> Option<MessageId> {
        let held = self.get_mut(key)?;
        if held.stored().is_none() && journal.is_on() {
            // The number of a retained write that was not stored is that of no message.
            let id = match held.retained_at() {
                0 => journal.new_message(),
                write => MessageId(write),
            };
            held.set_stored(id);
            let stored = self.to_stored(key)?;
            journal.op(StoreOp::PutMessage(id, Box::new(stored)));
            return Some(id);
        }
        held.stored()
    }

    /// One holder more.
    pub(super) fn hold(&mut self, key: MessageKey) {
        if let Some(held) = self.held.get_mut(key as usize) {
            held.holders += 1;
        }
    }

    /// One holder less. Gives the stored number of a message that nobody holds any more.
    #[inline]
    pub(super) fn release(&mut self, key: MessageKey) -> Option<MessageId> {
        let held = self.held.get_mut(key as usize)?;
        held.holders = held.holders.checked_sub(1)?;
        if held.holders > 0 {
            return None;
        }
        self.remove(key)
    }

    #[inline(never)]
    fn remove(&mut self, key: MessageKey) -> Option<MessageId> {
        let held = self.held.try_remove(key as usize)?;
        let stored = held.stored();
        self.bytes -= held.size();
        self.spare(held.body);
        if !self.authors.is_empty() {
            self.authors.remove(&key);
        }
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(messages: &mut Messages, payload: &[u8], expires: Timestamp) -> MessageKey {
        let shared = SharedPublish { topic: b"a/b", properties: &[1, 1], payload };
        messages.hold_content(&Content { shared, qos: QoS::AtLeastOnce, retain: true, expires })
    }

    /// A body that had more is used again, and given back by what is going to stay.
    #[test]
    fn bodies_are_used_again() {
        for expires in [Timestamp::MAX, Timestamp::from_micros(7)] {
            let mut messages = Messages::default();
            let large = hold(&mut messages, &[1; 4096], Timestamp::MAX);
            messages.release(large);
            let key = hold(&mut messages, b"small", expires);
            let before = messages.to_stored(key);
            assert_eq!((messages.spare_bytes, messages.bytes()), (0, 10 + OVERHEAD));
            messages.settle(key);
            assert_eq!((messages.spare_bytes, messages.bytes()), (4101, 10 + OVERHEAD));
            assert_eq!(messages.to_stored(key), before);
            let copy = messages.adopt(before.unwrap());
            let held = messages.get_mut(copy).unwrap();
            assert_eq!((held.topic(), held.payload(), held.expires()), (&b"a/b"[..], &b"small"[..], expires));
            held.set_expires(Timestamp::ZERO);
            assert_eq!(held.is_expired(Timestamp::ZERO), expires != Timestamp::MAX);
        }
    }

    #[test]
    fn a_stored_message_keeps_its_number() {
        let mut messages = Messages::default();
        let key = hold(&mut messages, b"", Timestamp::MAX);
        let held = messages.get_mut(key).unwrap();
        held.set_retained_at(3);
        assert_eq!((held.retained_at(), held.stored()), (3, None));
        held.set_stored(MessageId(5));
        held.set_retained_at(6);
        assert_eq!((held.retained_at(), held.stored()), (5, Some(MessageId(5))));
        held.set_retained_at(0);
        assert_eq!((held.retained_at(), held.stored()), (0, Some(MessageId(5))));
        assert_eq!(messages.release(key), Some(MessageId(5)));
    }
}
