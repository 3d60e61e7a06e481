//! The store on disk and its files: who may open it, what a kill leaves, what it gives back.

use super::common::{
    after, append, copy, files, group, load, nth, open, put_message, put_session, remove, write,
};
use mqtt_store::{FjallOptions, FjallStore, Store, StoreErrorKind};
use std::fs;
use std::path::Path;
use std::time::Duration;

fn space(path: &Path) -> u64 {
    files(path).iter().map(|file| occupied(file)).sum()
}

#[cfg(unix)]
fn occupied(file: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&fs::metadata(file).expect("a file")) * 512
}

#[cfg(not(unix))]
fn occupied(file: &Path) -> u64 {
    fs::metadata(file).expect("a file").len()
}

fn journal(path: &Path) -> std::path::PathBuf {
    let journals = files(path).into_iter().filter(|file| file.extension().is_some_and(|e| e == "jnl"));
    journals.max().expect("a journal")
}

#[test]
fn a_store_has_one_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = open(dir.path()).expect("it opens");
    let error = open(dir.path()).expect_err("it is in use");
    assert_eq!(error.kind(), StoreErrorKind::Locked);
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    drop(first);
    open(dir.path()).expect("it is free again");
}

#[test]
fn a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()).expect("it opens"));
    let format = dir.path().join("store/format");
    // As a newer version would write it: with the checksum that this one demands.
    let body = "mqtt-store 3\nwhatever\n";
    let text = format!("{body}{:016x}\n", xxhash_rust::xxh3::xxh3_64(body.as_bytes()));
    fs::write(&format, &text).expect("a file");
    let error = open(dir.path()).expect_err("it is newer");
    assert_eq!(error.kind(), StoreErrorKind::NewerFormat, "{error}");
    assert_eq!(fs::read_to_string(format).expect("it is there"), text);
}

/// What format 1 has, format 2 has as well; its file says so from then on, so that an earlier version leaves it alone.
#[test]
fn an_earlier_format_goes_on_as_this_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(dir.path()).expect("it opens").store;
    store.write(&[group(vec![put_session(1)])], true).expect("it writes");
    drop(store);
    let format = dir.path().join("store/format");
    let text = fs::read_to_string(&format).expect("a file");
    let secret = text.lines().nth(1).expect("a secret");
    let body = format!("mqtt-store 1\n{secret}\n");
    let earlier = format!("{body}{:016x}\n", xxhash_rust::xxh3::xxh3_64(body.as_bytes()));
    fs::write(&format, earlier).expect("a file");
    for _ in 0..2 {
        let opened = open(dir.path()).expect("it opens");
        assert!(opened.salvaged.is_none());
        let mut store = opened.store;
        assert_eq!(load(&mut store).expect("it loads"), [put_session(1)]);
        drop(store);
        assert_eq!(fs::read_to_string(&format).expect("a file"), text);
    }
}

#[cfg(unix)]
#[test]
fn its_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a/b");
    drop(open(&path).expect("it opens"));
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o700);
}

#[cfg(unix)]
#[test]
fn without_permission_nothing_is_touched() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store-directory");
    drop(open(&path).expect("it opens"));
    let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
    set(0o500);
    let before = files(&path);
    fs::set_permissions(path.join("lock"), fs::Permissions::from_mode(0o400)).expect("it is ours");
    // The superuser may do anything.
    if fs::File::create(path.join("probe")).is_err() {
        let error = open(&path).expect_err("it may not");
        assert_eq!(error.kind(), StoreErrorKind::Permission, "{error}");
        assert_eq!(files(&path), before);
    }
    set(0o700);
}

#[test]
fn a_place_that_is_no_directory_is_an_error() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = open(file.path()).expect_err("it is a file");
    assert!(error.to_string().starts_with("store "), "{error}");
    assert_eq!(fs::read(file.path()).expect("it is there"), b"");
}

#[test]
fn what_was_written_is_there_whenever_the_process_dies() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(dir.path()).expect("it opens").store;
    for n in 0..25 {
        // Both ways: this is no loss of power.
        store.write(&[nth(n, 50)], n % 2 == 0).expect("the store writes");
        // The files as they are when the process is killed now.
        let killed = tempfile::tempdir().expect("a directory");
        copy(dir.path(), killed.path());
        let opened = open(killed.path()).expect("it opens");
        assert_eq!(opened.salvaged, None);
        let mut store = opened.store;
        assert!(load(&mut store).expect("it loads") == after(n + 1, 50), "after {n}");
    }
}

#[test]
fn a_torn_tail_costs_only_what_was_not_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(dir.path()).expect("it opens").store;
    write(&mut store, 0, 12, 50);
    // Where each commit ends in the journal.
    let mut ends = Vec::new();
    let path = journal(dir.path());
    let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for n in 12..16 {
        ends.push(used(&fs::read(&path).expect("a journal")));
        write(&mut store, n, n + 1, 50);
    }
    let bytes = fs::read(&path).expect("a journal");
    ends.push(used(&bytes));
    let killed = tempfile::tempdir().expect("a directory");
    copy(dir.path(), killed.path());
    drop(store);
    // Every field of a batch, not every byte: each takes a second of a slow disk.
    let near = |cut: &usize| ends.iter().any(|end| cut.abs_diff(*end) < 4) || cut.is_multiple_of(29);
    for cut in (ends[0]..=ends[4]).filter(near) {
        // Alternately a file that ends there, and one that goes on with zeros.
        let mut torn = bytes[..cut].to_vec();
        if cut % 2 == 0 {
            torn.resize(bytes.len().min(cut + 4096), 0);
        }
        let copied = tempfile::tempdir().expect("a directory");
        copy(killed.path(), copied.path());
        fs::write(journal(copied.path()), torn).expect("a journal");
        let whole = 12 + ends[1..].iter().filter(|end| **end <= cut).count() as u64;
        let opened = open(copied.path()).expect("it opens");
        assert_eq!(opened.salvaged, None, "cut at {cut}");
        let mut store = opened.store;
        assert!(load(&mut store).expect("it loads") == after(whole, 50), "cut at {cut}");
        // It goes on from there.
        write(&mut store, whole, 20, 50);
        drop(store);
        let mut store = open(copied.path()).expect("it opens").store;
        assert!(load(&mut store).expect("it loads") == after(20, 50), "cut at {cut}, and gone on");
    }
}

#[test]
fn a_backlog_that_drained_gives_its_space_back() {
    const MESSAGES: u64 = 60_000;
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = FjallOptions::default();
    options.quiet = Duration::ZERO;
    options.memtable_bytes = 1 << 20;
    options.table_bytes = 1 << 20;
    let mut store = FjallStore::open(dir.path(), options.clone()).expect("it opens").store;
    assert!(load(&mut store).expect("it loads").is_empty());
    store.write(&[group(vec![put_session(1)])], true).expect("the store writes");
    let batch = |from: u64, ops: &dyn Fn(u64) -> Vec<mqtt_session::StoreOp>| {
        (from..from + 1000).map(|n| group(ops(n))).collect::<Vec<_>>()
    };
    for from in (1..MESSAGES).step_by(1000) {
        store.write(&batch(from, &|n| vec![put_message(n, 500), append(n, 1)]), false).expect("it writes");
        // Idle for a moment.
        store.tidy().expect("it tidies");
    }
    let full = space(dir.path());
    assert!(full > MESSAGES * 500, "{full}");
    // Also over a restart in between.
    drop(store);
    let mut store = FjallStore::open(dir.path(), options).expect("it opens").store;
    let mut records = 0;
    store.load(&mut |_| records += 1).expect("it loads");
    assert_eq!(records, 2 * MESSAGES + 1);
    for from in (1..MESSAGES).step_by(1000) {
        store.write(&batch(from, &|n| remove(n, 1).to_vec()), false).expect("it writes");
        store.tidy().expect("it tidies");
    }
    while store.tidy().expect("it tidies") {}
    let drained = space(dir.path());
    assert!(drained < 10 << 20, "{full} bytes before, {drained} after");
    // fjall's own thread may still be removing files, so the two may have to look again.
    let agrees = (0..10_000).any(|_| store.disk_space() == Some(space(dir.path())));
    assert!(agrees, "{:?} and {}", store.disk_space(), space(dir.path()));
    assert_eq!(load(&mut store).expect("it loads"), [put_session(1)]);
}

#[test]
fn what_is_delivered_at_once_costs_next_to_nothing() {
    const MESSAGES: u64 = 5000;
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(dir.path()).expect("it opens").store;
    load(&mut store).expect("it loads");
    store.write(&[group(vec![put_session(1)])], true).expect("the store writes");
    let before = space(dir.path());
    for from in (1..MESSAGES).step_by(50) {
        let come = (from..from + 50).map(|n| group(vec![put_message(n, 500), append(n, 1)]));
        let gone = (from..from + 50).map(|n| group(remove(n, 1).to_vec()));
        store.write(&come.chain(gone).collect::<Vec<_>>(), true).expect("the store writes");
    }
    assert_eq!(space(dir.path()), before, "came and went within a commit");
}
