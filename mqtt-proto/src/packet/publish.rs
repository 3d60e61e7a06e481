use super::write_header;
use crate::property::PropertyContext;
use crate::reader::Reader;
use crate::topic::{TopicName, is_name};
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
        // [MQTT-3.3.2-1] [MQTT-3.3.2-2]
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
