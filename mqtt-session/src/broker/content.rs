//! Messages as they come, and what of them is routed.

use crate::Timestamp;
use mqtt_proto::{Properties, PropertiesBuf, PropertyId, QoS, SharedPublish};

/// Properties that belong to one hop and are not forwarded as they came.
const OF_ONE_HOP: [PropertyId; 4] = [
    PropertyId::MessageExpiryInterval,
    PropertyId::TopicAlias,
    PropertyId::SubscriptionIdentifier,
    // A will's own; it must not stand in PUBLISH.
    PropertyId::WillDelayInterval,
];

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
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.shared.topic.len() + self.shared.properties.len() + self.shared.payload.len()
    }

    #[inline]
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
