//! The packets.
//!
//! Each `...Ref` type is both what decoding gives and what encoding takes: plain fields that point
//! into somebody else's bytes. What a version does not have is left out when encoding for it
//! (properties and reason codes below 5.0) and absent when decoding.

mod ack;
mod connack;
mod connect;
mod disconnect;
mod owned;
mod publish;
mod shared;
mod subscribe;
mod text;

pub use ack::{AckRef, SubackRef, UnsubackRef};
pub use connack::ConnackRef;
pub use connect::{ConnectRef, WillRef};
pub use disconnect::{AuthRef, DisconnectRef};
pub use owned::{Packet, Publish};
pub use publish::{PublishRef, RawPublish};
pub use shared::{PublishHead, SharedPublish};
pub use subscribe::{
    SubscribeFilterIter, SubscribeFilters, SubscribeFiltersBuf, SubscribeRef, SubscriptionOptions,
    UnsubscribeFilterIter, UnsubscribeFilters, UnsubscribeFiltersBuf, UnsubscribeRef,
};

use crate::reader::Reader;
use crate::varint;
use crate::{DecodeError, EncodeError, Frame, MAX_PACKET_SIZE, MAX_VARINT, Version, Violation, frame_header};
use alloc::vec::Vec;

/// The types of packets; the discriminant is the high half of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum PacketType {
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type that a first byte names; `None` for the reserved 0.
    #[must_use]
    pub const fn from_first_byte(byte: u8) -> Option<Self> {
        Some(match byte >> 4 {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    const fn first_byte(self) -> u8 {
        (self as u8) << 4 | if self.has_flag_bit() { 2 } else { 0 }
    }
}

impl core::fmt::Display for PacketType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

/// A packet whose fields point into borrowed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each type documents itself")]
pub enum PacketRef<'a> {
    Connect(ConnectRef<'a>),
    Connack(ConnackRef<'a>),
    Publish(PublishRef<'a>),
    Puback(AckRef<'a>),
    Pubrec(AckRef<'a>),
    Pubrel(AckRef<'a>),
    Pubcomp(AckRef<'a>),
    Subscribe(SubscribeRef<'a>),
    Suback(SubackRef<'a>),
    Unsubscribe(UnsubscribeRef<'a>),
    Unsuback(UnsubackRef<'a>),
    Pingreq,
    Pingresp,
    Disconnect(DisconnectRef<'a>),
    Auth(AuthRef<'a>),
}

impl<'a> PacketRef<'a> {
    /// Decodes one complete packet, fixed header included, in one validating pass. `version` is that
    /// of the connection; CONNECT tells its own. Allocates nothing.
    ///
    /// # Errors
    /// Names the first rule that is broken and where.
    #[inline]
    pub fn decode(packet: &'a [u8], version: Version) -> Result<Self, DecodeError> {
        framed(packet, version, |first_byte, reader| Self::decode_body(first_byte, reader, |packet| packet))
    }

    /// Decodes the packet at the head of `buf` if it is complete, and tells its length. Packets over
    /// `max` bytes are refused as soon as their header is there.
    ///
    /// # Errors
    /// As [`PacketRef::decode`].
    #[inline]
    pub fn decode_next(
        buf: &'a [u8],
        version: Version,
        max: u32,
    ) -> Result<Option<(Self, usize)>, DecodeError> {
        match frame_header(buf, max).map_err(|e| e.in_version(version))? {
            Frame::Header { first_byte, header_len, total } => match buf.get(..total) {
                Some(packet) => {
                    let found = |packet| Some((packet, total));
                    Self::decode_body(first_byte, body_of(packet, header_len, version)?, found)
                }
                None => Ok(None),
            },
            Frame::Incomplete { .. } => Ok(None),
        }
    }

    /// Decodes the body of a packet whose first byte is `first_byte`. Each packet is built where `done` wants it: it is
    /// large, and moving it just after its fields were stored costs more than decoding it.
    fn decode_body<T>(first_byte: u8, r: Reader<'a>, done: impl FnOnce(Self) -> T) -> Result<T, DecodeError> {
        match first_byte {
            0x30..=0x3F => Ok(done(Self::Publish(PublishRef::decode(first_byte, r)?))),
            0x40 => Ok(done(Self::Puback(AckRef::decode(r, PacketType::Puback)?))),
            0x50 => Ok(done(Self::Pubrec(AckRef::decode(r, PacketType::Pubrec)?))),
            0x62 => Ok(done(Self::Pubrel(AckRef::decode(r, PacketType::Pubrel)?))),
            0x70 => Ok(done(Self::Pubcomp(AckRef::decode(r, PacketType::Pubcomp)?))),
            0x10 => Ok(done(Self::Connect(ConnectRef::decode(r)?))),
            _ => Ok(done(Self::decode_other(first_byte, r)?)),
        }
    }

    #[inline(never)]
    fn decode_other(first_byte: u8, mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        let version = reader.version();
        let error = |violation| Err(DecodeError::new(violation, version, 0));
        let Some(kind) = PacketType::from_first_byte(first_byte) else {
            return error(Violation::PacketType);
        };
        let flags = first_byte & 0x0F;
        let wanted = kind.first_byte() & 0x0F;
        // [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]; 3.1
        // allows DUP on PUBREL, SUBSCRIBE and UNSUBSCRIBE.
        let dup_too = version == Version::V31 && kind.has_flag_bit();
        if flags != wanted && !(dup_too && flags == wanted | 8) {
            return error(Violation::HeaderFlags);
        }
        let r = &mut reader;
        let decoded = match kind {
            PacketType::Connack => Self::Connack(ConnackRef::decode(r)?),
            PacketType::Pubrel => return Ok(Self::Pubrel(AckRef::decode(reader, kind)?)),
            PacketType::Subscribe => Self::Subscribe(SubscribeRef::decode(r)?),
            PacketType::Suback => Self::Suback(SubackRef::decode(r)?),
            PacketType::Unsubscribe => Self::Unsubscribe(UnsubscribeRef::decode(r)?),
            PacketType::Unsuback => Self::Unsuback(UnsubackRef::decode(r)?),
            PacketType::Pingreq => Self::Pingreq,
            PacketType::Pingresp => Self::Pingresp,
            PacketType::Disconnect => Self::Disconnect(DisconnectRef::decode(r)?),
            PacketType::Auth if version.is_v5() => Self::Auth(AuthRef::decode(r)?),
            // All but the last do not come here with the right flags.
            PacketType::Connect
            | PacketType::Publish
            | PacketType::Puback
            | PacketType::Pubrec
            | PacketType::Pubcomp
            | PacketType::Auth => return error(Violation::PacketType),
        };
        reader.finish()?;
        Ok(decoded)
    }

    /// Which packet it is.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::Connack(_) => PacketType::Connack,
            Self::Publish(_) => PacketType::Publish,
            Self::Puback(_) => PacketType::Puback,
            Self::Pubrec(_) => PacketType::Pubrec,
            Self::Pubrel(_) => PacketType::Pubrel,
            Self::Pubcomp(_) => PacketType::Pubcomp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Suback(_) => PacketType::Suback,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::Unsuback(_) => PacketType::Unsuback,
            Self::Pingreq => PacketType::Pingreq,
            Self::Pingresp => PacketType::Pingresp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    fn body_len(&self, version: Version) -> Result<usize, EncodeError> {
        let v5 = version.is_v5();
        match self {
            Self::Connect(p) => p.body_len(),
            Self::Connack(p) => p.body_len(v5),
            Self::Publish(p) => p.body_len(v5),
            Self::Puback(p) | Self::Pubrec(p) | Self::Pubrel(p) | Self::Pubcomp(p) => {
                p.body_len(v5, self.packet_type())
            }
            Self::Subscribe(p) => p.body_len(v5),
            Self::Suback(p) => p.body_len(v5),
            Self::Unsubscribe(p) => p.body_len(v5),
            Self::Unsuback(p) => p.body_len(v5),
            Self::Pingreq | Self::Pingresp => Ok(0),
            Self::Disconnect(p) => p.body_len(v5),
            Self::Auth(p) => p.body_len(v5),
        }
    }

    /// The exact length of the packet on the wire, fixed header included.
    ///
    /// # Errors
    /// Names the rule that the fields break. If this succeeds, [`PacketRef::encode`] does too.
    pub fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        let body = self.body_len(version)?;
        Ok(1 + crate::varint_len(remaining_length(body)?) + body)
    }

    /// Appends the packet to `dst`, growing it at most once, and tells how many bytes were added.
    /// CONNECT is encoded for the version that it names, the others for `version`.
    ///
    /// # Errors
    /// Names the rule that the fields break; `dst` is then as it was.
    #[inline(always)]
    pub fn encode(&self, version: Version, dst: &mut Vec<u8>) -> Result<usize, EncodeError> {
        match self {
            Self::Publish(publish) => publish.encode(version, dst),
            Self::Puback(ack) => ack.encode(version, PacketType::Puback, dst),
            Self::Pubrec(ack) => ack.encode(version, PacketType::Pubrec, dst),
            Self::Pubrel(ack) => ack.encode(version, PacketType::Pubrel, dst),
            Self::Pubcomp(ack) => ack.encode(version, PacketType::Pubcomp, dst),
            Self::Connect(connect) => connect.encode(dst),
            _ => self.encode_other(version, dst),
        }
    }

    #[inline(never)]
    fn encode_other(&self, version: Version, dst: &mut Vec<u8>) -> Result<usize, EncodeError> {
        let body = self.body_len(version)?;
        let total = write_fixed_header(self.packet_type().first_byte(), body, dst)?;
        let v5 = version.is_v5();
        match self {
            Self::Connack(p) => p.write(version, dst),
            Self::Subscribe(p) => p.write(v5, dst),
            Self::Suback(p) => p.write(v5, dst),
            Self::Unsubscribe(p) => p.write(v5, dst),
            Self::Unsuback(p) => p.write(v5, dst),
            Self::Disconnect(p) => p.write(v5, dst),
            Self::Auth(p) => p.write(dst),
            Self::Pingreq | Self::Pingresp => {}
            // These have functions of their own.
            Self::Connect(_) | Self::Publish(_) => {}
            Self::Puback(_) | Self::Pubrec(_) | Self::Pubrel(_) | Self::Pubcomp(_) => {}
        }
        Ok(total)
    }
}

/// Hands the first byte and the body of one complete packet to `decode`.
#[inline(always)]
fn framed<'a, T>(
    packet: &'a [u8],
    version: Version,
    decode: impl FnOnce(u8, Reader<'a>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    match frame_header(packet, MAX_PACKET_SIZE).map_err(|e| e.in_version(version))? {
        Frame::Header { first_byte, header_len, total } => {
            let (packet, behind) = packet
                .split_at_checked(total)
                .ok_or_else(|| DecodeError::new(Violation::Truncated, version, 1))?;
            if !behind.is_empty() {
                let at = u32::try_from(total).unwrap_or(u32::MAX);
                return Err(DecodeError::new(Violation::TrailingBytes, version, at));
            }
            decode(first_byte, body_of(packet, header_len, version)?)
        }
        Frame::Incomplete { .. } => Err(DecodeError::new(Violation::Truncated, version, 0)),
    }
}

/// What stands behind the fixed header of a packet.
#[inline(always)]
fn body_of(packet: &[u8], header_len: usize, version: Version) -> Result<Reader<'_>, DecodeError> {
    let body = packet.get(header_len..).unwrap_or_default();
    // [MQTT-1.5.5-1]; 3.1.1 has no such rule, and clients that pad the length exist.
    if header_len > 2 && version.is_v5() && header_len != 1 + len_width(body.len()) {
        return Err(DecodeError::new(Violation::VarintNotMinimal, version, 1));
    }
    Ok(Reader::new(body, header_len, version))
}

/// How many bytes the Remaining Length of a body of `len` bytes takes.
#[inline]
fn len_width(len: usize) -> usize {
    crate::varint_len(u32::try_from(len).unwrap_or(u32::MAX))
}

/// The Remaining Length for a body of `len` bytes, if the format can express it.
#[inline]
fn remaining_length(len: usize) -> Result<u32, EncodeError> {
    match u32::try_from(len) {
        Ok(len) if len <= MAX_VARINT => Ok(len),
        _ => Err(Violation::PacketTooLarge.into()),
    }
}

/// Makes room for a packet whose body has `body` bytes, writes its fixed header and the first two
/// bytes of the body, and tells the length of the whole.
#[inline(always)]
fn write_header(
    first_byte: u8,
    body: usize,
    start: [u8; 2],
    dst: &mut Vec<u8>,
) -> Result<usize, EncodeError> {
    let [a, b] = start;
    // Nearly all packets have a length of one or two bytes: then all this is one copy.
    match u16::try_from(body) {
        Ok(len @ ..0x80) => {
            let [low, _] = len.to_le_bytes();
            dst.reserve(2 + body);
            dst.extend_from_slice(&[first_byte, low, a, b]);
            return Ok(2 + body);
        }
        Ok(len @ ..0x4000) => {
            let [low, high] = (len << 1).to_le_bytes();
            dst.reserve(3 + body);
            dst.extend_from_slice(&[first_byte, low >> 1 | 0x80, high, a, b]);
            return Ok(3 + body);
        }
        _ => {}
    }
    let total = write_fixed_header(first_byte, body, dst)?;
    dst.extend_from_slice(&start);
    Ok(total)
}

/// Makes room for a packet whose body has `body` bytes, writes its fixed header, and tells the
/// length of the whole.
fn write_fixed_header(first_byte: u8, body: usize, dst: &mut Vec<u8>) -> Result<usize, EncodeError> {
    let remaining = remaining_length(body)?;
    let total = 1 + crate::varint_len(remaining) + body;
    dst.reserve(total);
    dst.push(first_byte);
    varint::write(remaining, dst);
    Ok(total)
}

/// A two-byte length and the bytes. Callers have checked that the length fits.
#[inline]
fn write_binary(data: &[u8], dst: &mut Vec<u8>) {
    let [.., high, low] = data.len().to_be_bytes();
    dst.extend_from_slice(&[high, low]);
    dst.extend_from_slice(data);
}

/// Length of a string on the wire, if it is one.
#[inline(always)]
fn string_len(text: &str) -> Result<usize, EncodeError> {
    if crate::reader::has_nul(text.as_bytes()) {
        return Err(Violation::StringNul.into());
    }
    binary_len(text.as_bytes())
}

/// Length of binary data on the wire.
#[inline(always)]
fn binary_len(data: &[u8]) -> Result<usize, EncodeError> {
    if data.len() > crate::topic::MAX_LEN {
        return Err(Violation::StringTooLong.into());
    }
    Ok(2 + data.len())
}
