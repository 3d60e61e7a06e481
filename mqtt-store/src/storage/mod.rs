//! The one thread that writes for all shards.
//!
//! Nobody waits for it but those who wait for an acknowledgement: a shard hands over its groups and
//! goes on. While one commit is on its way to the disk, what arrives meanwhile gathers, and is the
//! next commit. So the busier it is, the more groups share one `fsync`, and nothing waits for a timer.

mod stats;
mod worker;

pub use stats::{Histogram, StorageStats};

use crate::{Store, StoreError, StoreErrorKind};
use mqtt_session::{Durability, StoreGroup, StoreSeq};
use stats::Counters;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use worker::Worker;

/// What the storage thread tells a shard.
#[derive(Clone, Debug)]
pub enum Report {
    /// Everything up to `through` is safe: for the machine's `handle_stored`.
    Stored {
        /// The last group that is safe.
        through: StoreSeq,
    },
    /// The groups from `from` on are not safe: for the machine's `handle_store_failed`, which emits
    /// them again. Pass them on as they come: the thread keeps them until the store works again.
    Failed {
        /// The first group that is not safe. It may be one that does not exist yet.
        from: StoreSeq,
        /// Why.
        error: StoreError,
    },
    /// The store works again.
    Recovered,
}

/// Settings of the storage thread.
///
/// ```
/// use mqtt_store::Storage;
/// use std::time::Duration;
///
/// let storage = Storage { linger: Duration::from_micros(200), ..Storage::default() };
/// ```
#[derive(Clone, Debug)]
pub struct Storage {
    /// How long to wait for more groups before a commit. Zero by default: what arrives while one
    /// commit is on its way makes up the next. On a disk whose `fsync` is fast and wears it, some
    /// hundred microseconds save writes and cost as much latency.
    pub linger: Duration,
    /// How long nothing may arrive before the store is tidied. 100 ms by default.
    pub tidy_after: Duration,
    /// How often the store is tidied, one step at a time, while there is always something to write.
    /// Every second by default.
    pub tidy_every: Duration,
    /// How long to wait before a store that failed is opened again. Doubles with each attempt. 100 ms
    /// by default.
    pub retry_min: Duration,
    /// The longest such wait. 5 s by default.
    pub retry_max: Duration,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            linger: Duration::ZERO,
            tidy_after: Duration::from_millis(100),
            tidy_every: Duration::from_secs(1),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
        }
    }
}

impl Storage {
    /// Starts the thread, which takes `store` with it. `report` is called on that thread, with the
    /// number of a shard below `shards`; it must not block.
    ///
    /// With [`Durability::Synced`] a group is reported when it survives a loss of power; otherwise when
    /// it survives the death of this process.
    ///
    /// # Panics
    ///
    /// If the system cannot start a thread.
    #[must_use]
    pub fn start(
        self,
        store: Box<dyn Store>,
        durability: Durability,
        shards: usize,
        report: impl Fn(usize, Report) + Send + 'static,
    ) -> StorageHandle {
        let shared = Arc::new(Shared { shards, ..Shared::default() });
        let sync = durability == Durability::Synced;
        let worker = Worker::new(self, store, sync, shards, Arc::clone(&shared), Box::new(report));
        let thread = std::thread::Builder::new().name("mqtt-storage".to_owned()).spawn(|| worker.run());
        #[expect(clippy::expect_used, reason = "documented; std::thread::spawn does the same")]
        let thread = thread.expect("the system starts a thread");
        StorageHandle { owner: Arc::new(Owner { shared, end: Mutex::new(End::Running(thread)) }) }
    }
}

/// What shards hand their groups to. Clones are handles of the same thread; with the last one the
/// thread writes what it has and ends.
#[derive(Clone, Debug)]
pub struct StorageHandle {
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    end: Mutex<End>,
}

#[derive(Debug)]
enum End {
    Running(JoinHandle<Result<(), StoreError>>),
    Ended(Result<(), StoreError>),
}

impl StorageHandle {
    /// Hands over group `seq` of `shard`. Never blocks. The groups of a shard are numbered without
    /// gaps from 1; one that was handed over before is ignored. A group of another shard is never
    /// written before what was handed over earlier.
    ///
    /// The thread wakes at [`flush`](Self::flush).
    ///
    /// # Panics
    ///
    /// If there is no such shard.
    pub fn store(&self, shard: usize, seq: StoreSeq, group: StoreGroup) {
        let shared = &self.owner.shared;
        assert!(shard < shared.shards, "shard {shard} of {}", shared.shards);
        shared.queue().push(Item { shard, seq, group });
        shared.fresh.store(true, Ordering::Release);
    }

    /// Has everything written that was handed over. Does not wait for it. Costs nearly nothing when
    /// nothing was: call it once per turn.
    pub fn flush(&self) {
        // Whoever wakes the thread wakes it for everybody: it takes the whole queue.
        if self.owner.shared.fresh.swap(false, Ordering::AcqRel) {
            self.owner.shared.wake(|signal| signal.work = true);
        }
    }

    /// Writes what was handed over, ends the thread and waits for it. The last reports are made
    /// before this returns.
    ///
    /// # Errors
    ///
    /// If not everything could be written; the store was opened again once before it gave up.
    pub fn close(&self) -> Result<(), StoreError> {
        self.owner.shared.wake(|signal| signal.close = true);
        let mut end = self.owner.end.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *end, End::Ended(Ok(())));
        let result = match before {
            End::Running(thread) => thread.join().unwrap_or_else(|_| Err(panicked())),
            End::Ended(result) => result,
        };
        *end = End::Ended(result.clone());
        result
    }

    /// What the thread has done so far.
    #[must_use]
    pub fn stats(&self) -> StorageStats {
        let shared = &self.owner.shared;
        shared.counters.snapshot(shared.queue().len())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.wake(|signal| signal.close = true);
    }
}

fn panicked() -> StoreError {
    StoreError::new(StoreErrorKind::Panicked, "of the storage thread", "writing", "it panicked")
}

/// A group on its way.
#[derive(Debug)]
struct Item {
    shard: usize,
    seq: StoreSeq,
    group: StoreGroup,
}

/// Between the shards and the thread.
#[derive(Debug, Default)]
struct Shared {
    shards: usize,
    /// One queue for all shards: what one shard emits because of another is written after it.
    queue: Mutex<Vec<Item>>,
    /// Whether something was handed over since the last flush.
    fresh: AtomicBool,
    signal: Mutex<Signal>,
    awake: Condvar,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Signal {
    work: bool,
    close: bool,
}

impl Shared {
    // A push, a swap and two flags: nothing here can be half done when a thread panics.
    fn queue(&self) -> MutexGuard<'_, Vec<Item>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) -> MutexGuard<'_, Signal> {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, change: impl FnOnce(&mut Signal)) {
        change(&mut self.signal());
        self.awake.notify_one();
    }

    /// Waits for a flush or the end, at most for `timeout`. Takes the flush.
    fn wait(&self, timeout: Option<Duration>) -> Woken {
        let mut signal = self.signal();
        let still = |signal: &mut Signal| !signal.work && !signal.close;
        signal = match timeout {
            None => self.awake.wait_while(signal, still).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let waited = self.awake.wait_timeout_while(signal, limit, still);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let work = std::mem::take(&mut signal.work);
        if signal.close {
            Woken::Close
        } else if work {
            Woken::Work
        } else {
            Woken::Timeout
        }
    }

    /// Waits for the end, at most for `limit`; whether it came.
    fn pause(&self, limit: Duration) -> bool {
        let signal = self.signal();
        let waited = self.awake.wait_timeout_while(signal, limit, |signal| !signal.close);
        waited.unwrap_or_else(PoisonError::into_inner).0.close
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Work,
    Timeout,
    Close,
}
