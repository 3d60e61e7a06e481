//! Windows, identifiers, aliases, properties, and what hostile peers do to them.

use mqtt_proto::{
    AckRef, ConnectRef, PacketRef, PropertiesBuf, Property, PublishRef, QoS, ReasonCode, Version,
};
use mqtt_session::broker::{Answer, BrokerConfig, Output};
use mqtt_testkit::packets::{filter, id, puback, pubcomp, publish, pubrec, pubrel, subscribe};
use mqtt_testkit::{PeerId, World};

fn world() -> World {
    World::new(BrokerConfig::default())
}

fn buf(list: &[Property<'_>]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    list.iter().for_each(|property| properties.push(*property).unwrap());
    properties
}

fn v5(w: &mut World, client_id: &str, list: &[Property<'_>]) -> PeerId {
    let properties = buf(list);
    let p =
        w.connect(&ConnectRef { client_id, properties: properties.as_properties(), ..ConnectRef::default() });
    assert!(w.got(p)[0].starts_with("CONNACK"));
    p
}

fn subscribe_all(w: &mut World, p: PeerId) {
    w.send(p, &subscribe(1, &filter("#", QoS::ExactlyOnce)));
    w.got(p);
}

fn with<'a>(topic: &'a str, properties: &'a PropertiesBuf) -> PacketRef<'a> {
    PacketRef::Publish(PublishRef { topic, properties: properties.as_properties(), ..PublishRef::default() })
}

/// [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-2]
#[test]
fn no_more_is_under_way_than_the_client_takes() {
    let mut w = world();
    let s = v5(&mut w, "s", &[Property::ReceiveMaximum(2)]);
    subscribe_all(&mut w, s);
    let p = w.client(Version::V5, "p");
    for n in 1..=5 {
        w.send(p, &publish("t", if n == 2 { 2 } else { 1 }, n, &n.to_string()));
    }
    assert_eq!(w.got(s), ["PUBLISH t q1 #1 \"1\"", "PUBLISH t q2 #2 \"2\""]);
    // Other packets are answered meanwhile [MQTT-3.3.4-10].
    w.send(s, &PacketRef::Pingreq);
    assert_eq!(w.got(s), ["PINGRESP"]);
    // PUBREC gives no room, PUBCOMP does.
    w.send(s, &pubrec(2));
    assert_eq!(w.got(s), ["PUBREL #2"]);
    w.send(s, &pubcomp(2));
    assert_eq!(w.got(s), ["PUBLISH t q1 #3 \"3\""]);
    w.send(s, &puback(1));
    w.send(s, &puback(3));
    assert_eq!(w.got(s).len(), 2);
}

/// [MQTT-4.9.0-1]
#[test]
fn the_window_is_what_each_connect_says_and_resends_count() {
    let mut w = world();
    let all = [Property::ReceiveMaximum(4), Property::SessionExpiryInterval(100)];
    let s = v5(&mut w, "s", &all);
    subscribe_all(&mut w, s);
    let p = w.client(Version::V5, "p");
    for n in 1..=6 {
        w.send(p, &publish("t", 1, n, &n.to_string()));
    }
    assert_eq!(w.got(s).len(), 4);
    w.cut(s);
    let properties = buf(&[Property::ReceiveMaximum(2), Property::SessionExpiryInterval(100)]);
    let s = w.connect(&ConnectRef {
        client_id: "s",
        properties: properties.as_properties(),
        ..Default::default()
    });
    assert_eq!(w.got(s)[1..], ["PUBLISH t q1 #1 dup \"1\"", "PUBLISH t q1 #2 dup \"2\""]);
    w.send(s, &puback(1));
    assert_eq!(w.got(s), ["PUBLISH t q1 #3 dup \"3\""]);
    for n in 2..=6 {
        w.send(s, &puback(n));
    }
    assert_eq!(w.got(s), ["PUBLISH t q1 #4 dup \"4\"", "PUBLISH t q1 #5 \"5\"", "PUBLISH t q1 #6 \"6\""]);
    assert_eq!(w.broker.stats().messages, 0);
}

/// [MQTT-4.4.0-2]
#[test]
fn a_refusing_pubrec_frees_its_place() {
    let mut w = world();
    let s = v5(&mut w, "s", &[Property::ReceiveMaximum(1)]);
    subscribe_all(&mut w, s);
    let p = w.client(Version::V5, "p");
    for n in 1..=4 {
        w.send(p, &publish("t", 2, n, &n.to_string()));
    }
    for n in 1..=4 {
        assert_eq!(w.got(s), [format!("PUBLISH t q2 #{n} \"{n}\"")]);
        let refusal = AckRef { reason: ReasonCode::QuotaExceeded, ..AckRef::from(id(n)) };
        w.send(s, &PacketRef::Pubrec(refusal));
    }
    assert_eq!(w.broker.stats().messages, 0);
}

/// [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-2.3.1-4] of 3.1.1
#[test]
fn identifiers_wrap_around_those_in_use() {
    for version in [Version::V311, Version::V5] {
        let mut w = world();
        let s = w.client(version, "s");
        subscribe_all(&mut w, s);
        let p = w.client(Version::V5, "p");
        w.send(p, &publish("t", 1, 1, "stuck"));
        w.got(s);
        for n in 2..=65_535u16 {
            w.send(p, &publish("t", 1, 1, "x"));
            w.got_raw(s);
            w.got_raw(p);
            w.send(s, &puback(n));
        }
        w.send(p, &publish("t", 1, 1, "wrapped"));
        assert_eq!(w.got(s), ["PUBLISH t q1 #2 \"wrapped\""]);
    }
}

/// [MQTT-4.3.3-8] [MQTT-4.3.3-11]
#[test]
fn both_directions_may_use_one_identifier_at_once() {
    let mut w = world();
    let c = v5(&mut w, "c", &[]);
    subscribe_all(&mut w, c);
    w.send(c, &publish("t", 2, 1, "x"));
    assert_eq!(w.got(c), ["PUBLISH t q2 #1 \"x\"", "PUBREC #1"]);
    w.send(c, &pubrec(1));
    w.send(c, &pubrel(1));
    assert_eq!(w.got(c), ["PUBREL #1", "PUBCOMP #1"]);
    w.send(c, &pubcomp(1));
    assert!(!w.is_hung_up(c));
}

#[test]
fn acknowledgements_of_nothing_leave_the_link_up() {
    for version in [Version::V311, Version::V5] {
        let mut w = world();
        let c = w.client(version, "c");
        let (rel, comp) =
            if version.is_v5() { ("PUBREL #9 92", "PUBCOMP #9 92") } else { ("PUBREL #9", "PUBCOMP #9") };
        w.send(c, &puback(9));
        w.send(c, &pubcomp(9));
        assert!(w.got(c).is_empty());
        w.send(c, &pubrec(9));
        assert_eq!(w.got(c), [rel]);
        w.send(c, &pubrel(9));
        assert_eq!(w.got(c), [comp]);
        assert!(!w.is_hung_up(c));
    }
}

#[test]
fn acknowledgements_of_the_wrong_kind_end_it() {
    for (qos, wrong) in [(2, puback(1)), (1, pubrec(1)), (2, pubcomp(1))] {
        let mut w = world();
        let s = v5(&mut w, "s", &[]);
        subscribe_all(&mut w, s);
        let p = w.client(Version::V5, "p");
        w.send(p, &publish("t", qos, 1, "x"));
        w.got(s);
        w.send(s, &wrong);
        assert_eq!(w.got(s), ["DISCONNECT 82"]);
    }
}

#[test]
fn more_than_our_receive_maximum_ends_the_connection() {
    let mut config = BrokerConfig::default();
    config.receive_maximum = 3;
    let mut w = World::new(config);
    let p = v5(&mut w, "p", &[]);
    for n in 1..=3 {
        w.send(p, &publish("t", 2, n, "x"));
    }
    // Completed exchanges and repetitions give and take nothing.
    w.send(p, &publish("t", 2, 3, "x"));
    w.send(p, &pubrel(1));
    w.send(p, &publish("t", 2, 4, "x"));
    assert_eq!(w.got(p).len(), 6);
    w.send(p, &publish("t", 1, 5, "x"));
    assert_eq!(w.got(p), ["DISCONNECT 93"]);
    // 3.1.1 was never told of a limit.
    let old = w.client(Version::V311, "old");
    for n in 1..=50 {
        w.send(old, &publish("t", 2, n, "x"));
    }
    assert_eq!(w.got(old).len(), 50);
}

/// [MQTT-3.3.2-12]
/// [MQTT-3.3.2-7]
#[test]
fn aliases_from_a_client_stand_for_their_topic_on_this_link() {
    let mut w = world();
    let s = w.client(Version::V5, "s");
    subscribe_all(&mut w, s);
    let p = v5(&mut w, "p", &[Property::SessionExpiryInterval(10)]);
    let alias = buf(&[Property::TopicAlias(32)]);
    w.send(p, &with("long/topic", &alias));
    w.send(p, &with("", &alias));
    w.send(p, &with("other", &alias));
    w.send(p, &with("", &alias));
    let topics: Vec<_> = w.got(s).iter().map(|l| l.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(topics, ["long/topic", "long/topic", "other", "other"]);
    w.cut(p);
    let p = v5(&mut w, "p", &[Property::SessionExpiryInterval(10)]);
    w.send(p, &with("", &alias));
    assert_eq!(w.got(p), ["DISCONNECT 82"]);
}

#[test]
fn aliases_beyond_the_maximum_end_the_connection() {
    let mut w = world();
    let p = w.client(Version::V5, "p");
    w.send(p, &with("t", &buf(&[Property::TopicAlias(33)])));
    assert_eq!(w.got(p), ["DISCONNECT 94"]);
}

/// [MQTT-3.1.2-26]
/// [MQTT-3.1.2-27]
/// [MQTT-3.3.2-11]
#[test]
fn aliases_to_a_client_stay_within_what_it_takes() {
    let mut w = world();
    let s = v5(&mut w, "s", &[Property::TopicAliasMaximum(1)]);
    subscribe_all(&mut w, s);
    let none = w.client(Version::V5, "none");
    subscribe_all(&mut w, none);
    let p = w.client(Version::V5, "p");
    for topic in ["first", "first", "second", "first"] {
        w.send(p, &publish(topic, 0, 0, "x"));
    }
    assert_eq!(
        w.got(s),
        [
            "PUBLISH first q0 \"x\" {TopicAlias(1)}",
            "PUBLISH \"\" q0 \"x\" {TopicAlias(1)}",
            "PUBLISH second q0 \"x\"",
            "PUBLISH \"\" q0 \"x\" {TopicAlias(1)}",
        ]
    );
    assert!(w.got(none).iter().all(|line| !line.contains("Alias")));
}

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
///
/// More than three: each property has a number.
#[test]
fn properties_of_a_message_are_passed_on_in_their_order() {
    let mut w = world();
    let s = w.client(Version::V5, "s");
    subscribe_all(&mut w, s);
    let p = w.client(Version::V5, "p");
    let properties = buf(&[
        Property::UserProperty("b", "1"),
        Property::PayloadFormatIndicator(true),
        Property::TopicAlias(3),
        Property::ResponseTopic("reply"),
        Property::UserProperty("a", "2"),
        Property::CorrelationData(b"id"),
        Property::ContentType("text"),
        Property::UserProperty("b", "1"),
    ]);
    w.send(p, &with("t", &properties));
    assert_eq!(
        w.got(s),
        [
            "PUBLISH t q0 \"\" {UserProperty(\"b\", \"1\"), PayloadFormatIndicator(true), ResponseTopic(\"reply\"), \
          UserProperty(\"a\", \"2\"), CorrelationData([105, 100]), ContentType(\"text\"), UserProperty(\"b\", \"1\")}"
        ]
    );
}

/// [MQTT-3.3.4-6]
#[test]
fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    let mut w = world();
    let p = w.client(Version::V5, "p");
    w.send(p, &with("t", &buf(&[Property::SubscriptionIdentifier(1)])));
    assert_eq!(w.got(p), ["DISCONNECT 82"]);
}

#[test]
fn packets_that_only_a_server_sends_end_the_connection() {
    let suback = mqtt_proto::SubackRef { packet_id: id(1), properties: Default::default(), codes: &[0] };
    let connack = mqtt_proto::ConnackRef::default();
    for packet in [PacketRef::Pingresp, PacketRef::Suback(suback), PacketRef::Connack(connack)] {
        let mut w = world();
        let p = w.client(Version::V5, "p");
        w.send(p, &packet);
        assert_eq!(w.got(p), ["DISCONNECT 82"]);
    }
}

/// [MQTT-4.13.1-1]
#[test]
fn malformed_packets_close_only_their_connection_with_the_right_code() {
    let cases: [(&[u8], &str); 8] = [
        (&[0x36, 4, 0, 1, b't', 0], "81"),
        (&[0x30, 5, 0, 1, 0xFF, 0, b'x'], "81"),
        (&[0x30, 4, 0, 1, b'#', 0], "81"),
        (&[0x32, 6, 0, 1, b't', 0, 0, 0], "82"),
        (&[0x80, 0], "81"),
        (&[0x82, 3, 0, 1, 0], "82"),
        (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], "81"),
        (&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], "95"),
    ];
    let mut w = world();
    let good = w.client(Version::V5, "good");
    for (bytes, code) in cases {
        let bad = w.client(Version::V5, "bad");
        w.send_raw(bad, bytes);
        assert_eq!(w.got(bad), [format!("DISCONNECT {code}")], "{bytes:02X?}");
        assert!(w.is_hung_up(bad));
    }
    w.send(good, &PacketRef::Pingreq);
    assert_eq!(w.got(good), ["PINGRESP"]);
}

#[test]
fn bytes_kept_before_connect_are_bounded_in_sum() {
    let mut config = BrokerConfig::default();
    config.max_unauthenticated_bytes = 10_000;
    let mut w = World::new(config);
    let peers: Vec<PeerId> = (0..40).map(|_| w.open(Version::V5)).collect();
    for &p in &peers {
        // A header that promises 60,000 bytes, and 1,000 of them.
        w.send_raw(p, &[0x10, 0xE0, 0xD4, 0x03]);
        w.send_raw(p, &[0; 1000]);
    }
    let cut = peers.iter().filter(|&&p| w.is_hung_up(p)).count();
    assert_eq!(cut, 31);
    let huge = w.open(Version::V5);
    w.send_raw(huge, &[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
    assert!(w.is_hung_up(huge));
}

#[test]
fn a_call_works_on_no_more_than_its_budget_and_loses_nothing() {
    let mut config = BrokerConfig::default();
    config.work_budget = 10;
    // A budget is one machine's: what goes to another shard is delivered by that one's.
    let mut w = World::of_one_shard(config);
    let s = w.client(Version::V5, "s");
    subscribe_all(&mut w, s);
    let p = w.client(Version::V5, "p");
    let mut bytes = Vec::new();
    for n in 0..1000 {
        publish("t", 0, 0, &n.to_string()).encode(Version::V5, &mut bytes).unwrap();
    }
    let status = w.broker.handle_read(w.now, w.conn(p), &bytes);
    assert_eq!(status, mqtt_session::broker::ReadStatus::Paused);
    assert_eq!(w.broker.stats().received, 10);
    assert_eq!(w.broker.poll_timeout(), Some(w.now));
    w.settle();
    let got = w.got(s);
    assert_eq!(got.len(), 1000);
    assert!(got.iter().enumerate().all(|(n, line)| *line == format!("PUBLISH t q0 \"{n}\"")));
}

/// [MQTT-4.8.0-2] of 3.1.1
#[test]
fn when_the_message_memory_is_full_publishers_are_told() {
    let mut config = BrokerConfig::default();
    config.max_message_bytes = 5_000;
    config.max_queued_bytes = 1 << 20;
    let mut w = World::new(config);
    let s = w.client(Version::V5, "s");
    subscribe_all(&mut w, s);
    w.set_reads(s, false);
    w.outbox_max = 0;
    let p = w.client(Version::V5, "p");
    w.outbox_max = 1 << 16;
    let mut refused = 0;
    for n in 1..=20 {
        w.send(p, &publish("t", 1, n, &"x".repeat(2_000)));
        refused += w.got(p).iter().filter(|line| line.ends_with(" 97")).count();
    }
    assert!(refused >= 10, "{refused}");
    let old = w.client(Version::V311, "old");
    w.send(old, &publish("t", 1, 1, &"x".repeat(4_000)));
    assert!(w.is_hung_up(old), "below 5.0 closing is the only way to say no");
}

/// [MQTT-3.1.2-24]: the limit holds to the byte, the packet identifier included.
#[test]
fn a_packet_may_be_exactly_as_large_as_the_client_takes() {
    for (qos, payload) in [(QoS::AtMostOnce, 34), (QoS::AtLeastOnce, 32), (QoS::ExactlyOnce, 32)] {
        let mut w = World::new(BrokerConfig::default());
        let properties = PropertiesBuf::new().with(Property::MaximumPacketSize(40)).unwrap();
        let connect =
            ConnectRef { client_id: "s", properties: properties.as_properties(), ..ConnectRef::default() };
        let s = w.connect(&connect);
        w.send(s, &subscribe(1, &filter("t", qos)));
        w.got(s);
        let p = w.client(Version::V5, "p");
        let id = |id: u16| if qos == QoS::AtMostOnce { 0 } else { id };
        w.send(p, &publish("t", qos.as_u8(), id(1), &"x".repeat(payload + 1)));
        assert_eq!(w.got_raw(s), b"", "{qos:?}: one byte too many");
        w.send(p, &publish("t", qos.as_u8(), id(2), &"x".repeat(payload)));
        assert_eq!(w.got_raw(s).len(), 40, "{qos:?}");
    }
}

/// Reading goes on when everything that held it up is over, and not before.
#[test]
fn reading_does_not_go_on_while_another_question_is_open() {
    let mut config = BrokerConfig::default();
    config.ask.publish = true;
    let mut w = World::new(config);
    let p = w.client(Version::V5, "p");
    let mut bytes = Vec::new();
    for n in 1..=2 {
        publish("t", 1, n, "x").encode(Version::V5, &mut bytes).unwrap();
    }
    w.send_raw(p, &bytes);
    for open in [1, 0] {
        let ask = w.asks.pop().expect("a question");
        w.broker.handle_answer(w.now, ask.id, Answer::Allow);
        let resumed = std::iter::from_fn(|| w.broker.poll_output())
            .map(|output| match output {
                Output::Ask(ask) => w.asks.push(*ask),
                Output::Resume(_) => assert_eq!(open, 0, "a question is open"),
                _ => {}
            })
            .count();
        assert!(resumed > 0);
        assert_eq!(w.asks.len(), open);
    }
}
