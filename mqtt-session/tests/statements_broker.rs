//! Statements of the standards that bind a server, one at a time.

use mqtt_proto::*;
use mqtt_session::broker::{Answer, AskFor, BrokerConfig, Question};
use mqtt_testkit::packets::{filter, id, puback, pubcomp, publish, pubrec, pubrel, retained, subscribe};
use mqtt_testkit::{PeerId, World};
use std::time::Duration;

use Version::{V5, V311};

const BOTH: [Version; 2] = [V311, V5];

fn world() -> World {
    World::new(BrokerConfig::default())
}

fn with(change: impl FnOnce(&mut BrokerConfig)) -> World {
    let mut config = BrokerConfig::default();
    change(&mut config);
    World::new(config)
}

fn buf(list: &[Property<'_>]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    list.iter().for_each(|property| properties.push(*property).unwrap());
    properties
}

fn clean(version: Version, client_id: &str) -> ConnectRef<'_> {
    ConnectRef { version, client_id, clean_start: true, ..ConnectRef::default() }
}

/// A connection to a session that stays. The CONNACK waits in the inbox.
fn keeper(w: &mut World, version: Version, client_id: &str) -> PeerId {
    let properties = buf(&[Property::SessionExpiryInterval(1_000_000)]);
    let properties = if version.is_v5() { properties.as_properties() } else { Properties::EMPTY };
    w.connect(&ConnectRef { version, client_id, properties, ..ConnectRef::default() })
}

fn sub(w: &mut World, peer: PeerId, topic: &str, qos: QoS) {
    w.send(peer, &subscribe(1, &filter(topic, qos)));
    assert!(w.got(peer).iter().any(|line| line.starts_with("SUBACK")));
}

fn watcher(w: &mut World, version: Version) -> PeerId {
    let s = w.client(version, "watcher");
    sub(w, s, "#", QoS::ExactlyOnce);
    s
}

fn unsubscribe(w: &mut World, peer: PeerId, packet_id: u16, topics: &[&str]) {
    let mut filters = UnsubscribeFiltersBuf::new();
    topics.iter().for_each(|topic| filters.push(topic).unwrap());
    let (packet_id, properties) = (id(packet_id), Properties::EMPTY);
    w.send(
        peer,
        &PacketRef::Unsubscribe(UnsubscribeRef { packet_id, properties, filters: filters.as_filters() }),
    );
}

/// What a client gets that sends these bytes, in each version; it has to be hung up.
fn refused(version: Version, bytes: &[u8]) -> Vec<String> {
    let mut w = world();
    let p = w.client(version, "p");
    w.send_raw(p, bytes);
    assert!(w.is_hung_up(p), "{version} {bytes:02X?}");
    assert_eq!(w.broker.stats().connections, 0);
    w.got(p)
}

fn farewell(version: Version, code: &str) -> Vec<String> {
    if version.is_v5() { vec![format!("DISCONNECT {code}")] } else { Vec::new() }
}

// ---- what ends a connection ----

/// [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.3-1] of 3.1.1 [MQTT-1.5.3-2] of 3.1.1
///
/// More than three: two rules with a number in each version.
#[test]
fn ill_formed_text_closes_the_connection() {
    for version in BOTH {
        // Cut short, a surrogate, beyond the last code point, U+0000.
        for text in [&[0xC3, b'x', b'x'][..], &[0xED, 0xA0, 0x80], &[0xF5, 0x80, 0x80], b"a\0b"] {
            let publish = [&[0x30, 6, 0, 3], text, &[0]].concat();
            assert_eq!(refused(version, &publish), farewell(version, "81"), "{text:02X?}");
        }
    }
}

/// [MQTT-2.1.3-1] [MQTT-2.2.2-1] of 3.1.1 [MQTT-2.2.2-2] of 3.1.1
#[test]
fn wrong_flags_in_a_fixed_header_close_the_connection() {
    for version in BOTH {
        for packet in [&[0x41, 2, 0, 1][..], &[0x52, 2, 0, 1], &[0x71, 2, 0, 1], &[0xC1, 0], &[0xD4, 0]] {
            assert_eq!(refused(version, packet), farewell(version, "81"), "{packet:02X?}");
        }
        let mut w = world();
        let p = w.open(version);
        w.send_raw(p, &[0x11, 13, 0, 4, b'M', b'Q', b'T', b'T', version.level(), 2, 0, 0, 0, 1, b'c']);
        assert!(w.is_hung_up(p));
        assert_eq!(w.broker.stats().sessions, 0);
    }
}

/// [MQTT-3.6.1-1] of both [MQTT-3.8.1-1] of both [MQTT-3.10.1-1] of both
#[test]
fn flags_of_pubrel_subscribe_and_unsubscribe_are_2() {
    for version in BOTH {
        for flags in (0..16).filter(|flags| *flags != 2) {
            assert_eq!(refused(version, &[0x60 | flags, 2, 0, 1]), farewell(version, "81"));
            let list: &[u8] = if version.is_v5() { &[0] } else { &[] };
            let subscribe = [&[0x80 | flags, 6 + list.len() as u8, 0, 1], list, &[0, 1, b'a', 0]].concat();
            assert_eq!(refused(version, &subscribe), farewell(version, "81"));
            let unsubscribe = [&[0xA0 | flags, 5 + list.len() as u8, 0, 1], list, &[0, 1, b'a']].concat();
            assert_eq!(refused(version, &unsubscribe), farewell(version, "81"));
        }
    }
}

/// [MQTT-3.14.1-1] of both [MQTT-3.15.1-1]
#[test]
fn flags_of_disconnect_and_auth_are_0() {
    for flags in 1..16 {
        for version in BOTH {
            assert_eq!(refused(version, &[0xE0 | flags, 0]), farewell(version, "81"), "{flags}");
        }
        assert_eq!(refused(V5, &[0xF0 | flags, 0]), farewell(V5, "81"), "{flags}");
    }
}

/// [MQTT-3.3.1-4] of both [MQTT-3.8.3-5] [MQTT-3.8.3-4] of 3.1.1
#[test]
fn bits_that_mean_nothing_close_the_connection() {
    for version in BOTH {
        let list: &[u8] = if version.is_v5() { &[0] } else { &[] };
        let publish = [&[0x36, 5 + list.len() as u8, 0, 1, b'a', 0, 1], list].concat();
        assert_eq!(refused(version, &publish), farewell(version, "81"), "QoS 3");
        for options in [0x40, 0x80, 0xC0] {
            let subscribe = [&[0x82, 6 + list.len() as u8, 0, 1], list, &[0, 1, b'a', options]].concat();
            assert_eq!(refused(version, &subscribe), farewell(version, "81"), "{options:02X}");
        }
    }
    for options in [0x03, 0x04, 0x08, 0x10, 0x20] {
        refused(V311, &[0x82, 6, 0, 1, 0, 1, b'a', options]);
    }
}

/// [MQTT-3.8.3-2] [MQTT-3.8.3-3] of 3.1.1 [MQTT-3.10.3-2] of both
#[test]
fn requests_without_a_filter_close_the_connection() {
    for version in BOTH {
        let list: &[u8] = if version.is_v5() { &[0] } else { &[] };
        for first in [0x82, 0xA2] {
            let request = [&[first, 2 + list.len() as u8, 0, 1], list].concat();
            assert_eq!(refused(version, &request), farewell(version, "82"), "{first:02X}");
        }
    }
}

/// [MQTT-4.8.0-1] of 3.1.1
#[test]
fn below_5_a_violation_closes_without_a_word() {
    for bytes in [&[0x30, 4, 0, 1, b'#', 0][..], &[0x32, 5, 0, 1, b't', 0, 0], &[0xF0, 0], &[0xD0, 0]] {
        assert!(refused(V311, bytes).is_empty());
    }
}

/// [MQTT-3.14.0-1]
#[test]
fn no_disconnect_goes_before_connack() {
    for first in [&[0xC0, 0][..], &[0xF0, 0], &[0x30, 4, 0, 1, b'a', 0], &[0x00, 0], &[0x10, 1, 0]] {
        let mut w = world();
        let p = w.open(V5);
        w.send_raw(p, first);
        assert!(w.is_hung_up(p), "{first:02X?}");
        assert!(w.got(p).iter().all(|line| line.starts_with("CONNACK")), "{first:02X?}");
    }
    let mut w = with(|config| config.ask.connect = true);
    let (silent, asked) = (w.open(V5), w.connect(&clean(V5, "c")));
    w.broker.shutdown(w.now);
    w.settle();
    for p in [silent, asked] {
        assert!(w.is_hung_up(p));
        assert!(w.got(p).iter().all(|line| !line.starts_with("DISCONNECT")));
    }
}

// ---- CONNECT ----

/// [MQTT-3.1.2-1] of both
#[test]
fn another_protocol_name_is_not_served() {
    for version in BOTH {
        for name in [b"MQTX", b"mqtt"] {
            let mut w = world();
            let p = w.open(version);
            let list: &[u8] = if version.is_v5() { &[0] } else { &[] };
            let tail = [&[version.level(), 2, 0, 0], list, &[0, 1, b'c']].concat();
            w.send_raw(p, &[&[0x10, 6 + tail.len() as u8, 0, 4], &name[..], &tail].concat());
            assert!(w.is_hung_up(p));
            assert!(w.got(p).iter().all(|line| line == "CONNACK 84"));
            assert_eq!(w.broker.stats().sessions, 0);
        }
    }
}

/// [MQTT-3.1.2-6] of 3.1.1 [MQTT-3.2.2-1] of 3.1.1
#[test]
fn a_clean_session_ends_with_its_connection() {
    let mut w = world();
    let s = w.client(V311, "s");
    sub(&mut w, s, "#", QoS::ExactlyOnce);
    w.cut(s);
    assert_eq!(w.broker.stats().sessions, 0);
    let p = w.client(V311, "p");
    w.send(p, &publish("t", 1, 1, "lost"));
    let s = keeper(&mut w, V311, "s");
    assert_eq!(w.got(s), ["CONNACK 00"]);
    w.cut(s);
    let s = w.connect(&clean(V311, "s"));
    assert_eq!(w.got(s), ["CONNACK 00"], "Session Present is 0");
}

/// [MQTT-3.1.2-4] of 3.1.1 [MQTT-3.2.2-3] of 3.1.1 [MQTT-4.1.0-1] of 3.1.1 [MQTT-3.1.2-6] [MQTT-3.2.2-3]
///
/// More than three: creating, keeping and resuming are one thing with several numbers.
#[test]
fn a_session_is_created_kept_and_resumed() {
    for version in BOTH {
        let mut w = world();
        let s = keeper(&mut w, version, "s");
        assert!(w.got(s)[0].starts_with("CONNACK 00"), "there was none");
        assert_eq!(w.broker.stats().sessions, 1);
        sub(&mut w, s, "t", QoS::AtLeastOnce);
        w.cut(s);
        w.advance(Duration::from_secs(900_000));
        let s = keeper(&mut w, version, "s");
        assert!(w.got(s)[0].starts_with("CONNACK sp 00"));
        let p = w.client(version, "p");
        w.send(p, &publish("t", 1, 1, "x"));
        assert_eq!(w.got(s), ["PUBLISH t q1 #1 \"x\""]);
    }
}

/// [MQTT-4.1.0-1] [MQTT-4.1.0-2] of 3.1.1
#[test]
fn a_session_lasts_as_long_as_its_connection() {
    for version in BOTH {
        let mut w = world();
        let s = w.client(version, "s");
        sub(&mut w, s, "t", QoS::AtMostOnce);
        w.advance(Duration::from_secs(10_000_000));
        let p = w.client(version, "p");
        w.send(p, &publish("t", 0, 0, "x"));
        assert_eq!(w.got(s), ["PUBLISH t q0 \"x\""]);
    }
}

/// [MQTT-3.1.3-2] of both
#[test]
fn the_client_identifier_is_the_key_of_the_session() {
    for version in BOTH {
        let mut w = world();
        for name in ["a", "A", "a ", "ä"] {
            let s = keeper(&mut w, version, name);
            assert!(w.got(s)[0].starts_with("CONNACK 00"), "{name:?} is another session");
            sub(&mut w, s, name.trim(), QoS::AtMostOnce);
            w.cut(s);
        }
        assert_eq!(w.broker.stats().sessions, 4);
        let s = keeper(&mut w, version, "a");
        assert!(w.got(s)[0].starts_with("CONNACK sp 00"));
        assert_eq!(w.broker.stats().sessions, 4);
    }
}

/// [MQTT-3.1.3-5] of both
#[test]
fn short_plain_identifiers_are_taken() {
    for version in BOTH {
        let mut w = world();
        for name in ["0", "z", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"] {
            w.client(version, name);
        }
        assert_eq!(w.broker.stats().sessions, 5);
    }
}

/// [MQTT-3.1.3-8] [MQTT-3.1.3-9] of 3.1.1
#[test]
fn a_rejected_identifier_is_told_and_closes() {
    for (version, answer) in [(V311, &[0x20, 2, 0, 2][..]), (V5, &[0x20, 3, 0, 0x85, 0])] {
        let mut w = with(|config| config.ask.connect = true);
        let p = w.connect(&clean(version, "wrong"));
        let ask = w.asks.pop().unwrap();
        w.broker.handle_answer(w.now, ask.id, Answer::Deny(ReasonCode::ClientIdentifierNotValid));
        w.settle();
        assert_eq!(w.got_raw(p), answer);
        assert!(w.is_hung_up(p));
    }
}

/// [MQTT-3.1.4-3] [MQTT-3.1.4-2] of 3.1.1
#[test]
fn the_older_of_two_connections_is_closed() {
    for old in BOTH {
        for new in BOTH {
            let mut w = world();
            let first = w.client(old, "c");
            let second = w.client(new, "c");
            assert_eq!(w.got(first), farewell(old, "8E"));
            assert!(w.is_hung_up(first) && !w.is_hung_up(second));
        }
    }
}

/// [MQTT-3.1.4-6] [MQTT-3.1.4-5] of 3.1.1
#[test]
fn what_follows_a_rejected_connect_is_not_looked_at() {
    for version in BOTH {
        let mut w = with(|config| config.max_sessions = 1);
        let s = watcher(&mut w, V5);
        let mut bytes = Vec::new();
        for packet in [PacketRef::Connect(clean(version, "late")), retained("t", 0, 0, "x"), pubrel(1)] {
            packet.encode(version, &mut bytes).unwrap();
        }
        let p = w.open(version);
        w.send_raw(p, &bytes);
        assert!(w.is_hung_up(p));
        assert!(w.got(p).iter().all(|line| line.starts_with("CONNACK")));
        assert!(w.got(s).is_empty());
        assert_eq!(w.broker.stats().retained, 0);
    }
}

/// [MQTT-3.2.2-6] [MQTT-3.2.2-4] of 3.1.1 [MQTT-3.2.2-7] [MQTT-3.2.2-5] of 3.1.1
///
/// More than three: two rules with a number in each version.
#[test]
fn a_refusal_does_not_speak_of_the_session_that_is_there() {
    for (version, answer) in [(V311, &[0x20, 2, 0, 5][..]), (V5, &[0x20, 3, 0, 0x87, 0])] {
        let mut w = with(|config| config.ask.connect = true);
        for (answered, wanted) in
            [(Answer::Allow, None), (Answer::Deny(ReasonCode::NotAuthorized), Some(answer))]
        {
            let p = keeper(&mut w, version, "c");
            let ask = w.asks.pop().unwrap();
            w.broker.handle_answer(w.now, ask.id, answered);
            w.settle();
            let got = w.got_raw(p);
            if let Some(wanted) = wanted {
                assert_eq!(got, wanted);
                assert!(w.is_hung_up(p));
            }
            w.cut(p);
        }
        assert_eq!(w.broker.stats().sessions, 1, "it is there all the same");
    }
}

/// [MQTT-3.2.2-10]
#[test]
fn a_server_of_qos_0_takes_every_subscription() {
    let mut w = with(|config| config.max_qos = QoS::AtMostOnce);
    let s = w.client(V5, "s");
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        w.send(s, &subscribe(1, &filter("t", qos)));
        assert_eq!(w.got(s), ["SUBACK #1 00"]);
    }
}

// ---- wills ----

fn mortal(version: Version, retain: bool) -> ConnectRef<'static> {
    let will = WillRef { topic: "will", payload: b"gone", retain, ..WillRef::default() };
    ConnectRef { will: Some(will), ..clean(version, "mortal") }
}

/// [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.2-16] of 3.1.1 [MQTT-3.1.2-17] of 3.1.1
///
/// More than three: two rules with a number in each version.
#[test]
fn a_will_is_retained_if_it_says_so() {
    for version in BOTH {
        for retain in [false, true] {
            let mut w = world();
            let s = watcher(&mut w, V5);
            let c = w.connect(&mortal(version, retain));
            w.cut(c);
            assert_eq!(w.got(s), ["PUBLISH will q0 \"gone\""]);
            assert_eq!(w.broker.stats().retained, usize::from(retain));
            let late = w.client(V5, "late");
            w.send(late, &subscribe(1, &filter("will", QoS::AtMostOnce)));
            let replayed: &[&str] = if retain { &["PUBLISH will q0 retain \"gone\""] } else { &[] };
            assert_eq!(w.got(late)[1..], *replayed);
        }
    }
}

/// [MQTT-3.1.2-12] of 3.1.1
#[test]
fn without_a_will_nothing_is_published() {
    for version in BOTH {
        let mut w = world();
        let s = watcher(&mut w, V5);
        let c = w.connect(&mortal(version, false));
        w.send(c, &PacketRef::Disconnect(DisconnectRef::default()));
        // Not even the will of an earlier connection.
        let c = w.connect(&clean(version, "mortal"));
        w.cut(c);
        assert!(w.got(s).is_empty());
    }
}

// ---- retained messages ----

/// [MQTT-3.1.2-7] of 3.1.1
#[test]
fn retained_messages_outlive_a_clean_session() {
    let mut w = world();
    let p = w.client(V311, "p");
    w.send(p, &retained("t", 1, 1, "x"));
    w.cut(p);
    assert_eq!(w.broker.stats().sessions, 0);
    let s = w.client(V311, "s");
    w.send(s, &subscribe(1, &filter("t", QoS::AtMostOnce)));
    assert_eq!(w.got(s)[1..], ["PUBLISH t q0 retain \"x\""]);
}

/// [MQTT-3.3.1-7] of 3.1.1 [MQTT-3.3.1-5] of both
#[test]
fn a_retained_message_replaces_the_one_before_whatever_its_qos() {
    for version in BOTH {
        let mut w = world();
        let p = w.client(version, "p");
        let s = w.client(version, "s");
        for qos in [2, 0, 1, 0] {
            let payload = format!("at {qos}");
            w.send(p, &retained("t", qos, if qos == 0 { 0 } else { 1 }, &payload));
            w.send(s, &subscribe(1, &filter("t", QoS::AtMostOnce)));
            assert!(w.got(s).contains(&format!("PUBLISH t q0 retain {payload:?}")));
            unsubscribe(&mut w, s, 2, &["t"]);
            w.got(s);
        }
        assert_eq!(w.broker.stats().retained, 1);
    }
}

// ---- PUBLISH ----

/// [MQTT-3.3.1-3] of both
#[test]
fn dup_is_not_passed_on() {
    for version in BOTH {
        let mut w = world();
        let s = watcher(&mut w, version);
        let p = w.client(version, "p");
        for (qos, n) in [(1, 1), (2, 2)] {
            let PacketRef::Publish(packet) = publish("t", qos, n, "x") else { panic!() };
            w.send(p, &PacketRef::Publish(PublishRef { dup: true, ..packet }));
            assert_eq!(w.got(s), [format!("PUBLISH t q{qos} #{n} \"x\"")]);
        }
    }
}

/// [MQTT-3.3.2-3] of both [MQTT-4.7.3-4] of both
#[test]
fn only_topics_that_match_arrive_and_they_arrive_as_they_are() {
    for version in BOTH {
        let mut w = world();
        let s = w.client(version, "s");
        sub(&mut w, s, "a/+/c", QoS::AtMostOnce);
        let p = w.client(version, "p");
        for topic in ["a/b/c", "a//c", "A/b/c", "a/b/c/", "/a/b/c", "a/b", "a/ä/c", "a/a\u{308}/c", "a/ /c"]
        {
            w.send(p, &publish(topic, 0, 0, ""));
        }
        let topics: Vec<_> =
            w.got(s).iter().map(|l| l["PUBLISH ".len()..].split(" q0").next().unwrap().to_owned()).collect();
        assert_eq!(topics, ["a/b/c", "a//c", "a/ä/c", "a/a\u{308}/c", "a/ /c"]);
    }
}

/// [MQTT-3.3.4-1] of both [MQTT-4.3.2-4] [MQTT-4.3.2-5] [MQTT-4.3.2-2] of 3.1.1
///
/// More than three: two rules with a number in each version.
#[test]
fn each_publish_at_qos_1_is_a_new_message_and_is_answered() {
    for version in BOTH {
        let mut w = world();
        let s = w.client(V5, "s");
        sub(&mut w, s, "t", QoS::AtMostOnce);
        let p = w.client(version, "p");
        let PacketRef::Publish(packet) = publish("t", 1, 7, "x") else { panic!() };
        for dup in [false, true, true] {
            w.send(p, &PacketRef::Publish(PublishRef { dup, ..packet }));
            assert_eq!(w.got(p), ["PUBACK #7"]);
            assert_eq!(w.got(s), ["PUBLISH t q0 \"x\""]);
        }
        w.send(p, &publish("t", 0, 0, "x"));
        assert!(w.got(p).is_empty());
        w.send(p, &publish("t", 2, 7, "x"));
        assert_eq!(w.got(p), ["PUBREC #7"]);
    }
}

/// [MQTT-4.3.3-9]
#[test]
fn an_identifier_is_new_after_a_refusal() {
    let mut w = world();
    let s = watcher(&mut w, V5);
    let p = w.client(V5, "p");
    w.send(p, &publish("$SYS/x", 2, 5, "refused"));
    assert_eq!(w.got(p), ["PUBREC #5 90"]);
    w.send(p, &publish("t", 2, 5, "taken"));
    assert_eq!(w.got(p), ["PUBREC #5"]);
    assert_eq!(w.got(s), ["PUBLISH t q2 #1 \"taken\""]);
}

/// [MQTT-4.3.3-13]
#[test]
fn an_exchange_is_finished_though_the_message_expired() {
    let mut w = world();
    let p = w.client(V5, "p");
    let properties = buf(&[Property::MessageExpiryInterval(1)]);
    let PacketRef::Publish(packet) = publish("t", 2, 5, "x") else { panic!() };
    let packet = PacketRef::Publish(PublishRef { properties: properties.as_properties(), ..packet });
    w.send(p, &packet);
    assert_eq!(w.got(p), ["PUBREC #5 10"]);
    w.advance(Duration::from_secs(10));
    w.send(p, &packet);
    w.send(p, &pubrel(5));
    assert_eq!(w.got(p), ["PUBREC #5", "PUBCOMP #5"]);
}

/// [MQTT-3.3.5-1] of 3.1.1
#[test]
fn overlapping_subscriptions_of_3_1_1_deliver_at_the_highest_qos() {
    let mut w = world();
    let s = w.client(V311, "s");
    for (topic, qos) in [("#", QoS::AtMostOnce), ("a/+", QoS::ExactlyOnce), ("a/b", QoS::AtLeastOnce)] {
        sub(&mut w, s, topic, qos);
    }
    let p = w.client(V311, "p");
    w.send(p, &publish("a/b", 2, 1, "x"));
    assert_eq!(w.got(s), ["PUBLISH a/b q2 #1 \"x\""]);
}

/// [MQTT-3.3.5-2] of 3.1.1
#[test]
fn a_publish_that_is_not_allowed_is_acknowledged_and_dropped() {
    let mut w = with(|config| config.ask = AskFor { publish: true, ..AskFor::default() });
    let s = watcher(&mut w, V311);
    let p = w.client(V311, "p");
    for (qos, answer) in [(1, "PUBACK #1"), (2, "PUBREC #1")] {
        w.send(p, &publish("t", qos, 1, "x"));
        let ask = w.asks.pop().unwrap();
        w.broker.handle_answer(w.now, ask.id, Answer::Deny(ReasonCode::NotAuthorized));
        w.settle();
        assert_eq!(w.got(p), [answer]);
        assert!(w.got(s).is_empty() && !w.is_hung_up(p));
    }
}

/// [MQTT-3.4.2-1] [MQTT-3.5.2-1]
#[test]
fn a_refusal_that_has_no_code_in_the_table_is_answered_all_the_same() {
    for reason in [ReasonCode::KeepAliveTimeout, ReasonCode::NotAuthorized] {
        let code = if reason == ReasonCode::NotAuthorized { "87" } else { "80" };
        let mut w = with(|config| {
            config.ask = AskFor { publish: true, subscribe: true, ..AskFor::default() };
        });
        let p = w.client(V5, "p");
        let mut deny = |packet: PacketRef<'_>, answer: &str| {
            w.send(p, &packet);
            let ask = w.asks.pop().unwrap();
            w.broker.handle_answer(w.now, ask.id, Answer::Deny(reason));
            w.settle();
            assert_eq!(w.got(p), [format!("{answer} {code}")]);
        };
        deny(publish("t", 1, 1, "x"), "PUBACK #1");
        deny(publish("t", 2, 2, "x"), "PUBREC #2");
        deny(subscribe(3, &filter("t", QoS::AtMostOnce)), "SUBACK #3");
    }
}

/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-4.6.0-5] of 3.1.1 [MQTT-4.6.0-6] of 3.1.1
///
/// More than three: two rules with a number in each version.
#[test]
fn messages_of_a_topic_and_qos_stay_in_order() {
    for version in BOTH {
        let mut w = world();
        let s = watcher(&mut w, version);
        let p = w.client(version, "p");
        for n in 1..=30u16 {
            let qos = (n % 3) as u8;
            w.send(p, &publish("t", qos, if qos == 0 { 0 } else { n }, &format!("{n:02}")));
        }
        let got = w.got(s);
        assert_eq!(got.len(), 30);
        for qos in 0..3 {
            let of_qos = got.iter().filter(|line| line.starts_with(&format!("PUBLISH t q{qos}")));
            let payloads: Vec<_> = of_qos.map(|line| line.split('"').nth(1).unwrap()).collect();
            assert!(payloads.len() == 10 && payloads.is_sorted(), "{payloads:?}");
        }
    }
}

/// [MQTT-2.2.1-5] [MQTT-2.3.1-6] of 3.1.1
#[test]
fn acknowledgements_repeat_the_identifier_of_the_publish() {
    for version in BOTH {
        let mut w = world();
        let p = w.client(version, "p");
        for n in [1, 300, 65_535] {
            w.send(p, &publish("t", 1, n, ""));
            w.send(p, &publish("t", 2, n, ""));
            w.send(p, &pubrel(n));
            let none = if version.is_v5() { " 10" } else { "" };
            let answers =
                [format!("PUBACK #{n}{none}"), format!("PUBREC #{n}{none}"), format!("PUBCOMP #{n}")];
            assert_eq!(w.got(p), answers);
        }
        let s = watcher(&mut w, version);
        w.send(p, &publish("t", 2, 9, ""));
        assert_eq!(w.got(s), ["PUBLISH t q2 #1 \"\""]);
        w.send(s, &pubrec(1));
        assert_eq!(w.got(s), ["PUBREL #1"]);
        w.send(s, &pubcomp(1));
        w.send(p, &publish("t", 1, 9, ""));
        assert_eq!(w.got(s), ["PUBLISH t q1 #2 \"\""]);
        w.send(s, &puback(2));
        assert_eq!(w.broker.stats().messages, 0);
    }
}

// ---- SUBSCRIBE and UNSUBSCRIBE ----

/// [MQTT-2.2.1-6] [MQTT-3.8.4-2] of both [MQTT-3.8.4-1] of both [MQTT-2.3.1-7] of 3.1.1
/// [MQTT-3.10.4-4] of 3.1.1
///
/// More than three: the same thing has several numbers.
#[test]
fn answers_have_the_identifier_of_their_request() {
    for version in BOTH {
        let mut w = world();
        let s = w.client(version, "s");
        for n in [1, 300, 65_535] {
            w.send(s, &subscribe(n, &filter("t", QoS::AtLeastOnce)));
            assert_eq!(w.got(s), [format!("SUBACK #{n} 01")]);
            unsubscribe(&mut w, s, n, &["t"]);
            let code = if version.is_v5() { " 00" } else { "" };
            assert_eq!(w.got(s), [format!("UNSUBACK #{n}{code}")]);
        }
    }
}

/// [MQTT-3.8.3-2] of 3.1.1
#[test]
fn a_server_without_wildcards_refuses_them() {
    let mut w = with(|config| config.wildcards_available = false);
    let s = w.client(V311, "s");
    for (topic, code) in [("a/#", "80"), ("+", "80"), ("a", "01")] {
        w.send(s, &subscribe(1, &filter(topic, QoS::AtLeastOnce)));
        assert_eq!(w.got(s), [format!("SUBACK #1 {code}")]);
    }
    assert_eq!(w.broker.stats().subscriptions, 1);
}

/// [MQTT-3.8.4-4] [MQTT-3.8.4-3] of 3.1.1
#[test]
fn subscribing_again_replays_and_interrupts_nothing() {
    for version in BOTH {
        let mut w = world();
        let p = w.client(version, "p");
        w.send(p, &retained("t", 0, 0, "kept"));
        let s = w.client(version, "s");
        sub(&mut w, s, "t", QoS::AtLeastOnce);
        let mut bytes = Vec::new();
        w.set_reads(s, false);
        w.send(p, &publish("t", 1, 1, "before"));
        subscribe(2, &filter("t", QoS::ExactlyOnce)).encode(version, &mut bytes).unwrap();
        w.send_raw(s, &bytes);
        w.send(p, &publish("t", 1, 2, "after"));
        w.set_reads(s, true);
        let got = w.got(s);
        for payload in ["before", "after"] {
            assert_eq!(got.iter().filter(|line| line.contains(payload)).count(), 1, "{got:?}");
        }
        assert!(got.contains(&"PUBLISH t q0 retain \"kept\"".to_owned()), "{got:?}");
        assert_eq!(w.broker.stats().subscriptions, 1);
    }
}

/// [MQTT-3.8.4-8] [MQTT-3.8.4-6] of 3.1.1
#[test]
fn a_message_is_delivered_at_the_lesser_qos() {
    for version in BOTH {
        for published in 0..3u8 {
            for granted in 0..3u8 {
                let mut w = world();
                let s = w.client(version, "s");
                sub(&mut w, s, "t", QoS::from_u8(granted).unwrap());
                let p = w.client(version, "p");
                w.send(p, &publish("t", published, u16::from(published > 0), "x"));
                let got = w.got(s);
                assert_eq!(got.len(), 1);
                assert!(got[0].starts_with(&format!("PUBLISH t q{}", published.min(granted))), "{got:?}");
            }
        }
    }
}

/// [MQTT-3.10.4-1] of both [MQTT-3.10.4-2] of both [MQTT-3.10.4-5] of 3.1.1
#[test]
fn unsubscribe_takes_away_exactly_the_filter_that_it_names() {
    for version in BOTH {
        let mut w = world();
        let s = w.client(version, "s");
        sub(&mut w, s, "a/+", QoS::AtMostOnce);
        let p = w.client(version, "p");
        for (topic, left) in [("a/b", 1), ("a/#", 1), ("A/+", 1), ("a/+", 0)] {
            unsubscribe(&mut w, s, 5, &[topic]);
            assert!(w.got(s)[0].starts_with("UNSUBACK #5"), "{topic}");
            w.send(p, &publish("a/b", 0, 0, "x"));
            assert_eq!(w.got(s).len(), left, "{topic}");
        }
    }
}

/// [MQTT-3.10.4-6] of both [MQTT-3.11.3-1] [MQTT-3.11.3-2]
#[test]
fn several_filters_to_unsubscribe_get_one_answer() {
    for version in BOTH {
        let mut w = world();
        let s = w.client(version, "s");
        for topic in ["a", "b", "c"] {
            sub(&mut w, s, topic, QoS::AtMostOnce);
        }
        unsubscribe(&mut w, s, 5, &["a", "none", "c"]);
        let codes = if version.is_v5() { " 00 11 00" } else { "" };
        assert_eq!(w.got(s), [format!("UNSUBACK #5{codes}")]);
        assert_eq!(w.broker.stats().subscriptions, 1);
    }
}

// ---- AUTH ----

/// [MQTT-4.12.0-4]
#[test]
fn an_authentication_that_fails_is_refused_and_closed() {
    let mut w = with(|config| config.ask.connect = true);
    let list = buf(&[Property::AuthenticationMethod("M")]);
    let p = w.connect(&ConnectRef { properties: list.as_properties(), ..clean(V5, "c") });
    let ask = w.asks.pop().unwrap();
    w.broker.handle_answer(w.now, ask.id, Answer::Continue(bytes::Bytes::from_static(b"?")));
    w.settle();
    assert_eq!(w.got(p).len(), 1);
    let reason = ReasonCode::ContinueAuthentication;
    w.send(p, &PacketRef::Auth(AuthRef { reason, properties: list.as_properties() }));
    let ask = w.asks.pop().unwrap();
    w.broker.handle_answer(w.now, ask.id, Answer::Deny(ReasonCode::NotAuthorized));
    w.settle();
    assert_eq!(w.got(p), ["CONNACK 87"]);
    assert!(w.is_hung_up(p));
    assert_eq!(w.broker.stats().sessions, 0);
}

/// [MQTT-4.12.0-6]
#[test]
fn without_a_method_the_server_sends_none() {
    let mut w = with(|config| config.ask.connect = true);
    for (answer, accepted) in
        [(Answer::Allow, true), (Answer::Continue(bytes::Bytes::from_static(b"?")), false)]
    {
        let p = w.connect(&clean(V5, "c"));
        let ask = w.asks.pop().unwrap();
        assert!(matches!(ask.question, Question::Connect { authentication: None, .. }));
        w.broker.handle_answer(w.now, ask.id, answer);
        w.settle();
        let got = w.got(p);
        assert!(got.len() == 1 && got[0].starts_with("CONNACK") && !got[0].contains("Auth"), "{got:?}");
        assert_eq!(w.is_hung_up(p), !accepted);
    }
}

// ---- what a client takes ----

/// The broker says no with a code and nothing more, so that neither a Reason String nor a User Property
/// is ever too much for a client, or unwanted by it.
///
/// [MQTT-3.1.2-29] [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2]
/// [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1]
/// [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-2] [MQTT-3.15.2-2] [MQTT-3.15.2-3]
///
/// More than three: each packet has two numbers for the same rule.
#[test]
fn no_refusal_is_larger_than_a_small_client_takes() {
    let max = 24;
    let list = buf(&[
        Property::MaximumPacketSize(max),
        Property::RequestProblemInformation(false),
        Property::SessionExpiryInterval(9),
        Property::AuthenticationMethod("M"),
    ]);
    let small = ConnectRef { properties: list.as_properties(), ..clean(V5, "small") };
    let mut w = with(|config| config.ask.connect = true);
    let answer = |w: &mut World, answer| {
        let ask = w.asks.pop().unwrap();
        w.broker.handle_answer(w.now, ask.id, answer);
        w.settle();
    };
    let check = |w: &mut World, p, wanted: &str| {
        let raw = w.got_raw(p);
        assert!(raw.len() <= max as usize, "{wanted}: {raw:02X?}");
        let (packet, _) = PacketRef::decode_next(&raw, V5, MAX_PACKET_SIZE).unwrap().unwrap();
        let line = mqtt_testkit::brief(&packet);
        assert!(line.starts_with(wanted), "{line}");
        assert!(!line.contains("ReasonString") && !line.contains("UserProperty"), "{line}");
        assert!(!line.starts_with("DISCONNECT") || !line.contains('{'), "{line}");
    };
    let p = w.connect(&small);
    answer(&mut w, Answer::Deny(ReasonCode::NotAuthorized));
    check(&mut w, p, "CONNACK 87");
    let p = w.connect(&small);
    answer(&mut w, Answer::Continue(bytes::Bytes::from_static(b"?")));
    check(&mut w, p, "AUTH 18");
    let method = buf(&[Property::AuthenticationMethod("M")]);
    let reason = ReasonCode::ContinueAuthentication;
    w.send(p, &PacketRef::Auth(AuthRef { reason, properties: method.as_properties() }));
    answer(&mut w, Answer::Allow);
    check(&mut w, p, "CONNACK 00");
    w.send(p, &publish("$SYS/x", 1, 1, ""));
    check(&mut w, p, "PUBACK #1 90");
    w.send(p, &publish("$SYS/x", 2, 1, ""));
    check(&mut w, p, "PUBREC #1 90");
    w.send(p, &pubrec(1));
    check(&mut w, p, "PUBREL #1 92");
    w.send(p, &pubrel(1));
    check(&mut w, p, "PUBCOMP #1 92");
    w.send(p, &subscribe(1, &filter(&"/".repeat(1000), QoS::AtMostOnce)));
    check(&mut w, p, "SUBACK #1 8F");
    unsubscribe(&mut w, p, 1, &["none"]);
    check(&mut w, p, "UNSUBACK #1 11");
    w.send(p, &PacketRef::Pingresp);
    check(&mut w, p, "DISCONNECT 82");
}

/// [MQTT-3.1.2-24]
#[test]
fn an_answer_that_is_too_large_for_the_client_ends_the_connection() {
    let list = buf(&[Property::MaximumPacketSize(24)]);
    let mut w = world();
    let p = w.connect(&ConnectRef { properties: list.as_properties(), ..clean(V5, "small") });
    assert!(w.got(p)[0].starts_with("CONNACK 00"));
    let mut filters = SubscribeFiltersBuf::new();
    for n in 0..50 {
        filters.push(&n.to_string(), QoS::AtMostOnce.into()).unwrap();
    }
    w.send(p, &subscribe(1, &filters));
    assert_eq!(w.got(p), ["DISCONNECT 95"]);
    assert!(w.is_hung_up(p));
    // Nor is a method echoed that has no room.
    let mut w = with(|config| config.ask.connect = true);
    let list = buf(&[Property::MaximumPacketSize(24), Property::AuthenticationMethod("0123456789abcdefgh")]);
    let p = w.connect(&ConnectRef { properties: list.as_properties(), ..clean(V5, "small") });
    let ask = w.asks.pop().unwrap();
    w.broker.handle_answer(w.now, ask.id, Answer::Continue(bytes::Bytes::from_static(b"?")));
    w.settle();
    assert!(w.got(p).is_empty() && w.is_hung_up(p));
}
