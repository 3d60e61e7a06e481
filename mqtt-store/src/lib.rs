//! What an MQTT broker or client must not forget, on disk.
//!
//! A machine of `mqtt-session` emits groups of store operations and waits until they are safe; this
//! crate makes them safe and tells it so.
//!
//! * [`Store`] is what keeps groups: a trait that others can write for a database of their own.
//! * [`MemoryStore`] keeps them in memory, for tests and for programs that need no disk. It can be
//!   told to fail, to wait and to forget what was not synced.
//! * [`Storage`] is the one thread that serves all shards: it takes every group that is there,
//!   writes them as one, and then reports. So one `fsync` serves everybody who waits.
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
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod error;
mod memory;
mod sift;
mod storage;
mod store;

pub use error::{StoreError, StoreErrorKind};
pub use memory::MemoryStore;
pub use storage::{Histogram, Report, Storage, StorageHandle, StorageStats};
pub use store::{Loaded, Store};
