//! One connection of a server without a broker behind it.

use mqtt_proto::*;
use mqtt_session::server::{Closed, Output, Phase, SendError, ServerConfig, ServerConnection};
use mqtt_session::{Seed, Timestamp};
use mqtt_testkit::{brief, brief_all};
use std::time::Duration;

const START: Timestamp = Timestamp::ZERO;

fn at(secs: u64) -> Timestamp {
    START + Duration::from_secs(secs)
}

fn server() -> ServerConnection {
    ServerConnection::new(ServerConfig::default(), START)
}

fn encode(packet: &PacketRef<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).unwrap();
    bytes
}

fn connect(version: Version, properties: &PropertiesBuf) -> Vec<u8> {
    let properties = properties.as_properties();
    let connect = ConnectRef { version, client_id: "c", keep_alive: 10, properties, ..ConnectRef::default() };
    encode(&PacketRef::Connect(connect), version)
}

/// All that the client says, in brief.
fn packets(server: &mut ServerConnection) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(packet) = server.poll_packet(START) {
        all.push(brief(&packet));
    }
    all
}

fn outputs(server: &mut ServerConnection) -> Vec<Output> {
    std::iter::from_fn(|| server.poll_output()).collect()
}

/// What is written, in brief; the socket takes all.
fn written(server: &mut ServerConnection) -> Vec<String> {
    let text = brief_all(server.outbox(), server.version());
    let len = server.outbox().len();
    server.consume(START, len);
    text
}

/// A connection whose CONNECT was accepted by `connack`.
fn live(version: Version, asks: &PropertiesBuf, grants: &PropertiesBuf) -> ServerConnection {
    let mut server = server();
    server.handle_read(START, &connect(version, asks));
    assert!(packets(&mut server)[0].starts_with("CONNECT"));
    let connack = ConnackRef { properties: grants.as_properties(), ..ConnackRef::default() };
    server.send(START, &PacketRef::Connack(connack)).unwrap();
    assert!(written(&mut server)[0].starts_with("CONNACK 00"));
    assert_eq!(outputs(&mut server), [Output::Flush]);
    server
}

fn plain() -> ServerConnection {
    live(Version::V5, &PropertiesBuf::new(), &PropertiesBuf::new())
}

const HANGUP: Output = Output::Hangup { after_flush: true };

#[test]
fn packets_come_as_they_were_sent_however_they_are_cut() {
    let hi = PublishRef { topic: "a/b", payload: b"hi", ..PublishRef::default() };
    let mut stream = connect(Version::V311, &PropertiesBuf::new());
    stream.extend(encode(&PacketRef::Publish(hi), Version::V311));
    stream.extend(encode(&PacketRef::Pingreq, Version::V311));
    stream.extend(encode(&PacketRef::Disconnect(DisconnectRef::default()), Version::V311));
    for step in 1..stream.len() {
        let mut server = server();
        let mut seen = Vec::new();
        for bytes in stream.chunks(step) {
            server.handle_read(START, bytes);
            seen.extend(packets(&mut server));
            if server.phase() == Phase::Greeted {
                server.send(START, &PacketRef::Connack(ConnackRef::default())).unwrap();
                seen.extend(packets(&mut server));
            }
        }
        assert!(seen[0].starts_with("CONNECT 3.1.1 \"c\""), "{seen:?}");
        assert_eq!(seen[1..], ["PUBLISH a/b q0 \"hi\"", "PINGREQ", "DISCONNECT 00"]);
        assert_eq!(written(&mut server), ["CONNACK 00", "PINGRESP"]);
        let closed = Output::Closed(Closed::ByClient(ReasonCode::Success));
        assert!(outputs(&mut server).ends_with(&[closed, HANGUP]));
    }
}

/// [MQTT-3.1.0-1]
#[test]
fn connect_comes_first() {
    let mut server = server();
    server.handle_read(START, b"GET / HTTP/1.1\r\n");
    assert!(packets(&mut server).is_empty());
    assert!(server.outbox().is_empty());
    let closed = Output::Closed(Closed::Violation(ReasonCode::ProtocolError));
    assert_eq!(outputs(&mut server), [closed, HANGUP]);
}

/// [MQTT-3.1.0-2]
#[test]
fn connect_comes_once() {
    let mut server = plain();
    server.handle_read(START, &connect(Version::V5, &PropertiesBuf::new()));
    assert!(packets(&mut server).is_empty());
    assert_eq!(written(&mut server), ["DISCONNECT 82"]);
    assert_eq!(server.phase(), Phase::Closing);
}

/// [MQTT-3.1.2-2]
#[test]
fn a_version_that_nobody_speaks_is_refused_as_its_sender_understands() {
    for (level, version, answer) in [(6, Version::V5, "CONNACK 84"), (2, Version::V311, "CONNACK 84")] {
        let mut server = server();
        let mut bytes = connect(Version::V5, &PropertiesBuf::new());
        bytes[8] = level;
        server.handle_read(START, &bytes);
        assert!(packets(&mut server).is_empty());
        assert_eq!(server.version(), version);
        assert_eq!(written(&mut server), [answer]);
        assert!(matches!(outputs(&mut server)[1..], [Output::Closed(Closed::Malformed(_)), HANGUP]));
    }
}

#[test]
fn a_packet_beyond_the_limit_is_refused_before_it_arrives() {
    let mut server = plain();
    // A PUBLISH of 2 MiB begins.
    server.handle_read(START, &[0x30, 0x80, 0x80, 0x80, 0x01]);
    assert!(packets(&mut server).is_empty());
    assert_eq!(written(&mut server), ["DISCONNECT 95"]);
    // Before CONNACK less is taken, and nothing said.
    let mut server = self::server();
    server.handle_read(START, &[0x10, 0x80, 0x80, 0x08]);
    assert!(packets(&mut server).is_empty());
    assert!(server.outbox().is_empty());
    assert_eq!(server.phase(), Phase::Closing);
}

#[test]
fn what_is_not_polled_is_bounded() {
    let mut server = plain();
    let chunk = encode(&PacketRef::Pingreq, Version::V5).repeat(32 << 10);
    for _ in 0..100 {
        server.handle_read(START, &chunk);
    }
    assert_eq!(server.phase(), Phase::Closing);
    assert_eq!(written(&mut server), ["DISCONNECT 97"]);
}

/// [MQTT-3.1.4-5]
#[test]
fn what_follows_connect_waits_for_connack() {
    let mut server = server();
    let mut bytes = connect(Version::V5, &PropertiesBuf::new());
    bytes.extend(encode(&PacketRef::Pingreq, Version::V5));
    server.handle_read(START, &bytes);
    assert_eq!(packets(&mut server).len(), 1);
    assert_eq!(server.send(START, &PacketRef::Pingresp), Err(SendError::NotNow));
    server.send(START, &PacketRef::Connack(ConnackRef::default())).unwrap();
    assert_eq!(packets(&mut server), ["PINGREQ"]);
    let again = server.send(START, &PacketRef::Connack(ConnackRef::default()));
    assert_eq!(again, Err(SendError::NotNow), "[MQTT-3.2.0-2]");
}

#[test]
fn a_refused_client_is_not_heard() {
    let mut server = server();
    let mut bytes = connect(Version::V311, &PropertiesBuf::new());
    bytes.extend(encode(&PacketRef::Pingreq, Version::V311));
    server.handle_read(START, &bytes);
    assert_eq!(packets(&mut server).len(), 1);
    server.hang_up(START, ReasonCode::NotAuthorized);
    assert!(packets(&mut server).is_empty());
    assert_eq!(written(&mut server), ["CONNACK 87"]);
    let closed = Output::Closed(Closed::ByOwner(ReasonCode::NotAuthorized));
    assert_eq!(outputs(&mut server)[1..], [closed, HANGUP]);
}

/// [MQTT-3.3.2-12]
#[test]
fn the_clients_aliases_are_resolved() {
    let grants = PropertiesBuf::new().with(Property::TopicAliasMaximum(2)).unwrap();
    let mut server = live(Version::V5, &PropertiesBuf::new(), &grants);
    let alias = PropertiesBuf::new().with(Property::TopicAlias(2)).unwrap();
    let ours = alias.clone().with(Property::UserProperty("k", "v")).unwrap();
    for (topic, properties) in [("a/b", &ours), ("", &alias)] {
        let publish = PublishRef { topic, properties: properties.as_properties(), ..PublishRef::default() };
        server.handle_read(START, &encode(&PacketRef::Publish(publish), Version::V5));
    }
    assert_eq!(
        packets(&mut server),
        ["PUBLISH a/b q0 \"\" {UserProperty(\"k\", \"v\")}", "PUBLISH a/b q0 \"\""]
    );
    // [MQTT-3.3.2-8] [MQTT-3.3.2-9]
    let alias = PropertiesBuf::new().with(Property::TopicAlias(3)).unwrap();
    let publish = PublishRef { topic: "a", properties: alias.as_properties(), ..PublishRef::default() };
    server.handle_read(START, &encode(&PacketRef::Publish(publish), Version::V5));
    assert!(packets(&mut server).is_empty());
    assert_eq!(written(&mut server), ["DISCONNECT 94"]);
}

#[test]
fn aliases_for_the_client_are_set_within_what_it_takes() {
    let asks = PropertiesBuf::new().with(Property::TopicAliasMaximum(1)).unwrap();
    let mut server = live(Version::V5, &asks, &PropertiesBuf::new());
    let publish = |topic| PacketRef::Publish(PublishRef { topic, ..PublishRef::default() });
    for topic in ["long/topic", "long/topic", "other/topic"] {
        server.send(START, &publish(topic)).unwrap();
    }
    assert_eq!(
        written(&mut server),
        [
            "PUBLISH long/topic q0 \"\" {TopicAlias(1)}",
            "PUBLISH \"\" q0 \"\" {TopicAlias(1)}",
            "PUBLISH other/topic q0 \"\"",
        ]
    );
    let alias = PropertiesBuf::new().with(Property::TopicAlias(1)).unwrap();
    let own = PublishRef { topic: "a", properties: alias.as_properties(), ..PublishRef::default() };
    assert_eq!(server.send(START, &PacketRef::Publish(own)), Err(SendError::TopicAlias));
    assert!(server.outbox().is_empty());
}

/// [MQTT-3.1.2-24]
#[test]
fn the_client_gets_no_packet_that_is_too_large_for_it() {
    let asks = PropertiesBuf::new().with(Property::MaximumPacketSize(20)).unwrap();
    let mut server = live(Version::V5, &asks, &PropertiesBuf::new());
    let publish = PublishRef { topic: "a", payload: &[0; 100], ..PublishRef::default() };
    let refused = server.send(START, &PacketRef::Publish(publish));
    assert_eq!(refused, Err(SendError::TooLarge { size: 106, max: 20 }));
}

#[test]
fn what_waits_for_the_socket_is_bounded() {
    let mut server = plain();
    let publish = PacketRef::Publish(PublishRef { topic: "a", payload: &[0; 1000], ..PublishRef::default() });
    let full = (0..10_000).find_map(|_| server.send(START, &publish).err());
    assert_eq!(full, Some(SendError::Full));
    assert!(server.outbox().len() <= ServerConfig::default().max_outbox_bytes);
    server.consume(START, 5000);
    server.send(START, &publish).unwrap();
}

#[test]
fn who_asks_and_does_not_read_is_cut_off() {
    let mut server = plain();
    let pings = encode(&PacketRef::Pingreq, Version::V5).repeat(10_000);
    while server.phase() == Phase::Live {
        server.handle_read(START, &pings);
        packets(&mut server);
    }
    assert!(server.outbox().len() <= ServerConfig::default().max_outbox_bytes);
    let closed = Output::Closed(Closed::Violation(ReasonCode::QuotaExceeded));
    assert!(outputs(&mut server).contains(&closed));
}

/// [MQTT-3.1.2-22]
#[test]
fn a_silent_client_is_given_up_after_one_and_a_half_keep_alives() {
    let mut server = plain();
    assert_eq!(server.poll_timeout(), Some(at(15)));
    server.handle_timeout(at(14));
    assert_eq!(server.phase(), Phase::Live);
    server.handle_read(at(14), &encode(&PacketRef::Pingreq, Version::V5));
    assert_eq!(server.poll_timeout(), Some(at(29)));
    server.handle_timeout(at(29));
    assert!(written(&mut server).contains(&"DISCONNECT 8D".to_owned()));
    assert!(outputs(&mut server).contains(&Output::Closed(Closed::Timeout)));
    // [MQTT-3.1.2-21]
    let grants = PropertiesBuf::new().with(Property::ServerKeepAlive(2)).unwrap();
    let server = live(Version::V5, &PropertiesBuf::new(), &grants);
    assert_eq!(server.poll_timeout(), Some(at(3)));
}

#[test]
fn nobody_waits_for_ever() {
    // For CONNECT.
    let mut silent = server();
    assert_eq!(silent.poll_timeout(), Some(at(10)));
    silent.handle_timeout(at(10));
    assert_eq!(outputs(&mut silent), [Output::Closed(Closed::Timeout), HANGUP]);
    // For who does not take its bytes.
    let mut stalled = plain();
    stalled.handle_read(START, &encode(&PacketRef::Pingreq, Version::V5));
    assert_eq!(packets(&mut stalled), ["PINGREQ"]);
    stalled.consume(at(1), 0);
    stalled.handle_read(at(20), &encode(&PacketRef::Pingreq, Version::V5));
    stalled.handle_timeout(at(31));
    let cut = Output::Hangup { after_flush: false };
    assert!(outputs(&mut stalled).ends_with(&[Output::Closed(Closed::Stalled), cut]));
    // For a farewell.
    let mut closing = plain();
    closing.hang_up(START, ReasonCode::ServerShuttingDown);
    outputs(&mut closing);
    assert_eq!(closing.poll_timeout(), Some(at(5)));
    closing.handle_timeout(at(5));
    assert_eq!(outputs(&mut closing), [cut]);
    assert_eq!(closing.poll_timeout(), None);
}

#[test]
fn what_came_before_the_end_of_the_socket_is_still_seen() {
    let mut server = plain();
    server.handle_read(START, &encode(&PacketRef::Disconnect(DisconnectRef::default()), Version::V5));
    server.handle_close(START);
    assert_eq!(server.send(START, &PacketRef::Pingresp), Err(SendError::Closed));
    assert_eq!(packets(&mut server), ["DISCONNECT 00"]);
    assert_eq!(outputs(&mut server)[0], Output::Closed(Closed::ByClient(ReasonCode::Success)));
    let mut server = plain();
    server.handle_close(START);
    assert!(packets(&mut server).is_empty());
    assert_eq!(outputs(&mut server)[0], Output::Closed(Closed::Socket));
}

/// Any bytes, cut anywhere, end in packets or in an end: nothing panics, and nothing grows.
#[test]
fn any_bytes_are_survived() {
    let mut word = 1u64;
    let mut next = move || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (word >> 33) as usize
    };
    for round in 0..2_000 {
        let mut server = ServerConnection::new(
            ServerConfig { seed: Seed([round as u8; 16]), ..ServerConfig::default() },
            START,
        );
        let version = [Version::V31, Version::V311, Version::V5][round % 3];
        let mut bytes = connect(version, &PropertiesBuf::new());
        for _ in 0..next() % 6 {
            let publish = PublishRef { topic: "t", payload: b"x", ..PublishRef::default() };
            bytes.extend(encode(&PacketRef::Publish(publish), version));
            bytes.extend(encode(&PacketRef::Pingreq, version));
        }
        for _ in 0..next() % 4 {
            let at = next() % bytes.len();
            bytes[at] = next() as u8;
        }
        while !bytes.is_empty() {
            let step = (1 + next() % 40).min(bytes.len());
            server.handle_read(START, &bytes[..step]);
            bytes.drain(..step);
            while server.poll_packet(START).is_some() {}
            if server.phase() == Phase::Greeted {
                let _ = server.send(START, &PacketRef::Connack(ConnackRef::default()));
            }
            while server.poll_output().is_some() {}
        }
        server.handle_close(START);
        while server.poll_packet(START).is_some() {}
        assert_eq!(server.phase(), Phase::Closing);
    }
}
