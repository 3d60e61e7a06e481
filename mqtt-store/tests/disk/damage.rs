//! Flipped bits and cut files: never a panic, never wrong data, and what is readable goes on.

use super::common::{
    after, append, copy, files, group, load, nth, open, put_message, put_session, remove, write,
};
use mqtt_session::StoreOp;
use mqtt_store::{FjallOptions, FjallStore, Store, StoreErrorKind};
use std::fs;
use std::path::Path;
use std::time::Duration;

const LEN: usize = 60;

/// A store with tables and a journal: `groups` in all.
fn make(path: &Path, groups: u64) {
    let mut options = FjallOptions::default();
    options.quiet = Duration::ZERO;
    options.memtable_bytes = 64 << 10;
    options.table_bytes = 64 << 10;
    options.journal_bytes = 1 << 30;
    let mut store = FjallStore::open(path, options).expect("it opens").store;
    load(&mut store).expect("it loads");
    write_many(&mut store, 0, groups / 2);
    drop(store);
    // All of it into tables.
    let mut options = FjallOptions::default();
    options.quiet = Duration::ZERO;
    options.journal_bytes = 0;
    let mut store = FjallStore::open(path, options).expect("it opens").store;
    load(&mut store).expect("it loads");
    while store.tidy().expect("it tidies") {}
    // And some more into the journal.
    write(&mut store, groups / 2, groups, LEN);
}

fn write_many(store: &mut FjallStore, from: u64, to: u64) {
    for n in from..to {
        store.write(&[nth(n, LEN)], false).expect("the store writes");
    }
}

/// Whether `records` is what some number of groups leaves, and how many.
fn prefix(records: &[StoreOp], groups: u64) -> Option<u64> {
    (0..=groups).rev().find(|n| after(*n, LEN) == records)
}

/// Everything that was ever put.
fn ever(groups: u64) -> Vec<StoreOp> {
    (0..groups).flat_map(|n| nth(n, LEN).ops.to_vec()).collect()
}

#[derive(Debug, Default)]
struct Seen {
    unharmed: u32,
    shorter: u32,
    salvaged: u32,
    refused: u32,
}

/// Opens the damaged store in `path`, and says what became of it.
fn judge(path: &Path, groups: u64, what: &str, seen: &mut Seen) {
    let before: Vec<_> =
        files(&path.join("store")).iter().map(|file| fs::read(file).expect("a file")).collect();
    let opened = match open(path) {
        Ok(opened) => opened,
        Err(error) => {
            seen.refused += 1;
            let kinds = [StoreErrorKind::Damaged, StoreErrorKind::NewerFormat, StoreErrorKind::Io];
            assert!(kinds.contains(&error.kind()), "{what}: {error}");
            let after: Vec<_> =
                files(&path.join("store")).iter().map(|file| fs::read(file).expect("a file")).collect();
            assert!(before == after, "{what}: touched although {error}");
            return;
        }
    };
    let mut store = opened.store;
    let records = load(&mut store).unwrap_or_else(|error| panic!("{what}: {error}"));
    if let Some(salvage) = opened.salvaged {
        seen.salvaged += 1;
        assert_eq!(salvage.kept, records.len() as u64, "{what}");
        let aside: Vec<_> =
            files(&salvage.aside).iter().map(|file| fs::read(file).expect("a file")).collect();
        assert!(before == aside, "{what}: what is set aside is as it was");
        let ever = ever(groups);
        for record in &records {
            assert!(ever.contains(record), "{what}: never written: {record:?}");
        }
        for record in &records {
            if let StoreOp::Append(message, _) = record {
                let body = |op: &StoreOp| matches!(op, StoreOp::PutMessage(id, _) if id == message);
                assert!(records.iter().any(body), "{what}: {message:?} has no body");
            }
        }
        // It goes on, and is not salvaged again.
        write(&mut store, groups, groups + 1, LEN);
        drop(store);
        assert_eq!(open(path).expect("it opens").salvaged, None, "{what}");
    } else {
        let whole = prefix(&records, groups).unwrap_or_else(|| panic!("{what}: something else"));
        *(if whole == groups { &mut seen.unharmed } else { &mut seen.shorter }) += 1;
    }
}

#[test]
fn flipped_bits() {
    const GROUPS: u64 = 60;
    // More on demand: it takes a while.
    let places = std::env::var("MQTT_STORE_PLACES").map_or(10, |n| n.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a directory");
    make(dir.path(), GROUPS);
    let mut seen = Seen::default();
    let names: Vec<_> = files(&dir.path().join("store"));
    assert!(names.iter().any(|name| name.to_string_lossy().contains("keyspaces/1/tables/")), "{names:?}");
    for name in &names {
        let bytes = fs::read(name).expect("a file");
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // Some places in each file, its first bytes and its last among them.
        let step = (used / places).max(1);
        for at in (0..used).step_by(step).chain(used.saturating_sub(3)..used) {
            let damaged = tempfile::tempdir().expect("a directory");
            copy(dir.path(), damaged.path());
            let relative = name.strip_prefix(dir.path()).expect("below it");
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(damaged.path().join(relative), &bad).expect("a file");
            judge(damaged.path(), GROUPS, &format!("{} at {at}", relative.display()), &mut seen);
        }
    }
    println!("{seen:?}");
    assert!(seen.salvaged > 50, "{seen:?}");
    // Only the last batch of a journal can look as if it had not been written to its end.
    assert!(seen.shorter < 20, "{seen:?}");
}

#[test]
fn cut_and_missing_files() {
    const GROUPS: u64 = 60;
    let dir = tempfile::tempdir().expect("a directory");
    make(dir.path(), GROUPS);
    let mut seen = Seen::default();
    for name in files(&dir.path().join("store")) {
        let relative = name.strip_prefix(dir.path()).expect("below it");
        let bytes = fs::read(&name).expect("a file");
        for part in 0..4 {
            let damaged = tempfile::tempdir().expect("a directory");
            copy(dir.path(), damaged.path());
            let target = damaged.path().join(relative);
            let what = format!("{} cut to {part}/4", relative.display());
            match part {
                0 => fs::remove_file(target).expect("a file"),
                _ => fs::write(target, &bytes[..bytes.len() * part / 4]).expect("a file"),
            }
            judge(damaged.path(), GROUPS, &what, &mut seen);
        }
    }
    println!("{seen:?}");
}

#[test]
fn one_bad_block_costs_only_what_is_in_it() {
    const MESSAGES: u64 = 2000;
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = FjallOptions::default();
    options.quiet = Duration::ZERO;
    options.journal_bytes = 0;
    let mut store = FjallStore::open(dir.path(), options).expect("it opens").store;
    load(&mut store).expect("it loads");
    let mut ops = vec![put_session(1)];
    for n in 1..=MESSAGES {
        ops.extend([put_message(n, 200), append(n, 1)]);
    }
    store.write(&[group(ops)], true).expect("the store writes");
    while store.tidy().expect("it tidies") {}
    drop(store);
    let tables = files(&dir.path().join("store/keyspaces/1/tables"));
    let largest =
        tables.iter().max_by_key(|file| fs::metadata(file).expect("a file").len()).expect("a table");
    let mut bytes = fs::read(largest).expect("a file");
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x10;
    fs::write(largest, bytes).expect("a file");
    let opened = open(dir.path()).expect("it opens");
    let salvage = opened.salvaged.expect("it was damaged");
    let (kept, dropped) = (salvage.kept, salvage.dropped);
    // A block has 4 KiB, about 18 messages; their entries go with them.
    assert!(kept > 2 * MESSAGES - 100, "{kept} of {}, {dropped} dropped", 2 * MESSAGES + 1);
    assert!(dropped < 50, "{dropped}");
    assert!(salvage.to_string().contains("store.damaged-"), "{salvage}");
}

#[test]
fn what_a_crash_interrupted_is_ended() {
    const GROUPS: u64 = 30;
    let dir = tempfile::tempdir().expect("a directory");
    make(dir.path(), GROUPS);
    let at = |name: &str| dir.path().join(name);
    // Before the damaged one was set aside, or while a new one was made: they are of no worth.
    for name in ["store.salvaged", "store.new"] {
        copy(&at("store"), &at(name));
    }
    let mut opened = open(dir.path()).expect("it opens");
    assert_eq!(opened.salvaged, None);
    assert!(load(&mut opened.store).expect("it loads") == after(GROUPS, LEN));
    assert!(!at("store.salvaged").exists() && !at("store.new").exists());
    drop(opened);
    // Between the two renames.
    fs::rename(at("store"), at("store.salvaged")).expect("it is there");
    let mut opened = open(dir.path()).expect("it opens");
    assert!(opened.salvaged.is_some(), "it is told");
    assert!(load(&mut opened.store).expect("it loads") == after(GROUPS, LEN));
}

#[test]
fn holes_of_a_power_loss_are_no_damage() {
    const GROUPS: u64 = 12;
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(dir.path()).expect("it opens").store;
    write(&mut store, 0, GROUPS, LEN);
    drop(store);
    let mut store = open(dir.path()).expect("it opens").store;
    load(&mut store).expect("it loads");
    store.write(&[group(vec![put_message(1000, 8000)])], true).expect("the store writes");
    drop(store);
    let mut found = files(&dir.path().join("store"));
    found.retain(|file| file.extension().is_some_and(|e| e == "jnl"));
    let journal = found.pop().expect("a journal");
    let whole = fs::read(&journal).expect("a journal");
    let used = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    // A sector of the last batch, which was never acknowledged, did not reach the disk.
    let sector = (used - 4000) / 512 * 512;
    let mut torn = whole.clone();
    torn[sector..sector + 512].fill(0);
    fs::write(&journal, &torn).expect("a journal");
    let mut opened = open(dir.path()).expect("it opens");
    assert_eq!(opened.salvaged, None);
    assert!(load(&mut opened.store).expect("it loads") == after(GROUPS, LEN));
    drop(opened);
    // But a flipped bit is one.
    let mut bad = whole;
    bad[sector] ^= 1;
    fs::write(&journal, &bad).expect("a journal");
    let mut opened = open(dir.path()).expect("it opens");
    assert!(opened.salvaged.is_some());
    assert!(load(&mut opened.store).expect("it loads") == after(GROUPS, LEN));
}

#[test]
fn what_was_deleted_stays_deleted() {
    const MESSAGES: u64 = 6000;
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = FjallOptions::default();
    options.journal_bytes = 0;
    options.quiet = Duration::ZERO;
    let mut store = FjallStore::open(dir.path(), options).expect("it opens").store;
    load(&mut store).expect("it loads");
    store.write(&[group(vec![put_session(1)])], true).expect("the store writes");
    let put = (1..=MESSAGES).flat_map(|n| [put_message(n, 1000), append(n, 1)]).collect();
    store.write(&[group(put)], true).expect("the store writes");
    while store.tidy().expect("it tidies") {}
    let tables = dir.path().join("store/keyspaces/1/tables");
    let full = tempfile::tempdir().expect("a directory");
    copy(&tables, full.path());
    let gone = (1..=MESSAGES).flat_map(|n| remove(n, 1)).collect();
    store.write(&[group(gone)], true).expect("the store writes");
    while store.tidy().expect("it tidies") {}
    drop(store);
    // It was compacted. A process that is killed then leaves the old tables.
    let now = files(&tables);
    copy(full.path(), &tables);
    assert!(files(&tables).len() > now.len());
    fs::write(dir.path().join("store/version"), b"nonsense").expect("a file");
    let mut opened = open(dir.path()).expect("it opens");
    assert!(opened.salvaged.is_some());
    assert_eq!(load(&mut opened.store).expect("it loads"), [put_session(1)]);
}

#[test]
fn a_fourth_damage_is_for_a_human() {
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..4 {
        let mut store = match open(dir.path()) {
            Ok(opened) => {
                assert_eq!(opened.salvaged.is_some(), round > 0);
                opened.store
            }
            Err(error) => panic!("{error}"),
        };
        load(&mut store).expect("it loads");
        write(&mut store, 0, 10, LEN);
        drop(store);
        let version = dir.path().join("store/version");
        fs::write(version, b"nonsense").expect("a file");
    }
    let before = files(dir.path());
    let error = open(dir.path()).expect_err("three are set aside");
    assert_eq!(error.kind(), StoreErrorKind::Damaged);
    assert!(error.remedy().contains("store.damaged-"), "{error}");
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_payload_that_looks_like_a_journal_is_a_payload() {
    // A peer cannot have its payload taken for a batch: it does not know the secret.
    let dir = tempfile::tempdir().expect("a directory");
    let other = tempfile::tempdir().expect("a directory");
    let journal = |path: &Path| {
        let mut found = files(&path.join("store"));
        found.retain(|file| file.extension().is_some_and(|e| e == "jnl"));
        found.pop().expect("a journal")
    };
    drop({
        let mut store = open(other.path()).expect("it opens").store;
        write(&mut store, 0, 3, LEN);
        store
    });
    let mut forged = fs::read(journal(other.path())).expect("a journal");
    forged.truncate(forged.iter().rposition(|byte| *byte != 0).expect("something") + 1);
    let message = mqtt_session::store::StoredMessage {
        body: forged.into(),
        topic_len: 0,
        properties_len: 0,
        qos: mqtt_proto::QoS::AtLeastOnce,
        retain: false,
        expires_at: None,
        author: None,
    };
    let put = StoreOp::PutMessage(mqtt_session::store::MessageId(1000), Box::new(message));
    let mut store = open(dir.path()).expect("it opens").store;
    write(&mut store, 0, 5, LEN);
    let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let start = used(&fs::read(journal(dir.path())).expect("a journal"));
    store.write(&[group(vec![put])], true).expect("the store writes");
    drop(store);
    let bytes = fs::read(journal(dir.path())).expect("a journal");
    let end = used(&bytes);
    for cut in (start..end).step_by(17) {
        let killed = tempfile::tempdir().expect("a directory");
        copy(dir.path(), killed.path());
        fs::write(journal(killed.path()), &bytes[..cut]).expect("a journal");
        let opened = open(killed.path()).expect("it opens");
        let mut store = opened.store;
        assert!(load(&mut store).expect("it loads") == after(5, LEN), "cut at {cut}");
    }
}
