//! Subscriptions: matching, options, sharing, and taking them back.

use mqtt_proto::{
    PacketRef, Properties, PropertiesBuf, Property, QoS, ReasonCode, RetainHandling, SubscribeFiltersBuf,
    SubscribeRef, SubscriptionOptions, UnsubscribeFiltersBuf, UnsubscribeRef, Version,
};
use mqtt_session::broker::{Answer, BrokerConfig, Question, RefusedFilter31};
use mqtt_testkit::packets::{filter, id, puback, pubcomp, publish, pubrec, retained, subscribe};
use mqtt_testkit::{PeerId, World};

fn world() -> World {
    World::new(BrokerConfig::default())
}

fn sub(w: &mut World, peer: PeerId, topic: &str, options: impl Into<SubscriptionOptions>) {
    w.send(peer, &subscribe(1, &filter(topic, options)));
    let got = w.got(peer);
    assert!(got[0].starts_with("SUBACK #1 0"), "{got:?}");
}

fn unsubscribe(w: &mut World, peer: PeerId, topic: &str) -> Vec<String> {
    let mut filters = UnsubscribeFiltersBuf::new();
    filters.push(topic).unwrap();
    let packet =
        UnsubscribeRef { packet_id: id(3), properties: Properties::EMPTY, filters: filters.as_filters() };
    w.send(peer, &PacketRef::Unsubscribe(packet));
    w.got(peer)
}

/// [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.9.3-1] of both [MQTT-3.8.4-4] of 3.1.1 [MQTT-3.8.4-5] of 3.1.1
#[test]
fn several_filters_get_one_code_each_in_their_order() {
    for version in [Version::V311, Version::V5] {
        let mut w = world();
        let s = w.client(version, "s");
        let mut filters = SubscribeFiltersBuf::new();
        for (topic, qos) in [("a", QoS::ExactlyOnce), ("b/#", QoS::AtMostOnce), ("+/c", QoS::AtLeastOnce)] {
            filters.push(topic, qos.into()).unwrap();
        }
        w.send(s, &subscribe(77, &filters));
        assert_eq!(w.got(s), ["SUBACK #77 02 00 01"]);
        assert_eq!(w.broker.stats().subscriptions, 3);
    }
}

/// [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]
#[test]
fn overlapping_subscriptions_give_one_copy_with_all_identifiers() {
    let mut w = world();
    let s = w.client(Version::V5, "s");
    for (number, (topic, qos)) in
        [("a/b", QoS::AtMostOnce), ("a/+", QoS::ExactlyOnce), ("#", QoS::AtLeastOnce)].iter().enumerate()
    {
        let properties =
            PropertiesBuf::new().with(Property::SubscriptionIdentifier(number as u32 + 1)).unwrap();
        let list = filter(topic, *qos);
        let packet = SubscribeRef {
            packet_id: id(1),
            properties: properties.as_properties(),
            filters: list.as_filters(),
        };
        w.send(s, &PacketRef::Subscribe(packet));
    }
    w.got(s);
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("a/b", 2, 1, "x"));
    let got = w.got(s);
    assert_eq!(got.len(), 1);
    assert!(got[0].starts_with("PUBLISH a/b q2 #1 \"x\" {"), "{got:?}");
    for n in 1..=3 {
        assert!(got[0].contains(&format!("SubscriptionIdentifier({n})")), "{got:?}");
    }
}

/// [MQTT-3.8.4-3]
/// [MQTT-3.8.4-8]
#[test]
fn an_identical_filter_replaces_the_subscription() {
    let mut w = world();
    let s = w.client(Version::V5, "s");
    sub(&mut w, s, "t", QoS::ExactlyOnce);
    sub(&mut w, s, "t", QoS::AtMostOnce);
    assert_eq!(w.broker.stats().subscriptions, 1);
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 2, 1, "x"));
    assert_eq!(w.got(s), ["PUBLISH t q0 \"x\""]);
}

/// [MQTT-4.7.2-1]
#[test]
fn wildcards_at_the_front_do_not_match_dollar_topics() {
    let mut w = world();
    let s = w.client(Version::V5, "s");
    for topic in ["#", "+/x", "+"] {
        sub(&mut w, s, topic, QoS::AtMostOnce);
    }
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("$own/x", 0, 0, "no"));
    assert!(w.got(s).is_empty());
    sub(&mut w, s, "$own/#", QoS::AtMostOnce);
    w.send(p, &publish("$own/x", 0, 0, "yes"));
    assert_eq!(w.got(s), ["PUBLISH $own/x q0 \"yes\""]);
}

#[test]
fn clients_do_not_publish_under_the_brokers_own_topics() {
    let mut w = world();
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("$SYS/broker/uptime", 1, 1, "x"));
    assert_eq!(w.got(p), ["PUBACK #1 90"]);
    w.send(p, &publish("$share/g/t", 2, 2, "x"));
    assert_eq!(w.got(p), ["PUBREC #2 90"]);
    assert!(!w.is_hung_up(p));
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_a_message_from_its_publisher() {
    let mut w = world();
    let s = w.client(Version::V5, "s");
    sub(&mut w, s, "t", SubscriptionOptions { no_local: true, ..QoS::AtMostOnce.into() });
    w.send(s, &publish("t", 0, 0, "mine"));
    assert!(w.got(s).is_empty());
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 0, 0, "other"));
    assert_eq!(w.got(s), ["PUBLISH t q0 \"other\""]);
}

/// [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT-3.3.1-8] of 3.1.1 [MQTT-3.3.1-9] of 3.1.1
#[test]
fn the_retain_flag_follows_retain_as_published() {
    let mut w = world();
    let plain = w.client(Version::V5, "plain");
    sub(&mut w, plain, "t", QoS::AtMostOnce);
    let kept = w.client(Version::V5, "kept");
    sub(&mut w, kept, "t", SubscriptionOptions { retain_as_published: true, ..QoS::AtMostOnce.into() });
    let old = w.client(Version::V311, "old");
    sub(&mut w, old, "t", QoS::AtMostOnce);
    let p = w.client(Version::V5, "p");
    w.send(p, &retained("t", 0, 0, "x"));
    assert_eq!(w.got(plain), ["PUBLISH t q0 \"x\""]);
    assert_eq!(w.got(old), ["PUBLISH t q0 \"x\""]);
    assert_eq!(w.got(kept), ["PUBLISH t q0 retain \"x\""]);
    let late = w.client(Version::V311, "late");
    w.send(late, &subscribe(1, &filter("#", QoS::AtMostOnce)));
    assert_eq!(w.got(late), ["SUBACK #1 00", "PUBLISH t q0 retain \"x\""]);
}

/// [MQTT-3.3.1-9]
/// [MQTT-3.3.1-10]
/// [MQTT-3.3.1-11]
#[test]
fn retain_handling_decides_about_the_retained_messages() {
    let mut w = world();
    let p = w.client(Version::V5, "p");
    w.send(p, &retained("t", 0, 0, "x"));
    let s = w.client(Version::V5, "s");
    let with = |retain_handling| SubscriptionOptions { retain_handling, ..QoS::AtMostOnce.into() };
    let mut counts = Vec::new();
    for handling in [
        RetainHandling::DoNotSend,
        RetainHandling::SendIfNew,
        RetainHandling::Send,
        RetainHandling::Send,
        RetainHandling::SendIfNew,
    ] {
        w.send(s, &subscribe(1, &filter("t", with(handling))));
        counts.push(w.got(s).len() - 1);
    }
    assert_eq!(counts, [0, 0, 1, 1, 0]);
    unsubscribe(&mut w, s, "t");
    w.send(s, &subscribe(1, &filter("t", with(RetainHandling::SendIfNew))));
    assert_eq!(w.got(s).len(), 2);
}

/// [MQTT-3.10.4-1]
/// [MQTT-3.10.4-4]
/// [MQTT-3.10.4-5]
#[test]
fn unsubscribe_compares_exactly_and_is_always_answered() {
    let mut w = world();
    let s = w.client(Version::V5, "s");
    sub(&mut w, s, "a/+", QoS::AtMostOnce);
    assert_eq!(unsubscribe(&mut w, s, "a/b"), ["UNSUBACK #3 11"]);
    assert_eq!(unsubscribe(&mut w, s, "a/+"), ["UNSUBACK #3 00"]);
    assert_eq!(unsubscribe(&mut w, s, "a/+"), ["UNSUBACK #3 11"]);
    let old = w.client(Version::V311, "old");
    assert_eq!(unsubscribe(&mut w, old, "a/b"), ["UNSUBACK #3"]);
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("a/b", 1, 1, "x"));
    assert_eq!(w.got(p), ["PUBACK #1 10"]);
}

/// [MQTT-3.10.4-3] of both
#[test]
fn deliveries_that_were_begun_are_completed_after_unsubscribe() {
    for version in [Version::V311, Version::V5] {
        let mut w = world();
        let s = w.client(version, "s");
        sub(&mut w, s, "t", QoS::ExactlyOnce);
        let p = w.client(Version::V5, "p");
        w.send(p, &publish("t", 2, 1, "x"));
        w.got(s);
        unsubscribe(&mut w, s, "t");
        w.send(s, &pubrec(1));
        assert_eq!(w.got(s), ["PUBREL #1"]);
        w.send(s, &pubcomp(1));
        assert_eq!(w.broker.stats().messages, 0);
    }
}

/// [MQTT-3.9.3-2] of both [MQTT-3.8.4-7]
#[test]
fn refused_filters_are_answered_truthfully() {
    let mut config = BrokerConfig::default();
    config.ask.subscribe = true;
    for (version, code) in [(Version::V311, "80"), (Version::V5, "87")] {
        let mut w = World::new(config.clone());
        let s = w.client(version, "s");
        let mut filters = SubscribeFiltersBuf::new();
        filters.push("yes", QoS::AtLeastOnce.into()).unwrap();
        filters.push("no", QoS::AtLeastOnce.into()).unwrap();
        w.send(s, &subscribe(1, &filters));
        let ask = w.asks.pop().unwrap();
        let Question::Subscribe { filters } = &ask.question else { panic!() };
        assert_eq!(filters.len(), 2);
        let answer = Answer::Filters(vec![Ok(()), Err(ReasonCode::NotAuthorized)]);
        w.broker.handle_answer(w.now, ask.id, answer);
        w.settle();
        assert_eq!(w.got(s), [format!("SUBACK #1 01 {code}")]);
        assert_eq!(w.broker.stats().subscriptions, 1);
    }
    // 3.1 has no such code.
    for (setting, hangs_up) in [(RefusedFilter31::Hangup, true), (RefusedFilter31::PretendGranted, false)] {
        config.refused_filter_31 = setting;
        let mut w = World::new(config.clone());
        let s = w.client(Version::V31, "s");
        w.send(s, &subscribe(1, &filter("no", QoS::AtLeastOnce)));
        let ask = w.asks.pop().unwrap();
        w.broker.handle_answer(w.now, ask.id, Answer::Deny(ReasonCode::NotAuthorized));
        w.settle();
        assert_eq!(w.is_hung_up(s), hangs_up);
        assert_eq!(w.broker.stats().subscriptions, 0);
    }
}

#[test]
fn what_the_server_has_not_is_refused_by_its_own_code() {
    let mut config = BrokerConfig::default();
    config.wildcards_available = false;
    config.shared_available = false;
    config.max_topic_levels = 3;
    config.max_subscriptions = 1;
    let mut w = World::new(config);
    let s = w.client(Version::V5, "s");
    for (topic, code) in
        [("a/#", "A2"), ("$share/g/a", "9E"), ("a/b/c/d", "8F"), ("a/b/c", "00"), ("b", "97")]
    {
        w.send(s, &subscribe(1, &filter(topic, QoS::AtMostOnce)));
        assert_eq!(w.got(s), [format!("SUBACK #1 {code}")], "{topic}");
    }
    w.send(s, &publish("a/b/c/d", 1, 1, "deep"));
    assert_eq!(w.got(s), ["PUBACK #1 90"]);
}

/// [MQTT-4.8.2-3]
#[test]
fn a_shared_subscription_takes_turns_within_each_members_qos() {
    let mut w = world();
    let a = w.client(Version::V5, "a");
    sub(&mut w, a, "$share/g/t/#", QoS::AtMostOnce);
    let b = w.client(Version::V311, "b");
    sub(&mut w, b, "$share/g/t/#", QoS::AtLeastOnce);
    let alone = w.client(Version::V5, "alone");
    sub(&mut w, alone, "$share/h/t/#", QoS::AtMostOnce);
    let p = w.client(Version::V5, "p");
    for n in 1..=4 {
        w.send(p, &publish("t/x", 1, n, "m"));
    }
    assert_eq!(w.got(a), ["PUBLISH t/x q0 \"m\"", "PUBLISH t/x q0 \"m\""]);
    assert_eq!(w.got(b), ["PUBLISH t/x q1 #1 \"m\"", "PUBLISH t/x q1 #2 \"m\""]);
    assert_eq!(w.got(alone).len(), 4);
}

fn member(w: &mut World, name: &str, qos: QoS) -> PeerId {
    let properties = PropertiesBuf::new().with(Property::SessionExpiryInterval(100)).unwrap();
    let connect = mqtt_proto::ConnectRef {
        client_id: name,
        properties: properties.as_properties(),
        ..Default::default()
    };
    let peer = w.connect(&connect);
    w.send(peer, &subscribe(1, &filter("$share/g/t", qos)));
    peer
}

#[test]
fn a_group_keeps_what_nobody_can_take_and_forgets_nobodys_share() {
    let mut w = world();
    let a = member(&mut w, "a", QoS::AtLeastOnce);
    let b = member(&mut w, "b", QoS::AtLeastOnce);
    w.got(a);
    w.got(b);
    w.cut(a);
    let p = w.client(Version::V5, "p");
    for n in 1..=3 {
        w.send(p, &publish("t", 1, n, &n.to_string()));
    }
    // A member that is away gets no share.
    assert_eq!(w.got(b).len(), 3);
    w.send(b, &puback(1));
    // What b did not acknowledge, and what comes while nobody is there, waits for whoever comes.
    w.cut(b);
    w.send(p, &publish("t", 1, 4, "4"));
    let a = member(&mut w, "a", QoS::AtLeastOnce);
    let got: Vec<String> = w.got(a).into_iter().filter(|line| line.starts_with("PUBLISH")).collect();
    assert_eq!(got, ["PUBLISH t q1 #1 \"2\"", "PUBLISH t q1 #2 \"3\"", "PUBLISH t q1 #3 \"4\""]);
}

/// [MQTT-4.8.2-4]
/// [MQTT-4.8.2-5]
#[test]
fn a_shared_qos_2_message_that_was_begun_stays_with_its_member() {
    let mut w = world();
    let a = member(&mut w, "a", QoS::ExactlyOnce);
    w.got(a);
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 2, 1, "x"));
    assert_eq!(w.got(a), ["PUBLISH t q2 #1 \"x\""]);
    let b = member(&mut w, "b", QoS::ExactlyOnce);
    w.got(b);
    w.cut(a);
    assert!(w.got(b).is_empty());
    let a = member(&mut w, "a", QoS::ExactlyOnce);
    assert_eq!(w.got(a)[1], "PUBLISH t q2 #1 dup \"x\"");
    w.broker.disconnect(w.now, "a", ReasonCode::AdministrativeAction);
    w.settle();
    w.advance(std::time::Duration::from_secs(200));
    assert!(w.got(b).is_empty());
}

/// [MQTT-4.8.2-6]
#[test]
fn a_refusal_by_a_shared_subscriber_drops_the_message() {
    let mut w = world();
    let a = member(&mut w, "a", QoS::AtLeastOnce);
    let b = member(&mut w, "b", QoS::AtLeastOnce);
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 1, 1, "x"));
    let (first, other) = if w.got(a).iter().any(|l| l.starts_with("PUBLISH")) { (a, b) } else { (b, a) };
    w.got(other);
    let refusal = mqtt_proto::AckRef { reason: ReasonCode::QuotaExceeded, ..id(1).into() };
    w.send(first, &PacketRef::Puback(refusal));
    assert!(w.got(other).is_empty());
    assert_eq!(w.broker.stats().messages, 0);
}

#[test]
fn leaving_one_shared_filter_leaves_only_that_one() {
    let mut w = world();
    let s = w.client(Version::V5, "s");
    sub(&mut w, s, "$share/g/t", QoS::AtMostOnce);
    sub(&mut w, s, "$share/g/u", QoS::AtMostOnce);
    sub(&mut w, s, "t", QoS::AtMostOnce);
    assert_eq!(unsubscribe(&mut w, s, "$share/g/t"), ["UNSUBACK #3 00"]);
    assert_eq!(unsubscribe(&mut w, s, "$share/h/u"), ["UNSUBACK #3 11"]);
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 0, 0, "plain"));
    w.send(p, &publish("u", 0, 0, "shared"));
    assert_eq!(w.got(s), ["PUBLISH t q0 \"plain\"", "PUBLISH u q0 \"shared\""]);
    assert_eq!(w.broker.stats().subscriptions, 2);
}

#[test]
fn deep_topics_neither_overflow_a_stack_nor_stay_behind() {
    let mut config = BrokerConfig::default();
    config.max_topic_levels = u16::MAX;
    let mut w = World::new(config);
    let s = w.client(Version::V5, "s");
    let deep = "/".repeat(30_000);
    sub(&mut w, s, &deep, QoS::AtMostOnce);
    sub(&mut w, s, &format!("{deep}+/#"), QoS::AtMostOnce);
    w.send(s, &retained(&deep, 0, 0, "x"));
    assert_eq!(w.got(s).len(), 1);
    let reader = w.client(Version::V5, "reader");
    w.send(reader, &subscribe(1, &filter("#", QoS::AtMostOnce)));
    assert_eq!(w.got(reader).len(), 2);
    w.send(s, &retained(&deep, 0, 0, ""));
    w.cut(s);
    w.cut(reader);
    let stats = w.broker.stats();
    assert_eq!((stats.subscriptions, stats.retained, stats.messages), (0, 0, 0));
}

#[test]
fn the_program_itself_publishes_and_subscribes() {
    let mut w = world();
    let local = w.broker.subscribe(w.now, "in/#", QoS::AtLeastOnce.into()).unwrap();
    let c = w.client(Version::V5, "c");
    sub(&mut w, c, "out", QoS::AtLeastOnce);
    w.send(c, &publish("in/x", 1, 1, "hello"));
    assert_eq!(w.got(c), ["PUBACK #1"]);
    let event = w.events.iter().find_map(|e| match e {
        mqtt_session::broker::Event::Message { subscriber, message } => Some((*subscriber, message.clone())),
        _ => None,
    });
    let (subscriber, message) = event.expect("the message");
    assert_eq!((subscriber, message.topic.as_str(), &message.payload[..]), (local, "in/x", &b"hello"[..]));
    let out = mqtt_session::Message::new("out", "hi").with_qos(QoS::AtLeastOnce);
    assert_eq!(w.broker.publish(w.now, out), Ok(1));
    w.settle();
    assert_eq!(w.got(c), ["PUBLISH out q1 #1 \"hi\""]);
    assert!(w.broker.unsubscribe(w.now, local));
    w.settle();
    w.send(c, &publish("in/x", 1, 2, "nobody"));
    assert_eq!(w.got(c), ["PUBACK #2 10"]);
    let error = w.broker.publish(w.now, mqtt_session::Message::new("a/#", "x")).unwrap_err();
    assert_eq!(error.into_message().topic, "a/#");
}
