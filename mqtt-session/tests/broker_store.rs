//! What waits for the store.

use mqtt_proto::{ConnectRef, PacketRef, PropertiesBuf, Property, QoS, Version};
use mqtt_session::broker::BrokerConfig;
use mqtt_session::{Durability, StoreOp};
use mqtt_testkit::packets::{
    filter, puback, pubcomp, publish, pubrec, pubrel, retained, subscribe, unsubscribe,
};
use mqtt_testkit::{PeerId, World};

fn world() -> World {
    World::new(config())
}

fn config() -> BrokerConfig {
    let mut config = BrokerConfig::default();
    config.durability = Durability::Synced;
    config
}

fn durable(w: &mut World, client_id: &str) -> PeerId {
    let properties = PropertiesBuf::new().with(Property::SessionExpiryInterval(100)).unwrap();
    let p =
        w.connect(&ConnectRef { client_id, properties: properties.as_properties(), ..ConnectRef::default() });
    assert!(w.got(p).is_empty(), "CONNACK waits for the session");
    w.confirm_stores();
    assert_eq!(w.got(p).len(), 1);
    p
}

fn durable_subscriber(w: &mut World, client_id: &str) -> PeerId {
    let s = durable(w, client_id);
    w.send(s, &subscribe(1, &filter("#", QoS::ExactlyOnce)));
    assert!(w.got(s).is_empty(), "SUBACK waits for the subscription");
    w.confirm_stores();
    assert_eq!(w.got(s), ["SUBACK #1 02"]);
    s
}

fn ops(w: &World) -> Vec<StoreOp> {
    w.stores.iter().flat_map(|(_, group)| group.ops.to_vec()).collect()
}

#[test]
fn puback_waits_for_the_appends_and_delivery_does_not() {
    let mut w = world();
    let s = durable_subscriber(&mut w, "s");
    let p = w.client(Version::V311, "p");
    w.send(p, &publish("t", 1, 1, "x"));
    assert!(w.got(p).is_empty());
    assert_eq!(w.got(s), ["PUBLISH t q1 #1 \"x\""]);
    assert!(ops(&w).iter().any(|op| matches!(op, StoreOp::Append(_, list) if list.len() == 1)));
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBACK #1"]);
}

#[test]
fn a_qos_2_message_is_seen_by_nobody_before_it_is_stored() {
    // This is about the very groups, of which a hand-over to another shard makes more.
    let mut w = World::of_one_shard(config());
    let s = durable_subscriber(&mut w, "s");
    let p = durable(&mut w, "p");
    w.send(p, &publish("t", 2, 1, "x"));
    assert!(w.got(p).is_empty() && w.got(s).is_empty());
    // One group holds the received id, the body and the append.
    assert_eq!(w.stores.len(), 1);
    let all = ops(&w);
    assert!(all.iter().any(|op| matches!(op, StoreOp::PutReceived(..))));
    assert!(all.iter().any(|op| matches!(op, StoreOp::PutMessage(..))));
    assert!(all.iter().any(|op| matches!(op, StoreOp::Append(..))));
    // A resend meanwhile waits for the same group.
    w.send(p, &publish("t", 2, 1, "x"));
    assert_eq!(w.stores.len(), 1);
    let (seq, _) = w.stores.remove(0);
    w.broker.handle_stored(w.now, seq);
    w.settle();
    assert_eq!(w.got(p), ["PUBREC #1", "PUBREC #1"]);
    // Its identifier binds durably before it is sent.
    assert!(w.got(s).is_empty());
    assert!(ops(&w).iter().any(|op| matches!(op, StoreOp::PutExchange { .. })));
    w.confirm_stores();
    assert_eq!(w.got(s), ["PUBLISH t q2 #1 \"x\""]);
    // PUBREL waits for the release, PUBCOMP for the removal of the received id.
    w.send(s, &pubrec(1));
    assert!(w.got(s).is_empty());
    w.confirm_stores();
    assert_eq!(w.got(s), ["PUBREL #1"]);
    w.send(s, &pubcomp(1));
    w.send(p, &pubrel(1));
    assert!(w.got(p).is_empty());
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBCOMP #1"]);
}

#[test]
fn later_publishes_of_a_client_wait_behind_one_that_waits() {
    let mut w = world();
    let s = durable_subscriber(&mut w, "s");
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 2, 1, "first"));
    w.send(p, &publish("t", 0, 0, "second"));
    w.send(p, &publish("t", 1, 2, "third"));
    assert!(w.got(s).is_empty() && w.got(p).is_empty());
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBREC #1", "PUBACK #2"]);
    assert_eq!(
        w.got(s),
        ["PUBLISH t q2 #1 \"first\"", "PUBLISH t q0 \"second\"", "PUBLISH t q1 #2 \"third\""]
    );
}

#[test]
fn qos_0_waits_for_no_operation_of_its_own() {
    let mut w = world();
    let s = durable_subscriber(&mut w, "s");
    let p = w.client(Version::V5, "p");
    w.send(p, &retained("t", 0, 0, "x"));
    assert_eq!(w.got(s), ["PUBLISH t q0 \"x\""]);
    assert!(ops(&w).iter().any(|op| matches!(op, StoreOp::PutRetained(topic, _) if topic == "t")));
}

#[test]
fn a_body_is_stored_once_and_deleted_with_its_last_entry() {
    // Each shard stores a body of its own.
    let mut w = World::of_one_shard(config());
    let (a, b) = (durable_subscriber(&mut w, "a"), durable_subscriber(&mut w, "b"));
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 1, 1, "x"));
    let all = ops(&w);
    assert_eq!(all.iter().filter(|op| matches!(op, StoreOp::PutMessage(..))).count(), 1);
    assert!(all.iter().any(|op| matches!(op, StoreOp::Append(_, list) if list.len() == 2)));
    w.confirm_stores();
    w.send(a, &puback(1));
    let deleted = |w: &World| ops(w).iter().any(|op| matches!(op, StoreOp::DeleteMessage(_)));
    assert!(!deleted(&w));
    w.send(b, &puback(1));
    assert!(deleted(&w));
    let last = &w.stores.last().unwrap().1.ops;
    assert!(
        last.iter().any(|op| matches!(op, StoreOp::RemoveEntry(..))),
        "in one group with the last removal"
    );
}

#[test]
fn while_the_store_fails_nothing_is_acknowledged_and_qos_0_goes_on() {
    let mut w = world();
    let s = durable_subscriber(&mut w, "s");
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 1, 1, "owed"));
    let (failed, _) = w.stores[0].clone();
    w.stores.clear();
    w.broker.handle_store_failed(w.now, failed);
    w.settle();
    assert_eq!(w.stores.first().map(|(seq, _)| *seq), Some(failed), "emitted again");
    w.send(p, &publish("t", 1, 2, "refused"));
    w.send(p, &publish("t", 0, 0, "fine"));
    // The refusal waits behind what is owed, as acknowledgements leave in order.
    assert!(w.got(p).is_empty());
    assert!(w.got(s).contains(&"PUBLISH t q0 \"fine\"".into()));
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBACK #1", "PUBACK #2 97"]);
    w.send(p, &publish("t", 1, 3, "again"));
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBACK #3"]);
    let old = w.client(Version::V311, "old");
    w.send(p, &publish("t", 1, 4, "owed"));
    let (failed, _) = w.stores[0].clone();
    w.broker.handle_store_failed(w.now, failed);
    w.send(old, &publish("t", 1, 1, "x"));
    assert!(w.is_hung_up(old));
    w.send(s, &subscribe(9, &filter("more", QoS::AtMostOnce)));
    assert!(w.got(s).contains(&"SUBACK #9 97".into()), "not promised");
}

#[test]
fn without_durability_nothing_is_emitted() {
    let mut w = World::new(BrokerConfig::default());
    let properties = PropertiesBuf::new().with(Property::SessionExpiryInterval(100)).unwrap();
    let s = w.connect(&ConnectRef {
        client_id: "s",
        properties: properties.as_properties(),
        ..Default::default()
    });
    w.send(s, &subscribe(1, &filter("#", QoS::ExactlyOnce)));
    w.send(s, &publish("t", 2, 1, "x"));
    w.send(s, &retained("t", 1, 2, "x"));
    w.send(s, &PacketRef::Pingreq);
    assert!(w.stores.is_empty());
    assert_eq!(w.got(s).len(), 7);
}

#[test]
fn what_happens_while_the_store_fails_is_emitted_too_and_nothing_waits_for_ever() {
    let mut w = world();
    let s = durable_subscriber(&mut w, "s");
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 2, 1, "owed"));
    let (failed, _) = w.stores[0].clone();
    w.stores.clear();
    w.broker.handle_store_failed(w.now, failed);
    w.settle();
    let before = w.stores.len();
    // An operation of its own, made while the store does not work.
    unsubscribe(2, "none", |packet| w.send(s, packet));
    unsubscribe(3, "#", |packet| w.send(s, packet));
    assert_eq!(w.stores.len(), before + 1);
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBREC #1"]);
    assert!(w.got(s).contains(&"UNSUBACK #3 00".into()));
    w.send(p, &publish("t", 1, 2, "works again"));
    w.confirm_stores();
    assert_eq!(w.got(p), ["PUBACK #2 10"], "nobody wants it any more");
}

/// Limits go by it.
#[test]
fn the_size_of_a_group_grows_with_all_that_is_in_it() {
    use mqtt_session::store::{EntryId, MessageId, SessionId, StoredDelivery};
    let delivery = StoredDelivery {
        session: SessionId(1),
        entry: EntryId(1),
        qos: QoS::AtLeastOnce,
        retain: false,
        subscription_ids: [].into(),
    };
    let append = |count| {
        let ops = [StoreOp::Append(MessageId(1), vec![delivery.clone(); count])];
        mqtt_session::StoreGroup { ops: ops.into() }.size()
    };
    assert!(append(1_000) >= 1_000 * 8 + append(0));
}

/// What the broker says of itself is not stored as retained, and may be stored for a session that waits for it.
#[test]
fn what_is_retained_and_then_stored_for_one_session_is_there_for_the_next() {
    let mut w = world();
    let status = mqtt_session::Message::new("$SYS/status", "fine").with_qos(QoS::AtLeastOnce).retained();
    w.broker.publish(w.now, status).unwrap();
    w.settle();
    for client_id in ["a", "b"] {
        let s = durable(&mut w, client_id);
        w.send(s, &subscribe(1, &filter("$SYS/status", QoS::AtLeastOnce)));
        w.confirm_stores();
        let got = w.got(s);
        assert!(
            got.contains(&"PUBLISH $SYS/status q1 #1 retain \"fine\"".to_owned()),
            "{client_id}: {got:?}"
        );
    }
}
