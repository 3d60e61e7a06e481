//! What a client is told at the start. Every limit has a finite default.

use crate::shared::rules::Rules;
use crate::{Durability, Message, Seed};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use mqtt_proto::{
    ConnectRef, EncodeError, MAX_PACKET_SIZE, PacketId, PacketRef, PropertiesBuf, Property, PropertyId,
    Version, Violation, WillRef,
};

/// Settings of a [`Client`](super::Client). Take the defaults and change what matters:
///
/// ```
/// use mqtt_session::client::ClientConfig;
///
/// let config = ClientConfig { keep_alive_secs: 30, ..ClientConfig::new("meter-17") };
/// # assert_eq!(config.client_id, "meter-17");
/// ```
#[derive(Clone)]
pub struct ClientConfig {
    /// Where all randomness comes from.
    pub seed: Seed,
    /// The version to speak.
    pub version: Version,
    /// The client identifier. Empty asks the server to assign one (not in 3.1).
    pub client_id: String,
    /// When to ask for a fresh session.
    pub clean_start: CleanStart,
    /// Go on with a session that the server has but this client does not know, as after a restart of
    /// an application that had nothing in flight. Otherwise 5.0 demands to close [MQTT-3.2.2-4].
    pub adopt_session: bool,
    /// How long the session outlives its connection, in seconds; `u32::MAX` means for ever (5.0). In
    /// 3.x the session outlives it exactly if it did not start clean.
    pub session_expiry_secs: u32,
    /// The longest silence, in seconds; 0 switches keep alive off. A 5.0 server may override it.
    pub keep_alive_secs: u16,
    /// User name.
    pub user_name: Option<String>,
    /// Password; below 5.0 only with a user name.
    pub password: Option<Bytes>,
    /// What the server publishes when the connection is lost.
    pub will: Option<Will>,
    /// How many QoS 1 and 2 messages the server may send before an acknowledgement; not 0 (5.0).
    pub receive_maximum: u16,
    /// How many received messages may wait for their acknowledgement, whatever the version. Beyond it
    /// the connection is closed. A 5.0 server never gets there: it keeps to `receive_maximum`.
    pub max_unacknowledged: usize,
    /// How many bytes such messages may have together.
    pub max_unacknowledged_bytes: usize,
    /// The largest packet that is accepted, in bytes, header included.
    pub max_packet_size: u32,
    /// How many topic aliases the server may use (5.0).
    pub topic_alias_maximum: u16,
    /// How many topic aliases are used towards the server, if it accepts that many (5.0).
    pub outbound_topic_aliases: u16,
    /// How many QoS 1 and 2 messages may be unacknowledged by the server. In 5.0 the server's Receive
    /// Maximum limits it further.
    pub max_in_flight: u16,
    /// The same below 5.0, where servers do not say how many they take. Default 20: Mosquitto loses QoS 2
    /// messages beyond that.
    pub max_in_flight_3x: u16,
    /// How many messages may wait to be sent.
    pub max_queued_messages: usize,
    /// How many bytes such messages may have together.
    pub max_queued_bytes: usize,
    /// How many SUBSCRIBE and UNSUBSCRIBE may be unanswered.
    pub max_requests: usize,
    /// How many subscriptions are remembered, to be made again when the server lost the session.
    pub max_subscriptions: usize,
    /// How long dialling and the server's answer to CONNECT may take together.
    pub connect_timeout: Duration,
    /// How long the server may take to answer PINGREQ.
    pub ping_timeout: Duration,
    /// How to connect again; `None` does not.
    pub reconnect: Option<Backoff>,
    /// Stop connecting when the server refuses for a reason that trying again cannot change, such as
    /// a bad password.
    pub stop_when_refused: bool,
    /// Stop connecting when another client took the session over. Otherwise both push each other out
    /// for ever.
    pub stop_when_taken_over: bool,
    /// When the server has lost the session, subscribe again to what was granted.
    pub resubscribe: bool,
    /// When the server has lost the session, publish again what it had not acknowledged. A message
    /// may then arrive twice, whatever its QoS.
    pub republish: bool,
    /// Who acknowledges received messages.
    pub ack_mode: AckMode,
    /// Send unacknowledged messages again after this long on a live connection. Only below 5.0, and
    /// only for servers that lose messages: TCP does not.
    pub resend_interval: Option<Duration>,
    /// Ask the server what response topics are to be made of (5.0).
    pub request_response_information: bool,
    /// Let the server explain failures by reason strings and user properties on every packet (5.0).
    pub request_problem_information: bool,
    /// User properties of CONNECT (5.0).
    pub user_properties: Vec<(String, String)>,
    /// Enhanced authentication (5.0).
    pub authentication: Option<Authentication>,
    /// The first packet identifier of the machine's life; each further one is the next that is free.
    /// Only tests that want to see the step from 65,535 to 1 need another than the default, 1.
    pub first_packet_id: PacketId,
    /// What QoS 1 and 2 have to survive; above [`Durability::Off`] the machine emits store operations
    /// and waits for them.
    pub durability: Durability,
}

/// Leaves out what is secret.
impl core::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            seed: Seed::default(),
            version: Version::V5,
            client_id: String::new(),
            clean_start: CleanStart::FirstOnly,
            adopt_session: false,
            session_expiry_secs: 3600,
            keep_alive_secs: 60,
            user_name: None,
            password: None,
            will: None,
            receive_maximum: 256,
            max_unacknowledged: 65_535,
            max_unacknowledged_bytes: 64 << 20,
            max_packet_size: 16 << 20,
            topic_alias_maximum: 16,
            outbound_topic_aliases: 16,
            max_in_flight: 256,
            max_in_flight_3x: 20,
            max_queued_messages: 10_000,
            max_queued_bytes: 64 << 20,
            max_requests: 256,
            max_subscriptions: 10_000,
            connect_timeout: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(10),
            reconnect: Some(Backoff::default()),
            stop_when_refused: true,
            stop_when_taken_over: true,
            resubscribe: true,
            republish: true,
            ack_mode: AckMode::Auto,
            resend_interval: None,
            request_response_information: false,
            request_problem_information: true,
            user_properties: Vec::new(),
            authentication: None,
            first_packet_id: PacketId::MIN,
            durability: Durability::Off,
        }
    }
}

/// When a client asks for a fresh session (Clean Start, in 3.x Clean Session).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CleanStart {
    /// At each connect: nothing outlives a connection.
    Always,
    /// At the first connect; later ones resume.
    #[default]
    FirstOnly,
    /// Never: also the first connect asks for the session that the server may have. See
    /// [`ClientConfig::adopt_session`]. Below 5.0 this and `Always` are the honest choices, because
    /// there a session that starts clean ends with its connection.
    Never,
}

/// Who acknowledges received messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckMode {
    /// The machine, as soon as the message was handed out: at most once over a crash of the
    /// application.
    #[default]
    Auto,
    /// The application, by [`Client::ack`](super::Client::ack), in any order.
    Manual,
}

/// How long to wait before connecting again: `min`, doubled with each failure up to `max`, of which
/// a random part between one half and all is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub min: Duration,
    /// The longest wait. A connection that lasted this long makes the next wait the first again.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_millis(500), max: Duration::from_secs(60) }
    }
}

/// The message that the server publishes when the connection is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Will {
    /// The message.
    pub message: Message,
    /// How long the server waits for the client to return, in seconds (5.0).
    pub delay_secs: u32,
}

/// Enhanced authentication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    /// Name of the method, such as `SCRAM-SHA-256`.
    pub method: String,
    /// The data that goes with CONNECT.
    pub data: Option<Bytes>,
}

/// Why settings are not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// CONNECT would break a rule.
    #[error("CONNECT would break a rule: {}: {}", .0.rule(Version::V5).text(), .0.rule(Version::V5).remedy())]
    Connect(Violation),
    /// The client identifier is empty where it may not be.
    #[error("the client identifier is empty; 3.1 demands one, and 3.1.1 unless every session starts clean")]
    ClientId,
    /// A limit is zero.
    #[error("{0} is zero; give at least 1")]
    Zero(&'static str),
    /// `max_packet_size` is more than the format can express.
    #[error("max_packet_size is over {MAX_PACKET_SIZE}; give less")]
    PacketSize,
    /// The back-off ends before it begins.
    #[error("the longest wait before reconnecting is shorter than the first; exchange them")]
    Backoff,
    /// Something that only 5.0 has.
    #[error("{0} exists in 5.0 only; leave it out, or set version to 5.0")]
    Only5(&'static str),
    /// `resend_interval` in 5.0.
    #[error("5.0 forbids sending again on a live connection [MQTT-4.4.0-1]; leave resend_interval out")]
    ResendIn5,
}

impl ClientConfig {
    /// The defaults, and this client identifier.
    #[must_use]
    pub fn new(client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into(), ..Self::default() }
    }

    pub(super) fn rules(&self) -> &'static Rules {
        Rules::of(self.version)
    }

    /// Everything that can be known to be wrong before the first connect.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let rules = self.rules();
        let v5 = self.version.is_v5();
        if self.client_id.is_empty() {
            // [MQTT-3.1.3-7] of 3.1.1
            let clean = self.clean_start == CleanStart::Always;
            if !rules.empty_client_id || !(rules.empty_client_id_without_clean || clean) {
                return Err(ConfigError::ClientId);
            }
        }
        let zero = [
            (self.receive_maximum == 0, "receive_maximum"),
            (self.max_unacknowledged == 0, "max_unacknowledged"),
            (self.max_unacknowledged_bytes == 0, "max_unacknowledged_bytes"),
            (self.max_packet_size == 0, "max_packet_size"),
            (self.max_in_flight == 0, "max_in_flight"),
            (self.max_in_flight_3x == 0, "max_in_flight_3x"),
            (self.max_queued_messages == 0, "max_queued_messages"),
            (self.max_queued_bytes == 0, "max_queued_bytes"),
            (self.max_requests == 0, "max_requests"),
            (self.connect_timeout.is_zero(), "connect_timeout"),
            (self.ping_timeout.is_zero(), "ping_timeout"),
            (self.resend_interval.is_some_and(|i| i.is_zero()), "resend_interval"),
        ];
        if let Some((_, name)) = zero.iter().find(|(is_zero, _)| *is_zero) {
            return Err(ConfigError::Zero(name));
        }
        if self.max_packet_size > MAX_PACKET_SIZE {
            return Err(ConfigError::PacketSize);
        }
        if self.reconnect.is_some_and(|backoff| backoff.max < backoff.min) {
            return Err(ConfigError::Backoff);
        }
        if self.resend_interval.is_some() && !rules.may_resend_live {
            return Err(ConfigError::ResendIn5);
        }
        if self.authentication.is_some() && !v5 {
            return Err(ConfigError::Only5("enhanced authentication"));
        }
        self.encode_connect(&self.client_id, true, &mut Vec::new())
            .map(|_| ())
            .map_err(|error| ConfigError::Connect(error.violation()))
    }

    /// Writes CONNECT, the first packet of a connection [MQTT-3.1.0-1].
    pub(super) fn encode_connect(
        &self,
        client_id: &str,
        clean_start: bool,
        dst: &mut Vec<u8>,
    ) -> Result<usize, EncodeError> {
        let properties = self.connect_properties()?;
        let will_properties = self.will_properties()?;
        let will = self.will.as_ref().map(|will| WillRef {
            qos: will.message.qos,
            retain: will.message.retain,
            properties: will_properties.as_properties(),
            topic: &will.message.topic,
            payload: &will.message.payload,
        });
        PacketRef::Connect(ConnectRef {
            version: self.version,
            clean_start,
            keep_alive: self.keep_alive_secs,
            properties: properties.as_properties(),
            client_id,
            will,
            user_name: self.user_name.as_deref(),
            password: self.password.as_deref(),
        })
        .encode(self.version, dst)
    }

    fn connect_properties(&self) -> Result<PropertiesBuf, EncodeError> {
        let mut list = PropertiesBuf::new();
        if !self.version.is_v5() {
            return Ok(list);
        }
        if self.session_expiry_secs > 0 {
            list.push(Property::SessionExpiryInterval(self.session_expiry_secs))?;
        }
        if self.receive_maximum != u16::MAX {
            list.push(Property::ReceiveMaximum(self.receive_maximum))?;
        }
        list.push(Property::MaximumPacketSize(self.max_packet_size))?;
        if self.topic_alias_maximum > 0 {
            list.push(Property::TopicAliasMaximum(self.topic_alias_maximum))?;
        }
        if self.request_response_information {
            list.push(Property::RequestResponseInformation(true))?;
        }
        if !self.request_problem_information {
            list.push(Property::RequestProblemInformation(false))?;
        }
        for (name, value) in &self.user_properties {
            list.push(Property::UserProperty(name, value))?;
        }
        if let Some(authentication) = &self.authentication {
            list.push(Property::AuthenticationMethod(&authentication.method))?;
            if let Some(data) = &authentication.data {
                list.push(Property::AuthenticationData(data))?;
            }
        }
        Ok(list)
    }

    fn will_properties(&self) -> Result<PropertiesBuf, EncodeError> {
        let mut list = PropertiesBuf::new();
        if let Some(will) = self.will.as_ref().filter(|_| self.version.is_v5()) {
            let given = will.message.properties.as_properties();
            if given.contains(PropertyId::TopicAlias) || given.contains(PropertyId::SubscriptionIdentifier) {
                return Err(Violation::PropertyNotAllowed.into());
            }
            if will.delay_secs > 0 && !given.contains(PropertyId::WillDelayInterval) {
                list.push(Property::WillDelayInterval(will.delay_secs))?;
            }
            list.extend_except(given, &[]);
        }
        Ok(list)
    }
}
