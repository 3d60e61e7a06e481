//! The rules that the codec enforces, with the numbers of the statements they come from.

use crate::{ReasonCode, Version};

/// A normative statement (or, where the standard gives it no number, a section) that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    id: &'static str,
    text: &'static str,
    remedy: &'static str,
}

impl Rule {
    /// The number of the statement, such as `MQTT-1.5.4-2`, or the section, such as `3.1.2.11.3`,
    /// of the version in force.
    #[must_use]
    pub const fn id(self) -> &'static str {
        self.id
    }

    /// What is wrong.
    #[must_use]
    pub const fn text(self) -> &'static str {
        self.text
    }

    /// What the sender has to do instead.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        self.remedy
    }
}

macro_rules! violations {
    ($($(#[$doc:meta])* $name:ident: $v3:literal, $v5:literal, $reason:ident, $text:literal, $remedy:literal;)*) => {
        /// What is wrong with a packet, whatever the version.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Violation {
            $(#[doc = concat!("The ", $text, " (3.x: ", $v3, "; 5.0: ", $v5, ").")] $name,)*
        }

        impl Violation {
            /// Each of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The rule that it breaks in `version`.
            #[must_use]
            pub const fn rule(self, version: Version) -> Rule {
                let v5 = version.is_v5();
                match self {
                    $(Self::$name => Rule { id: if v5 { $v5 } else { $v3 }, text: $text, remedy: $remedy },)*
                }
            }

            /// The code that answers it in 5.0.
            #[must_use]
            pub const fn reason(self) -> ReasonCode {
                match self {
                    $(Self::$name => ReasonCode::$reason,)*
                }
            }
        }
    };
}

violations! {
    Truncated: "MQTT-4.8.0-1", "MQTT-4.13.1-1", MalformedPacket,
        "packet ends inside a field", "make the Remaining Length cover every field";
    TrailingBytes: "MQTT-4.8.0-1", "MQTT-4.13.1-1", MalformedPacket,
        "packet has bytes after its last field", "make the Remaining Length end with the last field";
    RemainingLength: "2.2.3", "2.1.4", MalformedPacket,
        "Remaining Length is longer than four bytes", "clear the top bit of its fourth byte";
    VarintTooLong: "2.2.3", "1.5.5", MalformedPacket,
        "variable byte integer is longer than four bytes", "clear the top bit of its fourth byte";
    VarintNotMinimal: "2.2.3", "MQTT-1.5.5-1", MalformedPacket,
        "variable byte integer is not in its shortest form", "use as few bytes as the value needs";
    PacketType: "2.2.1", "2.1.2", MalformedPacket,
        "packet type is reserved", "use a type from 1 to 14 (15 in 5.0)";
    HeaderFlags: "MQTT-2.2.2-2", "MQTT-2.1.3-1", MalformedPacket,
        "fixed header flags are not those of this packet type", "set the low four bits as the type prescribes";
    PacketTooLarge: "2.2.3", "3.1.2.11.4", PacketTooLarge,
        "packet is larger than the receiver accepts", "send smaller packets, or raise the receiver's limit";
    StringUtf8: "MQTT-1.5.3-1", "MQTT-1.5.4-1", MalformedPacket,
        "string is not well-formed UTF-8", "encode the text as UTF-8 without surrogates";
    StringNul: "MQTT-1.5.3-2", "MQTT-1.5.4-2", MalformedPacket,
        "string contains U+0000", "leave U+0000 out of strings";
    StringTooLong: "1.5.3", "1.5.4", MalformedPacket,
        "string or binary field is longer than 65,535 bytes", "shorten it";
    PacketIdZero: "MQTT-2.3.1-1", "MQTT-2.2.1-3", ProtocolError,
        "packet identifier is zero", "use an identifier from 1 to 65,535";
    PacketIdPresence: "MQTT-2.3.1-5", "MQTT-2.2.1-2", ProtocolError,
        "PUBLISH has an identifier at QoS 0, or none above", "give an identifier exactly when QoS is 1 or 2";
    ProtocolName: "MQTT-3.1.2-1", "MQTT-3.1.2-1", UnsupportedProtocolVersion,
        "protocol name is not MQTT (or MQIsdp at level 3)", "send the name that goes with the level";
    ProtocolLevel: "MQTT-3.1.2-2", "MQTT-3.1.2-2", UnsupportedProtocolVersion,
        "protocol level is not 3, 4 or 5", "connect with MQTT 3.1, 3.1.1 or 5.0";
    ConnectReserved: "MQTT-3.1.2-3", "MQTT-3.1.2-3", MalformedPacket,
        "reserved connect flag is set", "clear bit 0 of the connect flags";
    WillQos: "MQTT-3.1.2-14", "MQTT-3.1.2-12", MalformedPacket,
        "will QoS is 3", "use 0, 1 or 2";
    WillFlagsWithoutWill: "MQTT-3.1.2-13", "MQTT-3.1.2-11", MalformedPacket,
        "will QoS or will retain is set without a will", "clear them, or set the will flag";
    PasswordWithoutUserName: "MQTT-3.1.2-22", "3.1.2.9", MalformedPacket,
        "password is present without a user name", "send a user name too (only 5.0 allows a password alone)";
    ConnackFlags: "3.2.2.1", "MQTT-3.2.2-1", MalformedPacket,
        "reserved bit of the connect acknowledge flags is set", "clear bits 7 to 1";
    SessionPresentOnError: "MQTT-3.2.2-4", "MQTT-3.2.2-6", ProtocolError,
        "CONNACK refuses and yet says that a session is present", "clear Session Present";
    ReasonCode: "3.2.2.3", "2.4", ProtocolError,
        "reason code is not one of this packet's", "use a code from the packet's table";
    SubackCode: "MQTT-3.9.3-2", "MQTT-3.9.3-2", ProtocolError,
        "SUBACK holds a code that is not of its table", "use a code from the packet's table";
    NoCodes: "MQTT-3.8.4-5", "MQTT-3.8.4-6", ProtocolError,
        "SUBACK has no code", "give one code for each filter";
    UnsubackCode: "3.11", "MQTT-3.11.3-2", ProtocolError,
        "UNSUBACK has no code, or one that is not of its table", "give one code of the table for each filter";
    PublishQos: "MQTT-3.3.1-4", "MQTT-3.3.1-4", MalformedPacket,
        "QoS is 3", "use 0, 1 or 2";
    DupAtQos0: "MQTT-3.3.1-2", "MQTT-3.3.1-2", MalformedPacket,
        "DUP is set at QoS 0", "clear DUP";
    TopicEmpty: "MQTT-4.7.3-1", "MQTT-4.7.3-1", ProtocolError,
        "topic is empty", "give at least one character (or, in 5.0, a topic alias)";
    TopicWildcard: "MQTT-3.3.2-2", "MQTT-3.3.2-2", MalformedPacket,
        "topic name contains a wildcard", "leave + and # to topic filters";
    FilterHash: "MQTT-4.7.1-2", "MQTT-4.7.1-1", MalformedPacket,
        "# in a topic filter is not alone in its level, or not last", "use # only as the whole last level";
    FilterPlus: "MQTT-4.7.1-3", "MQTT-4.7.1-2", MalformedPacket,
        "+ in a topic filter does not fill its level", "use + only as a whole level";
    ShareName: "MQTT-4.7.1-2", "MQTT-4.8.2-2", ProtocolError,
        "shared filter is not $share/name/filter with a name free of / + #",
        "write $share/, a name, / and a filter";
    NoFilters: "MQTT-3.8.3-3", "MQTT-3.8.3-2", ProtocolError,
        "SUBSCRIBE has no topic filter", "give at least one";
    NoUnsubscribeFilters: "MQTT-3.10.3-2", "MQTT-3.10.3-2", ProtocolError,
        "UNSUBSCRIBE has no topic filter", "give at least one";
    SubscribeQos: "MQTT-3.8.3-4", "3.8.3.1", ProtocolError,
        "requested QoS is 3", "use 0, 1 or 2";
    SubscribeOptions: "MQTT-3.8.3-4", "MQTT-3.8.3-5", MalformedPacket,
        "reserved subscription option bits are set", "clear them";
    SubscribeRetainHandling: "MQTT-3.8.3-4", "3.8.3.1", ProtocolError,
        "retain handling is 3", "use 0, 1 or 2";
    NoLocalShared: "MQTT-3.8.3-4", "MQTT-3.8.3-4", ProtocolError,
        "No Local is set on a shared subscription", "clear it";
    PropertyUnknown: "2.2.2", "2.2.2.2", MalformedPacket,
        "property identifier is unknown", "use one of the 27 identifiers";
    PropertyNotAllowed: "2.2.2", "2.2.2.2", MalformedPacket,
        "property is not allowed in this packet", "leave it out";
    PropertyDuplicate: "2.2.2", "2.2.2.2", ProtocolError,
        "property occurs more than once", "send it once (only User Property may repeat)";
    PropertyValue: "2.2.2", "2.2.2.2", ProtocolError,
        "property value is outside its range", "use a value that the property allows";
    TopicAliasZero: "2.2.2", "MQTT-3.3.2-8", TopicAliasInvalid,
        "Topic Alias is 0", "use 1 up to the receiver's Topic Alias Maximum";
    ResponseTopic: "2.2.2", "MQTT-3.3.2-14", ProtocolError,
        "Response Topic contains a wildcard", "use a topic name";
    AuthDataWithoutMethod: "2.2.2", "3.1.2.11.10", ProtocolError,
        "Authentication Data is present without an Authentication Method", "send the method too";
    AuthMethodMissing: "2.2.2", "3.15.2.2.2", ProtocolError,
        "AUTH has no Authentication Method", "send the method that CONNECT named";
    VersionHasNoPacket: "2.2.1", "2.1.2", ProtocolError,
        "packet does not exist in this version", "use MQTT 5.0";
}
