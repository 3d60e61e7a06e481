//! What a broker needed for something large it gives back when that is over: tables, lists and queues do not keep the size that they once
//! had. Bytes that the allocator was asked for, so the same on every run. One test, so that nobody else allocates meanwhile.

use mqtt_proto::{ConnectRef, PacketRef, QoS, SubscribeFiltersBuf, Version};
use mqtt_session::Timestamp;
use mqtt_session::broker::{BrokerConfig, Closed, ConnectionId, Output, Peer};
use mqtt_testkit::Shards;
use mqtt_testkit::packets::{publish, retained, subscribe};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::time::Duration;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MANY: usize = 20_000;
/// Of each of them this much may stay: the cache of what topics match, and what the test itself remembers of connections.
const REST: usize = 256 << 10;

struct Site {
    shards: Shards,
    now: Timestamp,
}

impl Site {
    fn new(shards: u16) -> Self {
        let mut config = BrokerConfig::default();
        config.max_queued_messages = u32::MAX;
        config.max_queued_bytes = usize::MAX;
        config.shards = shards;
        let now = Timestamp::ZERO;
        Self { shards: Shards::new(&config, now), now }
    }

    fn connect(&mut self, client_id: &str) -> ConnectionId {
        let conn = self.shards.handle_accept(self.now);
        self.shards.handle_identified(self.now, conn, Peer::default());
        let connect =
            ConnectRef { version: Version::V311, client_id, clean_start: true, ..ConnectRef::default() };
        self.read(conn, &PacketRef::Connect(connect));
        conn
    }

    /// A subscriber to so many filters, with one packet.
    fn subscriber(&mut self, filters: usize) -> ConnectionId {
        self.subscriber_as("subscriber", filters)
    }

    fn subscriber_as(&mut self, client_id: &str, filters: usize) -> ConnectionId {
        let conn = self.connect(client_id);
        let mut all = SubscribeFiltersBuf::new();
        for n in 0..filters {
            all.push(&format!("site/{}/{n}", n % 100), QoS::AtLeastOnce.into()).unwrap();
        }
        self.read(conn, &subscribe(1, &all));
        conn
    }

    fn close(&mut self, conn: ConnectionId) {
        self.shards.handle_close(self.now, conn, Closed::Error);
        self.settle(true);
    }

    fn read(&mut self, conn: ConnectionId, packet: &PacketRef<'_>) {
        self.read_and(conn, packet, true);
    }

    fn read_and(&mut self, conn: ConnectionId, packet: &PacketRef<'_>, write: bool) {
        let mut bytes = Vec::new();
        packet.encode(Version::V311, &mut bytes).unwrap();
        let _ = self.shards.handle_read(self.now, conn, &bytes);
        self.settle(write);
    }

    /// So long that timers nobody needs any more are over, and spare buffers were not used since the last time.
    fn rest(&mut self) {
        self.now = self.now + Duration::from_secs(3_600);
        while self.shards.poll_timeout().is_some_and(|due| due <= self.now) {
            self.shards.handle_timeout(self.now);
            self.settle(true);
        }
        (0..2).for_each(|_| self.shards.handle_wall_clock(self.now, 0));
    }

    fn write(&mut self, conn: ConnectionId) {
        let outbox = self.shards.outbox(self.now, conn, 64 << 10);
        let len = outbox.len();
        outbox.consume(len);
    }

    fn settle(&mut self, write: bool) {
        while let Some(output) = self.shards.poll_output() {
            if let Output::Flush(conn) = output
                && write
            {
                self.write(conn);
            }
        }
    }
}

/// What makes something large, and ends it.
type Over = fn(&mut Site);

#[test]
fn nothing_stays_of_what_is_over() {
    let cases: [(&str, Over); 7] = [
        ("many filters in one packet", |site| {
            let conn = site.subscriber(MANY);
            site.close(conn);
        }),
        ("many retained messages", |site| {
            let conn = site.connect("publisher");
            for payload in ["x", ""] {
                for n in 0..MANY {
                    site.read(conn, &retained(&format!("site/{}/{n}", n % 100), 0, 0, payload));
                }
            }
            site.close(conn);
        }),
        ("many retained messages for many filters", |site| {
            let publisher = site.connect("publisher");
            for n in 0..MANY {
                site.read(publisher, &retained(&format!("site/{}/{n}", n % 100), 0, 0, "x"));
            }
            let subscriber = site.subscriber(MANY);
            site.close(subscriber);
            for n in 0..MANY {
                site.read(publisher, &retained(&format!("site/{}/{n}", n % 100), 0, 0, ""));
            }
            site.close(publisher);
        }),
        ("many connections", |site| {
            let conns: Vec<_> = (0..MANY / 4).map(|n| site.connect(&format!("c{n}"))).collect();
            conns.into_iter().for_each(|conn| site.close(conn));
        }),
        ("many messages in a queue", |site| {
            let subscriber = site.subscriber(1);
            let publisher = site.connect("publisher");
            for _ in 0..MANY {
                site.read_and(publisher, &publish("site/0/0", 0, 0, "some bytes of a payload"), false);
            }
            site.close(subscriber);
            site.close(publisher);
        }),
        ("much for many who read late", |site| {
            let subscribers: Vec<_> = (0..50).map(|n| site.subscriber_as(&format!("s{n}"), 1)).collect();
            let publisher = site.connect("publisher");
            let payload = "p".repeat(500);
            for _ in 0..300 {
                site.read_and(publisher, &publish("site/0/0", 0, 0, &payload), false);
            }
            for conn in subscribers.into_iter().chain([publisher]) {
                site.write(conn);
                site.close(conn);
            }
        }),
        ("a large message", |site| {
            let subscriber = site.subscriber(1);
            let publisher = site.connect("publisher");
            site.read(publisher, &publish("site/0/0", 0, 0, &"x".repeat(4 << 20)));
            site.close(subscriber);
            site.close(publisher);
        }),
    ];
    let mut too_much = Vec::new();
    for shards in [1, 2] {
        let mut site = Site::new(shards);
        let before = site.subscriber(1);
        site.close(before);
        for (what, over) in cases {
            let region = Region::new(COUNTING);
            over(&mut site);
            site.rest();
            let change = region.change();
            let rest = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
            println!("{what}, {shards} shards: {rest}");
            if rest > REST {
                too_much.push(format!("{what}, {shards} shards: {rest} bytes"));
            }
        }
    }
    assert!(too_much.is_empty(), "more than {REST} bytes stay of {too_much:?}");
}
