//! Retained messages and wills.

use mqtt_proto::{
    ConnectRef, DisconnectRef, PacketRef, PropertiesBuf, Property, QoS, ReasonCode, Version, WillRef,
};
use mqtt_session::broker::{Answer, BrokerConfig, Question};
use mqtt_testkit::packets::{filter, puback, publish, retained, subscribe};
use mqtt_testkit::{PeerId, World};
use std::time::Duration;

fn world() -> World {
    World::new(BrokerConfig::default())
}

fn watcher(w: &mut World, version: Version) -> PeerId {
    let s = w.client(version, "watcher");
    w.send(s, &subscribe(1, &filter("#", QoS::ExactlyOnce)));
    w.got(s);
    s
}

fn replayed(w: &mut World, topic: &str) -> Vec<String> {
    let s = w.client(Version::V5, "reader");
    w.send(s, &subscribe(1, &filter(topic, QoS::ExactlyOnce)));
    w.got(s).split_off(1)
}

/// [MQTT-3.3.1-5] of both [MQTT-3.3.1-6] [MQTT-3.3.1-8] [MQTT-3.3.1-6] of 3.1.1 [MQTT-3.3.1-12] of 3.1.1
#[test]
fn the_last_retained_message_of_each_topic_is_kept() {
    for version in [Version::V311, Version::V5] {
        let mut w = world();
        let p = w.client(version, "p");
        w.send(p, &retained("a", 1, 1, "old"));
        w.send(p, &retained("a", 1, 2, "new"));
        w.send(p, &publish("a", 1, 3, "passing"));
        w.send(p, &retained("b/c", 0, 0, "other"));
        assert_eq!(replayed(&mut w, "a"), ["PUBLISH a q1 #1 retain \"new\""]);
        assert_eq!(replayed(&mut w, "+/c"), ["PUBLISH b/c q0 retain \"other\""]);
        assert_eq!(replayed(&mut w, "#").len(), 2);
        w.send(p, &publish("a", 0, 0, ""));
        assert_eq!(replayed(&mut w, "a").len(), 1);
        w.send(p, &retained("a", 1, 4, ""));
        assert!(replayed(&mut w, "a").is_empty());
        assert_eq!(w.broker.stats().retained, 1);
    }
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-10] of 3.1.1 [MQTT-3.3.1-11] of 3.1.1
#[test]
fn an_empty_retained_message_is_forwarded_and_not_kept() {
    for version in [Version::V311, Version::V5] {
        let mut w = world();
        let s = watcher(&mut w, version);
        let p = w.client(version, "p");
        w.send(p, &retained("a", 1, 1, ""));
        assert_eq!(w.got(s), ["PUBLISH a q1 #1 \"\""]);
        assert_eq!(w.broker.stats().retained, 0);
    }
}

/// [MQTT-3.3.2-6]
#[test]
fn retained_messages_survive_the_session_that_set_them_and_expire() {
    let mut w = world();
    let p = w.client(Version::V5, "p");
    let properties = PropertiesBuf::new().with(Property::MessageExpiryInterval(10)).unwrap();
    let PacketRef::Publish(message) = retained("a", 0, 0, "x") else { panic!() };
    w.send(
        p,
        &PacketRef::Publish(mqtt_proto::PublishRef { properties: properties.as_properties(), ..message }),
    );
    w.cut(p);
    w.advance(Duration::from_secs(4));
    assert_eq!(replayed(&mut w, "a"), ["PUBLISH a q0 retain \"x\" {MessageExpiryInterval(6)}"]);
    w.advance(Duration::from_secs(6));
    assert!(replayed(&mut w, "a").is_empty());
}

#[test]
fn subscription_identifiers_are_sent_with_retained_messages() {
    let mut w = world();
    let p = w.client(Version::V5, "p");
    w.send(p, &retained("a", 0, 0, "x"));
    let s = w.client(Version::V5, "s");
    let properties = PropertiesBuf::new().with(Property::SubscriptionIdentifier(7)).unwrap();
    let filters = filter("a", QoS::AtMostOnce);
    let PacketRef::Subscribe(packet) = subscribe(1, &filters) else { panic!() };
    w.send(
        s,
        &PacketRef::Subscribe(mqtt_proto::SubscribeRef { properties: properties.as_properties(), ..packet }),
    );
    assert_eq!(w.got(s)[1], "PUBLISH a q0 retain \"x\" {SubscriptionIdentifier(7)}");
}

#[test]
fn a_large_replay_waits_for_the_socket_outside_the_queue_limit() {
    let mut config = BrokerConfig::default();
    config.max_queued_messages = 10;
    config.max_inflight = 20;
    let mut w = World::new(config);
    let p = w.client(Version::V5, "p");
    for n in 0..1000 {
        w.send(p, &retained(&format!("r/{n}"), 1, 1, "x"));
    }
    w.outbox_max = 100;
    let s = w.client(Version::V5, "s");
    w.send(s, &subscribe(1, &filter("r/#", QoS::AtLeastOnce)));
    let mut seen = std::collections::BTreeSet::new();
    let mut next = w.got(s).split_off(1);
    while !next.is_empty() {
        assert!(next.len() <= 20);
        for line in next {
            let id: u16 = line.split('#').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert!(seen.insert(line.split(' ').nth(1).unwrap().to_owned()));
            w.send(s, &puback(id));
        }
        next = w.got(s);
    }
    assert_eq!(seen.len(), 1000);
    assert_eq!(w.broker.stats().dropped, 0);
}

#[test]
fn a_retained_message_that_is_removed_during_a_replay_is_not_sent() {
    let mut config = BrokerConfig::default();
    config.max_inflight = 1;
    // What other shards have of them is sent for by the page, and may be there before it is removed.
    let mut w = World::of_one_shard(config);
    let p = w.client(Version::V5, "p");
    for topic in ["a", "b", "c"] {
        w.send(p, &retained(topic, 1, 1, "x"));
    }
    let s = w.client(Version::V5, "s");
    w.send(s, &subscribe(1, &filter("+", QoS::AtLeastOnce)));
    let first = w.got(s).split_off(1);
    assert_eq!(first.len(), 1);
    for topic in ["a", "b", "c"] {
        w.send(p, &retained(topic, 0, 0, ""));
    }
    w.send(s, &puback(1));
    let rest = w.got(s);
    assert!(rest.iter().all(|line| line.ends_with("\"\"")), "{rest:?}");
}

fn with_will<'a>(version: Version, will: WillRef<'a>, properties: &'a PropertiesBuf) -> ConnectRef<'a> {
    let properties = if version.is_v5() { properties.as_properties() } else { Default::default() };
    ConnectRef { version, client_id: "mortal", will: Some(will), properties, ..ConnectRef::default() }
}

const WILL: WillRef<'static> = WillRef {
    topic: "will",
    payload: b"gone",
    qos: QoS::AtLeastOnce,
    retain: false,
    properties: mqtt_proto::Properties::EMPTY,
};

/// [MQTT-3.1.2-8] of both [MQTT-3.1.2-10] of both
#[test]
fn a_lost_connection_publishes_the_will_once() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut w = world();
        let s = watcher(&mut w, Version::V5);
        let none = PropertiesBuf::new();
        let c = w.connect(&with_will(version, WILL, &none));
        w.cut(c);
        assert_eq!(w.got(s), ["PUBLISH will q1 #1 \"gone\""]);
        w.advance(Duration::from_secs(1000));
        assert!(w.got(s).is_empty());
    }
}

/// [MQTT-3.14.4-3] of both [MQTT-3.1.2-10] of both
#[test]
fn a_clean_goodbye_drops_the_will() {
    for version in [Version::V311, Version::V5] {
        let mut w = world();
        let s = watcher(&mut w, Version::V5);
        let none = PropertiesBuf::new();
        let c = w.connect(&with_will(version, WILL, &none));
        w.send(c, &PacketRef::Disconnect(DisconnectRef::default()));
        assert!(w.got(s).is_empty());
        assert!(w.is_hung_up(c));
    }
}

#[test]
fn disconnect_with_will_protocol_errors_and_silence_publish_it() {
    let none = PropertiesBuf::new();
    let mut w = world();
    let s = watcher(&mut w, Version::V5);
    let c = w.connect(&with_will(Version::V5, WILL, &none));
    let reason = ReasonCode::DisconnectWithWill;
    w.send(c, &PacketRef::Disconnect(DisconnectRef { reason, ..DisconnectRef::default() }));
    assert_eq!(w.got(s).len(), 1);
    let c = w.connect(&with_will(Version::V311, WILL, &none));
    w.send_raw(c, &[0xFF, 0]);
    assert_eq!(w.got(s).len(), 1);
    let c = w.connect(&ConnectRef { keep_alive: 2, ..with_will(Version::V311, WILL, &none) });
    w.advance(Duration::from_secs(3));
    assert!(w.is_hung_up(c));
    assert_eq!(w.got(s).len(), 1);
}

/// [MQTT-3.1.2-17] of 3.1.1
#[test]
fn a_retained_will_is_retained() {
    let mut w = world();
    let none = PropertiesBuf::new();
    let c = w.connect(&with_will(Version::V311, WillRef { retain: true, ..WILL }, &none));
    w.cut(c);
    assert_eq!(replayed(&mut w, "will"), ["PUBLISH will q1 #1 retain \"gone\""]);
}

/// [MQTT-3.1.3-9] [MQTT-3.1.2-8]
#[test]
fn a_delayed_will_waits_and_a_resumed_session_cancels_it() {
    let mut w = world();
    let s = watcher(&mut w, Version::V5);
    let session = PropertiesBuf::new().with(Property::SessionExpiryInterval(60)).unwrap();
    let delay = PropertiesBuf::new().with(Property::WillDelayInterval(10)).unwrap();
    let will = WillRef { properties: delay.as_properties(), ..WILL };
    let c = w.connect(&with_will(Version::V5, will, &session));
    w.cut(c);
    w.advance(Duration::from_secs(9));
    let c = w.connect(&with_will(Version::V5, will, &session));
    w.advance(Duration::from_secs(50));
    assert!(w.got(s).is_empty());
    w.cut(c);
    w.advance(Duration::from_millis(9_999));
    assert!(w.got(s).is_empty());
    w.advance(Duration::from_millis(1));
    assert_eq!(w.got(s), ["PUBLISH will q1 #1 \"gone\""]);
    // Nor does it stay behind when the next connection has none.
    let c = w.connect(&with_will(Version::V5, will, &session));
    w.cut(c);
    let c = w.connect(&ConnectRef { will: None, ..with_will(Version::V5, will, &session) });
    w.cut(c);
    w.advance(Duration::from_secs(50));
    assert!(w.got(s).is_empty());
}

#[test]
fn a_delayed_will_fires_when_its_session_ends_first() {
    let mut w = world();
    let s = watcher(&mut w, Version::V5);
    let delay = PropertiesBuf::new().with(Property::WillDelayInterval(1000)).unwrap();
    let will = WillRef { properties: delay.as_properties(), ..WILL };
    // By expiry.
    let session = PropertiesBuf::new().with(Property::SessionExpiryInterval(5)).unwrap();
    let c = w.connect(&with_will(Version::V5, will, &session));
    w.cut(c);
    w.advance(Duration::from_secs(5));
    assert_eq!(w.got(s).len(), 1);
    // By a clean start.
    let session = PropertiesBuf::new().with(Property::SessionExpiryInterval(50)).unwrap();
    let c = w.connect(&with_will(Version::V5, will, &session));
    w.cut(c);
    let c = w.connect(&ConnectRef { clean_start: true, ..with_will(Version::V5, will, &session) });
    assert_eq!(w.got(s).len(), 1);
    // And with the connection, where the session does.
    let none = PropertiesBuf::new();
    w.cut(c);
    w.advance(Duration::from_secs(50));
    assert_eq!(w.got(s).len(), 1);
    let c = w.connect(&with_will(Version::V5, will, &none));
    w.cut(c);
    assert_eq!(w.got(s).len(), 1);
}

/// [MQTT-3.14.2-2]
#[test]
fn a_take_over_publishes_a_will_without_delay_before_the_new_connack() {
    let mut w = world();
    let s = watcher(&mut w, Version::V5);
    let session = PropertiesBuf::new().with(Property::SessionExpiryInterval(60)).unwrap();
    let c = w.connect(&with_will(Version::V5, WILL, &session));
    w.got(c);
    let again = w.connect(&ConnectRef { will: None, ..with_will(Version::V5, WILL, &session) });
    assert_eq!(w.got(c), ["DISCONNECT 8E"]);
    assert!(w.got(again)[0].starts_with("CONNACK sp 00"));
    assert_eq!(w.got(s), ["PUBLISH will q1 #1 \"gone\""]);
}

/// [MQTT-3.1.3-10] [MQTT-3.1.2-7]
#[test]
fn will_properties_are_published_with_it() {
    let mut w = world();
    let s = watcher(&mut w, Version::V5);
    let list = [
        Property::UserProperty("k", "1"),
        Property::WillDelayInterval(3),
        Property::MessageExpiryInterval(9),
        Property::UserProperty("k", "2"),
        Property::ContentType("x"),
    ];
    let mut properties = PropertiesBuf::new();
    list.iter().for_each(|property| properties.push(*property).unwrap());
    let session = PropertiesBuf::new().with(Property::SessionExpiryInterval(60)).unwrap();
    let c = w.connect(&with_will(
        Version::V5,
        WillRef { properties: properties.as_properties(), ..WILL },
        &session,
    ));
    w.advance(Duration::from_secs(100));
    w.cut(c);
    w.advance(Duration::from_secs(3));
    assert_eq!(
        w.got(s),
        ["PUBLISH will q1 #1 \"gone\" {UserProperty(\"k\", \"1\"), UserProperty(\"k\", \"2\"), \
          ContentType(\"x\"), MessageExpiryInterval(9)}"]
    );
}

#[test]
fn wills_are_asked_about_when_they_fire() {
    let mut config = BrokerConfig::default();
    config.ask.will = true;
    for (answer, count) in [(Answer::Allow, 1), (Answer::Deny(ReasonCode::NotAuthorized), 0)] {
        let mut w = World::new(config.clone());
        let s = watcher(&mut w, Version::V5);
        let none = PropertiesBuf::new();
        let c = w.connect(&with_will(Version::V311, WILL, &none));
        w.cut(c);
        let ask = w.asks.pop().unwrap();
        assert_eq!((ask.client_id.as_str(), ask.conn), ("mortal", None));
        assert!(matches!(&ask.question, Question::Will { topic, .. } if topic == "will"));
        w.broker.handle_answer(w.now, ask.id, answer);
        w.settle();
        assert_eq!(w.got(s).len(), count);
        if count > 0 {
            w.send(s, &puback(1));
        }
        assert_eq!(w.broker.stats().messages, 0);
    }
}

/// One will ends the next client, whose will ends the next: however many there are, nothing nests.
#[test]
fn a_chain_of_wills_does_not_overflow_a_stack() {
    let mut config = BrokerConfig::default();
    config.max_queued_messages = 1;
    config.overflow = mqtt_session::broker::Overflow::Disconnect;
    let mut w = World::new(config);
    w.outbox_max = 1 << 16;
    let count = 3000;
    let peers: Vec<PeerId> = (0..count)
        .map(|n| {
            let topic = format!("w/{}", n + 1);
            let will = WillRef { topic: &topic, ..WILL };
            let id = n.to_string();
            let connect =
                ConnectRef { client_id: &id, will: Some(will), clean_start: true, ..Default::default() };
            let peer = w.connect(&connect);
            w.send(peer, &subscribe(1, &filter(&format!("w/{n}"), QoS::AtMostOnce)));
            peer
        })
        .collect();
    // Nobody's socket has room: the first message shows that to the machine, the second one fills the queue.
    w.outbox_max = 0;
    for n in (0..count).chain(0..count) {
        let message = mqtt_session::Message::new(format!("w/{n}"), "full");
        w.broker.publish(w.now, message).unwrap();
        w.settle();
    }
    w.cut(peers[0]);
    assert!(peers[1..].iter().all(|&peer| w.is_hung_up(peer)));
    assert_eq!((w.broker.stats().sessions, w.broker.stats().messages), (0, 0));
}

#[test]
fn a_storm_of_wills_is_spread_over_many_calls() {
    let mut w = world();
    let s = watcher(&mut w, Version::V5);
    let session = PropertiesBuf::new().with(Property::SessionExpiryInterval(60)).unwrap();
    let delay = PropertiesBuf::new().with(Property::WillDelayInterval(10)).unwrap();
    for n in 0..10_000 {
        let will = WillRef { properties: delay.as_properties(), qos: QoS::AtMostOnce, ..WILL };
        let id = n.to_string();
        let c = w.connect(&ConnectRef { client_id: &id, ..with_will(Version::V5, will, &session) });
        w.cut(c);
    }
    let at = w.now + Duration::from_secs(10);
    w.broker.handle_timeout(at);
    assert!(w.broker.poll_timeout().is_some_and(|due| due <= at), "one call does not do it all");
    w.advance(Duration::from_secs(10));
    assert_eq!(w.got(s).len(), 10_000);
}

/// Looking for retained messages is done in pieces, and what comes behind does not wait for ever when they
/// find nothing.
#[test]
fn very_many_subscriptions_that_match_nothing_retained_do_not_hold_up_what_follows() {
    let mut w = World::new(BrokerConfig::default());
    let p = w.client(Version::V5, "p");
    w.send(p, &retained("kept", 0, 0, "x"));
    let s = w.client(Version::V5, "s");
    for n in 0..200 {
        w.send(s, &subscribe(1, &filter(&format!("f/{n}/+"), QoS::AtLeastOnce)));
    }
    w.send(s, &subscribe(2, &filter("t", QoS::AtLeastOnce)));
    w.got(s);
    w.send(p, &publish("t", 0, 0, "live"));
    assert_eq!(w.got(s), ["PUBLISH t q0 \"live\""]);
}
