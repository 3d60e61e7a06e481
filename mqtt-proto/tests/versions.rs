//! Where the three versions differ.

mod common;

use common::hex;
use mqtt_proto::{
    AckRef, ConnackRef, ConnectRef, DisconnectRef, Packet, PacketId, PacketRef, Properties, PropertiesBuf,
    Property, PropertyId, Publish, PublishRef, QoS, ReasonCode, RetainHandling, SubscribeFiltersBuf,
    SubscribeRef, SubscriptionOptions, Version, Violation,
};

use Version::{V5, V31, V311};

const ALL: [Version; 3] = [V31, V311, V5];

fn violation(packet: &str, version: Version) -> Violation {
    PacketRef::decode(&hex(packet), version).expect_err(packet).violation()
}

fn wire(packet: &PacketRef<'_>, version: Version) -> Vec<u8> {
    let mut dst = Vec::new();
    packet.encode(version, &mut dst).unwrap();
    dst
}

/// [MQTT-3.1.2-1] of both [MQTT-3.1.2-2] of both
#[test]
fn connect_names_its_own_version() {
    for (bytes, version) in [
        ("10 0f 00 06 4d 51 49 73 64 70 03 02 00 3c 00 01 63", V31),
        ("10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 63", V311),
        ("10 0e 00 04 4d 51 54 54 05 02 00 3c 00 00 01 63", V5),
    ] {
        let wanted =
            ConnectRef { version, clean_start: true, keep_alive: 60, client_id: "c", ..Default::default() };
        for assumed in ALL {
            let bytes = hex(bytes);
            assert_eq!(PacketRef::decode(&bytes, assumed), Ok(PacketRef::Connect(wanted)));
            assert_eq!(wire(&PacketRef::Connect(wanted), assumed), bytes);
            assert_eq!(Packet::decode(bytes.into(), assumed).unwrap().version(), version);
        }
    }
    // The error carries the level, so that the answer can be in a form that its sender understands.
    let error = PacketRef::decode(&hex("10 0c 00 04 4d 51 54 54 83 02 00 00 00 00"), V5).unwrap_err();
    assert_eq!((error.violation(), error.detail()), (Violation::ProtocolLevel, 0x83));
    // MQIsdp goes with level 3 only, MQTT not with it.
    assert_eq!(violation("10 0e 00 06 4d 51 49 73 64 70 05 02 00 00 00 00", V31), Violation::ProtocolName);
    assert_eq!(violation("10 0c 00 04 4d 51 54 54 03 02 00 00 00 00", V311), Violation::ProtocolName);
    // Errors behind the level count as broken rules of the version that CONNECT named.
    let error = PacketRef::decode(&hex("10 0c 00 04 4d 51 54 54 04 0a 00 00 00 00"), V5).unwrap_err();
    assert_eq!((error.version(), error.rule().id()), (V311, "MQTT-3.1.2-13"));
}

#[test]
fn in_3_1_the_packet_may_end_before_flagged_strings() {
    let connect = |flags: &str, strings: &str, len: u8| {
        hex(&format!("10 {len:02x} 00 06 4d 51 49 73 64 70 03 {flags} 00 00 00 01 63 {strings}"))
    };
    let parts = |bytes: &[u8]| match PacketRef::decode(bytes, V31).unwrap() {
        PacketRef::Connect(c) => (c.user_name.map(str::to_owned), c.password.map(<[u8]>::to_vec)),
        other => panic!("{other:?}"),
    };
    assert_eq!(parts(&connect("82", "", 15)), (None, None));
    assert_eq!(parts(&connect("c2", "", 15)), (None, None));
    assert_eq!(parts(&connect("c2", "00 01 75", 18)), (Some("u".into()), None));
    assert_eq!(parts(&connect("c2", "00 01 75 00 01 70", 21)), (Some("u".into()), Some(b"p".into())));
    // Half a string is no string, and later versions want both.
    let half = PacketRef::decode(&connect("82", "00", 16), V31).unwrap_err();
    assert_eq!(half.violation(), Violation::Truncated);
    assert_eq!(violation("10 0d 00 04 4d 51 54 54 04 82 00 00 00 01 63", V311), Violation::Truncated);
}

/// [MQTT-2.2.2-1] of 3.1.1 [MQTT-3.6.1-1] of both [MQTT-3.8.1-1] of both
#[test]
fn only_3_1_allows_dup_on_pubrel_subscribe_and_unsubscribe() {
    for packet in ["6a 02 00 01", "8a 06 00 01 00 01 61 00", "aa 05 00 01 00 01 61"] {
        let bytes = hex(packet);
        let decoded = PacketRef::decode(&bytes, V31).unwrap();
        assert_eq!(wire(&decoded, V31)[0], bytes[0] & 0xF7, "it is not written");
        assert_eq!(violation(packet, V311), Violation::HeaderFlags);
        assert_eq!(violation(packet, V5), Violation::HeaderFlags);
    }
    for packet in ["60 02 00 01", "63 02 00 01", "48 02 00 01", "c8 00"] {
        assert_eq!(violation(packet, V31), Violation::HeaderFlags);
    }
}

#[test]
fn in_3_1_connack_does_not_say_whether_there_is_a_session() {
    let connack = PacketRef::Connack(ConnackRef { session_present: true, ..Default::default() });
    assert_eq!(wire(&connack, V31), hex("20 02 00 00"));
    assert_eq!(wire(&connack, V311), hex("20 02 01 00"));
    assert_eq!(wire(&connack, V5), hex("20 03 01 00 00"));
    let reserved = hex("20 02 ff 00");
    assert_eq!(PacketRef::decode(&reserved, V31), Ok(PacketRef::Connack(ConnackRef::default())));
}

/// [MQTT-3.2.2-6] of 3.1.1
#[test]
fn refusals_have_return_codes_below_5_0_where_one_fits() {
    for code in 0..=5 {
        let reason = ReasonCode::from_return_code(code).unwrap();
        assert_eq!(reason.to_return_code(), Some(code));
        let connack = PacketRef::Connack(ConnackRef { reason, ..Default::default() });
        assert_eq!(wire(&connack, V311), [0x20, 2, 0, code]);
    }
    assert_eq!(ReasonCode::from_return_code(6), None);
    let packet_too_large = ConnackRef { reason: ReasonCode::PacketTooLarge, ..Default::default() };
    let refused = PacketRef::Connack(packet_too_large).encode(V311, &mut Vec::new()).unwrap_err();
    assert_eq!(refused.violation(), Violation::ReasonCode);
}

/// [MQTT-2.2.2-1]
#[test]
fn what_a_version_lacks_is_left_out() {
    let id = PacketId::MIN;
    // Not even lists that no packet may hold are looked at below 5.0.
    let list = PropertiesBuf::new().with(Property::MaximumQos(QoS::AtMostOnce)).unwrap();
    let properties = list.as_properties();
    let mut filters = SubscribeFiltersBuf::new();
    let options = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    filters.push("a", options).unwrap();
    let subscribe =
        |properties, filters| PacketRef::Subscribe(SubscribeRef { packet_id: id, properties, filters });
    let puback = AckRef { packet_id: id, reason: ReasonCode::NotAuthorized, properties };
    let disconnect = DisconnectRef { reason: ReasonCode::ServerBusy, properties };
    for version in [V31, V311] {
        let filters = filters.as_filters();
        assert_eq!(wire(&subscribe(properties, filters), version), hex("82 06 00 01 00 01 61 02"));
        assert_eq!(wire(&PacketRef::Puback(puback), version), hex("40 02 00 01"));
        assert_eq!(wire(&PacketRef::Disconnect(disconnect), version), hex("e0 00"));
        let publish = PublishRef { topic: "a", properties, ..Default::default() };
        assert_eq!(wire(&PacketRef::Publish(publish), version), hex("30 03 00 01 61"));
        let connect = PacketRef::Connect(ConnectRef { version, properties, ..Default::default() });
        assert_eq!(PacketRef::decode(&wire(&connect, version), version).map(|_| ()), Ok(()));
    }
    assert_eq!(
        wire(&subscribe(Properties::EMPTY, filters.as_filters()), V5),
        hex("82 07 00 01 00 00 01 61 2e")
    );
}

#[test]
fn lists_of_filters_are_equal_however_they_were_made() {
    let mut filters = SubscribeFiltersBuf::new();
    filters.push("a/+", QoS::AtLeastOnce.into()).unwrap();
    let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
    let subscribe =
        PacketRef::Subscribe(SubscribeRef { packet_id, properties, filters: filters.as_filters() });
    for version in ALL {
        assert_eq!(PacketRef::decode(&wire(&subscribe, version), version), Ok(subscribe));
    }
}

#[test]
fn in_5_0_packets_may_end_early() {
    let reason = |packet: &str| match PacketRef::decode(&hex(packet), V5).unwrap() {
        PacketRef::Puback(p) => p.reason.as_u8(),
        PacketRef::Disconnect(p) => p.reason.as_u8(),
        PacketRef::Auth(p) => p.reason.as_u8(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason("40 02 00 01"), 0x00);
    assert_eq!(reason("40 03 00 01 10"), 0x10);
    assert_eq!(reason("40 04 00 01 10 00"), 0x10);
    assert_eq!(reason("e0 00"), 0x00);
    assert_eq!(reason("e0 01 8e"), 0x8E);
    assert_eq!(reason("f0 00"), 0x00);
    // Where nothing may follow, it is an error.
    assert_eq!(violation("40 03 00 01 00", V311), Violation::TrailingBytes);
    assert_eq!(violation("e0 01 00", V311), Violation::TrailingBytes);
}

/// A Remaining Length that is longer than it has to be is wrong by the letter of 5.0 only.
/// [MQTT-1.5.5-1]
#[test]
fn padded_lengths_are_taken_below_5_0() {
    assert_eq!(PacketRef::decode(&hex("c0 80 80 00"), V311), Ok(PacketRef::Pingreq));
    assert_eq!(violation("c0 80 80 00", V5), Violation::VarintNotMinimal);
}

/// [MQTT-3.3.2-18]
#[test]
fn owned_publish_gives_what_the_borrowed_view_gives() {
    let list = PropertiesBuf::new()
        .with(Property::TopicAlias(7))
        .and_then(|list| list.with(Property::UserProperty("b", "1")))
        .and_then(|list| list.with(Property::UserProperty("a", "2")))
        .unwrap();
    for (topic, payload) in [("a/b", &b"xyz"[..]), ("", b""), ("a", b"")] {
        let properties = list.as_properties();
        let publish = PublishRef { topic, payload, properties, retain: true, ..Default::default() };
        let bytes = wire(&PacketRef::Publish(publish), V5);
        let owned = Publish::decode(bytes.clone().into(), V5).unwrap();
        assert_eq!(owned.view(), publish);
        assert_eq!(owned.payload_bytes(), payload);
        assert_eq!(owned.packet(), &bytes);
        assert!(owned.properties().contains(PropertyId::TopicAlias));
        let users: Vec<_> = owned.properties().user_properties().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(users, ["b", "a"]);
    }
    let error = Publish::decode(hex("c0 00").into(), V5).unwrap_err();
    assert_eq!(error.violation(), Violation::PacketType);
}
