//! Which stream gets a message of all that come in one read: those that it subscribed to, in their order, whatever else
//! comes between them. On a runtime that is nothing but memory; the server is the test.

use mqtt_io::client::{Client, Item, Options, Server, Subscription};
use mqtt_proto::{
    AckRef, ConnackRef, PacketId, PacketRef, Properties, PropertiesBuf, Property, PublishRef, QoS, SubackRef,
    TopicFilter, TopicName, Version,
};
use mqtt_testkit::adapters::{Memory, Wire};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

const VERSION: Version = Version::V5;

/// A client, and the server beside it.
struct Site {
    runtime: Memory,
    wire: Wire,
    client: Client<Memory>,
    /// The last message that the client published: where a response goes, and its correlation data.
    asked: Option<(String, Vec<u8>)>,
    acknowledged: usize,
}

fn encode(packet: &PacketRef<'_>, into: &mut Vec<u8>) {
    packet.encode(VERSION, into).unwrap();
}

impl Site {
    fn new(configure: impl FnOnce(Options<Memory, Wire>) -> Options<Memory, Wire>) -> Self {
        let (runtime, wire) = (Memory::default(), Wire::default());
        let mut connack = Vec::new();
        encode(&PacketRef::Connack(ConnackRef::default()), &mut connack);
        wire.send(&connack);
        let options = Options::<Memory, _>::to(Server::tcp("memory", 1)).runtime(runtime.clone());
        let options = configure(options.version(VERSION).client_id("c").connector(wire.clone()));
        let client = runtime.run(options.connect()).unwrap();
        Self { runtime, wire, client, asked: None, acknowledged: 0 }
    }

    /// Runs until `future` is ready or the client has published something; the server answers meanwhile.
    fn run<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let (mut sent, mut polls) = (Vec::new(), 0);
        let runtime = self.runtime.clone();
        runtime.run(poll_fn(|cx| {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            let mut piece = Vec::new();
            self.wire.swap_sent(&mut piece);
            sent.append(&mut piece);
            sent.drain(..self.answer(&sent));
            cx.waker().wake_by_ref();
            polls += 1;
            assert!(polls < 1000, "it never comes");
            if self.asked.is_some() { Poll::Ready(None) } else { Poll::Pending }
        }))
    }

    /// Answers whole packets, and tells their length.
    fn answer(&mut self, sent: &[u8]) -> usize {
        let (mut used, mut answers) = (0, Vec::new());
        while let Some((packet, len)) = PacketRef::decode_next(&sent[used..], VERSION, u32::MAX).unwrap() {
            used += len;
            match packet {
                PacketRef::Subscribe(subscribe) => {
                    let codes = vec![1; subscribe.filters.into_iter().count()];
                    let (packet_id, properties) = (subscribe.packet_id, Properties::EMPTY);
                    encode(
                        &PacketRef::Suback(SubackRef { packet_id, properties, codes: &codes }),
                        &mut answers,
                    );
                }
                PacketRef::Publish(publish) => {
                    encode(&PacketRef::Puback(AckRef::from(publish.packet_id.unwrap())), &mut answers);
                    let properties = publish.properties;
                    let (to, data) = (properties.response_topic(), properties.correlation_data());
                    self.asked = Some((to.unwrap().to_owned(), data.unwrap().to_vec()));
                }
                PacketRef::Puback(_) => self.acknowledged += 1,
                _ => {}
            }
        }
        self.wire.send(&answers);
        used
    }

    fn subscribe(&mut self, filters: &[&str]) -> Subscription {
        let list: Vec<_> = filters.iter().map(|filter| (*filter, QoS::AtLeastOnce.into())).collect();
        let client = self.client.clone();
        self.run(async { client.subscribe_all(&list, &PropertiesBuf::new()).await.unwrap() }).unwrap()
    }
}

/// What a message is, as text.
fn text(item: Option<Item>) -> Option<String> {
    match item? {
        Item::Message(message) => {
            let kind = message.properties.as_properties().content_type().unwrap_or_default().to_owned();
            let number = String::from_utf8_lossy(&message.payload).trim().to_owned();
            Some(format!("{} {number} {:?} {kind}", message.topic, message.qos))
        }
        Item::Lagged(n) => Some(format!("lagged {n}")),
        other => Some(format!("{other:?}")),
    }
}

fn matches(filter: &str, topic: &str) -> bool {
    TopicFilter::new(filter).unwrap().matches(TopicName::new(topic).unwrap())
}

/// The same numbers each time.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

#[test]
fn each_stream_gets_what_it_subscribed_to_in_order() {
    let wanted: [&[&str]; 4] = [&["a/#"], &["b/#", "c/x"], &["+/x"], &["a/x", "a/y"]];
    let topics = ["a/x", "a/y", "a/z", "b/x", "b/y", "c/x", "c/y", "d"];
    for seed in 0..200 {
        let mut number = numbers(seed);
        let mut pick = |below: usize| usize::try_from(number(u64::try_from(below).unwrap())).unwrap();
        let mut site = Site::new(|options| options);
        let streams = pick(wanted.len()) + 1;
        let mut streams: Vec<_> =
            wanted[..streams].iter().map(|filters| (*filters, site.subscribe(filters))).collect();
        let mut unclaimed = site.client.unclaimed().unwrap();
        let mut counted = 0;
        for _ in 0..8 {
            let mut bytes = Vec::new();
            let mut came: Vec<(String, String)> = Vec::new();
            // In some rounds all is for one stream.
            let choice = [8, 1, 3, 8][pick(4)];
            for n in 0..pick(60) {
                let topic = topics[pick(choice)];
                let qos = if pick(3) == 0 { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                // An answer may be on its way for each that came before: they have other identifiers.
                counted += usize::from(qos > QoS::AtMostOnce);
                let id = u16::try_from(counted % 60_000 + 1).unwrap();
                let width = if pick(20) == 0 { 2000 } else { 4 };
                let payload = format!("{n:<width$}");
                let mut properties = PropertiesBuf::new();
                let kind = if pick(5) == 0 { "kind" } else { "" };
                if !kind.is_empty() {
                    properties.push(Property::ContentType(kind)).unwrap();
                }
                let packet_id = PacketId::new(id).filter(|_| qos > QoS::AtMostOnce);
                let publish = PublishRef {
                    qos,
                    topic,
                    packet_id,
                    payload: payload.as_bytes(),
                    properties: properties.as_properties(),
                    ..PublishRef::default()
                };
                encode(&PacketRef::Publish(publish), &mut bytes);
                came.push((topic.to_owned(), format!("{topic} {n} {qos:?} {kind}")));
            }
            site.wire.send(&bytes);
            let all = || came.iter();
            for (filters, stream) in &mut streams {
                let mine = all().filter(|(topic, _)| filters.iter().any(|filter| matches(filter, topic)));
                for (_, message) in mine {
                    let got = site.run(stream.recv()).unwrap();
                    assert_eq!(text(got).as_ref(), Some(message), "seed {seed}: {filters:?}");
                }
            }
            let claimed = |topic: &str| streams.iter().any(|(f, _)| f.iter().any(|f| matches(f, topic)));
            for (_, message) in all().filter(|(topic, _)| !claimed(topic)) {
                let got = site.run(unclaimed.recv()).unwrap();
                assert_eq!(text(got).as_ref(), Some(message), "seed {seed}: unclaimed");
            }
        }
        for (filters, stream) in &mut streams {
            assert_eq!(text(stream.try_recv()), None, "seed {seed}: {filters:?}");
        }
        assert_eq!(text(unclaimed.try_recv()), None, "seed {seed}");
        // Everything is acknowledged once all that got it have taken it.
        let mut rounds = 0;
        while site.acknowledged < counted {
            let mut waited = false;
            site.run(poll_fn(|_| {
                if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
            }));
            rounds += 1;
            assert!(rounds < 100, "seed {seed}: {} of {counted} acknowledged", site.acknowledged);
        }
        assert_eq!(site.acknowledged, counted, "seed {seed}");
    }
}

/// A response is for who asked, also among messages of a stream that would match its topic.
#[test]
fn a_response_goes_to_who_asked() {
    for before in 0..3 {
        let mut site = Site::new(|options| options);
        let mut stream = site.subscribe(&["#"]);
        let client = site.client.clone();
        let mut asking = Box::pin(client.request("ask", "?"));
        assert!(site.run(asking.as_mut()).is_none(), "nobody has answered");
        let (inbox, data) = site.asked.take().unwrap();
        let mut bytes = Vec::new();
        for n in 0..3 {
            let mut properties = PropertiesBuf::new();
            if n == before {
                properties.push(Property::CorrelationData(&data)).unwrap();
            }
            let (topic, properties) = (if n == before { &*inbox } else { "t" }, properties.as_properties());
            let publish = PublishRef { topic, payload: b"!", properties, ..PublishRef::default() };
            encode(&PacketRef::Publish(publish), &mut bytes);
        }
        site.wire.send(&bytes);
        let answer = site.run(asking).unwrap().unwrap();
        assert_eq!((answer.topic, &answer.payload[..]), (inbox, &b"!"[..]));
        for _ in 0..2 {
            assert_eq!(text(site.run(stream.recv()).unwrap()).unwrap(), "t ! AtMostOnce ");
        }
        assert_eq!(text(stream.try_recv()), None);
    }
}

/// What a full stream drops is what would not have been dropped one by one, and it says how much that was.
#[test]
fn a_full_stream_counts_what_it_drops() {
    for capacity in [1, 5, 17, 40, 100] {
        let mut site = Site::new(|options| options.stream_capacity(capacity));
        let mut stream = site.subscribe(&["t"]);
        let mut bytes = Vec::new();
        for n in 0..60 {
            let payload = format!("{n}");
            let publish = PublishRef { topic: "t", payload: payload.as_bytes(), ..PublishRef::default() };
            encode(&PacketRef::Publish(publish), &mut bytes);
        }
        site.wire.send(&bytes);
        for n in 0..capacity.min(60) {
            assert_eq!(text(site.run(stream.recv()).unwrap()).unwrap(), format!("t {n} AtMostOnce "));
        }
        let rest = (capacity < 60).then(|| format!("lagged {}", 60 - capacity));
        assert_eq!(text(stream.try_recv()), rest, "{capacity}");
        assert_eq!(text(stream.try_recv()), None);
    }
}
