//! What the simulator found by crashing the broker, each as small as it gets.

use mqtt_proto::{ConnectRef, PropertiesBuf, Property, QoS, WillRef};
use mqtt_session::broker::BrokerConfig;
use mqtt_session::store::{EntryId, StoredStage};
use mqtt_session::{Durability, StoreGroup, StoreOp};
use mqtt_testkit::packets::{filter, id, pubcomp, publish, pubrec, subscribe};
use mqtt_testkit::{PeerId, World};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn world() -> World {
    let mut config = BrokerConfig::default();
    config.durability = Durability::Synced;
    World::new(config)
}

/// Connects and takes CONNACK out of the inbox.
fn connect(w: &mut World, client_id: &str, expiry: u32, will_delay: Option<u32>) -> PeerId {
    let properties = PropertiesBuf::new().with(Property::SessionExpiryInterval(expiry)).unwrap();
    let will_properties =
        PropertiesBuf::new().with(Property::WillDelayInterval(will_delay.unwrap_or(0))).unwrap();
    let will = will_delay.map(|_| WillRef {
        topic: "will",
        payload: client_id.as_bytes(),
        qos: QoS::AtLeastOnce,
        properties: will_properties.as_properties(),
        ..WillRef::default()
    });
    let properties = properties.as_properties();
    let p = w.connect(&ConnectRef { client_id, properties, will, ..ConnectRef::default() });
    w.confirm_stores();
    p
}

fn subscriber(w: &mut World, to: &str) -> PeerId {
    let s = connect(w, "s", 100, None);
    w.send(s, &subscribe(1, &filter(to, QoS::ExactlyOnce)));
    w.confirm_stores();
    w.got(s);
    s
}

fn wills(w: &mut World, s: PeerId) -> Vec<String> {
    w.advance(SECOND);
    w.confirm_stores();
    let got = w.got(s);
    let mut wills: Vec<_> = got.iter().filter_map(|p| p.split('"').nth(1)).map(str::to_owned).collect();
    wills.sort_unstable();
    wills
}

/// A session whose record is deleted, since it is to end with its connection now, gets no new records:
/// nobody would ever delete them.
#[test]
fn a_session_that_is_to_end_with_its_connection_puts_nothing_into_the_store() {
    let mut w = world();
    let s = subscriber(&mut w, "#");
    w.cut(s);
    let p = connect(&mut w, "p", 0, None);
    w.send(p, &publish("t", 2, 1, "twice"));
    w.send(p, &publish("t", 1, 2, "once"));
    w.confirm_stores();
    let s = connect(&mut w, "s", 0, None);
    let got = w.got(s);
    assert_eq!(got[1..], ["PUBLISH t q2 #1 \"twice\"", "PUBLISH t q1 #2 \"once\""], "{got:?}");
    let exchanges = |w: &World| {
        let records = w.contents.records();
        records.filter(|op| matches!(op, StoreOp::PutExchange { .. } | StoreOp::Append(..))).count()
    };
    assert_eq!(exchanges(&w), 0);
    w.send(s, &pubrec(1));
    w.confirm_stores();
    assert_eq!(w.got(s), ["PUBREL #1"]);
    assert_eq!(exchanges(&w), 0);
    w.send(s, &pubcomp(1));
    w.cut(s);
    w.confirm_stores();
    assert_eq!(exchanges(&w), 0);
}

/// An exchange whose entry is not there is deleted at a restart, not counted at every one.
#[test]
fn an_exchange_without_an_entry_is_dropped_once() {
    let mut w = world();
    subscriber(&mut w, "#");
    let session = w.contents.records().find_map(|op| match op {
        StoreOp::PutSession(id, _) => Some(id),
        _ => None,
    });
    let stray = StoreOp::PutExchange {
        session: session.unwrap(),
        entry: EntryId(77),
        packet_id: id(7),
        number: 77,
        stage: StoredStage::Published,
    };
    w.contents.apply(&StoreGroup { ops: [stray].into() });
    assert_eq!(w.restart(SECOND).dropped, 1);
    w.confirm_stores();
    assert_eq!(w.restart(SECOND).dropped, 0);
}

/// Wills that are due when the broker starts come one after another; a client that returns before its
/// turn does not cancel what is due. [MQTT-3.1.2-8]
#[test]
fn a_client_that_returns_after_a_restart_does_not_cancel_a_will_that_is_due() {
    let mut w = world();
    subscriber(&mut w, "will");
    for client_id in ["a", "b", "c"] {
        connect(&mut w, client_id, 100, Some(0));
    }
    w.restart(SECOND);
    for client_id in ["a", "b", "c"] {
        connect(&mut w, client_id, 100, None);
    }
    let s = connect(&mut w, "s", 100, None);
    assert_eq!(wills(&mut w, s), ["a", "b", "c"]);
}

/// A message waits in a group that no stored session is a member of, and so is not stored. The stored
/// session that then joins and gets it at QoS 2 must not lose the exchange in a crash: its client keeps the
/// identifier, and the next message with it would be taken for a repetition.
#[test]
fn an_exchange_from_a_group_that_was_not_stored_is_stored() {
    let mut w = world();
    let properties = PropertiesBuf::new().with(Property::ReceiveMaximum(1)).unwrap();
    let busy =
        ConnectRef { client_id: "busy", properties: properties.as_properties(), ..ConnectRef::default() };
    let busy = w.connect(&busy);
    w.send(busy, &subscribe(1, &filter("$share/g/t", QoS::ExactlyOnce)));
    let p = connect(&mut w, "p", 0, None);
    w.send(p, &publish("t", 2, 1, "first"));
    w.send(p, &publish("t", 2, 2, "second"));
    w.confirm_stores();
    let s = subscriber(&mut w, "other");
    w.send(s, &subscribe(2, &filter("$share/g/t", QoS::ExactlyOnce)));
    w.confirm_stores();
    let got = w.got(s);
    assert!(got.contains(&"PUBLISH t q2 #1 \"second\"".to_owned()), "{got:?}");
    w.restart(SECOND);
    let s = connect(&mut w, "s", 100, None);
    assert_eq!(w.got(s)[1..], ["PUBLISH t q2 #1 dup \"second\""]);
    w.send(s, &pubrec(1));
    w.confirm_stores();
    w.send(s, &pubcomp(1));
    w.confirm_stores();
    assert_eq!(w.got(s), ["PUBREL #1"]);
    assert_eq!(w.contents.records().filter(|op| matches!(op, StoreOp::PutMessage(..))).count(), 0);
}
