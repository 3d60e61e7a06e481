//! The 27 properties of 5.0: validated once when a packet is decoded, read lazily afterwards.

mod buf;
mod id;
mod read;

pub use buf::PropertiesBuf;
pub use id::{PropertyContext, PropertyId};
pub use read::PropertyIter;

use crate::reader::Reader;
use crate::{DecodeError, EncodeError, QoS, Violation};

/// One property and its value. Text and data point into the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of PropertyId, which documents each")]
pub enum Property<'a> {
    PayloadFormatIndicator(bool),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelayInterval(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(QoS),
    RetainAvailable(bool),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

/// A checked list of properties as it stands in a packet, without its length.
///
/// It comes from a decoded packet or from [`PropertiesBuf`]; in both cases each property is well
/// formed, none but User Property (and, in PUBLISH, Subscription Identifier) occurs twice, and
/// reading it cannot fail. Comparing two lists compares their bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Properties<'a> {
    bytes: &'a [u8],
    /// Bit n is set if the property with identifier n occurs.
    present: u64,
}

/// Marks in [`Properties::present`] that Subscription Identifier occurs more than once; no property
/// has this identifier.
const REPEATED_SUBSCRIPTION_ID: u64 = 1 << 63;

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Self = Self { bytes: &[], present: 0 };

    /// The list as it stands on the wire, without its length.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the property occurs. Costs one bit test.
    #[must_use]
    pub const fn contains(&self, id: PropertyId) -> bool {
        self.present & id.bit() != 0
    }

    /// The properties in the order in which they were sent [MQTT-3.3.2-18]. Allocates nothing.
    #[must_use]
    pub const fn iter(&self) -> PropertyIter<'a> {
        PropertyIter::new(self.bytes)
    }

    /// Takes the bytes of a list that was checked before (by this type, in the same process or
    /// before they were stored) and checks them again for `context`.
    ///
    /// # Errors
    /// Names the first rule that is broken; offsets count from the start of `bytes`.
    pub fn parse(bytes: &'a [u8], context: PropertyContext) -> Result<Self, DecodeError> {
        read::check(Reader::new(bytes, 0, crate::Version::V5), context)
    }

    #[inline]
    pub(crate) fn decode(reader: &mut Reader<'a>, context: PropertyContext) -> Result<Self, DecodeError> {
        let len = reader.varint()?;
        if len == 0 {
            return Ok(Self::EMPTY);
        }
        let (start, version) = (reader.offset(), reader.version());
        let bytes = reader.bytes(usize::try_from(len).unwrap_or(usize::MAX))?;
        read::check(Reader::new(bytes, start, version), context)
    }

    pub(crate) const fn from_parts(bytes: &'a [u8], present: u64) -> Self {
        Self { bytes, present }
    }

    pub(crate) const fn present(&self) -> u64 {
        self.present
    }

    /// Checks that the list may stand in `context`; a few bit operations.
    #[inline]
    pub(crate) fn check_context(&self, context: PropertyContext) -> Result<(), EncodeError> {
        let mut allowed = context.allowed();
        if matches!(context, PropertyContext::Publish) {
            allowed |= REPEATED_SUBSCRIPTION_ID;
        }
        let refused = self.present & !allowed;
        if refused != 0 {
            return Err(EncodeError::new(match refused {
                REPEATED_SUBSCRIPTION_ID => Violation::PropertyDuplicate,
                _ => Violation::PropertyNotAllowed,
            }));
        }
        if self.lacks_auth_method() {
            return Err(EncodeError::new(Violation::AuthDataWithoutMethod));
        }
        Ok(())
    }

    #[inline]
    const fn lacks_auth_method(&self) -> bool {
        let data = PropertyId::AuthenticationData.bit();
        self.present & (data | PropertyId::AuthenticationMethod.bit()) == data
    }

    /// Length in a packet, with the length field in front, if the list may stand in `context`. Below
    /// 5.0 there are no properties, so that they are neither looked at nor written.
    #[inline]
    pub(crate) fn len_in(&self, context: PropertyContext, v5: bool) -> Result<usize, EncodeError> {
        if !v5 {
            return Ok(0);
        }
        self.check_context(context)?;
        Ok(self.encoded_len())
    }

    /// Length on the wire with its own length in front.
    #[inline]
    pub(crate) fn encoded_len(&self) -> usize {
        let len = self.bytes.len();
        crate::varint_len(u32::try_from(len).unwrap_or(u32::MAX)) + len
    }

    /// Its length, also of an empty list [MQTT-2.2.2-1], and the list.
    #[inline]
    pub(crate) fn encode(&self, dst: &mut alloc::vec::Vec<u8>) {
        crate::varint::write(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX), dst);
        dst.extend_from_slice(self.bytes);
    }
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $id:ident -> $type:ty;)*) => {
        impl<'a> Properties<'a> {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> Option<$type> {
                if !self.contains(PropertyId::$id) {
                    return None;
                }
                self.iter().find_map(|property| match property {
                    Property::$id(value) => Some(value),
                    _ => None,
                })
            })*
        }
    };
}

getters! {
    /// Whether the payload is declared to be UTF-8 text.
    payload_format_indicator: PayloadFormatIndicator -> bool;
    /// How long the message lives, in seconds.
    message_expiry_interval: MessageExpiryInterval -> u32;
    /// What the payload is, usually a MIME type.
    content_type: ContentType -> &'a str;
    /// Where a response is to be published.
    response_topic: ResponseTopic -> &'a str;
    /// What ties a response to its request.
    correlation_data: CorrelationData -> &'a [u8];
    /// The first subscription identifier; [`Properties::subscription_identifiers`] gives all.
    subscription_identifier: SubscriptionIdentifier -> u32;
    /// How long the session outlives its connection, in seconds; 0xFFFF_FFFF means for ever.
    session_expiry_interval: SessionExpiryInterval -> u32;
    /// The client identifier that the server chose.
    assigned_client_identifier: AssignedClientIdentifier -> &'a str;
    /// The keep alive that the server demands, in seconds.
    server_keep_alive: ServerKeepAlive -> u16;
    /// The name of the authentication method.
    authentication_method: AuthenticationMethod -> &'a str;
    /// Data of the authentication method.
    authentication_data: AuthenticationData -> &'a [u8];
    /// Whether reason strings and user properties are wanted on every packet.
    request_problem_information: RequestProblemInformation -> bool;
    /// How long the will waits after the connection was lost, in seconds.
    will_delay_interval: WillDelayInterval -> u32;
    /// Whether the client wants response information in CONNACK.
    request_response_information: RequestResponseInformation -> bool;
    /// What response topics are to be made of.
    response_information: ResponseInformation -> &'a str;
    /// Another server to use.
    server_reference: ServerReference -> &'a str;
    /// An explanation for people.
    reason_string: ReasonString -> &'a str;
    /// How many QoS 1 and 2 messages the sender of this takes at once; never 0.
    receive_maximum: ReceiveMaximum -> u16;
    /// The highest topic alias that the sender of this takes.
    topic_alias_maximum: TopicAliasMaximum -> u16;
    /// The number that stands for the topic; never 0.
    topic_alias: TopicAlias -> u16;
    /// The highest QoS that the server supports.
    maximum_qos: MaximumQos -> QoS;
    /// Whether the server supports retained messages.
    retain_available: RetainAvailable -> bool;
    /// The largest packet that the sender of this takes, in bytes; never 0.
    maximum_packet_size: MaximumPacketSize -> u32;
    /// Whether the server supports wildcards in filters.
    wildcard_subscription_available: WildcardSubscriptionAvailable -> bool;
    /// Whether the server supports subscription identifiers.
    subscription_identifier_available: SubscriptionIdentifierAvailable -> bool;
    /// Whether the server supports shared subscriptions.
    shared_subscription_available: SharedSubscriptionAvailable -> bool;
}

impl<'a> Properties<'a> {
    /// The user properties in their order.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let iter = if self.contains(PropertyId::UserProperty) { self.iter() } else { PropertyIter::new(&[]) };
        iter.filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// All subscription identifiers (PUBLISH may carry several).
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + use<'a> {
        let some = self.contains(PropertyId::SubscriptionIdentifier);
        let iter = if some { self.iter() } else { PropertyIter::new(&[]) };
        iter.filter_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
    }
}

impl core::fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertyIter<'a>;

    fn into_iter(self) -> PropertyIter<'a> {
        self.iter()
    }
}
