use crate::Timestamp;
use core::time::Duration;

/// When a peer that must not fall silent has been silent for too long: after one and a half keep
/// alives ([MQTT-3.1.2-22]; [MQTT-3.1.2-24] of 3.1.1).
///
/// Kept lazily: a packet costs one store, and the timer is looked at only when it is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    interval: Duration,
    last: Timestamp,
}

impl KeepAlive {
    /// `secs` of 0 switches it off.
    pub(crate) const fn new(secs: u16, now: Timestamp) -> Self {
        Self { interval: Duration::from_secs(secs as u64), last: now }
    }

    /// In seconds.
    pub(crate) fn secs(&self) -> u16 {
        u16::try_from(self.interval.as_secs()).unwrap_or(u16::MAX)
    }

    pub(crate) fn touch(&mut self, now: Timestamp) {
        self.last = now;
    }

    pub(crate) fn is_on(&self) -> bool {
        !self.interval.is_zero()
    }

    pub(crate) const fn last(&self) -> Timestamp {
        self.last
    }

    /// When the peer is given up, if nothing arrives.
    pub(crate) fn peer_deadline(&self) -> Option<Timestamp> {
        self.is_on().then(|| self.last + self.interval * 3 / 2)
    }

    /// When we have to have sent something ourselves [MQTT-3.1.2-20].
    pub(crate) fn own_deadline(&self) -> Option<Timestamp> {
        self.is_on().then(|| self.last + self.interval)
    }
}
