//! Takes what is readable out of a damaged database into a new one.
//!
//! Tables and journals are read one by one, past what is damaged in them, and every value has a
//! checksum of its own. Which of two values of a key is the newer one, their sequence numbers tell: so
//! all goes into a tree of its own first, which sorts it. Whether all of a group is there cannot be
//! known then. What belongs to something that is not there is dropped.

use super::directory::{Directory, Format};
use super::engine::{Engine, explain_tree};
use super::journal::{self, Journal};
use super::layout::{Change, decode, owner, tag};
use super::verify::{RECORDS, keyspace, named_tables};
use super::{FjallOptions, MIB, Salvage};
use crate::StoreError;
use lsm_tree::{AbstractTree, AnyTree, Cache, Checksum, Config, Guard, SeqNo, SequenceNumberCounter, Table};
use mqtt_session::StoreOp;
use mqtt_session::store::StoredStage;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// How many records are written to the new database at a time.
const BATCH: usize = 10_000;
/// What the sorting tree gathers in memory.
const MEMTABLE: u64 = 8 * MIB;

/// Sets the damaged database of `directory` aside, with `damage` as the reason.
pub(super) fn salvage(
    directory: &Directory,
    options: &FjallOptions,
    damaged: Format,
    damage: String,
) -> Result<Salvage, StoreError> {
    directory.has_room_aside()?;
    let (path, format) = directory.begin()?;
    let sorted = path.join("salvage");
    let doing = "salvaging it";
    let of_tree = |error| explain_tree(directory.path(), doing, error);
    let of_disk = |error: io::Error| directory.explain(doing, &error);

    let counter = SequenceNumberCounter::default;
    let cache = Arc::new(Cache::with_capacity_bytes(options.cache_bytes));
    let tree = Config::new(&sorted, counter(), counter()).use_cache(cache).open().map_err(of_tree)?;
    let mut reading = Reading { tree: &tree, held: 0, records: 0, bytes: 0, options };
    reading.tables(&keyspace(&directory.store(), RECORDS)).map_err(of_tree)?;
    reading.journals(&directory.store(), &damaged.secret).map_err(of_tree)?;
    let (records, bytes) = (reading.records, reading.bytes);
    let whole = Whole::of(&tree).map_err(of_tree)?;

    let mut engine = Engine::open(&path, options, format.secret)?;
    let (mut kept, mut dropped) = (0, 0);
    let mut changes = Vec::with_capacity(BATCH);
    for item in tree.iter(SeqNo::MAX, None) {
        let (key, value) = item.into_inner().map_err(of_tree)?;
        let Some(record) = decode(&key, &value).ok().flatten() else { continue };
        if whole.has(&key, &record) {
            changes.push(Change { key: key.to_vec(), value: Some(value.to_vec()) });
            kept += 1;
        } else {
            dropped += 1;
        }
        if changes.len() >= BATCH {
            engine.write(std::mem::take(&mut changes), false)?;
        }
        options.report(true, records + kept + dropped, bytes);
    }
    engine.write(changes, true)?;
    drop(engine);
    drop(tree);
    fs::remove_dir_all(&sorted).map_err(of_disk)?;
    let aside = directory.replace()?;
    Ok(Salvage { damage, aside, kept, dropped })
}

struct Reading<'a> {
    tree: &'a AnyTree,
    /// Bytes in the memtable.
    held: u64,
    records: u64,
    bytes: u64,
    options: &'a FjallOptions,
}

impl Reading<'_> {
    /// Takes in one change, if it is one of ours.
    fn take(&mut self, key: &[u8], value: Option<&[u8]>, sequence: SeqNo) -> lsm_tree::Result<()> {
        let (added, _) = match value {
            _ if key.first().is_none_or(|first| *first == tag::MARK) => return Ok(()),
            Some(value) if decode(key, value).is_err() => return Ok(()),
            Some(value) => self.tree.insert(key, value, sequence),
            None => self.tree.remove(key, sequence),
        };
        self.held += added;
        self.records += 1;
        self.bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        self.options.report(true, self.records, self.bytes);
        if self.held >= MEMTABLE {
            self.held = 0;
            self.tree.flush_active_memtable(0)?;
        }
        Ok(())
    }

    /// Reads the tables of the keyspace in `dir`: those that its manifest names, or all there are if
    /// that is damaged.
    fn tables(&mut self, dir: &Path) -> lsm_tree::Result<()> {
        let cache = Arc::new(Cache::with_capacity_bytes(self.options.cache_bytes));
        let all = || fs::read_dir(dir.join("tables")).into_iter().flatten().flatten();
        let paths = named_tables(dir).unwrap_or_else(|| all().map(|entry| entry.path()).collect());
        for path in paths {
            // Opening and reading what is damaged may fail in any way, which is no reason to stop.
            let unknown = Checksum::from_raw(0);
            let opened = catch_unwind(|| {
                Table::recover(path.clone(), unknown, 0, 0, Arc::clone(&cache), None, false, false)
            });
            let Ok(Ok(table)) = opened else { continue };
            self.table(&table, false)?;
        }
        Ok(())
    }

    /// Reads a table up to what is damaged, then from its end down to that.
    fn table(&mut self, table: &Table, backwards: bool) -> lsm_tree::Result<()> {
        let mut items = table.iter();
        loop {
            let next =
                catch_unwind(AssertUnwindSafe(|| if backwards { items.next_back() } else { items.next() }));
            match next {
                Ok(Some(Ok(item))) => {
                    let value = (!item.key.is_tombstone()).then_some(&*item.value);
                    self.take(&item.key.user_key, value, item.key.seqno)?;
                }
                Ok(None) => return Ok(()),
                Ok(Some(Err(_))) | Err(_) if backwards => return Ok(()),
                Ok(Some(Err(_))) | Err(_) => return self.table(table, true),
            }
        }
    }

    fn journals(&mut self, store: &Path, secret: &[u8; 16]) -> lsm_tree::Result<()> {
        for path in journal::paths(store)? {
            // The system failing to read is no reason to give up what the others have.
            let Ok(journal) = Journal::read(&path, 0) else { continue };
            for batch in journal.batches(secret) {
                for item in batch.items.iter().filter(|item| item.keyspace == RECORDS) {
                    self.take(item.key, item.value, batch.sequence)?;
                }
            }
        }
        Ok(())
    }
}

/// What is there to belong to.
#[derive(Default)]
struct Whole {
    /// Sessions and groups with a record.
    owners: HashSet<u64>,
    messages: HashSet<u64>,
    /// Messages that are retained or wait in a queue.
    wanted: HashSet<u64>,
    /// Exchanges, by session and entry; and those that are released, whose message may be gone.
    exchanges: HashSet<(u64, u64)>,
    released: HashSet<(u64, u64)>,
    /// Entries that have an exchange.
    entries: HashSet<(u64, u64)>,
}

impl Whole {
    fn of(tree: &AnyTree) -> lsm_tree::Result<Self> {
        let mut whole = Self::default();
        for item in tree.iter(SeqNo::MAX, None) {
            let (key, value) = item.into_inner()?;
            let Some(record) = decode(&key, &value).ok().flatten() else { continue };
            if owner(&key).is_some_and(|owner| !whole.owners.contains(&owner)) {
                continue;
            }
            // In the order of the keys: sessions and messages are known before what belongs to them.
            match record {
                StoreOp::PutSession(id, _) | StoreOp::PutGroup(id, _) => {
                    whole.owners.insert(id.0);
                }
                StoreOp::PutMessage(id, _) => {
                    whole.messages.insert(id.0);
                }
                StoreOp::PutExchange { session, entry, stage, .. } => {
                    whole.exchanges.insert((session.0, entry.0));
                    if stage == StoredStage::Released {
                        whole.released.insert((session.0, entry.0));
                    }
                }
                StoreOp::Append(message, deliveries) => {
                    let ids = deliveries.first().map_or((0, 0), |one| (one.session.0, one.entry.0));
                    if whole.exchanges.contains(&ids) {
                        whole.entries.insert(ids);
                    }
                    whole.wanted.insert(message.0);
                }
                StoreOp::PutRetained(_, message) => {
                    whole.wanted.insert(message.0);
                }
                StoreOp::PutHandOver(record) => {
                    whole.wanted.insert(record.message.0);
                }
                _ => {}
            }
        }
        Ok(whole)
    }

    fn has(&self, key: &[u8], record: &StoreOp) -> bool {
        if owner(key).is_some_and(|owner| !self.owners.contains(&owner)) {
            return false;
        }
        match record {
            StoreOp::PutMessage(id, _) => self.wanted.contains(&id.0),
            StoreOp::PutRetained(_, message) => self.messages.contains(&message.0),
            StoreOp::PutHandOver(record) => self.messages.contains(&record.message.0),
            StoreOp::PutExchange { session, entry, .. } => self.entries.contains(&(session.0, entry.0)),
            StoreOp::Append(message, deliveries) => {
                let ids = deliveries.first().map_or((0, 0), |one| (one.session.0, one.entry.0));
                self.messages.contains(&message.0) || self.released.contains(&ids)
            }
            _ => true,
        }
    }
}
