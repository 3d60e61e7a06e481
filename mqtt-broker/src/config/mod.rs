//! The configuration file: what can be set, and its defaults.
//!
//! [`EXAMPLE`] is the same in words, and a test keeps the two together.

mod http;
mod load;
mod log;
mod sys;
mod transport;
mod value;

pub use http::Http;
pub use load::Overrides;
pub(crate) use load::{changes, line_of};
pub use log::{Log, LogFormat, LogLevel};
pub use sys::{Shards, Sys};
pub use transport::{Protocol, Tls, TlsVersion, WebSocket};
pub use value::{Size, Span};

use crate::storage::Data;
use mqtt_access::ThrottleConfig;
use mqtt_proto::QoS;
use mqtt_tokio::broker::{BrokerConfig, GateConfig, Overflow, Rates, RefusedFilter31};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Every setting with its default and a word about it, as `mqtt broker --print-config` writes it.
pub const EXAMPLE: &str = include_str!("example.toml");

/// All settings, as the file has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    /// How much is told.
    pub log: Log,
    /// Who may connect and what they may do, on listeners that say nothing else.
    pub security: Security,
    /// What is kept over the end of the broker.
    pub storage: Storage,
    /// What the broker tells of itself by MQTT.
    pub sys: Sys,
    /// Figures, health and administration by HTTP.
    pub http: Http,
    /// On how many threads it works.
    pub shards: Shards,
    /// How guessing is slowed.
    pub throttle: Throttle,
    /// How much there may be of what.
    pub limits: Limits,
    /// How long what may take.
    pub timeouts: Timeouts,
    /// What is offered to clients.
    pub features: Features,
    /// Where to listen. None: on port 1883 of this machine only.
    #[serde(rename = "listener")]
    pub listeners: Vec<Listener>,
}

/// `[[listener]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    /// Where, as in [`Bind`](crate::Bind), or a path; the port is that of the protocol if none is named.
    pub address: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Connections at once.
    pub max_connections: Option<u32>,
    /// Connections that are accepted in a second.
    pub connections_per_second: Option<u32>,
    /// In the place of the limit of this name.
    pub messages_per_second: Option<u32>,
    /// In the place of the limit of this name.
    pub bytes_per_second: Option<Size>,
    /// Rights of the file of a Unix socket, in octal.
    pub unix_mode: Option<String>,
    /// Networks of proxies that say by the PROXY protocol where clients are; none: there is no proxy.
    pub proxy_protocol: Vec<String>,
    /// TLS.
    pub tls: Option<Tls>,
    /// WebSocket.
    pub websocket: Option<WebSocket>,
    /// In the place of `[security]`, of which then nothing counts here.
    pub security: Option<Security>,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:1883".to_owned(),
            protocol: Protocol::Mqtt,
            max_connections: None,
            connections_per_second: None,
            messages_per_second: None,
            bytes_per_second: None,
            unix_mode: None,
            proxy_protocol: Vec::new(),
            tls: None,
            websocket: None,
            security: None,
        }
    }
}

impl Listener {
    /// How fast its clients may send, if that differs from the broker's other clients.
    pub(crate) fn rates(&self, config: &FileConfig) -> Option<Rates> {
        let (own, all) = (self.bytes_per_second, config.limits.bytes_per_second);
        (self.messages_per_second.is_some() || own.is_some()).then(|| Rates {
            messages: self.messages_per_second.unwrap_or(config.limits.messages_per_second),
            bytes: u32::try_from(own.unwrap_or(all).0).unwrap_or(u32::MAX),
        })
    }
}

/// `[security]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Whether clients may connect that show nothing. Not set: on this machine's own addresses, as
    /// long as there is nothing by which a client could be known.
    pub anonymous: Option<bool>,
    /// Users and their passwords.
    pub password_file: Option<PathBuf>,
    /// Who may do what.
    pub acl_file: Option<PathBuf>,
    /// How the ACL file is read.
    pub acl_mode: AclMode,
    /// Whether a client's certificate says its user name.
    pub certificate_name: CertificateName,
    /// Client identifiers must begin with one of these, if there are any.
    pub client_id_prefixes: Vec<String>,
    /// Tokens as passwords.
    pub jwt: Option<Jwt>,
    /// A web service that decides.
    pub webhook: Option<Webhook>,
}

/// How an ACL file is read: see [`mqtt_session::acl::Mode`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AclMode {
    /// Our way.
    #[default]
    Strict,
    /// Mosquitto's way, to the letter.
    Mosquitto,
}

/// Whether a client's certificate says its user name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateName {
    /// No.
    #[default]
    Unused,
    /// Its common name does.
    CommonName,
    /// Its whole subject does.
    Subject,
}

/// `[security.jwt]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jwt {
    /// One public key (PEM), or a secret.
    pub key_file: Option<PathBuf>,
    /// A JWK set.
    pub jwks_file: Option<PathBuf>,
    /// What is accepted.
    pub algorithms: Vec<String>,
    /// Where the user name stands.
    pub user_claim: String,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must be or hold.
    pub audience: Option<String>,
    /// By how much clocks may differ.
    pub leeway: Span,
    /// Whether tokens must have an end.
    pub require_expiry: bool,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            key_file: None,
            jwks_file: None,
            algorithms: Vec::new(),
            user_claim: "sub".to_owned(),
            issuer: None,
            audience: None,
            leeway: Span::secs(30),
            require_expiry: true,
        }
    }
}

/// `[security.webhook]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhook {
    /// Asked who may connect.
    pub connect_url: Option<String>,
    /// Asked about each PUBLISH and each filter.
    pub acl_url: Option<String>,
    /// Holds what is sent as bearer token.
    pub token_file: Option<PathBuf>,
    /// For https: authorities in the place of the system's.
    pub ca_file: Option<PathBuf>,
    /// How long an answer may take.
    pub timeout: Span,
    /// How long a yes is believed.
    pub remember_allow: Span,
    /// How long a no is believed.
    pub remember_deny: Span,
    /// How many answers are remembered.
    pub remembered: u32,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            connect_url: None,
            acl_url: None,
            token_file: None,
            ca_file: None,
            timeout: Span::secs(5),
            remember_allow: Span::secs(60),
            remember_deny: Span::secs(5),
            remembered: 10_000,
        }
    }
}

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Where. Not set: where the program keeps it on this platform; in memory if it is a library.
    pub data: Option<Data>,
    /// What an acknowledgement means.
    pub durability: DurabilityLevel,
    /// How long the broker believes to have been down at most.
    pub max_downtime: Span,
    /// Bytes on their way to the disk; beyond, publishers wait.
    pub max_unstored_bytes: Size,
}

impl Default for Storage {
    fn default() -> Self {
        let d = BrokerConfig::default();
        Self {
            data: None,
            durability: DurabilityLevel::Synced,
            max_downtime: Span(d.max_downtime),
            max_unstored_bytes: size(d.max_unstored_bytes),
        }
    }
}

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DurabilityLevel {
    /// On the disk: safe from a loss of power.
    #[default]
    Synced,
    /// With the operating system: safe from the end of the program.
    Written,
    /// In memory.
    Off,
}

/// `[throttle]`: see [`ThrottleConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Throttle {
    /// Failures that cost nothing.
    pub free_failures: u32,
    /// The pause after the next.
    pub first_pause: Span,
    /// The longest pause.
    pub longest_pause: Span,
    /// Whoever would wait longer is refused.
    pub longest_wait: Span,
    /// When failures are forgotten.
    pub forget_after: Span,
    /// Addresses that are remembered.
    pub addresses: u32,
}

impl Default for Throttle {
    fn default() -> Self {
        let d = ThrottleConfig::default();
        Self {
            free_failures: d.free_failures,
            first_pause: Span(d.first_pause),
            longest_pause: Span(d.longest_pause),
            longest_wait: Span(d.longest_wait),
            forget_after: Span(d.forget_after),
            addresses: u32::try_from(d.addresses).unwrap_or(u32::MAX),
        }
    }
}

/// `[limits]`: see [`BrokerConfig`] and [`GateConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "each is the field of BrokerConfig or GateConfig with this name")]
pub struct Limits {
    pub max_connections: u32,
    pub max_sessions: u32,
    pub max_packet_size: Size,
    pub max_connect_size: Size,
    pub max_unauthenticated_bytes: Size,
    pub max_inflight: u16,
    pub receive_maximum: u16,
    pub max_queued_messages: u32,
    pub max_queued_bytes: Size,
    pub max_message_bytes: Size,
    pub overflow: OverflowPolicy,
    pub queue_qos0: bool,
    pub max_subscriptions: u32,
    pub max_topic_levels: u16,
    pub max_retained: u32,
    pub max_outbox_bytes: Size,
    pub topic_alias_maximum: u16,
    pub max_outbound_aliases: u16,
    /// PUBLISH packets that one client may send in a second; 0: as many as it likes.
    pub messages_per_second: u32,
    /// Bytes that one client may send in a second; 0: as many as it likes.
    pub bytes_per_second: Size,
    pub max_keep_alive: Span,
    pub max_session_expiry: Span,
    /// Passwords that are hashed at once; 0: as many as there are cores.
    pub password_checks: u32,
    /// Questions to a web service at once.
    pub webhook_requests: u32,
    /// Clients that wait for an answer.
    pub waiting_logins: u32,
}

/// What happens when a session's queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverflowPolicy {
    /// The message that comes is dropped.
    #[default]
    DropNewest,
    /// The message that waited longest is dropped.
    DropOldest,
    /// The client is disconnected, and the message dropped.
    Disconnect,
}

impl From<OverflowPolicy> for Overflow {
    fn from(policy: OverflowPolicy) -> Self {
        match policy {
            OverflowPolicy::DropNewest => Self::DropNewest,
            OverflowPolicy::DropOldest => Self::DropOldest,
            OverflowPolicy::Disconnect => Self::Disconnect,
        }
    }
}

const fn size(bytes: usize) -> Size {
    Size(bytes as u64)
}

impl Default for Limits {
    fn default() -> Self {
        let (d, gate) = (BrokerConfig::default(), GateConfig::default());
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            max_connections: d.max_connections,
            max_sessions: d.max_sessions,
            max_packet_size: Size(d.max_packet_size.into()),
            max_connect_size: Size(d.max_connect_size.into()),
            max_unauthenticated_bytes: size(d.max_unauthenticated_bytes),
            max_inflight: d.max_inflight,
            receive_maximum: d.receive_maximum,
            max_queued_messages: d.max_queued_messages,
            max_queued_bytes: size(d.max_queued_bytes),
            max_message_bytes: size(d.max_message_bytes),
            overflow: OverflowPolicy::DropNewest,
            queue_qos0: d.queue_qos0,
            max_subscriptions: d.max_subscriptions,
            max_topic_levels: d.max_topic_levels,
            max_retained: d.max_retained,
            max_outbox_bytes: size(d.max_outbox_bytes),
            topic_alias_maximum: d.topic_alias_maximum,
            max_outbound_aliases: d.max_outbound_aliases,
            messages_per_second: d.rates.messages,
            bytes_per_second: Size(d.rates.bytes.into()),
            max_keep_alive: Span::NEVER,
            max_session_expiry: Span::NEVER,
            password_checks: 0,
            webhook_requests: small(gate.network),
            waiting_logins: small(gate.waiting),
        }
    }
}

/// `[timeouts]`: see [`BrokerConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "each is the field of BrokerConfig with this name")]
pub struct Timeouts {
    pub connect: Span,
    pub answer: Span,
    pub close: Span,
    pub write: Span,
    pub resend: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        let d = BrokerConfig::default();
        Self {
            connect: Span(d.connect_timeout),
            answer: Span(d.answer_timeout),
            close: Span(d.close_timeout),
            write: Span(d.write_timeout),
            resend: d.resend_after.map_or(Span::NEVER, Span),
        }
    }
}

/// `[features]`: see [`BrokerConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "each is the field of BrokerConfig with this name")]
pub struct Features {
    pub max_qos: u8,
    pub retain_available: bool,
    pub wildcards_available: bool,
    pub shared_available: bool,
    pub refused_filter_31: RefusedFilter,
    pub response_information: Option<String>,
}

/// What a refused filter means in 3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedFilter {
    /// The connection is closed.
    #[default]
    Hangup,
    /// It is granted in words and not subscribed.
    PretendGranted,
}

impl From<RefusedFilter> for RefusedFilter31 {
    fn from(filter: RefusedFilter) -> Self {
        match filter {
            RefusedFilter::Hangup => Self::Hangup,
            RefusedFilter::PretendGranted => Self::PretendGranted,
        }
    }
}

impl Default for Features {
    fn default() -> Self {
        let d = BrokerConfig::default();
        Self {
            max_qos: d.max_qos.as_u8(),
            retain_available: d.retain_available,
            wildcards_available: d.wildcards_available,
            shared_available: d.shared_available,
            refused_filter_31: RefusedFilter::Hangup,
            response_information: d.response_information,
        }
    }
}

/// A setting whose value cannot be: its path, as `limits.max_packet_size`, what is wrong, the remedy.
pub(crate) type Contradiction = (String, String, &'static str);

impl FileConfig {
    /// The settings of the machine.
    pub(crate) fn broker(&self) -> Result<BrokerConfig, Contradiction> {
        let Self { limits: l, timeouts: t, features: f, .. } = self;
        let fail = |path: &str, problem: &str, remedy| Err((path.to_owned(), problem.to_owned(), remedy));
        let u32_of = |path: &str, size: Size| {
            u32::try_from(size.0)
                .map_err(|_| (path.to_owned(), format!("{size} is too much"), "use less than 4GiB"))
        };
        let usize_of = |size: Size| usize::try_from(size.0).unwrap_or(usize::MAX);
        let mut c = BrokerConfig::default();
        let Ok(max_qos) = QoS::from_u8(f.max_qos).ok_or(()) else {
            return fail("features.max_qos", "there is no such QoS", "use 0, 1 or 2");
        };
        for (path, span) in [
            ("timeouts.connect", t.connect),
            ("timeouts.answer", t.answer),
            ("timeouts.close", t.close),
            ("timeouts.write", t.write),
        ] {
            if span == Span::NEVER || span.0.is_zero() {
                return fail(path, "a limit is needed here", "use a time like \"10s\"");
            }
        }
        if t.resend.0.is_zero() {
            return fail(
                "timeouts.resend",
                "messages cannot be sent again at once",
                "use \"never\" or a time",
            );
        }
        let Ok(keep_alive) =
            u16::try_from(if l.max_keep_alive == Span::NEVER { 0 } else { l.max_keep_alive.0.as_secs() })
        else {
            return fail(
                "limits.max_keep_alive",
                "it is more than MQTT can express",
                "use at most \"65535s\", or \"never\"",
            );
        };
        if l.max_keep_alive.0.as_secs() == 0 {
            return fail("limits.max_keep_alive", "it is less than a second", "use \"never\" for no limit");
        }
        c.max_connections = l.max_connections;
        c.max_sessions = l.max_sessions;
        c.max_packet_size = u32_of("limits.max_packet_size", l.max_packet_size)?;
        c.max_connect_size = u32_of("limits.max_connect_size", l.max_connect_size)?;
        c.max_unauthenticated_bytes = usize_of(l.max_unauthenticated_bytes);
        c.max_inflight = l.max_inflight;
        c.receive_maximum = l.receive_maximum;
        c.max_queued_messages = l.max_queued_messages;
        c.max_queued_bytes = usize_of(l.max_queued_bytes);
        c.max_message_bytes = usize_of(l.max_message_bytes);
        c.overflow = l.overflow.into();
        c.queue_qos0 = l.queue_qos0;
        c.max_subscriptions = l.max_subscriptions;
        c.max_topic_levels = l.max_topic_levels;
        c.max_retained = l.max_retained;
        c.max_outbox_bytes = usize_of(l.max_outbox_bytes);
        c.topic_alias_maximum = l.topic_alias_maximum;
        c.max_outbound_aliases = l.max_outbound_aliases;
        c.rates = Rates {
            messages: l.messages_per_second,
            bytes: u32_of("limits.bytes_per_second", l.bytes_per_second)?,
        };
        c.max_keep_alive = keep_alive;
        c.max_session_expiry = l.max_session_expiry.whole_secs();
        c.max_downtime = self.storage.max_downtime.0;
        c.max_unstored_bytes = usize_of(self.storage.max_unstored_bytes);
        c.connect_timeout = t.connect.0;
        c.answer_timeout = t.answer.0;
        c.close_timeout = t.close.0;
        c.write_timeout = t.write.0;
        c.resend_after = t.resend.end();
        c.sys_interval = self.sys.interval.end();
        c.shards = self.shards.number();
        c.server_version = Some(concat!("mqtt version ", env!("CARGO_PKG_VERSION")).to_owned());
        c.max_qos = max_qos;
        c.retain_available = f.retain_available;
        c.wildcards_available = f.wildcards_available;
        c.shared_available = f.shared_available;
        c.refused_filter_31 = f.refused_filter_31.into();
        c.response_information.clone_from(&f.response_information);
        c.check().map_err(|e| {
            let path = match e.setting() {
                "sys_interval" => "sys.interval".to_owned(),
                "shards" => "shards.count".to_owned(),
                "max_qos" => "features.max_qos".to_owned(),
                setting => format!("limits.{setting}"),
            };
            (path, e.to_string(), "see mqtt broker --print-config")
        })?;
        Ok(c)
    }

    pub(crate) fn throttle(&self) -> ThrottleConfig {
        let t = &self.throttle;
        ThrottleConfig {
            free_failures: t.free_failures,
            first_pause: t.first_pause.0,
            longest_pause: t.longest_pause.0,
            longest_wait: t.longest_wait.0,
            forget_after: t.forget_after.0,
            addresses: usize::try_from(t.addresses).unwrap_or(usize::MAX),
        }
    }

    pub(crate) fn gate(&self) -> GateConfig {
        let wide = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let default = GateConfig::default();
        GateConfig {
            hashing: match self.limits.password_checks {
                0 => default.hashing,
                n => wide(n),
            },
            network: wide(self.limits.webhook_requests),
            waiting: wide(self.limits.waiting_logins),
        }
    }
}
