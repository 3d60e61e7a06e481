//! In steady state a delivery allocates nothing: counted, not timed. One test, so that nobody else allocates
//! meanwhile.

use mqtt_proto::{AckRef, ConnectRef, PacketRef, QoS, SubscriptionOptions, Version};
use mqtt_session::broker::{BrokerConfig, ConnectionId, Output, Peer};
use mqtt_session::{Broker, Timestamp};
use mqtt_testkit::packets::{filter, publish, subscribe};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NOW: Timestamp = Timestamp::ZERO;

struct Setting {
    broker: Broker,
    publisher: ConnectionId,
    subscribers: Vec<ConnectionId>,
}

impl Setting {
    fn new(version: Version, subscribers: usize, qos: QoS) -> Self {
        let broker = Broker::new(BrokerConfig::default(), NOW).unwrap();
        let mut setting = Self { broker, publisher: ConnectionId::from_bits(0), subscribers: Vec::new() };
        setting.publisher = setting.connect(version, "publisher");
        for n in 0..subscribers {
            let subscriber = setting.connect(version, &format!("subscriber {n}"));
            let filters = filter("a/+/c", SubscriptionOptions::from(qos));
            setting.read(subscriber, &encode(&subscribe(1, &filters), version));
            setting.subscribers.push(subscriber);
        }
        setting
    }

    fn connect(&mut self, version: Version, client_id: &str) -> ConnectionId {
        let conn = self.broker.handle_accept(NOW);
        self.broker.handle_identified(NOW, conn, Peer::default());
        let connect = ConnectRef { version, client_id, clean_start: true, ..ConnectRef::default() };
        self.read(conn, &encode(&PacketRef::Connect(connect), version));
        conn
    }

    /// As an adapter does it: everything that came of a read is written before the next.
    fn read(&mut self, conn: ConnectionId, bytes: &[u8]) -> usize {
        let _ = self.broker.handle_read(NOW, conn, bytes);
        let mut written = 0;
        while let Some(output) = self.broker.poll_output() {
            if let Output::Flush(conn) = output {
                let outbox = self.broker.outbox(NOW, conn, 64 << 10);
                let len = outbox.len();
                outbox.consume(len);
                written += len;
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

#[test]
fn a_delivery_allocates_nothing() {
    for version in [Version::V311, Version::V5] {
        for (qos, subscribers) in [(0, 1), (0, 100), (1, 1), (1, 100)] {
            let mut setting = Setting::new(version, subscribers, QoS::from_u8(qos).unwrap());
            let id = u16::from(qos > 0);
            let message =
                encode(&publish("a/b/c", qos, id, "sixty-four bytes of payload, or about as many"), version);
            // What subscribers answer, to each of the identifiers that come round.
            let acks: Vec<Vec<u8>> = (1..=u16::MAX)
                .filter(|_| qos > 0)
                .map(|id| {
                    let id = mqtt_proto::PacketId::new(id).unwrap();
                    encode(&PacketRef::Puback(AckRef::from(id)), version)
                })
                .collect();
            let mut sent = 0;
            let mut round = |setting: &mut Setting| {
                let publisher = setting.publisher;
                let written = setting.read(publisher, &message);
                assert!(written > subscribers * 40, "it was delivered");
                if let Some(ack) = acks.get(sent % acks.len().max(1)) {
                    for n in 0..setting.subscribers.len() {
                        let subscriber = setting.subscribers[n];
                        setting.read(subscriber, ack);
                    }
                }
                sent += 1;
            };
            // Tables and buffers find their sizes.
            (0..300).for_each(|_| round(&mut setting));
            let region = Region::new(COUNTING);
            (0..300).for_each(|_| round(&mut setting));
            let change = region.change();
            assert_eq!(
                (change.allocations, change.reallocations),
                (0, 0),
                "{version:?}, QoS {qos}, {subscribers} subscribers: {change:?}"
            );
        }
    }
}
