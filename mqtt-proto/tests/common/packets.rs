//! Packets at random: what owns their bytes, and strategies that make any packet of any version.

use mqtt_proto::{
    AckRef, AuthRef, ConnackRef, ConnectRef, DisconnectRef, PacketId, PacketRef, PacketType, PropertiesBuf,
    Property, PropertyContext, PropertyId, PublishRef, QoS, ReasonCode, RetainHandling, SubackRef,
    SubscribeFiltersBuf, SubscribeRef, SubscriptionOptions, UnsubackRef, UnsubscribeFiltersBuf,
    UnsubscribeRef, Version, WillRef,
};
use proptest::prelude::*;
use proptest::sample::select;

#[derive(Clone, Debug)]
pub(crate) struct Will {
    qos: QoS,
    retain: bool,
    properties: PropertiesBuf,
    topic: String,
    payload: Vec<u8>,
}

/// The fields of a packet; those that its type does not have are not used.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) version: Version,
    pub(crate) kind: PacketType,
    flag: bool,
    retain: bool,
    qos: QoS,
    number: PacketId,
    reason: ReasonCode,
    properties: PropertiesBuf,
    text: String,
    data: Vec<u8>,
    codes: Vec<u8>,
    will: Option<Will>,
    user_name: Option<String>,
    password: Option<Vec<u8>>,
    filters: SubscribeFiltersBuf,
    names: UnsubscribeFiltersBuf,
}

impl Model {
    pub(crate) fn packet(&self) -> PacketRef<'_> {
        let (packet_id, reason) = (self.number, self.reason);
        let properties = self.properties.as_properties();
        let ack = AckRef { packet_id, reason, properties };
        match self.kind {
            PacketType::Connect => PacketRef::Connect(ConnectRef {
                version: self.version,
                clean_start: self.flag,
                keep_alive: packet_id.get(),
                properties,
                client_id: &self.text,
                will: self.will.as_ref().map(|will| WillRef {
                    qos: will.qos,
                    retain: will.retain,
                    properties: will.properties.as_properties(),
                    topic: &will.topic,
                    payload: &will.payload,
                }),
                user_name: self.user_name.as_deref(),
                password: self.password.as_deref(),
            }),
            PacketType::Connack => {
                PacketRef::Connack(ConnackRef { session_present: self.flag, reason, properties })
            }
            PacketType::Publish => PacketRef::Publish(PublishRef {
                dup: self.flag,
                qos: self.qos,
                retain: self.retain,
                topic: &self.text,
                packet_id: (self.qos != QoS::AtMostOnce).then_some(packet_id),
                properties,
                payload: &self.data,
            }),
            PacketType::Puback => PacketRef::Puback(ack),
            PacketType::Pubrec => PacketRef::Pubrec(ack),
            PacketType::Pubrel => PacketRef::Pubrel(ack),
            PacketType::Pubcomp => PacketRef::Pubcomp(ack),
            PacketType::Subscribe => PacketRef::Subscribe(SubscribeRef {
                packet_id,
                properties,
                filters: self.filters.as_filters(),
            }),
            PacketType::Suback => PacketRef::Suback(SubackRef { packet_id, properties, codes: &self.codes }),
            PacketType::Unsubscribe => {
                let filters = self.names.as_filters();
                PacketRef::Unsubscribe(UnsubscribeRef { packet_id, properties, filters })
            }
            PacketType::Unsuback => {
                PacketRef::Unsuback(UnsubackRef { packet_id, properties, codes: &self.codes })
            }
            PacketType::Pingreq => PacketRef::Pingreq,
            PacketType::Pingresp => PacketRef::Pingresp,
            PacketType::Disconnect => PacketRef::Disconnect(DisconnectRef { reason, properties }),
            PacketType::Auth => PacketRef::Auth(AuthRef { reason, properties }),
        }
    }
}

const KINDS: [PacketType; 15] = [
    PacketType::Connect,
    PacketType::Connack,
    PacketType::Publish,
    PacketType::Puback,
    PacketType::Pubrec,
    PacketType::Pubrel,
    PacketType::Pubcomp,
    PacketType::Subscribe,
    PacketType::Suback,
    PacketType::Unsubscribe,
    PacketType::Unsuback,
    PacketType::Pingreq,
    PacketType::Pingresp,
    PacketType::Disconnect,
    PacketType::Auth,
];

fn context(kind: PacketType) -> PropertyContext {
    match kind {
        PacketType::Connect => PropertyContext::Connect,
        PacketType::Connack => PropertyContext::Connack,
        PacketType::Publish => PropertyContext::Publish,
        PacketType::Subscribe => PropertyContext::Subscribe,
        PacketType::Unsubscribe => PropertyContext::Unsubscribe,
        PacketType::Disconnect => PropertyContext::Disconnect,
        PacketType::Auth => PropertyContext::Auth,
        _ => PropertyContext::Ack,
    }
}

/// The codes that `kind` has in `version`.
fn reasons(kind: PacketType, version: Version) -> Vec<ReasonCode> {
    let all = ReasonCode::ALL.iter().copied();
    let some: Vec<_> = match kind {
        PacketType::Suback if !version.is_v5() => {
            all.filter(|r| [0, 1, 2, 0x80].contains(&r.as_u8())).collect()
        }
        PacketType::Connack if !version.is_v5() => (0..=5).filter_map(ReasonCode::from_return_code).collect(),
        _ if version.is_v5() || kind == PacketType::Unsuback => {
            all.filter(|r| r.is_allowed_in(kind)).collect()
        }
        _ => Vec::new(),
    };
    if some.is_empty() { vec![ReasonCode::Success] } else { some }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[^\0]{0,20}", 1 => "[a-z]{100,200}", 1 => "\u{feff}[^\0]{0,3}"]
}

fn topic() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/]{1,40}", "[^\0+#]{1,12}"]
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![4 => "[^\0+#/]{0,6}", 1 => Just("+".to_owned())];
    let levels = (prop::collection::vec(level, 1..5), any::<bool>(), any::<bool>());
    levels.prop_map(|(mut levels, hash, shared)| {
        if hash {
            levels.push("#".to_owned());
        }
        let filter = levels.join("/");
        let filter = if filter.is_empty() { "/".to_owned() } else { filter };
        if shared || filter.starts_with("$share/") { format!("$share/g/{filter}") } else { filter }
    })
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 100..300),
    ]
}

/// A property of each kind that fits into `context`, made of the same few values.
fn property<'a>(id: PropertyId, number: u32, text: &'a str, other: &'a str, data: &'a [u8]) -> Property<'a> {
    use Property as P;
    let flag = number & 1 != 0;
    let short = u16::try_from(number & 0xFFFF).unwrap();
    match id {
        PropertyId::PayloadFormatIndicator => P::PayloadFormatIndicator(flag),
        PropertyId::MessageExpiryInterval => P::MessageExpiryInterval(number),
        PropertyId::ContentType => P::ContentType(text),
        PropertyId::ResponseTopic => P::ResponseTopic(text),
        PropertyId::CorrelationData => P::CorrelationData(data),
        PropertyId::SubscriptionIdentifier => P::SubscriptionIdentifier(number % 0x0FFF_FFFF + 1),
        PropertyId::SessionExpiryInterval => P::SessionExpiryInterval(number),
        PropertyId::AssignedClientIdentifier => P::AssignedClientIdentifier(text),
        PropertyId::ServerKeepAlive => P::ServerKeepAlive(short),
        PropertyId::AuthenticationMethod => P::AuthenticationMethod(text),
        PropertyId::AuthenticationData => P::AuthenticationData(data),
        PropertyId::RequestProblemInformation => P::RequestProblemInformation(flag),
        PropertyId::WillDelayInterval => P::WillDelayInterval(number),
        PropertyId::RequestResponseInformation => P::RequestResponseInformation(flag),
        PropertyId::ResponseInformation => P::ResponseInformation(text),
        PropertyId::ServerReference => P::ServerReference(text),
        PropertyId::ReasonString => P::ReasonString(text),
        PropertyId::ReceiveMaximum => P::ReceiveMaximum(short.max(1)),
        PropertyId::TopicAliasMaximum => P::TopicAliasMaximum(short),
        PropertyId::TopicAlias => P::TopicAlias(short.max(1)),
        PropertyId::MaximumQos => P::MaximumQos(if flag { QoS::AtLeastOnce } else { QoS::AtMostOnce }),
        PropertyId::RetainAvailable => P::RetainAvailable(flag),
        PropertyId::UserProperty => P::UserProperty(text, other),
        PropertyId::MaximumPacketSize => P::MaximumPacketSize(number.max(1)),
        PropertyId::WildcardSubscriptionAvailable => P::WildcardSubscriptionAvailable(flag),
        PropertyId::SubscriptionIdentifierAvailable => P::SubscriptionIdentifierAvailable(flag),
        PropertyId::SharedSubscriptionAvailable => P::SharedSubscriptionAvailable(flag),
    }
}

pub(crate) fn properties(context: PropertyContext) -> impl Strategy<Value = PropertiesBuf> {
    let allowed: Vec<_> = PropertyId::ALL.iter().copied().filter(|&id| context.allows(id)).collect();
    let one = (select(allowed), any::<u32>(), text(), text(), data());
    prop::collection::vec(one, 0..6).prop_map(move |all| {
        let mut list = PropertiesBuf::new();
        for (id, number, text, other, data) in &all {
            let repeats = *id == PropertyId::SubscriptionIdentifier
                && context != PropertyContext::Publish
                && list.as_properties().contains(*id);
            if !repeats {
                // What must not repeat, and text that is no topic, is left out.
                let _ = list.push(property(*id, *number, text, other, data));
            }
        }
        let lone = |list: &PropertiesBuf| {
            let has = |id| list.as_properties().contains(id);
            has(PropertyId::AuthenticationData) && !has(PropertyId::AuthenticationMethod)
        };
        if lone(&list) || context == PropertyContext::Auth {
            let _ = list.push(Property::AuthenticationMethod("m"));
        }
        list
    })
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

fn will(version: Version) -> impl Strategy<Value = Will> {
    (qos(), any::<bool>(), properties(PropertyContext::Will), topic(), data()).prop_map(
        move |(qos, retain, properties, topic, payload)| Will {
            qos,
            retain,
            properties: if version.is_v5() { properties } else { PropertiesBuf::new() },
            topic,
            payload,
        },
    )
}

fn filters(v5: bool) -> impl Strategy<Value = (SubscribeFiltersBuf, UnsubscribeFiltersBuf)> {
    let options = (qos(), any::<bool>(), any::<bool>(), 0u8..3);
    prop::collection::vec((filter(), options), 1..4).prop_map(move |all| {
        let (mut filters, mut names) = (SubscribeFiltersBuf::new(), UnsubscribeFiltersBuf::new());
        for (filter, (qos, no_local, retain_as_published, handling)) in &all {
            let options = SubscriptionOptions {
                qos: *qos,
                no_local: v5 && *no_local && !filter.starts_with("$share/"),
                retain_as_published: v5 && *retain_as_published,
                retain_handling: RetainHandling::from_u8(*handling).filter(|_| v5).unwrap_or_default(),
            };
            filters.push(filter, options).unwrap();
            names.push(filter).unwrap();
        }
        (filters, names)
    })
}

/// Any packet that `version` has.
pub(crate) fn packet_of(version: Version) -> impl Strategy<Value = Model> {
    let v5 = version.is_v5();
    let kinds = if v5 { &KINDS[..] } else { &KINDS[..14] };
    select(kinds).prop_flat_map(move |kind| {
        let codes = reasons(kind, version);
        let bits = (any::<bool>(), any::<bool>(), qos(), 1..=u16::MAX);
        let reason = (select(codes.clone()), prop::collection::vec(select(codes), 1..5));
        let words = (text(), topic(), data(), properties(context(kind)), filters(v5));
        let login = (prop::option::of(will(version)), prop::option::of(text()), prop::option::of(data()));
        (bits, reason, words, login).prop_map(
            move |(bits, (reason, codes), words, (will, user_name, password))| {
                let (flag, retain, qos, number) = bits;
                let (text, topic, data, properties, (filters, names)) = words;
                let properties = if v5 { properties } else { PropertiesBuf::new() };
                let aliased = properties.as_properties().contains(PropertyId::TopicAlias) && retain;
                Model {
                    version,
                    kind,
                    flag: match kind {
                        PacketType::Publish => flag && qos != QoS::AtMostOnce,
                        PacketType::Connack => {
                            flag && version != Version::V31 && reason == ReasonCode::Success
                        }
                        _ => flag,
                    },
                    retain,
                    qos,
                    number: PacketId::new(number).unwrap(),
                    reason,
                    properties,
                    text: match kind {
                        PacketType::Publish if aliased => String::new(),
                        PacketType::Publish => topic,
                        _ => text,
                    },
                    data,
                    codes: if v5 || kind == PacketType::Suback {
                        codes.iter().map(|code| code.as_u8()).collect()
                    } else {
                        Vec::new()
                    },
                    will,
                    password: password.filter(|_| v5 || user_name.is_some()),
                    user_name,
                    filters,
                    names,
                }
            },
        )
    })
}

/// Any packet of any version.
pub(crate) fn packet() -> impl Strategy<Value = Model> {
    prop_oneof![packet_of(Version::V31), packet_of(Version::V311), packet_of(Version::V5)]
}
