//! In steady state a delivery allocates nothing, and what crosses to another shard, nothing for each message: counted, not timed.
//! Without the harness of tests, so that nobody else allocates meanwhile.

use mqtt_proto::{AckRef, ConnectRef, PacketRef, PropertiesBuf, Property, QoS, SubscriptionOptions, Version};
use mqtt_session::broker::{BrokerConfig, ConnectionId, Output, Peer};
use mqtt_session::{Broker, ShardId, ShardMessage, Timestamp};
use mqtt_testkit::packets::{filter, publish, subscribe};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::collections::VecDeque;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NOW: Timestamp = Timestamp::ZERO;

struct Setting {
    /// The publisher lives on the first, subscribers on the last.
    shards: Vec<Broker>,
    mail: VecDeque<(ShardId, ShardId, ShardMessage)>,
    publisher: ConnectionId,
    subscribers: Vec<ConnectionId>,
}

impl Setting {
    fn new(version: Version, shards: u16, subscribers: usize, qos: QoS, lasts: bool) -> Self {
        let shard = |shard| {
            let mut config = BrokerConfig::default();
            (config.shards, config.shard) = (shards, ShardId(shard));
            Broker::new(config, NOW).unwrap()
        };
        let mut setting = Self {
            shards: (0..shards).map(shard).collect(),
            mail: VecDeque::new(),
            publisher: ConnectionId::from_bits(0),
            subscribers: Vec::new(),
        };
        setting.publisher = setting.connect(version, 0, "publisher", false);
        let last = setting.last();
        for n in 0..subscribers {
            let subscriber = setting.connect(version, last, &format!("subscriber {n} "), lasts);
            let filters = filter("a/+/c", SubscriptionOptions::from(qos));
            setting.read(last, subscriber, &encode(&subscribe(1, &filters), version));
            setting.subscribers.push(subscriber);
        }
        setting
    }

    fn last(&self) -> usize {
        self.shards.len() - 1
    }

    /// Its session outlives the connection if it `lasts`.
    fn connect(&mut self, version: Version, shard: usize, like: &str, lasts: bool) -> ConnectionId {
        let mut names = (0..).map(|n| format!("{like}{n}"));
        let client_id = &names.find(|name| usize::from(self.shards[shard].home_of(name).0) == shard).unwrap();
        let conn = self.shards[shard].handle_accept(NOW);
        self.shards[shard].handle_identified(NOW, conn, Peer::default());
        let mut properties = PropertiesBuf::new();
        if lasts && version.is_v5() {
            properties.push(Property::SessionExpiryInterval(100)).unwrap();
        }
        let properties = properties.as_properties();
        let connect =
            ConnectRef { version, client_id, clean_start: !lasts, properties, ..ConnectRef::default() };
        self.read(shard, conn, &encode(&PacketRef::Connect(connect), version));
        conn
    }

    /// As an adapter does it: everything that came of a read is written before the next.
    fn read(&mut self, shard: usize, conn: ConnectionId, bytes: &[u8]) -> usize {
        let _ = self.shards[shard].handle_read(NOW, conn, bytes);
        let mut written = self.obey(shard);
        while let Some((from, to, message)) = self.mail.pop_front() {
            let to = usize::from(to.0);
            self.shards[to].handle_shard(NOW, from, message);
            written += self.obey(to);
        }
        written
    }

    fn obey(&mut self, shard: usize) -> usize {
        let from = ShardId(u16::try_from(shard).unwrap());
        let broker = &mut self.shards[shard];
        let mut written = 0;
        while let Some(output) = broker.poll_output() {
            match output {
                Output::Flush(conn) => {
                    let outbox = broker.outbox(NOW, conn, 64 << 10);
                    let len = outbox.len();
                    outbox.consume(len);
                    written += len;
                }
                Output::Shard { to, message } => self.mail.push_back((from, to, *message)),
                _ => {}
            }
        }
        written
    }
}

fn encode(packet: &PacketRef<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).unwrap();
    bytes
}

/// Messages of one read.
const BATCH: usize = 8;
/// Reads before anything is counted, and while it is.
const ROUNDS: usize = 80;

fn main() {
    a_delivery_allocates_nothing();
    println!("a_delivery_allocates_nothing ... ok");
}

fn a_delivery_allocates_nothing() {
    for version in [Version::V311, Version::V5] {
        // A message is held for sessions that last, and for others it is not.
        let settings = [(0, false), (1, false), (1, true)].into_iter();
        for ((qos, lasts), subscribers) in settings.flat_map(|setting| [(setting, 1), (setting, 100)]) {
            // What crosses is one message between shards for each read, with one piece of memory; and credit may come
            // back.
            for (shards, most) in [(1, 0), (2, 2 * ROUNDS + 2)] {
                deliver(version, shards, subscribers, qos, lasts, most);
            }
        }
    }
}

fn deliver(version: Version, shards: u16, subscribers: usize, qos: u8, lasts: bool, most: usize) {
    let mut setting = Setting::new(version, shards, subscribers, QoS::from_u8(qos).unwrap(), lasts);
    let batch: Vec<u8> = (1..)
        .take(BATCH)
        .flat_map(|id| {
            let id = if qos > 0 { id } else { 0 };
            encode(&publish("a/b/c", qos, id, "sixty-four bytes of payload, or about as many"), version)
        })
        .collect();
    // What subscribers answer, to each of the identifiers that come round.
    let acks: Vec<u8> = (1..=u16::MAX)
        .filter(|_| qos > 0)
        .flat_map(|id| {
            encode(&PacketRef::Puback(AckRef::from(mqtt_proto::PacketId::new(id).unwrap())), version)
        })
        .collect();
    let ack = acks.len() / usize::from(u16::MAX);
    let mut sent = 0;
    let mut round = |setting: &mut Setting| {
        let (publisher, last) = (setting.publisher, setting.last());
        let written = setting.read(0, publisher, &batch);
        assert!(written > BATCH * subscribers * 40, "it was delivered");
        assert_eq!(
            setting.shards[last].stats().messages,
            usize::from(lasts) * BATCH,
            "held until acknowledged"
        );
        for at in sent..sent + BATCH {
            let at = at * ack % acks.len().max(1);
            for n in 0..setting.subscribers.len() {
                let subscriber = setting.subscribers[n];
                setting.read(last, subscriber, &acks[at..at + ack]);
            }
        }
        sent += BATCH;
    };
    // Tables and buffers find their sizes.
    (0..ROUNDS).for_each(|_| round(&mut setting));
    let region = Region::new(COUNTING);
    (0..ROUNDS).for_each(|_| round(&mut setting));
    let change = region.change();
    let made = (change.allocations, change.reallocations);
    assert!(
        made.0 <= most && made.1 == 0,
        "{version:?}, {shards} shards, QoS {qos}, {subscribers} subscribers, lasting {lasts}: {change:?}"
    );
}
