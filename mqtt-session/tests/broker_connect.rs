//! CONNECT and CONNACK, take-over, authentication.

use bytes::Bytes;
use mqtt_proto::{
    AuthRef, ConnectRef, PacketRef, PropertiesBuf, Property, QoS, ReasonCode, Version, WillRef,
};
use mqtt_session::broker::{Answer, AskFor, BrokerConfig, Event, Grant, Question};
use mqtt_testkit::World;
use mqtt_testkit::packets::{filter, publish, subscribe};
use std::time::Duration;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn world() -> World {
    World::new(BrokerConfig::default())
}

fn connect(version: Version, client_id: &str) -> ConnectRef<'_> {
    ConnectRef { version, client_id, clean_start: true, ..ConnectRef::default() }
}

fn properties(list: &[Property<'_>]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    list.iter().for_each(|property| properties.push(*property).unwrap());
    properties
}

/// [MQTT-3.1.4-5] [MQTT-3.1.4-4] of 3.1.1 [MQTT-3.2.0-1] of both
#[test]
fn a_valid_connect_is_accepted() {
    let mut w = world();
    let p = w.connect(&connect(Version::V311, "c"));
    assert_eq!(w.got(p), ["CONNACK 00"]);
    let p = w.connect(&connect(Version::V31, "d"));
    assert_eq!(w.got(p), ["CONNACK 00"]);
    let p = w.connect(&connect(Version::V5, "e"));
    assert_eq!(
        w.got(p),
        ["CONNACK 00 {ReceiveMaximum(1024), MaximumPacketSize(2097152), TopicAliasMaximum(32)}"]
    );
    assert_eq!(w.broker.stats().sessions, 3);
}

/// [MQTT-3.1.0-1] of both
#[test]
fn any_other_first_packet_ends_the_connection() {
    for version in VERSIONS {
        for first in [PacketRef::Pingreq, publish("a", 0, 0, "x"), PacketRef::Disconnect(Default::default())]
        {
            let mut w = world();
            let p = w.open(version);
            w.send(p, &first);
            assert!(w.is_hung_up(p));
            assert!(w.got(p).is_empty());
            assert_eq!(w.broker.stats().connections, 0);
        }
    }
}

/// [MQTT-3.1.0-2] of both [MQTT-3.2.0-2]
#[test]
fn a_second_connect_is_a_protocol_error() {
    for version in VERSIONS {
        let mut w = world();
        let p = w.client(version, "c");
        w.send(p, &PacketRef::Connect(connect(version, "c")));
        assert!(w.is_hung_up(p));
        let farewell: &[&str] = if version.is_v5() { &["DISCONNECT 82"] } else { &[] };
        assert_eq!(w.got(p), farewell);
    }
}

#[test]
fn other_protocols_are_known_by_their_first_byte() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"PROXY TCP4 1.2.3.4", &[0x16, 3, 1, 2, 0], &[0], &[0xF0]] {
        let mut w = world();
        let p = w.open(Version::V5);
        w.send_raw(p, &bytes[..1]);
        assert!(w.is_hung_up(p) && w.got_raw(p).is_empty(), "{bytes:?}");
    }
}

#[test]
fn without_a_connect_in_time_the_connection_is_cut() {
    let mut w = world();
    let silent = w.open(Version::V5);
    let slow = w.open(Version::V5);
    w.send_raw(slow, &[0x10, 100]);
    w.advance(Duration::from_millis(9_999));
    assert!(!w.is_hung_up(silent));
    w.send_raw(slow, &[0]);
    w.advance(Duration::from_millis(2));
    assert!(w.is_hung_up(silent));
    assert!(w.is_hung_up(slow), "a byte now and then buys no time");
}

/// [MQTT-3.1.2-2] of both
#[test]
fn unknown_levels_are_answered_in_a_form_that_is_understood() {
    let body = |level| [&[0x10, 13, 0, 4][..], b"MQTT", &[level, 2, 0, 60, 0, 1, b'c']].concat();
    let mut w = world();
    let p = w.open(Version::V5);
    w.send_raw(p, &body(6));
    assert_eq!(w.got(p), ["CONNACK 84"]);
    assert!(w.is_hung_up(p));
    for level in [0, 2, 0x84] {
        let p = w.open(Version::V311);
        w.send_raw(p, &body(level));
        assert_eq!(w.got_raw(p), [0x20, 2, 0, 1]);
        assert!(w.is_hung_up(p));
    }
}

/// [MQTT-3.1.4-1] of both [MQTT-3.1.2-3] of both
#[test]
fn a_malformed_connect_is_closed_and_in_5_0_told_why() {
    let mut w = world();
    let p = w.open(Version::V311);
    // Reserved flag, 3.1.1.
    w.send_raw(p, &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 3, 0, 60, 0, 1, b'c']);
    assert!(w.got_raw(p).is_empty() && w.is_hung_up(p));
    let p = w.open(Version::V5);
    w.send_raw(p, &[0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 3, 0, 60, 0, 0, 1, b'c']);
    assert_eq!(w.got(p), ["CONNACK 81"]);
    assert!(w.is_hung_up(p));
    let Some(Event::Malformed { error, .. }) = w.events.iter().find(|e| matches!(e, Event::Malformed { .. }))
    else {
        panic!("{:?}", w.events)
    };
    assert_eq!((error.rule().id(), error.offset()), ("MQTT-3.1.2-3", 9));
}

/// [MQTT-3.1.3-8] of 3.1.1
#[test]
fn empty_identifiers_are_refused_where_the_version_says_so() {
    let mut w = world();
    let p = w.connect(&connect(Version::V31, ""));
    assert_eq!(w.got(p), ["CONNACK 85"]);
    let p = w.connect(&ConnectRef { clean_start: false, ..connect(Version::V311, "") });
    assert_eq!(w.got_raw(p), [0x20, 2, 0, 2]);
    assert!(w.is_hung_up(p));
}

/// [MQTT-3.1.3-6] of both [MQTT-3.1.3-7] [MQTT-3.2.2-16]
#[test]
fn empty_identifiers_get_one_that_nobody_else_has() {
    let mut w = world();
    let p = w.connect(&connect(Version::V311, ""));
    assert_eq!(w.got(p), ["CONNACK 00"]);
    let mut assigned = Vec::new();
    for _ in 0..2 {
        let p = w.connect(&ConnectRef { clean_start: false, ..connect(Version::V5, "") });
        let got = w.got(p);
        let id =
            got[0].split("AssignedClientIdentifier(").nth(1).unwrap().split(')').next().unwrap().to_owned();
        assigned.push(id);
    }
    assert_ne!(assigned[0], assigned[1]);
    assert_eq!(w.broker.stats().sessions, 3);
}

/// [MQTT-3.1.4-3]
#[test]
fn a_new_connection_takes_the_session_over() {
    let mut w = world();
    let old = w.client(Version::V5, "c");
    w.send(old, &subscribe(1, &filter("a", QoS::AtMostOnce)));
    w.got(old);
    let new = w.connect(&ConnectRef { clean_start: false, ..connect(Version::V5, "c") });
    assert_eq!(w.got(old), ["DISCONNECT 8E"]);
    assert!(w.is_hung_up(old));
    // Session Expiry 0: the session ended with its connection.
    assert!(w.got(new)[0].starts_with("CONNACK 00"));
    let third = w.client(Version::V311, "c");
    assert_eq!(w.got(new), ["DISCONNECT 8E"]);
    w.send(third, &PacketRef::Pingreq);
    assert_eq!(w.got(third), ["PINGRESP"]);
    assert_eq!((w.broker.stats().sessions, w.broker.stats().connections), (1, 1));
}

#[test]
fn a_ping_pong_of_two_clients_with_one_identifier_leaves_one_session() {
    let mut w = world();
    for _ in 0..500 {
        let _ = w.connect(&ConnectRef { clean_start: false, ..connect(Version::V311, "same") });
    }
    let stats = w.broker.stats();
    assert_eq!((stats.sessions, stats.connections), (1, 1));
}

/// [MQTT-3.2.2-12]
/// [MQTT-3.2.2-13]
/// [MQTT-3.2.2-9]
#[test]
fn a_will_beyond_what_the_server_can_is_refused() {
    let mut config = BrokerConfig::default();
    config.max_qos = QoS::AtMostOnce;
    config.retain_available = false;
    let mut w = World::new(config);
    let will = WillRef { topic: "w", qos: QoS::AtLeastOnce, ..WillRef::default() };
    let p = w.connect(&ConnectRef { will: Some(will), ..connect(Version::V5, "c") });
    assert_eq!(w.got(p), ["CONNACK 9B"]);
    assert!(w.is_hung_up(p));
    let will = WillRef { topic: "w", retain: true, ..WillRef::default() };
    let p = w.connect(&ConnectRef { will: Some(will), ..connect(Version::V5, "c") });
    assert_eq!(w.got(p), ["CONNACK 9A"]);
    assert!(w.is_hung_up(p));
    let p = w.connect(&connect(Version::V5, "c"));
    let got = w.got(p);
    assert!(got[0].contains("MaximumQos(AtMostOnce), RetainAvailable(false)"), "{got:?}");
    w.send(p, &publish("a", 1, 1, "x"));
    assert_eq!(w.got(p), ["DISCONNECT 9B"]);
}

/// [MQTT-3.1.4-2] [MQTT-3.2.2-7] [MQTT-3.2.2-5] of 3.1.1 [MQTT-3.2.2-6] of 3.1.1
#[test]
fn credentials_are_asked_about_and_refusals_speak_the_version() {
    let mut config = BrokerConfig::default();
    config.ask = AskFor { connect: true, ..AskFor::default() };
    for (version, reason, wanted) in [
        (Version::V311, ReasonCode::BadUserNameOrPassword, vec![0x20, 2, 0, 4]),
        (Version::V31, ReasonCode::NotAuthorized, vec![0x20, 2, 0, 5]),
        (Version::V311, ReasonCode::ServerBusy, vec![0x20, 2, 0, 3]),
        (Version::V311, ReasonCode::ImplementationSpecificError, vec![]),
        (Version::V5, ReasonCode::Banned, vec![0x20, 3, 0, 0x8A, 0]),
    ] {
        let mut w = World::new(config.clone());
        let packet = ConnectRef { user_name: Some("u"), password: Some(b"pw"), ..connect(version, "c") };
        let p = w.connect(&packet);
        let ask = w.asks.pop().expect("a question");
        assert_eq!((ask.client_id.as_str(), ask.user_name.as_deref()), ("c", Some("u")));
        let Question::Connect { password, .. } = ask.question else { panic!() };
        assert_eq!(password.as_deref(), Some(&b"pw"[..]));
        w.broker.handle_answer(w.now, ask.id, Answer::Deny(reason));
        w.settle();
        assert_eq!(w.got_raw(p), wanted);
        assert!(w.is_hung_up(p));
        assert_eq!(w.broker.stats().sessions, 0);
    }
}

#[test]
fn packets_behind_an_open_question_wait_in_order_and_count_after_a_cut() {
    let mut config = BrokerConfig::default();
    config.ask = AskFor { connect: true, publish: true, ..AskFor::default() };
    let mut w = World::new(config);
    let p = w.open(Version::V311);
    let will = WillRef { topic: "will", payload: b"gone", ..WillRef::default() };
    let mut bytes = Vec::new();
    for packet in [
        PacketRef::Connect(ConnectRef { will: Some(will), ..connect(Version::V311, "c") }),
        publish("a", 0, 0, "1"),
        PacketRef::Disconnect(Default::default()),
    ] {
        packet.encode(Version::V311, &mut bytes).unwrap();
    }
    w.send_raw(p, &bytes);
    assert!(w.is_paused(p));
    let ask = w.asks.pop().unwrap();
    w.cut(p);
    w.broker.handle_answer(w.now, ask.id, Answer::Allow);
    w.settle();
    let ask = w.asks.pop().expect("the publish is asked about");
    assert!(matches!(ask.question, Question::Publish { .. }));
    w.broker.handle_answer(w.now, ask.id, Answer::Allow);
    w.settle();
    // DISCONNECT was read too: no will, no connection, no session.
    let stats = w.broker.stats();
    assert_eq!((stats.connections, stats.sessions, stats.messages), (0, 0, 0));
}

#[test]
fn no_answer_in_time_is_a_no() {
    let mut config = BrokerConfig::default();
    config.ask.connect = true;
    config.connect_timeout = Duration::from_secs(60);
    let mut w = World::new(config);
    let p = w.connect(&connect(Version::V5, "c"));
    w.advance(Duration::from_secs(10));
    assert_eq!(w.got(p), ["CONNACK 87"]);
    let ask = w.asks.pop().unwrap();
    w.broker.handle_answer(w.now, ask.id, Answer::Allow);
    w.settle();
    assert_eq!(w.broker.stats().sessions, 0, "a late answer changes nothing");
}

#[test]
fn a_grant_overrides_user_name_expiry_and_keep_alive() {
    let mut config = BrokerConfig::default();
    config.ask.connect = true;
    let mut w = World::new(config);
    let asked = properties(&[Property::SessionExpiryInterval(1000)]);
    let p = w.connect(&ConnectRef { properties: asked.as_properties(), ..connect(Version::V5, "c") });
    let ask = w.asks.pop().unwrap();
    let grant = Grant {
        user_name: Some("alice".into()),
        session_expiry: Some(10),
        keep_alive: Some(7),
        ..Grant::default()
    };
    w.broker.handle_answer(w.now, ask.id, Answer::Grant(Box::new(grant)));
    w.settle();
    let got = w.got(p);
    assert!(got[0].contains("SessionExpiryInterval(10)") && got[0].contains("ServerKeepAlive(7)"), "{got:?}");
    assert!(
        w.events.iter().any(|e| matches!(e, Event::Connected { user_name: Some(u), .. } if u == "alice"))
    );
}

/// [MQTT-4.12.0-1]
#[test]
fn authentication_methods_are_refused_when_nobody_knows_them() {
    let mut w = world();
    let method = properties(&[Property::AuthenticationMethod("SCRAM")]);
    let p = w.connect(&ConnectRef { properties: method.as_properties(), ..connect(Version::V5, "c") });
    assert_eq!(w.got(p), ["CONNACK 8C"]);
    assert!(w.is_hung_up(p));
}

/// [MQTT-4.12.0-2]
/// [MQTT-4.12.0-5]
/// [MQTT-4.12.1-2]
#[test]
fn an_authentication_exchange_runs_and_can_run_again() {
    let mut config = BrokerConfig::default();
    config.ask.connect = true;
    let mut w = World::new(config);
    let method = properties(&[Property::AuthenticationMethod("M"), Property::AuthenticationData(b"1")]);
    let p = w.connect(&ConnectRef { properties: method.as_properties(), ..connect(Version::V5, "c") });
    let ask = w.asks.pop().unwrap();
    w.broker.handle_answer(w.now, ask.id, Answer::Continue(Bytes::from_static(b"2")));
    w.settle();
    assert_eq!(w.got(p), ["AUTH 18 {AuthenticationMethod(\"M\"), AuthenticationData([50])}"]);
    let step = properties(&[Property::AuthenticationMethod("M"), Property::AuthenticationData(b"3")]);
    let auth = |reason| PacketRef::Auth(AuthRef { reason, properties: step.as_properties() });
    w.send(p, &auth(ReasonCode::ContinueAuthentication));
    let ask = w.asks.pop().unwrap();
    assert!(matches!(&ask.question, Question::Authenticate { data, again: false, .. } if data == "3"));
    let grant = Grant { authentication_data: Some(Bytes::from_static(b"4")), ..Grant::default() };
    w.broker.handle_answer(w.now, ask.id, Answer::Grant(Box::new(grant)));
    w.settle();
    let got = w.got(p);
    assert!(
        got[0].starts_with("CONNACK 00")
            && got[0].contains("AuthenticationMethod(\"M\"), AuthenticationData([52])"),
        "{got:?}"
    );

    w.send(p, &auth(ReasonCode::ReAuthenticate));
    let ask = w.asks.pop().unwrap();
    assert!(matches!(ask.question, Question::Authenticate { again: true, .. }));
    w.broker.handle_answer(w.now, ask.id, Answer::Allow);
    w.settle();
    assert_eq!(w.got(p), ["AUTH 00 {AuthenticationMethod(\"M\")}"]);
    w.send(p, &auth(ReasonCode::ReAuthenticate));
    let ask = w.asks.pop().unwrap();
    w.broker.handle_answer(w.now, ask.id, Answer::Deny(ReasonCode::NotAuthorized));
    w.settle();
    assert_eq!(w.got(p), ["DISCONNECT 87"]);
    assert!(w.is_hung_up(p));
}

/// [MQTT-4.12.0-7]
#[test]
fn auth_without_a_method_in_connect_is_a_protocol_error() {
    let mut w = world();
    let p = w.client(Version::V5, "c");
    let method = properties(&[Property::AuthenticationMethod("M")]);
    let auth = AuthRef { reason: ReasonCode::ReAuthenticate, properties: method.as_properties() };
    w.send(p, &PacketRef::Auth(auth));
    assert_eq!(w.got(p), ["DISCONNECT 82"]);
}

/// [MQTT-3.1.2-28]
#[test]
fn response_information_is_given_only_when_asked_for() {
    let mut config = BrokerConfig::default();
    config.response_information = Some("replies/".into());
    let mut w = World::new(config);
    for (value, given) in [(None, false), (Some(false), false), (Some(true), true)] {
        let list: Vec<_> = value.map(Property::RequestResponseInformation).into_iter().collect();
        let asked = properties(&list);
        let p = w.connect(&ConnectRef { properties: asked.as_properties(), ..connect(Version::V5, "c") });
        assert_eq!(w.got(p)[0].contains("ResponseInformation"), given);
    }
}

/// [MQTT-4.13.2-1]
#[test]
fn shutdown_tells_each_client_and_takes_no_more() {
    let mut w = world();
    let new = w.client(Version::V5, "a");
    let old = w.client(Version::V311, "b");
    w.broker.shutdown(w.now);
    w.settle();
    assert_eq!(w.got(new), ["DISCONNECT 8B"]);
    assert!(w.is_hung_up(new) && w.is_hung_up(old));
    let late = w.connect(&connect(Version::V5, "c"));
    assert_eq!(w.got(late), ["CONNACK 88"]);
}

/// [MQTT-3.1.2-22] [MQTT-3.2.2-22] [MQTT-3.1.2-24] of 3.1.1 [MQTT-3.12.4-1] of both
#[test]
fn silence_of_one_and_a_half_keep_alives_ends_the_connection() {
    for version in VERSIONS {
        let mut w = world();
        let p = w.connect(&ConnectRef { keep_alive: 10, ..connect(version, "c") });
        w.got(p);
        w.advance(Duration::from_secs(14));
        w.send(p, &PacketRef::Pingreq);
        assert_eq!(w.got(p), ["PINGRESP"]);
        w.advance(Duration::from_millis(14_999));
        assert!(!w.is_hung_up(p));
        w.advance(Duration::from_millis(2));
        assert!(w.is_hung_up(p));
        let farewell: &[&str] = if version.is_v5() { &["DISCONNECT 8D"] } else { &[] };
        assert_eq!(w.got(p), farewell);
    }
    let mut w = world();
    let p = w.client(Version::V311, "for ever");
    w.advance(Duration::from_secs(1_000_000));
    assert!(!w.is_hung_up(p), "keep alive 0 switches it off");
}

#[test]
fn a_longest_keep_alive_is_told_and_kept() {
    let mut config = BrokerConfig::default();
    config.max_keep_alive = 20;
    let mut w = World::new(config);
    let p = w.connect(&connect(Version::V5, "c"));
    assert!(w.got(p)[0].contains("ServerKeepAlive(20)"));
    w.advance(Duration::from_secs(31));
    assert!(w.is_hung_up(p));
}

/// [MQTT-4.12.0-5] [MQTT-4.12.1-1]: an AUTH goes on with the method of CONNECT, at its time, or ends the
/// connection.
#[test]
fn an_auth_that_does_not_fit_ends_the_connection() {
    let auth = |method: &'static str, reason| (method, reason);
    let cases = [
        (false, auth("N", ReasonCode::ContinueAuthentication), "CONNACK 82"),
        (false, auth("M", ReasonCode::ReAuthenticate), "CONNACK 82"),
        (true, auth("N", ReasonCode::ReAuthenticate), "DISCONNECT 82"),
        (true, auth("N", ReasonCode::ContinueAuthentication), "DISCONNECT 82"),
    ];
    for (live, (method, reason), expected) in cases {
        let mut config = BrokerConfig::default();
        config.ask.connect = true;
        let mut w = World::new(config);
        let with = |method| properties(&[Property::AuthenticationMethod(method)]);
        let p = w.connect(&ConnectRef { properties: with("M").as_properties(), ..connect(Version::V5, "c") });
        let ask = w.asks.pop().unwrap();
        let answer = if live { Answer::Allow } else { Answer::Continue(Bytes::new()) };
        w.broker.handle_answer(w.now, ask.id, answer);
        w.settle();
        w.got(p);
        w.send(p, &PacketRef::Auth(AuthRef { reason, properties: with(method).as_properties() }));
        assert_eq!(w.got(p), [expected], "{method} {reason:?}, live: {live}");
        assert!(w.is_hung_up(p) && w.asks.is_empty());
    }
}
