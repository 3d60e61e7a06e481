use mqtt_session::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The machine's time: microseconds since this clock was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { epoch: Instant::now() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let micros = self.epoch.elapsed().as_micros();
        Timestamp::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// When the operating system's clock shows `at`; `None` if that is beyond what it can express.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Option<Instant> {
        self.epoch.checked_add(Duration::from_micros(at.as_micros()))
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
    fn the_end_of_time_is_no_instant() {
        // Where the system can express it, it is far away; it must only not panic.
        let _ = Clock::start().instant(Timestamp::MAX);
    }
}
