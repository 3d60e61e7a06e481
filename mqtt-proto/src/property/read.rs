//! The validating pass over a list, and the lazy walk over a list that passed it.

use super::id::{Kind, kind_of};
use super::{Properties, Property, PropertyContext, PropertyId, REPEATED_SUBSCRIPTION_ID};
use crate::reader::{Reader, has_nul};
use crate::topic::has_wildcard;
use crate::{DecodeError, QoS, Violation};

/// Checks everything about a list: identifiers, places, repetitions, values.
pub(super) fn check(mut reader: Reader<'_>, context: PropertyContext) -> Result<Properties<'_>, DecodeError> {
    let mut all = reader;
    let allowed = context.allowed();
    let mut present = 0u64;
    while !reader.is_empty() {
        let at = reader;
        let id = reader.u8()?;
        let kind = kind_of(id);
        let bit = 1u64 << (id & 63);
        if kind == Kind::Unknown {
            return Err(at.error(Violation::PropertyUnknown).with_detail(u32::from(id)));
        }
        if allowed & bit == 0 {
            return Err(at.error(Violation::PropertyNotAllowed).with_detail(u32::from(id)));
        }
        if present & bit != 0 {
            match (kind, context) {
                (Kind::Pair, _) => {}
                (Kind::NonZeroVarint, PropertyContext::Publish) => present |= REPEATED_SUBSCRIPTION_ID,
                _ => return Err(at.error(Violation::PropertyDuplicate).with_detail(u32::from(id))),
            }
        }
        present |= bit;
        let valid = match kind {
            Kind::Flag => reader.u8()? <= 1,
            Kind::U16 => {
                reader.u16()?;
                true
            }
            Kind::NonZeroU16 => {
                let value = reader.u16()?;
                if value == 0 && id == PropertyId::TopicAlias.as_u8() {
                    return Err(at.error(Violation::TopicAliasZero));
                }
                value != 0
            }
            Kind::U32 => {
                reader.u32()?;
                true
            }
            Kind::NonZeroU32 => reader.u32()? != 0,
            Kind::NonZeroVarint => reader.varint()? != 0,
            // [MQTT-3.3.2-13] [MQTT-3.3.2-14] [MQTT-3.3.2-19]
            Kind::Text => {
                let text = reader.string_bytes()?;
                if id == PropertyId::ResponseTopic.as_u8() && has_wildcard(text) {
                    return Err(at.error(Violation::ResponseTopic));
                }
                true
            }
            Kind::Binary => {
                reader.binary()?;
                true
            }
            // [MQTT-1.5.7-1]
            Kind::Pair => {
                reader.string_bytes()?;
                reader.string_bytes()?;
                true
            }
            Kind::Unknown => false,
        };
        if !valid {
            return Err(at.error(Violation::PropertyValue).with_detail(u32::from(id)));
        }
    }
    let at = all;
    let list = Properties::from_parts(all.take_rest(), present);
    if list.lacks_auth_method() {
        return Err(at.error(Violation::AuthDataWithoutMethod));
    }
    Ok(list)
}

/// Walks a list of properties that was checked before. Made by [`Properties::iter`].
#[derive(Clone, Debug)]
pub struct PropertyIter<'a> {
    rest: &'a [u8],
}

impl<'a> PropertyIter<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for PropertyIter<'a> {
    type Item = Property<'a>;

    /// Ends early instead of failing if the bytes are not a checked list, which cannot happen.
    fn next(&mut self) -> Option<Property<'a>> {
        let (property, rest) = split(self.rest)?;
        self.rest = rest;
        Some(property)
    }
}

/// The first property of `bytes` and what is behind it.
fn split(bytes: &[u8]) -> Option<(Property<'_>, &[u8])> {
    use Property as P;
    let (&id, rest) = bytes.split_first()?;
    let id = PropertyId::from_u8(id)?;
    let mut reader = Reader::new(rest, 0, crate::Version::V5);
    let r = &mut reader;
    let property = match id {
        PropertyId::PayloadFormatIndicator => P::PayloadFormatIndicator(r.u8().ok()? != 0),
        PropertyId::MessageExpiryInterval => P::MessageExpiryInterval(r.u32().ok()?),
        PropertyId::ContentType => P::ContentType(text(r)?),
        PropertyId::ResponseTopic => P::ResponseTopic(text(r)?),
        PropertyId::CorrelationData => P::CorrelationData(r.binary().ok()?),
        PropertyId::SubscriptionIdentifier => P::SubscriptionIdentifier(r.varint().ok()?),
        PropertyId::SessionExpiryInterval => P::SessionExpiryInterval(r.u32().ok()?),
        PropertyId::AssignedClientIdentifier => P::AssignedClientIdentifier(text(r)?),
        PropertyId::ServerKeepAlive => P::ServerKeepAlive(r.u16().ok()?),
        PropertyId::AuthenticationMethod => P::AuthenticationMethod(text(r)?),
        PropertyId::AuthenticationData => P::AuthenticationData(r.binary().ok()?),
        PropertyId::RequestProblemInformation => P::RequestProblemInformation(r.u8().ok()? != 0),
        PropertyId::WillDelayInterval => P::WillDelayInterval(r.u32().ok()?),
        PropertyId::RequestResponseInformation => P::RequestResponseInformation(r.u8().ok()? != 0),
        PropertyId::ResponseInformation => P::ResponseInformation(text(r)?),
        PropertyId::ServerReference => P::ServerReference(text(r)?),
        PropertyId::ReasonString => P::ReasonString(text(r)?),
        PropertyId::ReceiveMaximum => P::ReceiveMaximum(r.u16().ok()?),
        PropertyId::TopicAliasMaximum => P::TopicAliasMaximum(r.u16().ok()?),
        PropertyId::TopicAlias => P::TopicAlias(r.u16().ok()?),
        PropertyId::MaximumQos => P::MaximumQos(QoS::from_u8(r.u8().ok()?)?),
        PropertyId::RetainAvailable => P::RetainAvailable(r.u8().ok()? != 0),
        PropertyId::UserProperty => P::UserProperty(text(r)?, text(r)?),
        PropertyId::MaximumPacketSize => P::MaximumPacketSize(r.u32().ok()?),
        PropertyId::WildcardSubscriptionAvailable => P::WildcardSubscriptionAvailable(r.u8().ok()? != 0),
        PropertyId::SubscriptionIdentifierAvailable => P::SubscriptionIdentifierAvailable(r.u8().ok()? != 0),
        PropertyId::SharedSubscriptionAvailable => P::SharedSubscriptionAvailable(r.u8().ok()? != 0),
    };
    Some((property, reader.take_rest()))
}

/// Text that was checked before; only its UTF-8 is looked at again, which building `&str` needs.
fn text<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    core::str::from_utf8(reader.binary().ok()?).ok()
}

/// What a value has to satisfy before it is written.
pub(super) fn check_value(property: &Property<'_>) -> Result<(), Violation> {
    use Property as P;
    let text = |s: &str| {
        if s.len() > crate::topic::MAX_LEN {
            Err(Violation::StringTooLong)
        } else if has_nul(s.as_bytes()) {
            Err(Violation::StringNul)
        } else {
            Ok(())
        }
    };
    let value = |ok: bool| if ok { Ok(()) } else { Err(Violation::PropertyValue) };
    match *property {
        P::ContentType(s)
        | P::AssignedClientIdentifier(s)
        | P::AuthenticationMethod(s)
        | P::ResponseInformation(s)
        | P::ServerReference(s)
        | P::ReasonString(s) => text(s),
        P::ResponseTopic(s) => {
            if has_wildcard(s.as_bytes()) {
                return Err(Violation::ResponseTopic);
            }
            text(s)
        }
        P::UserProperty(name, content) => text(name).and(text(content)),
        P::CorrelationData(data) | P::AuthenticationData(data) => {
            if data.len() > crate::topic::MAX_LEN {
                Err(Violation::StringTooLong)
            } else {
                Ok(())
            }
        }
        P::SubscriptionIdentifier(id) => value(id != 0 && id <= crate::MAX_VARINT),
        P::ReceiveMaximum(n) => value(n != 0),
        P::TopicAlias(n) => {
            if n == 0 {
                Err(Violation::TopicAliasZero)
            } else {
                Ok(())
            }
        }
        P::MaximumPacketSize(n) => value(n != 0),
        P::MaximumQos(qos) => value(qos != QoS::ExactlyOnce),
        _ => Ok(()),
    }
}
