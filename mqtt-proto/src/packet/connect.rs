use super::{PacketType, binary_len, string_len, write_binary, write_header};
use crate::property::PropertyContext;
use crate::reader::Reader;
use crate::topic::TopicName;
use crate::{DecodeError, EncodeError, Properties, QoS, Version, Violation};
use alloc::vec::Vec;

/// CONNECT: the first packet of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectRef<'a> {
    /// The version of this and all further packets of the connection.
    pub version: Version,
    /// Clean Start (5.0) or Clean Session (3.x).
    pub clean_start: bool,
    /// Keep alive in seconds; 0 switches it off.
    pub keep_alive: u16,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// The client identifier; empty asks the server to assign one.
    pub client_id: &'a str,
    /// Published by the server when the connection is lost.
    pub will: Option<WillRef<'a>>,
    /// User name.
    pub user_name: Option<&'a str>,
    /// Password; below 5.0 only together with a user name [MQTT-3.1.2-22].
    pub password: Option<&'a [u8]>,
}

/// The will inside CONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WillRef<'a> {
    /// The QoS at which it is published.
    pub qos: QoS,
    /// Whether it is published as a retained message.
    pub retain: bool,
    /// Will properties (5.0).
    pub properties: Properties<'a>,
    /// Its topic.
    pub topic: &'a str,
    /// Its payload: at most 65,535 bytes.
    pub payload: &'a [u8],
}

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;

impl<'a> ConnectRef<'a> {
    #[inline(always)]
    pub(super) fn decode(mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        let r = &mut reader;
        let version = protocol(r)?;
        r.set_version(version);
        let v5 = version.is_v5();
        let flags_at = *r;
        let flags = r.u8()?;
        // [MQTT-3.1.2-3]; 3.1 leaves the bit unused.
        if flags & 1 != 0 && version != Version::V31 {
            return Err(flags_at.error(Violation::ConnectReserved));
        }
        let Some(will_qos) = QoS::from_u8(flags >> 3 & 3) else {
            return Err(flags_at.error(Violation::WillQos));
        };
        // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
        if flags & WILL == 0 && flags & (0x18 | WILL_RETAIN) != 0 {
            return Err(flags_at.error(Violation::WillFlagsWithoutWill));
        }
        if !v5 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
            return Err(flags_at.error(Violation::PasswordWithoutUserName));
        }
        let keep_alive = r.u16()?;
        let properties =
            if v5 { Properties::decode(r, PropertyContext::Connect)? } else { Properties::EMPTY };
        // [MQTT-3.1.3-3] [MQTT-3.1.3-4]
        let client_id = r.string()?;
        // [MQTT-3.1.2-9] [MQTT-3.1.3-11]
        let will = if flags & WILL == 0 {
            None
        } else {
            let properties =
                if v5 { Properties::decode(r, PropertyContext::Will)? } else { Properties::EMPTY };
            let at = *r;
            let topic = TopicName::new(r.utf8()?).map_err(|e| at.error(e.violation()))?.as_str();
            let payload = r.binary()?;
            Some(WillRef { qos: will_qos, retain: flags & WILL_RETAIN != 0, properties, topic, payload })
        };
        // [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-12]; 3.1 allows the
        // flags without the strings if the packet ends there.
        let optional = version == Version::V31;
        let user_name = match flags & USER_NAME != 0 && !(optional && r.is_empty()) {
            true => Some(r.string()?),
            false => None,
        };
        let password = match flags & PASSWORD != 0 && !(optional && r.is_empty()) {
            true => Some(r.binary()?),
            false => None,
        };
        r.finish()?;
        let clean_start = flags & CLEAN_START != 0;
        Ok(Self { version, clean_start, keep_alive, properties, client_id, will, user_name, password })
    }

    #[inline(always)]
    pub(super) fn body_len(&self) -> Result<usize, EncodeError> {
        let v5 = self.version.is_v5();
        if !v5 && self.password.is_some() && self.user_name.is_none() {
            return Err(Violation::PasswordWithoutUserName.into());
        }
        let mut len = 2 + self.version.protocol_name().len() + 4;
        len += self.properties.len_in(PropertyContext::Connect, v5)?;
        len += string_len(self.client_id)?;
        if let Some(will) = &self.will {
            len += will.properties.len_in(PropertyContext::Will, v5)?;
            len += 2 + TopicName::new(will.topic)?.as_str().len() + binary_len(will.payload)?;
        }
        if let Some(user_name) = self.user_name {
            len += string_len(user_name)?;
        }
        if let Some(password) = self.password {
            len += binary_len(password)?;
        }
        Ok(len)
    }

    /// Fields in the order that [MQTT-3.1.3-1] gives.
    #[inline(never)]
    pub(super) fn encode(&self, dst: &mut Vec<u8>) -> Result<usize, EncodeError> {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | will.qos.as_u8() << 3 | if will.retain { WILL_RETAIN } else { 0 };
        }
        if self.user_name.is_some() {
            flags |= USER_NAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        let (first_byte, body) = (PacketType::Connect.first_byte(), self.body_len()?);
        let [high, low] = self.keep_alive.to_be_bytes();
        let (v5, level) = (self.version.is_v5(), self.version.level());
        let total = if self.version == Version::V31 {
            let total = write_header(first_byte, body, [0, 6], dst)?;
            dst.extend_from_slice(&[b'M', b'Q', b'I', b's', b'd', b'p', level, flags, high, low]);
            total
        } else {
            let total = write_header(first_byte, body, [0, 4], dst)?;
            dst.extend_from_slice(&[b'M', b'Q', b'T', b'T', level, flags, high, low]);
            total
        };
        if v5 {
            self.properties.encode(dst);
        }
        write_binary(self.client_id.as_bytes(), dst);
        if let Some(will) = &self.will {
            if v5 {
                will.properties.encode(dst);
            }
            write_binary(will.topic.as_bytes(), dst);
            write_binary(will.payload, dst);
        }
        if let Some(user_name) = self.user_name {
            write_binary(user_name.as_bytes(), dst);
        }
        if let Some(password) = self.password {
            write_binary(password, dst);
        }
        Ok(total)
    }
}

/// Protocol name and level [MQTT-3.1.2-1] [MQTT-3.1.2-2]. The detail of a level error is the level,
/// so that the server can answer in the form that its sender understands.
#[inline]
fn protocol(r: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name_at = *r;
    let old = match r.binary()? {
        b"MQTT" => false,
        b"MQIsdp" => true,
        _ => return Err(name_at.error(Violation::ProtocolName)),
    };
    let level_at = *r;
    match (r.u8()?, old) {
        (3, true) => Ok(Version::V31),
        (4, false) => Ok(Version::V311),
        (5, false) => Ok(Version::V5),
        (3..=5, _) => Err(name_at.error(Violation::ProtocolName)),
        (level, _) => Err(level_at.error(Violation::ProtocolLevel).with_detail(u32::from(level))),
    }
}
