//! Slowing those who guess.
//!
//! Whoever fails often is let in line: from one address only one attempt after the other is looked
//! at, each a while after the one before. A few failures cost nothing, since people mistype.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How those who fail are slowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleConfig {
    /// Failures from one address that cost nothing. Default 5.
    pub free_failures: u32,
    /// The pause between attempts after the next failure; it doubles with each. Default 250 ms.
    pub first_pause: Duration,
    /// The longest pause. Default 5 s; zero switches it all off.
    pub longest_pause: Duration,
    /// An attempt that would wait longer than this is refused without a look. Default 8 s; keep it
    /// below the time in which the broker wants an answer.
    pub longest_wait: Duration,
    /// Failures are forgotten after so long without another. Default 10 min.
    pub forget_after: Duration,
    /// Addresses that are remembered at most; then the one that has been known longest is forgotten.
    /// Default 10,000.
    pub addresses: usize,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            free_failures: 5,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(5),
            longest_wait: Duration::from_secs(8),
            forget_after: Duration::from_secs(600),
            addresses: 10_000,
        }
    }
}

#[derive(Debug)]
struct Known {
    failures: u32,
    last: Instant,
    /// When the next attempt is looked at.
    next: Instant,
}

/// Addresses that failed.
#[derive(Debug)]
pub(crate) struct Throttle {
    config: ThrottleConfig,
    known: HashMap<IpAddr, Known>,
    /// In the order in which they became known.
    order: VecDeque<IpAddr>,
}

impl Throttle {
    pub(crate) fn new(config: ThrottleConfig) -> Self {
        Self { config, known: HashMap::new(), order: VecDeque::new() }
    }

    pub(crate) const fn set_config(&mut self, config: ThrottleConfig) {
        self.config = config;
    }

    /// How long an attempt from `address` has to wait; `None` if it is too long. The attempt has its
    /// place in the line from then on.
    pub(crate) fn admit(&mut self, now: Instant, address: IpAddr) -> Option<Duration> {
        let Some(known) = self.known.get_mut(&network(address)) else { return Some(Duration::ZERO) };
        if now.saturating_duration_since(known.last) >= self.config.forget_after {
            known.failures = 0;
        }
        let pause = self.config.pause(known.failures);
        if pause.is_zero() {
            return Some(Duration::ZERO);
        }
        let start = known.next.max(now);
        let wait = start.saturating_duration_since(now);
        if wait > self.config.longest_wait {
            return None;
        }
        known.next = start + pause;
        Some(wait)
    }

    /// An attempt failed.
    pub(crate) fn failed(&mut self, now: Instant, address: IpAddr) {
        if self.config.longest_pause.is_zero() || self.config.addresses == 0 {
            return;
        }
        let address = network(address);
        if let Some(known) = self.known.get_mut(&address) {
            known.failures = known.failures.saturating_add(1);
            known.last = now;
            known.next = known.next.max(now + self.config.pause(known.failures));
            return;
        }
        while self.known.len() >= self.config.addresses {
            let Some(oldest) = self.order.pop_front() else { break };
            self.known.remove(&oldest);
        }
        self.order.push_back(address);
        self.known.insert(address, Known { failures: 1, last: now, next: now });
    }

    /// An attempt succeeded: half of the failures are forgotten. (Not all: who has one password
    /// could guess at others in between.)
    pub(crate) fn succeeded(&mut self, address: IpAddr) {
        if let Some(known) = self.known.get_mut(&network(address)) {
            known.failures /= 2;
        }
    }
}

impl ThrottleConfig {
    fn pause(&self, failures: u32) -> Duration {
        let Some(beyond) = failures.checked_sub(self.free_failures.saturating_add(1)) else {
            return Duration::ZERO;
        };
        // More doublings than that are beyond every limit.
        let factor = 1u32.checked_shl(beyond.min(31)).unwrap_or(u32::MAX);
        self.first_pause.saturating_mul(factor).min(self.longest_pause)
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_pause_grows_and_attempts_stand_in_line() {
        let (mut throttle, now, bad) =
            (Throttle::new(ThrottleConfig::default()), Instant::now(), address("192.0.2.1"));
        for _ in 0..5 {
            throttle.failed(now, bad);
            assert_eq!(throttle.admit(now, bad), Some(MS(0)), "people mistype");
        }
        throttle.failed(now, bad);
        assert_eq!([(); 3].map(|()| throttle.admit(now, bad)), [Some(MS(250)), Some(MS(500)), Some(MS(750))]);
        assert_eq!(throttle.admit(now, address("192.0.2.2")), Some(MS(0)), "others do not wait");
        for _ in 0..100 {
            throttle.failed(now, bad);
        }
        assert_eq!(throttle.admit(now, bad), Some(MS(5000)));
        assert_eq!(throttle.admit(now, bad), None, "longer than anybody waits");
        assert_eq!(throttle.admit(now + MS(9000), bad), Some(MS(1000)));
        assert_eq!(throttle.admit(now + MS(700_000), bad), Some(MS(0)), "forgotten");
    }

    #[test]
    fn a_success_forgets_a_part() {
        let (mut throttle, now, one) =
            (Throttle::new(ThrottleConfig::default()), Instant::now(), address("192.0.2.1"));
        (0..8).for_each(|_| throttle.failed(now, one));
        throttle.succeeded(one);
        assert_eq!(throttle.admit(now, one), Some(MS(0)));
        (0..2).for_each(|_| throttle.failed(now, one));
        assert!(throttle.admit(now, one) > Some(MS(0)));
    }

    #[test]
    fn a_network_is_one_address_and_the_table_is_bounded() {
        let config = ThrottleConfig { addresses: 3, free_failures: 0, ..ThrottleConfig::default() };
        let (mut throttle, now) = (Throttle::new(config), Instant::now());
        throttle.failed(now, address("2001:db8::1"));
        throttle.failed(now, address("2001:db8::2:1"));
        assert!(throttle.admit(now, address("2001:db8::ffff")) > Some(MS(0)));
        assert_eq!(throttle.admit(now, address("2001:db8:0:1::1")), Some(MS(0)));
        for n in 0..100 {
            throttle.failed(now, IpAddr::V4(n.into()));
        }
        assert_eq!((throttle.known.len(), throttle.order.len()), (3, 3));
    }

    #[test]
    fn it_can_be_switched_off() {
        let config = ThrottleConfig { longest_pause: Duration::ZERO, ..ThrottleConfig::default() };
        let (mut throttle, now, one) = (Throttle::new(config), Instant::now(), address("192.0.2.1"));
        (0..100).for_each(|_| throttle.failed(now, one));
        assert_eq!(throttle.admit(now, one), Some(MS(0)));
    }
}
