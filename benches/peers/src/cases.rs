//! The packets that are measured.

use mqtt_proto::{
    AckRef, ConnectRef, PacketId, PacketRef, Properties, PropertiesBuf, Property, PublishRef, QoS,
    SubscribeFiltersBuf, SubscribeRef, Version,
};

pub struct Case {
    pub name: &'static str,
    pub version: Version,
    pub wire: Vec<u8>,
}

pub fn all() -> Vec<Case> {
    let packet_id = PacketId::new(0x1234).expect("not zero");
    let payload: Vec<u8> = (b'a'..=b'z').cycle().take(4096).collect();
    let connect = ConnectRef {
        version: Version::V311,
        clean_start: true,
        keep_alive: 60,
        client_id: "device-000123-ab",
        user_name: Some("user-000123"),
        password: Some(b"secret-password"),
        ..Default::default()
    };
    let q0 = PublishRef {
        topic: "site/7/device/000123/temperature",
        payload: &payload[..64],
        ..Default::default()
    };
    let q1 = PublishRef { qos: QoS::AtLeastOnce, packet_id: Some(packet_id), ..q0 };
    let list = five_properties();
    let mut filters = SubscribeFiltersBuf::new();
    for (filter, qos) in [
        ("site/7/device/000123/#", QoS::AtLeastOnce),
        ("site/+/alarm", QoS::ExactlyOnce),
        ("config/device/000123", QoS::AtMostOnce),
    ] {
        filters.push(filter, qos.into()).expect("a filter");
    }
    let filters = filters.as_filters();
    let subscribe = SubscribeRef { packet_id, properties: Properties::EMPTY, filters };
    let publish = PacketRef::Publish;
    [
        ("CONNECT", Version::V311, PacketRef::Connect(connect)),
        ("PUBLISH QoS 0, 64 B", Version::V311, publish(q0)),
        ("PUBLISH QoS 1, 64 B", Version::V311, publish(q1)),
        ("PUBLISH QoS 0, 4 KiB", Version::V311, publish(PublishRef { payload: &payload, ..q0 })),
        ("PUBLISH QoS 1, 4 KiB", Version::V311, publish(PublishRef { payload: &payload, ..q1 })),
        (
            "PUBLISH QoS 1, 64 B, five properties (5.0)",
            Version::V5,
            publish(PublishRef { properties: list.as_properties(), ..q1 }),
        ),
        ("SUBSCRIBE, three filters", Version::V311, PacketRef::Subscribe(subscribe)),
        ("PUBACK", Version::V311, PacketRef::Puback(AckRef::from(packet_id))),
    ]
    .map(|(name, version, packet)| {
        let mut wire = Vec::new();
        packet.encode(version, &mut wire).expect("it keeps to the rules");
        Case { name, version, wire }
    })
    .into()
}

fn five_properties() -> PropertiesBuf {
    let mut list = PropertiesBuf::new();
    for property in [
        Property::PayloadFormatIndicator(true),
        Property::MessageExpiryInterval(3600),
        Property::ContentType("application/json"),
        Property::ResponseTopic("reply/000123"),
        Property::UserProperty("region", "eu-north"),
    ] {
        list.push(property).expect("it keeps to the rules");
    }
    list
}
