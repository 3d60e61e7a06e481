use super::rate::Rates;
use crate::{Durability, MAX_SHARDS, Seed, ShardCredit, ShardId};
use core::time::Duration;
use mqtt_proto::{MAX_PACKET_SIZE, PacketId, QoS};

/// What happens to a message for a session whose queue is full. Expired messages are always purged
/// first, and every drop is counted and reported by [`Event::Dropped`](super::Event::Dropped).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The message that comes is dropped.
    #[default]
    DropNewest,
    /// The message that waited longest is dropped.
    DropOldest,
    /// The connection is closed (0x97) and the message dropped.
    Disconnect,
}

/// What is done in 3.1, whose SUBACK cannot refuse, when a filter is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RefusedFilter31 {
    /// The connection is closed.
    #[default]
    Hangup,
    /// The filter is granted QoS 0 in words and not subscribed.
    PretendGranted,
}

/// Which decisions are asked of the adapter ([`Output::Ask`](super::Output::Ask)). What is not asked
/// is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AskFor {
    /// Each CONNECT and each step of an authentication exchange. Without this, CONNECTs with an
    /// authentication method are refused (0x8C).
    pub connect: bool,
    /// Each PUBLISH from a client.
    pub publish: bool,
    /// Each SUBSCRIBE.
    pub subscribe: bool,
    /// Each will, when it fires.
    pub will: bool,
}

/// Settings of a broker. Every limit has a finite default.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerConfig {
    /// The source of all randomness: secret and new for each start, or fixed for a replay.
    pub seed: Seed,
    /// Which shard this machine is. Default 0.
    pub shard: ShardId,
    /// How many shards the broker has, all with the same seed and settings but for `shard`; at most 64. Limits
    /// are those of each shard. Default 1.
    pub shards: u16,
    /// Deliveries that this shard lets each other one have under way to it. Default 4,096 messages, 8 MiB.
    pub shard_credit: ShardCredit,
    /// How much an acknowledgement means. Default [`Durability::Off`].
    pub durability: Durability,
    /// What is asked. Default: nothing.
    pub ask: AskFor,
    /// No answer within this time is a no. Default 10 s.
    pub answer_timeout: Duration,
    /// From the TCP connection to an accepted CONNECT. Default 10 s.
    pub connect_timeout: Duration,
    /// A closed link is cut if the farewell was not written within this time. Default 5 s.
    pub close_timeout: Duration,
    /// A link that takes no byte for this long while bytes wait is cut. Default 60 s.
    pub write_timeout: Duration,
    /// Open connections. Default 100,000. This limit and the others of the whole broker count what all shards have, but for what
    /// several take at the same moment.
    pub max_connections: u32,
    /// Sessions, connected or not. Default 1,000,000.
    pub max_sessions: u32,
    /// Largest packet taken, in bytes, header included. Default 2 MiB.
    pub max_packet_size: u32,
    /// Largest packet taken before a CONNECT was accepted, in bytes. Default 64 KiB.
    pub max_connect_size: u32,
    /// Bytes kept for all connections without an accepted CONNECT together. Default 64 MiB.
    pub max_unauthenticated_bytes: usize,
    /// Longest keep alive in seconds; clients that ask for more, or for none, get this (5.0 are
    /// told, 3.x are only held to it if it is shorter than what they asked). 0: no limit. Default 0.
    pub max_keep_alive: u16,
    /// QoS 1 and 2 messages that a client may have under way towards us (5.0). Default 1,024.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages under way towards a client; a client's Receive Maximum lowers it.
    /// Default 1,024.
    pub max_inflight: u16,
    /// The first packet identifier of a new session; each further one is the next that is free. Only
    /// tests that want to see the step from 65,535 to 1 need another than the default, 1.
    pub first_packet_id: PacketId,
    /// Topic aliases that a client may set. Default 32.
    pub topic_alias_maximum: u16,
    /// Topic aliases that we set towards a client that takes them. Default 16.
    pub max_outbound_aliases: u16,
    /// Highest QoS. Default 2.
    pub max_qos: QoS,
    /// Whether messages may be retained. Default true.
    pub retain_available: bool,
    /// Whether filters may have wildcards. Default true.
    pub wildcards_available: bool,
    /// Whether subscriptions may be shared. Default true.
    pub shared_available: bool,
    /// Longest life of a session without a connection, in seconds; `u32::MAX`: for ever. Default for
    /// ever.
    pub max_session_expiry: u32,
    /// Messages waiting for one session. Default 10,000.
    pub max_queued_messages: u32,
    /// Bytes of the messages waiting for one session. Default 16 MiB.
    pub max_queued_bytes: usize,
    /// Bytes of all messages held, each counted once. Default 1 GiB.
    pub max_message_bytes: usize,
    /// Bytes of store operations that are not confirmed. Beyond, what causes operations waits. Default
    /// 16 MiB.
    pub max_unstored_bytes: usize,
    /// How long a broker that is made from a store believes to have been down at most: a device
    /// without a clock must not let everything expire when it starts. Default 30 days.
    pub max_downtime: Duration,
    /// What happens when a queue is full. Default: the newest is dropped.
    pub overflow: Overflow,
    /// How often the `$SYS` topics are looked at. Default: they are not there.
    pub sys_interval: Option<Duration>,
    /// What `$SYS/broker/version` says. Default: it is not there.
    pub server_version: Option<alloc::string::String>,
    /// Whether QoS 0 messages wait for a session without a connection. Default false.
    pub queue_qos0: bool,
    /// Subscriptions of one session. Default 100,000.
    pub max_subscriptions: u32,
    /// Levels of a topic or filter. Default 200.
    pub max_topic_levels: u16,
    /// Retained messages. Default 1,000,000.
    pub max_retained: u32,
    /// Unreleased inbound QoS 2 messages and unsent acknowledgements waiting on one connection that
    /// does not read, in bytes. Default 1 MiB.
    pub max_outbox_bytes: usize,
    /// Deliveries that one call makes at most before it leaves the rest to the next. Default 65,536.
    pub work_budget: u32,
    /// How fast one client may send; what is faster waits in its socket. [`Peer::rates`] has others
    /// for single listeners. Default none.
    ///
    /// [`Peer::rates`]: super::Peer::rates
    pub rates: Rates,
    /// Below 5.0: messages without an answer for this long are sent again on a live link (5.0 forbids
    /// it, [MQTT-4.4.0-1]). Default: only when the client comes back.
    pub resend_after: Option<Duration>,
    /// What a refused filter means in 3.1.
    pub refused_filter_31: RefusedFilter31,
    /// What response topics are to be made of, told to clients that ask (5.0). Default none.
    pub response_information: Option<alloc::string::String>,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            seed: Seed::default(),
            shard: ShardId::default(),
            shards: 1,
            shard_credit: ShardCredit::default(),
            durability: Durability::Off,
            ask: AskFor::default(),
            answer_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(60),
            max_connections: 100_000,
            max_sessions: 1_000_000,
            max_packet_size: 2 << 20,
            max_connect_size: 64 << 10,
            max_unauthenticated_bytes: 64 << 20,
            max_keep_alive: 0,
            receive_maximum: 1024,
            max_inflight: 1024,
            first_packet_id: PacketId::MIN,
            topic_alias_maximum: 32,
            max_outbound_aliases: 16,
            max_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcards_available: true,
            shared_available: true,
            max_session_expiry: u32::MAX,
            max_queued_messages: 10_000,
            max_queued_bytes: 16 << 20,
            max_message_bytes: 1 << 30,
            max_unstored_bytes: 16 << 20,
            max_downtime: Duration::from_secs(30 * 86_400),
            overflow: Overflow::DropNewest,
            sys_interval: None,
            server_version: None,
            queue_qos0: false,
            max_subscriptions: 100_000,
            max_topic_levels: 200,
            max_retained: 1_000_000,
            max_outbox_bytes: 1 << 20,
            work_budget: 65_536,
            rates: Rates::default(),
            resend_after: None,
            refused_filter_31: RefusedFilter31::Hangup,
            response_information: None,
        }
    }
}

/// A setting that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("setting {setting} {problem}")]
pub struct ConfigError {
    setting: &'static str,
    problem: &'static str,
}

impl ConfigError {
    /// The name of the field.
    #[must_use]
    pub const fn setting(&self) -> &'static str {
        self.setting
    }
}

impl ConfigError {
    pub(super) const NO_SHARDS: Self = Self { setting: "shards", problem: "must not be 0" };
}

impl BrokerConfig {
    /// Whether these settings can be, as [`Broker::new`](super::Broker::new) will find.
    ///
    /// # Errors
    /// Names the setting that cannot be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let rules = [
            (self.shards != 0, "shards", "must not be 0"),
            (self.shards <= MAX_SHARDS, "shards", "must be at most 64"),
            (self.shard.0 < self.shards, "shard", "must be below the number of shards"),
            (
                self.shard_credit.messages != 0,
                "shard_credit",
                "must not be 0: nothing would ever be handed over",
            ),
            (self.receive_maximum != 0, "receive_maximum", "must not be 0 [MQTT-4.9.0-1]"),
            (self.max_inflight != 0, "max_inflight", "must not be 0 [MQTT-4.9.0-1]"),
            (self.work_budget != 0, "work_budget", "must not be 0: nothing would ever be delivered"),
            (self.max_packet_size >= 64, "max_packet_size", "must be at least 64 bytes"),
            (self.max_packet_size <= MAX_PACKET_SIZE, "max_packet_size", "is more than MQTT can express"),
            (self.max_connect_size >= 64, "max_connect_size", "must be at least 64 bytes"),
            (self.max_topic_levels != 0, "max_topic_levels", "must not be 0"),
            (
                self.sys_interval.is_none_or(|interval| interval >= Duration::from_millis(100)),
                "sys_interval",
                "must be at least 100 ms, or off",
            ),
        ];
        match rules.into_iter().find(|(ok, ..)| !ok) {
            Some((_, setting, problem)) => Err(ConfigError { setting, problem }),
            None => Ok(()),
        }
    }
}
