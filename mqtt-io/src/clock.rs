use mqtt_session::Timestamp;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The machine's time: microseconds since this clock was made, or since the machine was first made
/// whose store it goes on with.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
    /// What it showed then.
    at_epoch: Timestamp,
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self::from(Timestamp::ZERO)
    }

    /// A clock that shows `now`: that of a machine that was restored.
    #[must_use]
    pub fn from(now: Timestamp) -> Self {
        Self { epoch: Instant::now(), at_epoch: now }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.at_epoch + self.epoch.elapsed()
    }

    /// When the operating system's clock shows `at`; `None` if that is beyond what it can express.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Option<Instant> {
        self.epoch.checked_add(at.since(self.at_epoch))
    }

    /// The wall clock, in milliseconds since 1970.
    #[must_use]
    pub fn unix_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_back_to_instants() {
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second);
        assert!(clock.instant(first).is_some_and(|at| at <= Instant::now()));
        assert!(Clock::unix_ms() > 1_600_000_000_000);
    }

    #[test]
    fn it_goes_on_where_a_restored_machine_is() {
        let at = Timestamp::from_micros(7_000_000);
        let clock = Clock::from(at);
        assert!(clock.now() >= at);
        assert!(clock.instant(at).is_some_and(|at| at <= Instant::now()));
        let past = clock.instant(Timestamp::ZERO);
        assert!(past.is_some_and(|past| past <= Instant::now()), "what is overdue is due now");
    }

    #[test]
    fn the_end_of_time_is_no_instant() {
        // Where the system can express it, it is far away; it must only not panic.
        let _ = Clock::start().instant(Timestamp::MAX);
    }
}
