//! A process that writes is killed, again and again, and accounts for what it was told is kept.
//!
//! The test starts itself as that process.

use super::common::{after, load, nth};
use mqtt_session::{Durability, StoreSeq};
use mqtt_store::{FjallOptions, FjallStore, Report, Storage};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const DIRECTORY: &str = "MQTT_STORE_KILL_DIRECTORY";
const FROM: &str = "MQTT_STORE_KILL_FROM";
const LEN: usize = 700;

fn options() -> FjallOptions {
    let mut options = FjallOptions::default();
    options.quiet = Duration::ZERO;
    // So that it is killed while it flushes, compacts and empties journals as well.
    options.memtable_bytes = 64 << 10;
    options.table_bytes = 64 << 10;
    options.journal_bytes = 32 << 10;
    options
}

/// Writes groups and tells on its output up to which one they are kept, until it is killed.
fn child(directory: &Path, from: u64) {
    let mut store = FjallStore::open(directory, options()).expect("it opens").store;
    load(&mut store).expect("it loads");
    let storage = Storage { tidy_after: Duration::ZERO, ..Storage::default() };
    let (sender, reports) = std::sync::mpsc::channel();
    let handle = storage.start(Box::new(store), Durability::Written, 1, move |_, report| {
        drop(sender.send(report));
    });
    let mut output = std::io::stdout();
    let (mut next, mut kept) = (from, from);
    loop {
        // Some are always under way, and now and then it is idle.
        for _ in 0..next % 7 {
            handle.store(0, StoreSeq(next - from + 1), nth(next, LEN));
            next += 1;
        }
        if next == kept {
            handle.store(0, StoreSeq(next - from + 1), nth(next, LEN));
            next += 1;
        }
        handle.flush();
        while kept < next {
            match reports.recv().expect("the thread runs") {
                Report::Stored { through } => kept = from + through.0,
                other => panic!("{other:?}"),
            }
            if writeln!(output, "kept {kept}").and_then(|()| output.flush()).is_err() {
                return;
            }
        }
        if next % 5 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn a_killed_process_has_kept_what_it_said() {
    if let (Ok(directory), Ok(from)) = (env::var(DIRECTORY), env::var(FROM)) {
        return child(Path::new(&directory), from.parse().expect("a number"));
    }
    let kills: u64 = env::var("MQTT_STORE_KILLS").map_or(8, |n| n.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a directory");
    let mut from = 0;
    for round in 0..kills {
        let mut process = Command::new(env::current_exe().expect("a path"))
            .args(["--exact", "kill::a_killed_process_has_kept_what_it_said", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .env(FROM, from.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("it starts");
        // After a different number of commits each time; the moment within one is the scheduler's.
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut lines = output.lines().map_while(Result::ok);
        let mut kept = from;
        let mut told = |line: String| {
            if let Some(n) = line.trim().strip_prefix("kept ").and_then(|n| n.parse().ok()) {
                kept = n;
            }
        };
        for line in lines.by_ref().take(20 + (round * 37 % 150) as usize) {
            told(line);
        }
        process.kill().expect("it is killed");
        process.wait().expect("it ended");
        lines.for_each(&mut told);

        let opened = FjallStore::open(dir.path(), options()).expect("it opens");
        assert_eq!(opened.salvaged, None, "round {round}");
        let mut store = opened.store;
        let records = load(&mut store).expect("it loads");
        let found = (kept..kept + 16).find(|n| records == after(*n, LEN));
        from = found.unwrap_or_else(|| panic!("round {round}: {kept} were kept, {} records", records.len()));
    }
    assert!(from > kills * 10, "{from} groups in all");
}
