use super::{PacketType, ack};
use crate::property::PropertyContext;
use crate::reader::Reader;
use crate::{DecodeError, EncodeError, Properties, PropertyId, ReasonCode, Violation};
use alloc::vec::Vec;

/// DISCONNECT: the last packet on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DisconnectRef<'a> {
    /// Why (5.0; below, always [`ReasonCode::Success`]).
    pub reason: ReasonCode,
    /// Properties (5.0).
    pub properties: Properties<'a>,
}

/// AUTH: a step of an authentication exchange (5.0 only).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthRef<'a> {
    /// Success, continue, or re-authenticate.
    pub reason: ReasonCode,
    /// Properties; the method is required, except that an AUTH without a body means success.
    pub properties: Properties<'a>,
}

/// DISCONNECT and AUTH may end before the reason code and before the properties.
fn optional<'a>(
    r: &mut Reader<'a>,
    kind: PacketType,
    context: PropertyContext,
) -> Result<(ReasonCode, Properties<'a>), DecodeError> {
    if r.is_empty() {
        return Ok((ReasonCode::Success, Properties::EMPTY));
    }
    let rest = *r;
    r.take_rest();
    ack::reason_and_properties(rest, kind, context)
}

fn short_len(reason: ReasonCode, properties: &Properties<'_>) -> usize {
    match (reason, properties.is_empty()) {
        (ReasonCode::Success, true) => 0,
        (_, true) => 1,
        _ => 1 + properties.encoded_len(),
    }
}

fn short_write(reason: ReasonCode, properties: &Properties<'_>, dst: &mut Vec<u8>) {
    if reason == ReasonCode::Success && properties.is_empty() {
        return;
    }
    dst.push(reason.as_u8());
    if !properties.is_empty() {
        properties.encode(dst);
    }
}

impl<'a> DisconnectRef<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (reason, properties) = optional(r, PacketType::Disconnect, PropertyContext::Disconnect)?;
        Ok(Self { reason, properties })
    }

    pub(super) fn body_len(&self, v5: bool) -> Result<usize, EncodeError> {
        if !v5 {
            return Ok(0);
        }
        if !self.reason.is_allowed_in(PacketType::Disconnect) {
            return Err(Violation::ReasonCode.into());
        }
        self.properties.check_context(PropertyContext::Disconnect)?;
        Ok(short_len(self.reason, &self.properties))
    }

    pub(super) fn write(&self, v5: bool, dst: &mut Vec<u8>) {
        if v5 {
            short_write(self.reason, &self.properties, dst);
        }
    }
}

impl<'a> AuthRef<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let at = *r;
        let (reason, properties) = optional(r, PacketType::Auth, PropertyContext::Auth)?;
        if !at.is_empty() && !properties.contains(PropertyId::AuthenticationMethod) {
            return Err(at.error(Violation::AuthMethodMissing));
        }
        Ok(Self { reason, properties })
    }

    pub(super) fn body_len(&self, v5: bool) -> Result<usize, EncodeError> {
        if !v5 {
            return Err(Violation::VersionHasNoPacket.into());
        }
        if !self.reason.is_allowed_in(PacketType::Auth) {
            return Err(Violation::ReasonCode.into());
        }
        self.properties.check_context(PropertyContext::Auth)?;
        let len = short_len(self.reason, &self.properties);
        if len > 0 && !self.properties.contains(PropertyId::AuthenticationMethod) {
            return Err(Violation::AuthMethodMissing.into());
        }
        Ok(len)
    }

    pub(super) fn write(&self, dst: &mut Vec<u8>) {
        short_write(self.reason, &self.properties, dst);
    }
}
