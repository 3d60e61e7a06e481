//! Properties that hold whatever the peers send.

use mqtt_proto::{ConnectRef, PacketRef, QoS, SubscribeFiltersBuf, TopicFilter, TopicName, Version};
use mqtt_session::broker::BrokerConfig;
use mqtt_testkit::World;
use mqtt_testkit::packets::{publish, subscribe};
use proptest::prelude::*;

fn level() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("a".into()), Just("b".into()), Just("$x".into()), "[ab]{2}"]
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a name", |t| !t.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 1 => Just("+".into())];
    (prop::collection::vec(level, 1..5), any::<bool>())
        .prop_map(|(mut levels, hash)| {
            if hash {
                levels.push("#".into());
            }
            levels.join("/")
        })
        .prop_filter("a filter", |f| !f.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The tree delivers exactly what a look at each filter would, live and retained.
    /// [MQTT-3.3.2-3]
    #[test]
    fn the_tree_agrees_with_a_naive_matcher(
        filters in prop::collection::vec(filter(), 1..12),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        topics in prop::collection::vec(topic(), 1..8),
    ) {
        let mut w = World::new(BrokerConfig::default());
        let p = w.client(Version::V5, "p");
        let mut peers = Vec::new();
        for (n, filter) in filters.iter().enumerate() {
            let s = w.client(Version::V5, &n.to_string());
            let mut list = SubscribeFiltersBuf::new();
            list.push(filter, QoS::AtMostOnce.into()).unwrap();
            w.send(s, &subscribe(1, &list));
            w.got(s);
            peers.push(Some(s));
        }
        for index in removed {
            if let Some(s) = peers[index.index(filters.len())].take() {
                w.cut(s);
            }
        }
        for topic in &topics {
            w.send(p, &mqtt_testkit::packets::retained(topic, 0, 0, "x"));
            for (filter, peer) in filters.iter().zip(&peers) {
                let matches = TopicFilter::new(filter).unwrap().matches(TopicName::new(topic).unwrap());
                if let Some(peer) = *peer {
                    prop_assert_eq!(w.got(peer).len(), usize::from(matches), "{} {}", filter, topic);
                }
            }
        }
        let distinct: std::collections::BTreeSet<_> = topics.iter().collect();
        for filter in &filters {
            let late = w.client(Version::V5, "late");
            let mut list = SubscribeFiltersBuf::new();
            list.push(filter, QoS::AtMostOnce.into()).unwrap();
            w.send(late, &subscribe(1, &list));
            let filter = TopicFilter::new(filter).unwrap();
            let wanted = distinct.iter().filter(|t| filter.matches(TopicName::new(t).unwrap())).count();
            prop_assert_eq!(w.got(late).len(), 1 + wanted, "{}", filter);
        }
    }

    /// Nothing that a peer sends makes the machine panic, or keep more than it was sent.
    #[test]
    fn any_bytes_are_survived(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..20),
        connected in any::<bool>(),
        version in prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)],
    ) {
        let mut w = World::new(BrokerConfig::default());
        let p = if connected { w.client(version, "p") } else { w.open(version) };
        for chunk in &chunks {
            w.send_raw(p, chunk);
        }
        w.cut(p);
        prop_assert_eq!(w.broker.stats().connections, 0);
    }

    /// However the bytes are cut, the broker does the same; and the same inputs give the same bytes.
    #[test]
    fn any_split_of_the_input_gives_the_same_output(
        cuts in prop::collection::vec(1usize..40, 1..40),
        topics in prop::collection::vec((topic(), 0u8..3), 1..10),
    ) {
        let mut bytes = Vec::new();
        let connect = ConnectRef { client_id: "p", clean_start: true, ..ConnectRef::default() };
        PacketRef::Connect(connect).encode(Version::V5, &mut bytes).unwrap();
        let mut list = SubscribeFiltersBuf::new();
        list.push("#", QoS::ExactlyOnce.into()).unwrap();
        subscribe(9, &list).encode(Version::V5, &mut bytes).unwrap();
        for (n, (topic, qos)) in topics.iter().enumerate() {
            let id = if *qos == 0 { 0 } else { n as u16 + 1 };
            publish(topic, *qos, id, "payload").encode(Version::V5, &mut bytes).unwrap();
        }
        let run = |cuts: &[usize]| {
            let mut w = World::new(BrokerConfig::default());
            let p = w.open(Version::V5);
            let mut rest = &bytes[..];
            for &cut in cuts.iter().cycle() {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                w.send_raw(p, head);
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            // Where acknowledgements stand among deliveries depends on when the outbox is drained.
            let mut lines = w.got(p);
            lines.sort();
            lines
        };
        let whole = run(&[bytes.len()]);
        prop_assert_eq!(&whole, &run(&cuts));
        let acknowledged = topics.iter().filter(|(_, qos)| *qos > 0).count();
        let delivered = topics.iter().filter(|(topic, _)| !topic.starts_with('$')).count();
        prop_assert_eq!(whole.len(), 2 + acknowledged + delivered);
    }
}
