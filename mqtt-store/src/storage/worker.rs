//! What the storage thread does.

use super::stats::{add, set};
use super::{Item, Report, Shared, Storage, Woken, panicked};
use crate::{Store, StoreError, StoreErrorKind};
use mqtt_session::{StoreGroup, StoreSeq};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a store that has more to tidy is left alone: it may have to wait for something itself.
const BETWEEN_STEPS: Duration = Duration::from_millis(1);

pub(super) struct Worker {
    settings: Storage,
    store: Box<dyn Store>,
    sync: bool,
    shards: Vec<Shard>,
    shared: Arc<Shared>,
    report: Box<dyn Fn(usize, Report) + Send>,
    /// The next commit.
    batch: Vec<StoreGroup>,
    /// The queue's other buffer.
    taken: Vec<Item>,
    tidy: Tidy,
    tidied_at: Instant,
    /// The last failure, until what it lost is safe.
    failure: Option<StoreError>,
}

/// How far the groups of a shard are.
#[derive(Clone, Debug)]
struct Shard {
    /// All up to this one are safe.
    through: u64,
    /// The one that comes next. Those from `through` up to it are in the batch.
    next: u64,
    /// The highest that ever came.
    seen: u64,
    /// After a failure: what was under way then still arrives, and is void until `next` comes again.
    stale: bool,
}

/// Whether the store has something to tidy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tidy {
    /// Nothing was written since it was tidy.
    Done,
    /// Something was written.
    Later,
    /// It said that more is left.
    Now,
}

impl Worker {
    pub(super) fn new(
        settings: Storage,
        store: Box<dyn Store>,
        sync: bool,
        shards: usize,
        shared: Arc<Shared>,
        report: Box<dyn Fn(usize, Report) + Send>,
    ) -> Self {
        Self {
            settings,
            store,
            sync,
            shards: vec![Shard { through: 0, next: 1, seen: 0, stale: false }; shards],
            shared,
            report,
            batch: Vec::new(),
            taken: Vec::new(),
            // What was left when the program ended.
            tidy: Tidy::Now,
            tidied_at: Instant::now(),
            failure: None,
        }
    }

    pub(super) fn run(mut self) -> Result<(), StoreError> {
        // A store that panicked may be in any state: nothing more is written. Shards learn of it.
        catch_unwind(AssertUnwindSafe(|| self.work())).unwrap_or_else(|_| {
            self.fail(panicked());
            Err(panicked())
        })
    }

    fn work(&mut self) -> Result<(), StoreError> {
        loop {
            let timeout = match self.tidy {
                Tidy::Done => None,
                Tidy::Later => Some(self.settings.tidy_after),
                // Work that comes meanwhile goes first.
                Tidy::Now => Some(BETWEEN_STEPS),
            };
            let woken = self.shared.wait(timeout);
            if woken == Woken::Work && !self.settings.linger.is_zero() {
                self.shared.pause(self.settings.linger);
            }
            self.take();
            let done = if self.batch.is_empty() { Ok(()) } else { self.commit() };
            let due = match woken {
                Woken::Timeout => true,
                Woken::Work => {
                    self.tidy != Tidy::Done && self.tidied_at.elapsed() >= self.settings.tidy_every
                }
                Woken::Close => false,
            };
            let done = if due { done.and_then(|()| self.tidy()) } else { done };
            let mut closing = woken == Woken::Close;
            if let Err(error) = done {
                self.fail(error);
                closing |= self.recover();
            }
            if closing {
                self.take();
                if self.failure.is_none() && !self.batch.is_empty() {
                    self.commit()?;
                }
                return self.ended();
            }
        }
    }

    /// Whether all that came is safe.
    fn ended(&mut self) -> Result<(), StoreError> {
        let lost = self.shards.iter().any(|shard| shard.through < shard.seen);
        self.failure.take().filter(|_| lost).map_or(Ok(()), Err)
    }

    /// Moves what is there into the batch.
    fn take(&mut self) {
        std::mem::swap(&mut *self.shared.queue(), &mut self.taken);
        let mut disorder = Vec::new();
        for Item { shard: number, seq, group } in self.taken.drain(..) {
            let Some(shard) = self.shards.get_mut(number) else { continue };
            shard.seen = shard.seen.max(seq.0);
            if seq.0 == shard.next {
                shard.next += 1;
                shard.stale = false;
                self.batch.push(group);
            } else if seq.0 > shard.next && !shard.stale {
                shard.stale = true;
                disorder.push((number, shard.next, seq.0));
            }
            // What was taken before comes again after a failure; what is beyond it will.
        }
        set(&self.shared.counters.under_way, self.batch.len() as u64);
        for (number, next, came) in disorder {
            let cause = format!("group {came} of shard {number} came instead of {next}");
            let error = StoreError::new(StoreErrorKind::Order, "of all shards", "taking groups", cause);
            self.failure = Some(error.clone());
            (self.report)(number, Report::Failed { from: StoreSeq(next), error });
            (self.report)(number, Report::Recovered);
        }
    }

    /// Writes the batch and reports it.
    fn commit(&mut self) -> Result<(), StoreError> {
        self.write()?;
        self.report_stored();
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let start = Instant::now();
        self.store.write(&self.batch, self.sync)?;
        let counters = &self.shared.counters;
        counters.commit_micros.record_micros(start.elapsed());
        counters.commit_groups.record(self.batch.len() as u64);
        add(&counters.commits, 1);
        add(&counters.fsyncs, u64::from(self.sync));
        add(&counters.groups, self.batch.len() as u64);
        add(&counters.ops, self.batch.iter().map(|group| group.ops.len() as u64).sum());
        add(&counters.bytes, self.batch.iter().map(|group| group.size() as u64).sum());
        set(&counters.under_way, 0);
        self.batch.clear();
        if self.tidy == Tidy::Done {
            self.tidy = Tidy::Later;
        }
        Ok(())
    }

    fn report_stored(&mut self) {
        for (number, shard) in self.shards.iter_mut().enumerate() {
            let through = shard.next - 1;
            if through > shard.through {
                shard.through = through;
                (self.report)(number, Report::Stored { through: StoreSeq(through) });
            }
        }
        if self.shards.iter().all(|shard| shard.through == shard.seen) {
            self.failure = None;
        }
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.tidied_at = Instant::now();
        add(&self.shared.counters.tidy_steps, 1);
        self.tidy = if self.store.tidy()? { Tidy::Now } else { Tidy::Done };
        if self.tidy == Tidy::Done
            && let Some(bytes) = self.store.disk_space()
        {
            set(&self.shared.counters.disk_space, bytes);
        }
        Ok(())
    }

    /// Forgets what is not safe, and asks for it again.
    fn fail(&mut self, error: StoreError) {
        let counters = &self.shared.counters;
        add(&counters.failures, 1);
        set(&counters.down, 1);
        set(&counters.under_way, 0);
        self.batch.clear();
        for (number, shard) in self.shards.iter_mut().enumerate() {
            shard.next = shard.through + 1;
            shard.stale = true;
            let from = StoreSeq(shard.next);
            (self.report)(number, Report::Failed { from, error: error.clone() });
        }
        self.failure = Some(error);
    }

    /// Opens the store again, and writes what came meanwhile: a full disk lets itself be opened. Gives
    /// up only when told to close, which it then tells.
    fn recover(&mut self) -> bool {
        let mut delay = self.settings.retry_min;
        loop {
            let closing = self.shared.pause(delay);
            delay = (delay * 2).min(self.settings.retry_max);
            add(&self.shared.counters.reopens, 1);
            let opened = self.store.reopen().and_then(|()| {
                self.take();
                if self.batch.is_empty() { Ok(()) } else { self.write() }
            });
            match opened {
                Ok(()) => {
                    set(&self.shared.counters.down, 0);
                    for number in 0..self.shards.len() {
                        (self.report)(number, Report::Recovered);
                    }
                    self.report_stored();
                    return closing;
                }
                Err(error) => {
                    add(&self.shared.counters.failures, 1);
                    self.failure = Some(error);
                }
            }
            if closing {
                return true;
            }
        }
    }
}
