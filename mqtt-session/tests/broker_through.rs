//! Messages go straight into outboxes where nothing stands before them, and through queues where something
//! does. Nobody may see the difference.

use mqtt_proto::{
    ConnectRef, PacketRef, PropertiesBuf, Property, PublishRef, QoS, SubscribeFiltersBuf, Version,
};
use mqtt_session::Durability;
use mqtt_session::broker::BrokerConfig;
use mqtt_testkit::packets::{filter, puback, pubcomp, publish, pubrec, subscribe};
use mqtt_testkit::{PeerId, World};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

fn world() -> World {
    World::new(BrokerConfig::default())
}

fn v5(w: &mut World, client_id: &str, list: &[Property<'_>]) -> PeerId {
    let mut properties = PropertiesBuf::new();
    list.iter().for_each(|property| properties.push(*property).unwrap());
    let properties = properties.as_properties();
    let p = w.connect(&ConnectRef { client_id, properties, ..ConnectRef::default() });
    w.got(p);
    p
}

fn wants(w: &mut World, p: PeerId, name: &str) {
    w.send(p, &subscribe(1, &filter(name, QoS::ExactlyOnce)));
    w.got(p);
}

/// So many messages in one read, numbered in their payloads.
fn burst(w: &mut World, p: PeerId, count: usize) {
    let mut bytes = Vec::new();
    for n in 0..count {
        publish("t", 0, 0, &n.to_string()).encode(Version::V5, &mut bytes).unwrap();
    }
    w.send_raw(p, &bytes);
}

fn numbers(w: &mut World, p: PeerId) -> Vec<String> {
    w.got(p).iter().map(|line| line.split('"').nth(1).unwrap_or_default().to_owned()).collect()
}

/// [MQTT-4.6.0-6]
#[test]
fn it_does_not_overtake_what_waits_for_room_in_the_window() {
    let mut w = world();
    let s = v5(&mut w, "s", &[Property::ReceiveMaximum(1)]);
    wants(&mut w, s, "t");
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 1, 1, "a"));
    w.send(p, &publish("t", 0, 0, "b"));
    w.send(p, &publish("t", 1, 2, "c"));
    w.send(p, &publish("t", 0, 0, "d"));
    assert_eq!(w.got(s), ["PUBLISH t q1 #1 \"a\"", "PUBLISH t q0 \"b\""]);
    w.send(s, &puback(1));
    assert_eq!(w.got(s), ["PUBLISH t q1 #2 \"c\"", "PUBLISH t q0 \"d\""]);
}

#[test]
fn a_burst_that_an_outbox_has_no_room_for_stays_in_order() {
    let mut w = world();
    let (s, p) = (w.client(Version::V5, "s"), w.client(Version::V5, "p"));
    wants(&mut w, s, "t");
    // More than an outbox takes in one go, fewer than the queue's limit behind that.
    burst(&mut w, p, 14_000);
    let wanted: Vec<String> = (0..14_000).map(|n| n.to_string()).collect();
    let got = numbers(&mut w, s);
    assert_eq!(got.len(), wanted.len());
    assert_eq!(got, wanted);
}

#[test]
fn who_does_not_read_gets_it_later_and_in_order() {
    let mut w = world();
    let (s, p) = (w.client(Version::V5, "s"), w.client(Version::V5, "p"));
    wants(&mut w, s, "t");
    w.set_reads(s, false);
    for _ in 0..5 {
        burst(&mut w, p, 100);
    }
    assert_eq!(numbers(&mut w, s).len(), 0);
    w.set_reads(s, true);
    let wanted: Vec<String> = (0..500).map(|n| (n % 100).to_string()).collect();
    assert_eq!(numbers(&mut w, s), wanted);
}

#[test]
fn no_more_is_written_ahead_than_the_adapter_takes_at_once() {
    let mut w = world();
    w.outbox_max = 200;
    let (s, p) = (w.client(Version::V5, "s"), w.client(Version::V5, "p"));
    wants(&mut w, s, "t");
    w.set_reads(s, false);
    burst(&mut w, p, 100);
    let unsent = w.broker.stats().unsent_bytes;
    assert!((1..250).contains(&unsent), "{unsent}");
    w.set_reads(s, true);
    assert_eq!(numbers(&mut w, s).len(), 100);
}

/// A link that takes nothing is closed at its time, and what was written for it does not count as written.
#[test]
fn a_link_that_takes_nothing_ends() {
    let mut w = world();
    let (s, p) = (w.client(Version::V5, "s"), w.client(Version::V5, "p"));
    wants(&mut w, s, "t");
    w.set_reads(s, false);
    burst(&mut w, p, 100);
    w.advance(Duration::from_secs(3600));
    assert!(w.is_hung_up(s));
    assert_eq!(w.broker.stats().unsent_bytes, 0);
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn what_is_too_large_for_one_reaches_the_others() {
    let mut w = world();
    let small = v5(&mut w, "small", &[Property::MaximumPacketSize(50)]);
    let large = w.client(Version::V5, "large");
    wants(&mut w, small, "t");
    wants(&mut w, large, "t");
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 0, 0, &"x".repeat(100)));
    w.send(p, &publish("t", 0, 0, "short"));
    assert_eq!(w.got(small), ["PUBLISH t q0 \"short\""]);
    assert_eq!(w.got(large).len(), 2);
    assert_eq!(w.broker.stats().counters.dropped.too_large, 1);
}

/// Each gets its own packet, whatever the one before got.
#[test]
fn versions_identifiers_and_aliases_are_each_receivers_own() {
    let mut w = world();
    let old = w.client(Version::V311, "old");
    let new = w.client(Version::V5, "new");
    let aliased = v5(&mut w, "aliased", &[Property::TopicAliasMaximum(5)]);
    let named = w.client(Version::V5, "named");
    let newer = w.client(Version::V5, "newer");
    for p in [old, new, aliased, newer] {
        wants(&mut w, p, "t");
    }
    let mut properties = PropertiesBuf::new();
    properties.push(Property::SubscriptionIdentifier(7)).unwrap();
    let filters = filter("t", QoS::AtMostOnce);
    let PacketRef::Subscribe(mut packet) = subscribe(1, &filters) else { unreachable!() };
    packet.properties = properties.as_properties();
    w.send(named, &PacketRef::Subscribe(packet));
    w.got(named);
    let p = w.client(Version::V5, "p");
    let mut properties = PropertiesBuf::new();
    properties.push(Property::MessageExpiryInterval(9)).unwrap();
    properties.push(Property::ContentType("text")).unwrap();
    for _ in 0..2 {
        let properties = properties.as_properties();
        w.send(p, &PacketRef::Publish(PublishRef { topic: "t", properties, ..PublishRef::default() }));
    }
    let all = [old, new, aliased, named, newer].map(|p| w.got(p));
    assert!(all.iter().all(|lines| lines.len() == 2), "{all:?}");
    assert_eq!(all[0][0], "PUBLISH t q0 \"\"");
    assert_eq!(all[1], all[4]);
    assert!(all[1][0].contains("text") && all[1][0].contains('9'), "{all:?}");
    assert!(all[3][0].contains('7'), "{all:?}");
    assert_eq!(all[1], all[2], "the second one is by its alias, which stands for the topic");
}

/// Whoever has no room is behind whoever has, and the publisher hears of it if that is all.
#[test]
fn above_qos_0_sessions_that_end_with_their_connection_hold_nothing() {
    let mut config = BrokerConfig::default();
    config.max_queued_messages = 1;
    // Whether a queue of another shard is full is not known when the message is taken.
    let mut w = World::of_one_shard(config);
    let s = v5(&mut w, "s", &[Property::ReceiveMaximum(1)]);
    wants(&mut w, s, "t");
    let p = w.client(Version::V5, "p");
    w.send(p, &publish("t", 2, 1, "first"));
    assert_eq!(w.broker.stats().messages, 0, "nobody will get it again");
    w.send(p, &publish("t", 1, 2, "second"));
    assert_eq!(w.broker.stats().messages, 1, "it waits");
    w.send(p, &publish("t", 1, 3, "third"));
    w.send(p, &publish("t", 2, 4, "fourth"));
    assert_eq!(w.got(p), ["PUBREC #1", "PUBACK #2", "PUBACK #3 97", "PUBREC #4 97"]);
    w.send(s, &pubrec(1));
    w.send(s, &pubcomp(1));
    assert_eq!(w.got(s), ["PUBLISH t q2 #1 \"first\"", "PUBREL #1", "PUBLISH t q1 #2 \"second\""]);
    w.send(s, &puback(2));
    // A group holds what it has given to a member: another may have to get it.
    let m = v5(&mut w, "m", &[]);
    w.send(m, &subscribe(1, &filter("$share/g/t", QoS::AtLeastOnce)));
    w.got(m);
    w.send(p, &publish("t", 1, 5, "for both"));
    assert_eq!(w.got(s), ["PUBLISH t q1 #3 \"for both\""]);
    assert_eq!(w.got(m), ["PUBLISH t q1 #1 \"for both\""]);
    w.send(s, &puback(3));
    assert_eq!(w.broker.stats().messages, 1);
    w.send(m, &puback(1));
    assert_eq!(w.broker.stats().messages, 0);
}

#[derive(Clone, Debug)]
struct Wanting {
    version: Version,
    qos: u8,
    as_published: bool,
    id: Option<u32>,
    aliases: u16,
    window: u16,
    most: Option<u32>,
    /// Its session outlives its connection.
    lasts: bool,
}

fn receiver() -> impl Strategy<Value = Wanting> {
    let version =
        prop::sample::select(vec![Version::V31, Version::V311, Version::V311, Version::V5, Version::V5]);
    let (id, aliases) = (
        prop_oneof![3 => Just(None), 1 => (1u32..300).prop_map(Some)],
        prop_oneof![3 => Just(0u16), 1 => 1u16..3],
    );
    let most = prop_oneof![4 => Just(None), 1 => (30u32..300).prop_map(Some)];
    let window = prop_oneof![Just(2u16), Just(100)];
    (version, 0u8..3, any::<bool>(), id, aliases, window, most, any::<bool>()).prop_map(
        |(version, qos, as_published, id, aliases, window, most, lasts)| Wanting {
            version,
            qos,
            as_published,
            id,
            aliases,
            window,
            most,
            lasts,
        },
    )
}

/// By which publisher, topic, QoS, RETAIN, and how large.
fn message() -> impl Strategy<Value = (usize, usize, u8, bool, usize)> {
    (
        0..2usize,
        0..2usize,
        0u8..3,
        any::<bool>(),
        prop::sample::select(vec![0usize, 5, 90, 130, 260, 4000, 4090, 5000]),
    )
}

/// A broker with these subscribers, for each of whom so many may wait.
fn site(receivers: &[Wanting], is_stored: bool, max_queued_messages: u32) -> (World, Vec<PeerId>) {
    let mut config = BrokerConfig::default();
    config.max_queued_messages = max_queued_messages;
    config.durability = if is_stored { Durability::Synced } else { Durability::Off };
    let mut w = World::new(config);
    w.confirm_stores();
    let mut links = Vec::new();
    for (n, wanting) in receivers.iter().enumerate() {
        let is_new = wanting.version.is_v5();
        let mut properties = PropertiesBuf::new();
        if is_new {
            properties.push(Property::ReceiveMaximum(wanting.window)).unwrap();
            properties.push(Property::TopicAliasMaximum(wanting.aliases)).unwrap();
            properties.push(Property::SessionExpiryInterval(wanting.lasts.into())).unwrap();
            wanting
                .most
                .into_iter()
                .for_each(|most| properties.push(Property::MaximumPacketSize(most)).unwrap());
        }
        let (client_id, properties) = (n.to_string(), properties.as_properties());
        let (version, client_id, clean_start) = (wanting.version, client_id.as_str(), !wanting.lasts);
        let p =
            w.connect(&ConnectRef { version, client_id, clean_start, properties, ..ConnectRef::default() });
        w.got(p);
        let mut options = mqtt_proto::SubscriptionOptions::from(QoS::from_u8(wanting.qos).unwrap());
        options.retain_as_published = is_new && wanting.as_published;
        let mut list = SubscribeFiltersBuf::new();
        list.push("#", options).unwrap();
        let PacketRef::Subscribe(mut packet) = subscribe(1, &list) else { unreachable!() };
        let mut properties = PropertiesBuf::new();
        if let Some(id) = wanting.id.filter(|_| is_new) {
            properties.push(Property::SubscriptionIdentifier(id)).unwrap();
        }
        packet.properties = properties.as_properties();
        w.send(p, &PacketRef::Subscribe(packet));
        w.got(p);
        links.push(p);
    }
    (w, links)
}

/// What each subscriber gets; some acknowledge QoS 1.
fn run(
    w: &mut World,
    publishers: &[PeerId; 2],
    links: &[PeerId],
    messages: &[(usize, usize, u8, bool, usize)],
) -> Vec<Vec<String>> {
    let mut got = vec![Vec::new(); links.len()];
    for (n, (publisher, topic, qos, retain, size)) in messages.iter().enumerate() {
        let topic = ["t", "a/longer/topic/with/some/levels"][*topic];
        let payload = format!("{n:<size$}");
        let packet_id = mqtt_proto::PacketId::new(u16::try_from(n + 1).unwrap()).filter(|_| *qos > 0);
        let qos = QoS::from_u8(*qos).unwrap();
        let payload = payload.as_bytes();
        let publish = PublishRef { topic, qos, packet_id, retain: *retain, payload, ..PublishRef::default() };
        w.send(publishers[*publisher], &PacketRef::Publish(publish));
        w.confirm_stores();
        for (link, got) in links.iter().zip(&mut got) {
            for line in w.got(*link) {
                let id = line.split(" q1 #").nth(1).and_then(|rest| rest.split(' ').next());
                if let Some(id) = id.and_then(|id| id.parse().ok()).filter(|id| id % 2 == 0) {
                    w.send(*link, &puback(id));
                }
                got.push(line);
            }
        }
    }
    got
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(usize, usize, bool),
    Unsubscribe(usize, usize),
    Publish(usize, usize),
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (client, name) = (0..3usize, 0..FILTERS.len());
    prop_oneof![
        1 => (client.clone(), name.clone(), any::<bool>()).prop_map(|(c, f, own)| Step::Subscribe(c, f, own)),
        1 => (client.clone(), name).prop_map(|(c, f)| Step::Unsubscribe(c, f)),
        5 => (client.clone(), 0..TOPICS.len()).prop_map(|(c, t)| Step::Publish(c, t)),
        1 => client.prop_map(Step::Leave),
    ]
}

const FILTERS: [&str; 6] = ["a", "a/b", "a/+", "#", "+/b", "a/#"];
const TOPICS: [&str; 3] = ["a", "a/b", "c/b"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What one of many gets is what it would get if it were alone.
    #[test]
    fn many_receivers_change_nothing_for_each(
        receivers in prop::collection::vec(receiver(), 2..7),
        messages in prop::collection::vec(message(), 1..8),
        is_stored in any::<bool>(),
    ) {
        let (mut w, links) = site(&receivers, is_stored, 1000);
        let publishers = [w.client(Version::V5, "p"), w.client(Version::V311, "q")];
        let together = run(&mut w, &publishers, &links, &messages);
        for (n, receiver) in receivers.iter().enumerate() {
            let (mut w, links) = site(std::slice::from_ref(receiver), is_stored, 1000);
            let publishers = [w.client(Version::V5, "p"), w.client(Version::V311, "q")];
            let alone = run(&mut w, &publishers, &links, &messages);
            prop_assert_eq!(&together[n], &alone[0], "{:?}", receiver);
        }
    }

    /// A message above QoS 0 is only held for those that may have to get it again, and nobody sees a difference, not even
    /// who publishes and is told that nobody has room. Who got it once and is gone left nothing.
    #[test]
    fn sessions_that_last_and_those_that_do_not_get_the_same(
        receivers in prop::collection::vec(receiver(), 1..5),
        messages in prop::collection::vec(message(), 1..12),
        max_queued_messages in 1..5u32,
    ) {
        let mut seen = Vec::new();
        // All last, none does, or some.
        for lasts in [Some(true), Some(false), None] {
            let with = |receiver: &Wanting| Wanting { lasts: lasts.unwrap_or(receiver.lasts), ..receiver.clone() };
            let receivers: Vec<Wanting> = receivers.iter().map(with).collect();
            let (mut w, links) = site(&receivers, false, max_queued_messages);
            let publishers = [w.client(Version::V5, "p"), w.client(Version::V311, "q")];
            let got = run(&mut w, &publishers, &links, &messages);
            seen.push((got, publishers.map(|publisher| w.got(publisher))));
            if lasts == Some(false) {
                links.into_iter().for_each(|link| w.cut(link));
                let stats = w.broker.stats();
                let retained = stats.retained;
                prop_assert!(stats.messages <= retained, "{} and {}", stats.messages, retained);
            }
        }
        prop_assert_eq!(&seen[0], &seen[1]);
        prop_assert_eq!(&seen[0], &seen[2]);
    }

    /// Who was found for a topic is not who gets the next message, if subscriptions changed meanwhile.
    #[test]
    fn what_is_remembered_of_a_topic_is_never_old(steps in prop::collection::vec(step(), 1..60)) {
        let mut w = world();
        let mut clients: Vec<PeerId> = (0..3).map(|n| w.client(Version::V5, &n.to_string())).collect();
        let mut wanted: Vec<BTreeMap<usize, bool>> = vec![BTreeMap::new(); 3];
        for step in steps {
            match step {
                Step::Subscribe(c, f, own) => {
                    let mut options = mqtt_proto::SubscriptionOptions::from(QoS::AtMostOnce);
                    options.no_local = own;
                    let mut list = SubscribeFiltersBuf::new();
                    list.push(FILTERS[f], options).unwrap();
                    w.send(clients[c], &subscribe(1, &list));
                    wanted[c].insert(f, own);
                }
                Step::Unsubscribe(c, f) => {
                    mqtt_testkit::packets::unsubscribe(2, FILTERS[f], |packet| w.send(clients[c], packet));
                    wanted[c].remove(&f);
                }
                Step::Leave(c) => {
                    w.cut(clients[c]);
                    clients[c] = w.client(Version::V5, &c.to_string());
                    wanted[c].clear();
                }
                Step::Publish(from, t) => {
                    clients.iter().for_each(|&c| drop(w.got(c)));
                    w.send(clients[from], &publish(TOPICS[t], 0, 0, "x"));
                    let topic = mqtt_proto::TopicName::new(TOPICS[t]).unwrap();
                    for (c, filters) in wanted.iter().enumerate() {
                        let gets = filters.iter().any(|(&f, &own)| {
                            !(own && c == from) && mqtt_proto::TopicFilter::new(FILTERS[f]).unwrap().matches(topic)
                        });
                        prop_assert_eq!(w.got(clients[c]).len(), usize::from(gets), "{} {}", c, TOPICS[t]);
                    }
                }
            }
        }
    }
}
