//! Retained messages for a subscription of a stored session, from several shards and over a crash: each comes once, what
//! came live does not come again, and nothing is left out.

mod cluster;

use cluster::Cluster;
use mqtt_proto::{ConnectRef, PacketRef, QoS, Version};
use mqtt_session::broker::{BrokerConfig, Closed};
use mqtt_session::store::{MessageId, StoredReplay};
use mqtt_session::{Durability, ShardMessage, StoreOp};
use mqtt_testkit::packets::{filter, puback, pubcomp, pubrec, pubrel, retained, subscribe};
use std::collections::BTreeSet;

fn cluster(shards: u16) -> Cluster {
    cluster_with(shards, |config| config.max_inflight = 2)
}

fn cluster_with(shards: u16, set: impl Fn(&mut BrokerConfig)) -> Cluster {
    let mut c = Cluster::new(shards, |config| {
        config.durability = Durability::Synced;
        set(config);
    });
    c.settle();
    c
}

/// A client that keeps its session: what its application got, and what it needs to tell a repetition.
struct Peer {
    name: String,
    link: usize,
    unreleased: BTreeSet<u16>,
    seen: Vec<String>,
    inbox: Vec<String>,
}

impl Peer {
    fn connect(c: &mut Cluster, name: &str) -> Self {
        let unreleased = BTreeSet::new();
        let mut peer = Self { name: name.into(), link: 0, unreleased, seen: Vec::new(), inbox: Vec::new() };
        peer.come_back(c);
        peer
    }

    fn come_back(&mut self, c: &mut Cluster) {
        let home = usize::from(c.shards[0].home_of(&self.name).0);
        let connect = ConnectRef {
            version: Version::V311,
            client_id: &self.name,
            clean_start: false,
            ..Default::default()
        };
        self.link = c.open_at(home, Version::V311);
        self.inbox.clear();
        c.send(self.link, &PacketRef::Connect(connect));
        c.settle();
        self.inbox = c.got(self.link);
        assert!(self.inbox.remove(0).starts_with("CONNACK"), "{}", self.name);
    }

    fn subscribe(&mut self, c: &mut Cluster, text: &str, qos: QoS) {
        c.send(self.link, &subscribe(1, &filter(text, qos)));
    }

    fn go(&mut self, c: &mut Cluster) {
        let (shard, conn) = (c.links[self.link].shard, c.links[self.link].conn);
        c.shards[shard].handle_close(c.now, conn, Closed::Eof);
        c.settle();
    }

    /// Takes the next packet. False if there is none.
    fn take_one(&mut self, c: &mut Cluster) -> bool {
        self.inbox.extend(c.got(self.link));
        if self.inbox.is_empty() {
            return false;
        }
        let line = self.inbox.remove(0);
        let id = line.split('#').nth(1).and_then(|rest| rest.split(' ').next()).map(|id| id.parse().unwrap());
        match (line.split(' ').next().unwrap(), id) {
            ("PUBLISH", Some(id)) if line.contains(" q2 ") => {
                if self.unreleased.insert(id) {
                    self.seen.push(payload(&line));
                }
                c.send(self.link, &pubrec(id));
            }
            ("PUBLISH", Some(id)) => {
                self.seen.push(payload(&line));
                c.send(self.link, &puback(id));
            }
            ("PUBREL", Some(id)) => {
                self.unreleased.remove(&id);
                c.send(self.link, &pubcomp(id));
            }
            ("PUBLISH", None) => self.seen.push(payload(&line)),
            ("PUBREC", Some(id)) => c.send(self.link, &pubrel(id)),
            _ => {}
        }
        true
    }

    /// Takes everything.
    fn take_all(&mut self, c: &mut Cluster) {
        c.settle();
        while self.take_one(c) {
            c.settle();
        }
    }

    fn publish(&mut self, c: &mut Cluster, topic: &str, qos: u8, text: &str) {
        c.send(self.link, &retained(topic, qos, u16::from(qos > 0), text));
    }

    fn sorted(&self) -> Vec<&str> {
        let mut seen: Vec<_> = self.seen.iter().map(|text| &**text).collect();
        seen.sort_unstable();
        seen
    }
}

fn payload(line: &str) -> String {
    line.split('"').nth(1).unwrap().to_owned()
}

/// So many topics, retained one after the other; the payload of each is its name.
fn retain(c: &mut Cluster, names: impl IntoIterator<Item = String>) {
    let mut publisher = Peer::connect(c, "publisher");
    for name in names {
        publisher.publish(c, &name, 2, &name);
        publisher.take_all(c);
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("t/{n:03}")).collect()
}

/// The replays that are stored.
fn replays(c: &Cluster) -> Vec<StoredReplay> {
    let replay = |op| match op {
        StoreOp::PutReplay { replay, .. } => Some(*replay),
        _ => None,
    };
    c.contents.records().filter_map(replay).collect()
}

fn assert_done(c: &Cluster) {
    let is_left = |op: &StoreOp| matches!(op, StoreOp::PutReplay { .. } | StoreOp::Append(..));
    assert_eq!(c.contents.records().filter(is_left).collect::<Vec<_>>(), []);
}

/// Wherever the crash falls, and with as many shards as there are then: of QoS 2 each comes once, of QoS 1 those that were
/// acknowledged do not come again.
#[test]
fn a_replay_from_several_shards_goes_on_after_a_crash() {
    let names = names(12);
    for (shards, then) in [(2, 2), (4, 4), (4, 3), (3, 2), (2, 4), (4, 1), (1, 4)] {
        let mut before = cluster(shards);
        retain(&mut before, names.clone());
        let kept = before.contents;
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for steps in (0..50).step_by(1 + usize::from(then != 2)) {
                let what = format!("{shards} to {then} shards, {qos:?}, {steps} steps");
                let mut c = cluster(shards);
                c.contents = kept.clone();
                c.restart(shards);
                let mut s = Peer::connect(&mut c, "s");
                s.subscribe(&mut c, "t/+", qos);
                c.settle();
                for step in 0..steps {
                    match step % 3 {
                        0 => drop(s.take_one(&mut c)),
                        1 => drop(c.store_one()),
                        _ => {
                            if let Some(&(from, to)) = c.mail.keys().next() {
                                c.pass(from, to);
                            }
                        }
                    }
                }
                if qos == QoS::AtLeastOnce {
                    // Also that they were acknowledged.
                    c.store_all();
                }
                c.restart(then);
                s.come_back(&mut c);
                s.take_all(&mut c);
                if qos == QoS::ExactlyOnce {
                    assert_eq!(s.sorted(), names, "{what}");
                } else {
                    let again = s.seen.len() - names.len();
                    assert_eq!(s.sorted().into_iter().collect::<BTreeSet<_>>().len(), names.len(), "{what}");
                    assert!(again <= 2, "{what}: {again} come again");
                }
                assert_done(&c);
            }
        }
    }
}

/// Pages of several shards are merged by the numbers of the messages, and a shard is not asked for what was sent.
#[test]
fn pages_are_merged_by_number() {
    let names = names(400);
    for (shards, then) in [(2, 2), (4, 3)] {
        let mut c = cluster_with(shards, |config| config.max_inflight = 20);
        retain(&mut c, names.clone());
        let mut s = Peer::connect(&mut c, "s");
        s.subscribe(&mut c, "t/+", QoS::ExactlyOnce);
        for _ in 0..5 {
            // Some pages have come, of some shards.
            c.settle();
            for _ in 0..90 {
                s.take_one(&mut c);
                c.settle();
            }
            let left = replays(&c);
            let after = left.iter().map(|left| left.after).max().unwrap_or_default();
            c.restart(if left.is_empty() { shards } else { then });
            let mut told = 0;
            s.come_back(&mut c);
            for letters in c.mail.values() {
                for letter in letters {
                    if let cluster::Letter::Said(ShardMessage::RetainedPage { messages, .. }) = letter {
                        told += messages.len();
                        assert!(messages.iter().all(|(number, _)| *number > after));
                    }
                }
            }
            assert!(told <= 64 * usize::from(then));
        }
        s.take_all(&mut c);
        assert_eq!(s.sorted(), names);
        assert_done(&c);
    }
}

/// With one number for all shards, progress is right only if messages are sent in their order: however late the answers
/// of one shard are.
#[test]
fn messages_are_sent_in_the_order_of_their_numbers() {
    for late in [(1, 0), (2, 0)] {
        let mut c = cluster_with(3, |_| {});
        // Several pages of each shard.
        retain(&mut c, names(900));
        let number = |c: &Cluster, topic: &str| {
            let id = |op| match op {
                StoreOp::PutRetained(name, id) if name == topic => Some(id),
                _ => None,
            };
            c.contents.records().find_map(id).unwrap()
        };
        let name = c.name_on(0, "s");
        let mut s = Peer::connect(&mut c, &name);
        s.subscribe(&mut c, "t/+", QoS::AtMostOnce);
        loop {
            // What the late one says comes when everybody has nothing else to do.
            c.store_all();
            match c.mail.keys().copied().find(|way| *way != late) {
                Some((from, to)) => drop(c.pass(from, to)),
                None if s.take_one(&mut c) || c.pass(late.0, late.1) => {}
                None => break,
            }
        }
        let numbers: Vec<_> = s.seen.iter().map(|topic| number(&c, topic)).collect();
        assert_eq!(numbers.len(), 900);
        assert!(numbers.is_sorted(), "{late:?} is late: {numbers:?}");
    }
}

/// What is retained after the subscription comes live, and not once more after a crash: also if the subscriber was away all
/// the time, and with another number of shards.
#[test]
fn what_came_live_is_not_replayed_after_a_crash() {
    for (shards, then, is_away) in [(2, 2, false), (4, 4, false), (4, 2, false), (2, 1, true), (3, 4, true)] {
        let mut c = cluster(shards);
        retain(&mut c, names(8));
        let mut s = Peer::connect(&mut c, "s");
        s.subscribe(&mut c, "#", QoS::ExactlyOnce);
        c.settle();
        if is_away {
            s.go(&mut c);
        } else {
            for _ in 0..6 {
                s.take_one(&mut c);
                c.settle();
            }
        }
        let live: Vec<_> = (0..6).map(|n| format!("live/{n}")).collect();
        retain(&mut c, live.clone());
        assert_eq!(replays(&c).len(), 1, "it is not done");
        c.restart(then);
        s.come_back(&mut c);
        let after: Vec<_> = (0..6).map(|n| format!("mmm/{n}")).collect();
        retain(&mut c, after.clone());
        for _ in 0..3 {
            s.take_one(&mut c);
            c.settle();
        }
        c.restart(shards);
        s.come_back(&mut c);
        s.take_all(&mut c);
        let all: Vec<String> = live.into_iter().chain(after).chain(names(8)).collect();
        assert_eq!(s.sorted(), all, "{shards} to {then} shards");
        assert_done(&c);
    }
}

/// A message that comes live may have a lower number than one that comes with the replay: it is remembered.
#[test]
fn what_came_live_before_others_is_remembered() {
    let mut c = cluster(3);
    let homes = [c.name_on(0, "s"), c.name_on(1, "p"), c.name_on(2, "p")];
    let [mut s, mut near, mut far] = homes.map(|name| Peer::connect(&mut c, &name));
    let (early, late) = (c.name_on(1, "early/"), c.name_on(1, "late/"));
    let rest: Vec<_> = (0..6).map(|n| format!("rest/{n}")).collect();
    retain(&mut c, rest.clone());
    // On its way to the shard where it is retained, when all hear of the subscription.
    far.publish(&mut c, &late, 1, "marked");
    c.store_all();
    s.subscribe(&mut c, "#", QoS::ExactlyOnce);
    c.store_all();
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
        c.pass(from, to);
    }
    // That shard gets one of its own before.
    near.publish(&mut c, &early, 2, "live");
    near.take_all(&mut c);
    c.settle();
    let [left] = &replays(&c)[..] else { panic!("it is not done") };
    assert_eq!(left.except.len(), 1, "{left:?}");
    assert!(left.except[0] > MessageId(0) && left.until.len() == 4);
    c.restart(2);
    s.come_back(&mut c);
    s.take_all(&mut c);
    let mut all: Vec<&str> = rest.iter().map(|text| &**text).chain(["marked", "live"]).collect();
    all.sort_unstable();
    assert_eq!(s.sorted(), all);
    assert_done(&c);
}

/// As long as not all shards have told what came live, a crash leads to a complete replay. The restart settles it.
#[test]
fn nothing_is_lost_before_the_shards_have_answered() {
    for letters in 0..8 {
        let mut c = cluster(4);
        retain(&mut c, names(8));
        let mut s = Peer::connect(&mut c, "s");
        s.subscribe(&mut c, "t/#", QoS::ExactlyOnce);
        c.store_all();
        for _ in 0..letters {
            if let Some(&(from, to)) = c.mail.keys().next() {
                c.pass(from, to);
            }
        }
        c.restart(3);
        c.store_all();
        assert!(replays(&c).iter().all(StoredReplay::is_settled));
        retain(&mut c, ["t/live".to_owned()]);
        c.restart(4);
        s.come_back(&mut c);
        s.take_all(&mut c);
        let mut all = names(8);
        all.push("t/live".into());
        assert_eq!(s.sorted(), all);
        assert_done(&c);
    }
}

/// An answer is remembered over a crash, so it waits until what it says is stored: else a message that is handed over to
/// that shard again would be one that came live.
#[test]
fn an_answer_waits_for_the_store() {
    let mut c = cluster(2);
    let (publisher, name, topic) = (c.name_on(0, "p"), c.name_on(0, "s"), c.name_on(1, "t/"));
    // A page could begin with this one.
    let before = c.name_on(1, "t/before");
    retain(&mut c, [before.clone()]);
    let mut publisher = Peer::connect(&mut c, &publisher);
    let mut s = Peer::connect(&mut c, &name);
    publisher.publish(&mut c, &topic, 2, "handed over");
    c.store_all();
    c.pass(0, 1);
    // Taken over, and not stored.
    let unstored: Vec<_> = c.unstored.drain(..).collect();
    assert!(!unstored.is_empty() && unstored.iter().all(|(shard, ..)| *shard == 1));
    s.subscribe(&mut c, "t/#", QoS::ExactlyOnce);
    for _ in 0..4 {
        c.pass_all();
        c.store_all();
    }
    assert_eq!(replays(&c), [StoredReplay::default()], "the other shard has not answered");
    c.restart(2);
    s.come_back(&mut c);
    s.take_all(&mut c);
    assert_eq!(s.sorted(), ["handed over", &before]);
}

/// A shard that has given no number since a restart tells the last that it might have. With fewer shards these are given
/// after the next one, and what has them comes live.
#[test]
fn a_replay_does_not_count_numbers_that_are_given_later() {
    for then in [1, 2, 4] {
        let mut c = cluster(4);
        retain(&mut c, names(4));
        c.restart(4);
        c.settle();
        let mut s = Peer::connect(&mut c, "s");
        s.subscribe(&mut c, "#", QoS::ExactlyOnce);
        s.go(&mut c);
        assert!(replays(&c)[0].is_settled(), "the shards have answered");
        c.restart(then);
        let live: Vec<_> = (0..6).map(|n| format!("live/{n}")).collect();
        retain(&mut c, live.clone());
        c.restart(then);
        s.come_back(&mut c);
        s.take_all(&mut c);
        let all: Vec<String> = live.into_iter().chain(names(4)).collect();
        assert_eq!(s.sorted(), all, "{then} shards");
        assert_done(&c);
    }
}

/// What is replaced or removed while a replay is under way does not come after a crash; what replaces it came live.
#[test]
fn what_is_replaced_or_removed_meanwhile_does_not_come() {
    for then in [1, 2, 4] {
        let mut c = cluster(4);
        let all = names(10);
        retain(&mut c, all.clone());
        let mut s = Peer::connect(&mut c, "s");
        s.subscribe(&mut c, "t/+", QoS::ExactlyOnce);
        s.take_one(&mut c);
        c.settle();
        let mut publisher = Peer::connect(&mut c, "publisher");
        publisher.publish(&mut c, &all[8], 2, "new");
        publisher.take_all(&mut c);
        publisher.publish(&mut c, &all[9], 2, "");
        publisher.take_all(&mut c);
        c.restart(then);
        s.come_back(&mut c);
        s.take_all(&mut c);
        let mut expected: Vec<&str> = all[..8].iter().map(|text| &**text).collect();
        // What removes is delivered as well.
        expected.extend(["", "new"]);
        expected.sort_unstable();
        assert_eq!(s.sorted(), expected, "{then} shards");
        assert_done(&c);
    }
}

/// What is retained keeps its number when sessions on other shards wait for the same message: it tells whether a
/// subscription has got it.
#[test]
fn what_is_retained_keeps_its_number_with_other_shards() {
    for (shards, then) in [(1, 2), (1, 4), (2, 3), (2, 4), (4, 3)] {
        let mut c = cluster(shards);
        let mut away: Vec<_> = (0..4).map(|n| Peer::connect(&mut c, &format!("away{n}"))).collect();
        for peer in &mut away {
            peer.subscribe(&mut c, "t/+", QoS::ExactlyOnce);
            c.settle();
        }
        retain(&mut c, names(12));
        let mut s = Peer::connect(&mut c, "s");
        s.subscribe(&mut c, "t/+", QoS::ExactlyOnce);
        for _ in 0..9 {
            c.settle();
            s.take_one(&mut c);
        }
        c.settle();
        c.restart(then);
        s.come_back(&mut c);
        s.take_all(&mut c);
        assert_eq!(s.sorted(), names(12), "{shards} to {then} shards");
        for peer in &mut away {
            peer.come_back(&mut c);
            peer.take_all(&mut c);
            assert_eq!(peer.sorted(), names(12), "{}", peer.name);
        }
        assert_done(&c);
        // What sessions got is deleted by now, and no shard has deleted what another retains.
        c.settle();
        c.restart(then);
        let mut late = Peer::connect(&mut c, "late");
        late.subscribe(&mut c, "t/+", QoS::ExactlyOnce);
        late.take_all(&mut c);
        assert_eq!(late.sorted(), names(12), "it is all still retained");
    }
}

/// All shards have answered, but a message that was retained before is on another shard, on its way into the store: a
/// subscription waits for it, and gets it once, as one that was retained.
#[test]
fn a_subscription_waits_for_what_another_shard_stores_first() {
    for shards in [2, 3] {
        let mut c = cluster(shards);
        let (publisher, topic) = (c.name_on(1, "p"), c.name_on(0, "t/"));
        let mut publisher = Peer::connect(&mut c, &publisher);
        let link = c.client(0, "s");
        publisher.publish(&mut c, &topic, 2, "before");
        c.pass_all();
        let on_its_way = c.unstored.len();
        assert!(on_its_way > 0 && c.unstored.iter().all(|(shard, ..)| *shard == 1));
        c.send(link, &subscribe(1, &filter("t/+", QoS::AtLeastOnce)));
        c.pass_all();
        let got = c.got(link);
        assert!(got.len() == 1 && got[0].starts_with("SUBACK"), "{got:?}");
        assert_eq!(c.unstored.len(), on_its_way, "nothing of the subscription is stored");
        c.settle();
        assert_eq!(c.got(link), [format!("PUBLISH {topic} q1 #1 retain \"before\"")]);
    }
}
