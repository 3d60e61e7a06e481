//! How fast a client may send. What comes faster waits in its socket: reading is paused until time has
//! made up for it, so nothing is lost and nobody else notices.

use crate::Timestamp;

/// Limits of what one client sends, per second; 0 means none. What was not used for up to a second may
/// be made up for at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rates {
    /// PUBLISH packets.
    pub messages: u32,
    /// Bytes of whole packets, whatever they are.
    pub bytes: u32,
}

/// Parts of a token: what a rate gives in a microsecond is a whole number of them.
const PARTS: i64 = 1_000_000;

/// A token bucket, exact in whole numbers. It may go into debt once, for what is larger than itself.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Tokens a second; the bucket holds as many. 0: no limit.
    rate: u32,
    /// What is there, in parts.
    level: i64,
    at: Timestamp,
}

impl Bucket {
    const fn new(rate: u32, now: Timestamp) -> Self {
        Self { rate, level: rate as i64 * PARTS, at: now }
    }

    /// Fills up with what time has brought. `None` if something may be taken, otherwise when.
    fn wait(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.rate == 0 {
            return None;
        }
        let rate = i64::from(self.rate);
        let passed = i64::try_from(now.since(self.at).as_micros()).unwrap_or(i64::MAX);
        self.at = now;
        self.level = self.level.saturating_add(passed.saturating_mul(rate)).min(rate * PARTS);
        if self.level > 0 {
            return None;
        }
        let missing = (PARTS - self.level).unsigned_abs();
        let wait = missing.div_ceil(u64::from(self.rate));
        Some(now + core::time::Duration::from_micros(wait))
    }

    fn take(&mut self, tokens: usize) {
        if self.rate != 0 {
            let parts = i64::try_from(tokens).unwrap_or(i64::MAX).saturating_mul(PARTS);
            self.level = self.level.saturating_sub(parts);
        }
    }
}

/// How much of its rates a connection has used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    messages: Bucket,
    bytes: Bucket,
    /// When reading goes on, if it is paused for this.
    pub(super) until: Timestamp,
}

impl Meter {
    /// `None` if there is nothing to measure.
    pub(super) fn new(rates: Rates, now: Timestamp) -> Option<Self> {
        (rates != Rates::default()).then(|| Self {
            messages: Bucket::new(rates.messages, now),
            bytes: Bucket::new(rates.bytes, now),
            until: Timestamp::MAX,
        })
    }

    /// Whether the next packet may be worked on; if not, `until` says when.
    pub(super) fn is_open(&mut self, now: Timestamp) -> bool {
        self.until = Timestamp::MAX;
        let waits = [self.messages.wait(now), self.bytes.wait(now)];
        match waits.into_iter().flatten().max() {
            None => true,
            Some(until) => {
                self.until = until;
                false
            }
        }
    }

    /// A packet was worked on.
    pub(super) fn take(&mut self, messages: usize, bytes: usize) {
        self.messages.take(messages);
        self.bytes.take(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn a_bucket_gives_its_rate_and_a_burst_of_one_second() {
        let mut now = Timestamp::from_micros(5);
        let mut bucket = Bucket::new(3, now);
        let mut taken = 0;
        let end = now + Duration::from_secs(100);
        loop {
            match bucket.wait(now) {
                None => {
                    bucket.take(1);
                    taken += 1;
                }
                Some(at) if at > end => break,
                Some(at) => {
                    assert!(at > now, "it waits for something");
                    now = at;
                }
            }
        }
        assert_eq!(taken, 3 + 300);
    }

    #[test]
    fn a_large_piece_is_paid_for_afterwards() {
        let now = Timestamp::from_micros(0);
        let mut bucket = Bucket::new(10, now);
        assert_eq!(bucket.wait(now), None);
        bucket.take(1_000_000);
        // 999,990 are owed, and one is needed.
        assert_eq!(bucket.wait(now), Some(now + Duration::from_micros(99_999_100_000)));
        assert_eq!(bucket.wait(Timestamp::MAX), None);
    }
}
