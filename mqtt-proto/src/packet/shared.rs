//! One message for many receivers: what they share is encoded once, what differs is a short head.

use crate::varint;
use crate::{MAX_VARINT, PacketId, PropertyId, QoS, Version};
use alloc::vec::Vec;

/// The parts of a PUBLISH that all its receivers share. They come from a packet that was decoded, so
/// they are not checked again.
#[derive(Clone, Copy, Debug)]
pub struct SharedPublish<'a> {
    /// The topic name.
    pub topic: &'a [u8],
    /// The properties that are forwarded as they came, without a length; none of those that
    /// [`PublishHead`] writes.
    pub properties: &'a [u8],
    /// The application's bytes.
    pub payload: &'a [u8],
}

/// The parts of a PUBLISH that differ between receivers.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublishHead<'a> {
    /// Whether this receiver may have been sent it before.
    pub dup: bool,
    /// QoS of this delivery.
    pub qos: QoS,
    /// Retain flag of this delivery.
    pub retain: bool,
    /// Present exactly above QoS 0.
    pub packet_id: Option<PacketId>,
    /// A topic alias (5.0).
    pub alias: Option<u16>,
    /// Whether the alias stands for the topic, which is then left out.
    pub topic_known: bool,
    /// What is left of the lifetime, in seconds (5.0).
    pub message_expiry: Option<u32>,
    /// Identifiers of the subscriptions that matched (5.0).
    pub subscription_ids: &'a [u32],
}

impl PublishHead<'_> {
    /// Length of the properties that the head adds.
    #[inline]
    fn properties_len(&self) -> usize {
        let mut len = 0;
        if self.alias.is_some() {
            len += 3;
        }
        if self.message_expiry.is_some() {
            len += 5;
        }
        for &id in self.subscription_ids {
            len += 1 + varint::varint_len(id);
        }
        len
    }
}

impl SharedPublish<'_> {
    #[inline]
    fn lens(&self, version: Version, head: &PublishHead<'_>) -> (usize, usize) {
        let topic = if head.topic_known { 0 } else { self.topic.len() };
        let id = if head.packet_id.is_some() { 2 } else { 0 };
        if !version.is_v5() {
            return (2 + topic + id + self.payload.len(), 0);
        }
        let properties = self.properties.len() + head.properties_len();
        let len_len = varint::varint_len(u32::try_from(properties).unwrap_or(u32::MAX));
        (2 + topic + id + len_len + properties + self.payload.len(), properties)
    }

    /// The exact length on the wire, to be compared with the receiver's Maximum Packet Size before
    /// the packet is written.
    #[must_use]
    #[inline]
    pub fn encoded_len(&self, version: Version, head: &PublishHead<'_>) -> usize {
        let (body, _) = self.lens(version, head);
        1 + varint::varint_len(u32::try_from(body).unwrap_or(u32::MAX)) + body
    }

    /// Appends the packet to `dst`, growing it at most once. A packet that the format cannot
    /// express (its [`SharedPublish::encoded_len`] is over [`MAX_PACKET_SIZE`](crate::MAX_PACKET_SIZE))
    /// is left out: false.
    #[inline(always)]
    pub fn encode(&self, version: Version, head: &PublishHead<'_>, dst: &mut Vec<u8>) -> bool {
        let written = self.write_head(version, head, self.payload.len(), dst);
        if written {
            dst.extend_from_slice(self.payload);
        }
        written
    }

    /// As [`SharedPublish::encode`], but leaves the payload out: the packet is complete once the
    /// caller has sent the payload behind it.
    pub fn encode_head(&self, version: Version, head: &PublishHead<'_>, dst: &mut Vec<u8>) -> bool {
        self.write_head(version, head, 0, dst)
    }

    /// Appends all but the payload, and makes room for `room` bytes more.
    #[inline(always)]
    fn write_head(&self, version: Version, head: &PublishHead<'_>, room: usize, dst: &mut Vec<u8>) -> bool {
        let (body, properties) = self.lens(version, head);
        let Some(remaining) = u32::try_from(body).ok().filter(|&len| len <= MAX_VARINT) else { return false };
        dst.reserve(5 + body - self.payload.len() + room);
        let first_byte = 0x30 | u8::from(head.dup) << 3 | head.qos.as_u8() << 1 | u8::from(head.retain);
        let topic = if head.topic_known { &[] } else { self.topic };
        let [.., high, low] = topic.len().to_be_bytes();
        match u8::try_from(remaining) {
            // Copies of a known length are a store each.
            Ok(remaining @ ..0x80) => dst.extend_from_slice(&[first_byte, remaining, high, low]),
            _ => {
                dst.push(first_byte);
                varint::write(remaining, dst);
                dst.extend_from_slice(&[high, low]);
            }
        }
        dst.extend_from_slice(topic);
        if let Some(id) = head.packet_id {
            dst.extend_from_slice(&id.get().to_be_bytes());
        }
        if version.is_v5() {
            varint::write(u32::try_from(properties).unwrap_or(u32::MAX), dst);
            dst.extend_from_slice(self.properties);
            if let Some(secs) = head.message_expiry {
                dst.push(PropertyId::MessageExpiryInterval.as_u8());
                dst.extend_from_slice(&secs.to_be_bytes());
            }
            if let Some(alias) = head.alias {
                dst.push(PropertyId::TopicAlias.as_u8());
                dst.extend_from_slice(&alias.to_be_bytes());
            }
            for &id in head.subscription_ids {
                dst.push(PropertyId::SubscriptionIdentifier.as_u8());
                varint::write(id, dst);
            }
        }
        true
    }
}
