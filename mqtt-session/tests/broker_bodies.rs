//! Large bodies leave from where they are held, without a copy for each receiver. Nobody may tell that from outboxes that
//! hold everything, however much of them a socket takes.

use mqtt_proto::{
    ConnectRef, MAX_PACKET_SIZE, PacketRef, PropertiesBuf, Property, QoS, RetainHandling,
    SubscriptionOptions, Version,
};
use mqtt_session::broker::{BrokerConfig, ConnectionId, Outbox, Output, Peer};
use mqtt_session::{Broker, ShardId, ShardMessage, Timestamp};
use mqtt_testkit::packets::{filter, publish, subscribe};
use proptest::prelude::*;
use std::collections::BTreeSet;

const NOW: Timestamp = Timestamp::ZERO;
const SIZES: [usize; 7] = [0, 100, 2047, 2048, 4096, 9_000, 150_000];

struct Link {
    conn: ConnectionId,
    version: Version,
    got: Vec<u8>,
    /// What was offered last and not taken.
    left: Vec<u8>,
}

struct Site {
    broker: Broker,
    links: Vec<Link>,
    dirty: BTreeSet<usize>,
}

impl Site {
    /// With sessions that last, or that end with their connection.
    fn new(lasting: bool) -> Self {
        let broker = Broker::new(BrokerConfig::default(), NOW).unwrap();
        let mut site = Self { broker, links: Vec::new(), dirty: BTreeSet::new() };
        for (n, version) in [Version::V311, Version::V5, Version::V5, Version::V311].into_iter().enumerate() {
            let conn = site.broker.handle_accept(NOW);
            site.broker.handle_identified(NOW, conn, Peer::default());
            site.links.push(Link { conn, version, got: Vec::new(), left: Vec::new() });
            let client_id = n.to_string();
            let mut properties = PropertiesBuf::new();
            if lasting && version.is_v5() {
                properties.push(Property::SessionExpiryInterval(100)).unwrap();
            }
            if n == 2 {
                properties.push(Property::TopicAliasMaximum(3)).unwrap();
            }
            let properties = properties.as_properties();
            let (client_id, clean_start) = (client_id.as_str(), !lasting);
            let connect = ConnectRef { version, client_id, clean_start, properties, ..ConnectRef::default() };
            site.read(n, &PacketRef::Connect(connect));
            if n < 3 {
                let qos = QoS::from_u8(u8::try_from(n).unwrap()).unwrap();
                site.read(n, &subscribe(1, &filter("t", qos)));
            }
        }
        site
    }

    fn read(&mut self, link: usize, packet: &PacketRef<'_>) {
        let Link { conn, version, .. } = self.links[link];
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).unwrap();
        let _ = self.broker.handle_read(NOW, conn, &bytes);
    }

    /// Everybody whom the machine wants to write is written once: `take` says how much of what is offered is taken, and `None`
    /// that the outbox is put away. False if there was nobody.
    fn write(&mut self, room: usize, mut take: impl FnMut(usize) -> Option<usize>) -> bool {
        while let Some(output) = self.broker.poll_output() {
            if let Output::Flush(conn) = output {
                self.dirty.extend(self.links.iter().position(|link| link.conn == conn));
            }
        }
        let dirty = std::mem::take(&mut self.dirty);
        let any = !dirty.is_empty();
        for at in dirty {
            let link = &mut self.links[at];
            let outbox = self.broker.outbox(NOW, link.conn, room);
            let mut slices = [&[][..]; Outbox::MOST_SLICES];
            let used = outbox.fill_slices(&mut slices);
            let offered = slices[..used].concat();
            assert_eq!(offered.len(), outbox.len());
            assert_eq!(offered.is_empty(), outbox.is_empty());
            assert!(offered.starts_with(&link.left), "what was left comes first");
            let taken = match take(offered.len()) {
                Some(taken) => {
                    outbox.consume(taken);
                    taken.min(offered.len())
                }
                None => 0,
            };
            link.got.extend_from_slice(&offered[..taken]);
            link.left = offered[taken..].to_vec();
            if !link.left.is_empty() {
                self.dirty.insert(at);
            }
        }
        any
    }
}

/// The payloads of a link's messages, by what they begin with and how long they are.
fn payloads(link: &Link) -> Vec<(String, usize)> {
    let mut rest = &link.got[..];
    let mut found = Vec::new();
    while let Some((packet, len)) = PacketRef::decode_next(rest, link.version, MAX_PACKET_SIZE).unwrap() {
        if let PacketRef::Publish(publish) = packet {
            let text = std::str::from_utf8(publish.payload).unwrap();
            let (number, filling) = text.split_once(' ').unwrap();
            assert!(filling.bytes().all(|b| b == b'x'), "its bytes are its own");
            found.push((number.to_owned(), filling.len()));
        }
        rest = &rest[len..];
    }
    assert!(rest.is_empty(), "half a packet is left");
    found
}

proptest! {
    #[test]
    fn everybody_gets_every_byte_in_order(
        messages in proptest::collection::vec((0..SIZES.len(), 0..3_u8, any::<bool>()), 1..40),
        takes in proptest::collection::vec((0..6_u8, any::<prop::sample::Index>()), 1..30),
        room in prop::sample::select(vec![1, 3_000, 1 << 16]),
        lasting in any::<bool>(),
    ) {
        let mut site = Site::new(lasting);
        let mut takes = takes.into_iter().cycle();
        let mut take = |len: usize| match takes.next() {
            Some((0, _)) => None,
            Some((1, _)) => Some(0),
            Some((2, at)) => Some(at.index(len + 1)),
            // More than there is is all.
            _ => Some(len + 1),
        };
        for (number, &(size, qos, writes)) in messages.iter().enumerate() {
            let payload = format!("{number} {}", "x".repeat(SIZES[size]));
            let id = if qos > 0 { u16::try_from(number + 1).unwrap() } else { 0 };
            site.read(3, &publish("t", qos, id, &payload));
            if writes {
                site.write(room, &mut take);
            }
        }
        while site.write(room, Some) {}
        let sent: Vec<(String, usize)> =
            messages.iter().enumerate().map(|(n, &(size, ..))| (n.to_string(), SIZES[size])).collect();
        for link in &site.links[..3] {
            let got = payloads(link);
            prop_assert_eq!(&got, &sent);
        }
        // What may have to be sent again is held: of QoS 0 nobody holds anything any more.
        let stays = messages.iter().filter(|(_, qos, _)| *qos > 0).count();
        let held = site.broker.stats().messages;
        prop_assert!(held == stays || !lasting && held < stays, "{} of {}", held, stays);
    }
}

/// Else they would hear of it with whatever happens next (seed 730 of the simulator).
#[test]
fn that_a_body_is_gone_is_told_to_other_shards_at_once() {
    let mut config = BrokerConfig::default();
    (config.shards, config.max_message_bytes) = (2, 400_000);
    let mut broker = Broker::new(config, NOW).unwrap();
    let mut names = (0..).map(|n| n.to_string());
    let read = |broker: &mut Broker, conn, packet: &PacketRef<'_>| {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        let _ = broker.handle_read(NOW, conn, &bytes);
    };
    // What is to be written, and what the other shard was told last of the bytes that are held here.
    let obey = |broker: &mut Broker| {
        let (mut dirty, mut told) = (BTreeSet::new(), None);
        while let Some(output) = broker.poll_output() {
            if let Output::Flush(conn) = output {
                dirty.insert(conn);
            } else if let Output::Shard { message, .. } = output
                && let ShardMessage::Usage(usage) = *message
            {
                told = Some(usage.message_bytes);
            }
        }
        (dirty, told)
    };
    let [subscriber, publisher] = [(); 2].map(|()| {
        let client_id = names.find(|name| broker.home_of(name) == ShardId(0)).unwrap();
        let conn = broker.handle_accept(NOW);
        broker.handle_identified(NOW, conn, Peer::default());
        let version = Version::V5;
        let connect = ConnectRef { version, client_id: &client_id, clean_start: true, ..Default::default() };
        read(&mut broker, conn, &PacketRef::Connect(connect));
        conn
    });
    // Nothing retained, for which the other shard would have to be asked first.
    let options = SubscriptionOptions { retain_handling: RetainHandling::DoNotSend, ..Default::default() };
    read(&mut broker, subscriber, &subscribe(1, &filter("t", options)));
    for conn in obey(&mut broker).0 {
        broker.outbox(NOW, conn, 1 << 16).consume(usize::MAX);
    }
    read(&mut broker, publisher, &publish("t", 0, 0, &"x".repeat(150_000)));
    let (dirty, told) = obey(&mut broker);
    assert!(dirty.contains(&subscriber) && told > Some(150_000));
    let outbox = broker.outbox(NOW, subscriber, 1 << 16);
    assert!(outbox.in_one_piece().is_none(), "the body is where it is held");
    outbox.consume(usize::MAX);
    assert_eq!(obey(&mut broker).1, Some(0));
}
