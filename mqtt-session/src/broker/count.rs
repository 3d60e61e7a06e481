//! What a broker counts: plain numbers that the machine adds to as it works.

use super::output::DropReason;
use super::{Broker, Stats};
use mqtt_proto::{QoS, ReasonCode};

/// What happened since the broker was made. Numbers only grow; who wants rates takes differences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections that peers opened.
    pub connections: u64,
    /// CONNECT packets that were well formed.
    pub connects: u64,
    /// Of these, those that were accepted.
    pub accepted: u64,
    /// CONNECTs that were refused.
    pub refused: u64,
    /// Why they were.
    pub refusals: Refusals,
    /// Packets that broke a rule.
    pub malformed: u64,
    /// How connections ended whose CONNECT had been accepted.
    pub endings: Endings,
    /// Packets received, of all kinds.
    pub packets_received: u64,
    /// Packets whose bytes sockets took, of all kinds.
    pub packets_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes that sockets took.
    pub bytes_sent: u64,
    /// PUBLISH packets received, by QoS. Also those that were not taken.
    pub publish_received: [u64; 3],
    /// PUBLISH packets put into outboxes, by QoS. Repetitions count.
    pub publish_sent: [u64; 3],
    /// Bytes of payload in PUBLISH packets received.
    pub payload_received: u64,
    /// Bytes of payload in PUBLISH packets put into outboxes.
    pub payload_sent: u64,
    /// Deliveries dropped, and messages that were not taken or not retained.
    pub dropped: Drops,
    /// What clients wanted and their tables of rights do not allow.
    pub denied: Denials,
    /// Sessions that ended because their time without a connection had passed.
    pub sessions_expired: u64,
    /// The most sessions that there were at once.
    pub most_sessions: u64,
}

/// What was dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drops {
    /// The queue of a session or group was full.
    pub queue_full: u64,
    /// The message memory was full.
    pub memory_full: u64,
    /// The message expired.
    pub expired: u64,
    /// It was larger than the client takes.
    pub too_large: u64,
    /// The client may not read it any more.
    pub not_authorized: u64,
    /// No member of a group of shared subscriptions could have it, and it could not wait.
    pub no_member: u64,
    /// It was delivered and not retained.
    pub not_retained: u64,
}

impl Drops {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        let Self { queue_full, memory_full, expired, too_large, not_authorized, no_member, not_retained } =
            *self;
        queue_full + memory_full + expired + too_large + not_authorized + no_member + not_retained
    }

    pub(super) const fn add(&mut self, reason: DropReason) {
        *match reason {
            DropReason::QueueFull => &mut self.queue_full,
            DropReason::MemoryFull => &mut self.memory_full,
            DropReason::Expired => &mut self.expired,
            DropReason::TooLarge => &mut self.too_large,
            DropReason::NotAuthorized => &mut self.not_authorized,
        } += 1;
    }
}

/// CONNECTs that were refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusals {
    /// User name or password are wrong (0x86), or the method of authentication is (0x8C).
    pub credentials: u64,
    /// This client may not connect (0x87, 0x8A).
    pub not_authorized: u64,
    /// The client identifier is not taken (0x85).
    pub client_id: u64,
    /// The version of the protocol is not spoken (0x84).
    pub version: u64,
    /// There are too many, or they come too fast (0x88, 0x89, 0x97, 0x9F).
    pub busy: u64,
    /// Anything else.
    pub other: u64,
}

impl Refusals {
    pub(super) const fn add(&mut self, reason: ReasonCode) {
        *match reason {
            ReasonCode::BadUserNameOrPassword | ReasonCode::BadAuthenticationMethod => &mut self.credentials,
            ReasonCode::NotAuthorized | ReasonCode::Banned => &mut self.not_authorized,
            ReasonCode::ClientIdentifierNotValid => &mut self.client_id,
            ReasonCode::UnsupportedProtocolVersion => &mut self.version,
            ReasonCode::ServerUnavailable
            | ReasonCode::ServerBusy
            | ReasonCode::QuotaExceeded
            | ReasonCode::ConnectionRateExceeded => &mut self.busy,
            _ => &mut self.other,
        } += 1;
    }
}

/// Connections that ended, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endings {
    /// The client took leave, with its will (0x04) or without (0x00).
    pub disconnected: u64,
    /// The socket ended without a word.
    pub lost: u64,
    /// Nothing came for longer than the keep alive allows (0x8D).
    pub keep_alive: u64,
    /// Another connection took the session over (0x8E).
    pub taken_over: u64,
    /// The client broke a rule, or used what is not offered (0x81, 0x82, 0x8F to 0x95 and their like).
    pub protocol: u64,
    /// An administrator, a change of rights or the end of what it had shown (0x87, 0x98, 0xA0).
    pub administrative: u64,
    /// It did not take what was for it, or sent too fast (0x96, 0x97).
    pub slow: u64,
    /// The broker shut down (0x8B).
    pub shutdown: u64,
    /// Anything else.
    pub other: u64,
}

impl Endings {
    pub(super) const fn add(&mut self, reason: ReasonCode) {
        *match reason {
            ReasonCode::Success | ReasonCode::DisconnectWithWill => &mut self.disconnected,
            ReasonCode::UnspecifiedError => &mut self.lost,
            ReasonCode::KeepAliveTimeout => &mut self.keep_alive,
            ReasonCode::SessionTakenOver => &mut self.taken_over,
            ReasonCode::NotAuthorized | ReasonCode::AdministrativeAction | ReasonCode::MaximumConnectTime => {
                &mut self.administrative
            }
            ReasonCode::MessageRateTooHigh | ReasonCode::QuotaExceeded => &mut self.slow,
            ReasonCode::ServerShuttingDown => &mut self.shutdown,
            ReasonCode::MalformedPacket
            | ReasonCode::ProtocolError
            | ReasonCode::TopicFilterInvalid
            | ReasonCode::TopicNameInvalid
            | ReasonCode::ReceiveMaximumExceeded
            | ReasonCode::TopicAliasInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::PayloadFormatInvalid
            | ReasonCode::RetainNotSupported
            | ReasonCode::QosNotSupported
            | ReasonCode::SharedSubscriptionsNotSupported
            | ReasonCode::SubscriptionIdentifiersNotSupported
            | ReasonCode::WildcardSubscriptionsNotSupported => &mut self.protocol,
            _ => &mut self.other,
        } += 1;
    }
}

/// What clients were denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denials {
    /// To publish.
    pub publish: u64,
    /// To subscribe.
    pub subscribe: u64,
    /// To have their wills published.
    pub will: u64,
}

/// The figures of two shards together.
impl core::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        let Self {
            connections,
            connected,
            sessions,
            subscriptions,
            shared_subscriptions,
            retained,
            messages,
            message_bytes,
            received,
            sent,
            dropped,
            slowed,
            unsent_packets,
            unsent_bytes,
            counters,
        } = other;
        self.connections += connections;
        self.connected += connected;
        self.sessions += sessions;
        self.subscriptions += subscriptions;
        self.shared_subscriptions += shared_subscriptions;
        self.retained += retained;
        self.messages += messages;
        self.message_bytes += message_bytes;
        self.received += received;
        self.sent += sent;
        self.dropped += dropped;
        self.slowed += slowed;
        self.unsent_packets += unsent_packets;
        self.unsent_bytes += unsent_bytes;
        self.counters += counters;
    }
}

impl core::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        let Self {
            connections,
            connects,
            accepted,
            refused,
            refusals,
            malformed,
            endings,
            packets_received,
            packets_sent,
            bytes_received,
            bytes_sent,
            publish_received,
            publish_sent,
            payload_received,
            payload_sent,
            dropped,
            denied,
            sessions_expired,
            most_sessions,
        } = other;
        self.connections += connections;
        self.connects += connects;
        self.accepted += accepted;
        self.refused += refused;
        self.refusals += refusals;
        self.malformed += malformed;
        self.endings += endings;
        self.packets_received += packets_received;
        self.packets_sent += packets_sent;
        self.bytes_received += bytes_received;
        self.bytes_sent += bytes_sent;
        for (sum, count) in self.publish_received.iter_mut().zip(publish_received) {
            *sum += count;
        }
        for (sum, count) in self.publish_sent.iter_mut().zip(publish_sent) {
            *sum += count;
        }
        self.payload_received += payload_received;
        self.payload_sent += payload_sent;
        self.dropped += dropped;
        self.denied += denied;
        self.sessions_expired += sessions_expired;
        // Not at the same moment, perhaps, but never less than that.
        self.most_sessions += most_sessions;
    }
}

impl core::ops::AddAssign for Drops {
    fn add_assign(&mut self, other: Self) {
        let Self { queue_full, memory_full, expired, too_large, not_authorized, no_member, not_retained } =
            other;
        self.queue_full += queue_full;
        self.memory_full += memory_full;
        self.expired += expired;
        self.too_large += too_large;
        self.not_authorized += not_authorized;
        self.no_member += no_member;
        self.not_retained += not_retained;
    }
}

impl core::ops::AddAssign for Refusals {
    fn add_assign(&mut self, other: Self) {
        let Self { credentials, not_authorized, client_id, version, busy, other } = other;
        self.credentials += credentials;
        self.not_authorized += not_authorized;
        self.client_id += client_id;
        self.version += version;
        self.busy += busy;
        self.other += other;
    }
}

impl core::ops::AddAssign for Endings {
    fn add_assign(&mut self, other: Self) {
        let Self {
            disconnected,
            lost,
            keep_alive,
            taken_over,
            protocol,
            administrative,
            slow,
            shutdown,
            other,
        } = other;
        self.disconnected += disconnected;
        self.lost += lost;
        self.keep_alive += keep_alive;
        self.taken_over += taken_over;
        self.protocol += protocol;
        self.administrative += administrative;
        self.slow += slow;
        self.shutdown += shutdown;
        self.other += other;
    }
}

impl core::ops::AddAssign for Denials {
    fn add_assign(&mut self, other: Self) {
        let Self { publish, subscribe, will } = other;
        self.publish += publish;
        self.subscribe += subscribe;
        self.will += will;
    }
}

/// One more of this QoS.
#[inline]
pub(super) const fn count(by_qos: &mut [u64; 3], qos: QoS) {
    let [at_most_once, at_least_once, exactly_once] = by_qos;
    *match qos {
        QoS::AtMostOnce => at_most_once,
        QoS::AtLeastOnce => at_least_once,
        QoS::ExactlyOnce => exactly_once,
    } += 1;
}

/// All of any QoS.
pub(super) const fn total(by_qos: &[u64; 3]) -> u64 {
    let [at_most_once, at_least_once, exactly_once] = *by_qos;
    at_most_once + at_least_once + exactly_once
}

impl Broker {
    /// Takes note of what waits in a connection's outbox.
    pub(super) fn note_outbox(&mut self, index: u32) {
        let Some(c) = self.connections.get_mut(index) else { return };
        let now = (u32::try_from(c.out_len()).unwrap_or(u32::MAX), c.packets);
        let before = core::mem::replace(&mut c.noted, now);
        // Never below zero: what is taken off was added.
        self.unsent.0 = (self.unsent.0 + now.0 as usize).saturating_sub(before.0 as usize);
        self.unsent.1 = (self.unsent.1 + now.1 as usize).saturating_sub(before.1 as usize);
    }
}
