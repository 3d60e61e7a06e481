//! A flow of groups that every test can make again, and what it leaves.

use bytes::Bytes;
use mqtt_proto::{PacketId, QoS};
use mqtt_session::store::{
    Contents, EntryId, MessageId, SessionId, StoredDelivery, StoredMessage, StoredSession, StoredStage,
};
use mqtt_session::{StoreGroup, StoreOp};
use mqtt_store::{FjallOptions, FjallStore, Opened, Store, StoreError};
use std::path::Path;

/// How many messages wait in the queues.
pub(crate) const WAITING: u64 = 20;
const SESSIONS: u64 = 3;

pub(crate) fn group(ops: Vec<StoreOp>) -> StoreGroup {
    StoreGroup { ops: ops.into() }
}

pub(crate) fn put_session(id: u64) -> StoreOp {
    let client_id = format!("client-{id}");
    let record = StoredSession { client_id, user_name: None, acl: 0, expiry_secs: 60, disconnected_at: None };
    StoreOp::PutSession(SessionId(id), Box::new(record))
}

pub(crate) fn put_message(id: u64, len: usize) -> StoreOp {
    let mut body = b"some/topic".to_vec();
    body.resize(10 + len, (id % 251) as u8);
    let message = StoredMessage {
        body: Bytes::from(body),
        topic_len: 10,
        properties_len: 0,
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: None,
        author: None,
    };
    StoreOp::PutMessage(MessageId(id), Box::new(message))
}

pub(crate) fn append(message: u64, session: u64) -> StoreOp {
    let delivery = StoredDelivery {
        session: SessionId(session),
        entry: EntryId(message),
        qos: QoS::AtLeastOnce,
        retain: false,
        subscription_ids: Box::default(),
    };
    StoreOp::Append(MessageId(message), vec![delivery])
}

pub(crate) fn remove(message: u64, session: u64) -> [StoreOp; 2] {
    [StoreOp::RemoveEntry(SessionId(session), EntryId(message)), StoreOp::DeleteMessage(MessageId(message))]
}

/// The `n`th group, from 0: sessions first, then a message each, with the oldest taken out.
pub(crate) fn nth(n: u64, len: usize) -> StoreGroup {
    if n == 0 {
        return group((1..=SESSIONS).map(put_session).collect());
    }
    let owner = |n: u64| n % SESSIONS + 1;
    let mut ops = vec![put_message(n, len), append(n, owner(n))];
    if n.is_multiple_of(3) {
        let (session, entry, packet_id) = (SessionId(owner(n)), EntryId(n), PacketId::MIN);
        ops.push(StoreOp::PutExchange {
            session,
            entry,
            packet_id,
            number: n,
            stage: StoredStage::Published,
        });
    }
    if n.is_multiple_of(5) {
        ops.push(StoreOp::PutRetained(format!("topic/{}", n % 7), MessageId(n)));
    }
    if n > WAITING {
        ops.extend(remove(n - WAITING, owner(n - WAITING)));
    }
    group(ops)
}

/// What the first `n` groups leave.
pub(crate) fn after(n: u64, len: usize) -> Vec<StoreOp> {
    let mut contents = Contents::default();
    (0..n).for_each(|n| contents.apply(&nth(n, len)));
    contents.records().collect()
}

pub(crate) fn open(path: &Path) -> Result<Opened, StoreError> {
    FjallStore::open(path, FjallOptions::default())
}

pub(crate) fn load(store: &mut FjallStore) -> Result<Vec<StoreOp>, StoreError> {
    let mut records = Vec::new();
    store.load(&mut |record| records.push(record)).map(|_| records)
}

/// Writes the groups `from..to`, each as a commit.
pub(crate) fn write(store: &mut FjallStore, from: u64, to: u64, len: usize) {
    for n in from..to {
        store.write(&[nth(n, len)], true).expect("the store writes");
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// All files below `path`.
pub(crate) fn files(path: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
