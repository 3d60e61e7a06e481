//! The storage thread over a store in memory that holds, fails and forgets.

use mqtt_session::store::{Contents, SessionId, StoredClock};
use mqtt_session::{Durability, StoreGroup, StoreOp, StoreSeq, Timestamp};
use mqtt_store::{Loaded, MemoryStore, Report, Storage, StorageHandle, Store, StoreError, StoreErrorKind};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A safety net: nothing here takes long.
const LIMIT: Duration = Duration::from_secs(60);

fn group(n: u64) -> StoreGroup {
    let id = u16::try_from(n % 60_000 + 1).ok().and_then(|id| id.try_into().ok()).unwrap();
    let clock = StoredClock { time: Timestamp::from_micros(n), unix_ms: n };
    StoreGroup { ops: [StoreOp::PutPacketId(SessionId(n), id), StoreOp::PutClock(clock)].into() }
}

fn contents(groups: impl IntoIterator<Item = u64>) -> Contents {
    let mut contents = Contents::default();
    groups.into_iter().for_each(|n| contents.apply(&group(n)));
    contents
}

struct Rig {
    handle: StorageHandle,
    reports: Receiver<(usize, Report)>,
}

impl Rig {
    fn new(store: impl Store + 'static, durability: Durability, shards: usize) -> Self {
        let (sender, reports) = channel();
        let storage = Storage { retry_min: Duration::from_millis(1), ..Storage::default() };
        let report = move |shard, report| drop(sender.send((shard, report)));
        Self { handle: storage.start(Box::new(store), durability, shards, report), reports }
    }

    fn store(&self, shard: usize, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            self.handle.store(shard, StoreSeq(seq), group(seq));
        }
        self.handle.flush();
    }

    fn report(&self) -> (usize, String) {
        let (shard, report) = self.reports.recv_timeout(LIMIT).expect("a report in time");
        let text = match report {
            Report::Stored { through } => format!("stored {}", through.0),
            Report::Failed { from, error } => format!("failed {} {:?}", from.0, error.kind()),
            Report::Recovered => "recovered".to_owned(),
        };
        (shard, text)
    }

    #[track_caller]
    fn expect(&self, shard: usize, text: &str) {
        assert_eq!(self.report(), (shard, text.to_owned()));
    }
}

/// Waits for what another thread is about to do.
fn until(condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "it did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn what_arrives_during_a_commit_is_the_next_commit() {
    let store = MemoryStore::new();
    let rig = Rig::new(store.clone(), Durability::Synced, 2);
    store.hold();
    rig.store(0, [1]);
    until(|| store.is_held());
    rig.store(0, 2..=50);
    rig.store(1, 1..=30);
    store.release();
    rig.expect(0, "stored 1");
    rig.expect(0, "stored 50");
    rig.expect(1, "stored 30");
    rig.handle.close().expect("all is written");
    assert_eq!(store.writes(), 2);
    let stats = rig.handle.stats();
    assert_eq!((stats.commits, stats.fsyncs, stats.groups, stats.ops), (2, 2, 80, 160));
    assert_eq!((stats.waiting, stats.failures, stats.failed), (0, 0, false));
    assert_eq!((stats.commit_groups.count(), stats.commit_groups.sum()), (2, 80));
}

#[test]
fn a_synced_report_outlives_a_loss_of_power_and_a_written_one_need_not() {
    for (durability, left) in [(Durability::Synced, 3), (Durability::Written, 0)] {
        let store = MemoryStore::that_forgets();
        let rig = Rig::new(store.clone(), durability, 1);
        rig.store(0, 1..=3);
        while rig.report().1 != "stored 3" {}
        assert_eq!(store.contents(), contents(1..=3));
        store.cut_power();
        assert_eq!(store.contents(), contents(1..=left));
    }
}

#[test]
fn after_a_failure_only_what_comes_again_is_taken() {
    for lose in [true, false] {
        let store = MemoryStore::new();
        let rig = Rig::new(store.clone(), Durability::Synced, 2);
        rig.store(0, 1..=2);
        rig.expect(0, "stored 2");
        store.hold();
        rig.store(0, 3..=4);
        until(|| store.is_held());
        // Under way when the store fails.
        rig.store(0, 5..=6);
        if lose {
            store.fail_writes(StoreErrorKind::DiskFull);
        } else {
            store.fail_syncs(StoreErrorKind::DiskFull);
        }
        store.release();
        rig.expect(0, "failed 3 DiskFull");
        rig.expect(1, "failed 1 DiskFull");
        assert!(rig.handle.stats().failed);
        // Not knowing yet, and then again.
        rig.store(0, [7]);
        rig.store(0, 3..=7);
        until(|| rig.handle.stats().reopens > 2);
        store.heal();
        rig.expect(0, "recovered");
        rig.expect(1, "recovered");
        let mut through = String::new();
        while through != "stored 7" {
            through = rig.report().1;
        }
        rig.store(1, [1]);
        rig.expect(1, "stored 1");
        rig.handle.close().expect("all is written");
        let mut expected = contents(1..=7);
        expected.apply(&group(1));
        assert_eq!(store.contents(), expected);
        assert!(!rig.handle.stats().failed);
    }
}

#[test]
fn a_full_disk_that_lets_itself_be_opened_is_no_recovery() {
    /// Opens, and does not take anything, for a while.
    struct Full(MemoryStore, u32);
    impl Store for Full {
        fn load(&mut self, each: &mut dyn FnMut(StoreOp)) -> Result<Loaded, StoreError> {
            self.0.load(each)
        }
        fn write(&mut self, groups: &[StoreGroup], sync: bool) -> Result<(), StoreError> {
            if self.1 > 0 {
                self.1 -= 1;
                return Err(StoreError::new(StoreErrorKind::DiskFull, "test", "writing", "full"));
            }
            self.0.write(groups, sync)
        }
        fn tidy(&mut self) -> Result<bool, StoreError> {
            Ok(false)
        }
        fn reopen(&mut self) -> Result<(), StoreError> {
            Ok(())
        }
    }
    let store = MemoryStore::new();
    let (sender, reports) = channel();
    let storage = Storage { retry_min: Duration::from_millis(50), ..Storage::default() };
    let report = move |shard, report| drop(sender.send((shard, report)));
    let handle = storage.start(Box::new(Full(store.clone(), 3)), Durability::Synced, 1, report);
    let rig = Rig { handle, reports };
    rig.store(0, [1]);
    rig.expect(0, "failed 1 DiskFull");
    rig.store(0, [1]);
    rig.expect(0, "recovered");
    rig.expect(0, "stored 1");
    assert_eq!(rig.handle.stats().reopens, 3);
    assert_eq!(store.contents(), contents([1]));
}

#[test]
fn closing_writes_what_is_there_and_tells_what_is_lost() {
    let store = MemoryStore::new();
    let rig = Rig::new(store.clone(), Durability::Written, 1);
    for seq in 1..=100 {
        rig.handle.store(0, StoreSeq(seq), group(seq));
    }
    // Without a flush.
    rig.handle.close().expect("all is written");
    assert_eq!(store.contents(), contents(1..=100));
    rig.handle.close().expect("twice is once");

    let store = MemoryStore::new();
    store.fail_writes(StoreErrorKind::DiskFull);
    let rig = Rig::new(store, Durability::Written, 1);
    rig.store(0, [1]);
    rig.expect(0, "failed 1 DiskFull");
    let error = rig.handle.close().expect_err("group 1 is lost");
    assert_eq!(error.kind(), StoreErrorKind::DiskFull);
    assert!(rig.handle.close().is_err());
}

#[test]
fn the_last_handle_ends_the_thread_after_a_last_commit() {
    let store = MemoryStore::new();
    let rig = Rig::new(store.clone(), Durability::Synced, 1);
    let other = rig.handle.clone();
    rig.store(0, [1]);
    drop(rig.handle);
    other.store(0, StoreSeq(2), group(2));
    drop(other);
    // The reports end with the thread.
    assert_eq!(rig.reports.iter().filter(|(_, report)| matches!(report, Report::Failed { .. })).count(), 0);
    assert_eq!(store.contents(), contents(1..=2));
}

#[test]
fn a_gap_is_asked_for_again() {
    let store = MemoryStore::new();
    let rig = Rig::new(store.clone(), Durability::Synced, 1);
    rig.store(0, [1, 3]);
    let mut seen = [rig.report(), rig.report(), rig.report()].map(|(_, text)| text);
    seen.sort();
    assert_eq!(seen, ["failed 2 Order", "recovered", "stored 1"]);
    rig.store(0, [2, 3]);
    while rig.report().1 != "stored 3" {}
    rig.handle.close().expect("all is written");
    assert_eq!(store.contents(), contents(1..=3));
}

#[test]
fn a_panic_of_the_store_is_a_failure_of_all() {
    struct Broken;
    impl Store for Broken {
        fn load(&mut self, _: &mut dyn FnMut(StoreOp)) -> Result<Loaded, StoreError> {
            Ok(Loaded::default())
        }
        fn write(&mut self, _: &[StoreGroup], _: bool) -> Result<(), StoreError> {
            panic!("on purpose")
        }
        fn tidy(&mut self) -> Result<bool, StoreError> {
            Ok(false)
        }
        fn reopen(&mut self) -> Result<(), StoreError> {
            Ok(())
        }
    }
    let rig = Rig::new(Broken, Durability::Synced, 1);
    rig.store(0, [1]);
    rig.expect(0, "failed 1 Panicked");
    assert_eq!(rig.handle.close().expect_err("it ended").kind(), StoreErrorKind::Panicked);
}

/// The machines' side of the contract: they number, keep and emit again.
struct Machines {
    rig: Rig,
    store: MemoryStore,
    last: [u64; 2],
    unconfirmed: [BTreeMap<u64, StoreGroup>; 2],
    failures: u32,
}

impl Machines {
    fn emit(&mut self, shard: usize) {
        self.last[shard] += 1;
        let seq = self.last[shard];
        // Distinct over shards, so that the order between them does not matter.
        let id = u16::try_from(seq).unwrap().try_into().unwrap();
        let group = StoreGroup { ops: [StoreOp::PutReceived(SessionId(shard as u64), id)].into() };
        self.unconfirmed[shard].insert(seq, group.clone());
        self.rig.handle.store(shard, StoreSeq(seq), group);
        self.rig.handle.flush();
    }

    fn take(&mut self, (shard, report): (usize, Report)) {
        match report {
            Report::Stored { through } => {
                self.store.cut_power();
                let kept = self.store.contents();
                self.unconfirmed[shard].retain(|seq, group| {
                    let stored = *seq <= through.0;
                    assert!(!stored || kept.records().any(|record| record == group.ops[0]), "{seq} is lost");
                    !stored
                });
            }
            Report::Failed { from, .. } => {
                self.failures += 1;
                for (seq, group) in self.unconfirmed[shard].range(from.0..) {
                    self.rig.handle.store(shard, StoreSeq(*seq), group.clone());
                }
                self.rig.handle.flush();
            }
            Report::Recovered => {}
        }
    }

    fn take_until(&mut self, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            let report = self.rig.reports.recv_timeout(LIMIT).expect("a report in time");
            self.take(report);
        }
    }

    fn drain(&mut self) {
        self.take_until(|all| all.unconfirmed.iter().all(BTreeMap::is_empty));
    }
}

#[test]
fn through_any_failures_nothing_reported_is_lost_and_all_comes_to_be() {
    let store = MemoryStore::that_forgets();
    let rig = Rig::new(store.clone(), Durability::Synced, 2);
    let mut all = Machines { rig, store, last: [0; 2], unconfirmed: Default::default(), failures: 0 };
    for round in 0..100u32 {
        all.drain();
        let shard = (round / 2 % 2) as usize;
        if round % 3 == 0 {
            all.emit(1 - shard);
        }
        if round % 2 == 0 {
            all.store.fail_writes(StoreErrorKind::Io);
        } else {
            all.store.fail_syncs(StoreErrorKind::Io);
        }
        let before = all.failures;
        for _ in 0..=round % 5 {
            all.emit(shard);
        }
        all.take_until(|all| all.failures > before);
        for more in 0..round % 7 {
            all.emit((more % 2) as usize);
        }
        all.store.heal();
        if let Ok(report) = all.rig.reports.try_recv() {
            all.take(report);
        }
        for more in 0..round % 4 {
            all.emit((more % 2) as usize);
        }
    }
    all.drain();
    all.rig.handle.close().expect("all is written");
    assert_eq!(all.store.contents().records().count() as u64, all.last.iter().sum());
}
