use super::{PacketType, write_header};
use crate::property::PropertyContext;
use crate::reader::{Reader, any_byte};
use crate::topic::{TopicName, is_name, what_is_wrong};
use crate::{DecodeError, EncodeError, PacketId, Properties, PropertyId, QoS, Version, Violation};
use alloc::vec::Vec;

/// PUBLISH: carries an application message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishRef<'a> {
    /// Whether this packet may have been sent before [MQTT-3.3.1-1].
    pub dup: bool,
    /// How often the message may arrive.
    pub qos: QoS,
    /// To a server: keep it as the topic's retained message. From a server: see the subscription.
    pub retain: bool,
    /// The topic name; empty only in 5.0 with a Topic Alias.
    pub topic: &'a str,
    /// Present exactly if `qos` is above 0 [MQTT-2.2.1-2].
    pub packet_id: Option<PacketId>,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

/// A PUBLISH whose topic was checked as that of [`PublishRef`] is, and of which nobody needs a `&str` yet: making one costs
/// as much as decoding the rest.
///
/// ```
/// use mqtt_proto::{RawPublish, Version};
///
/// let publish = RawPublish::decode(b"\x30\x06\0\x03a/bh", Version::V311)?;
/// assert_eq!((publish.topic_str(), publish.payload), ("a/b", &b"h"[..]));
/// # Ok::<(), mqtt_proto::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawPublish<'a> {
    /// As [`PublishRef::dup`].
    pub dup: bool,
    /// As [`PublishRef::qos`].
    pub qos: QoS,
    /// As [`PublishRef::retain`].
    pub retain: bool,
    /// As [`PublishRef::topic`], in UTF-8.
    pub topic: &'a [u8],
    /// As [`PublishRef::packet_id`].
    pub packet_id: Option<PacketId>,
    /// As [`PublishRef::properties`].
    pub properties: Properties<'a>,
    /// As [`PublishRef::payload`].
    pub payload: &'a [u8],
}

impl<'a> RawPublish<'a> {
    /// Decodes one complete packet, fixed header included, as [`PacketRef::decode`](super::PacketRef::decode) does.
    ///
    /// # Errors
    /// Names the first rule that is broken and where; [`Violation::PacketType`] if it is no PUBLISH.
    #[inline]
    pub fn decode(packet: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        Self::decode_then(packet, version, |publish| publish)
    }

    /// As [`decode`](Self::decode), for those who do this all the time: `then` gets the packet where it was decoded, and
    /// nothing is moved.
    ///
    /// # Errors
    /// As `decode`; `then` was not called.
    #[inline(always)]
    pub fn decode_then<T>(
        packet: &'a [u8],
        version: Version,
        then: impl FnOnce(Self) -> T,
    ) -> Result<T, DecodeError> {
        super::framed(packet, version, |first_byte, reader| {
            if first_byte >> 4 != PacketType::Publish as u8 {
                return Err(DecodeError::new(Violation::PacketType, version, 0));
            }
            Self::decode_body(first_byte, reader, then)
        })
    }

    #[inline(always)]
    fn decode_body<T>(
        first_byte: u8,
        mut r: Reader<'a>,
        then: impl FnOnce(Self) -> T,
    ) -> Result<T, DecodeError> {
        let header = |violation| Err(DecodeError::new(violation, r.version(), 0));
        let dup = first_byte & 8 != 0;
        let Some(qos) = QoS::from_u8(first_byte >> 1 & 3) else { return header(Violation::PublishQos) };
        if dup && qos == QoS::AtMostOnce {
            return header(Violation::DupAtQos0);
        }
        // [MQTT-3.3.2-1] [MQTT-3.3.2-2]
        let at = r;
        let topic = r.binary()?;
        if needs_a_closer_look(topic) {
            check_topic(at, topic)?;
        }
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(r.packet_id()?) };
        let properties = if r.version().is_v5() {
            Properties::decode(&mut r, PropertyContext::Publish)?
        } else {
            Properties::EMPTY
        };
        if topic.is_empty() && !properties.contains(PropertyId::TopicAlias) {
            return Err(at.error(Violation::TopicEmpty));
        }
        Ok(then(Self {
            dup,
            qos,
            retain: first_byte & 1 != 0,
            topic,
            packet_id,
            properties,
            payload: r.take_rest(),
        }))
    }

    /// The topic as text.
    #[must_use]
    pub fn topic_str(&self) -> &'a str {
        // It was checked when it was decoded; who makes one of other bytes gets an empty topic.
        core::str::from_utf8(self.topic).unwrap_or_default()
    }
}

/// Nearly all topics are ASCII without what is forbidden: one look at each byte tells that. As signed numbers, U+0001 to
/// U+007F are what is above zero; `+` and `#` differ in one bit.
#[inline(always)]
fn needs_a_closer_look(topic: &[u8]) -> bool {
    any_byte(topic, |b| (b.cast_signed() <= 0) | ((b | 0x08) == b'+'))
}

#[inline(never)]
fn check_topic(at: Reader<'_>, topic: &[u8]) -> Result<(), DecodeError> {
    let mut string = at;
    string.utf8_bytes()?;
    if is_name(topic) { Ok(()) } else { Err(at.error(what_is_wrong(topic))) }
}

impl<'a> From<RawPublish<'a>> for PublishRef<'a> {
    #[inline(always)]
    fn from(raw: RawPublish<'a>) -> Self {
        let RawPublish { dup, qos, retain, packet_id, properties, payload, .. } = raw;
        Self { dup, qos, retain, topic: raw.topic_str(), packet_id, properties, payload }
    }
}

impl<'a> From<PublishRef<'a>> for RawPublish<'a> {
    fn from(publish: PublishRef<'a>) -> Self {
        let PublishRef { dup, qos, retain, topic, packet_id, properties, payload } = publish;
        Self { dup, qos, retain, topic: topic.as_bytes(), packet_id, properties, payload }
    }
}

impl<'a> PublishRef<'a> {
    #[inline(always)]
    pub(super) fn decode(first_byte: u8, r: Reader<'a>) -> Result<Self, DecodeError> {
        RawPublish::decode_body(first_byte, r, Self::from)
    }

    #[inline(always)]
    pub(super) fn body_len(&self, v5: bool) -> Result<usize, EncodeError> {
        let with_id = self.packet_id.is_some();
        if !is_name(self.topic.as_bytes()) || with_id != (self.qos != QoS::AtMostOnce) || self.dup && !with_id
        {
            self.check_unusual(v5)?;
        }
        let properties = self.properties.len_in(PropertyContext::Publish, v5)?;
        Ok(2 + self.topic.len() + usize::from(with_id) * 2 + properties + self.payload.len())
    }

    /// Finds out what is wrong, if it is not just a topic that an alias stands for.
    #[cold]
    #[inline(never)]
    fn check_unusual(&self, v5: bool) -> Result<(), EncodeError> {
        let aliased = v5 && self.topic.is_empty() && self.properties.contains(PropertyId::TopicAlias);
        if !aliased {
            TopicName::new(self.topic)?;
        }
        if self.packet_id.is_some() != (self.qos != QoS::AtMostOnce) {
            return Err(Violation::PacketIdPresence.into());
        }
        if self.dup && self.qos == QoS::AtMostOnce {
            return Err(Violation::DupAtQos0.into());
        }
        Ok(())
    }

    /// Appends the packet to `dst`, growing it at most once, and tells how many bytes were added.
    ///
    /// # Errors
    /// Names the rule that the fields break; `dst` is then as it was.
    #[inline(never)]
    pub fn encode(&self, version: Version, dst: &mut Vec<u8>) -> Result<usize, EncodeError> {
        let v5 = version.is_v5();
        let body = self.body_len(v5)?;
        let first_byte = 0x30 | u8::from(self.dup) << 3 | self.qos.as_u8() << 1 | u8::from(self.retain);
        let [.., high, low] = self.topic.len().to_be_bytes();
        let total = write_header(first_byte, body, [high, low], dst)?;
        dst.extend_from_slice(self.topic.as_bytes());
        if let Some(id) = self.packet_id {
            dst.extend_from_slice(&id.get().to_be_bytes());
        }
        if v5 {
            self.properties.encode(dst);
        }
        dst.extend_from_slice(self.payload);
        Ok(total)
    }
}
