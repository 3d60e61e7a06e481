//! `$SYS`, the counters, and looking into a broker.

use mqtt_proto::{ConnectRef, QoS, Version};
use mqtt_session::broker::BrokerConfig;
use mqtt_session::{Durability, StoreOp};
use mqtt_testkit::packets::{filter, publish, retained, subscribe};
use mqtt_testkit::{PeerId, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(10);

fn world() -> World {
    let mut config = BrokerConfig::default();
    config.sys_interval = Some(INTERVAL);
    config.server_version = Some("test".to_owned());
    World::new(config)
}

/// What came, by topic without `$SYS/broker/`.
fn sys(w: &mut World, peer: PeerId) -> BTreeMap<String, String> {
    let lines = w.got(peer);
    let topics = lines.iter().filter(|line| line.starts_with("PUBLISH $SYS/broker/"));
    topics
        .map(|line| {
            let (topic, value) = line["PUBLISH $SYS/broker/".len()..].split_once(" q0").unwrap();
            (topic.to_owned(), value.split('"').nth(1).unwrap().to_owned())
        })
        .collect()
}

fn watcher(w: &mut World) -> PeerId {
    let peer = w.client(Version::V311, "watcher");
    w.send(peer, &subscribe(1, &filter("$SYS/#", QoS::AtLeastOnce)));
    peer
}

#[test]
fn the_figures_are_right_and_told_when_they_change() {
    let mut w = world();
    w.advance(INTERVAL);
    let s = watcher(&mut w);
    let first = sys(&mut w, s);
    assert_eq!(first["version"], "test");
    assert_eq!(first["clients/total"], "0", "as it was at the last look");
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("a", 0, 0, "12345"));
    w.send(p, &retained("b", 1, 1, "123"));
    w.advance(INTERVAL);
    let second = sys(&mut w, s);
    for (topic, value) in [
        ("clients/total", "2"),
        ("clients/connected", "2"),
        ("clients/maximum", "2"),
        ("publish/messages/received", "2"),
        ("publish/bytes/received", "8"),
        ("subscriptions/count", "1"),
        ("uptime", "19 seconds"),
    ] {
        assert_eq!(second.get(topic).map(String::as_str), Some(value), "{topic}");
    }
    assert!(!second.contains_key("version"), "it has not changed");
    assert!(!second.contains_key("clients/disconnected"), "nor has this");
    w.cut(p);
    w.advance(INTERVAL);
    let third = sys(&mut w, s);
    assert_eq!(third["clients/connected"], "1");
}

/// Mosquitto's formula: a rate per minute, of which the past keeps e^(-t/span).
#[test]
fn loads_are_averaged_exponentially() {
    let mut w = world();
    w.advance(INTERVAL);
    let s = watcher(&mut w);
    let p = w.client(Version::V311, "p");
    w.advance(INTERVAL);
    sys(&mut w, s);
    for _ in 0..100 {
        w.send(p, &publish("a", 0, 0, ""));
    }
    w.advance(INTERVAL);
    let told = sys(&mut w, s);
    let rate = 100.0 * 6.0;
    for (span, seconds) in [("1min", 60.0_f64), ("5min", 300.0), ("15min", 900.0)] {
        let expected = rate * (1.0 - (-10.0 / seconds).exp());
        let value: f64 = told[&format!("load/publish/received/{span}")].parse().unwrap();
        assert!((value - expected).abs() < 0.01, "{span}: {value} instead of {expected}");
    }
}

/// [MQTT-4.7.2-1]: a wildcard at the front does not match them; nobody but the broker publishes there.
#[test]
fn they_are_the_brokers_own() {
    let mut w = world();
    let all = w.client(Version::V5, "all");
    w.send(all, &subscribe(1, &filter("#", QoS::AtMostOnce)));
    w.got(all);
    let p = w.client(Version::V5, "p");
    w.send(p, &retained("$SYS/broker/version", 1, 1, "mine"));
    assert_eq!(w.got(p), ["PUBACK #1 90"]);
    w.advance(INTERVAL * 3);
    assert_eq!(w.got(all), [""; 0]);
    let s = watcher(&mut w);
    assert_eq!(sys(&mut w, s)["version"], "test");
}

#[test]
fn they_are_not_stored_and_do_not_come_back() {
    let mut config = BrokerConfig::default();
    config.sys_interval = Some(INTERVAL);
    config.durability = Durability::Synced;
    let mut w = World::new(config);
    w.advance(INTERVAL * 5);
    w.confirm_stores();
    let restored = w.restart(Duration::from_secs(1));
    assert_eq!((restored.retained, restored.dropped), (0, 0));
    let is_retained = |op: &StoreOp| matches!(op, StoreOp::PutRetained(..) | StoreOp::PutMessage(..));
    assert_eq!(w.contents.records().filter(is_retained).count(), 0);
    assert!(w.broker.stats().retained > 20, "they are told anew");
}

#[test]
fn without_an_interval_there_are_none() {
    let mut w = World::new(BrokerConfig::default());
    w.advance(INTERVAL * 10);
    assert_eq!(w.broker.stats().retained, 0);
    assert_eq!(w.broker.poll_timeout(), None, "and nothing wakes anybody");
}

#[test]
fn what_is_counted_is_what_happened() {
    let mut w = World::new(BrokerConfig::default());
    let s = w.client(Version::V5, "s");
    w.send(s, &subscribe(1, &filter("a", QoS::AtMostOnce)));
    w.got(s);
    let p = w.client(Version::V5, "p");
    let before = w.broker.stats().counters.bytes_sent as usize;
    for (qos, n) in [(0, 0), (0, 0), (1, 1), (2, 2)] {
        w.send(p, &publish("a", qos, n, "1234"));
    }
    let refused = w.connect(&ConnectRef { version: Version::V31, client_id: "", ..ConnectRef::default() });
    assert!(w.is_hung_up(refused));
    w.send_raw(p, &[0xF0, 0x00, 0xFF]);
    let counted = w.broker.stats().counters;
    assert_eq!((counted.connections, counted.connects, counted.accepted, counted.refused), (3, 3, 2, 1));
    assert_eq!((counted.refusals.client_id, counted.refusals.credentials), (1, 0));
    assert_eq!((counted.endings.protocol, counted.endings.lost), (1, 0));
    assert_eq!((counted.publish_received, counted.publish_sent), ([2, 1, 1], [4, 0, 0]));
    assert_eq!((counted.payload_received, counted.payload_sent), (16, 16));
    let sent: usize = [s, p, refused].into_iter().map(|peer| w.got_raw(peer).len()).sum();
    assert_eq!(counted.bytes_sent as usize - before, sent);
    let stats = w.broker.stats();
    assert_eq!((stats.unsent_bytes, stats.unsent_packets), (0, 0));
}

#[test]
fn pages_show_everything_once_and_change_nothing() {
    let mut w = World::new(BrokerConfig::default());
    for n in 0..25 {
        let peer = w.client(Version::V5, &format!("c{n}"));
        w.send(peer, &subscribe(1, &filter(&format!("f/{}", n % 7), QoS::AtLeastOnce)));
        w.send(peer, &subscribe(2, &filter("$share/g/x", QoS::AtLeastOnce)));
        w.send(peer, &retained(&format!("r/{n}"), 0, 0, "kept"));
    }
    let before = w.broker.stats();
    let (mut clients, mut subscriptions, mut topics) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut next = Some(0);
    while let Some(at) = next {
        let page = w.broker.clients(w.now, at, 4, true);
        assert!(page.items.len() <= 4);
        for client in page.items {
            assert_eq!(client.subscriptions, 2);
            assert!(clients.insert(client.client_id), "twice");
        }
        next = page.next;
    }
    next = Some(0);
    while let Some(at) = next {
        let page = w.broker.subscriptions(None, at, 4).expect("all");
        for subscription in page.items {
            let client = subscription.client_id.expect("a client's");
            assert!(subscriptions.insert((client, subscription.filter)), "twice");
        }
        next = page.next;
    }
    next = Some(0);
    while let Some(at) = next {
        let page = w.broker.retained(w.now, at, 4);
        assert!(page.items.iter().all(|retained| retained.payload_len == 4));
        topics.extend(page.items.into_iter().map(|retained| retained.topic));
        next = page.next;
    }
    assert_eq!((clients.len(), subscriptions.len(), topics.len()), (25, 50, 25));
    assert!(subscriptions.contains(&("c3".to_owned(), "$share/g/x".to_owned())));
    let own = w.broker.subscriptions(Some("c3"), 0, 10).expect("it is there");
    assert_eq!(own.items.len(), 2);
    assert_eq!(w.broker.subscriptions(Some("nobody"), 0, 10), None);
    assert_eq!(w.broker.stats(), before);
}

#[test]
fn pages_of_a_filter_with_many_subscribers_neither_miss_nor_repeat() {
    let mut w = World::new(BrokerConfig::default());
    for n in 0..20 {
        let peer = w.client(Version::V5, &format!("c{n}"));
        w.send(peer, &subscribe(1, &filter("wide", QoS::AtLeastOnce)));
        for group in ["a", "b", "c"] {
            w.send(peer, &subscribe(2, &filter(&format!("$share/{group}/wide"), QoS::AtLeastOnce)));
        }
    }
    for limit in [1, 7, 20, 64, 1000] {
        let mut seen = BTreeSet::new();
        let mut next = Some(0);
        while let Some(at) = next {
            let page = w.broker.subscriptions(None, at, limit).expect("all");
            assert!(page.items.len() <= limit);
            for subscription in page.items {
                assert!(seen.insert((subscription.client_id, subscription.filter)), "twice at {limit}");
            }
            next = page.next;
        }
        assert_eq!(seen.len(), 80, "pages of {limit}");
    }
    let mut own = Vec::new();
    let mut next = Some(0);
    while let Some(at) = next {
        let page = w.broker.subscriptions(Some("c3"), at, 3).expect("it is there");
        own.extend(page.items.into_iter().map(|subscription| subscription.filter));
        next = page.next;
    }
    assert_eq!(own, ["wide", "$share/a/wide", "$share/b/wide", "$share/c/wide"]);
}

#[test]
fn a_session_and_a_retained_message_can_be_removed() {
    let mut w = World::new(BrokerConfig::default());
    let p = w.client(Version::V5, "p");
    w.send(p, &retained("r", 0, 0, "kept"));
    assert!(w.broker.retained_message(w.now, "r").is_some());
    assert!(w.broker.remove_retained(w.now, "r"));
    assert!(!w.broker.remove_retained(w.now, "r"));
    assert!(w.broker.remove_session(w.now, "p"));
    w.settle();
    assert_eq!(w.got(p), ["DISCONNECT 98"]);
    assert!(!w.broker.remove_session(w.now, "p"));
    let stats = w.broker.stats();
    assert_eq!((stats.sessions, stats.connections, stats.messages), (0, 0, 0));
}
