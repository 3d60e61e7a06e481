//! What an MQTT broker or client must not forget, on disk.
//!
//! A machine of `mqtt-session` emits groups of store operations and waits until they are safe; this
//! crate makes them safe and tells it so.
//!
//! * [`Store`] is what keeps groups: a trait that others can write for a database of their own.
//! * `FjallStore` (feature `fjall`, on by default) keeps them in a directory.
//! * [`MemoryStore`] keeps them in memory, for tests and for programs that need no disk. It can be
//!   told to fail, to wait and to forget what was not synced.
//! * [`Storage`] is the one thread that serves all shards: it takes every group that is there,
//!   writes them as one, and then reports. So one `fsync` serves everybody who waits.
//! * `suite` (feature `suite`) is what every store has to pass.
//!
//! # What is on the disk
//!
//! ```text
//! lock                     locked while a process has the store
//! store/format             "mqtt-store 2", a secret, a checksum of both
//! store/..                 a fjall database with one keyspace, "records"
//! store.new/               a database that is being made; of no worth after a crash
//! store.salvaged/          one that is about to take the place of a damaged one
//! store.damaged-<seconds>/ a damaged one, set aside at that Unix time; three at most
//! ```
//!
//! A key is a tag, numbers of 64 bits with the highest byte first, and a text to the end. So records
//! lie in the order in which they are loaded, and those of a session side by side. Of a text above
//! 60,000 bytes the key has only the first of them and a hash; the text is in the value.
//!
//! | tag | key | value |
//! |---|---|---|
//! | 0 | | mark: secret, batch number, batch number that is synced, sequence number |
//! | 1 | nothing, or the number of a shard but the first | limits |
//! | 2 | | clock |
//! | 3 | session | record of a session |
//! | 4 | session | packet identifier |
//! | 5 | group | its filter |
//! | 6 | session, filter | subscription |
//! | 7 | session, filter | replay: last number that was sent; last ones that count, by shard; exceptions |
//! | 8 | message | message |
//! | 9 | session, packet identifier (16 bits) | nothing |
//! | 10 | session, entry | exchange |
//! | 11 | session or group, entry | entry: message, how it is delivered |
//! | 12 | topic | retained message |
//! | 13 | session | will |
//! | 14 | shard, other shard, number | message on its way to the other shard |
//! | 15 | shard, other shard | number up to which it has taken over what the other sent |
//! | 16 | | how sessions are spread over shards; loaded first |
//!
//! Every value begins with its version, 2 for a replay and 1 for all others, and ends in 32 bits of XXH3 over key and value.
//!
//! One commit is one batch of fjall's, with the last change of each key. What comes and goes within
//! one commit, as a message that is delivered at once does, is not written at all.
//!
//! # What is trusted
//!
//! Before fjall opens its files, all of them are read and their checksums compared: fjall would cut a
//! journal off at a flipped bit, and delete a table that a damaged manifest does not name. The mark in
//! front of every batch, with a secret that no peer knows, tells what was there: a batch that says
//! that those before it are synced proves a damage where they are not. Without such a proof, the end
//! of a journal that makes no sense is what a killed process had not finished, and is cut off.
//!
//! A damaged store is set aside and what is readable taken over; every other trouble is an error, and
//! nothing is touched.
//!
//! # Example
//!
//! ```
//! use mqtt_session::{Durability, StoreGroup, StoreOp, StoreSeq};
//! use mqtt_session::store::StoredClock;
//! use mqtt_store::{MemoryStore, Report, Storage, Store};
//! use std::sync::mpsc;
//!
//! let mut store = MemoryStore::new();
//! store.load(&mut |record| println!("to be restored: {record:?}"))?;
//!
//! let (reports, from_storage) = mpsc::channel();
//! let report = move |shard, report| drop(reports.send((shard, report)));
//! let storage = Storage::default().start(Box::new(store), Durability::Synced, 1, report);
//!
//! let group = StoreGroup { ops: [StoreOp::PutClock(StoredClock::default())].into() };
//! storage.store(0, StoreSeq(1), group);
//! storage.flush();
//! assert!(matches!(from_storage.recv(), Ok((0, Report::Stored { through: StoreSeq(1) }))));
//! storage.close()?;
//! # Ok::<(), mqtt_store::StoreError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(any(test, feature = "suite")),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

#[cfg(feature = "fjall")]
mod disk;
mod error;
mod memory;
mod sift;
mod storage;
mod store;
#[cfg(feature = "suite")]
pub mod suite;

#[cfg(feature = "fjall")]
pub use disk::{FjallOptions, FjallStore, Opened, Progress, Salvage};
pub use error::{StoreError, StoreErrorKind};
pub use memory::MemoryStore;
pub use storage::{Histogram, Report, Storage, StorageHandle, StorageStats};
pub use store::{Loaded, Store};
