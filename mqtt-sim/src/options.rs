//! What a run is like, drawn from its seed: each run switches on some of the faults and some of the
//! tiny limits, so that each is also met without the others.

use crate::network::NetworkOptions;
use crate::random::Random;
use mqtt_proto::{PacketId, QoS, Version};
use mqtt_session::broker::{AskFor, BrokerConfig, Overflow};
use mqtt_session::client::{AckMode, Backoff, CleanStart, ClientConfig, Will};
use mqtt_session::{Durability, Message, Seed, ShardCredit};
use std::time::Duration;

/// The topics that are published to.
pub const TOPICS: [&str; 6] = ["a", "a/b", "a/c", "b", "b/c/d", "c"];
/// The filters that are subscribed to.
pub const FILTERS: [&str; 9] = ["a", "a/b", "a/#", "+/c", "#", "b/+/d", "b", "c", "+"];
/// The filters of those who share.
pub const SHARED: [&str; 3] = ["$share/g/a/#", "$share/g/b", "$share/h/a/b"];

/// What kind of peer a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client machine, about which everything is checked.
    Machine,
    /// A client machine that shares its client identifier with another. Only its packets are checked,
    /// because its session is not its own.
    Twin,
    /// A peer that sends what comes to its mind.
    Raw,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// What it is.
    pub kind: Kind,
    /// Its settings; of a raw peer only version, identifier and limits are used.
    pub config: ClientConfig,
    /// It makes shared subscriptions, and no others.
    pub shares: bool,
    /// It publishes.
    pub publishes: bool,
    /// Its subscriptions have identifiers (5.0): see [`number_of`].
    pub numbers: bool,
}

/// The identifier of a subscription with this filter.
#[must_use]
pub fn number_of(filter: &str) -> u32 {
    let all = FILTERS.iter().chain(&SHARED);
    (1..).zip(all).find(|(_, known)| **known == filter).map_or(0, |(number, _)| number)
}

/// One run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Settings of the broker.
    pub broker: BrokerConfig,
    /// The links.
    pub network: NetworkOptions,
    /// The nodes.
    pub nodes: Vec<NodeOptions>,
    /// Microseconds between two actions of a node, at most.
    pub pause: u64,
    /// Largest payload.
    pub payload: usize,
    /// Publishes with an expiry, in percent.
    pub expiring: u64,
    /// Publishes that are retained, in percent.
    pub retained: u64,
    /// Actions that break a link, in percent.
    pub cuts: u64,
    /// Actions that stall a link, in percent.
    pub stalls: u64,
    /// Longest stall, in microseconds.
    pub stall: u64,
    /// Dials that fail, in percent.
    pub dial_failures: u64,
    /// Longest wait for the store.
    pub store_delay: u64,
    /// Groups at which the store fails, in percent.
    pub store_failures: u64,
    /// Longest wait for an answer.
    pub answer_delay: u64,
    /// Answers that refuse, in percent.
    pub refusals: u64,
    /// Timers are looked at when the clock is a multiple of this.
    pub tick: u64,
    /// Inputs that come with an older time, in percent.
    pub stale_clocks: u64,
    /// What one outbox may hold.
    pub outbox: usize,
    /// Steps at which the broker crashes, in a thousandth of a percent.
    pub broker_crashes: u64,
    /// Messages that are handed to another shard as stored and followed by a crash, in percent.
    pub handover_crashes: u64,
    /// Restarts that end in a crash at once, in percent.
    pub restart_crashes: u64,
    /// Whether it may start again with another number of shards.
    pub reshards: bool,
    /// How long the broker is down, at most.
    pub down: u64,
    /// How far the wall clock may jump meanwhile, in milliseconds.
    pub leaps: Vec<i64>,
    /// Actions of a client with a store that end in its crash, in percent.
    pub client_crashes: u64,
    /// Microseconds between two looks at the wall clock.
    pub clock: u64,
    /// The longest time that what one shard says is on its way to another, in microseconds.
    pub mail: u64,
}

fn seed(random: &mut Random) -> Seed {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random.next().to_le_bytes());
    Seed(bytes)
}

impl Options {
    /// What this seed gets.
    #[must_use]
    pub fn draw(random: &mut Random, shards: Option<u16>) -> Self {
        let slow = random.chance(30);
        let network = NetworkOptions {
            latency_min: random.pick(&[0, 100, 5_000]),
            latency_max: if slow { 2_000_000 } else { random.pick(&[5_000, 50_000, 200_000]) },
            piece: random.pick(&[1, 3, 20, 200, 65_536]),
            capacity: random.pick(&[16, 200, 2_000, 65_536, 65_536]),
        };
        let payload = random.pick(&[8, 40, 40, 200, 3_000]);
        let mut nodes = Vec::new();
        for index in 0..2 + random.below(6) {
            nodes.push(NodeOptions::draw(index, Kind::Machine, random));
        }
        for _ in 0..random.pick(&[0, 0, 2]) {
            nodes.push(NodeOptions::draw(nodes.len(), Kind::Twin, random));
        }
        for _ in 0..random.pick(&[0, 0, 1, 2]) {
            nodes.push(NodeOptions::draw(nodes.len(), Kind::Raw, random));
        }
        let mut broker = broker(random, payload);
        if let Some(shards) = shards {
            broker.shards = shards;
        }
        let stored = broker.durability != Durability::Off;
        Self {
            broker,
            network,
            nodes,
            pause: random.pick(&[20_000, 200_000, 2_000_000, 10_000_000]),
            payload,
            expiring: random.pick(&[0, 0, 30]),
            retained: random.pick(&[0, 10, 40]),
            cuts: random.pick(&[0, 1, 5, 15]),
            stalls: random.pick(&[0, 2, 10]),
            stall: random.pick(&[1_000_000, 30_000_000, 120_000_000]),
            dial_failures: random.pick(&[0, 0, 20, 60]),
            store_delay: random.pick(&[1, 10_000, 1_000_000, 8_000_000]),
            store_failures: random.pick(&[0, 0, 0, 5]),
            answer_delay: random.pick(&[1, 100_000, 15_000_000]),
            refusals: random.pick(&[0, 0, 10, 40]),
            tick: random.pick(&[1, 1, 1_000, 100_000]),
            stale_clocks: random.pick(&[0, 0, 20]),
            outbox: random.pick(&[1, 100, 4_096, 65_536]),
            broker_crashes: random.pick(if stored { &[0, 50, 200, 1_000, 5_000] } else { &[0, 0, 0, 50] }),
            restart_crashes: random.pick(&[0, 20, 60]),
            handover_crashes: random.pick(&[0, 10, 40]),
            down: random.pick(&[1, 1_000_000, 20_000_000, 200_000_000]),
            leaps: random.pick(&[
                vec![0],
                vec![0],
                vec![0, 3_000, 30_000, 700_000],
                vec![0, -1, -4_000, -700_000],
                vec![-900_000, 4_000_000, 2_000_000_000, 40_000_000_000],
            ]),
            client_crashes: random.pick(&[0, 1, 5]),
            clock: random.pick(&[1_000_000, 10_000_000, 10_000_000]),
            mail: random.pick(&[1, 1_000, 50_000, 3_000_000]),
            reshards: shards.is_none() && random.chance(30),
        }
    }

    /// The same run without faults.
    pub fn calm(&mut self) {
        (self.cuts, self.stalls, self.dial_failures, self.store_failures) = (0, 0, 0, 0);
        (self.refusals, self.stale_clocks, self.pause) = (0, 0, 200_000);
        (self.store_delay, self.answer_delay, self.mail) = (1_000, 1_000, 1_000);
        (self.broker_crashes, self.client_crashes, self.restart_crashes) = (0, 0, 0);
        self.handover_crashes = 0;
        let NetworkOptions { latency_min, latency_max, piece, capacity } = &mut self.network;
        (*latency_min, *latency_max, *piece, *capacity) = (100, 1_000, 65_536, 65_536);
    }
}

fn broker(random: &mut Random, payload: usize) -> BrokerConfig {
    let mut config = BrokerConfig::default();
    config.seed = seed(random);
    config.durability = random.pick(&[Durability::Off, Durability::Synced]);
    if random.chance(40) {
        config.ask = AskFor {
            connect: random.chance(50),
            publish: random.chance(50),
            subscribe: random.chance(50),
            will: random.chance(30),
        };
    }
    config.max_inflight = random.pick(&[1, 2, 5, 1024]);
    config.receive_maximum = random.pick(&[1, 2, 10, 1024]);
    config.topic_alias_maximum = random.pick(&[0, 1, 3, 32]);
    config.first_packet_id = first_packet_id(random);
    config.max_outbound_aliases = random.pick(&[0, 1, 3, 16]);
    config.write_timeout = Duration::from_secs(random.pick(&[2, 60]));
    config.work_budget = random.pick(&[1, 3, 65_536]);
    config.queue_qos0 = random.chance(30);
    config.max_keep_alive = random.pick(&[0, 0, 10]);
    if random.chance(30) {
        config.max_queued_messages = random.pick(&[1, 2, 8]).try_into().unwrap_or(1);
    }
    if random.chance(20) {
        config.max_queued_bytes = payload + 600;
    }
    config.overflow = random.pick(&[Overflow::DropNewest, Overflow::DropOldest, Overflow::Disconnect]);
    if random.chance(15) {
        config.max_message_bytes = 3 * payload + 1_000;
    }
    if random.chance(20) {
        config.max_session_expiry = random.pick(&[2, 20]);
    }
    config.shards = random.pick(&[1, 2, 3, 4]);
    let messages = random.pick(&[1, 2, 10, 4_096]);
    config.shard_credit = ShardCredit { messages, bytes: random.pick(&[1, 1_000, 8 << 20]) };
    if random.chance(20) {
        config.resend_after = Some(Duration::from_secs(random.pick(&[1, 5])));
    }
    config
}

/// Now and then close before the identifiers begin again.
fn first_packet_id(random: &mut Random) -> PacketId {
    PacketId::new(random.pick(&[1, 1, 65_500, 65_530, 65_534, 65_535])).unwrap_or(PacketId::MIN)
}

impl NodeOptions {
    fn draw(index: usize, kind: Kind, random: &mut Random) -> Self {
        let version = random.pick(&[Version::V31, Version::V311, Version::V5, Version::V5, Version::V5]);
        let v5 = version.is_v5();
        let client_id = match kind {
            Kind::Machine => format!("c{index}"),
            Kind::Twin => "twin".into(),
            Kind::Raw => format!("raw{}", random.below(2)),
        };
        let mut config = ClientConfig { seed: seed(random), version, ..ClientConfig::new(client_id) };
        config.clean_start = match (v5, kind) {
            (_, Kind::Raw) => CleanStart::Always,
            (true, _) => random.pick(&[CleanStart::FirstOnly, CleanStart::FirstOnly, CleanStart::Always]),
            (false, _) => random.pick(&[CleanStart::Never, CleanStart::Never, CleanStart::Always]),
        };
        config.session_expiry_secs = random.pick(&[0, 5, 600, 1_000_000, u32::MAX]);
        if config.clean_start == CleanStart::Always || !v5 {
            config.session_expiry_secs = if config.clean_start == CleanStart::Always { 0 } else { u32::MAX };
        }
        config.keep_alive_secs = random.pick(&[0, 2, 10, 60]);
        config.receive_maximum = random.pick(&[1, 2, 5, 256, u16::MAX]);
        config.max_in_flight = random.pick(&[1, 2, 8, 256]);
        config.max_in_flight_3x = config.max_in_flight;
        config.topic_alias_maximum = random.pick(&[0, 1, 2, 16]);
        config.first_packet_id = first_packet_id(random);
        config.outbound_topic_aliases = random.pick(&[0, 1, 2, 16]);
        // Below 5.0 the broker cannot be told.
        config.max_packet_size = if v5 { random.pick(&[100, 1_000, 1 << 20, 1 << 20]) } else { 1 << 20 };
        config.connect_timeout = Duration::from_secs(random.pick(&[2, 15]));
        config.ping_timeout = Duration::from_secs(random.pick(&[1, 10]));
        config.reconnect = Some(Backoff {
            min: Duration::from_millis(random.pick(&[1, 500])),
            max: Duration::from_secs(random.pick(&[1, 20])),
        });
        config.stop_when_refused = false;
        config.stop_when_taken_over = kind == Kind::Twin;
        config.republish = random.chance(50);
        config.ack_mode = random.pick(&[AckMode::Auto, AckMode::Auto, AckMode::Manual]);
        config.durability = random.pick(&[Durability::Off, Durability::Off, Durability::Synced]);
        if !v5 && random.chance(20) {
            config.resend_interval = Some(Duration::from_secs(random.pick(&[1, 7])));
        }
        if random.chance(40) && kind == Kind::Machine {
            let message = Message::new(format!("will/n{index}"), "gone").with_qos(QoS::AtLeastOnce);
            let delay_secs = if v5 { random.pick(&[0, 1, 10]) } else { 0 };
            config.will = Some(Will { message, delay_secs });
        }
        let numbers = v5 && random.chance(40);
        Self { kind, config, shares: random.chance(25), publishes: random.chance(75), numbers }
    }
}
