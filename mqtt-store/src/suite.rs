//! What every [`Store`] has to pass.
//!
//! ```
//! use mqtt_store::{MemoryStore, suite};
//!
//! // A place is where the contents survive when the store is dropped.
//! impl suite::Place for Memory {
//!     type Store = MemoryStore;
//!     fn open(&self) -> MemoryStore {
//!         self.0.clone()
//!     }
//! }
//!
//! struct Memory(MemoryStore);
//! suite::check(10, || Memory(MemoryStore::new()));
//! ```
//!
//! What a crash leaves cannot be tested without knowing how a store works; that is left to its own
//! tests.

use crate::{Loaded, Store};
use bytes::Bytes;
use mqtt_proto::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use mqtt_session::store::{
    Contents, EntryId, HandOver, MessageId, SessionId, StoredAuthor, StoredClock, StoredDelivery,
    StoredHandOver, StoredLimits, StoredMessage, StoredReplay, StoredSession, StoredShards, StoredStage,
    StoredWill,
};
use mqtt_session::{ShardId, StoreGroup, StoreOp, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Where a store keeps its contents: a directory, say.
pub trait Place {
    /// The store under test.
    type Store: Store;

    /// Opens the store that is kept here; the first time, an empty one. The one that was opened
    /// before is dropped by then.
    fn open(&self) -> Self::Store;
}

/// Runs the suite; `new` gives a place that is empty. The random part runs `cases` times.
///
/// # Panics
///
/// If the store does not pass.
pub fn check<P: Place>(cases: u32, new: impl Fn() -> P) {
    the_last_change_wins(&new());
    what_is_void_is_not_loaded_and_goes(&new());
    the_largest_and_the_smallest_come_back(&new());
    an_empty_write_is_none(&new());
    same_as_contents(cases, new);
}

/// What `store` loads.
///
/// # Panics
///
/// If it cannot.
pub fn load(store: &mut impl Store) -> (Vec<StoreOp>, Loaded) {
    let mut records = Vec::new();
    let loaded = store.load(&mut |record| records.push(record)).expect("the store loads");
    assert_eq!(loaded.records, records.len() as u64, "what was loaded is counted");
    (records, loaded)
}

/// Any operations in `ops`, in one group.
pub fn group(ops: impl IntoIterator<Item = StoreOp>) -> StoreGroup {
    StoreGroup { ops: ops.into_iter().collect() }
}

fn session(id: u64) -> StoreOp {
    let client_id = format!("client-{id}");
    let record = StoredSession { client_id, user_name: None, acl: 0, expiry_secs: 60, disconnected_at: None };
    StoreOp::PutSession(SessionId(id), Box::new(record))
}

fn body(topic: &str, payload: &[u8]) -> StoredMessage {
    StoredMessage {
        body: Bytes::from([topic.as_bytes(), payload].concat()),
        topic_len: u16::try_from(topic.len()).expect("a topic of the protocol"),
        properties_len: 0,
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: None,
        author: None,
    }
}

fn append(message: u64, session: u64, entry: u64) -> StoreOp {
    let delivery = StoredDelivery {
        session: SessionId(session),
        entry: EntryId(entry),
        qos: QoS::AtLeastOnce,
        retain: false,
        subscription_ids: Box::default(),
    };
    StoreOp::Append(MessageId(message), vec![delivery])
}

fn write<P: Place>(place: &P, store: P::Store, groups: &[StoreGroup]) -> P::Store {
    let mut store = store;
    store.write(groups, true).expect("the store writes");
    drop(store);
    place.open()
}

fn the_last_change_wins<P: Place>(place: &P) {
    let retained = |id| StoreOp::PutRetained("a/b".to_owned(), MessageId(id));
    let delete = || StoreOp::DeleteRetained("a/b".to_owned());
    // Within a group, between groups, between writes.
    let mut store = write(place, place.open(), &[group([retained(1), delete(), retained(2)])]);
    assert_eq!(load(&mut store).0, [retained(2)], "a delete between two puts");
    let mut store = write(place, store, &[group([delete()]), group([retained(3)])]);
    assert_eq!(load(&mut store).0, [retained(3)], "a put after a delete");
    let mut store = write(place, store, &[group([retained(4)]), group([delete()])]);
    assert_eq!(load(&mut store).0, [], "a delete after a put");
    let store = write(place, store, &[group([retained(5)])]);
    let mut store = write(place, store, &[group([retained(6), retained(7)])]);
    assert_eq!(load(&mut store).0, [retained(7)], "puts only");
    // What is written again after a failure.
    let again = [group([session(1), StoreOp::PutMessage(MessageId(9), Box::new(body("t", b"")))])];
    let store = write(place, store, &again);
    let mut store = write(place, store, &[again[0].clone(), group([StoreOp::DeleteMessage(MessageId(9))])]);
    assert_eq!(load(&mut store).0, [session(1), retained(7)], "the same put again, then a delete");
}

fn what_is_void_is_not_loaded_and_goes<P: Place>(place: &P) {
    const ENTRIES: u64 = 5000;
    let packet_id = |n: u64| PacketId::new(n as u16 + 1).expect("not zero");
    let of = |id: u64| {
        let filter = || "a/+".to_owned();
        let options = SubscriptionOptions::default();
        let mut ops = vec![
            session(id),
            StoreOp::PutPacketId(SessionId(id), PacketId::MAX),
            StoreOp::PutSubscription { session: SessionId(id), filter: filter(), options, id: None },
            StoreOp::PutReplay { session: SessionId(id), filter: filter(), replay: Box::default() },
            StoreOp::PutReceived(SessionId(id), packet_id(0)),
            StoreOp::PutWill(
                SessionId(id),
                Box::new(StoredWill {
                    message: body("will", b"gone"),
                    delay_secs: 1,
                    author: StoredAuthor::default(),
                }),
            ),
        ];
        for n in 0..ENTRIES {
            let (session, entry) = (SessionId(id), EntryId(id * ENTRIES + n));
            ops.push(append(1, id, entry.0));
            if n % 100 == 0 {
                let stage = StoredStage::Published;
                ops.push(StoreOp::PutExchange { session, entry, packet_id: packet_id(n), number: n, stage });
            }
        }
        group(ops)
    };
    let groups =
        [of(1), of(2), of(3), group([StoreOp::PutGroup(SessionId(4), "g".to_owned()), append(1, 4, 1)])];
    let store = write(place, place.open(), &groups);
    let deletes = group([StoreOp::DeleteSession(SessionId(2)), StoreOp::DeleteGroup(SessionId(4))]);
    let mut expected = Contents::default();
    groups.iter().chain([&deletes]).for_each(|group| expected.apply(group));
    let expected: Vec<StoreOp> = expected.records().collect();
    let mut store = write(place, store, &[deletes]);
    assert_eq!(load(&mut store).0, expected, "before sweeping");
    // Some steps, then a restart in the middle of it.
    for _ in 0..2 {
        store.tidy().expect("the store tidies");
    }
    drop(store);
    let mut store = place.open();
    assert_eq!(load(&mut store).0, expected, "while sweeping");
    while store.tidy().expect("the store tidies") {}
    drop(store);
    let (records, loaded) = load(&mut place.open());
    assert_eq!(records, expected, "after sweeping");
    assert_eq!(loaded.void, 0, "nothing void is left");
}

fn the_largest_and_the_smallest_come_back<P: Place>(place: &P) {
    let longest = "x".repeat(65_535);
    let mut almost = longest.clone();
    almost.replace_range(65_534.., "y");
    let ops = |texts: [&str; 3], id: u64| {
        let owner = SessionId(id);
        let texts = texts.map(str::to_owned);
        let author =
            StoredAuthor { acl: u16::MAX, client_id: texts[0].clone(), user_name: Some(String::new()) };
        let mut ops = vec![
            StoreOp::PutSession(
                owner,
                Box::new(StoredSession {
                    client_id: texts[0].clone(),
                    user_name: Some(texts[0].clone()),
                    acl: u16::MAX,
                    expiry_secs: u32::MAX,
                    disconnected_at: Some(u64::MAX),
                }),
            ),
            StoreOp::PutGroup(SessionId(id - 1), texts[0].clone()),
            StoreOp::PutMessage(
                MessageId(id),
                Box::new(StoredMessage {
                    properties_len: 1,
                    qos: QoS::ExactlyOnce,
                    retain: true,
                    expires_at: Some(u64::MAX),
                    author: Some(author.clone().into()),
                    ..body(&texts[0], &vec![7; 300 << 10])
                }),
            ),
            StoreOp::PutMessage(
                MessageId(id - 1),
                Box::new(StoredMessage { body: Bytes::new(), topic_len: 0, ..body("", b"") }),
            ),
            StoreOp::PutReceived(owner, PacketId::MAX),
            StoreOp::PutExchange {
                session: owner,
                entry: EntryId(u64::MAX),
                packet_id: PacketId::MAX,
                number: u64::MAX,
                stage: StoredStage::Released,
            },
            StoreOp::Append(
                MessageId(id),
                vec![StoredDelivery {
                    session: owner,
                    entry: EntryId(u64::MAX),
                    qos: QoS::ExactlyOnce,
                    retain: true,
                    subscription_ids: (0..1000).map(|n| u32::MAX - n).collect(),
                }],
            ),
            StoreOp::PutWill(
                owner,
                Box::new(StoredWill { message: body(&texts[0], b""), delay_secs: u32::MAX, author }),
            ),
        ];
        for filter in texts {
            let options = SubscriptionOptions {
                qos: QoS::ExactlyOnce,
                no_local: true,
                retain_as_published: true,
                retain_handling: RetainHandling::DoNotSend,
            };
            let (after, until) = (MessageId(0), vec![MessageId(u64::MAX); filter.len() % 5]);
            let replay = Box::new(StoredReplay { after, until, except: vec![MessageId(7)] });
            ops.push(StoreOp::PutSubscription {
                session: owner,
                filter: filter.clone(),
                options,
                id: Some(u32::MAX),
            });
            ops.push(StoreOp::PutReplay { session: owner, filter: filter.clone(), replay });
            ops.push(StoreOp::PutRetained(filter, MessageId(id)));
        }
        ops
    };
    let mut all = ops([&longest, &almost, "é/\u{10FFFF}"], u64::MAX - 1);
    all.extend(ops(["", "a", "#"], 1));
    all.extend([
        StoreOp::PutLimits(ShardId(0), StoredLimits { sessions: u64::MAX, messages: 0, entries: 1 }),
        StoreOp::PutLimits(ShardId(63), StoredLimits { sessions: 0, messages: u64::MAX, entries: 1 }),
        StoreOp::PutShards(StoredShards { count: 64, key: [7; 16] }),
        StoreOp::PutTaken { by: ShardId(1), from: ShardId(63), number: u64::MAX },
        StoreOp::PutClock(StoredClock { time: Timestamp::MAX, unix_ms: u64::MAX }),
        StoreOp::PutPacketId(SessionId(1), PacketId::MAX),
    ]);
    let groups = [group(all)];
    let mut expected = Contents::default();
    expected.apply(&groups[0]);
    let mut records = load(&mut write(place, place.open(), &groups)).0;
    let mut expected: Vec<StoreOp> = expected.records().collect();
    // Texts that differ only at their very end may come in any order.
    records.sort_by_cached_key(|record| format!("{record:?}"));
    expected.sort_by_cached_key(|record| format!("{record:?}"));
    assert_eq!(records.len(), expected.len());
    for (record, expected) in records.iter().zip(&expected) {
        assert!(
            record == expected,
            "{:.300} instead of {:.300}",
            format!("{record:?}"),
            format!("{expected:?}")
        );
    }
}

fn an_empty_write_is_none<P: Place>(place: &P) {
    let mut store = place.open();
    assert_eq!(load(&mut store), (Vec::new(), Loaded::default()), "a new store is empty");
    for sync in [true, false] {
        store.write(&[], sync).expect("nothing is written");
        store.write(&[group([])], sync).expect("nothing is written");
    }
    store.reopen().expect("a store that did not fail opens again");
    store.write(&[group([session(1)])], false).expect("the store writes");
    store.reopen().expect("a store that did not fail opens again");
    assert_eq!(load(&mut store).0, [session(1)]);
}

/// What is done to a store, and at the same time to [`Contents`].
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Vec<Act>>, bool),
    Tidy(u8),
    Reopen,
    Restart,
}

/// Something that a machine may emit; the numbers choose among what there is.
type Act = (u8, u16, u16);

fn step() -> impl Strategy<Value = Step> {
    let act = (0..26u8, any::<u16>(), any::<u16>());
    prop_oneof![
        8 => (vec(vec(act, 1..6), 1..12), any::<bool>()).prop_map(|(groups, sync)| Step::Write(groups, sync)),
        2 => (0..8u8).prop_map(Step::Tidy),
        1 => Just(Step::Reopen),
        1 => Just(Step::Restart),
    ]
}

fn same_as_contents<P: Place>(cases: u32, new: impl Fn() -> P) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&vec(step(), 1..24), |steps| {
        let place = new();
        let mut store = place.open();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Write(groups, sync) => {
                    let groups: Vec<StoreGroup> = groups
                        .iter()
                        .map(|acts| group(acts.iter().flat_map(|act| model.act(*act))))
                        .collect();
                    store.write(&groups, sync).expect("the store writes");
                    groups.iter().for_each(|group| model.contents.apply(group));
                }
                Step::Tidy(steps) => {
                    let mut left = steps;
                    while left > 0 && store.tidy().expect("the store tidies") {
                        left -= 1;
                    }
                }
                Step::Reopen => store.reopen().expect("the store opens again"),
                Step::Restart => {
                    drop(store);
                    store = place.open();
                    let (records, _) = load(&mut store);
                    prop_assert_eq!(records, model.contents.records().collect::<Vec<_>>());
                }
            }
        }
        drop(store);
        let (records, _) = load(&mut place.open());
        prop_assert_eq!(records, model.contents.records().collect::<Vec<_>>());
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// As much of a machine as it takes to emit what makes sense: numbers are never given twice, and
/// nothing is put for a session that was deleted.
#[derive(Default)]
struct Model {
    contents: Contents,
    last: u64,
    sessions: Vec<u64>,
    groups: Vec<u64>,
    entries: Vec<(u64, u64)>,
    messages: Vec<u64>,
}

fn pick<T: Copy>(from: &[T], n: u16) -> Option<T> {
    from.get(usize::from(n).checked_rem(from.len())?).copied()
}

impl Model {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn act(&mut self, (kind, a, b): Act) -> Vec<StoreOp> {
        let owner = pick(&self.sessions, a);
        let filter = || ["a", "a/b", "+/b", "#", "$share/g/x"][usize::from(b) % 5].to_owned();
        let packet_id = PacketId::new(b % 20 + 1).expect("not zero");
        match (kind, owner) {
            (0, _) => {
                let id = self.next();
                self.sessions.push(id);
                vec![session(id)]
            }
            (1, Some(id)) => {
                let record = StoredSession {
                    client_id: format!("client-{id}"),
                    user_name: Some("user".to_owned()),
                    acl: b,
                    expiry_secs: b.into(),
                    disconnected_at: Some(a.into()),
                };
                vec![StoreOp::PutSession(SessionId(id), Box::new(record))]
            }
            (2, Some(id)) if a % 3 == 0 => {
                self.sessions.retain(|other| *other != id);
                self.entries.retain(|(other, _)| *other != id);
                vec![StoreOp::DeleteSession(SessionId(id))]
            }
            (3, _) => {
                let id = self.next();
                self.groups.push(id);
                vec![StoreOp::PutGroup(SessionId(id), filter())]
            }
            (4, _) => {
                let Some(id) = pick(&self.groups, a) else { return vec![] };
                self.groups.retain(|other| *other != id);
                self.entries.retain(|(other, _)| *other != id);
                vec![StoreOp::DeleteGroup(SessionId(id))]
            }
            (5, Some(id)) => {
                let options = SubscriptionOptions::from(QoS::from_u8(a as u8 % 3).unwrap_or_default());
                let sub_id = (a % 2 == 0).then_some(b.into());
                vec![StoreOp::PutSubscription {
                    session: SessionId(id),
                    filter: filter(),
                    options,
                    id: sub_id,
                }]
            }
            (6, Some(id)) => {
                vec![StoreOp::DeleteSubscription { session: SessionId(id), filter: filter() }]
            }
            (7, Some(id)) => {
                let (after, until) = (MessageId(a.into()), vec![MessageId(self.last)]);
                let replay = Box::new(StoredReplay { after, until, except: Vec::new() });
                vec![StoreOp::PutReplay { session: SessionId(id), filter: filter(), replay }]
            }
            (8, Some(id)) => vec![StoreOp::DeleteReplay { session: SessionId(id), filter: filter() }],
            (9..=11, _) => self.publish(a, b),
            (12 | 13, _) => {
                let Some((id, entry)) = pick(&self.entries, a) else { return vec![] };
                self.entries.retain(|other| *other != (id, entry));
                vec![StoreOp::RemoveEntry(SessionId(id), EntryId(entry))]
            }
            (14, _) => {
                let Some(id) = pick(&self.messages, a) else { return vec![] };
                self.messages.retain(|other| *other != id);
                vec![StoreOp::DeleteMessage(MessageId(id))]
            }
            (15, _) => {
                let Some((id, entry)) = pick(&self.entries, a) else { return vec![] };
                let stage = if b % 2 == 0 { StoredStage::Published } else { StoredStage::Released };
                let (session, entry) = (SessionId(id), EntryId(entry));
                vec![StoreOp::PutExchange { session, entry, packet_id, number: a.into(), stage }]
            }
            (16, Some(id)) => vec![StoreOp::PutReceived(SessionId(id), packet_id)],
            (17, Some(id)) => vec![StoreOp::DeleteReceived(SessionId(id), packet_id)],
            (18, _) if a % 2 == 0 => vec![StoreOp::DeleteRetained(filter())],
            (18, _) => vec![StoreOp::PutRetained(filter(), MessageId(a.into()))],
            (19, Some(id)) if b % 2 == 0 => vec![StoreOp::DeleteWill(SessionId(id))],
            (19, Some(id)) => {
                let will = StoredWill {
                    message: body("will", &b.to_be_bytes()),
                    delay_secs: b.into(),
                    author: StoredAuthor { acl: a, client_id: format!("client-{id}"), user_name: None },
                };
                vec![StoreOp::PutWill(SessionId(id), Box::new(will))]
            }
            (20, _) if a % 2 == 0 => {
                let (sessions, messages) = (self.last + u64::from(a), u64::from(b));
                vec![StoreOp::PutLimits(
                    ShardId(b % 3),
                    StoredLimits { sessions, messages, entries: messages },
                )]
            }
            (20, _) => {
                let time = Timestamp::from_micros(b.into());
                vec![StoreOp::PutClock(StoredClock { time, unix_ms: a.into() })]
            }
            (21, Some(id)) => vec![StoreOp::PutPacketId(SessionId(id), packet_id)],
            (22, _) => {
                let purpose = match b % 4 {
                    0 => HandOver::Group(filter()),
                    1 => HandOver::Back(filter()),
                    n => HandOver::Publish { deliver: n == 2, retain: n == 3 },
                };
                let (from, to, number) = (ShardId(a % 3), ShardId(b % 3), (a % 5).into());
                let message = MessageId(a.into());
                vec![StoreOp::PutHandOver(Box::new(StoredHandOver { from, to, number, message, purpose }))]
            }
            (23, _) => {
                let (from, to, number) = (ShardId(a % 3), ShardId(b % 3), (a % 5).into());
                vec![StoreOp::DeleteHandOver { from, to, number }]
            }
            (24, _) => {
                let (by, from) = (ShardId(a % 3), ShardId(b % 3));
                vec![match a % 2 {
                    0 => StoreOp::PutTaken { by, from, number: a.into() },
                    _ => StoreOp::DeleteTaken { by, from },
                }]
            }
            (25, _) => vec![StoreOp::PutShards(StoredShards { count: a, key: [b as u8; 16] })],
            _ => vec![],
        }
    }

    /// A message to some queues, by numbers that never come again.
    fn publish(&mut self, a: u16, b: u16) -> Vec<StoreOp> {
        let message = self.next();
        self.messages.push(message);
        let payload = vec![b as u8; usize::from(b) % 3000];
        let mut ops = vec![StoreOp::PutMessage(MessageId(message), Box::new(body("a/b", &payload)))];
        let queues: Vec<u64> = self.sessions.iter().chain(&self.groups).copied().collect();
        let mut deliveries = Vec::new();
        for session in queues.into_iter().skip(usize::from(a) % 4).take(usize::from(b) % 4) {
            let entry = self.next();
            self.entries.push((session, entry));
            deliveries.push(StoredDelivery {
                session: SessionId(session),
                entry: EntryId(entry),
                qos: QoS::AtLeastOnce,
                retain: a.is_multiple_of(2),
                subscription_ids: (0..u32::from(b % 3)).collect(),
            });
        }
        if !deliveries.is_empty() {
            ops.push(StoreOp::Append(MessageId(message), deliveries));
        }
        ops
    }
}
