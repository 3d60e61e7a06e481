//! Rights inside the broker: what they stop, and what becomes of it when they go.

use mqtt_proto::{ConnectRef, PropertiesBuf, Property, QoS, ReasonCode, Version, WillRef};
use mqtt_session::acl::{Access, Acl, Mode, Who};
use mqtt_session::broker::{Answer, BrokerConfig, Denied, DropReason, Event, Grant};
use mqtt_testkit::packets::{filter, puback, publish, retained, subscribe};
use mqtt_testkit::{PeerId, World};
use std::sync::Arc;
use std::time::Duration;

/// The number of the table that the tests' clients are subject to, unless they say otherwise.
fn world(mode: Mode, rules: &[(Who<'_>, Access, &str)]) -> World {
    let mut w = World::new(BrokerConfig::default());
    set(&mut w, mode, rules);
    w
}

fn set(w: &mut World, mode: Mode, rules: &[(Who<'_>, Access, &str)]) {
    let mut acl = Acl::new(mode);
    for (who, access, filter) in rules {
        acl.add(*who, *access, filter, 1).unwrap();
    }
    w.broker.set_acls(w.now, vec![Arc::new(acl)]);
    w.settle();
}

fn user(w: &mut World, version: Version, client_id: &str, user: &str) -> PeerId {
    let expiry = expiry();
    let properties = if version.is_v5() { expiry.as_properties() } else { Default::default() };
    let user_name = Some(user);
    let peer = w.connect(&ConnectRef { version, client_id, user_name, properties, ..ConnectRef::default() });
    let answer = w.got(peer);
    assert!(answer[0].starts_with("CONNACK"), "{answer:?}");
    peer
}

fn expiry() -> PropertiesBuf {
    let mut list = PropertiesBuf::new();
    list.push(Property::SessionExpiryInterval(1000)).unwrap();
    list
}

const ALL: (Who<'_>, Access, &str) = (Who::Pattern, Access::ReadWrite, "#");

#[test]
fn who_may_not_publish_is_told_where_the_version_can() {
    let rules = [(Who::User("u"), Access::Write, "open"), (Who::User("s"), Access::Read, "#")];
    let mut w = world(Mode::Mosquitto, &rules);
    let s = user(&mut w, Version::V5, "s", "s");
    w.send(s, &subscribe(1, &filter("#", QoS::AtMostOnce)));
    w.got(s);
    for (version, id, answers) in [
        (Version::V311, "old", ["PUBACK #2", "PUBREC #3"]),
        (Version::V5, "new", ["PUBACK #2 87", "PUBREC #3 87"]),
    ] {
        let p = user(&mut w, version, id, "u");
        w.send(p, &publish("closed", 0, 0, "x"));
        w.send(p, &publish("closed", 1, 2, "x"));
        w.send(p, &publish("closed", 2, 3, "x"));
        assert_eq!(w.got(p), answers);
        w.send(p, &publish("open", 0, 0, "y"));
        assert_eq!(w.got(s), ["PUBLISH open q0 \"y\""]);
    }
    let denied = w.events.iter().filter(|e| {
        matches!(e, Event::Denied { what: Denied::Publish, topic, user_name: Some(u), .. } if topic == "closed" && u == "u")
    });
    assert_eq!(denied.count(), 6);
}

#[test]
fn a_subscribe_is_answered_truthfully() {
    let rules = [(Who::User("u"), Access::Read, "a/#"), (Who::User("p"), Access::ReadWrite, "#")];
    let mut w = world(Mode::Strict, &rules);
    for (version, code) in [(Version::V311, "80"), (Version::V5, "87")] {
        let p = user(&mut w, version, "c", "u");
        let mut filters = filter("a/b", QoS::AtLeastOnce);
        filters.push("#", QoS::AtMostOnce.into()).unwrap();
        filters.push("$share/g/a/+", QoS::AtMostOnce.into()).unwrap();
        filters.push("$share/g/b", QoS::AtMostOnce.into()).unwrap();
        w.send(p, &subscribe(1, &filters));
        assert_eq!(w.got(p), [format!("SUBACK #1 01 {code} 00 {code}")]);
        assert_eq!(w.broker.stats().subscriptions, 2);
    }
}

#[test]
fn only_what_may_be_read_arrives() {
    let rules = [
        (Who::User("u"), Access::Read, "a/#"),
        (Who::User("u"), Access::Deny, "a/x"),
        (Who::User("p"), Access::ReadWrite, "#"),
    ];
    let mut w = world(Mode::Mosquitto, &rules);
    let p = user(&mut w, Version::V5, "p", "p");
    for topic in ["a/1", "a/x", "b"] {
        w.send(p, &retained(topic, 0, 0, "kept"));
    }
    let s = user(&mut w, Version::V5, "s", "u");
    w.send(s, &subscribe(1, &filter("#", QoS::ExactlyOnce)));
    assert_eq!(w.got(s), ["SUBACK #1 02", "PUBLISH a/1 q0 retain \"kept\""]);
    for topic in ["a/x", "b", "a/2"] {
        w.send(p, &publish(topic, 1, 9, "live"));
    }
    assert_eq!(w.got(s), ["PUBLISH a/2 q1 #1 \"live\""]);
    assert_eq!(w.broker.stats().messages, 4, "nothing is held for whoever may not read it");
}

#[test]
fn a_right_that_goes_stops_what_waits_and_what_comes() {
    let mut w = world(Mode::Strict, &[ALL]);
    let p = user(&mut w, Version::V5, "p", "p");
    let [live, away] = ["live", "away"].map(|id| {
        let peer = user(&mut w, Version::V5, id, "u");
        w.send(peer, &subscribe(1, &filter("#", QoS::AtLeastOnce)));
        w.got(peer);
        peer
    });
    w.cut(away);
    for topic in ["secret", "open"] {
        w.send(p, &publish(topic, 1, 1, "queued"));
    }
    w.got(live);
    let rights = [(Who::User("p"), Access::ReadWrite, "#"), (Who::User("u"), Access::Read, "open")];
    set(&mut w, Mode::Strict, &rights);
    w.send(p, &publish("secret", 1, 2, "live"));
    w.send(p, &publish("open", 1, 3, "live"));
    assert_eq!(w.got(live), ["PUBLISH open q1 #3 \"live\""]);
    let away = w.connect(&ConnectRef { client_id: "away", user_name: Some("u"), ..ConnectRef::default() });
    let got = w.got(away);
    assert_eq!(&got[1..], ["PUBLISH open q1 #1 \"queued\"", "PUBLISH open q1 #2 \"live\""]);
    let dropped = w.events.iter().any(|e| {
        matches!(e, Event::Dropped { client_id, reason: DropReason::NotAuthorized, .. } if client_id == "away")
    });
    assert!(dropped, "what was queued is dropped and told");
}

#[test]
fn what_was_sent_without_an_answer_is_not_sent_again_without_the_right() {
    let mut w = world(Mode::Strict, &[ALL]);
    let s = user(&mut w, Version::V5, "s", "u");
    w.send(s, &subscribe(1, &filter("#", QoS::AtLeastOnce)));
    let p = user(&mut w, Version::V5, "p", "p");
    w.send(p, &publish("secret", 1, 1, "x"));
    assert_eq!(w.got(s).len(), 2);
    set(&mut w, Mode::Strict, &[(Who::User("p"), Access::ReadWrite, "#")]);
    w.send(s, &puback(1));
    assert!(!w.is_hung_up(s), "an answer to what was sent before is no mistake");
    set(&mut w, Mode::Strict, &[ALL]);
    w.send(p, &publish("secret", 1, 1, "y"));
    w.got(s);
    w.cut(s);
    set(&mut w, Mode::Strict, &[(Who::User("p"), Access::ReadWrite, "#")]);
    let s = w.connect(&ConnectRef { client_id: "s", user_name: Some("u"), ..ConnectRef::default() });
    let got = w.got(s);
    assert!(got.len() == 1 && got[0].starts_with("CONNACK sp"), "{got:?}");
    assert_eq!(w.broker.stats().messages, 0);
}

#[test]
fn another_user_inherits_only_what_it_may_read() {
    let rules = [
        (Who::User("ann"), Access::Read, "#"),
        (Who::User("bob"), Access::Read, "open"),
        (Who::User("p"), Access::ReadWrite, "#"),
    ];
    let mut w = world(Mode::Strict, &rules);
    let p = user(&mut w, Version::V5, "p", "p");
    let ann = user(&mut w, Version::V5, "shared", "ann");
    w.send(ann, &subscribe(1, &filter("#", QoS::AtLeastOnce)));
    w.got(ann);
    w.send(p, &publish("secret", 1, 1, "begun"));
    w.got(ann);
    w.cut(ann);
    for topic in ["secret", "open"] {
        w.send(p, &publish(topic, 1, 1, "queued"));
    }
    let bob = w.connect(&ConnectRef { client_id: "shared", user_name: Some("bob"), ..ConnectRef::default() });
    let got = w.got(bob);
    assert!(got.len() == 2 && got[1].starts_with("PUBLISH open"), "{got:?}");
}

#[test]
fn what_is_retained_goes_with_the_right_to_publish_it() {
    let mut w = world(Mode::Mosquitto, &[ALL]);
    let p = user(&mut w, Version::V311, "p", "p");
    w.send(p, &retained("t", 0, 0, "p's"));
    w.broker.publish(w.now, mqtt_session::Message::new("own", "the broker's").retained()).unwrap();
    set(&mut w, Mode::Mosquitto, &[(Who::User("u"), Access::Read, "#")]);
    let s = user(&mut w, Version::V311, "s", "u");
    w.send(s, &subscribe(1, &filter("#", QoS::AtMostOnce)));
    assert_eq!(w.got(s), ["SUBACK #1 00", "PUBLISH own q0 retain \"the broker's\""]);
    assert_eq!(w.broker.stats().retained, 1, "it is gone for good");
}

#[test]
fn a_will_needs_the_right_when_it_fires() {
    for mode in [Mode::Strict, Mode::Mosquitto] {
        let mut w = world(mode, &[ALL]);
        let s = user(&mut w, Version::V311, "s", "s");
        w.send(s, &subscribe(1, &filter("#", QoS::AtMostOnce)));
        w.got(s);
        let will = WillRef { topic: "gone", payload: b"u", ..WillRef::default() };
        let packet =
            ConnectRef { client_id: "c", user_name: Some("u"), will: Some(will), ..ConnectRef::default() };
        let p = w.connect(&packet);
        w.cut(p);
        assert_eq!(w.got(s), ["PUBLISH gone q0 \"u\""]);
        let p = w.connect(&packet);
        set(&mut w, mode, &[(Who::User("s"), Access::Read, "#"), (Who::User("u"), Access::Write, "other")]);
        w.cut(p);
        assert_eq!(w.got(s), [] as [&str; 0]);
        assert!(w.events.iter().any(|e| matches!(e, Event::Denied { what: Denied::Will, .. })));
        let p = w.connect(&packet);
        let expected = if mode == Mode::Strict { "CONNACK 87" } else { "CONNACK 00" };
        assert!(w.got(p)[0].starts_with(expected), "{mode:?}");
    }
}

#[test]
fn a_group_passes_over_members_that_may_not_read() {
    let rules = [(Who::User("u"), Access::Read, "#"), (Who::User("p"), Access::ReadWrite, "#")];
    let mut w = world(Mode::Mosquitto, &rules);
    let may = user(&mut w, Version::V5, "may", "u");
    let may_not = user(&mut w, Version::V5, "not", "x");
    for peer in [may_not, may] {
        w.send(peer, &subscribe(1, &filter("$share/g/t", QoS::AtLeastOnce)));
        w.got(peer);
    }
    let p = user(&mut w, Version::V5, "p", "p");
    for id in 1..=4 {
        w.send(p, &publish("t", 1, id, "x"));
    }
    assert_eq!((w.got(may).len(), w.got(may_not).len()), (4, 0));
    w.cut(may);
    w.send(p, &publish("t", 1, 5, "waits"));
    assert_eq!(w.broker.stats().messages, 5, "four come back to the group, and one waits");
    set(&mut w, Mode::Mosquitto, &[(Who::User("p"), Access::ReadWrite, "#")]);
    let may = user(&mut w, Version::V5, "may", "u");
    assert_eq!(w.got(may), [] as [&str; 0]);
    assert_eq!(w.broker.stats().messages, 0, "what nobody may read any more does not wait");
}

#[test]
fn each_client_has_the_table_of_its_grant_and_a_missing_one_allows_nothing() {
    let mut config = BrokerConfig::default();
    config.ask.connect = true;
    let mut w = World::new(config);
    let mut closed = Acl::new(Mode::Strict);
    closed.add(Who::Anonymous, Access::ReadWrite, "a", 1).unwrap();
    w.broker.set_acls(w.now, vec![Arc::new(closed), Arc::new(Acl::open())]);
    for (acl, topic, expected) in [(0, "a", "00"), (0, "b", "87"), (1, "b", "00"), (2, "a", "87")] {
        let p = w.connect(&ConnectRef { client_id: "c", clean_start: true, ..ConnectRef::default() });
        let ask = w.asks.pop().unwrap();
        w.broker.handle_answer(w.now, ask.id, Answer::Grant(Box::new(Grant { acl, ..Grant::default() })));
        w.settle();
        w.got(p);
        w.send(p, &subscribe(1, &filter(topic, QoS::AtMostOnce)));
        assert_eq!(w.got(p), [format!("SUBACK #1 {expected}")], "table {acl}, topic {topic}");
    }
}

#[test]
fn a_permission_may_have_an_end() {
    let mut config = BrokerConfig::default();
    config.ask.connect = true;
    let mut w = World::new(config);
    let p = w.connect(&ConnectRef { client_id: "c", clean_start: true, ..ConnectRef::default() });
    let grant = Grant { valid_for: Some(Duration::from_secs(60)), ..Grant::default() };
    let ask = w.asks.pop().unwrap();
    w.broker.handle_answer(w.now, ask.id, Answer::Grant(Box::new(grant)));
    w.settle();
    w.got(p);
    w.advance(Duration::from_secs(59));
    assert!(!w.is_hung_up(p));
    w.advance(Duration::from_secs(1));
    assert_eq!(w.got(p), ["DISCONNECT 87"]);
    assert!(w.is_hung_up(p));
}

#[test]
fn a_users_connections_can_be_closed_together() {
    let mut w = World::new(BrokerConfig::default());
    let peers = ["a", "b"].map(|id| user(&mut w, Version::V5, id, "u"));
    let other = w.client(Version::V5, "other");
    assert_eq!(w.broker.disconnect_user(w.now, Some("u"), ReasonCode::NotAuthorized), 2);
    w.settle();
    for peer in peers {
        assert_eq!(w.got(peer), ["DISCONNECT 87"]);
    }
    assert!(!w.is_hung_up(other));
    assert_eq!(w.broker.disconnect_user(w.now, None, ReasonCode::NotAuthorized), 1);
    w.settle();
    assert!(w.is_hung_up(other));
}

#[test]
fn figures_are_for_whom_rights_allow() {
    let mut config = BrokerConfig::default();
    config.sys_interval = Some(Duration::from_secs(10));
    for mode in [Mode::Strict, Mode::Mosquitto] {
        let mut w = World::new(config.clone());
        set(&mut w, mode, &[ALL, (Who::User("monitor"), Access::Read, "$SYS/#")]);
        let uptime = filter("$SYS/broker/uptime", QoS::AtMostOnce);
        let anybody = user(&mut w, Version::V5, "anybody", "u");
        w.send(anybody, &subscribe(1, &uptime));
        let granted = if mode == Mode::Strict { "SUBACK #1 87" } else { "SUBACK #1 00" };
        assert_eq!(w.got(anybody), [granted]);
        let monitor = user(&mut w, Version::V5, "monitor", "monitor");
        w.send(monitor, &subscribe(1, &uptime));
        let answer = w.got(monitor);
        assert!(answer[1].contains("$SYS/broker/uptime"), "{answer:?}");
        w.advance(Duration::from_secs(20));
        assert_eq!((w.got(anybody).len(), w.got(monitor).is_empty()), (0, false), "{mode:?}");
    }
}
