use super::read::check_value;
use super::{Properties, Property, PropertyId, REPEATED_SUBSCRIPTION_ID};
use crate::{EncodeError, Violation};
use alloc::vec::Vec;

/// A list of properties that is being written.
///
/// Each property is checked when it is pushed; whether it may stand in a packet is checked when that
/// packet is encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PropertiesBuf {
    bytes: Vec<u8>,
    present: u64,
}

impl PropertiesBuf {
    /// An empty list; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), present: 0 }
    }

    /// Appends `property`.
    ///
    /// # Errors
    /// Names the rule if the value is out of range or the property is there already (User Property
    /// and Subscription Identifier may repeat). The list is then as it was.
    pub fn push(&mut self, property: Property<'_>) -> Result<(), EncodeError> {
        check_value(&property)?;
        let id = property.id();
        if self.present & id.bit() != 0 {
            match id {
                PropertyId::UserProperty => {}
                PropertyId::SubscriptionIdentifier => self.present |= REPEATED_SUBSCRIPTION_ID,
                _ => return Err(EncodeError::new(Violation::PropertyDuplicate)),
            }
        }
        self.present |= id.bit();
        self.bytes.push(id.as_u8());
        write_value(property, &mut self.bytes);
        Ok(())
    }

    /// Appends `property`, and gives the list back for the next.
    ///
    /// # Errors
    /// As [`PropertiesBuf::push`].
    pub fn with(mut self, property: Property<'_>) -> Result<Self, EncodeError> {
        self.push(property)?;
        Ok(self)
    }

    /// Appends what is not there yet from a checked list, leaving out the properties in `except`.
    pub fn extend_except(&mut self, list: Properties<'_>, except: &[PropertyId]) {
        for property in list {
            if !except.contains(&property.id()) {
                // A checked list holds valid values; what is there already stays.
                let _ = self.push(property);
            }
        }
    }

    /// Empties the list and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.present = 0;
    }

    /// The list, to be put into a packet.
    #[must_use]
    pub fn as_properties(&self) -> Properties<'_> {
        Properties::from_parts(&self.bytes, self.present)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Length on the wire, without the length field in front.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes on the wire, without the length field in front.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl From<Properties<'_>> for PropertiesBuf {
    fn from(list: Properties<'_>) -> Self {
        Self { bytes: list.as_bytes().to_vec(), present: list.present() }
    }
}

fn write_binary(data: &[u8], dst: &mut Vec<u8>) {
    // Longer values were refused by `check_value`.
    let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
    dst.extend_from_slice(&len.to_be_bytes());
    dst.extend_from_slice(data.get(..usize::from(len)).unwrap_or(data));
}

fn write_value(property: Property<'_>, dst: &mut Vec<u8>) {
    use Property as P;
    match property {
        P::PayloadFormatIndicator(v)
        | P::RequestProblemInformation(v)
        | P::RequestResponseInformation(v)
        | P::RetainAvailable(v)
        | P::WildcardSubscriptionAvailable(v)
        | P::SubscriptionIdentifierAvailable(v)
        | P::SharedSubscriptionAvailable(v) => dst.push(u8::from(v)),
        P::MaximumQos(v) => dst.push(v.as_u8()),
        P::ServerKeepAlive(v) | P::ReceiveMaximum(v) | P::TopicAliasMaximum(v) | P::TopicAlias(v) => {
            dst.extend_from_slice(&v.to_be_bytes());
        }
        P::MessageExpiryInterval(v)
        | P::SessionExpiryInterval(v)
        | P::WillDelayInterval(v)
        | P::MaximumPacketSize(v) => dst.extend_from_slice(&v.to_be_bytes()),
        P::SubscriptionIdentifier(v) => crate::varint::write(v, dst),
        P::ContentType(v)
        | P::ResponseTopic(v)
        | P::AssignedClientIdentifier(v)
        | P::AuthenticationMethod(v)
        | P::ResponseInformation(v)
        | P::ServerReference(v)
        | P::ReasonString(v) => write_binary(v.as_bytes(), dst),
        P::CorrelationData(v) | P::AuthenticationData(v) => write_binary(v, dst),
        P::UserProperty(name, value) => {
            write_binary(name.as_bytes(), dst);
            write_binary(value.as_bytes(), dst);
        }
    }
}

impl Property<'_> {
    /// Which property it is.
    #[must_use]
    pub const fn id(&self) -> PropertyId {
        macro_rules! ids {
            ($($name:ident)*) => { match self { $(Self::$name(..) => PropertyId::$name,)* } };
        }
        ids!(PayloadFormatIndicator MessageExpiryInterval ContentType ResponseTopic CorrelationData
            SubscriptionIdentifier SessionExpiryInterval AssignedClientIdentifier ServerKeepAlive
            AuthenticationMethod AuthenticationData RequestProblemInformation WillDelayInterval
            RequestResponseInformation ResponseInformation ServerReference ReasonString ReceiveMaximum
            TopicAliasMaximum TopicAlias MaximumQos RetainAvailable UserProperty MaximumPacketSize
            WildcardSubscriptionAvailable SubscriptionIdentifierAvailable SharedSubscriptionAvailable)
    }
}
