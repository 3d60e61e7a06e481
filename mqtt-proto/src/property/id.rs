/// What a property's value looks like on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No property has this identifier.
    Unknown,
    /// A byte that is 0 or 1.
    Flag,
    U16,
    /// Two bytes that are not zero.
    NonZeroU16,
    U32,
    /// Four bytes that are not zero.
    NonZeroU32,
    /// A variable byte integer that is not zero.
    NonZeroVarint,
    Text,
    Binary,
    Pair,
}

macro_rules! properties {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $kind:ident, $text:literal, [$($context:ident),*];)*) => {
        /// The identifiers of the properties.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum PropertyId {
            $($(#[$doc])* $name = $id,)*
        }

        impl PropertyId {
            /// All 27.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The property with this identifier, if there is one.
            #[must_use]
            pub const fn from_u8(id: u8) -> Option<Self> {
                match id {
                    $($id => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its name as the standard writes it, in kebab case (the name that command lines use).
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        pub(crate) const fn kind_of(id: u8) -> Kind {
            match id {
                $($id => Kind::$kind,)*
                _ => Kind::Unknown,
            }
        }

        const fn contexts_of(id: PropertyId) -> u16 {
            match id {
                $(PropertyId::$name => 0 $(| 1 << (PropertyContext::$context as u16))*,)*
            }
        }
    };
}

/// Where a list of properties stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PropertyContext {
    /// CONNECT.
    Connect,
    /// The will inside CONNECT.
    Will,
    /// CONNACK.
    Connack,
    /// PUBLISH.
    Publish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    Ack,
    /// SUBSCRIBE.
    Subscribe,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// DISCONNECT.
    Disconnect,
    /// AUTH.
    Auth,
}

properties! {
    /// 0x01: the payload is UTF-8 text (1) or unspecified bytes (0).
    PayloadFormatIndicator = 0x01, Flag, "payload-format-indicator", [Publish, Will];
    /// 0x02: lifetime of the message in seconds.
    MessageExpiryInterval = 0x02, U32, "message-expiry-interval", [Publish, Will];
    /// 0x03: what the payload is, usually a MIME type.
    ContentType = 0x03, Text, "content-type", [Publish, Will];
    /// 0x08: topic for a response.
    ResponseTopic = 0x08, Text, "response-topic", [Publish, Will];
    /// 0x09: ties a response to its request.
    CorrelationData = 0x09, Binary, "correlation-data", [Publish, Will];
    /// 0x0B: number of a subscription, 1 to 268,435,455.
    SubscriptionIdentifier = 0x0B, NonZeroVarint, "subscription-identifier", [Publish, Subscribe];
    /// 0x11: how long the session outlives its connection, in seconds.
    SessionExpiryInterval = 0x11, U32, "session-expiry-interval", [Connect, Connack, Disconnect];
    /// 0x12: the client identifier that the server chose.
    AssignedClientIdentifier = 0x12, Text, "assigned-client-identifier", [Connack];
    /// 0x13: the keep alive that the server demands, in seconds.
    ServerKeepAlive = 0x13, U16, "server-keep-alive", [Connack];
    /// 0x15: name of the authentication method.
    AuthenticationMethod = 0x15, Text, "authentication-method", [Connect, Connack, Auth];
    /// 0x16: data of the authentication method.
    AuthenticationData = 0x16, Binary, "authentication-data", [Connect, Connack, Auth];
    /// 0x17: whether reason strings and user properties are wanted on every packet.
    RequestProblemInformation = 0x17, Flag, "request-problem-information", [Connect];
    /// 0x18: how long the will waits, in seconds.
    WillDelayInterval = 0x18, U32, "will-delay-interval", [Will];
    /// 0x19: whether the client wants response information.
    RequestResponseInformation = 0x19, Flag, "request-response-information", [Connect];
    /// 0x1A: what response topics are to be made of.
    ResponseInformation = 0x1A, Text, "response-information", [Connack];
    /// 0x1C: another server to use.
    ServerReference = 0x1C, Text, "server-reference", [Connack, Disconnect];
    /// 0x1F: an explanation for people.
    ReasonString = 0x1F, Text, "reason-string", [Connack, Ack, Disconnect, Auth];
    /// 0x21: how many QoS 1 and 2 messages are taken at once, 1 to 65,535.
    ReceiveMaximum = 0x21, NonZeroU16, "receive-maximum", [Connect, Connack];
    /// 0x22: the highest topic alias that is taken.
    TopicAliasMaximum = 0x22, U16, "topic-alias-maximum", [Connect, Connack];
    /// 0x23: a number that stands for the topic, 1 to 65,535.
    TopicAlias = 0x23, NonZeroU16, "topic-alias", [Publish];
    /// 0x24: the highest QoS that the server supports, 0 or 1.
    MaximumQos = 0x24, Flag, "maximum-qos", [Connack];
    /// 0x25: whether the server supports retained messages.
    RetainAvailable = 0x25, Flag, "retain-available", [Connack];
    /// 0x26: a name and a value of the user's own; may repeat.
    UserProperty = 0x26, Pair, "user-property",
        [Connect, Will, Connack, Publish, Ack, Subscribe, Unsubscribe, Disconnect, Auth];
    /// 0x27: the largest packet that is taken, in bytes.
    MaximumPacketSize = 0x27, NonZeroU32, "maximum-packet-size", [Connect, Connack];
    /// 0x28: whether the server supports wildcards in filters.
    WildcardSubscriptionAvailable = 0x28, Flag, "wildcard-subscription-available", [Connack];
    /// 0x29: whether the server supports subscription identifiers.
    SubscriptionIdentifierAvailable = 0x29, Flag, "subscription-identifier-available", [Connack];
    /// 0x2A: whether the server supports shared subscriptions.
    SharedSubscriptionAvailable = 0x2A, Flag, "shared-subscription-available", [Connack];
}

/// One bit for each allowed property, by context.
const ALLOWED: [u64; 9] = {
    let mut table = [0u64; 9];
    let mut contexts: &mut [u64] = &mut table;
    let mut number = 0u16;
    while let [allowed, rest @ ..] = contexts {
        let mut ids = PropertyId::ALL;
        while let [id, tail @ ..] = ids {
            if contexts_of(*id) & 1 << number != 0 {
                *allowed |= id.bit();
            }
            ids = tail;
        }
        number += 1;
        contexts = rest;
    }
    table
};

impl PropertyContext {
    /// The properties that may stand here, one bit each.
    #[inline]
    pub(crate) const fn allowed(self) -> u64 {
        let [connect, will, connack, publish, ack, subscribe, unsubscribe, disconnect, auth] = ALLOWED;
        match self {
            Self::Connect => connect,
            Self::Will => will,
            Self::Connack => connack,
            Self::Publish => publish,
            Self::Ack => ack,
            Self::Subscribe => subscribe,
            Self::Unsubscribe => unsubscribe,
            Self::Disconnect => disconnect,
            Self::Auth => auth,
        }
    }

    /// Whether the property may stand here.
    #[must_use]
    pub const fn allows(self, id: PropertyId) -> bool {
        self.allowed() & id.bit() != 0
    }
}

impl PropertyId {
    /// The identifier as it stands in a packet.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Identifiers are below 64, so each has a bit of its own.
    #[inline]
    pub(crate) const fn bit(self) -> u64 {
        1 << self.as_u8()
    }

    /// The property with this name in kebab case, as in `user-property`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|id| id.name() == name)
    }
}
