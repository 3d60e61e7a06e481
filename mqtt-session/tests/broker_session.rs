//! What a session keeps, for how long, and within which limits.

use mqtt_proto::{
    ConnectRef, DisconnectRef, PacketRef, PropertiesBuf, Property, PublishRef, QoS, ReasonCode, Version,
};
use mqtt_session::broker::{BrokerConfig, DropReason, Event, Overflow};
use mqtt_testkit::packets::{filter, id, puback, pubcomp, publish, pubrec, pubrel, subscribe};
use mqtt_testkit::{PeerId, World};
use std::time::Duration;

fn connect_for(
    w: &mut World,
    version: Version,
    client_id: &str,
    expiry: u32,
    more: &[Property<'_>],
) -> PeerId {
    let mut properties = PropertiesBuf::new();
    if version.is_v5() {
        properties.push(Property::SessionExpiryInterval(expiry)).unwrap();
        more.iter().for_each(|property| properties.push(*property).unwrap());
    }
    let properties = properties.as_properties();
    w.connect(&ConnectRef { version, client_id, properties, ..ConnectRef::default() })
}

/// A client with a session that stays, subscribed to everything at QoS 2.
fn keeper(w: &mut World, version: Version) -> PeerId {
    let s = connect_for(w, version, "keeper", 100, &[]);
    w.send(s, &subscribe(1, &filter("#", QoS::ExactlyOnce)));
    assert_eq!(w.got(s).len(), 2);
    s
}

/// [MQTT-3.1.2-5] [MQTT-3.2.2-3] [MQTT-4.5.0-1] of both [MQTT-3.1.2-5] of 3.1.1 [MQTT-3.2.2-2] of 3.1.1
#[test]
fn messages_wait_for_a_client_that_is_away() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut w = World::new(BrokerConfig::default());
        let s = keeper(&mut w, version);
        w.send(s, &PacketRef::Disconnect(DisconnectRef::default()));
        let p = w.client(Version::V311, "p");
        for (n, payload) in ["a", "b", "c"].iter().enumerate() {
            w.send(p, &publish("t", n as u8, n as u16, payload));
        }
        let s = connect_for(&mut w, version, "keeper", 100, &[]);
        let got = w.got(s);
        // QoS 0 does not wait.
        assert_eq!(got[1..], ["PUBLISH t q1 #1 \"b\"", "PUBLISH t q2 #2 \"c\""]);
        assert_eq!(got[0].contains(" sp "), version > Version::V31);
    }
}

/// [MQTT-3.1.2-4] [MQTT-3.2.2-2] [MQTT-3.1.4-4] [MQTT-3.1.2-6] of 3.1.1 [MQTT-3.2.2-1] of 3.1.1
/// [MQTT-3.1.4-3] of 3.1.1
#[test]
fn a_clean_start_discards_what_waited() {
    for version in [Version::V311, Version::V5] {
        let mut w = World::new(BrokerConfig::default());
        let s = keeper(&mut w, version);
        w.cut(s);
        let p = w.client(Version::V311, "p");
        w.send(p, &publish("t", 1, 1, "lost"));
        let s = w.client(version, "keeper");
        assert!(w.got(s).is_empty());
        w.send(p, &publish("t", 1, 2, "no subscription"));
        assert!(w.got(s).is_empty());
        assert_eq!(w.broker.stats().messages, 0);
    }
}

/// [MQTT-4.1.0-2] [MQTT-3.1.2-23] [MQTT-4.1.0-1]
#[test]
fn a_session_ends_when_its_expiry_has_passed() {
    let mut w = World::new(BrokerConfig::default());
    let s = keeper(&mut w, Version::V5);
    w.advance(Duration::from_secs(1000));
    w.cut(s);
    w.advance(Duration::from_millis(99_999));
    assert_eq!(w.broker.stats().sessions, 1);
    w.advance(Duration::from_millis(1));
    assert_eq!((w.broker.stats().sessions, w.broker.stats().subscriptions), (0, 0));
    assert!(
        w.events.iter().any(|e| matches!(e, Event::SessionEnded { client_id, .. } if client_id == "keeper"))
    );
}

#[test]
fn disconnect_may_change_the_expiry_but_not_raise_it_from_zero() {
    let mut w = World::new(BrokerConfig::default());
    let expiry = |secs| PropertiesBuf::new().with(Property::SessionExpiryInterval(secs)).unwrap();
    let s = keeper(&mut w, Version::V5);
    let now = expiry(0);
    w.send(
        s,
        &PacketRef::Disconnect(DisconnectRef { properties: now.as_properties(), ..Default::default() }),
    );
    assert_eq!(w.broker.stats().sessions, 0);
    let s = w.client(Version::V5, "clean");
    let later = expiry(5);
    w.send(
        s,
        &PacketRef::Disconnect(DisconnectRef { properties: later.as_properties(), ..Default::default() }),
    );
    assert_eq!(w.got(s), ["DISCONNECT 82"]);
}

/// [MQTT-3.3.2-5]
/// [MQTT-3.3.2-6]
#[test]
fn messages_expire_while_they_wait_and_say_what_is_left() {
    let mut w = World::new(BrokerConfig::default());
    let s = keeper(&mut w, Version::V5);
    w.cut(s);
    let p = w.client(Version::V5, "p");
    for (n, secs) in [(1, 10), (2, 30)] {
        let properties = PropertiesBuf::new().with(Property::MessageExpiryInterval(secs)).unwrap();
        let message = PublishRef {
            topic: "t",
            qos: QoS::AtLeastOnce,
            packet_id: Some(id(n)),
            properties: properties.as_properties(),
            ..PublishRef::default()
        };
        w.send(p, &PacketRef::Publish(message));
    }
    w.advance(Duration::from_secs(12));
    let s = connect_for(&mut w, Version::V5, "keeper", 100, &[]);
    assert_eq!(w.got(s)[1..], ["PUBLISH t q1 #1 \"\" {MessageExpiryInterval(18)}"]);
}

/// [MQTT-4.3.3-7]
#[test]
fn an_exchange_that_was_begun_does_not_expire() {
    let mut w = World::new(BrokerConfig::default());
    let s = keeper(&mut w, Version::V5);
    let p = w.client(Version::V5, "p");
    let properties = PropertiesBuf::new().with(Property::MessageExpiryInterval(5)).unwrap();
    let message = PublishRef {
        topic: "t",
        qos: QoS::ExactlyOnce,
        packet_id: Some(id(1)),
        properties: properties.as_properties(),
        ..PublishRef::default()
    };
    w.send(p, &PacketRef::Publish(message));
    assert_eq!(w.got(s).len(), 1);
    w.send(s, &pubrec(1));
    w.cut(s);
    w.advance(Duration::from_secs(50));
    let s = connect_for(&mut w, Version::V5, "keeper", 100, &[]);
    assert_eq!(w.got(s)[1..], ["PUBREL #1"]);
    w.send(s, &pubcomp(1));
    assert_eq!(w.broker.stats().messages, 0);
}

/// [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-2] of 3.1.1
#[test]
fn a_release_after_resume_is_answered_and_the_link_stays() {
    for version in [Version::V311, Version::V5] {
        let mut w = World::new(BrokerConfig::default());
        let p = connect_for(&mut w, version, "p", 100, &[]);
        w.got(p);
        w.send(p, &publish("t", 2, 9, "x"));
        assert_eq!(w.got(p).len(), 1);
        w.cut(p);
        let p = connect_for(&mut w, version, "p", 100, &[]);
        w.got(p);
        // The resend of a message that was taken is not new, with or without DUP.
        w.send(p, &publish("t", 2, 9, "x"));
        assert_eq!(w.got(p), ["PUBREC #9"]);
        w.send(p, &pubrel(9));
        assert_eq!(w.got(p), ["PUBCOMP #9"]);
        w.send(p, &pubrel(9));
        let again = if version.is_v5() { "PUBCOMP #9 92" } else { "PUBCOMP #9" };
        assert_eq!(w.got(p), [again]);
        assert!(!w.is_hung_up(p));
    }
}

#[test]
fn a_full_queue_follows_its_policy_and_says_so() {
    for (overflow, kept) in [(Overflow::DropNewest, ["0", "1"]), (Overflow::DropOldest, ["3", "4"])] {
        let mut config = BrokerConfig::default();
        config.max_queued_messages = 2;
        config.overflow = overflow;
        let mut w = World::new(config);
        let s = keeper(&mut w, Version::V5);
        w.cut(s);
        let p = w.client(Version::V5, "p");
        for n in 0..5 {
            w.send(p, &publish("t", 1, n + 1, &n.to_string()));
        }
        assert_eq!(w.got(p).len(), 5);
        let dropped: Vec<_> = w
            .events
            .iter()
            .filter_map(|e| match e {
                Event::Dropped { reason, count, .. } => Some((*reason, *count)),
                _ => None,
            })
            .collect();
        assert_eq!(dropped, [(DropReason::QueueFull, 1), (DropReason::QueueFull, 2)]);
        let s = connect_for(&mut w, Version::V5, "keeper", 100, &[]);
        let got = w.got(s);
        assert_eq!(
            got[1..],
            kept.map(|k| format!("PUBLISH t q1 #{} {k:?}", if k == kept[0] { 1 } else { 2 }))
        );
    }
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    let mut config = BrokerConfig::default();
    config.max_queued_bytes = 10_000;
    let mut w = World::new(config);
    let s = keeper(&mut w, Version::V5);
    w.set_reads(s, false);
    let p = w.client(Version::V5, "p");
    let big = "x".repeat(3000);
    for _ in 0..100 {
        w.send(p, &publish("t", 0, 0, &big));
    }
    assert!(w.broker.stats().message_bytes < 100_000);
    assert!(w.broker.stats().dropped > 50);
    // Others are served meanwhile, and the slow one goes on when it reads again.
    w.send(p, &PacketRef::Pingreq);
    assert_eq!(w.got(p), ["PINGRESP"]);
    w.set_reads(s, true);
    assert!(!w.got(s).is_empty());
}

#[test]
fn overflow_may_close_the_connection() {
    let mut config = BrokerConfig::default();
    config.max_queued_messages = 3;
    config.overflow = Overflow::Disconnect;
    let mut w = World::new(config);
    let s = keeper(&mut w, Version::V5);
    w.set_reads(s, false);
    let p = w.client(Version::V5, "p");
    w.outbox_max = 0;
    for n in 1..6 {
        w.send(p, &publish("t", 1, n, "x"));
    }
    assert!(w.is_hung_up(s));
}

#[test]
fn a_socket_that_takes_nothing_is_cut_after_a_while() {
    let mut w = World::new(BrokerConfig::default());
    let s = keeper(&mut w, Version::V5);
    w.set_reads(s, false);
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 0, 0, "x"));
    w.advance(Duration::from_secs(59));
    assert!(!w.is_hung_up(s));
    w.advance(Duration::from_secs(2));
    assert!(w.is_hung_up(s));
}

/// [MQTT-3.1.2-24]
/// [MQTT-3.1.2-25]
#[test]
fn what_is_too_large_for_a_client_is_dropped_and_the_queue_goes_on() {
    let mut w = World::new(BrokerConfig::default());
    let s = connect_for(&mut w, Version::V5, "small", 100, &[Property::MaximumPacketSize(64)]);
    w.send(s, &subscribe(1, &filter("#", QoS::ExactlyOnce)));
    w.got(s);
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 1, 1, "first"));
    w.send(p, &publish("t", 1, 2, &"x".repeat(64)));
    w.send(p, &publish("t", 0, 0, &"x".repeat(64)));
    w.send(p, &publish("t", 2, 3, "last"));
    assert_eq!(w.got(s), ["PUBLISH t q1 #1 \"first\"", "PUBLISH t q2 #2 \"last\""]);
    w.send(s, &puback(1));
    w.send(s, &pubrec(2));
    w.send(s, &pubcomp(2));
    assert_eq!(w.broker.stats().messages, 0);
}

#[test]
fn a_session_is_resumed_under_another_version() {
    let mut w = World::new(BrokerConfig::default());
    let s = keeper(&mut w, Version::V311);
    w.cut(s);
    let p = w.client(Version::V5, "p");
    let properties = PropertiesBuf::new().with(Property::ContentType("text/plain")).unwrap();
    let message = PublishRef {
        topic: "t",
        qos: QoS::AtLeastOnce,
        packet_id: Some(id(1)),
        properties: properties.as_properties(),
        ..PublishRef::default()
    };
    w.send(p, &PacketRef::Publish(message));
    let s = connect_for(&mut w, Version::V5, "keeper", 100, &[]);
    assert_eq!(w.got(s)[1..], ["PUBLISH t q1 #1 \"\" {ContentType(\"text/plain\")}"]);
    w.cut(s);
    let s = connect_for(&mut w, Version::V311, "keeper", 100, &[]);
    assert_eq!(w.got(s)[1..], ["PUBLISH t q1 #1 dup \"\""]);
}

#[test]
fn an_administrator_can_close_a_client() {
    let mut w = World::new(BrokerConfig::default());
    let s = keeper(&mut w, Version::V5);
    assert!(w.broker.disconnect(w.now, "keeper", ReasonCode::AdministrativeAction));
    w.settle();
    assert_eq!(w.got(s), ["DISCONNECT 98"]);
    assert!(!w.broker.disconnect(w.now, "nobody", ReasonCode::AdministrativeAction));
}

/// [MQTT-4.4.0-1]
#[test]
fn below_5_0_a_silent_client_may_be_sent_it_again() {
    let mut config = BrokerConfig::default();
    config.resend_after = Some(Duration::from_secs(20));
    let sessions = [(Version::V311, true), (Version::V5, false)].into_iter();
    for ((version, again), lasts) in sessions.flat_map(|session| [(session, true), (session, false)]) {
        let mut w = World::new(config.clone());
        let s = if lasts { keeper(&mut w, version) } else { w.client(version, "s") };
        if !lasts {
            w.send(s, &subscribe(1, &filter("#", QoS::ExactlyOnce)));
            w.got(s);
        }
        let p = w.client(Version::V5, "p");
        w.send(p, &publish("t", 1, 1, "a"));
        w.send(p, &publish("t", 2, 2, "b"));
        assert_eq!(w.got(s).len(), 2);
        w.advance(Duration::from_secs(10));
        w.send(s, &pubrec(2));
        assert_eq!(w.got(s), ["PUBREL #2"]);
        w.advance(Duration::from_secs(19));
        let due: &[&str] = if again { &["PUBLISH t q1 #1 dup \"a\"", "PUBREL #2"] } else { &[] };
        assert_eq!(w.got(s), due);
        w.send(s, &puback(1));
        w.send(s, &pubcomp(2));
        w.advance(Duration::from_secs(100));
        assert!(w.got(s).is_empty());
        assert_eq!(w.broker.stats().messages, 0);
    }
}

/// A full queue is searched for what has expired only when something can have; what comes into it later counts.
#[test]
fn a_queue_that_was_full_before_still_finds_what_has_expired() {
    let mut config = BrokerConfig::default();
    config.max_queued_messages = 2;
    let mut w = World::new(config);
    let s = keeper(&mut w, Version::V5);
    w.cut(s);
    let p = w.client(Version::V5, "p");
    for n in 1..=3 {
        w.send(p, &publish("t", 1, n, "for ever"));
    }
    w.got(p);
    let s = connect_for(&mut w, Version::V5, "keeper", 100, &[]);
    assert_eq!(w.got(s).len(), 1 + 2, "the third one found no room");
    w.send(s, &puback(1));
    w.send(s, &puback(2));
    w.cut(s);
    let mut properties = PropertiesBuf::new();
    properties.push(Property::MessageExpiryInterval(5)).unwrap();
    for n in 4..=5 {
        let properties = properties.as_properties();
        let (topic, qos, packet_id) = ("t", QoS::AtLeastOnce, Some(id(n)));
        w.send(
            p,
            &PacketRef::Publish(PublishRef { topic, qos, packet_id, properties, ..Default::default() }),
        );
    }
    w.advance(Duration::from_secs(6));
    w.send(p, &publish("t", 1, 6, "in their place"));
    let s = connect_for(&mut w, Version::V5, "keeper", 100, &[]);
    let got = w.got(s);
    assert!(got.len() == 2 && got[1].contains("in their place"), "{got:?}");
}
