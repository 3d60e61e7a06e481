//! PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.

use super::{PacketType, write_header};
use crate::property::PropertyContext;
use crate::reader::Reader;
use crate::{DecodeError, EncodeError, PacketId, Properties, ReasonCode, Version, Violation};
use alloc::vec::Vec;

/// PUBACK, PUBREC, PUBREL or PUBCOMP: a step of a QoS 1 or 2 exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRef<'a> {
    /// The identifier of the PUBLISH [MQTT-2.2.1-5].
    pub packet_id: PacketId,
    /// What became of it (5.0; below, always [`ReasonCode::Success`]).
    pub reason: ReasonCode,
    /// Properties (5.0).
    pub properties: Properties<'a>,
}

impl From<PacketId> for AckRef<'_> {
    fn from(packet_id: PacketId) -> Self {
        Self { packet_id, reason: ReasonCode::Success, properties: Properties::EMPTY }
    }
}

impl<'a> AckRef<'a> {
    /// The acknowledgement that the four bytes of `packet` are, if they are one that says nothing but its identifier, as nearly
    /// all do. Anything else is for [`PacketRef::decode`](super::PacketRef::decode).
    #[inline(always)]
    #[must_use]
    pub fn from_short(packet: &[u8]) -> Option<(PacketType, Self)> {
        let [first_byte, 2, high, low] = *packet else { return None };
        let id = PacketId::new(u16::from_be_bytes([high, low]))?;
        let kind = match first_byte {
            0x40 => PacketType::Puback,
            0x50 => PacketType::Pubrec,
            0x62 => PacketType::Pubrel,
            0x70 => PacketType::Pubcomp,
            _ => return None,
        };
        Some((kind, Self::from(id)))
    }

    #[inline(always)]
    pub(super) fn decode(mut r: Reader<'a>, kind: PacketType) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        // In 5.0 the packet may end after the identifier, and after the reason code.
        let (reason, properties) = if r.is_empty() {
            (ReasonCode::Success, Properties::EMPTY)
        } else {
            reason_and_properties(r, kind, PropertyContext::Ack)?
        };
        Ok(Self { packet_id, reason, properties })
    }

    #[inline]
    pub(super) fn body_len(&self, v5: bool, kind: PacketType) -> Result<usize, EncodeError> {
        if !v5 {
            return Ok(2);
        }
        if self.reason == ReasonCode::Success && self.properties.is_empty() {
            return Ok(2);
        }
        if !self.reason.is_allowed_in(kind) {
            return Err(Violation::ReasonCode.into());
        }
        self.properties.check_context(PropertyContext::Ack)?;
        Ok(3 + if self.properties.is_empty() { 0 } else { self.properties.encoded_len() })
    }

    #[inline(always)]
    pub(super) fn encode(
        &self,
        version: Version,
        kind: PacketType,
        dst: &mut Vec<u8>,
    ) -> Result<usize, EncodeError> {
        if !version.is_v5() || self.reason == ReasonCode::Success && self.properties.is_empty() {
            let [high, low] = self.packet_id.get().to_be_bytes();
            dst.extend_from_slice(&[kind.first_byte(), 2, high, low]);
            return Ok(4);
        }
        self.encode_long(kind, dst)
    }

    #[inline(never)]
    fn encode_long(&self, kind: PacketType, dst: &mut Vec<u8>) -> Result<usize, EncodeError> {
        let packet_id = self.packet_id.get().to_be_bytes();
        let total = write_header(kind.first_byte(), self.body_len(true, kind)?, packet_id, dst)?;
        dst.push(self.reason.as_u8());
        if !self.properties.is_empty() {
            self.properties.encode(dst);
        }
        Ok(total)
    }
}

/// What may stand behind the identifier of an acknowledgement or be all of a DISCONNECT or AUTH: a
/// reason code, and after it properties. Nothing may follow, and below 5.0 not even that.
#[inline(never)]
pub(super) fn reason_and_properties<'a>(
    mut r: Reader<'a>,
    kind: PacketType,
    context: PropertyContext,
) -> Result<(ReasonCode, Properties<'a>), DecodeError> {
    if !r.version().is_v5() {
        return Err(r.error(Violation::TrailingBytes));
    }
    let reason = reason(&mut r, kind)?;
    if r.is_empty() {
        return Ok((reason, Properties::EMPTY));
    }
    let properties = Properties::decode(&mut r, context)?;
    r.finish()?;
    Ok((reason, properties))
}

/// A reason code that the standard lists for this packet.
pub(super) fn reason(r: &mut Reader<'_>, kind: PacketType) -> Result<ReasonCode, DecodeError> {
    let at = *r;
    let code = r.u8()?;
    match ReasonCode::from_u8(code) {
        Some(reason) if reason.is_allowed_in(kind) => Ok(reason),
        _ => Err(at.error(Violation::ReasonCode).with_detail(u32::from(code))),
    }
}

/// SUBACK: answers each filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubackRef<'a> {
    /// The identifier of the SUBSCRIBE [MQTT-3.8.4-2].
    pub packet_id: PacketId,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// One code for each filter, in their order [MQTT-3.9.3-1]: the granted QoS, or a failure (0x80
    /// below 5.0).
    pub codes: &'a [u8],
}

/// UNSUBACK: answers an UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubackRef<'a> {
    /// The identifier of the UNSUBSCRIBE [MQTT-3.10.4-5].
    pub packet_id: PacketId,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// One code for each filter, in their order [MQTT-3.11.3-1] (5.0; empty below).
    pub codes: &'a [u8],
}

/// Checks codes against the packet's table.
fn check_codes(codes: &[u8], v5: bool, kind: PacketType) -> Result<(), (usize, Violation)> {
    let (none, wrong) = match kind {
        PacketType::Unsuback => (Violation::UnsubackCode, Violation::UnsubackCode),
        _ => (Violation::NoCodes, Violation::SubackCode),
    };
    if codes.is_empty() {
        return Err((0, none));
    }
    let allowed = |&code: &u8| {
        if v5 {
            ReasonCode::from_u8(code).is_some_and(|reason| reason.is_allowed_in(kind))
        } else {
            matches!(code, 0 | 1 | 2 | 0x80)
        }
    };
    match codes.iter().position(|code| !allowed(code)) {
        Some(at) => Err((at, wrong)),
        None => Ok(()),
    }
}

fn codes<'a>(r: &mut Reader<'a>, kind: PacketType) -> Result<&'a [u8], DecodeError> {
    let mut at = *r;
    let codes = r.take_rest();
    if let Err((index, violation)) = check_codes(codes, r.version().is_v5(), kind) {
        let _ = at.bytes(index);
        let code = codes.get(index).copied().unwrap_or_default();
        return Err(at.error(violation).with_detail(u32::from(code)));
    }
    Ok(codes)
}

impl<'a> SubackRef<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        let v5 = r.version().is_v5();
        let properties = if v5 { Properties::decode(r, PropertyContext::Ack)? } else { Properties::EMPTY };
        Ok(Self { packet_id, properties, codes: codes(r, PacketType::Suback)? })
    }

    pub(super) fn body_len(&self, v5: bool) -> Result<usize, EncodeError> {
        check_codes(self.codes, v5, PacketType::Suback).map_err(|(_, violation)| violation)?;
        Ok(2 + self.properties.len_in(PropertyContext::Ack, v5)? + self.codes.len())
    }

    pub(super) fn write(&self, v5: bool, dst: &mut Vec<u8>) {
        dst.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if v5 {
            self.properties.encode(dst);
        }
        dst.extend_from_slice(self.codes);
    }
}

impl<'a> UnsubackRef<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        if !r.version().is_v5() {
            return Ok(Self { packet_id, properties: Properties::EMPTY, codes: &[] });
        }
        let properties = Properties::decode(r, PropertyContext::Ack)?;
        Ok(Self { packet_id, properties, codes: codes(r, PacketType::Unsuback)? })
    }

    pub(super) fn body_len(&self, v5: bool) -> Result<usize, EncodeError> {
        if !v5 {
            return Ok(2);
        }
        check_codes(self.codes, true, PacketType::Unsuback).map_err(|(_, violation)| violation)?;
        Ok(2 + self.properties.len_in(PropertyContext::Ack, v5)? + self.codes.len())
    }

    pub(super) fn write(&self, v5: bool, dst: &mut Vec<u8>) {
        dst.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if v5 {
            self.properties.encode(dst);
            dst.extend_from_slice(self.codes);
        }
    }
}
