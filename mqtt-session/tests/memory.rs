//! What things cost in memory: bytes that the allocator was asked for, so the same on every run. Bounds are what was
//! measured and a little, so that nobody makes them grow unnoticed. One test, so that nobody else allocates meanwhile.

use mqtt_proto::{ConnectRef, PacketRef, PropertiesBuf, Property, QoS, Version};
use mqtt_session::broker::{BrokerConfig, Closed, ConnectionId, Output, Peer};
use mqtt_session::{Broker, Timestamp};
use mqtt_testkit::packets::{filter, publish, retained, subscribe};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NOW: Timestamp = Timestamp::ZERO;

struct Site(Broker);

impl Site {
    fn new() -> Self {
        let mut config = BrokerConfig::default();
        config.max_queued_messages = u32::MAX;
        config.max_queued_bytes = usize::MAX;
        Self(Broker::new(config, NOW).unwrap())
    }

    fn connect(&mut self, client_id: &str, keep: bool) -> ConnectionId {
        let conn = self.0.handle_accept(NOW);
        self.0.handle_identified(NOW, conn, Peer::default());
        let mut properties = PropertiesBuf::new();
        if keep {
            properties.push(Property::SessionExpiryInterval(1000)).unwrap();
        }
        let connect = ConnectRef {
            version: Version::V5,
            client_id,
            clean_start: true,
            properties: properties.as_properties(),
            ..ConnectRef::default()
        };
        self.read(conn, &PacketRef::Connect(connect));
        conn
    }

    /// A session that waits for what comes to `wanted`.
    fn leave(&mut self, client_id: &str, wanted: &str) {
        let conn = self.connect(client_id, true);
        self.read(conn, &subscribe(1, &filter(wanted, QoS::AtLeastOnce)));
        self.0.handle_close(NOW, conn, Closed::Error);
        self.settle();
    }

    fn read(&mut self, conn: ConnectionId, packet: &PacketRef<'_>) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        let _ = self.0.handle_read(NOW, conn, &bytes);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(output) = self.0.poll_output() {
            if let Output::Flush(conn) = output {
                let outbox = self.0.outbox(NOW, conn, 64 << 10);
                let len = outbox.len();
                outbox.consume(len);
            }
        }
    }

    /// Bytes for each of `count` things, as `make` makes them.
    fn each(&mut self, count: usize, mut make: impl FnMut(&mut Self, usize)) -> usize {
        let region = Region::new(COUNTING);
        for n in 0..count {
            make(self, n);
        }
        let change = region.change();
        // What grew or shrank in place is in both.
        let net = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
        net / count
    }
}

#[test]
fn things_cost_no_more_than_they_did() {
    // Just below a power of two, where tables that double are full.
    const COUNT: usize = 16000;
    let mut costs = Vec::new();
    let mut site = Site::new();
    // With it, filters look for retained messages.
    let conn = site.connect("publisher", false);
    site.read(conn, &retained("site/name", 0, 0, "sixteen bytes ok"));
    costs.push((
        "an idle connection with its session and one filter",
        site.each(COUNT, |site, n| {
            let conn = site.connect(&format!("client-{n:06}"), false);
            let filters = filter(&format!("sensors/{n:06}/commands"), QoS::AtLeastOnce);
            site.read(conn, &subscribe(1, &filters));
        }),
    ));
    let mut site = Site::new();
    let conn = site.connect("publisher", false);
    costs.push((
        "a retained message of 16 bytes",
        site.each(COUNT, |site, n| {
            site.read(conn, &retained(&format!("site/{}/device/{n:06}", n % 100), 0, 0, "sixteen bytes ok"));
        }),
    ));
    let mut site = Site::new();
    let conn = site.connect("subscriber", false);
    costs.push((
        "one more filter of a client",
        site.each(COUNT, |site, n| {
            let filters = filter(&format!("site/{}/device/{n:06}", n % 100), QoS::AtLeastOnce);
            site.read(conn, &subscribe(1, &filters));
        }),
    ));
    let mut site = Site::new();
    site.leave("away", "q");
    let conn = site.connect("publisher", false);
    costs.push((
        "a queued message of 16 bytes",
        site.each(COUNT, |site, _| site.read(conn, &publish("q", 1, 1, "sixteen bytes ok"))),
    ));
    let payload = "p".repeat(64);
    let mut site = Site::new();
    site.leave("away", "queue/000");
    let conn = site.connect("publisher", false);
    costs.push((
        "a queued message of 64 bytes",
        site.each(COUNT, |site, _| site.read(conn, &publish("queue/000", 1, 1, &payload))),
    ));
    let mut site = Site::new();
    for n in 0..100 {
        site.leave(&format!("away-{n}"), &format!("queue/{n:03}"));
    }
    let conn = site.connect("publisher", false);
    costs.push((
        "one of 64 bytes in one of 100 queues",
        site.each(COUNT, |site, n| {
            site.read(conn, &publish(&format!("queue/{:03}", n % 100), 1, 1, &payload));
        }),
    ));
    for (name, messages) in [
        ("ten messages of 64 bytes for everybody, for each who is away", 10),
        ("one message of 64 bytes for everybody, for each who is away", 1),
    ] {
        let mut site = Site::new();
        for n in 0..COUNT / 10 {
            site.leave(&format!("away-{n}"), "news");
        }
        let conn = site.connect("publisher", false);
        let cost = site.each(COUNT / 10, |site, n| {
            if n < messages {
                site.read(conn, &publish("news", 1, 1, &payload));
            }
        });
        costs.push((name, cost));
    }
    // A burst to many, of which the adapter has written nothing yet, is held and not copied for each.
    let mut site = Site::new();
    for n in 0..500 {
        let conn = site.connect(&format!("client-{n}"), false);
        site.read(conn, &subscribe(1, &filter("news", QoS::AtMostOnce)));
    }
    let conn = site.connect("publisher", false);
    let mut burst = Vec::new();
    let news = "n".repeat(4096);
    for _ in 0..50 {
        publish("news", 0, 0, &news).encode(Version::V5, &mut burst).unwrap();
    }
    costs.push((
        "a burst of 25,000 deliveries with 4 KiB each",
        site.each(1, |site, _| {
            let _ = site.0.handle_read(NOW, conn, &burst);
        }),
    ));
    let shown: Vec<String> = costs.iter().map(|(what, bytes)| format!("{what}: {bytes}")).collect();
    println!("{}", shown.join("\n"));
    for ((what, bytes), bound) in costs.into_iter().zip([960, 148, 99, 66, 122, 131, 226, 193, 1 << 20]) {
        assert!(bytes <= bound, "{what} costs {bytes} bytes, and at most {bound} are wanted");
    }
}
