//! Both stores pass the suite.

use mqtt_store::suite::{Place, check};
use mqtt_store::{FjallOptions, FjallStore, MemoryStore};
use std::time::Duration;
use tempfile::TempDir;

struct Memory(MemoryStore);

impl Place for Memory {
    type Store = MemoryStore;

    fn open(&self) -> MemoryStore {
        self.0.clone()
    }
}

struct Disk(TempDir);

impl Place for Disk {
    type Store = FjallStore;

    fn open(&self) -> FjallStore {
        let mut options = FjallOptions::default();
        options.quiet = Duration::ZERO;
        // So that there is something to tidy.
        options.memtable_bytes = 256 << 10;
        options.journal_bytes = 64 << 10;
        let opened = FjallStore::open(self.0.path(), options).expect("the store opens");
        assert_eq!(opened.salvaged, None);
        opened.store
    }
}

#[test]
fn memory() {
    check(200, || Memory(MemoryStore::new()));
}

#[test]
fn disk() {
    check(24, || Disk(tempfile::tempdir().expect("a directory")));
}
