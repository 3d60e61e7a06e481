//! The messages that the broker holds, each once however many sessions want it.

use super::journal::Journal;
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
    /// Topic, forwarded properties and payload, one behind the other.
    body: Vec<u8>,
    topic_len: u16,
    properties_len: u32,
    holders: u32,
    pub(super) qos: QoS,
    /// The retain flag of the publication.
    pub(super) retain: bool,
    /// It is the present retained message of its topic since this retained write; 0 if it is not.
    pub(super) retained_at: u64,
    pub(super) expires: Timestamp,
    /// Who published it, if it is retained and rights matter.
    pub(super) author: Option<Box<StoredAuthor>>,
    /// Its number in the store, once it has one.
    pub(super) stored: Option<MessageId>,
}

impl Held {
    fn part(&self, from: usize, to: usize) -> &[u8] {
        self.body.get(from..to).unwrap_or_default()
    }

    pub(super) fn topic(&self) -> &[u8] {
        self.part(0, usize::from(self.topic_len))
    }

    pub(super) fn topic_str(&self) -> &str {
        // It was text when it came in.
        core::str::from_utf8(self.topic()).unwrap_or_default()
    }

    fn payload_at(&self) -> usize {
        usize::from(self.topic_len) + usize::try_from(self.properties_len).unwrap_or_default()
    }

    pub(super) fn payload(&self) -> &[u8] {
        self.part(self.payload_at(), self.body.len())
    }

    fn properties(&self) -> &[u8] {
        self.part(usize::from(self.topic_len), self.payload_at())
    }

    /// The parts that all receivers share.
    pub(super) fn shared(&self) -> SharedPublish<'_> {
        SharedPublish { topic: self.topic(), properties: self.properties(), payload: self.payload() }
    }

    /// What is routed. Without its author.
    pub(super) fn content(&self) -> Content<'_> {
        Content { shared: self.shared(), qos: self.qos, retain: self.retain, expires: self.expires }
    }

    pub(super) const fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.as_micros() <= now.as_micros()
    }

    /// What is left of the lifetime in seconds, rounded up, if it has one
    /// ([MQTT-3.3.2-6]).
    pub(super) fn expiry_left(&self, now: Timestamp) -> Option<u32> {
        expiry_left(self.expires, now)
    }

    pub(super) const fn is_held_once(&self) -> bool {
        self.holders == 1
    }

    /// Bytes of topic, properties and payload.
    pub(super) fn body_len(&self) -> usize {
        self.body.len()
    }

    /// Bytes that count against limits.
    pub(super) fn size(&self) -> usize {
        self.body.len() + OVERHEAD
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

    pub(super) fn to_stored(&self) -> StoredMessage {
        StoredMessage {
            body: Bytes::copy_from_slice(&self.body),
            topic_len: self.topic_len,
            properties_len: self.properties_len,
            qos: self.qos,
            retain: self.retain,
            expires_at: (self.expires != Timestamp::MAX).then_some(self.expires.as_micros()),
            author: self.author.clone(),
        }
    }
}

pub(super) fn expiry_left(expires: Timestamp, now: Timestamp) -> Option<u32> {
    (expires != Timestamp::MAX).then(|| {
        let micros = expires.since(now).as_micros();
        u32::try_from(micros.div_ceil(1_000_000)).unwrap_or(u32::MAX)
    })
}

/// What a message costs beyond its bytes, about.
const OVERHEAD: usize = size_of::<Held>();
/// Bodies up to this many bytes are kept for the next message, so that steady traffic allocates
/// nothing; so many of them, and so many bytes.
const SPARE_CAPACITY: usize = 8 << 10;
const SPARES: usize = 8192;
const SPARE_BYTES: usize = 4 << 20;

/// What comes in to be held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming<'a> {
    pub(super) topic: &'a [u8],
    pub(super) properties: Properties<'a>,
    pub(super) payload: &'a [u8],
    pub(super) qos: QoS,
    pub(super) retain: bool,
}

impl<'a> Incoming<'a> {
    /// The message as it is routed, if it came at `now`: its lifetime counts from then ([MQTT-3.3.2-6]).
    #[inline]
    pub(super) fn content(&self, now: Timestamp, scratch: &'a mut PropertiesBuf) -> Content<'a> {
        let Forwarded { properties, expires } = Forwarded::of(self.properties, now, scratch);
        let shared = SharedPublish { topic: self.topic, properties, payload: self.payload };
        Content { shared, qos: self.qos, retain: self.retain, expires }
    }
}

/// A message as it is routed, wherever its bytes are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content<'a> {
    pub(crate) shared: SharedPublish<'a>,
    pub(crate) qos: QoS,
    /// The retain flag of the publication.
    pub(crate) retain: bool,
    pub(crate) expires: Timestamp,
}

impl Content<'_> {
    /// Bytes of topic, properties and payload.
    pub(crate) const fn len(&self) -> usize {
        self.shared.topic.len() + self.shared.properties.len() + self.shared.payload.len()
    }

    pub(super) fn topic_str(&self) -> &str {
        // It was text when it came in.
        core::str::from_utf8(self.shared.topic).unwrap_or_default()
    }
}

/// What becomes of the properties of a message that came.
#[derive(Clone, Copy, Debug)]
struct Forwarded<'a> {
    /// Those that are forwarded.
    properties: &'a [u8],
    expires: Timestamp,
}

impl<'a> Forwarded<'a> {
    /// Of a message that came at `now`. What is forwarded stays as it is ([MQTT-3.3.2-4], [MQTT-3.3.2-15],
    /// [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-20]) and where it is ([MQTT-3.3.2-18],
    /// [MQTT-3.1.3-10]).
    fn of(properties: Properties<'a>, now: Timestamp, scratch: &'a mut PropertiesBuf) -> Self {
        if properties.is_empty() {
            return Self { properties: &[], expires: Timestamp::MAX };
        }
        let expires = properties.message_expiry_interval().map_or(Timestamp::MAX, |s| now.plus_secs(s));
        if !OF_ONE_HOP.iter().any(|&id| properties.contains(id)) {
            return Self { properties: properties.as_bytes(), expires };
        }
        scratch.clear();
        scratch.extend_except(properties, &OF_ONE_HOP);
        Self { properties: scratch.as_properties().as_bytes(), expires }
    }
}

#[derive(Debug, Default)]
pub(super) struct Messages {
    held: Slab<Held>,
    bytes: usize,
    spares: Vec<Vec<u8>>,
    spare_bytes: usize,
    scratch: PropertiesBuf,
}

/// Properties that belong to one hop and are not forwarded as they came.
const OF_ONE_HOP: [PropertyId; 4] = [
    PropertyId::MessageExpiryInterval,
    PropertyId::TopicAlias,
    PropertyId::SubscriptionIdentifier,
    // A will's own; it must not stand in PUBLISH.
    PropertyId::WillDelayInterval,
];

impl Messages {
    pub(super) fn len(&self) -> usize {
        self.held.len()
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
        let mut body = self.spares.pop().unwrap_or_default();
        // Never below zero: it was added.
        self.spare_bytes = self.spare_bytes.saturating_sub(body.capacity());
        body.clear();
        body.reserve(content.len());
        body.extend_from_slice(topic);
        body.extend_from_slice(properties);
        body.extend_from_slice(payload);
        let held = Held {
            body,
            topic_len: u16::try_from(topic.len()).unwrap_or(u16::MAX),
            properties_len: u32::try_from(properties.len()).unwrap_or(u32::MAX),
            holders: 1,
            qos: content.qos,
            retain: content.retain,
            retained_at: 0,
            expires: content.expires,
            author: None,
            stored: None,
        };
        self.bytes += held.size();
        MessageKey::try_from(self.held.insert(held)).unwrap_or(MessageKey::MAX)
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
        let held = Held {
            body: body.into(),
            topic_len,
            properties_len,
            holders: 1,
            qos,
            retain,
            retained_at: 0,
            expires: expires_at.map_or(Timestamp::MAX, Timestamp::from_micros),
            stored: None,
            author,
        };
        self.bytes += held.size();
        MessageKey::try_from(self.held.insert(held)).unwrap_or(MessageKey::MAX)
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
        if held.stored.is_none() && journal.is_on() {
            let id = journal.new_message();
            held.stored = Some(id);
            journal.op(StoreOp::PutMessage(id, Box::new(held.to_stored())));
        }
        held.stored
    }

    /// One holder more.
    pub(super) fn hold(&mut self, key: MessageKey) {
        if let Some(held) = self.held.get_mut(key as usize) {
            held.holders += 1;
        }
    }

    /// One holder less. Gives the stored number of a message that nobody holds any more.
    pub(super) fn release(&mut self, key: MessageKey) -> Option<MessageId> {
        let held = self.held.get_mut(key as usize)?;
        held.holders = held.holders.checked_sub(1)?;
        if held.holders > 0 {
            return None;
        }
        self.bytes -= held.size();
        let held = self.held.remove(key as usize);
        let capacity = held.body.capacity();
        let fits = self.spares.len() < SPARES && self.spare_bytes + capacity <= SPARE_BYTES;
        if fits && capacity <= SPARE_CAPACITY {
            self.spare_bytes += capacity;
            self.spares.push(held.body);
        }
        held.stored
    }
}
