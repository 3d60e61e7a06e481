//! What a broker counts: plain numbers that the machine adds to as it works.

use super::Broker;
use super::output::DropReason;
use mqtt_proto::QoS;

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
    /// Packets that broke a rule.
    pub malformed: u64,
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
        let now = (c.out_len(), c.packets as usize);
        let before = core::mem::replace(&mut c.noted, now);
        // Never below zero: what is taken off was added.
        self.unsent.0 = (self.unsent.0 + now.0).saturating_sub(before.0);
        self.unsent.1 = (self.unsent.1 + now.1).saturating_sub(before.1);
    }
}
