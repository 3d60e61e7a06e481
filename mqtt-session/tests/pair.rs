//! Both machines together: whatever happens to the link, nothing is lost and nothing comes twice.

use mqtt_proto::{ConnectRef, PropertiesBuf, Property, QoS, Version};
use mqtt_session::broker::BrokerConfig;
use mqtt_session::client::{CleanStart, ClientConfig, Event, Outcome};
use mqtt_session::{Message, Timestamp};
use mqtt_testkit::packets::{filter, publish, subscribe};
use mqtt_testkit::{Pair, PeerId, World};
use std::time::Duration;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn config(version: Version, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new(client_id);
    config.version = version;
    // A 5.0 client may not go on with a session of which it knows nothing [MQTT-3.2.2-4], as when the
    // first CONNACK is lost; below 5.0 starting clean would end the session with the connection.
    config.clean_start = if version.is_v5() { CleanStart::FirstOnly } else { CleanStart::Never };
    config.session_expiry_secs = 3600;
    config
}

/// A session that stays, at QoS 2 for everything.
fn watcher(w: &mut World) -> PeerId {
    let properties = PropertiesBuf::new().with(Property::SessionExpiryInterval(3600)).unwrap();
    let connect =
        ConnectRef { client_id: "w", properties: properties.as_properties(), ..ConnectRef::default() };
    let peer = w.connect(&connect);
    w.send(peer, &subscribe(1, &filter("#", QoS::ExactlyOnce)));
    assert_eq!(w.got(peer).len(), 2);
    peer
}

fn payloads(lines: &[String]) -> Vec<String> {
    let published = lines.iter().filter(|line| line.starts_with("PUBLISH"));
    published.map(|line| line.split('"').nth(1).unwrap().to_owned()).collect()
}

/// Cuts the link after each byte in turn, lets the client come back, and looks at what arrived.
fn publish_with_a_cut_at(version: Version, qos: QoS, cut: usize) -> (Vec<String>, usize, usize) {
    let mut world = World::new(BrokerConfig::default());
    let watcher = watcher(&mut world);
    let mut pair = Pair::new(world, config(version, "p"));
    pair.carries = cut;
    pair.connect();
    for n in 0..3 {
        let message = Message::new("t", n.to_string()).with_qos(qos);
        pair.client.publish(pair.world.now, message).unwrap();
        pair.drive();
    }
    pair.advance(Duration::from_secs(300));
    let done = pair.events.iter().filter(|e| matches!(e, Event::Done { .. })).count();
    let got = pair.world.got(watcher);
    (payloads(&got), done, pair.carried)
}

/// [MQTT-4.3.3-10] [MQTT-4.4.0-1] of both [MQTT-4.3.3-2] of 3.1.1
#[test]
fn qos_2_arrives_exactly_once_and_in_order_wherever_the_link_is_cut() {
    for version in VERSIONS {
        let (_, _, total) = publish_with_a_cut_at(version, QoS::ExactlyOnce, usize::MAX);
        assert!(total > 50);
        for cut in 0..=total {
            let (got, done, _) = publish_with_a_cut_at(version, QoS::ExactlyOnce, cut);
            assert_eq!(got, ["0", "1", "2"], "{version}, cut after {cut} bytes");
            assert_eq!(done, 3);
        }
    }
}

#[test]
fn qos_1_arrives_at_least_once_and_in_order_wherever_the_link_is_cut() {
    for version in VERSIONS {
        let (_, _, total) = publish_with_a_cut_at(version, QoS::AtLeastOnce, usize::MAX);
        for cut in 0..=total {
            let (mut got, done, _) = publish_with_a_cut_at(version, QoS::AtLeastOnce, cut);
            got.dedup();
            assert_eq!(got, ["0", "1", "2"], "{version}, cut after {cut} bytes");
            assert_eq!(done, 3);
        }
    }
}

/// What the client's application got, with the link cut after `cut` bytes.
fn receive_with_a_cut_at(version: Version, qos: u8, cut: usize) -> (Vec<String>, usize) {
    let mut pair = Pair::new(World::new(BrokerConfig::default()), config(version, "s"));
    pair.connect();
    let options = QoS::ExactlyOnce.into();
    pair.client.subscribe(pair.world.now, &[("t", options)], &PropertiesBuf::new()).unwrap();
    pair.drive();
    let p = pair.world.client(Version::V5, "p");
    let before = pair.carried;
    pair.carries = cut;
    for n in 0..3u16 {
        pair.world.send(p, &publish("t", qos, n + 1, &n.to_string()));
        pair.drive();
    }
    pair.advance(Duration::from_secs(300));
    let got = pair.events.iter().filter_map(|event| match event {
        Event::Message(received) => Some(String::from_utf8_lossy(&received.message.payload).into_owned()),
        _ => None,
    });
    (got.collect(), pair.carried - before)
}

/// [MQTT-4.3.3-10] [MQTT-4.3.3-2] of 3.1.1
#[test]
fn the_application_gets_qos_2_exactly_once_wherever_the_link_is_cut() {
    for version in VERSIONS {
        let (_, total) = receive_with_a_cut_at(version, 2, usize::MAX);
        for cut in 0..=total {
            let (got, _) = receive_with_a_cut_at(version, 2, cut);
            assert_eq!(got, ["0", "1", "2"], "{version}, cut after {cut} bytes");
        }
        for cut in 0..=total {
            let (mut got, _) = receive_with_a_cut_at(version, 1, cut);
            got.dedup();
            assert_eq!(got, ["0", "1", "2"], "{version}, cut after {cut} bytes");
        }
    }
}

#[test]
fn what_was_published_offline_is_sent_when_the_client_connects() {
    let mut world = World::new(BrokerConfig::default());
    let watcher = watcher(&mut world);
    let mut pair = Pair::new(world, config(Version::V5, "p"));
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        pair.client.publish(Timestamp::ZERO, Message::new("t", "x").with_qos(qos)).unwrap();
    }
    pair.connect();
    let got = pair.world.got(watcher);
    assert_eq!(got, ["PUBLISH t q0 \"x\"", "PUBLISH t q1 #1 \"x\"", "PUBLISH t q2 #2 \"x\""]);
    let done = pair.events.iter().filter_map(|e| match e {
        Event::Done { outcome, .. } => Some(matches!(outcome, Outcome::Sent | Outcome::Acked { .. })),
        _ => None,
    });
    assert_eq!(done.collect::<Vec<_>>(), [true; 3]);
}

/// [MQTT-3.1.2-23] of 3.1.1
#[test]
fn both_keep_an_idle_link_alive() {
    let mut settings = config(Version::V311, "c");
    settings.keep_alive_secs = 10;
    let mut pair = Pair::new(World::new(BrokerConfig::default()), settings);
    pair.connect();
    let before = pair.carried;
    pair.advance(Duration::from_secs(1000));
    assert!(pair.client.is_connected());
    assert_eq!(pair.events.iter().filter(|e| matches!(e, Event::Disconnected(_))).count(), 0);
    let pings = (pair.carried - before) / 4;
    assert!((100..=110).contains(&pings), "{pings} pings in a hundred keep alives");
}

#[test]
fn two_clients_with_one_identifier_do_not_fight_for_ever() {
    let mut pair = Pair::new(World::new(BrokerConfig::default()), config(Version::V5, "same"));
    pair.connect();
    let other = pair.world.client(Version::V5, "same");
    pair.drive();
    pair.advance(Duration::from_secs(600));
    assert!(pair.client.is_stopped(), "a client that was taken over stays away by default");
    assert!(!pair.world.is_hung_up(other));
}
