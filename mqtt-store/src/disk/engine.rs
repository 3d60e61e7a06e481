//! The fjall database: opening, one batch, reading; and nothing about MQTT.

use super::layout::{Change, Mark, tag};
use super::tidy::Written;
use super::verify::{RECORDS, keyspace};
use super::{FjallOptions, MIB};
use crate::{StoreError, StoreErrorKind};
use fjall::config::FilterPolicy;
use fjall::{AbstractTree as _, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What fjall is given to write before it must have flushed what it was given earlier. Beyond 4 it
/// would wait by itself, for ever if its worker has failed.
const SEALED_MEMTABLES: usize = 2;
/// The same for tables that wait to be compacted: fjall slows down at 20, and stops at 30.
const WAITING_TABLES: usize = 16;
/// How often to look whether fjall's worker has caught up. It tells nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// See [`Engine::forget_readers`].
const READERS: usize = 10_000;

/// An open database.
pub(super) struct Engine {
    path: PathBuf,
    // Before the database: its files are unlocked when the last handle of both is gone.
    pub(super) records: Keyspace,
    pub(super) database: Database,
    secret: [u8; 16],
    /// The last batch that was written or tried.
    batch: u64,
    /// All up to this one are synced.
    synced: u64,
    /// Something failed: nothing more is written.
    failed: bool,
}

impl Engine {
    /// Opens or makes the database in `path`.
    pub(super) fn open(path: &Path, options: &FjallOptions, secret: [u8; 16]) -> Result<Self, StoreError> {
        let guarded = catch_unwind(AssertUnwindSafe(|| Self::open_unguarded(path, options, secret)));
        guarded.unwrap_or_else(|_| {
            Err(StoreError::new(StoreErrorKind::Damaged, path, "opening it", "fjall panicked"))
        })
    }

    fn open_unguarded(path: &Path, options: &FjallOptions, secret: [u8; 16]) -> Result<Self, StoreError> {
        let explain = |error| explain(path, "opening it", error);
        let database = Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_cached_files(Some(options.open_files.max(8)))
            // The least that fjall takes.
            .max_journaling_size(64 * MIB)
            // With more, the first would only pass compactions on, over and over.
            .worker_threads(1)
            .manual_journal_persist(true)
            .open()
            .map_err(explain)?;
        let compaction = fjall::compaction::Leveled::default().with_table_target_size(options.table_bytes);
        let settings = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(options.memtable_bytes)
                // Nothing is ever looked up.
                .filter_policy(FilterPolicy::disabled())
                .compaction_strategy(Arc::new(compaction.clone()))
                .manual_journal_persist(true)
        };
        let records = database.keyspace("records", settings).map_err(explain)?;
        if !keyspace(path, RECORDS).join("current").exists() {
            let cause = "its first keyspace has another number than 1";
            return Err(StoreError::new(StoreErrorKind::Damaged, path, "opening it", cause));
        }
        let mark = records.get([tag::MARK]).map_err(explain)?;
        let batch =
            mark.and_then(|value| Mark::decode(&[tag::MARK], &value).ok()).map_or(0, |mark| mark.batch);
        // fjall syncs what it recovers.
        Ok(Self { path: path.to_owned(), records, database, secret, batch, synced: batch, failed: false })
    }

    /// Writes `changes` as one batch. Returns what that was.
    pub(super) fn write(&mut self, changes: Vec<Change>, sync: bool) -> Result<Written, StoreError> {
        self.check()?;
        let written = self.try_write(changes, sync);
        self.failed = written.is_err();
        written
    }

    fn try_write(&mut self, changes: Vec<Change>, sync: bool) -> Result<Written, StoreError> {
        self.make_room()?;
        self.batch += 1;
        let mark = Mark {
            secret: self.secret,
            batch: self.batch,
            synced: self.synced,
            sequence: self.database.seqno(),
        };
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), changes.len() + 1);
        let mut written = Written::default();
        // It replaces the one before, and so is no record more.
        let Change { key, value } = mark.encode();
        batch.insert(&self.records, key, value.unwrap_or_default());
        for Change { key, value } in changes {
            let bytes = (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
            written.bytes += bytes;
            match value {
                Some(value) => {
                    written.put += 1;
                    written.put_bytes += bytes;
                    batch.insert(&self.records, key, value);
                }
                None => {
                    written.removed += 1;
                    batch.remove(&self.records, key);
                }
            }
        }
        batch.durability(Some(mode)).commit().map_err(|error| self.explain("writing a batch", error))?;
        if sync {
            self.synced = self.batch;
        }
        Ok(written)
    }

    /// Syncs what was written without.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.check()?;
        if self.synced < self.batch {
            let synced = self.database.persist(PersistMode::SyncData);
            self.failed = synced.is_err();
            synced.map_err(|error| self.explain("syncing", error))?;
            self.synced = self.batch;
        }
        Ok(())
    }

    /// Sees to it that fjall can take a batch without waiting for its worker.
    fn make_room(&self) -> Result<(), StoreError> {
        while self.records.l0_table_count() >= WAITING_TABLES {
            self.check_worker()?;
            std::thread::sleep(LOOK_AGAIN);
        }
        if self.records.sealed_memtable_count() >= SEALED_MEMTABLES {
            // As the worker does: tables must not be ahead of the journal.
            let synced = self.database.persist(PersistMode::SyncAll);
            synced.map_err(|error| self.explain("syncing", error))?;
            // The worker may be at it, or compact something large first: then this does it.
            let tree = &self.records.tree;
            let lock = tree.get_flush_lock();
            let oldest_read = self.database.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
            let flushed = tree.flush(&lock, oldest_read);
            flushed.map_err(|error| explain_tree(&self.path, "flushing", error))?;
        }
        Ok(())
    }

    /// Whether fjall still works: a failure of its worker is to be asked for.
    pub(super) fn check_worker(&self) -> Result<(), StoreError> {
        self.database
            .persist(PersistMode::Buffer)
            .map_err(|error| self.explain("flushing or compacting", error))
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.failed {
            let cause = "an earlier write failed";
            let error = StoreError::new(StoreErrorKind::Io, &self.path, "writing a batch", cause);
            return Err(error.with_remedy("open it again first"));
        }
        Ok(())
    }

    /// Whether all that was written is in tables, and nothing in the journals is needed. In this order: fjall's worker
    /// puts a full memtable among the sealed ones at any moment, and nothing else writes.
    pub(super) fn is_flushed(&self) -> bool {
        self.records.tree.active_memtable().is_empty() && self.records.sealed_memtable_count() == 0
    }

    /// Makes fjall see that nobody reads what was deleted, so that compacting drops it. After opening, and after the
    /// readers of a load or a sweep, it does not look before so many readers have gone.
    pub(super) fn forget_readers(&self) {
        for _ in 0..READERS {
            drop(self.database.snapshot());
        }
    }

    /// Has the memtable flushed, in the background.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.records.rotate_memtable().map(drop).map_err(|error| self.explain("flushing", error))
    }

    pub(super) fn explain(&self, doing: &str, error: fjall::Error) -> StoreError {
        explain(&self.path, doing, error)
    }

    /// Calls `f` with fjall's iterators, whose panics on damaged tables are errors then.
    pub(super) fn guarded<T>(
        &self,
        doing: &str,
        f: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| {
            Err(StoreError::new(StoreErrorKind::Damaged, &self.path, doing, "fjall panicked"))
        })
    }
}

/// What an error of fjall means.
pub(super) fn explain(path: &Path, doing: &str, error: fjall::Error) -> StoreError {
    let of = |kind, cause: &str| StoreError::new(kind, path, doing, cause);
    match error {
        fjall::Error::Io(error) => of_io(path, doing, &error),
        fjall::Error::Storage(error) => explain_tree(path, doing, error),
        fjall::Error::Locked => of(StoreErrorKind::Locked, "another process has its database"),
        fjall::Error::InvalidVersion(_) => {
            of(StoreErrorKind::NewerFormat, "its database has a format that is not known")
        }
        // It does not tell why.
        fjall::Error::Poisoned => match probe(path) {
            Ok(()) => of(StoreErrorKind::Io, "fjall stopped after an error of the disk"),
            Err(error) => of_io(path, doing, &error),
        },
        error @ (fjall::Error::JournalRecovery(_)
        | fjall::Error::Decompress(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Unrecoverable) => of(StoreErrorKind::Damaged, &format!("{error:?}")),
        error => of(StoreErrorKind::Io, &format!("{error:?}")),
    }
}

/// Whether the disk takes anything.
fn probe(path: &Path) -> std::io::Result<()> {
    let file = path.join("probe");
    let probed = std::fs::write(&file, [1; 256 << 10]);
    std::fs::remove_file(file).and(probed)
}

/// What an error of a tree means.
pub(super) fn explain_tree(path: &Path, doing: &str, error: lsm_tree::Error) -> StoreError {
    match error {
        lsm_tree::Error::Io(error) => of_io(path, doing, &error),
        error => StoreError::new(StoreErrorKind::Damaged, path, doing, format!("{error:?}")),
    }
}

fn of_io(path: &Path, doing: &str, error: &std::io::Error) -> StoreError {
    match error.kind() {
        // A file that is shorter than it was, or has what makes no sense.
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData => {
            StoreError::new(StoreErrorKind::Damaged, path, doing, error)
        }
        _ => StoreError::io(path, doing, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// fjall's worker puts the memtable aside when it is full, at any moment. What is said to be flushed is what
    /// journals are emptied by.
    #[test]
    fn flushed_is_said_only_when_nothing_is_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let options = FjallOptions { memtable_bytes: 64 << 10, ..FjallOptions::default() };
        let mut engine = Engine::open(dir.path(), &options, [0; 16]).unwrap();
        for n in 0..30u64 {
            let change = Change { key: n.to_be_bytes().to_vec(), value: Some(vec![1; 70_000]) };
            engine.write(vec![change], false).unwrap();
            while !engine.is_flushed() {}
            assert_eq!(
                engine.records.tree.get_highest_memtable_seqno(),
                None,
                "batch {n} is in memory still"
            );
        }
    }
}
