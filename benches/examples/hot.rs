//! The broker's hot paths, and nothing else: `hot SCENARIO MESSAGES` publishes so many messages through the
//! machine. Counted twice with different numbers, the difference is what a message costs in instructions
//! (`scripts/instructions`), and a profiler sees no socket.

use mqtt_proto::{
    ConnectRef, PacketId, PacketRef, Properties, PublishRef, QoS, SubscribeFiltersBuf, SubscribeRef,
    SubscriptionOptions, Version,
};
use mqtt_session::broker::{BrokerConfig, ConnectionId, Output, Peer};
use mqtt_session::{Broker, Timestamp};
use std::error::Error;

const NOW: Timestamp = Timestamp::ZERO;
/// Messages that one read brings, as from a busy socket.
const BATCH: usize = 32;

/// Who publishes to whom.
struct Scenario {
    name: &'static str,
    publishers: usize,
    subscribers: usize,
    qos: QoS,
    version: Version,
}

const SCENARIOS: [Scenario; 8] = [
    Scenario::pairs("pairs-q0", QoS::AtMostOnce, Version::V311),
    Scenario::pairs("pairs-q0-v5", QoS::AtMostOnce, Version::V5),
    Scenario::pairs("pairs-q1", QoS::AtLeastOnce, Version::V311),
    Scenario::pairs("pairs-q2", QoS::ExactlyOnce, Version::V311),
    Scenario { subscribers: 1, ..Scenario::pairs("fanin-q0", QoS::AtMostOnce, Version::V311) },
    Scenario { subscribers: 1, ..Scenario::pairs("fanin-q1", QoS::AtLeastOnce, Version::V311) },
    Scenario { publishers: 1, ..Scenario::pairs("fanout-q0", QoS::AtMostOnce, Version::V311) },
    Scenario { publishers: 1, ..Scenario::pairs("fanout-q1", QoS::AtLeastOnce, Version::V311) },
];

impl Scenario {
    const fn pairs(name: &'static str, qos: QoS, version: Version) -> Self {
        Self { name, publishers: 100, subscribers: 100, qos, version }
    }
}

struct Site {
    broker: Broker,
    scenario: &'static Scenario,
    dirty: Vec<ConnectionId>,
    /// Bytes that each connection has been sent and has not looked at.
    sent: Vec<Vec<u8>>,
    delivered: usize,
}

impl Site {
    fn connect(&mut self, client_id: &str) -> Result<ConnectionId, Box<dyn Error>> {
        let conn = self.broker.handle_accept(NOW);
        self.broker.handle_identified(NOW, conn, Peer::default());
        let version = self.scenario.version;
        let connect = ConnectRef { version, client_id, clean_start: true, ..ConnectRef::default() };
        self.read(conn, &encode(&PacketRef::Connect(connect), version)?);
        self.flush();
        Ok(conn)
    }

    fn read(&mut self, conn: ConnectionId, bytes: &[u8]) {
        let _ = self.broker.handle_read(NOW, conn, bytes);
        while let Some(output) = self.broker.poll_output() {
            if let Output::Flush(conn) = output {
                self.dirty.push(conn);
            }
        }
    }

    fn flush(&mut self) {
        while let Some(conn) = self.dirty.pop() {
            let outbox = self.broker.outbox(NOW, conn, 64 << 10);
            let mut slices: [&[u8]; 16] = [&[]; 16];
            let used = outbox.fill_slices(&mut slices);
            if self.scenario.qos > QoS::AtMostOnce {
                if self.sent.len() <= conn.index() {
                    self.sent.resize_with(conn.index() + 1, Vec::new);
                }
                for slice in &slices[..used] {
                    self.sent[conn.index()].extend_from_slice(slice);
                }
            }
            let len = outbox.len();
            self.delivered += len;
            outbox.consume(len);
            while let Some(output) = self.broker.poll_output() {
                if let Output::Flush(conn) = output {
                    self.dirty.push(conn);
                }
            }
        }
    }

    /// Answers what the client was sent.
    fn answer(&mut self, client: ConnectionId, answers: &mut Vec<u8>) {
        let Some(sent) = self.sent.get_mut(client.index()) else { return };
        let mut sent = std::mem::take(sent);
        answers.clear();
        let mut at = 0;
        while let Some(&[first, len]) = sent.get(at..at + 2) {
            let body = &sent[at + 2..at + 2 + usize::from(len)];
            let answer = match first {
                // PUBLISH: the identifier stands behind the topic.
                0x32..0x36 => {
                    let topic = usize::from(body[0]) << 8 | usize::from(body[1]);
                    Some((if first < 0x34 { 0x40 } else { 0x50 }, 2 + topic))
                }
                0x50 => Some((0x62, 0)),
                0x62 => Some((0x70, 0)),
                _ => None,
            };
            if let Some((kind, id)) = answer {
                answers.extend_from_slice(&[kind, 2, body[id], body[id + 1]]);
            }
            at += 2 + body.len();
        }
        sent.clear();
        self.sent[client.index()] = sent;
        if !answers.is_empty() {
            self.read(client, answers);
        }
    }
}

fn encode(packet: &PacketRef<'_>, version: Version) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes)?;
    Ok(bytes)
}

/// The messages that one read of a publisher brings.
fn batch(topic: &str, scenario: &Scenario, first: u16) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    for n in 0..BATCH {
        let id = PacketId::new(first + u16::try_from(n)?).filter(|_| scenario.qos > QoS::AtMostOnce);
        let (qos, payload) = (scenario.qos, [b'x'; 64]);
        let publish = PublishRef { qos, topic, packet_id: id, payload: &payload, ..Default::default() };
        PacketRef::Publish(publish).encode(scenario.version, &mut bytes)?;
    }
    Ok(bytes)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let names: Vec<_> = SCENARIOS.iter().map(|s| s.name).collect();
    let usage = || format!("usage: hot SCENARIO MESSAGES, with one of {}", names.join(", "));
    let name = args.next().ok_or_else(usage)?;
    let scenario = SCENARIOS.iter().find(|s| s.name == name).ok_or_else(usage)?;
    let messages: usize = args.next().ok_or_else(usage)?.parse()?;

    let mut config = BrokerConfig::default();
    config.max_queued_messages = u32::MAX;
    let broker = Broker::new(config, NOW)?;
    let mut site = Site { broker, scenario, dirty: Vec::new(), sent: Vec::new(), delivered: 0 };
    let mut publishers = Vec::new();
    for n in 0..scenario.publishers {
        let topic = format!("site/{:02}/device/{n:06}", n % 10);
        publishers.push((site.connect(&format!("publisher-{n}"))?, batch(&topic, scenario, 1)?));
    }
    let mut subscribers = Vec::new();
    for n in 0..scenario.subscribers {
        let conn = site.connect(&format!("subscriber-{n}"))?;
        let topic = match (scenario.publishers, scenario.subscribers) {
            (_, 1) => "site/+/device/#".to_owned(),
            (1, _) => "site/00/device/000000".to_owned(),
            _ => format!("site/{:02}/device/{n:06}", n % 10),
        };
        let mut filters = SubscribeFiltersBuf::new();
        filters.push(&topic, SubscriptionOptions::from(scenario.qos))?;
        let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
        let subscribe = SubscribeRef { packet_id, properties, filters: filters.as_filters() };
        let bytes = encode(&PacketRef::Subscribe(subscribe), scenario.version)?;
        site.read(conn, &bytes);
        subscribers.push(conn);
    }
    site.flush();
    // What a message becomes on its way out, for the check at the end.
    let size = publishers.first().map_or(0, |(_, batch)| batch.len()) / BATCH;
    site.delivered = 0;
    site.sent.iter_mut().for_each(Vec::clear);

    let rounds = messages / BATCH / publishers.len();
    let mut answers = Vec::new();
    for _ in 0..rounds {
        for (publisher, batch) in &publishers {
            site.read(*publisher, batch);
        }
        site.flush();
        // PUBACK, or the four steps of QoS 2.
        for _ in 0..scenario.qos.as_u8() {
            publishers.iter().for_each(|(publisher, _)| site.answer(*publisher, &mut answers));
            subscribers.iter().for_each(|subscriber| site.answer(*subscriber, &mut answers));
            site.flush();
        }
    }
    let receivers = if scenario.publishers == 1 { scenario.subscribers } else { 1 };
    let deliveries = rounds * BATCH * publishers.len() * receivers;
    if site.delivered < deliveries * size {
        return Err(format!(
            "{} bytes were sent, and {} are missing",
            site.delivered,
            deliveries * size - site.delivered
        )
        .into());
    }
    println!("{deliveries}");
    Ok(())
}
