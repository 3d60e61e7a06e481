//! A broker that is killed and made again from what its store has: rule by rule.

use mqtt_proto::{
    ConnectRef, PropertiesBuf, Property, QoS, RetainHandling, SubscriptionOptions, Version, WillRef,
};
use mqtt_session::broker::BrokerConfig;
use mqtt_session::{Durability, StoreOp};
use mqtt_testkit::packets::{
    filter, puback, pubcomp, publish, pubrec, pubrel, retained, subscribe, unsubscribe,
};
use mqtt_testkit::{PeerId, World};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn world_with(set: impl FnOnce(&mut BrokerConfig)) -> World {
    World::new(config_with(set))
}

fn config_with(set: impl FnOnce(&mut BrokerConfig)) -> BrokerConfig {
    let mut config = BrokerConfig::default();
    config.durability = Durability::Synced;
    set(&mut config);
    config
}

fn world() -> World {
    world_with(|_| {})
}

/// Connects with a session that outlives its connection by 100 seconds, and tells what CONNACK says.
fn resume(w: &mut World, client_id: &str) -> (PeerId, String) {
    let properties = PropertiesBuf::new().with(Property::SessionExpiryInterval(100)).unwrap();
    let p =
        w.connect(&ConnectRef { client_id, properties: properties.as_properties(), ..ConnectRef::default() });
    let early = w.got(p);
    assert!(early.is_empty(), "{early:?}");
    w.confirm_stores();
    let mut got = w.got(p);
    let connack = got.remove(0).split(" {").next().unwrap().to_owned();
    assert!(got.is_empty() || connack.contains(" sp"), "{got:?}");
    (p, std::iter::once(connack).chain(got).collect::<Vec<_>>().join(", "))
}

fn subscriber(w: &mut World, client_id: &str, to: &str) -> PeerId {
    let (p, _) = resume(w, client_id);
    w.send(p, &subscribe(1, &filter(to, QoS::ExactlyOnce)));
    w.confirm_stores();
    w.got(p);
    p
}

/// Nothing is left in the store but sessions and their subscriptions, and what it knows of shards.
fn assert_drained(w: &World) {
    let left: Vec<StoreOp> = w
        .contents
        .records()
        .filter(|op| {
            !matches!(
                op,
                StoreOp::PutLimits(..)
                    | StoreOp::PutClock(_)
                    | StoreOp::PutShards(_)
                    | StoreOp::PutTaken { .. }
                    | StoreOp::PutSession(..)
                    | StoreOp::PutPacketId(..)
                    | StoreOp::PutGroup(..)
                    | StoreOp::PutSubscription { .. }
            )
        })
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn sessions_and_their_subscriptions_outlive_the_broker() {
    let mut w = world();
    subscriber(&mut w, "s", "a/+");
    let restored = w.restart(SECOND);
    assert_eq!((restored.sessions, restored.subscriptions, restored.dropped), (1, 1, 0));
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("a/b", 1, 1, "while it is away"));
    assert!(w.got(p).is_empty(), "routable at once, and PUBACK waits");
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBACK #1"]);
    let (s, connack) = resume(&mut w, "s");
    assert_eq!(connack, "CONNACK sp 00, PUBLISH a/b q1 #32768 \"while it is away\"");
    w.send(s, &puback(32_768));
    w.confirm_stores();
    assert_drained(&w);
}

#[test]
fn what_was_acknowledged_is_there_and_what_was_not_is_whole_or_not_there() {
    let mut w = world();
    let s = subscriber(&mut w, "s", "#");
    w.cut(s);
    w.confirm_stores();
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 1, 1, "one"));
    w.send(p, &publish("t", 2, 2, "two"));
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBACK #1", "PUBREC #2"]);
    w.send(p, &publish("t", 1, 3, "three"));
    w.send(p, &publish("t", 1, 4, "four"));
    w.confirm(1);
    assert_eq!(w.got(p), ["PUBACK #3"]);
    w.restart(SECOND);
    let (_, got) = resume(&mut w, "s");
    let parts: Vec<_> = got.split(", ").collect();
    assert_eq!(
        parts,
        [
            "CONNACK sp 00",
            "PUBLISH t q1 #32768 \"one\"",
            "PUBLISH t q2 #32769 \"two\"",
            "PUBLISH t q1 #32770 \"three\""
        ]
    );
}

/// Rule 1.
#[test]
fn an_inbound_qos_2_identifier_is_stored_with_its_routing_or_not_at_all() {
    let mut w = world();
    let s = subscriber(&mut w, "s", "#");
    w.cut(s);
    w.confirm_stores();
    let (p, _) = resume(&mut w, "p");
    w.send(p, &publish("t", 2, 7, "once"));
    assert_eq!(w.stores.len(), 1, "one group holds all");
    w.restart(SECOND);
    // Not confirmed: the client sends it again and it is new.
    let (p, _) = resume(&mut w, "p");
    w.send(p, &publish("t", 2, 7, "once"));
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBREC #7"]);
    w.restart(SECOND);
    // Confirmed: it is known and not routed again.
    let (p, _) = resume(&mut w, "p");
    w.send(p, &publish("t", 2, 7, "once"));
    assert_eq!(w.got(p), ["PUBREC #7"]);
    w.send(p, &pubrel(7));
    assert!(w.got(p).is_empty());
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBCOMP #7"]);
    let (s, got) = resume(&mut w, "s");
    assert_eq!(got, "CONNACK sp 00, PUBLISH t q2 #32768 \"once\"");
    w.send(s, &pubrec(32_768));
    w.confirm_stores();
    w.send(s, &pubcomp(32_768));
    w.confirm_stores();
    assert_drained(&w);
    // PUBREL was stored: the identifier is new.
    w.restart(SECOND);
    let (p, _) = resume(&mut w, "p");
    w.send(p, &publish("t", 2, 7, "another"));
    w.confirm_stores();
    let (_, got) = resume(&mut w, "s");
    assert!(got.contains("another"), "{got}");
}

/// A session that is going to end with its connection has no record, and so none of how far its retained messages are
/// (seed 12104098 of the simulator).
#[test]
fn who_comes_back_for_one_connection_has_no_records_of_retained_messages() {
    let mut w = world();
    let (p, _) = resume(&mut w, "p");
    for (n, topic) in (1..).zip(["a", "b", "c"]) {
        w.send(p, &retained(topic, 1, n, "kept"));
        w.confirm_stores();
    }
    let (s, _) = resume(&mut w, "s");
    w.set_reads(s, false);
    w.outbox_max = 0;
    w.send(s, &subscribe(1, &filter("#", QoS::AtLeastOnce)));
    w.confirm_stores();
    let has_replay = |w: &World| w.contents.records().any(|op| matches!(op, StoreOp::PutReplay { .. }));
    assert!(has_replay(&w));
    w.cut(s);
    w.outbox_max = 64 << 10;
    let properties = PropertiesBuf::new().with(Property::ReceiveMaximum(1)).unwrap();
    let properties = properties.as_properties();
    let s =
        w.connect(&ConnectRef { client_id: "s", properties, clean_start: false, ..ConnectRef::default() });
    w.confirm_stores();
    for id in 1..=3 {
        assert!(!has_replay(&w), "before message {id}");
        w.send(s, &puback(id));
        w.confirm_stores();
    }
    assert_eq!(w.got(s).iter().filter(|line| line.ends_with("retain \"kept\"")).count(), 3);
    w.cut(s);
    assert_eq!(w.restart(SECOND).dropped, 0);
}

/// Rule 1: the identifier of a message that nobody has room for is not kept.
#[test]
fn a_refused_qos_2_message_leaves_nothing_in_the_store() {
    // Whether a queue of another shard is full is not known when the message is taken.
    let mut w = World::of_one_shard(config_with(|c| c.max_queued_messages = 1));
    let s = subscriber(&mut w, "s", "#");
    w.cut(s);
    w.confirm_stores();
    let (p, _) = resume(&mut w, "p");
    w.send(p, &publish("t", 2, 1, "fits"));
    w.confirm_stores();
    w.send(p, &publish("t", 2, 2, "does not"));
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBREC #1", "PUBREC #2 97"]);
    let received = w.contents.records().filter(|op| matches!(op, StoreOp::PutReceived(..))).count();
    assert_eq!(received, 1);
}

/// Rule 1: a retained QoS 2 message is not seen by a new subscriber before it is stored.
#[test]
fn a_retained_qos_2_message_is_not_replayed_before_it_is_stored() {
    let mut w = world();
    let p = w.client(Version::V5, "p");
    w.send(p, &retained("t", 2, 1, "kept"));
    let s = w.client(Version::V5, "s");
    w.send(s, &subscribe(1, &filter("t", QoS::ExactlyOnce)));
    assert_eq!(w.got(s), ["SUBACK #1 02"]);
    w.confirm_stores();
    assert_eq!(w.got(s), ["PUBLISH t q2 #1 retain \"kept\""]);
}

/// Rule 2.
#[test]
fn an_outbound_qos_2_identifier_is_stored_before_the_packet_leaves_and_goes_with_dup_after() {
    let mut w = world();
    let s = subscriber(&mut w, "s", "#");
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 2, 1, "x"));
    let is_bound = |w: &World| w.contents.records().any(|op| matches!(op, StoreOp::PutExchange { .. }));
    w.confirm(1);
    assert!(!is_bound(&w));
    while !is_bound(&w) {
        assert!(w.got(s).is_empty(), "routed, and its identifier is not stored");
        assert!(!w.stores.is_empty());
        w.confirm(1);
    }
    assert_eq!(w.got(s), ["PUBLISH t q2 #1 \"x\""]);
    w.restart(SECOND);
    let (s, got) = resume(&mut w, "s");
    assert_eq!(got, "CONNACK sp 00, PUBLISH t q2 #1 dup \"x\"");
    w.send(s, &pubrec(1));
    assert!(w.got(s).is_empty(), "PUBREL waits for its stage");
    w.confirm_stores();
    assert_eq!(w.got(s), ["PUBREL #1"]);
    w.restart(SECOND);
    let (s, got) = resume(&mut w, "s");
    assert_eq!(got, "CONNACK sp 00, PUBREL #1");
    w.send(s, &pubcomp(1));
    w.confirm_stores();
    assert_drained(&w);
}

/// Rule 2: what is bound no longer expires.
#[test]
fn a_bound_qos_2_message_does_not_expire() {
    let mut w = world();
    subscriber(&mut w, "s", "#");
    let p = w.client(Version::V5, "p");
    let properties = PropertiesBuf::new().with(Property::MessageExpiryInterval(5)).unwrap();
    let packet = mqtt_proto::PublishRef {
        topic: "t",
        qos: QoS::ExactlyOnce,
        packet_id: mqtt_proto::PacketId::new(1),
        properties: properties.as_properties(),
        ..Default::default()
    };
    w.send(p, &mqtt_proto::PacketRef::Publish(packet));
    w.confirm_stores();
    w.restart(10 * SECOND);
    let (_, got) = resume(&mut w, "s");
    assert!(got.contains("PUBLISH t q2 #1 dup"), "{got}");
}

/// Rule 3.
#[test]
fn identifiers_after_a_restart_are_far_from_those_before() {
    let mut w = world();
    let s = subscriber(&mut w, "s", "#");
    let p = w.client(Version::V5, "p");
    for _ in 0..5_000 {
        w.send(p, &publish("t", 1, 1, ""));
        w.confirm_stores();
        let got = w.got(s);
        let id = got[0].split('#').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        w.send(s, &puback(id));
        w.confirm_stores();
    }
    w.send(p, &publish("t", 1, 1, ""));
    w.confirm(1);
    assert_eq!(w.got(s), ["PUBLISH t q1 #5001 \"\""], "sent without waiting for its identifier");
    w.restart(SECOND);
    let (s, got) = resume(&mut w, "s");
    let id: u16 = got.rsplit('#').next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(id > 5_001 + 20_000, "{got}");
    // A late acknowledgement from before meets nothing.
    w.send(s, &puback(5_001));
    w.confirm_stores();
    assert!(w.contents.records().any(|op| matches!(op, StoreOp::Append(..))));
    w.send(s, &puback(id));
    w.confirm_stores();
    assert_drained(&w);
}

/// Rule 4.
#[test]
fn a_newer_retained_message_is_not_overwritten_by_an_older_one_that_waited() {
    let mut w = world();
    let p = w.client(Version::V5, "p");
    w.send(p, &retained("t", 2, 1, "older"));
    w.send(p, &retained("t", 0, 0, "newer"));
    w.confirm_stores();
    for _ in 0..2 {
        let s = w.client(Version::V5, "s");
        w.send(s, &subscribe(1, &filter("t", QoS::AtMostOnce)));
        assert_eq!(w.got(s), ["SUBACK #1 00", "PUBLISH t q0 retain \"newer\""]);
        w.restart(SECOND);
    }
}

fn with_will(w: &mut World, client_id: &str, expiry: u32, delay: u32) -> PeerId {
    let properties = PropertiesBuf::new().with(Property::SessionExpiryInterval(expiry)).unwrap();
    let will_properties = PropertiesBuf::new().with(Property::WillDelayInterval(delay)).unwrap();
    let p = w.connect(&ConnectRef {
        client_id,
        clean_start: true,
        properties: properties.as_properties(),
        will: Some(WillRef {
            topic: "will",
            payload: client_id.as_bytes(),
            qos: QoS::AtLeastOnce,
            properties: will_properties.as_properties(),
            ..WillRef::default()
        }),
        ..ConnectRef::default()
    });
    assert!(w.got(p).is_empty(), "CONNACK waits for the will");
    w.confirm_stores();
    assert!(w.got(p)[0].starts_with("CONNACK 00"));
    p
}

/// Rule 6.
#[test]
fn wills_of_connections_that_were_open_are_published_once_after_a_restart() {
    let mut w = world();
    let s = subscriber(&mut w, "s", "will");
    w.cut(s);
    with_will(&mut w, "clean", 0, 10);
    with_will(&mut w, "stored", 100, 10);
    with_will(&mut w, "returns", 100, 10);
    let gone = with_will(&mut w, "gone", 100, 0);
    let polite = with_will(&mut w, "polite", 0, 0);
    w.send(polite, &mqtt_proto::PacketRef::Disconnect(Default::default()));
    w.cut(gone);
    w.confirm_stores();
    let restored = w.restart(SECOND);
    assert_eq!(restored.wills, 3, "clean, stored, returns");
    w.advance(SECOND);
    resume(&mut w, "returns");
    w.confirm_stores();
    w.restart(SECOND);
    w.advance(20 * SECOND);
    w.confirm_stores();
    w.restart(SECOND);
    let (_, got) = resume(&mut w, "s");
    let mut wills: Vec<_> = got.split(", ").filter_map(|p| p.split('"').nth(1)).collect();
    wills.sort_unstable();
    assert_eq!(wills, ["clean", "gone", "stored"], "each once, and none of a client that returned or left");
}

/// Rule 6: firing is one group.
#[test]
fn a_will_is_removed_in_the_group_that_routes_it() {
    let mut w = world();
    let s = subscriber(&mut w, "s", "will");
    w.cut(s);
    let gone = with_will(&mut w, "gone", 0, 0);
    w.confirm_stores();
    w.cut(gone);
    let groups: Vec<_> = w.stores.iter().map(|(_, group)| group.ops.to_vec()).collect();
    let of = |found: fn(&StoreOp) -> bool| groups.iter().position(|ops| ops.iter().any(found)).unwrap();
    let removed = of(|op| matches!(op, StoreOp::DeleteWill(_)));
    // Or that hands it over to another shard.
    assert_eq!(removed, of(|op| matches!(op, StoreOp::Append(..) | StoreOp::PutHandOver(_))));
}

/// Rule 6: asked about again when it fires, also if its session has ended by then.
#[test]
fn a_will_that_is_asked_about_is_stored_until_the_answer() {
    let mut w = world_with(|c| c.ask.will = true);
    let s = subscriber(&mut w, "s", "will");
    w.cut(s);
    let gone = with_will(&mut w, "gone", 0, 0);
    w.cut(gone);
    w.confirm_stores();
    assert_eq!(w.asks.len(), 1);
    w.restart(SECOND);
    w.advance(SECOND);
    let ask = w.asks.pop().expect("asked again");
    assert_eq!(ask.client_id, "gone");
    w.broker.handle_answer(w.now, ask.id, mqtt_session::broker::Answer::Allow);
    w.settle();
    w.confirm_stores();
    w.restart(SECOND);
    w.advance(SECOND);
    assert!(w.asks.is_empty());
    let (_, got) = resume(&mut w, "s");
    assert_eq!(got.matches("gone").count(), 1, "{got}");
}

/// Rule 7.
#[test]
fn a_replay_of_retained_messages_goes_on_after_a_restart() {
    let mut w = world_with(|c| c.max_inflight = 2);
    let p = w.client(Version::V5, "p");
    for (topic, text) in [("t/1", "1"), ("t/2", "2"), ("t/3", "3"), ("t/4", "4")] {
        w.send(p, &retained(topic, 2, 1, text));
        w.confirm_stores();
        w.send(p, &pubrel(1));
    }
    let (s, _) = resume(&mut w, "s");
    w.send(s, &subscribe(1, &filter("t/+", QoS::ExactlyOnce)));
    w.confirm_stores();
    // Several shards send them in another order.
    let got = w.got(s);
    let text = |line: &str| line.split('"').nth(1).unwrap().to_owned();
    assert!(got[1].contains(" q2 #1 retain") && got[2].contains(" q2 #2 retain"), "{got:?}");
    let first = text(&got[1]);
    w.send(s, &pubrec(1));
    w.confirm_stores();
    w.send(s, &pubcomp(1));
    w.restart(SECOND);
    let mut seen = Vec::new();
    let (s, resumed) = resume(&mut w, "s");
    let mut got: Vec<String> = resumed.split(", ").map(Into::into).collect();
    for _ in 0..10 {
        for line in std::mem::take(&mut got) {
            let Some(id) = line.split('#').nth(1) else { continue };
            let id: u16 = id.split(' ').next().unwrap().parse().unwrap();
            if line.starts_with("PUBLISH") {
                seen.push(line);
                w.send(s, &pubrec(id));
            } else {
                w.send(s, &pubcomp(id));
            }
        }
        w.confirm_stores();
        got = w.got(s);
    }
    let mut payloads: Vec<_> = seen.iter().map(|line| text(line)).collect();
    payloads.push(first);
    payloads.sort_unstable();
    assert_eq!(payloads, ["1", "2", "3", "4"], "{seen:#?}");
    assert!(!w.contents.records().any(|op| matches!(op, StoreOp::PutReplay { .. } | StoreOp::Append(..))));
}

#[test]
fn a_body_is_stored_once_and_deleted_with_its_last_entry() {
    // Each shard stores a body of its own.
    let mut w = World::of_one_shard(config_with(|_| {}));
    let a = subscriber(&mut w, "a", "#");
    let b = subscriber(&mut w, "b", "#");
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 1, 1, "x"));
    w.confirm_stores();
    let bodies = |w: &World| w.contents.records().filter(|op| matches!(op, StoreOp::PutMessage(..))).count();
    assert_eq!(bodies(&w), 1);
    w.got(a);
    w.got(b);
    w.send(a, &puback(1));
    w.confirm_stores();
    assert_eq!(bodies(&w), 1);
    w.send(b, &puback(1));
    w.confirm_stores();
    assert_drained(&w);
}

#[test]
fn sessions_end_by_the_time_that_passed_while_the_broker_was_down() {
    let mut w = world();
    let s = subscriber(&mut w, "s", "#");
    w.cut(s);
    w.confirm_stores();
    w.restart(50 * SECOND);
    assert_eq!(w.broker.stats().sessions, 1);
    w.restart(60 * SECOND);
    let (_, connack) = resume(&mut w, "s");
    assert_eq!(connack, "CONNACK 00", "110 seconds without a connection");
}

#[test]
fn a_session_that_was_connected_counts_as_lost_when_the_broker_starts() {
    let mut w = world();
    subscriber(&mut w, "s", "#");
    w.restart(5_000 * SECOND);
    assert_eq!(w.broker.stats().sessions, 1, "it could not have come back earlier");
    w.confirm_stores();
    w.restart(99 * SECOND);
    w.advance(Duration::from_millis(1));
    assert_eq!(w.broker.stats().sessions, 1);
    w.restart(2 * SECOND);
    w.advance(Duration::from_millis(1));
    assert_eq!(w.broker.stats().sessions, 0, "the first restart was when its time began");
    w.confirm_stores();
    assert!(!w.contents.records().any(|op| matches!(op, StoreOp::PutSession(..))));
}

#[test]
fn a_session_that_was_given_up_does_not_return() {
    let mut w = world();
    let s = subscriber(&mut w, "s", "#");
    let properties = PropertiesBuf::new().with(Property::SessionExpiryInterval(0)).unwrap();
    let packet = mqtt_proto::DisconnectRef { properties: properties.as_properties(), ..Default::default() };
    w.send(s, &mqtt_proto::PacketRef::Disconnect(packet));
    w.confirm_stores();
    assert_eq!(w.restart(SECOND).sessions, 0);
    // The same by a CONNECT that takes it on only for the time of its connection.
    subscriber(&mut w, "s", "#");
    let p = w.connect(&ConnectRef { client_id: "s", ..ConnectRef::default() });
    w.confirm_stores();
    assert!(w.got(p)[0].starts_with("CONNACK sp 00"));
    assert_eq!(w.restart(SECOND).sessions, 0);
}

#[test]
fn numbers_are_never_given_twice() {
    let mut w = world();
    let mut highest = 0;
    for round in 0..4 {
        subscriber(&mut w, &format!("s{round}"), "#");
        let p = w.client(Version::V5, "p");
        w.send(p, &publish("t", 1, 1, "x"));
        let numbers: Vec<u64> = w
            .stores
            .iter()
            .flat_map(|(_, group)| group.ops.to_vec())
            .filter_map(|op| match op {
                StoreOp::PutMessage(id, _) => Some(id.0),
                _ => None,
            })
            .collect();
        w.confirm_stores();
        assert!(numbers.iter().all(|&number| number > highest), "{numbers:?} after {highest}");
        highest = numbers.into_iter().max().unwrap();
        // All is deleted, so that nothing in the store remembers the number but the limits.
        for client_id in (0..=round).map(|round| format!("s{round}")) {
            let clean = ConnectRef { client_id: &client_id, clean_start: true, ..ConnectRef::default() };
            w.connect(&clean);
        }
        w.confirm_stores();
        assert_drained(&w);
        w.restart(SECOND);
    }
}

#[test]
fn what_waits_in_a_shared_group_outlives_the_broker_and_comes_once() {
    let mut w = world();
    let a = subscriber(&mut w, "a", "$share/g/t");
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 1, 1, "begun"));
    w.confirm_stores();
    assert_eq!(w.got(a), ["PUBLISH t q1 #1 \"begun\""]);
    w.cut(a);
    w.send(p, &publish("t", 1, 2, "waits"));
    w.send(p, &publish("t", 2, 3, "twice as safe"));
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBACK #1", "PUBACK #2", "PUBREC #3"]);
    w.restart(SECOND);
    let (_, got) = resume(&mut w, "a");
    let payloads: Vec<_> = got.split(", ").filter_map(|p| p.split('"').nth(1)).collect();
    assert_eq!(payloads, ["begun", "waits", "twice as safe"]);
    w.restart(SECOND);
    let (a, got) = resume(&mut w, "a");
    // QoS 1 was not acknowledged and is in the group's queue again; QoS 2 is bound to this member.
    let mut lines: Vec<_> = got.split(", ").skip(1).collect();
    lines.sort_unstable_by_key(|line| !line.contains("dup"));
    assert!(lines[0].contains("q2") && lines[0].contains("dup"), "{lines:?}");
    assert_eq!(lines.len(), 3);
    for line in lines {
        let id: u16 = line.split('#').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        if line.contains("q2") {
            w.send(a, &pubrec(id));
            w.confirm_stores();
            w.send(a, &pubcomp(id));
        } else {
            w.send(a, &puback(id));
        }
    }
    w.confirm_stores();
    assert_drained(&w);
}

#[test]
fn who_leaves_a_group_keeps_what_it_began() {
    let mut w = world_with(|c| c.max_inflight = 1);
    let a = subscriber(&mut w, "a", "$share/g/t");
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 1, 1, "begun"));
    w.send(p, &publish("t", 1, 2, "not begun"));
    w.confirm_stores();
    let b = subscriber(&mut w, "b", "$share/g/t");
    w.got(a);
    unsubscribe(2, "$share/g/t", |packet| w.send(a, packet));
    w.confirm_stores();
    w.got(b);
    w.restart(SECOND);
    let (_, got) = resume(&mut w, "a");
    assert!(got.contains("\"begun\""), "{got}");
    assert!(!got.contains("not begun"), "{got}");
    let (_, got) = resume(&mut w, "b");
    assert!(got.contains("not begun"), "{got}");
}

#[test]
fn subscription_identifiers_and_options_are_kept() {
    let mut w = world();
    let (s, _) = resume(&mut w, "s");
    let mut options = SubscriptionOptions::from(QoS::AtLeastOnce);
    options.retain_as_published = true;
    options.retain_handling = RetainHandling::DoNotSend;
    let properties = PropertiesBuf::new().with(Property::SubscriptionIdentifier(77)).unwrap();
    let list = filter("t", options);
    let packet = mqtt_proto::SubscribeRef {
        packet_id: mqtt_testkit::packets::id(1),
        properties: properties.as_properties(),
        filters: list.as_filters(),
    };
    w.send(s, &mqtt_proto::PacketRef::Subscribe(packet));
    w.confirm_stores();
    w.restart(SECOND);
    let p = w.client(Version::V5, "p");
    w.send(p, &retained("t", 1, 1, "x"));
    w.confirm_stores();
    w.restart(SECOND);
    let (_, got) = resume(&mut w, "s");
    assert!(got.contains("retain") && got.contains("77"), "{got}");
}

#[test]
fn a_store_with_orphans_is_cleaned_and_tells_how_many() {
    let mut w = world();
    let s = subscriber(&mut w, "s", "#");
    w.cut(s);
    w.confirm_stores();
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 1, 1, "x"));
    w.send(p, &retained("r", 1, 2, "y"));
    w.confirm_stores();
    let without = |w: &World, lost: fn(&StoreOp) -> bool| -> Vec<StoreOp> {
        w.contents.records().filter(|op| !lost(op)).collect()
    };
    let config = w.broker.config().clone();
    for lost in [
        (|op| matches!(op, StoreOp::PutSession(..))) as fn(&StoreOp) -> bool,
        |op| matches!(op, StoreOp::PutMessage(..)),
        |op| matches!(op, StoreOp::Append(..)),
        |op| matches!(op, StoreOp::PutRetained(..)),
    ] {
        let records = without(&w, lost);
        let (broker, restored) = mqtt_session::Broker::restore(config.clone(), 0, records.clone()).unwrap();
        let lost_any = records.len() < w.contents.records().count();
        assert!(lost_any);
        let stats = broker.stats();
        assert_eq!(stats.messages, restored.messages);
        assert_eq!(stats.sessions, restored.sessions);
    }
}
