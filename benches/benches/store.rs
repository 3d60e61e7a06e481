//! Acknowledgements from the disk: how many per second and per fsync, with 1 to 1,000 publishers that
//! each wait for one acknowledgement before they publish again.
//!
//! Every message goes to the queue of a session that is away; the oldest of 10,000 leaves it in the
//! same group, as if the session took one. A line behind each result tells what a commit was.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mqtt_proto::QoS;
use mqtt_session::store::{EntryId, MessageId, SessionId, StoredDelivery, StoredMessage, StoredSession};
use mqtt_session::{Durability, StoreGroup, StoreOp, StoreSeq};
use mqtt_store::{FjallOptions, FjallStore, Report, Storage, StorageHandle, Store};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PAYLOAD: usize = 200;
const WAITING: u64 = 10_000;

struct Broker {
    storage: StorageHandle,
    reports: Receiver<Report>,
    emitted: u64,
    stored: u64,
    _directory: tempfile::TempDir,
}

impl Broker {
    fn new(durability: Durability) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let opened = FjallStore::open(directory.path(), FjallOptions::default());
        let mut store = opened.expect("a new store").store;
        store.load(&mut |_| ()).expect("nothing");
        let (sender, reports) = channel();
        let report = move |_, report| drop(sender.send(report));
        let storage = Storage::default().start(Box::new(store), durability, 1, report);
        Self { storage, reports, emitted: 0, stored: 0, _directory: directory }
    }

    fn publish(&mut self) {
        self.emitted += 1;
        let n = self.emitted;
        self.storage.store(0, StoreSeq(n), StoreGroup { ops: ops(n).into() });
    }

    fn wait(&mut self) -> u64 {
        match self.reports.recv().expect("the thread runs") {
            Report::Stored { through } => {
                let acknowledged = through.0 - self.stored;
                self.stored = through.0;
                acknowledged
            }
            other => panic!("{other:?}"),
        }
    }

    /// Until `messages` are acknowledged, with `publishers` that wait for theirs.
    fn run(&mut self, publishers: u64, messages: u64) -> Duration {
        let start = Instant::now();
        let mut left = messages;
        let mut free = publishers.min(left);
        while left > 0 {
            for _ in 0..free {
                self.publish();
            }
            self.storage.flush();
            let acknowledged = self.wait();
            left -= acknowledged;
            free = acknowledged.min(left.saturating_sub(self.emitted - self.stored));
        }
        start.elapsed()
    }
}

fn ops(n: u64) -> Vec<StoreOp> {
    let session = SessionId(1);
    if n == 1 {
        let record = StoredSession {
            client_id: "away".into(),
            user_name: None,
            acl: 0,
            expiry_secs: u32::MAX,
            disconnected_at: Some(0),
        };
        return vec![StoreOp::PutSession(session, Box::new(record))];
    }
    let topic = "site/7/device/000123/temperature";
    let mut body = topic.as_bytes().to_vec();
    body.resize(topic.len() + PAYLOAD, b'x');
    let qos = QoS::AtLeastOnce;
    let message = StoredMessage {
        body: body.into(),
        topic_len: topic.len() as u16,
        properties_len: 0,
        qos,
        retain: false,
        expires_at: None,
        author: None,
    };
    let delivery =
        StoredDelivery { session, entry: EntryId(n), qos, retain: false, subscription_ids: Box::default() };
    let mut ops = vec![
        StoreOp::PutMessage(MessageId(n), Box::new(message)),
        StoreOp::Append(MessageId(n), vec![delivery]),
    ];
    if let Some(oldest) = n.checked_sub(WAITING).filter(|oldest| *oldest > 1) {
        ops.push(StoreOp::RemoveEntry(session, EntryId(oldest)));
        ops.push(StoreOp::DeleteMessage(MessageId(oldest)));
    }
    ops
}

/// Bytes that this process has had written to disks, where the system counts them.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0)
}

fn acknowledgements(c: &mut Criterion) {
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(4)).sample_size(20);
    for (name, durability) in [("synced", Durability::Synced), ("written", Durability::Written)] {
        for publishers in [1, 10, 100, 1000] {
            let mut broker = Broker::new(durability);
            let before = written();
            group.bench_function(BenchmarkId::new(name, publishers), |b| {
                b.iter_custom(|messages| broker.run(publishers, messages));
            });
            let stats = broker.storage.stats();
            if stats.commits == 0 {
                continue;
            }
            println!(
                "{name}, {publishers} publishers: {:.1} acknowledgements per commit, {} fsyncs; a commit took \
                 {} us in the middle, {} us in 99 of 100; {} bytes written per message",
                stats.groups as f64 / stats.commits as f64,
                stats.fsyncs,
                stats.commit_micros.quantile(0.5).unwrap_or(0),
                stats.commit_micros.quantile(0.99).unwrap_or(0),
                (written() - before) / stats.groups.max(1),
            );
            broker.storage.close().expect("all is written");
        }
    }
    group.finish();
}

criterion_group!(benches, acknowledgements);
criterion_main!(benches);
