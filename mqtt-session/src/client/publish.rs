//! Publishing: what is checked before a message is taken.

use super::event::Token;
use super::reconnect::Phase;
use super::session::Outgoing;
use super::{Client, persist};
use crate::{Message, PublishError, PublishErrorKind, Timestamp};
use alloc::vec;
use mqtt_proto::{
    PacketId, PacketRef, PropertiesBuf, PropertyId, PublishHead, PublishRef, QoS, ReasonCode, SharedPublish,
    Version, Violation,
};

use super::event::{Limits, Outcome};

impl Client {
    /// Takes a message, to be sent as soon as possible, in the order of the calls. Without a connection
    /// it waits. What becomes of it is told by [`Event::Done`](super::Event::Done).
    ///
    /// # Errors
    /// If the message breaks a rule, the server (when connected) does not support it, the queue is
    /// full, or the client is closed. The message is handed back.
    pub fn publish(&mut self, now: Timestamp, message: Message) -> Result<Token, PublishError> {
        let now = self.advance(now);
        if let Err(kind) = self.check(now, &message) {
            return Err(PublishError::new(kind, message));
        }
        let token = self.next_token();
        let stored = self.store.is_on() && message.qos != QoS::AtMostOnce;
        let (message, expires_at) = take_expiry(message, now);
        let outgoing = Outgoing { token, message, expires_at, stored };
        if stored {
            let ops = vec![persist::put_message(&outgoing), persist::append(self.store.session, &outgoing)];
            self.store_ops(|| ops);
        }
        self.session.push(outgoing);
        self.flush();
        Ok(token)
    }

    fn check(&mut self, now: Timestamp, message: &Message) -> Result<(), PublishErrorKind> {
        if self.is_closed() {
            return Err(PublishErrorKind::Closed);
        }
        let list = message.properties.as_properties();
        // [MQTT-3.3.4-6]; aliases are given by the machine, because they belong to a link.
        if list.contains(PropertyId::SubscriptionIdentifier) || list.contains(PropertyId::TopicAlias) {
            return Err(PublishErrorKind::Invalid(Violation::PropertyNotAllowed));
        }
        let size = as_packet(message)
            .encoded_len(self.config.version)
            .map_err(|error| PublishErrorKind::Invalid(error.violation()))?;
        if let Some(limits) = self.limits() {
            match refusal(limits, message, size) {
                None => {}
                Some(Outcome::NotSupported(ReasonCode::QosNotSupported)) => {
                    return Err(PublishErrorKind::QosNotSupported(limits.max_qos));
                }
                Some(Outcome::NotSupported(_)) => return Err(PublishErrorKind::RetainNotSupported),
                Some(_) => {
                    return Err(PublishErrorKind::TooLarge { size, max: limits.max_packet_size });
                }
            }
        }
        if message.qos != QoS::AtMostOnce && self.store.has_failed() {
            return Err(PublishErrorKind::StoreFailed);
        }
        let size = message.size();
        if size > self.config.max_queued_bytes {
            let max = u32::try_from(self.config.max_queued_bytes).unwrap_or(u32::MAX);
            return Err(PublishErrorKind::TooLarge { size, max });
        }
        if !self.has_room(size) {
            // What has expired must not keep out what has not.
            self.expire_queue(now);
        }
        let store_full = self.store.bytes() > self.config.max_queued_bytes;
        if !self.has_room(size) || store_full && message.qos != QoS::AtMostOnce {
            return Err(PublishErrorKind::QueueFull);
        }
        Ok(())
    }

    /// Whether commands are refused: `disconnect` was called, or the client gave up.
    pub(super) fn is_closed(&self) -> bool {
        self.closing.is_some() || self.phase == Phase::Stopped
    }
}

/// Takes the expiry out of the properties: what is left of it is known when the message is sent.
fn take_expiry(mut message: Message, now: Timestamp) -> (Message, Option<Timestamp>) {
    let list = message.properties.as_properties();
    let Some(secs) = list.message_expiry_interval() else { return (message, None) };
    let mut rest = PropertiesBuf::new();
    rest.extend_except(list, &[PropertyId::MessageExpiryInterval]);
    message.properties = rest;
    (message, Some(now.plus_secs(secs)))
}

/// The packet that carries `message`.
fn as_packet(message: &Message) -> PacketRef<'_> {
    PacketRef::Publish(PublishRef {
        dup: false,
        qos: message.qos,
        retain: message.retain,
        topic: &message.topic,
        packet_id: (message.qos != QoS::AtMostOnce).then_some(PacketId::MIN),
        properties: message.properties.as_properties(),
        payload: &message.payload,
    })
}

/// The length of the packet that carries a message, without an alias.
pub(super) fn packet_size(outgoing: &Outgoing, version: Version) -> usize {
    let Message { topic, payload, properties, qos, .. } = &outgoing.message;
    let properties = properties.as_properties().as_bytes();
    let publish = SharedPublish { topic: topic.as_bytes(), properties, payload };
    let head = PublishHead {
        packet_id: (*qos != QoS::AtMostOnce).then_some(PacketId::MIN),
        message_expiry: outgoing.expires_at.map(|_| 0),
        ..PublishHead::default()
    };
    publish.encoded_len(version, &head)
}

/// Why this server cannot get the message, whose packet has `size` bytes ([MQTT-3.2.2-11],
/// [MQTT-3.2.2-14], [MQTT-3.2.2-15]).
pub(super) fn refusal(limits: &Limits, message: &Message, size: usize) -> Option<Outcome> {
    if message.qos > limits.max_qos {
        return Some(Outcome::NotSupported(ReasonCode::QosNotSupported));
    }
    if message.retain && !limits.retain {
        return Some(Outcome::NotSupported(ReasonCode::RetainNotSupported));
    }
    let max = limits.max_packet_size;
    let fits = usize::try_from(max).is_ok_and(|max| size <= max);
    (!fits).then_some(Outcome::TooLarge { size, max })
}
