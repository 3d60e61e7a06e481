use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the storage thread has done since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageStats {
    /// Commits that succeeded.
    pub commits: u64,
    /// Of these, how many waited for the disk.
    pub fsyncs: u64,
    /// Groups in them.
    pub groups: u64,
    /// Operations in them.
    pub ops: u64,
    /// About how many bytes of operations, as the machines count them.
    pub bytes: u64,
    /// Groups that came and are not committed yet.
    pub waiting: u64,
    /// Commits and steps of tidying that failed.
    pub failures: u64,
    /// Attempts to open the store again.
    pub reopens: u64,
    /// Whether the store has failed and did not recover yet.
    pub failed: bool,
    /// Steps of tidying.
    pub tidy_steps: u64,
    /// Bytes on the disk when they were last looked at, after tidying.
    pub disk_space: u64,
    /// Groups in a commit.
    pub commit_groups: Histogram,
    /// Microseconds that a commit took.
    pub commit_micros: Histogram,
}

const BUCKETS: usize = 24;

/// How often values of which size came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Histogram {
    /// How many values were at most `bound`, for bounds 1, 2, 4, 8 and so on. Values above the last
    /// bound are only in [`count`](Self::count).
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut below = 0;
        self.buckets.iter().take(BUCKETS - 1).enumerate().map(move |(i, n)| {
            below += n;
            (1 << i, below)
        })
    }

    /// How many values came.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all values.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// The bound below which `share` of the values lie (0.5 for the median), to a factor of two. `None`
    /// before the first value, and above the last bound.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let count = self.count();
        self.cumulative()
            .find(|&(_, below)| count > 0 && below as f64 >= share * count as f64)
            .map(|(b, _)| b)
    }
}

/// [`StorageStats`], written by the storage thread and read by any.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) fsyncs: AtomicU64,
    pub(super) groups: AtomicU64,
    pub(super) ops: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) under_way: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) reopens: AtomicU64,
    pub(super) down: AtomicU64,
    pub(super) tidy_steps: AtomicU64,
    pub(super) disk_space: AtomicU64,
    pub(super) commit_groups: AtomicHistogram,
    pub(super) commit_micros: AtomicHistogram,
}

#[derive(Debug, Default)]
pub(super) struct AtomicHistogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(super) fn set(counter: &AtomicU64, n: u64) {
    counter.store(n, Ordering::Relaxed);
}

impl AtomicHistogram {
    pub(super) fn record(&self, value: u64) {
        // Bucket i holds what is at most 2^i and above the one before.
        let bucket = value.max(1).next_power_of_two().trailing_zeros() as usize;
        if let Some(counter) = self.buckets.get(bucket.min(BUCKETS - 1)) {
            add(counter, 1);
        }
        add(&self.sum, value);
    }

    pub(super) fn record_micros(&self, value: Duration) {
        self.record(u64::try_from(value.as_micros()).unwrap_or(u64::MAX >> 1));
    }

    fn snapshot(&self) -> Histogram {
        let buckets = std::array::from_fn(|i| self.buckets.get(i).map_or(0, get));
        Histogram { buckets, sum: get(&self.sum) }
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    pub(super) fn snapshot(&self, queued: usize) -> StorageStats {
        StorageStats {
            commits: get(&self.commits),
            fsyncs: get(&self.fsyncs),
            groups: get(&self.groups),
            ops: get(&self.ops),
            bytes: get(&self.bytes),
            waiting: get(&self.under_way) + queued as u64,
            failures: get(&self.failures),
            reopens: get(&self.reopens),
            failed: get(&self.down) > 0,
            tidy_steps: get(&self.tidy_steps),
            disk_space: get(&self.disk_space),
            commit_groups: self.commit_groups.snapshot(),
            commit_micros: self.commit_micros.snapshot(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_by_powers_of_two() {
        let histogram = AtomicHistogram::default();
        for value in [0, 1, 2, 3, 4, 5, u64::MAX >> 2] {
            histogram.record(value);
        }
        let seen = histogram.snapshot();
        assert_eq!(seen.cumulative().take(5).collect::<Vec<_>>(), [(1, 2), (2, 3), (4, 5), (8, 6), (16, 6)]);
        assert_eq!(seen.count(), 7);
        assert_eq!(seen.quantile(0.5), Some(4));
        assert_eq!(seen.quantile(1.0), None);
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
