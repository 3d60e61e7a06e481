//! What is left to do when nothing else is: sweeping, and giving disk space back.
//!
//! * What deleted sessions left is removed, some records at a time. After a restart, loading finds
//!   again what is void.
//! * Tables that are mostly garbage are compacted, on a thread of their own.
//! * fjall changes to a new journal only when one has 64 MB. When all that is in it is in tables as
//!   well, it is emptied, with the database closed for a moment.

use super::FjallStore;
use super::directory::occupied;
use super::engine::Engine;
use super::journal;
use super::layout::{Change, key, tag};
use super::{Loaded, MIB, StoreError, StoreErrorKind};
use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::thread::JoinHandle;
use std::time::Instant;

/// Garbage below this is left alone.
const GARBAGE: u64 = 4 * MIB;

#[derive(Debug, Default)]
pub(super) struct Tidy {
    void: VecDeque<u64>,
    queued: HashSet<u64>,
    /// Where sweeping the first of them goes on: past what is removed already.
    sweep_at: Option<Vec<u8>>,
    /// What is not garbage; unknown before loading.
    live: Option<Live>,
    /// Bytes written since the journal was looked at.
    written: u64,
    /// Whether something was written since the tables were looked at.
    changed: bool,
    written_at: Option<Instant>,
    flushing: bool,
    compaction: Option<JoinHandle<fjall::Result<()>>>,
    /// What a compaction replaced goes with the next flush, which is on its way.
    replacing: bool,
}

/// About how much is not garbage. What a removed record had is not known: the average is taken.
#[derive(Clone, Copy, Debug)]
struct Live {
    records: u64,
    bytes: u64,
}

impl Live {
    fn change(&mut self, added: &Written) {
        let average = self.bytes.checked_div(self.records).unwrap_or(0);
        let removed = added.removed.min(self.records);
        self.records = self.records - removed + added.put;
        self.bytes = self.bytes.saturating_sub(removed * average) + added.put_bytes;
    }
}

/// What a batch changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// Bytes of the journal.
    pub(super) bytes: u64,
    /// Records, and their bytes.
    pub(super) put: u64,
    pub(super) put_bytes: u64,
    /// Records that were removed.
    pub(super) removed: u64,
}

impl Tidy {
    /// The session or group has no record, and something may be left of it.
    pub(super) fn sweep(&mut self, id: u64) {
        if self.queued.insert(id) {
            self.void.push_back(id);
        }
    }

    /// All there is was loaded.
    pub(super) const fn loaded(&mut self, loaded: Loaded) {
        // Without what is void, which is garbage soon.
        self.live = Some(Live { records: loaded.records, bytes: loaded.bytes });
        // Whatever is in the journal was not looked at.
        (self.written, self.changed) = (u64::MAX, true);
    }

    pub(super) fn written(&mut self, written: &Written) {
        self.written = self.written.saturating_add(written.bytes);
        self.written_at = Some(Instant::now());
        self.changed = true;
        if let Some(live) = &mut self.live {
            live.change(written);
        }
    }

    /// The database is about to be closed. Sweeping goes on afterwards.
    pub(super) fn stop(&mut self) {
        (self.flushing, self.replacing) = (false, false);
        if let Some(compaction) = self.compaction.take() {
            // What it failed with, fjall remembers.
            drop(compaction.join());
        }
    }
}

impl FjallStore {
    pub(super) fn tidy_step(&mut self) -> Result<bool, StoreError> {
        if !self.tidy.void.is_empty() {
            return self.sweep_step().map(|()| true);
        }
        self.engine()?.sync()?;
        if let Some(compaction) = &self.tidy.compaction {
            if compaction.is_finished() {
                self.end_compaction()?;
            }
            return Ok(true);
        }
        if self.tidy.replacing {
            let engine = self.engine()?;
            engine.check_worker()?;
            let is_flushed = engine.records.sealed_memtable_count() == 0;
            self.tidy.replacing = !is_flushed;
            return Ok(true);
        }
        if self.tidy.written > self.options.journal_bytes {
            if self.tidy.written_at.is_some_and(|at| at.elapsed() < self.options.quiet) {
                // It comes again after the next write, when there is a pause.
                return Ok(false);
            }
            if self.journal_bytes()? > self.options.journal_bytes {
                self.give_journals_back()?;
                return Ok(true);
            }
            self.tidy.written = 0;
        }
        Ok(std::mem::take(&mut self.tidy.changed) && self.compact())
    }

    /// Sweeps what an earlier session with this number left. Machines never use a number twice; if one
    /// did, what is swept later would be the new one's.
    pub(super) fn make_way(&mut self, id: u64) -> Result<(), StoreError> {
        if self.tidy.queued.contains(&id) {
            self.tidy.void.retain(|other| *other != id);
            self.tidy.void.push_front(id);
            self.tidy.sweep_at = None;
            while self.tidy.queued.contains(&id) {
                self.sweep_step()?;
            }
        }
        Ok(())
    }

    /// Removes some records of a deleted session or group.
    fn sweep_step(&mut self) -> Result<(), StoreError> {
        self.engine()?;
        let Self { engine: Some(engine), tidy, options, .. } = self else { return Ok(()) };
        let Some(&id) = tidy.void.front() else { return Ok(()) };
        let mut left = options.sweep_step.max(1);
        let mut changes = Vec::new();
        for tag in tag::OWNED {
            let prefix = key(tag, &[id]);
            let end = key(tag, &[id.saturating_add(1)]);
            let start = match &tidy.sweep_at {
                Some(at) if *at > end => continue,
                Some(at) if *at > prefix => at.clone(),
                _ => prefix,
            };
            let found: Vec<_> = engine.guarded("sweeping", || {
                let range = engine.records.range(start..end).take(left);
                range.map(|item| item.key().map_err(|error| engine.explain("sweeping", error))).collect()
            })?;
            left -= found.len();
            changes.extend(found.into_iter().map(|key| Change { key: key.to_vec(), value: None }));
            if left == 0 {
                break;
            }
        }
        tidy.sweep_at = (left == 0).then(|| changes.last().map(|change| change.key.clone())).flatten();
        if !changes.is_empty() {
            let written = engine.write(changes.clone(), false)?;
            // They do not count as live.
            tidy.written(&Written { removed: 0, ..written });
            changes.iter().for_each(|change| self.known.gone(&change.key));
        }
        if left > 0 {
            tidy.void.pop_front();
            tidy.queued.remove(&id);
        }
        Ok(())
    }

    /// Bytes that the journals take up.
    fn journal_bytes(&self) -> Result<u64, StoreError> {
        let space = journal::paths(&self.directory.store()).and_then(|paths| {
            paths.iter().map(|path| fs::metadata(path).map(|metadata| occupied(&metadata))).sum()
        });
        space.map_err(|error| self.directory.explain("looking at its journals", &error))
    }

    /// Has everything flushed to tables, and then the journals emptied.
    fn give_journals_back(&mut self) -> Result<(), StoreError> {
        let flushing = self.tidy.flushing;
        let engine = self.engine()?;
        engine.check_worker()?;
        if engine.is_flushed() {
            self.empty_journals()?;
            (self.tidy.flushing, self.tidy.written) = (false, 0);
        } else if !flushing {
            engine.flush()?;
            self.tidy.flushing = true;
        } else if engine.records.sealed_memtable_count() == 0 {
            // Something was written meanwhile.
            self.tidy.flushing = false;
        }
        Ok(())
    }

    /// All that is in the journals is in tables as well. fjall cannot be told to start anew: the
    /// database is closed, and opened again.
    fn empty_journals(&mut self) -> Result<(), StoreError> {
        let store = self.directory.store();
        self.engine = None;
        let emptied = journal::paths(&store).and_then(|paths| {
            // The last one is what fjall goes on with: without it, it would count from the start.
            let (last, full) = paths.split_last().ok_or(io::ErrorKind::NotFound)?;
            full.iter().try_for_each(fs::remove_file)?;
            let file = File::options().write(true).open(last)?;
            file.set_len(0)?;
            file.sync_all()
        });
        emptied.map_err(|error| self.directory.explain("emptying its journals", &error))?;
        self.engine = Some(Engine::open(&store, &self.options, self.format.secret)?);
        Ok(())
    }

    /// Starts to compact if much of the tables is garbage.
    fn compact(&mut self) -> bool {
        let (Some(engine), Some(live)) = (&self.engine, self.tidy.live) else { return false };
        if engine.records.disk_space() <= live.bytes.saturating_mul(2).saturating_add(GARBAGE) {
            return false;
        }
        engine.forget_readers();
        let records = engine.records.clone();
        let thread = std::thread::Builder::new().name("mqtt-compaction".to_owned());
        // If there are no threads, there will be.
        self.tidy.compaction = thread.spawn(move || records.major_compact()).ok();
        self.tidy.compaction.is_some()
    }

    fn end_compaction(&mut self) -> Result<(), StoreError> {
        let ended = self.tidy.compaction.take().map(JoinHandle::join);
        let engine = self.engine()?;
        match ended.map(|ended| ended.map(|done| done.map_err(|error| engine.explain("compacting", error)))) {
            // There was no room for it, say. What was there is there: when more has gathered, it is
            // tried again.
            Some(Ok(Err(error))) if error.kind() != StoreErrorKind::Damaged => {}
            Some(Ok(Err(error))) => return Err(error),
            Some(Err(_)) => {
                let path = self.directory.path();
                return Err(StoreError::new(StoreErrorKind::Damaged, path, "compacting", "fjall panicked"));
            }
            Some(Ok(Ok(()))) | None => {}
        }
        // fjall keeps the files of what was replaced until it flushes the next time. A batch with
        // nothing but its mark is something to flush.
        engine.write(Vec::new(), false)?;
        engine.flush()?;
        let (bytes, records) = (engine.records.disk_space(), engine.records.approximate_len() as u64);
        (self.tidy.live, self.tidy.replacing) = (Some(Live { records, bytes }), true);
        Ok(())
    }
}

impl Drop for FjallStore {
    fn drop(&mut self) {
        self.tidy.stop();
    }
}
