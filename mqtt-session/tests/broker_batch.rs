//! Messages that one read brings are encoded together for those who get all of them. Nobody may tell that from
//! messages that came one by one.

use mqtt_proto::{
    ConnectRef, DisconnectRef, PacketRef, PropertiesBuf, Property, PublishRef, QoS, ReasonCode,
    RetainHandling, SubscribeFiltersBuf, Version,
};
use mqtt_session::broker::BrokerConfig;
use mqtt_testkit::packets::{filter, id, publish, subscribe, unsubscribe};
use mqtt_testkit::{PeerId, World};
use proptest::prelude::*;

const TOPICS: [&str; 3] = ["t", "t/a", "u"];
const FILTERS: [&str; 4] = ["#", "t/#", "t", "+"];

/// Everybody who may be different from the others.
struct Site {
    world: World,
    receivers: Vec<PeerId>,
    publisher: PeerId,
}

impl Site {
    fn new(room: usize, reads: bool) -> Self {
        let mut w = World::new(BrokerConfig::default());
        w.outbox_max = room;
        let of = |w: &mut World, version, client_id, list: &[Property<'_>]| {
            let mut properties = PropertiesBuf::new();
            list.iter().for_each(|property| properties.push(*property).unwrap());
            let properties = properties.as_properties();
            w.connect(&ConnectRef { version, client_id, properties, ..ConnectRef::default() })
        };
        let receivers = vec![
            of(&mut w, Version::V311, "old", &[]),
            of(&mut w, Version::V5, "new", &[]),
            of(&mut w, Version::V31, "oldest", &[]),
            of(&mut w, Version::V5, "aliased", &[Property::TopicAliasMaximum(2)]),
            of(&mut w, Version::V5, "small", &[Property::MaximumPacketSize(200)]),
            of(&mut w, Version::V5, "identified", &[]),
            of(&mut w, Version::V5, "stuck", &[]),
            of(&mut w, Version::V5, "picky", &[]),
        ];
        for (n, &receiver) in receivers.iter().enumerate() {
            let mut properties = PropertiesBuf::new();
            if n == 5 {
                properties.push(Property::SubscriptionIdentifier(9)).unwrap();
            }
            let filters = filter(if n == 7 { "t/#" } else { "#" }, QoS::AtLeastOnce);
            let PacketRef::Subscribe(mut packet) = subscribe(1, &filters) else { unreachable!() };
            packet.properties = properties.as_properties();
            w.send(receiver, &PacketRef::Subscribe(packet));
        }
        w.set_reads(receivers[6], reads);
        let publisher = w.client(Version::V5, "publisher");
        Self { world: w, receivers, publisher }
    }

    /// What everybody got, the publisher last: messages in their order; and all else, since acknowledgements may overtake
    /// messages that wait for room, and each other where one waits for other shards.
    fn end(mut self) -> Vec<(Vec<String>, Vec<String>)> {
        self.world.set_reads(self.receivers[6], true);
        self.receivers.push(self.publisher);
        let all = self.receivers.iter().map(|&receiver| self.world.got(receiver));
        let parts = all.map(|lines| {
            let (messages, mut answers): (Vec<_>, Vec<_>) =
                lines.into_iter().partition(|line| line.starts_with("PUBLISH"));
            answers.sort_unstable();
            (messages, answers)
        });
        parts.collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish { topic: usize, qos: u8, retain: bool, expires: bool, len: usize },
    Subscribe { filter: usize, no_local: bool },
    Unsubscribe { filter: usize },
    Ping,
    Disconnect { with_will: bool },
    Nonsense,
}

impl Step {
    /// The bytes of the `number`th packet of a read.
    fn encode(&self, number: usize, bytes: &mut Vec<u8>) {
        let packet_id = u16::try_from(number + 1).unwrap();
        let mut encode = |packet: &PacketRef<'_>| {
            packet.encode(Version::V5, bytes).unwrap();
        };
        match *self {
            Self::Publish { topic, qos, retain, expires, len } => {
                let payload = format!("{number}{}", "x".repeat(len));
                let mut properties = PropertiesBuf::new();
                if expires {
                    properties.push(Property::MessageExpiryInterval(60)).unwrap();
                    properties.push(Property::ContentType("text")).unwrap();
                }
                let PacketRef::Publish(packet) = publish(TOPICS[topic], qos, 0, &payload) else { return };
                let packet_id = (qos > 0).then(|| id(packet_id));
                let properties = properties.as_properties();
                encode(&PacketRef::Publish(PublishRef { retain, packet_id, properties, ..packet }));
            }
            Self::Subscribe { filter, no_local } => {
                let mut options = mqtt_proto::SubscriptionOptions::from(QoS::AtMostOnce);
                options.no_local = no_local;
                // What is replaced meanwhile need not be sent.
                options.retain_handling = RetainHandling::DoNotSend;
                let mut list = SubscribeFiltersBuf::new();
                list.push(FILTERS[filter], options).unwrap();
                encode(&subscribe(packet_id, &list));
            }
            Self::Unsubscribe { filter } => unsubscribe(packet_id, FILTERS[filter], encode),
            Self::Ping => encode(&PacketRef::Pingreq),
            Self::Disconnect { with_will } => {
                let reason = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
                encode(&PacketRef::Disconnect(DisconnectRef { reason, ..DisconnectRef::default() }));
            }
            // A reserved type.
            Self::Nonsense => bytes.extend_from_slice(&[0x00, 0x00]),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let message =
        (0..TOPICS.len(), 0..3u8, any::<bool>(), any::<bool>(), prop_oneof![0..40usize, 900..1100usize]);
    let plain = (0..TOPICS.len(), 0..40usize);
    let filter = 0..FILTERS.len();
    prop_oneof![
        20 => plain.prop_map(|(topic, len)| Step::Publish { topic, qos: 0, retain: false, expires: false, len }),
        6 => message.prop_map(|(topic, qos, retain, expires, len)| Step::Publish { topic, qos, retain, expires, len }),
        2 => (filter.clone(), any::<bool>()).prop_map(|(filter, no_local)| Step::Subscribe { filter, no_local }),
        1 => filter.prop_map(|filter| Step::Unsubscribe { filter }),
        1 => Just(Step::Ping),
        1 => any::<bool>().prop_map(|with_will| Step::Disconnect { with_will }),
        1 => Just(Step::Nonsense),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn one_read_is_as_many_reads(
        steps in prop::collection::vec(step(), 1..60),
        room in prop_oneof![Just(64usize << 10), 100..2000usize],
        reads in any::<bool>(),
    ) {
        let (mut together, mut apart) = (Site::new(room, reads), Site::new(room, reads));
        let mut all = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            let mut bytes = Vec::new();
            step.encode(number, &mut bytes);
            all.extend_from_slice(&bytes);
            apart.world.send_raw(apart.publisher, &bytes);
        }
        together.world.send_raw(together.publisher, &all);
        // Who leaves does not get what waits for room.
        let stays = !steps.iter().any(|step| matches!(step, Step::Disconnect { .. } | Step::Nonsense));
        let counters = |site: &Site| site.world.broker.stats().counters;
        prop_assert_eq!(counters(&together).publish_received, counters(&apart).publish_received);
        prop_assert!(!stays || counters(&together).dropped == counters(&apart).dropped);
        let (mut together, mut apart) = (together.end(), apart.end());
        if !stays {
            together.pop();
            apart.pop();
        }
        for (place, (together, apart)) in together.into_iter().zip(apart).enumerate() {
            prop_assert_eq!(together, apart, "receiver {}", place);
        }
    }
}

/// More than one batch holds, to more receivers than one.
#[test]
fn what_does_not_fit_into_one_batch_goes_into_the_next() {
    let mut w = World::new(BrokerConfig::default());
    let receivers: Vec<PeerId> = (0..5).map(|n| w.client(Version::V5, &format!("s{n}"))).collect();
    for &receiver in &receivers {
        w.send(receiver, &subscribe(1, &filter("t", QoS::AtMostOnce)));
        w.got(receiver);
    }
    let publisher = w.client(Version::V5, "p");
    let mut bytes = Vec::new();
    for n in 0..100 {
        let payload = format!("{n:0500}");
        publish("t", 0, 0, &payload).encode(Version::V5, &mut bytes).unwrap();
    }
    w.send_raw(publisher, &bytes);
    for receiver in receivers {
        let got = w.got(receiver);
        assert_eq!(got.len(), 100);
        assert!(got.iter().enumerate().all(|(n, line)| line.contains(&format!("{n:0500}"))));
    }
    let stats = w.broker.stats();
    assert_eq!(stats.counters.publish_sent[0], 500);
    assert_eq!(stats.counters.payload_sent, 500 * 500);
}

/// [MQTT-3.3.2-8]
#[test]
fn who_takes_aliases_gets_them() {
    let mut w = World::new(BrokerConfig::default());
    let mut receivers: Vec<PeerId> = (0..4).map(|n| w.client(Version::V5, &format!("s{n}"))).collect();
    let mut properties = PropertiesBuf::new();
    properties.push(Property::TopicAliasMaximum(1)).unwrap();
    let properties = properties.as_properties();
    receivers.push(w.connect(&ConnectRef { client_id: "aliased", properties, ..ConnectRef::default() }));
    let topic = "a/rather/long/topic";
    for &receiver in &receivers {
        w.send(receiver, &subscribe(1, &filter(topic, QoS::AtMostOnce)));
        w.got_raw(receiver);
    }
    let publisher = w.client(Version::V5, "p");
    let mut bytes = Vec::new();
    for _ in 0..10 {
        publish(topic, 0, 0, "x").encode(Version::V5, &mut bytes).unwrap();
    }
    w.send_raw(publisher, &bytes);
    let lens: Vec<usize> = receivers.iter().map(|&receiver| w.got_raw(receiver).len()).collect();
    // The first one sets the alias, in three bytes more.
    let aliased = bytes.len() + 3 * 10 - 9 * topic.len();
    assert_eq!(lens, [bytes.len(), bytes.len(), bytes.len(), bytes.len(), aliased]);
}
