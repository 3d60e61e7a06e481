//! The packets that the benchmarks are about.

use mqtt_proto::{
    AckRef, ConnackRef, ConnectRef, PacketId, PacketRef, Properties, PropertiesBuf, Property, PublishRef,
    QoS, ReasonCode, SubackRef, SubscribeFiltersBuf, SubscribeRef, Version,
};

/// A packet as a peer would send it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What it is, as a path that criterion groups by.
    pub name: &'static str,
    /// The version of its connection.
    pub version: Version,
    /// The packet on the wire.
    pub wire: Vec<u8>,
}

const TOPIC: &str = "site/7/device/000123/temperature";

/// Packets that a broker meets all day.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let packet_id = PacketId::MAX;
    let payload = vec![b'x'; 4096];
    let list = five_properties();
    let filters = three_filters();
    let subscribe = SubscribeRef { packet_id, properties: Properties::EMPTY, filters: filters.as_filters() };
    let connect = ConnectRef {
        version: Version::V311,
        keep_alive: 60,
        client_id: "device-000123-ab",
        user_name: Some("user-000123"),
        password: Some(b"secret-password"),
        ..Default::default()
    };
    let connect5 = ConnectRef { version: Version::V5, ..connect };
    let publish = |qos, len| PublishRef {
        qos,
        topic: TOPIC,
        packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
        payload: &payload[..len],
        ..Default::default()
    };
    let q0 = |len| PacketRef::Publish(publish(QoS::AtMostOnce, len));
    let q1 = |len| PacketRef::Publish(publish(QoS::AtLeastOnce, len));
    let with = |properties| PacketRef::Publish(PublishRef { properties, ..publish(QoS::AtLeastOnce, 64) });
    let refused = AckRef { reason: ReasonCode::QuotaExceeded, ..AckRef::from(packet_id) };
    let suback = SubackRef { packet_id, properties: Properties::EMPTY, codes: &[0, 1, 2] };
    let old = |name, packet| (name, Version::V311, packet);
    let new = |name, packet| (name, Version::V5, packet);
    [
        old("connect", PacketRef::Connect(connect)),
        new("connect-v5", PacketRef::Connect(connect5)),
        new("connack-v5", PacketRef::Connack(ConnackRef::default())),
        old("publish-q0-64", q0(64)),
        old("publish-q1-64", q1(64)),
        old("publish-q0-4096", q0(4096)),
        old("publish-q1-4096", q1(4096)),
        new("publish-v5-q0-64", q0(64)),
        new("publish-v5-five-properties", with(list.as_properties())),
        old("puback", PacketRef::Puback(packet_id.into())),
        new("puback-v5-refused", PacketRef::Puback(refused)),
        old("subscribe-three", PacketRef::Subscribe(subscribe)),
        new("subscribe-v5-three", PacketRef::Subscribe(subscribe)),
        old("suback-three", PacketRef::Suback(suback)),
        old("pingreq", PacketRef::Pingreq),
    ]
    .map(|(name, version, packet)| {
        let mut wire = Vec::new();
        packet.encode(version, &mut wire).expect("samples keep to the rules");
        Sample { name, version, wire }
    })
    .into()
}

fn five_properties() -> PropertiesBuf {
    [
        Property::PayloadFormatIndicator(true),
        Property::MessageExpiryInterval(3600),
        Property::ContentType("application/json"),
        Property::ResponseTopic("reply/000123"),
        Property::UserProperty("region", "eu-north"),
    ]
    .into_iter()
    .try_fold(PropertiesBuf::new(), PropertiesBuf::with)
    .expect("samples keep to the rules")
}

fn three_filters() -> SubscribeFiltersBuf {
    let mut filters = SubscribeFiltersBuf::new();
    for (filter, qos) in [
        ("site/7/device/000123/#", QoS::AtLeastOnce),
        ("site/+/alarm", QoS::ExactlyOnce),
        ("config/device/000123", QoS::AtMostOnce),
    ] {
        filters.push(filter, qos.into()).expect("samples keep to the rules");
    }
    filters
}
