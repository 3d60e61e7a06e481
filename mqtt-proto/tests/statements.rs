//! Statements of the standards that the codec keeps by itself, one at a time.

mod common;

use common::hex;
use mqtt_proto::{
    AckRef, AuthRef, ConnackRef, ConnectRef, DisconnectRef, PacketId, PacketRef, PacketType, Properties,
    PropertiesBuf, Property, PublishRef, QoS, ReasonCode, SubackRef, SubscribeFiltersBuf, SubscribeRef,
    UnsubackRef, UnsubscribeFiltersBuf, UnsubscribeRef, Version, Violation, WillRef,
};

use Version::{V5, V311};

const BOTH: [Version; 2] = [V311, V5];

fn wire(packet: &PacketRef<'_>, version: Version) -> Vec<u8> {
    let mut dst = Vec::new();
    packet.encode(version, &mut dst).unwrap();
    dst
}

fn violation(bytes: &[u8], version: Version) -> Violation {
    PacketRef::decode(bytes, version).expect_err("refused").violation()
}

fn publish(topic: &[u8], properties: &[u8]) -> Vec<u8> {
    let mut body = [&[0, u8::try_from(topic.len()).unwrap()], topic].concat();
    body.push(u8::try_from(properties.len()).unwrap());
    body.extend_from_slice(properties);
    [&[0x30, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

/// CONNECT with these flags, client identifier and rest of the payload.
fn connect(version: Version, flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version.level(), flags, 0, 0];
    if version.is_v5() {
        body.push(0);
    }
    for field in payload {
        body.extend_from_slice(&[0, u8::try_from(field.len()).unwrap()]);
        body.extend_from_slice(field);
    }
    [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

/// [MQTT-1.5.4-3] [MQTT-1.5.3-3] of 3.1.1
#[test]
fn a_byte_order_mark_is_a_character() {
    for version in BOTH {
        let topic = "\u{feff}a";
        let packet = PacketRef::Publish(PublishRef { topic, ..Default::default() });
        let bytes = wire(&packet, version);
        assert_eq!(bytes[4..8], [0xEF, 0xBB, 0xBF, b'a']);
        assert_eq!(PacketRef::decode(&bytes, version), Ok(packet));
    }
}

/// [MQTT-1.5.7-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19]
#[test]
fn strings_in_properties_are_well_formed() {
    // User Property, either half; Response Topic; Content Type.
    for (head, string, tail) in
        [("26", "00 01", "00 01 61"), ("26 00 01 61", "00 01", ""), ("08", "00 01", ""), ("03", "00 01", "")]
    {
        let property = |c: u8| [hex(head), hex(string), vec![c], hex(tail)].concat();
        assert!(PacketRef::decode(&publish(b"t", &property(b'x')), V5).is_ok(), "{head}");
        assert_eq!(violation(&publish(b"t", &property(0xFF)), V5), Violation::StringUtf8, "{head}");
        assert_eq!(violation(&publish(b"t", &property(0)), V5), Violation::StringNul, "{head}");
    }
}

/// [MQTT-2.2.2-1]
#[test]
fn an_empty_property_list_has_a_length() {
    let (id, properties) = (PacketId::MIN, Properties::EMPTY);
    let mut filters = SubscribeFiltersBuf::new();
    filters.push("a", QoS::AtMostOnce.into()).unwrap();
    let mut names = UnsubscribeFiltersBuf::new();
    names.push("a").unwrap();
    for (packet, at) in [
        (PacketRef::Connect(ConnectRef { client_id: "c", ..Default::default() }), 12),
        (PacketRef::Connack(ConnackRef::default()), 4),
        (PacketRef::Publish(PublishRef { topic: "a", ..Default::default() }), 5),
        (PacketRef::Subscribe(SubscribeRef { packet_id: id, properties, filters: filters.as_filters() }), 4),
        (PacketRef::Suback(SubackRef { packet_id: id, properties, codes: &[1] }), 4),
        (
            PacketRef::Unsubscribe(UnsubscribeRef { packet_id: id, properties, filters: names.as_filters() }),
            4,
        ),
        (PacketRef::Unsuback(UnsubackRef { packet_id: id, properties, codes: &[0x11] }), 4),
    ] {
        let mut bytes = wire(&packet, V5);
        assert_eq!(bytes[at], 0, "{packet:?}");
        assert_eq!(PacketRef::decode(&bytes, V5), Ok(packet));
        // Without it, what follows is taken for it.
        bytes.remove(at);
        bytes[1] -= 1;
        assert_ne!(PacketRef::decode(&bytes, V5), Ok(packet));
    }
}

/// [MQTT-3.1.3-1] of both [MQTT-3.1.3-3] of both
#[test]
fn the_payload_of_connect_has_its_order() {
    for version in BOTH {
        let properties = PropertiesBuf::new().with(Property::WillDelayInterval(1)).unwrap();
        let properties = if version.is_v5() { properties.as_properties() } else { Properties::EMPTY };
        let will = WillRef { topic: "wt", payload: b"wm", properties, ..WillRef::default() };
        let packet = ConnectRef {
            version,
            client_id: "id",
            will: Some(will),
            user_name: Some("un"),
            password: Some(b"pw"),
            ..ConnectRef::default()
        };
        let bytes = wire(&PacketRef::Connect(packet), version);
        let will_properties = if version.is_v5() { "05 18 00 00 00 01" } else { "" };
        let payload =
            hex(&format!("00 02 69 64 {will_properties} 00 02 77 74 00 02 77 6d 00 02 75 6e 00 02 70 77"));
        assert!(bytes.ends_with(&payload), "{bytes:02X?}");
        assert_eq!(bytes.len() - payload.len(), if version.is_v5() { 13 } else { 12 });
        assert_eq!(PacketRef::decode(&bytes, version), Ok(PacketRef::Connect(packet)));
    }
}

/// The client identifier, will topic and user name. [MQTT-3.1.3-4] of both [MQTT-3.1.3-11] of 3.1.1
/// [MQTT-3.1.3-10] of 3.1.1 [MQTT-3.1.3-11] [MQTT-3.1.3-12]
///
/// More than three: the three strings of CONNECT have a number each in each version.
#[test]
fn strings_of_connect_are_well_formed() {
    for version in BOTH {
        let no_will_properties: &[&[u8]] = if version.is_v5() { &[b""] } else { &[] };
        let packet = |strings: [&[u8]; 3]| {
            let [id, topic, user] = strings;
            // An empty will property list is one zero byte, so the list is spelled out by hand.
            let mut bytes = connect(version, 0x86, &[id, topic, b"m", user]);
            if !no_will_properties.is_empty() {
                bytes.insert(13 + 2 + id.len(), 0);
                bytes[1] += 1;
            }
            bytes
        };
        assert!(PacketRef::decode(&packet([b"c", b"t", b"u"]), version).is_ok());
        for at in 0..3 {
            let mut strings: [&[u8]; 3] = [b"c", b"t", b"u"];
            strings[at] = &[0xC3, 0x28];
            assert_eq!(violation(&packet(strings), version), Violation::StringUtf8, "{version} {at}");
        }
    }
}

/// [MQTT-3.1.2-9] of both [MQTT-3.1.2-17] [MQTT-3.1.2-19] [MQTT-3.1.2-19] of 3.1.1 [MQTT-3.1.2-21] of 3.1.1
///
/// More than three: the three flags have a number each in each version.
#[test]
fn what_a_flag_announces_is_there() {
    for version in BOTH {
        // Will, user name, user name with password: the payload lacks the last field.
        for (flags, fields) in [(0x04, 2), (0x80, 1), (0xC0, 2)] {
            let payload: Vec<&[u8]> = vec![b"c"; fields];
            let bytes = connect(version, flags, &payload);
            assert_eq!(violation(&bytes, version), Violation::Truncated, "{version} {flags:02X}");
        }
        let will = WillRef { topic: "w", payload: b"m", ..WillRef::default() };
        let all = ConnectRef {
            version,
            will: Some(will),
            user_name: Some("u"),
            password: Some(b"p"),
            ..Default::default()
        };
        assert_eq!(wire(&PacketRef::Connect(all), version)[9], 0xC4);
    }
    let alone = ConnectRef { password: Some(b"p"), ..Default::default() };
    assert_eq!(wire(&PacketRef::Connect(alone), V5)[9], 0x40, "5.0 has passwords without user names");
}

/// [MQTT-3.1.2-16] [MQTT-3.1.2-18] [MQTT-3.1.2-18] of 3.1.1 [MQTT-3.1.2-20] of 3.1.1
///
/// More than three: the two flags have a number each in each version.
#[test]
fn what_no_flag_announces_is_not_there() {
    for version in BOTH {
        for (flags, fields) in [(0x00, 2), (0x80, 3)] {
            let payload: Vec<&[u8]> = vec![b"c"; fields];
            let bytes = connect(version, flags, &payload);
            assert_eq!(violation(&bytes, version), Violation::TrailingBytes, "{version} {flags:02X}");
        }
        let none = PacketRef::Connect(ConnectRef { version, client_id: "c", ..Default::default() });
        let bytes = wire(&none, version);
        assert_eq!((bytes[9] & 0xC0, bytes.len()), (0, if version.is_v5() { 16 } else { 15 }));
    }
}

/// [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-11] of 3.1.1 [MQTT-3.1.2-13] of 3.1.1 [MQTT-3.1.2-15] of 3.1.1
///
/// More than three: it is one rule with several numbers.
#[test]
fn without_a_will_its_bits_are_zero() {
    for version in BOTH {
        for flags in [0x08, 0x10, 0x20] {
            let bytes = connect(version, flags, &[b"c"]);
            assert_eq!(violation(&bytes, version), Violation::WillFlagsWithoutWill, "{version} {flags:02X}");
        }
        let none = PacketRef::Connect(ConnectRef { version, ..Default::default() });
        assert_eq!(wire(&none, version)[9] & 0x3C, 0);
        assert_eq!(violation(&connect(version, 0, &[b"c", b"w", b"m"]), version), Violation::TrailingBytes);
    }
}

/// [MQTT-3.1.2-12] [MQTT-3.1.2-14] of 3.1.1
#[test]
fn the_qos_of_a_will_is_not_3() {
    for version in BOTH {
        assert_eq!(violation(&connect(version, 0x1C, &[b"c", b"w", b"m"]), version), Violation::WillQos);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let will = WillRef { topic: "w", qos, ..WillRef::default() };
            let packet = PacketRef::Connect(ConnectRef { version, will: Some(will), ..Default::default() });
            assert_eq!(wire(&packet, version)[9] & 0x18, qos.as_u8() << 3);
        }
    }
}

/// [MQTT-3.2.2-1]
#[test]
fn reserved_bits_of_the_acknowledge_flags_are_zero() {
    for bit in 1..8 {
        let bytes = [0x20, 3, 1 << bit, 0, 0];
        assert_eq!(violation(&bytes, V5), Violation::ConnackFlags, "{bit}");
    }
    for session_present in [false, true] {
        let packet = PacketRef::Connack(ConnackRef { session_present, ..Default::default() });
        assert_eq!(wire(&packet, V5)[2], u8::from(session_present));
    }
}

/// [MQTT-3.3.2-1] of both [MQTT-3.3.2-2] of both
#[test]
fn the_topic_name_comes_first_and_is_text_without_wildcards() {
    for version in BOTH {
        let packet_id = PacketId::new(7);
        let packet = PublishRef {
            topic: "a/b",
            qos: QoS::AtLeastOnce,
            packet_id,
            payload: b"x",
            ..Default::default()
        };
        assert_eq!(wire(&PacketRef::Publish(packet), version)[2..9], hex("00 03 61 2f 62 00 07"));
        assert_eq!(violation(&publish(b"a\xFF", b""), version), Violation::StringUtf8);
        for topic in ["a/+", "#", "a+"] {
            assert_eq!(violation(&publish(topic.as_bytes(), b""), version), Violation::TopicWildcard);
            let packet = PublishRef { topic, ..Default::default() };
            assert!(PacketRef::Publish(packet).encode(version, &mut Vec::new()).is_err());
        }
    }
}

/// [MQTT-3.8.3-1] of both [MQTT-3.10.3-1] of both
#[test]
fn filters_are_text() {
    for (subscribe, unsubscribe, version) in [
        ("82 07 00 01 00 02 61 ff 00", "a2 06 00 01 00 02 61 ff", V311),
        ("82 08 00 01 00 00 02 61 ff 00", "a2 07 00 01 00 00 02 61 ff", V5),
    ] {
        assert_eq!(violation(&hex(subscribe), version), Violation::StringUtf8);
        assert_eq!(violation(&hex(unsubscribe), version), Violation::StringUtf8);
    }
}

/// The codes that the tables of 5.0 list for a packet.
fn check_codes(packet_type: PacketType, packet: &str, listed: &[u8]) {
    for code in 0..=0xFF {
        let is_listed = listed.contains(&code);
        let reason = ReasonCode::from_u8(code);
        assert_eq!(
            reason.is_some_and(|reason| reason.is_allowed_in(packet_type)),
            is_listed,
            "{packet_type} {code:02X}"
        );
        let bytes = hex(&packet.replace("??", &format!("{code:02x}")));
        assert_eq!(PacketRef::decode(&bytes, V5).is_ok(), is_listed, "{packet_type} {code:02X}");
    }
}

/// [MQTT-3.2.2-8] [MQTT-3.14.2-1] [MQTT-3.15.2-1]
#[test]
fn codes_about_the_connection_come_from_their_tables() {
    let connack = [
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
        0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
    ];
    check_codes(PacketType::Connack, "20 03 00 ?? 00", &connack);
    let disconnect = [
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
        0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];
    check_codes(PacketType::Disconnect, "e0 01 ??", &disconnect);
    check_codes(PacketType::Auth, "f0 06 ?? 04 15 00 01 6d", &[0x00, 0x18, 0x19]);
    let reason = ReasonCode::GrantedQos1;
    for packet in [
        PacketRef::Connack(ConnackRef { reason, ..Default::default() }),
        PacketRef::Disconnect(DisconnectRef { reason, ..Default::default() }),
        PacketRef::Auth(AuthRef { reason, ..Default::default() }),
    ] {
        assert_eq!(packet.encode(V5, &mut Vec::new()).unwrap_err().violation(), Violation::ReasonCode);
    }
}

/// [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
///
/// More than three: the four acknowledgements of PUBLISH have a number each.
#[test]
fn codes_about_a_message_come_from_their_tables() {
    let refusing = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    check_codes(PacketType::Puback, "40 03 00 01 ??", &refusing);
    check_codes(PacketType::Pubrec, "50 03 00 01 ??", &refusing);
    check_codes(PacketType::Pubrel, "62 03 00 01 ??", &[0x00, 0x92]);
    check_codes(PacketType::Pubcomp, "70 03 00 01 ??", &[0x00, 0x92]);
    let ack = AckRef { reason: ReasonCode::SessionTakenOver, ..AckRef::from(PacketId::MIN) };
    for packet in
        [PacketRef::Puback(ack), PacketRef::Pubrec(ack), PacketRef::Pubrel(ack), PacketRef::Pubcomp(ack)]
    {
        assert_eq!(packet.encode(V5, &mut Vec::new()).unwrap_err().violation(), Violation::ReasonCode);
    }
}

/// [MQTT-3.9.3-2] of both [MQTT-3.11.3-2]
#[test]
fn codes_about_filters_come_from_their_tables() {
    let suback = [0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
    check_codes(PacketType::Suback, "90 04 00 01 00 ??", &suback);
    let unsuback = [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
    check_codes(PacketType::Unsuback, "b0 04 00 01 00 ??", &unsuback);
    for code in 0..=0xFF {
        let is_listed = [0x00, 0x01, 0x02, 0x80].contains(&code);
        assert_eq!(PacketRef::decode(&[0x90, 3, 0, 1, code], V311).is_ok(), is_listed, "{code:02X}");
    }
}

/// [MQTT-2.2.1-3] [MQTT-2.3.1-1] of 3.1.1
#[test]
fn identifiers_are_not_zero() {
    for (packet, version) in [
        ("32 06 00 01 61 00 00 00", V5),
        ("82 07 00 00 00 00 01 61 00", V5),
        ("a2 06 00 00 00 00 01 61", V5),
        ("32 05 00 01 61 00 00", V311),
        ("82 06 00 00 00 01 61 00", V311),
        ("a2 05 00 00 00 01 61", V311),
    ] {
        assert_eq!(violation(&hex(packet), version), Violation::PacketIdZero, "{packet}");
    }
    assert_eq!(PacketId::new(0), None);
}
