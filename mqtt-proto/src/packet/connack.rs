use super::{PacketType, ack};
use crate::property::PropertyContext;
use crate::reader::Reader;
use crate::{DecodeError, EncodeError, Properties, ReasonCode, Version, Violation};
use alloc::vec::Vec;

/// CONNACK: the server's answer to CONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnackRef<'a> {
    /// Whether the server has a session for this client (3.1 does not say).
    pub session_present: bool,
    /// Success, or why not. Below 5.0 the six return codes map to their 5.0 equivalents.
    pub reason: ReasonCode,
    /// Properties (5.0).
    pub properties: Properties<'a>,
}

impl<'a> ConnackRef<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let version = r.version();
        let flags_at = *r;
        let flags = r.u8()?;
        // In 3.1 this byte is reserved and says nothing.
        if version != Version::V31 && flags & 0xFE != 0 {
            return Err(flags_at.error(Violation::ConnackFlags));
        }
        let session_present = version != Version::V31 && flags & 1 != 0;
        let (reason, properties) = if version.is_v5() {
            (ack::reason(r, PacketType::Connack)?, Properties::decode(r, PropertyContext::Connack)?)
        } else {
            let at = *r;
            let code = r.u8()?;
            let reason = ReasonCode::from_return_code(code)
                .ok_or_else(|| at.error(Violation::ReasonCode).with_detail(u32::from(code)))?;
            (reason, Properties::EMPTY)
        };
        // [MQTT-3.2.2-6] ([MQTT-3.2.2-4] of 3.1.1)
        if session_present && reason != ReasonCode::Success {
            return Err(flags_at.error(Violation::SessionPresentOnError));
        }
        Ok(Self { session_present, reason, properties })
    }

    pub(super) fn body_len(&self, v5: bool) -> Result<usize, EncodeError> {
        if self.session_present && self.reason != ReasonCode::Success {
            return Err(Violation::SessionPresentOnError.into());
        }
        if !v5 {
            self.reason.to_return_code().ok_or(Violation::ReasonCode)?;
            return Ok(2);
        }
        if !self.reason.is_allowed_in(PacketType::Connack) {
            return Err(Violation::ReasonCode.into());
        }
        Ok(2 + self.properties.len_in(PropertyContext::Connack, v5)?)
    }

    pub(super) fn write(&self, version: Version, dst: &mut Vec<u8>) {
        dst.push(u8::from(self.session_present && version != Version::V31));
        if version.is_v5() {
            dst.push(self.reason.as_u8());
            self.properties.encode(dst);
        } else {
            dst.push(self.reason.to_return_code().unwrap_or(3));
        }
    }
}
