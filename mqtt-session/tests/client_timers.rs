//! Keep alive.

mod peer;

use mqtt_proto::*;
use mqtt_session::Timestamp;
use mqtt_session::client::*;
use peer::*;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn alive(secs: u16) -> Peer {
    Peer::online(ClientConfig { keep_alive_secs: secs, ..ClientConfig::new("c") })
}

/// [MQTT-3.1.2-20]
#[test]
fn an_idle_client_pings() {
    let mut peer = alive(10);
    peer.wait(SECOND * 9);
    assert!(peer.sent().is_empty());
    peer.wait(SECOND);
    assert_eq!(peer.sent(), ["PINGREQ"]);
    peer.send(PacketRef::Pingresp);
    peer.wait(SECOND * 10);
    assert_eq!(peer.sent(), ["PINGREQ"]);
}

#[test]
fn traffic_both_ways_needs_no_ping() {
    let mut peer = alive(10);
    for _ in 0..10 {
        peer.wait(SECOND * 6);
        peer.publish("a", "", QoS::AtLeastOnce);
        let id = 1 + u16::try_from(peer.client.in_flight()).unwrap();
        peer.deliver("b", "", QoS::AtLeastOnce, id);
    }
    assert!(peer.sent().iter().all(|line| line != "PINGREQ"));
}

/// A link that swallows everything is noticed also by a client that sends all the time.
#[test]
fn a_server_that_only_takes_is_pinged() {
    let mut peer = alive(10);
    for _ in 0..4 {
        peer.wait(SECOND * 3);
        peer.publish("a", "", QoS::AtMostOnce);
    }
    assert!(peer.sent().contains(&"PINGREQ".to_owned()));
    for _ in 0..4 {
        peer.wait(SECOND * 3);
        if peer.client.is_connected() {
            peer.publish("a", "", QoS::AtMostOnce);
        }
    }
    assert_eq!(peer.cause(), Cause::PingTimeout);
}

#[test]
fn silence_after_a_ping_closes() {
    let mut peer = alive(10);
    peer.wait(SECOND * 10);
    peer.clear();
    assert_eq!(peer.client.poll_timeout(), Some(peer.now + SECOND * 10));
    peer.wait(SECOND * 10);
    assert_eq!(peer.sent().last().unwrap(), "DISCONNECT 0x8D");
    assert!(peer.hung_up());
    let disconnected = peer.disconnected();
    assert_eq!(disconnected.cause, Cause::PingTimeout);
    assert!(disconnected.retry_at.is_some());
}

#[test]
fn a_server_that_is_busy_sending_is_not_silent() {
    let mut peer = alive(10);
    peer.wait(SECOND * 10);
    for _ in 0..5 {
        peer.wait(SECOND * 6);
        peer.deliver("a", "", QoS::AtMostOnce, 0);
    }
    assert!(peer.client.is_connected());
}

/// A connection that takes no more bytes is given up as well.
#[test]
fn a_stalled_connection_is_given_up() {
    let mut peer = alive(10);
    peer.room = Some(0);
    peer.publish("a", "", QoS::AtLeastOnce);
    peer.wait(SECOND * 10);
    peer.wait(SECOND * 10);
    assert_eq!(peer.cause(), Cause::PingTimeout);
}

/// [MQTT-3.1.2-21] [MQTT-3.2.2-21]
#[test]
fn the_server_s_keep_alive_is_the_one_in_force() {
    let mut peer = Peer::new(ClientConfig::new("c"));
    peer.start();
    peer.accept_with(false, &[Property::ServerKeepAlive(5)]);
    peer.clear();
    assert_eq!(peer.client.poll_timeout(), Some(peer.now + SECOND * 5));
    peer.wait(SECOND * 5);
    assert_eq!(peer.sent(), ["PINGREQ"]);
}

#[test]
fn keep_alive_0_never_pings() {
    let mut peer = alive(0);
    assert_eq!(peer.client.poll_timeout(), None);
    peer.wait(SECOND * 100_000);
    assert!(peer.sent().is_empty());
}

#[test]
fn early_late_and_old_times_are_harmless() {
    let mut peer = alive(10);
    for _ in 0..3 {
        peer.client.handle_timeout(Timestamp::ZERO);
        peer.client.handle_timeout(peer.now);
    }
    peer.pump();
    assert!(peer.sent().is_empty());
    peer.wait(SECOND * 10);
    peer.client.handle_timeout(peer.now);
    peer.client.handle_timeout(Timestamp::ZERO);
    peer.pump();
    assert_eq!(peer.sent(), ["PINGREQ"]);
    assert!(peer.client.poll_timeout().unwrap() > peer.now);
}
