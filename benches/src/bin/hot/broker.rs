//! The broker's paths: messages go through the machine.

use mqtt_proto::{
    ConnectRef, PacketId, PacketRef, Properties, PublishRef, QoS, SubscribeFiltersBuf, SubscribeRef,
    SubscriptionOptions, Version,
};
use mqtt_session::broker::{BrokerConfig, Closed, ConnectionId, Outbox, Output, Peer};
use mqtt_session::{Broker, ShardId, ShardMessage, Timestamp};
use std::collections::VecDeque;
use std::error::Error;

const NOW: Timestamp = Timestamp::ZERO;
/// Messages that one read brings in most scenarios, as from a busy socket.
const BATCH: usize = 32;

/// Who publishes to whom.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    publishers: usize,
    subscribers: usize,
    /// Messages that one read brings.
    batch: usize,
    qos: QoS,
    payload: usize,
    version: Version,
    /// Reads of a publisher until its topics come again; each message of them has a topic of its own, if
    /// these are more than one.
    reads: usize,
    /// Subscribers are gone, and their queues are full.
    away: bool,
    shards: u16,
    /// Subscribers live on another shard than publishers.
    crosses: bool,
    /// Subscriptions are shared, and a subscriber has so many more, to which nobody publishes.
    idle_groups: usize,
    /// Sessions outlive their connections, so that what is under way above QoS 0 is held.
    lasts: bool,
}

const Q0: Scenario = Scenario::pairs("pairs-q0", QoS::AtMostOnce);
const Q1: Scenario = Scenario::pairs("pairs-q1", QoS::AtLeastOnce);

const CROSSING: Scenario = Scenario { shards: 2, crosses: true, ..Q0 };

/// A read holds about as much as with small ones.
const LARGE: Scenario = Scenario { payload: 4096, batch: 4, ..Q0 };

pub(crate) const SCENARIOS: [Scenario; 24] = [
    Q0,
    Scenario { name: "pairs-q0-v5", version: Version::V5, ..Q0 },
    Q1,
    Scenario::pairs("pairs-q2", QoS::ExactlyOnce),
    Scenario { name: "topics-32000-q0", reads: 10, ..Q0 },
    Scenario { name: "queue-full-q1", away: true, ..Q1 },
    Scenario { name: "fanin-q0", subscribers: 1, ..Q0 },
    Scenario { name: "fanin-q1", subscribers: 1, ..Q1 },
    Scenario { name: "fanout-q0", publishers: 1, ..Q0 },
    Scenario { name: "fanout-burst-q0", publishers: 1, batch: 320, ..Q0 },
    Scenario { name: "fanout-q1", publishers: 1, ..Q1 },
    Scenario { name: "pairs-4k-q0", ..LARGE },
    Scenario { name: "fanout-4k-q0", publishers: 1, ..LARGE },
    Scenario { name: "two-shards-q0", shards: 2, ..Q0 },
    Scenario { name: "two-shards-q1", shards: 2, ..Q1 },
    Scenario { name: "crossing-q0", ..CROSSING },
    Scenario { name: "crossing-q1", qos: QoS::AtLeastOnce, ..CROSSING },
    Scenario { name: "crossing-q2", qos: QoS::ExactlyOnce, ..CROSSING },
    Scenario { name: "crossing-fanout-q0", publishers: 1, ..CROSSING },
    Scenario { name: "lasting-q1", lasts: true, ..Q1 },
    Scenario { name: "lasting-q2", lasts: true, qos: QoS::ExactlyOnce, ..Q1 },
    Scenario { name: "lasting-fanout-q1", lasts: true, publishers: 1, ..Q1 },
    Scenario { name: "groups-q1", idle_groups: 100, ..Q1 },
    Scenario { name: "crossing-groups-q1", idle_groups: 100, qos: QoS::AtLeastOnce, ..CROSSING },
];

impl Scenario {
    const fn pairs(name: &'static str, qos: QoS) -> Self {
        let (publishers, subscribers, version) = (100, 100, Version::V311);
        let batch = BATCH;
        Self {
            name,
            publishers,
            subscribers,
            batch,
            qos,
            payload: 64,
            version,
            reads: 1,
            away: false,
            shards: 1,
            crosses: false,
            idle_groups: 0,
            lasts: false,
        }
    }

    /// The topic of a message of a publisher's read.
    fn topic(&self, publisher: usize, read: usize, message: usize) -> String {
        let number = if self.reads > 1 { read * self.batch + message } else { 0 };
        let number = publisher + number * self.publishers;
        format!("site/{:02}/device/{number:06}", number % 10)
    }

    /// The messages that one read of a publisher brings.
    fn read(&self, publisher: usize, read: usize) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut bytes = Vec::new();
        for n in 0..self.batch {
            let packet_id = PacketId::new(1 + u16::try_from(n)?).filter(|_| self.qos > QoS::AtMostOnce);
            let (topic, payload) = (self.topic(publisher, read, n), vec![b'x'; self.payload]);
            let (qos, topic, payload) = (self.qos, topic.as_str(), payload.as_slice());
            let publish = PublishRef { qos, topic, packet_id, payload, ..Default::default() };
            PacketRef::Publish(publish).encode(self.version, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// The filters of a subscriber.
    fn filters(&self, subscriber: usize) -> Vec<String> {
        if self.idle_groups > 0 {
            let idle = (0..self.idle_groups).map(|n| format!("$share/idle/{subscriber}/{n}"));
            return idle.chain([format!("$share/busy/{}", self.topic(subscriber, 0, 0))]).collect();
        }
        match (self.publishers, self.subscribers) {
            (_, 1) => vec!["site/+/device/#".to_owned()],
            (1, _) => vec![self.topic(0, 0, 0)],
            _ if self.reads == 1 => vec![self.topic(subscriber, 0, 0)],
            _ => {
                let messages = (0..self.reads).flat_map(|read| (0..self.batch).map(move |n| (read, n)));
                messages.map(|(read, n)| self.topic(subscriber, read, n)).collect()
            }
        }
    }
}

/// A client's connection, and the shard that has it.
#[derive(Clone, Copy)]
struct Client {
    shard: usize,
    conn: ConnectionId,
}

struct Site {
    shards: Vec<Broker>,
    scenario: &'static Scenario,
    dirty: Vec<Client>,
    /// What shards have said to others: from where, to where, what.
    mail: VecDeque<(usize, ShardId, ShardMessage)>,
    /// By shard and connection: bytes that were sent and that the client has not looked at.
    sent: Vec<Vec<Vec<u8>>>,
    delivered: usize,
}

impl Site {
    fn new(scenario: &'static Scenario) -> Result<Self, Box<dyn Error>> {
        let count = scenario.shards;
        let mut config = BrokerConfig::default();
        config.shards = count;
        config.max_queued_messages = if scenario.away { 1000 } else { u32::MAX };
        let shards = (0..count).map(|shard| {
            let mut config = config.clone();
            config.shard = ShardId(shard);
            Broker::new(config, NOW)
        });
        let shards = shards.collect::<Result<Vec<_>, _>>()?;
        let sent = shards.iter().map(|_| Vec::new()).collect();
        Ok(Self { shards, scenario, dirty: Vec::new(), mail: VecDeque::new(), sent, delivered: 0 })
    }

    /// Connects a client that lives on a shard.
    fn connect(&mut self, shard: usize, like: &str) -> Result<Client, Box<dyn Error>> {
        let home = ShardId(u16::try_from(shard)?);
        let mut names = (0..).map(|n| format!("{like}-{n}"));
        let name = names.find(|name| self.shards[shard].home_of(name) == home).ok_or("no name")?;
        let conn = self.shards[shard].handle_accept(NOW);
        self.shards[shard].handle_identified(NOW, conn, Peer::default());
        let version = self.scenario.version;
        let clean_start = !self.scenario.away && !self.scenario.lasts;
        let connect = ConnectRef { version, client_id: &name, clean_start, ..ConnectRef::default() };
        let client = Client { shard, conn };
        self.read(client, &encode(&PacketRef::Connect(connect), version)?);
        self.flush();
        Ok(client)
    }

    fn read(&mut self, client: Client, bytes: &[u8]) {
        let _ = self.shards[client.shard].handle_read(NOW, client.conn, bytes);
        self.obey(client.shard);
    }

    fn obey(&mut self, shard: usize) {
        while let Some(output) = self.shards[shard].poll_output() {
            match output {
                Output::Flush(conn) => self.dirty.push(Client { shard, conn }),
                Output::Shard { to, message } => self.mail.push_back((shard, to, *message)),
                _ => {}
            }
        }
    }

    /// Writes to all links, and carries what one shard says to another.
    fn flush(&mut self) {
        loop {
            self.write();
            let Some((from, to, message)) = self.mail.pop_front() else { return };
            let (from, to) = (ShardId(u16::try_from(from).unwrap_or_default()), usize::from(to.0));
            self.shards[to].handle_shard(NOW, from, message);
            self.obey(to);
        }
    }

    fn write(&mut self) {
        while let Some(Client { shard, conn }) = self.dirty.pop() {
            let outbox = self.shards[shard].outbox(NOW, conn, 64 << 10);
            let mut slices = [&[][..]; Outbox::MOST_SLICES];
            let used = outbox.fill_slices(&mut slices);
            if self.scenario.qos > QoS::AtMostOnce {
                let sent = &mut self.sent[shard];
                if sent.len() <= conn.index() {
                    sent.resize_with(conn.index() + 1, Vec::new);
                }
                for slice in &slices[..used] {
                    sent[conn.index()].extend_from_slice(slice);
                }
            }
            let len = outbox.len();
            self.delivered += len;
            outbox.consume(len);
            self.obey(shard);
        }
    }

    /// Answers what the client was sent. Whether anything was to be answered.
    fn answer(&mut self, client: Client, answers: &mut Vec<u8>) -> bool {
        let at = client.conn.index();
        let Some(sent) = self.sent[client.shard].get_mut(at) else { return false };
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
        self.sent[client.shard][client.conn.index()] = sent;
        if !answers.is_empty() {
            self.read(client, answers);
        }
        !answers.is_empty()
    }
}

fn encode(packet: &PacketRef<'_>, version: Version) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes)?;
    Ok(bytes)
}

/// Publishes so many messages, and tells how many deliveries came of that.
pub(crate) fn run(scenario: &'static Scenario, messages: usize) -> Result<usize, Box<dyn Error>> {
    let mut site = Site::new(scenario)?;
    let theirs = if scenario.crosses { site.shards.len() - 1 } else { 0 };
    let mut publishers = Vec::new();
    for n in 0..scenario.publishers {
        let reads: Result<Vec<_>, _> = (0..scenario.reads).map(|read| scenario.read(n, read)).collect();
        publishers.push((site.connect(0, &format!("publisher-{n}"))?, reads?));
    }
    let mut subscribers = Vec::new();
    for n in 0..scenario.subscribers {
        let client = site.connect(theirs, &format!("subscriber-{n}"))?;
        for filter in scenario.filters(n) {
            let mut filters = SubscribeFiltersBuf::new();
            filters.push(&filter, SubscriptionOptions::from(scenario.qos))?;
            let (packet_id, properties) = (PacketId::MIN, Properties::EMPTY);
            let subscribe = SubscribeRef { packet_id, properties, filters: filters.as_filters() };
            site.read(client, &encode(&PacketRef::Subscribe(subscribe), scenario.version)?);
            site.flush();
        }
        if scenario.away {
            site.shards[theirs].handle_close(NOW, client.conn, Closed::Eof);
        } else {
            subscribers.push(client);
        }
    }
    // Filled before anything is counted: what comes then finds no room.
    let fill = if scenario.away { 1000 / scenario.batch + 1 } else { 0 };
    let rounds = messages / scenario.batch / publishers.len();
    let mut answers = Vec::new();
    for round in 0..fill + rounds {
        if round == fill {
            site.delivered = 0;
        }
        let mut collected = 0;
        for (publisher, reads) in &publishers {
            let bytes = &reads[round % reads.len()];
            site.read(*publisher, bytes);
            collected += bytes.len();
            // As the adapters do.
            if collected >= 64 << 10 {
                site.flush();
                collected = 0;
            }
        }
        site.flush();
        // Until all is acknowledged, and so all is sent.
        let mut is_done = scenario.qos == QoS::AtMostOnce;
        while !is_done {
            is_done = true;
            for &client in publishers.iter().map(|(publisher, _)| publisher).chain(&subscribers) {
                is_done &= !site.answer(client, &mut answers);
            }
            site.flush();
        }
    }
    let receivers = if scenario.publishers == 1 { scenario.subscribers } else { 1 };
    let deliveries = rounds * scenario.batch * publishers.len() * receivers;
    // Acknowledgements have four bytes, and packets their own size.
    let size = if scenario.away { 4 } else { scenario.read(0, 0)?.len() / scenario.batch };
    if site.delivered < deliveries * size {
        let missing = deliveries * size - site.delivered;
        return Err(format!("{} bytes were sent, and {missing} are missing", site.delivered).into());
    }
    Ok(deliveries)
}
