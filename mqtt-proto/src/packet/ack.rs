//! PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.

use super::PacketType;
use crate::property::PropertyContext;
use crate::reader::Reader;
use crate::{DecodeError, EncodeError, PacketId, Properties, ReasonCode, Violation};
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
    #[inline]
    pub(super) fn decode(r: &mut Reader<'a>, kind: PacketType) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        let mut ack = Self::from(packet_id);
        // In 5.0 the packet may end after the identifier, and after the reason code.
        if r.version().is_v5() && !r.is_empty() {
            ack.reason = reason(r, kind)?;
            if !r.is_empty() {
                ack.properties = Properties::decode(r, PropertyContext::Ack)?;
            }
        }
        Ok(ack)
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

    #[inline]
    pub(super) fn write(&self, v5: bool, dst: &mut Vec<u8>) {
        dst.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if !v5 || self.reason == ReasonCode::Success && self.properties.is_empty() {
            return;
        }
        dst.push(self.reason.as_u8());
        if !self.properties.is_empty() {
            self.properties.encode(dst);
        }
    }
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
    if codes.is_empty() {
        return Err((0, Violation::NoCodes));
    }
    let allowed = |&code: &u8| {
        if v5 {
            ReasonCode::from_u8(code).is_some_and(|reason| reason.is_allowed_in(kind))
        } else {
            matches!(code, 0 | 1 | 2 | 0x80)
        }
    };
    match codes.iter().position(|code| !allowed(code)) {
        Some(at) => Err((at, Violation::SubackCode)),
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
        self.properties.check_context(PropertyContext::Ack)?;
        Ok(2 + if v5 { self.properties.encoded_len() } else { 0 } + self.codes.len())
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
        self.properties.check_context(PropertyContext::Ack)?;
        Ok(2 + self.properties.encoded_len() + self.codes.len())
    }

    pub(super) fn write(&self, v5: bool, dst: &mut Vec<u8>) {
        dst.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if v5 {
            self.properties.encode(dst);
            dst.extend_from_slice(self.codes);
        }
    }
}
