use super::write_header;
use crate::property::PropertyContext;
use crate::reader::Reader;
use crate::topic::TopicName;
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

impl<'a> PublishRef<'a> {
    #[inline(always)]
    pub(super) fn decode(first_byte: u8, mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let header = |violation| Err(DecodeError::new(violation, r.version(), 0));
        let dup = first_byte & 8 != 0;
        let Some(qos) = QoS::from_u8(first_byte >> 1 & 3) else { return header(Violation::PublishQos) };
        if dup && qos == QoS::AtMostOnce {
            return header(Violation::DupAtQos0);
        }
        let at = r;
        let topic = r.utf8()?;
        if !topic.is_empty() {
            TopicName::new(topic).map_err(|e| at.error(e.violation()))?;
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
        Ok(Self {
            dup,
            qos,
            retain: first_byte & 1 != 0,
            topic,
            packet_id,
            properties,
            payload: r.take_rest(),
        })
    }

    #[inline]
    pub(super) fn body_len(&self, v5: bool) -> Result<usize, EncodeError> {
        if self.topic.is_empty() {
            if !(v5 && self.properties.contains(PropertyId::TopicAlias)) {
                return Err(Violation::TopicEmpty.into());
            }
        } else {
            TopicName::new(self.topic)?;
        }
        if self.packet_id.is_some() != (self.qos != QoS::AtMostOnce) {
            return Err(Violation::PacketIdPresence.into());
        }
        if self.dup && self.qos == QoS::AtMostOnce {
            return Err(Violation::DupAtQos0.into());
        }
        let id = if self.packet_id.is_some() { 2 } else { 0 };
        let properties = self.properties.len_in(PropertyContext::Publish, v5)?;
        Ok(2 + self.topic.len() + id + properties + self.payload.len())
    }

    /// Appends the packet to `dst`, growing it at most once, and tells how many bytes were added.
    ///
    /// # Errors
    /// Names the rule that the fields break; `dst` is then as it was.
    pub fn encode(&self, version: Version, dst: &mut Vec<u8>) -> Result<usize, EncodeError> {
        let v5 = version.is_v5();
        let first_byte = 0x30 | u8::from(self.dup) << 3 | self.qos.as_u8() << 1 | u8::from(self.retain);
        let total = write_header(first_byte, self.body_len(v5)?, dst)?;
        super::write_binary(self.topic.as_bytes(), dst);
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
