//! Fills a store by way of the storage thread, ends, and opens it again, with times.
//!
//!     cargo run --release -p mqtt-store --example recovery -- [messages] [sessions] [directory]
//!
//! With 0 0, only opens what is there. Without arguments: 10,000 messages for 1,000 sessions, in a temporary directory that is removed.

use mqtt_proto::{PacketId, QoS, SubscriptionOptions};
use mqtt_session::store::{EntryId, MessageId, SessionId, StoredDelivery, StoredMessage, StoredSession};
use mqtt_session::{Durability, StoreGroup, StoreOp, StoreSeq};
use mqtt_store::{FjallOptions, FjallStore, Report, Storage, StorageHandle, Store, StoreError};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// Groups under way at a time: a machine bounds them by bytes.
const UNDER_WAY: u64 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let messages: u64 = args.next().map_or(Ok(10_000), |n| n.parse())?;
    let sessions: u64 = args.next().map_or(Ok(1000), |n| n.parse())?;
    let temporary = tempfile::tempdir()?;
    let directory = args.next().map_or_else(|| temporary.path().to_owned(), Into::into);

    if messages + sessions > 0 {
        fill(&directory, messages, sessions)?;
    }
    recover(&directory)?;
    Ok(())
}

fn fill(directory: &Path, messages: u64, sessions: u64) -> Result<(), StoreError> {
    let opened = FjallStore::open(directory, FjallOptions::default())?;
    if let Some(salvage) = opened.salvaged {
        println!("{salvage}");
    }
    let mut store = opened.store;
    let loaded = store.load(&mut |_| ())?;
    println!("{} has {} records", directory.display(), loaded.records);

    let (sender, reports) = channel();
    let report = move |_shard, report| drop(sender.send(report));
    let storage = Storage::default().start(Box::new(store), Durability::Synced, 1, report);
    let start = Instant::now();
    let mut flow = Flow { storage, reports, last: 0, stored: 0 };
    for id in 1..=sessions {
        flow.emit(session(id));
    }
    for id in 1..=messages {
        flow.emit(message(id, id % sessions + 1));
    }
    let storage = flow.storage;
    storage.close()?;
    let (elapsed, stats) = (start.elapsed(), storage.stats());
    println!(
        "{} groups in {elapsed:.1?}, {:.1} per fsync; commits took {} us in the middle, {} us at most",
        stats.groups,
        stats.groups as f64 / stats.fsyncs as f64,
        stats.commit_micros.quantile(0.5).unwrap_or_default(),
        stats.commit_micros.quantile(1.0).unwrap_or_default(),
    );
    Ok(())
}

fn recover(directory: &Path) -> Result<(), StoreError> {
    let start = Instant::now();
    let options = FjallOptions::default().on_progress(|progress| {
        println!("  {} records, {} MB so far", progress.records, progress.bytes / 1_000_000);
    });
    let mut store = FjallStore::open(directory, options)?.store;
    let opened = start.elapsed();
    println!("memory: {}", memory());
    let loaded = store.load(&mut |record| drop(record))?;
    println!(
        "opened in {opened:.1?}, loaded in {:.1?}: {} records, {} MB; {} MB on disk",
        start.elapsed() - opened,
        loaded.records,
        loaded.bytes / 1_000_000,
        store.disk_space().unwrap_or(0) / 1_000_000,
    );
    println!("memory: {}", memory());
    Ok(())
}

/// What this process takes up now, and took up at most.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(" unknown");
    format!("{} now, {} at most", of("VmRSS:").trim(), of("VmHWM:").trim())
}

/// Hands over groups, and waits for reports when too many are under way: what a machine does.
struct Flow {
    storage: StorageHandle,
    reports: Receiver<Report>,
    last: u64,
    stored: u64,
}

impl Flow {
    fn emit(&mut self, ops: Vec<StoreOp>) {
        self.last += 1;
        self.storage.store(0, StoreSeq(self.last), StoreGroup { ops: ops.into() });
        if self.last.is_multiple_of(100) {
            self.storage.flush();
        }
        while self.last - self.stored >= UNDER_WAY {
            match self.reports.recv() {
                Ok(Report::Stored { through }) => self.stored = through.0,
                Ok(Report::Failed { error, .. }) => panic!("{error}"),
                _ => return,
            }
        }
    }
}

fn session(id: u64) -> Vec<StoreOp> {
    let client_id = format!("client-{id}");
    let record =
        StoredSession { client_id, user_name: None, acl: 0, expiry_secs: u32::MAX, disconnected_at: Some(0) };
    let (session, filter) = (SessionId(id), format!("to/{id}/#"));
    let options = SubscriptionOptions::from(QoS::AtLeastOnce);
    vec![
        StoreOp::PutSession(session, Box::new(record)),
        StoreOp::PutPacketId(session, PacketId::MIN),
        StoreOp::PutSubscription { session, filter, options, id: None },
    ]
}

fn message(id: u64, session: u64) -> Vec<StoreOp> {
    let mut body = format!("to/{session}/news").into_bytes();
    let topic_len = body.len() as u16;
    body.resize(body.len() + 100, b'x');
    let qos = QoS::AtLeastOnce;
    let message = StoredMessage {
        body: body.into(),
        topic_len,
        properties_len: 0,
        qos,
        retain: false,
        expires_at: None,
        author: None,
    };
    let (session, entry) = (SessionId(session), EntryId(id));
    let delivery = StoredDelivery { session, entry, qos, retain: false, subscription_ids: Box::default() };
    vec![
        StoreOp::PutMessage(MessageId(id), Box::new(message)),
        StoreOp::Append(MessageId(id), vec![delivery]),
    ]
}
