//! Each rule that the codec enforces, with a packet that breaks it.

mod common;

use common::hex;
use mqtt_proto::{AuthRef, ConnectRef, PropertiesBuf, Property, SubscribeFiltersBuf};
use mqtt_proto::{
    PacketId, PacketRef, Properties, PropertyContext, PublishRef, QoS, ReasonCode, SubscriptionOptions,
    TopicFilter, TopicName, UnsubackRef, Version, Violation,
};
use std::collections::BTreeSet;

use ReasonCode::{
    MalformedPacket as Malformed, PacketTooLarge as TooLarge, ProtocolError as Protocol,
    TopicAliasInvalid as BadAlias, UnsupportedProtocolVersion as BadVersion,
};
use Version::{V5, V31, V311};
use Violation as V;

/// What is wrong, in which version, the packet, the offset of the error, the number of the rule in
/// 3.1.1 and in 5.0, and the code that answers it.
type Case = (Violation, Version, &'static str, u32, &'static str, &'static str, ReasonCode);

#[rustfmt::skip]
const DECODED: &[Case] = &[
    // The fixed header and what every packet is made of.
    (V::Truncated, V311, "40 02 00", 1, "MQTT-4.8.0-1", "MQTT-4.13.1-1", Malformed),
    (V::Truncated, V311, "40 01 00", 2, "MQTT-4.8.0-1", "MQTT-4.13.1-1", Malformed),
    (V::Truncated, V5, "30 03 00 02 61", 2, "MQTT-4.8.0-1", "MQTT-4.13.1-1", Malformed),
    (V::Truncated, V5, "", 0, "MQTT-4.8.0-1", "MQTT-4.13.1-1", Malformed),
    (V::TrailingBytes, V311, "40 03 00 01 00", 4, "MQTT-4.8.0-1", "MQTT-4.13.1-1", Malformed),
    (V::TrailingBytes, V311, "c0 00 00", 2, "MQTT-4.8.0-1", "MQTT-4.13.1-1", Malformed),
    (V::RemainingLength, V311, "c0 80 80 80 80 00", 1, "2.2.3", "2.1.4", Malformed),
    (V::VarintNotMinimal, V5, "c0 80 00", 1, "2.2.3", "MQTT-1.5.5-1", Malformed),
    (V::VarintNotMinimal, V5, "30 05 00 01 61 80 00", 5, "2.2.3", "MQTT-1.5.5-1", Malformed),
    (V::VarintTooLong, V5, "30 08 00 01 61 80 80 80 80 01", 5, "2.2.3", "1.5.5", Malformed),
    (V::PacketType, V311, "00 00", 0, "2.2.1", "2.1.2", Malformed),
    (V::PacketType, V311, "f0 00", 0, "2.2.1", "2.1.2", Malformed),
    (V::HeaderFlags, V311, "60 02 00 01", 0, "MQTT-2.2.2-2", "MQTT-2.1.3-1", Malformed),
    (V::HeaderFlags, V5, "80 00", 0, "MQTT-2.2.2-2", "MQTT-2.1.3-1", Malformed),
    (V::StringUtf8, V311, "30 04 00 02 c3 28", 2, "MQTT-1.5.3-1", "MQTT-1.5.4-1", Malformed),
    (V::StringUtf8, V5, "30 06 00 03 ed a0 80 00", 2, "MQTT-1.5.3-1", "MQTT-1.5.4-1", Malformed),
    (V::StringNul, V311, "30 05 00 03 61 00 62", 2, "MQTT-1.5.3-2", "MQTT-1.5.4-2", Malformed),
    (V::StringNul, V5, "30 09 00 01 61 05 03 00 02 61 00", 7, "MQTT-1.5.3-2", "MQTT-1.5.4-2", Malformed),
    (V::PacketIdZero, V311, "40 02 00 00", 2, "MQTT-2.3.1-1", "MQTT-2.2.1-3", Protocol),
    (V::PacketIdZero, V5, "32 06 00 01 61 00 00 00", 5, "MQTT-2.3.1-1", "MQTT-2.2.1-3", Protocol),
    // CONNECT.
    (V::ProtocolName, V311, "10 0c 00 04 4d 51 58 54 04 02 00 00 00 00", 2, "MQTT-3.1.2-1", "MQTT-3.1.2-1", BadVersion),
    (V::ProtocolName, V311, "10 0e 00 06 4d 51 49 73 64 70 04 02 00 00 00 00", 2, "MQTT-3.1.2-1", "MQTT-3.1.2-1", BadVersion),
    (V::ProtocolLevel, V311, "10 0c 00 04 4d 51 54 54 06 02 00 00 00 00", 8, "MQTT-3.1.2-2", "MQTT-3.1.2-2", BadVersion),
    (V::ConnectReserved, V311, "10 0c 00 04 4d 51 54 54 04 03 00 00 00 00", 9, "MQTT-3.1.2-3", "MQTT-3.1.2-3", Malformed),
    (V::WillQos, V311, "10 0c 00 04 4d 51 54 54 04 1e 00 00 00 00", 9, "MQTT-3.1.2-14", "MQTT-3.1.2-12", Malformed),
    (V::WillFlagsWithoutWill, V311, "10 0c 00 04 4d 51 54 54 04 0a 00 00 00 00", 9, "MQTT-3.1.2-13", "MQTT-3.1.2-11", Malformed),
    (V::WillFlagsWithoutWill, V311, "10 0c 00 04 4d 51 54 54 04 22 00 00 00 00", 9, "MQTT-3.1.2-13", "MQTT-3.1.2-11", Malformed),
    (V::PasswordWithoutUserName, V311, "10 0f 00 04 4d 51 54 54 04 42 00 00 00 00 00 01 70", 9, "MQTT-3.1.2-22", "3.1.2.9", Malformed),
    // CONNACK.
    (V::ConnackFlags, V311, "20 02 02 00", 2, "3.2.2.1", "MQTT-3.2.2-1", Malformed),
    (V::SessionPresentOnError, V311, "20 02 01 02", 2, "MQTT-3.2.2-4", "MQTT-3.2.2-6", Protocol),
    (V::SessionPresentOnError, V5, "20 03 01 87 00", 2, "MQTT-3.2.2-4", "MQTT-3.2.2-6", Protocol),
    (V::ReasonCode, V311, "20 02 00 06", 3, "3.2.2.3", "2.4", Protocol),
    (V::ReasonCode, V5, "20 03 00 01 00", 3, "3.2.2.3", "2.4", Protocol),
    (V::ReasonCode, V5, "40 03 00 01 92", 4, "3.2.2.3", "2.4", Protocol),
    // PUBLISH.
    (V::PublishQos, V311, "36 05 00 01 61 00 01", 0, "MQTT-3.3.1-4", "MQTT-3.3.1-4", Malformed),
    (V::DupAtQos0, V311, "38 03 00 01 61", 0, "MQTT-3.3.1-2", "MQTT-3.3.1-2", Malformed),
    (V::TopicEmpty, V311, "30 02 00 00", 2, "MQTT-4.7.3-1", "MQTT-4.7.3-1", Protocol),
    (V::TopicEmpty, V5, "30 03 00 00 00", 2, "MQTT-4.7.3-1", "MQTT-4.7.3-1", Protocol),
    (V::TopicWildcard, V311, "30 05 00 03 61 2f 2b", 2, "MQTT-3.3.2-2", "MQTT-3.3.2-2", Malformed),
    // SUBSCRIBE and UNSUBSCRIBE.
    (V::TopicEmpty, V311, "82 05 00 01 00 00 00", 4, "MQTT-4.7.3-1", "MQTT-4.7.3-1", Protocol),
    (V::FilterHash, V311, "82 08 00 01 00 03 23 2f 61 00", 4, "MQTT-4.7.1-2", "MQTT-4.7.1-1", Malformed),
    (V::FilterPlus, V311, "82 07 00 01 00 02 61 2b 00", 4, "MQTT-4.7.1-3", "MQTT-4.7.1-2", Malformed),
    (V::ShareName, V5, "82 0e 00 01 00 00 08 24 73 68 61 72 65 2f 67 00", 5, "MQTT-4.7.1-2", "MQTT-4.8.2-2", Protocol),
    (V::NoFilters, V311, "82 02 00 01", 4, "MQTT-3.8.3-3", "MQTT-3.8.3-2", Protocol),
    (V::NoUnsubscribeFilters, V5, "a2 03 00 01 00", 5, "MQTT-3.10.3-2", "MQTT-3.10.3-2", Protocol),
    (V::SubscribeQos, V311, "82 06 00 01 00 01 61 03", 7, "MQTT-3.8.3-4", "3.8.3.1", Protocol),
    (V::SubscribeOptions, V311, "82 06 00 01 00 01 61 04", 7, "MQTT-3.8.3-4", "MQTT-3.8.3-5", Malformed),
    (V::SubscribeOptions, V5, "82 07 00 01 00 00 01 61 40", 8, "MQTT-3.8.3-4", "MQTT-3.8.3-5", Malformed),
    (V::SubscribeRetainHandling, V5, "82 07 00 01 00 00 01 61 30", 8, "MQTT-3.8.3-4", "3.8.3.1", Protocol),
    (V::NoLocalShared, V5, "82 10 00 01 00 00 0a 24 73 68 61 72 65 2f 67 2f 61 04", 17, "MQTT-3.8.3-4", "MQTT-3.8.3-4", Protocol),
    (V::SubackCode, V311, "90 04 00 01 00 03", 5, "MQTT-3.9.3-2", "MQTT-3.9.3-2", Protocol),
    (V::SubackCode, V5, "90 05 00 01 00 00 11", 6, "MQTT-3.9.3-2", "MQTT-3.9.3-2", Protocol),
    (V::NoCodes, V311, "90 02 00 01", 4, "MQTT-3.8.4-5", "MQTT-3.8.4-6", Protocol),
    (V::UnsubackCode, V5, "b0 04 00 01 00 01", 5, "3.11", "MQTT-3.11.3-2", Protocol),
    (V::UnsubackCode, V5, "b0 03 00 01 00", 5, "3.11", "MQTT-3.11.3-2", Protocol),
    // Properties and AUTH.
    (V::PropertyUnknown, V5, "30 05 00 01 61 01 04", 6, "2.2.2", "2.2.2.2", Malformed),
    (V::PropertyNotAllowed, V5, "30 07 00 01 61 03 21 00 01", 6, "2.2.2", "2.2.2.2", Malformed),
    (V::PropertyDuplicate, V5, "30 08 00 01 61 04 01 00 01 00", 8, "2.2.2", "2.2.2.2", Protocol),
    (V::PropertyDuplicate, V5, "82 0b 00 01 04 0b 01 0b 02 00 01 61 00", 7, "2.2.2", "2.2.2.2", Protocol),
    (V::PropertyValue, V5, "30 06 00 01 61 02 01 02", 6, "2.2.2", "2.2.2.2", Protocol),
    (V::PropertyValue, V5, "82 09 00 01 02 0b 00 00 01 61 00", 5, "2.2.2", "2.2.2.2", Protocol),
    (V::PropertyValue, V5, "20 06 00 00 03 21 00 00", 5, "2.2.2", "2.2.2.2", Protocol),
    (V::PropertyValue, V5, "20 08 00 00 05 27 00 00 00 00", 5, "2.2.2", "2.2.2.2", Protocol),
    (V::TopicAliasZero, V5, "30 07 00 01 61 03 23 00 00", 6, "2.2.2", "MQTT-3.3.2-8", BadAlias),
    (V::ResponseTopic, V5, "30 08 00 01 61 04 08 00 01 2b", 6, "2.2.2", "MQTT-3.3.2-14", Protocol),
    (V::AuthDataWithoutMethod, V5, "f0 06 18 04 16 00 01 64", 4, "2.2.2", "3.1.2.11.10", Protocol),
    (V::AuthMethodMissing, V5, "f0 02 18 00", 2, "2.2.2", "3.15.2.2.2", Protocol),
];

fn encode(packet: &PacketRef<'_>, version: Version) -> Violation {
    let mut dst = b"before".to_vec();
    let error = packet.encode(version, &mut dst).expect_err("it breaks a rule");
    assert_eq!(dst, b"before", "a refused packet leaves nothing behind");
    assert_eq!(packet.encoded_len(version), Err(error));
    error.violation()
}

/// What cannot be said in bytes, or only by more of them than the format allows.
fn encoded() -> Vec<Violation> {
    let long = "x".repeat(65_536);
    let big = vec![0; 268_435_455];
    let publish = PublishRef { topic: "a", ..Default::default() };
    vec![
        encode(&PacketRef::Publish(PublishRef { packet_id: PacketId::new(1), ..publish }), V311),
        encode(&PacketRef::Connect(ConnectRef { client_id: &long, ..Default::default() }), V5),
        encode(&PacketRef::Auth(AuthRef::default()), V311),
        encode(&PacketRef::Publish(PublishRef { payload: &big, ..publish }), V311),
    ]
}

/// [MQTT-2.2.2-2] of 3.1.1 [MQTT-4.8.0-1] of 3.1.1 [MQTT-4.13.1-1]
#[test]
fn each_violation_is_found_and_named() {
    for &(violation, version, packet, offset, v311, v5, reason) in DECODED {
        let bytes = hex(packet);
        let error = PacketRef::decode(&bytes, version).expect_err(packet);
        assert_eq!(error.violation(), violation, "{packet}: {error}");
        assert_eq!(error.offset(), offset, "{packet}: {error}");
        assert_eq!(error.version(), version, "{packet}");
        assert_eq!(error.rule(), violation.rule(version), "{packet}");
        assert_eq!(violation.rule(V31).id(), v311, "{packet}");
        assert_eq!(violation.rule(V311).id(), v311, "{packet}");
        assert_eq!(violation.rule(V5).id(), v5, "{packet}");
        assert_eq!(error.reason(), reason, "{packet}");
        let text = error.to_string();
        assert!(text.contains(error.rule().id()) && text.contains(error.rule().remedy()), "{text}");
    }
}

#[test]
fn every_violation_has_a_case() {
    let name = |violation: &Violation| format!("{violation:?}");
    let mut covered: BTreeSet<String> = DECODED.iter().map(|case| name(&case.0)).collect();
    covered.extend(encoded().iter().map(name));
    let all: BTreeSet<String> = V::ALL.iter().map(name).collect();
    assert_eq!(covered, all);
}

/// [MQTT-2.3.1-5] of 3.1.1 [MQTT-2.2.1-2]
#[test]
fn what_only_an_encoder_can_break() {
    assert_eq!(encoded(), [V::PacketIdPresence, V::StringTooLong, V::VersionHasNoPacket, V::PacketTooLarge]);
    let publish = PublishRef { topic: "a", qos: QoS::AtLeastOnce, ..Default::default() };
    assert_eq!(encode(&PacketRef::Publish(publish), V5), V::PacketIdPresence);
}

/// What the decoder refuses, the encoder does not write.
#[test]
fn the_encoder_obeys_the_rules_of_the_decoder() {
    let publish = PublishRef { topic: "a", ..Default::default() };
    let refused = |publish| encode(&PacketRef::Publish(publish), V5);
    assert_eq!(refused(PublishRef { topic: "a/#", ..publish }), V::TopicWildcard);
    assert_eq!(refused(PublishRef { topic: "", ..publish }), V::TopicEmpty);
    assert_eq!(refused(PublishRef { topic: "a\0", ..publish }), V::StringNul);
    assert_eq!(refused(PublishRef { dup: true, ..publish }), V::DupAtQos0);
    let codes = |codes| {
        PacketRef::Unsuback(UnsubackRef { packet_id: PacketId::MIN, properties: Properties::EMPTY, codes })
    };
    assert_eq!(encode(&codes(&[]), V5), V::UnsubackCode);
    assert_eq!(encode(&codes(&[0x01]), V5), V::UnsubackCode);
    let auth = AuthRef { reason: ReasonCode::ReAuthenticate, ..Default::default() };
    assert_eq!(encode(&PacketRef::Auth(auth), V5), V::AuthMethodMissing);
    let connect = ConnectRef { version: V311, password: Some(b"p"), ..Default::default() };
    assert_eq!(encode(&PacketRef::Connect(connect), V5), V::PasswordWithoutUserName);

    let list = PropertiesBuf::new().with(Property::ReceiveMaximum(1)).unwrap();
    assert_eq!(refused(PublishRef { properties: list.as_properties(), ..publish }), V::PropertyNotAllowed);
    let data = PropertiesBuf::new().with(Property::AuthenticationData(b"d")).unwrap();
    let connect = ConnectRef { properties: data.as_properties(), ..Default::default() };
    assert_eq!(encode(&PacketRef::Connect(connect), V5), V::AuthDataWithoutMethod);
}

/// [MQTT-3.3.2-8] [MQTT-3.3.2-14]
#[test]
fn property_values_are_checked_when_they_are_pushed() {
    let push = |property| PropertiesBuf::new().with(property).expect_err("refused").violation();
    assert_eq!(push(Property::TopicAlias(0)), V::TopicAliasZero);
    assert_eq!(push(Property::ResponseTopic("a/#")), V::ResponseTopic);
    assert_eq!(push(Property::ReceiveMaximum(0)), V::PropertyValue);
    assert_eq!(push(Property::MaximumPacketSize(0)), V::PropertyValue);
    assert_eq!(push(Property::MaximumQos(QoS::ExactlyOnce)), V::PropertyValue);
    assert_eq!(push(Property::SubscriptionIdentifier(0)), V::PropertyValue);
    assert_eq!(push(Property::SubscriptionIdentifier(268_435_456)), V::PropertyValue);
    assert_eq!(push(Property::UserProperty("a", "b\0")), V::StringNul);
    assert_eq!(push(Property::ContentType(&"x".repeat(65_536))), V::StringTooLong);
    let once = PropertiesBuf::new().with(Property::TopicAlias(1)).unwrap();
    assert_eq!(once.with(Property::TopicAlias(1)).unwrap_err().violation(), V::PropertyDuplicate);
}

/// A limit counts the whole packet, and acts before the body is there.
#[test]
fn packets_over_the_limit_are_refused_by_their_header() {
    let error = PacketRef::decode_next(&hex("30 81 01"), V5, 131).unwrap_err();
    assert_eq!((error.violation(), error.offset(), error.detail()), (V::PacketTooLarge, 1, 132));
    assert_eq!(error.reason(), TooLarge);
    assert_eq!((error.rule().id(), V::PacketTooLarge.rule(V311).id()), ("3.1.2.11.4", "2.2.3"));
    assert_eq!(PacketRef::decode_next(&hex("30 81 01"), V5, 132), Ok(None));
}

/// [MQTT-3.8.3-4] [MQTT-4.8.2-2] [MQTT-4.7.1-1]
#[test]
fn filters_are_checked_when_they_are_pushed() {
    let mut list = SubscribeFiltersBuf::new();
    let no_local = SubscriptionOptions { no_local: true, ..Default::default() };
    assert_eq!(list.push("$share/g/a", no_local).unwrap_err().violation(), V::NoLocalShared);
    assert_eq!(list.push("$share/g", no_local).unwrap_err().violation(), V::ShareName);
    assert_eq!(list.push("a/#/b", no_local).unwrap_err().violation(), V::FilterHash);
    assert!(list.is_empty());
    assert_eq!(TopicFilter::new(&"x".repeat(65_536)).unwrap_err().violation(), V::StringTooLong);
    assert_eq!(TopicName::new("").unwrap_err().violation(), V::TopicEmpty);
}

/// Offsets in a list that stands alone count from its own start.
#[test]
fn lists_of_properties_are_parsed_on_their_own() {
    let error = Properties::parse(&hex("01 00 01 01"), PropertyContext::Publish).unwrap_err();
    assert_eq!((error.violation(), error.offset(), error.detail()), (V::PropertyDuplicate, 2, 1));
    let twice = hex("0b 01 0b 02");
    let list = Properties::parse(&twice, PropertyContext::Publish).unwrap();
    assert_eq!(list.subscription_identifiers().collect::<Vec<_>>(), [1, 2]);
}
