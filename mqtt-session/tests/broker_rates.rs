//! Clients that send faster than they may wait, and lose nothing by it.

use mqtt_proto::{ConnectRef, PacketRef, QoS, Version};
use mqtt_session::broker::{BrokerConfig, Peer, Rates};
use mqtt_testkit::packets::{filter, publish, subscribe};
use mqtt_testkit::{PeerId, World};
use std::time::Duration;

fn world(rates: Rates) -> World {
    let mut config = BrokerConfig::default();
    config.rates = rates;
    World::new(config)
}

fn subscriber(w: &mut World) -> PeerId {
    let peer = w.client(Version::V5, "s");
    w.send(peer, &subscribe(1, &filter("#", QoS::AtLeastOnce)));
    w.got(peer);
    peer
}

fn publishes(w: &mut World, peer: PeerId) -> usize {
    w.got(peer).iter().filter(|line| line.starts_with("PUBLISH")).count()
}

fn bytes_of(packets: usize, payload: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..packets {
        publish("t", 0, 0, &format!("{n}{payload}")).encode(Version::V5, &mut bytes).unwrap();
    }
    bytes
}

#[test]
fn messages_beyond_the_rate_wait_and_arrive_in_order() {
    let mut w = world(Rates { messages: 10, bytes: 0 });
    let s = subscriber(&mut w);
    let p = w.client(Version::V5, "p");
    w.send_raw(p, &bytes_of(25, ""));
    assert!(w.is_paused(p));
    assert_eq!(publishes(&mut w, s), 10, "a burst of one second");
    w.advance(Duration::from_millis(500));
    assert_eq!(publishes(&mut w, s), 5);
    w.advance(Duration::from_millis(450));
    assert_eq!(publishes(&mut w, s), 4);
    w.advance(Duration::from_secs(1));
    let got = w.got(s);
    assert_eq!(got.len(), 6);
    assert_eq!(got[5], "PUBLISH t q0 \"24\"");
    assert!(!w.is_paused(p));
    assert!(w.broker.stats().slowed > 0);
    assert_eq!(w.broker.stats().dropped, 0);
}

#[test]
fn bytes_beyond_the_rate_wait() {
    let mut w = world(Rates { messages: 0, bytes: 1_000 });
    let s = subscriber(&mut w);
    let p = w.client(Version::V5, "p");
    let bytes = bytes_of(100, &"x".repeat(90));
    w.send_raw(p, &bytes);
    let mut got = publishes(&mut w, s);
    assert!((9..=11).contains(&got), "about a second's worth: {got}");
    let mut seconds = 0;
    while got < 100 {
        w.advance(Duration::from_secs(1));
        seconds += 1;
        got += publishes(&mut w, s);
    }
    assert_eq!(seconds, (bytes.len() - 1_000).div_ceil(1_000));
}

#[test]
fn what_is_slow_enough_never_waits() {
    let mut w = world(Rates { messages: 10, bytes: 10_000 });
    let p = w.client(Version::V5, "p");
    for _ in 0..1_000 {
        w.advance(Duration::from_millis(100));
        w.send_raw(p, &bytes_of(1, ""));
    }
    assert_eq!(w.broker.stats().slowed, 0);
    assert_eq!(w.broker.stats().received, 1_000);
}

/// It cannot be heard meanwhile, so it is not held against it.
#[test]
fn keep_alive_does_not_run_while_a_client_is_made_to_wait() {
    let mut w = world(Rates { messages: 1, bytes: 0 });
    let connect = ConnectRef { client_id: "p", keep_alive: 1, version: Version::V5, ..ConnectRef::default() };
    let p = w.connect(&connect);
    w.send_raw(p, &bytes_of(60, ""));
    for _ in 0..58 {
        w.advance(Duration::from_secs(1));
        assert!(!w.is_hung_up(p));
    }
    w.advance(Duration::from_secs(10));
    assert_eq!(w.broker.stats().received, 60);
    assert!(w.is_hung_up(p), "and then it runs again");
}

/// What it sent before it left still counts, at its pace.
#[test]
fn what_waits_is_worked_on_although_the_client_has_left() {
    let mut w = world(Rates { messages: 1, bytes: 0 });
    let s = subscriber(&mut w);
    let p = w.client(Version::V5, "p");
    w.send_raw(p, &bytes_of(5, ""));
    w.cut(p);
    w.advance(Duration::from_secs(10));
    assert_eq!(publishes(&mut w, s), 5);
    assert_eq!(w.broker.stats().connections, 1);
}

#[test]
fn a_listener_may_have_rates_of_its_own() {
    let mut w = world(Rates { messages: 1, bytes: 0 });
    let p = w.open_as(Version::V5, Peer { rates: Some(Rates::default()), ..Peer::default() });
    let mut bytes = Vec::new();
    PacketRef::Connect(ConnectRef { client_id: "p", ..ConnectRef::default() })
        .encode(Version::V5, &mut bytes)
        .unwrap();
    bytes.extend(bytes_of(100, ""));
    w.send_raw(p, &bytes);
    assert_eq!(w.broker.stats().received, 100);
}
