use crate::Timestamp;
use core::time::Duration;

/// What the machine's clock and the clock on the wall showed at the same moment. From the last stored
/// pair a broker that starts again knows how long it was down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredClock {
    /// Machine time.
    pub time: Timestamp,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

impl StoredClock {
    /// Where machine time goes on when the wall clock shows `unix_ms`. A wall clock that went back
    /// counts as no time; one that leapt further than `max_downtime`, as that: a device without a
    /// clock of its own must not expire everything when it starts.
    #[must_use]
    pub fn resume(self, unix_ms: u64, max_downtime: Duration) -> Timestamp {
        // Saturates at zero: a clock that went back.
        let down = Duration::from_millis(unix_ms.saturating_sub(self.unix_ms));
        self.time + down.min(max_downtime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_by_the_wall_clock_within_reason() {
        let clock = StoredClock { time: Timestamp::from_micros(7_000_000), unix_ms: 1_000_000 };
        let day = Duration::from_secs(86_400);
        let at = |unix_ms| clock.resume(unix_ms, day).as_micros();
        assert_eq!(at(1_005_000), 12_000_000);
        assert_eq!(at(1_000_000), 7_000_000);
        assert_eq!(at(0), 7_000_000, "the clock went back");
        assert_eq!(at(u64::MAX), 7_000_000 + 86_400_000_000, "the clock leapt");
    }
}
