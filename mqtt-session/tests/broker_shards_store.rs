//! Several shards of one broker with a store: nothing is acknowledged before it is safe on every shard, nothing comes
//! twice over a crash, and the number of shards may change.

mod cluster;

use cluster::Cluster;
use mqtt_proto::{ConnectRef, PacketRef, Properties, PropertiesBuf, Property, QoS, Version, WillRef};
use mqtt_session::broker::{BrokerConfig, Closed};
use mqtt_session::{Durability, ShardMessage, StoreGroup, StoreOp};
use mqtt_testkit::packets::{
    filter, puback, pubcomp, publish, pubrec, pubrel, retained, subscribe, unsubscribe,
};

fn stored(config: &mut BrokerConfig) {
    config.durability = Durability::Synced;
}

fn cluster(shards: u16) -> Cluster {
    let mut c = Cluster::new(shards, stored);
    c.settle();
    c
}

/// A session that stays, by CONNECT of 3.1.1.
fn connect(c: &mut Cluster, name: &str) -> usize {
    let home = usize::from(c.shards[0].home_of(name).0);
    let link = c.connect_at(home, Version::V311, name, false);
    c.settle();
    assert!(c.got(link)[0].starts_with("CONNACK"), "{name}");
    link
}

fn connect_on(c: &mut Cluster, shard: u16, like: &str) -> (usize, String) {
    let name = c.name_on(shard, like);
    (connect(c, &name), name)
}

fn subscribed(c: &mut Cluster, link: usize, text: &str, qos: QoS) {
    let filters = filter(text, qos);
    c.send(link, &subscribe(1, &filters));
    c.settle();
    assert!(c.got(link)[0].starts_with("SUBACK"));
}

/// The payloads of what came.
fn payloads(got: &[String]) -> Vec<&str> {
    got.iter().filter(|line| line.starts_with("PUBLISH")).filter_map(|line| line.split('"').nth(1)).collect()
}

fn is_acknowledged(c: &mut Cluster, link: usize) -> bool {
    c.got(link).iter().any(|line| line.starts_with("PUBACK") || line.starts_with("PUBREC"))
}

/// PUBACK waits for the shard of the publisher and for that of the subscriber: only then is the message on the disk for
/// both.
#[test]
fn puback_waits_for_every_shard() {
    let mut c = cluster(2);
    let (publisher, _) = connect_on(&mut c, 0, "p");
    let (sub, name) = connect_on(&mut c, 1, "s");
    subscribed(&mut c, sub, "t", QoS::AtLeastOnce);
    c.send(publisher, &publish("t", 1, 7, "m"));
    c.store_all();
    assert!(!is_acknowledged(&mut c, publisher), "the other shard has not got it");
    c.pass(0, 1);
    c.pass(1, 0);
    assert!(!is_acknowledged(&mut c, publisher), "it is not stored there");
    c.store_all();
    assert!(!is_acknowledged(&mut c, publisher), "that it is safe has not come back");
    c.pass(1, 0);
    assert!(is_acknowledged(&mut c, publisher));
    c.restart(2);
    let sub = connect_for_messages(&mut c, &name);
    assert_eq!(payloads(&c.got(sub)), ["m"], "it is there after a crash");
}

/// So does SUBACK for the shard of the subscriber: what it promises survives a crash.
#[test]
fn suback_waits_for_the_store_and_for_every_shard() {
    let mut c = cluster(2);
    let (sub, name) = connect_on(&mut c, 1, "s");
    let filters = filter("t", QoS::AtLeastOnce);
    c.send(sub, &subscribe(1, &filters));
    c.pass_all();
    assert_eq!(c.got(sub), [""; 0], "it is not stored");
    c.store_all();
    assert_eq!(c.got(sub), ["SUBACK #1 01"]);
    c.send(sub, &subscribe(2, &filters));
    c.store_all();
    assert_eq!(c.got(sub), [""; 0], "the other shard has not heard of it");
    c.pass_all();
    assert_eq!(c.got(sub), ["SUBACK #2 01"]);
    c.restart(2);
    let sub = connect_for_messages(&mut c, &name);
    let (publisher, _) = connect_on(&mut c, 0, "p");
    c.send(publisher, &publish("t", 1, 7, "m"));
    c.settle();
    assert_eq!(payloads(&c.got(sub)), ["m"]);
}

/// Messages that cross together are told to be safe together, each of them.
#[test]
fn all_that_crossed_together_is_acknowledged() {
    let mut c = cluster(2);
    let (publisher, _) = connect_on(&mut c, 0, "p");
    let name = c.name_on(1, "s");
    let sub = c.connect_at(1, Version::V311, &name, true);
    c.settle();
    c.got(sub);
    subscribed(&mut c, sub, "t", QoS::AtLeastOnce);
    let mut bytes = Vec::new();
    for n in 1..=3 {
        publish("t", 1, n, "m").encode(Version::V311, &mut bytes).unwrap();
    }
    c.read(publisher, &bytes);
    c.obey();
    assert_eq!(c.mail[&(0, 1)].len(), 1, "together");
    c.settle();
    assert_eq!(c.got(publisher), ["PUBACK #1", "PUBACK #2", "PUBACK #3"]);
    assert_eq!(payloads(&c.got(sub)).len(), 3);
}

/// Acknowledgements leave in the order of the publishes, whichever shard each waits for.
#[test]
fn acknowledgements_keep_their_order() {
    let mut c = cluster(3);
    let (publisher, _) = connect_on(&mut c, 0, "p");
    let (far, _) = connect_on(&mut c, 1, "far");
    let (farther, _) = connect_on(&mut c, 2, "farther");
    subscribed(&mut c, far, "far", QoS::AtLeastOnce);
    subscribed(&mut c, farther, "farther", QoS::AtLeastOnce);
    c.send(publisher, &publish("far", 1, 1, ""));
    c.send(publisher, &publish("farther", 1, 2, ""));
    c.send(publisher, &publish("nowhere", 1, 3, ""));
    c.pass(0, 2);
    c.store_all();
    c.pass(2, 0);
    assert_eq!(c.got(publisher), [""; 0], "the first is not safe");
    c.settle();
    let got = c.got(publisher);
    let order: Vec<_> = got.iter().filter_map(|line| line.strip_prefix("PUBACK ")).collect();
    assert_eq!(order, ["#1", "#2", "#3"]);
}

/// A QoS 2 message that is acknowledged comes exactly once, wherever the crash falls: before it is sent, on its way,
/// taken over and not told, told and not noted.
#[test]
fn qos_2_comes_once_wherever_the_crash_falls() {
    for steps in 0..12 {
        let mut c = cluster(2);
        let (publisher, _) = connect_on(&mut c, 0, "p");
        let (sub, name) = connect_on(&mut c, 1, "s");
        subscribed(&mut c, sub, "t", QoS::ExactlyOnce);
        c.shards[1].handle_close(c.now, c.links[sub].conn, Closed::Eof);
        c.obey();
        c.settle();
        c.send(publisher, &publish("t", 2, 7, "m"));
        assert!(c.mail.is_empty(), "nobody hears of it before it is stored");
        c.store_one();
        assert!(is_acknowledged(&mut c, publisher), "its own shard is enough");
        for step in 0..steps {
            if step % 2 == 0 {
                c.pass_all();
            } else {
                c.store_one();
            }
        }
        c.restart(2);
        c.settle();
        let sub = c.connect_at(1, Version::V311, &name, false);
        c.settle();
        let got = c.got(sub);
        assert_eq!(payloads(&got), ["m"], "after {steps} steps: {got:?}");
        let id = got.iter().find_map(|line| line.split('#').nth(1)?.split(' ').next()?.parse().ok()).unwrap();
        c.send(sub, &pubrec(id));
        c.settle();
        c.send(sub, &pubcomp(id));
        c.settle();
        let left = c.contents.records().filter(|record| {
            matches!(record, StoreOp::PutHandOver(_) | StoreOp::PutMessage(..) | StoreOp::Append(..))
        });
        assert_eq!(left.count(), 0, "nothing is left in the store after {steps} steps");
    }
}

/// On the subscriber's shard, too, nobody sees a QoS 2 message before it is stored, and what the publisher sends next
/// stays behind it.
#[test]
fn what_comes_behind_waits_as_well() {
    let mut c = cluster(2);
    let (publisher, _) = connect_on(&mut c, 0, "p");
    let (sub, _) = connect_on(&mut c, 1, "s");
    subscribed(&mut c, sub, "t", QoS::AtMostOnce);
    c.send(publisher, &publish("t", 2, 1, "first"));
    c.send(publisher, &publish("t", 0, 0, "second"));
    assert!(c.mail.is_empty());
    c.store_all();
    c.pass(0, 1);
    assert_eq!(c.got(sub), [""; 0], "the first is not stored here");
    c.settle();
    assert_eq!(payloads(&c.got(sub)), ["first", "second"]);
}

/// Sessions, what waits for them and what is retained find their new shards; a message that several have is theirs
/// each.
#[test]
fn the_number_of_shards_may_change() {
    let mut c = cluster(3);
    let names: Vec<String> = (0..9).map(|n| c.name_on(n % 3, &format!("s{n}-"))).collect();
    for name in &names {
        let link = connect(&mut c, name);
        subscribed(&mut c, link, "t/+", QoS::ExactlyOnce);
        let shard = c.links[link].shard;
        c.shards[shard].handle_close(c.now, c.links[link].conn, Closed::Eof);
        c.obey();
    }
    let (publisher, publisher_name) = connect_on(&mut c, 1, "p");
    for n in 1..=6 {
        let packet = retained("t/x", if n % 2 == 0 { 2 } else { 1 }, n, "m");
        let PacketRef::Publish(packet) = packet else { unreachable!() };
        let (topic, payload) = (format!("t/{n}"), n.to_string());
        c.send(
            publisher,
            &PacketRef::Publish(mqtt_proto::PublishRef {
                topic: &topic,
                payload: payload.as_bytes(),
                ..packet
            }),
        );
    }
    c.settle();
    for n in [2, 4, 6] {
        c.send(publisher, &pubrel(n));
    }
    c.settle();
    // One more is on its way when the number changes.
    c.send(publisher, &publish("t/7", 2, 7, "7"));
    c.store_one();
    for (at, shards) in [2, 1, 4, 3].into_iter().enumerate() {
        let before = c.shards.len();
        let restored = c.restart(shards);
        assert_eq!(restored.shards_before.map(usize::from), Some(before));
        assert_eq!((restored.sessions, restored.retained, restored.dropped), (names.len() + 1, 6, 0));
        assert_eq!(restored.handed_over > 0, at == 0);
        c.settle();
    }
    for name in &names {
        let link = connect_for_messages(&mut c, name);
        let got = c.got(link);
        let mut payloads = payloads(&got);
        payloads.sort_unstable();
        assert_eq!(payloads, ["1", "2", "3", "4", "5", "6", "7"], "{name}");
        for line in got.iter().filter(|line| line.starts_with("PUBLISH")) {
            let id = line.split('#').nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
            if line.contains(" q1 ") {
                c.send(link, &puback(id));
            } else {
                c.send(link, &pubrec(id));
                c.settle();
                c.send(link, &pubcomp(id));
            }
        }
        c.settle();
    }
    let publisher = connect(&mut c, &publisher_name);
    c.send(publisher, &publish("t/7", 2, 7, "7"));
    c.settle();
    assert_eq!(c.stats().messages, 6, "the repetition is none, and only what is retained is left");
    let bodies = c.contents.records().filter(|record| matches!(record, StoreOp::PutMessage(..))).count();
    assert_eq!(bodies, 6);
}

fn connect_for_messages(c: &mut Cluster, name: &str) -> usize {
    let home = usize::from(c.shards[0].home_of(name).0);
    let link = c.connect_at(home, Version::V311, name, false);
    c.settle();
    link
}

/// A will that fired is with the subscribers on other shards, or fires again: it is never lost between.
#[test]
fn a_will_is_not_lost_between_shards() {
    for steps in 0..8 {
        let mut c = cluster(2);
        let (sub, name) = connect_on(&mut c, 1, "s");
        subscribed(&mut c, sub, "will", QoS::ExactlyOnce);
        c.shards[1].handle_close(c.now, c.links[sub].conn, Closed::Eof);
        let author = c.name_on(0, "p");
        let conn = c.connect_at(0, Version::V311, "x", true);
        c.links.pop();
        let _ = conn;
        let will = WillRef { topic: "will", payload: b"gone", qos: QoS::ExactlyOnce, ..WillRef::default() };
        let link = c.open_at(0, Version::V311);
        let packet = ConnectRef {
            version: Version::V311,
            client_id: &author,
            clean_start: true,
            will: Some(will),
            ..ConnectRef::default()
        };
        c.send(link, &PacketRef::Connect(packet));
        c.settle();
        c.shards[0].handle_close(c.now, c.links[link].conn, Closed::Error);
        c.obey();
        for step in 0..steps {
            if step % 2 == 0 {
                c.store_one();
            } else {
                c.pass_all();
            }
        }
        c.restart(2);
        for _ in 0..3 {
            for shard in 0..2 {
                let due = c.shards[shard].poll_timeout().unwrap_or(c.now).max(c.now);
                c.now = due.min(c.now + std::time::Duration::from_secs(1));
                let now = c.now;
                c.shards[shard].handle_timeout(now);
                c.obey();
            }
            c.settle();
        }
        let link = connect_for_messages(&mut c, &name);
        assert_eq!(payloads(&c.got(link)), ["gone"], "after {steps} steps");
    }
}

/// What a group hands to a member on another shard is in the store of one shard or the other at any time.
#[test]
fn a_groups_message_survives_on_its_way_to_a_member() {
    for steps in 0..14 {
        let mut c = cluster(3);
        let filter_text = "$share/g/t";
        let owner = c.shards[0].home_of(filter_text).0;
        let (away, other) = ((owner + 1) % 3, (owner + 2) % 3);
        let (first, _) = connect_on(&mut c, away, "a");
        let second = c.name_on(other, "b");
        subscribed(&mut c, first, filter_text, QoS::AtLeastOnce);
        let (publisher, _) = connect_on(&mut c, owner, "p");
        c.send(publisher, &publish("t", 1, 7, "m"));
        c.store_one();
        assert!(is_acknowledged(&mut c, publisher));
        for step in 0..steps {
            if step % 2 == 0 {
                c.pass_all();
            } else {
                c.store_one();
            }
        }
        c.restart(3);
        c.settle();
        // Another member comes; the first is away.
        let second = connect(&mut c, &second);
        let filters = filter(filter_text, QoS::AtLeastOnce);
        c.send(second, &subscribe(1, &filters));
        c.settle();
        assert_eq!(payloads(&c.got(second)), ["m"], "after {steps} steps");
        c.send(second, &puback(1));
        c.settle();
    }
}

/// A member leaves its group while a message is on its way to it, arrived on its shard and not stored there: somebody
/// else gets it.
#[test]
fn what_comes_to_a_member_that_left_goes_to_another() {
    let mut c = cluster(3);
    let filter_text = "$share/g/t";
    let owner = c.shards[0].home_of(filter_text).0;
    let away = (owner + 1) % 3;
    let (first, _) = connect_on(&mut c, away, "a");
    let (second, _) = connect_on(&mut c, (owner + 2) % 3, "b");
    subscribed(&mut c, first, filter_text, QoS::AtLeastOnce);
    let (publisher, _) = connect_on(&mut c, owner, "p");
    c.send(publisher, &publish("t", 1, 7, "m"));
    while c.unstored.front().is_some_and(|(shard, ..)| *shard != usize::from(away)) {
        c.store_one();
        c.pass_all();
    }
    assert!(!c.unstored.is_empty() && payloads(&c.got(first)).is_empty(), "it is there and not stored");
    let filters = filter(filter_text, QoS::AtLeastOnce);
    c.send(second, &subscribe(1, &filters));
    c.pass_all();
    unsubscribe(2, filter_text, |packet| c.send(first, packet));
    c.settle();
    assert_eq!(payloads(&c.got(first)), [""; 0]);
    assert_eq!(payloads(&c.got(second)), ["m"]);
    c.send(second, &puback(1));
    c.settle();
    let left = c.contents.records().filter(|record| matches!(record, StoreOp::Append(..))).count();
    assert_eq!(left, 0);
}

/// A retained message that waits for the store when somebody subscribes comes, with the answer or live.
#[test]
fn a_subscription_between_a_publish_and_its_commit_gets_it() {
    for (owner, publisher) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut c = cluster(2);
        let topic = c.name_on(owner, "t");
        let (publisher, _) = connect_on(&mut c, publisher, "p");
        let (sub, _) = connect_on(&mut c, 1, "s");
        c.send(publisher, &retained(&topic, 2, 7, "m"));
        let filters = filter(&topic, QoS::AtMostOnce);
        c.send(sub, &subscribe(1, &filters));
        c.pass_all();
        assert_eq!(payloads(&c.got(sub)), [""; 0], "it is not stored");
        c.settle();
        assert_eq!(payloads(&c.got(sub)), ["m"], "from {publisher} to {owner}");
    }
}

/// The lifetime of a message counts from when it came, also if what came before it had to be decided first.
#[test]
fn a_lifetime_counts_while_it_waits_to_be_read() {
    let mut c = Cluster::new(1, |config| config.ask.subscribe = true);
    let publisher = c.connect_at(0, Version::V5, "p", true);
    let name = "s";
    let sub = c.connect_at(0, Version::V5, name, true);
    let filters = filter("t", QoS::AtMostOnce);
    c.send(sub, &subscribe(1, &filters));
    c.answer_all();
    c.send(publisher, &subscribe(1, &filters));
    let properties = PropertiesBuf::new().with(Property::MessageExpiryInterval(5)).unwrap();
    let PacketRef::Publish(packet) = publish("t", 0, 0, "m") else { unreachable!() };
    let properties: Properties<'_> = properties.as_properties();
    c.send(publisher, &PacketRef::Publish(mqtt_proto::PublishRef { properties, ..packet }));
    assert!(c.links[publisher].paused, "it waits for the answer");
    c.got(sub);
    c.now = c.now + std::time::Duration::from_secs(3);
    c.answer_all();
    let got = c.got(sub);
    assert!(got.iter().any(|line| line.contains("MessageExpiryInterval(2)")), "{got:?}");
}

/// Messages that one shard takes over from another use up what a shard has on its way to its store: it does not ask
/// for more while that is full.
#[test]
fn credit_waits_for_the_store() {
    let mut c = Cluster::new(2, |config| {
        stored(config);
        config.max_unstored_bytes = 2_000;
        config.shard_credit.messages = 2;
    });
    c.settle();
    let (publisher, _) = connect_on(&mut c, 0, "p");
    let (sub, _) = connect_on(&mut c, 1, "s");
    subscribed(&mut c, sub, "t", QoS::AtLeastOnce);
    let payload = "x".repeat(1_500);
    c.send(publisher, &publish("t", 1, 1, &payload));
    c.send(publisher, &publish("t", 1, 2, &payload));
    c.pass(0, 1);
    let credit = |c: &Cluster| {
        let letters = c.mail.get(&(1, 0)).into_iter().flatten();
        letters.filter(|letter| matches!(letter, cluster::Letter::Said(ShardMessage::Credit(_)))).count()
    };
    let early = credit(&c);
    c.store_all();
    assert!(credit(&c) > early, "it asks for more when it has stored what it got");
}

/// What the only member of a group took along when it lost its connection goes to those who joined meanwhile, when its
/// session ends.
#[test]
fn a_member_that_ends_leaves_what_it_has_to_those_who_joined() {
    for shards in [1, 3] {
        let mut c = cluster(shards);
        let name = c.name_on(0, "a");
        let properties = PropertiesBuf::new().with(Property::SessionExpiryInterval(10)).unwrap();
        let link = c.open_at(0, Version::V5);
        let packet =
            ConnectRef { client_id: &name, properties: properties.as_properties(), ..ConnectRef::default() };
        c.send(link, &PacketRef::Connect(packet));
        c.settle();
        c.got(link);
        subscribed(&mut c, link, "$share/g/t", QoS::AtLeastOnce);
        let (publisher, _) = connect_on(&mut c, shards - 1, "p");
        c.send(publisher, &publish("t", 1, 7, "m"));
        c.settle();
        assert_eq!(payloads(&c.got(link)), ["m"]);
        c.shards[0].handle_close(c.now, c.links[link].conn, Closed::Eof);
        c.obey();
        c.settle();
        let (second, _) = connect_on(&mut c, shards - 1, "b");
        let filters = filter("$share/g/t", QoS::AtLeastOnce);
        c.send(second, &subscribe(1, &filters));
        c.settle();
        c.now = c.now + std::time::Duration::from_secs(11);
        for shard in 0..usize::from(shards) {
            let now = c.now;
            c.shards[shard].handle_timeout(now);
            c.obey();
        }
        c.settle();
        assert_eq!(payloads(&c.got(second)), ["m"], "with {shards} shards");
        c.send(second, &puback(1));
        c.settle();
        let left = c.contents.records().filter(|record| matches!(record, StoreOp::Append(..))).count();
        assert_eq!(left, 0);
    }
}

/// A group whose record a damaged store has lost gets one at the restart: what waits for it is stored.
#[test]
fn a_group_without_a_record_gets_one() {
    for shards in [1, 2] {
        let mut c = cluster(shards);
        let filter_text = "$share/g/t";
        let owner = c.shards[0].home_of(filter_text).0;
        let (member, name) = connect_on(&mut c, shards - 1 - owner, "m");
        subscribed(&mut c, member, filter_text, QoS::AtLeastOnce);
        let lost: Vec<StoreOp> = c
            .contents
            .records()
            .filter_map(|record| match record {
                StoreOp::PutGroup(id, _) => Some(StoreOp::DeleteGroup(id)),
                _ => None,
            })
            .collect();
        assert!(!lost.is_empty());
        c.contents.apply(&StoreGroup { ops: lost.into() });
        c.restart(shards);
        c.settle();
        // The member is away.
        let (publisher, _) = connect_on(&mut c, owner, "p");
        c.send(publisher, &publish("t", 1, 7, "m"));
        c.settle();
        assert!(is_acknowledged(&mut c, publisher));
        c.restart(shards);
        c.settle();
        let member = connect_for_messages(&mut c, &name);
        assert_eq!(payloads(&c.got(member)), ["m"], "{shards} shards");
    }
}

/// A member's shard asks the group's for no more than its members have room for, also while something is on its way to them
/// that has not been stored there.
#[test]
fn what_is_on_its_way_to_a_member_has_its_room() {
    let mut c = cluster(2);
    let filter_text = "$share/g/t";
    let owner = c.shards[0].home_of(filter_text).0;
    let (away, owner_at) = (1 - owner, usize::from(owner));
    let name = c.name_on(away, "m");
    let properties = PropertiesBuf::new()
        .with(Property::SessionExpiryInterval(1_000))
        .and_then(|list| list.with(Property::ReceiveMaximum(2)))
        .unwrap();
    let member = c.open_at(usize::from(away), Version::V5);
    let connect =
        ConnectRef { client_id: &name, properties: properties.as_properties(), ..ConnectRef::default() };
    c.send(member, &PacketRef::Connect(connect));
    c.settle();
    c.got(member);
    subscribed(&mut c, member, filter_text, QoS::AtLeastOnce);
    let (publisher, _) = connect_on(&mut c, owner, "p");
    for n in 1..=4 {
        c.send(publisher, &publish("t", 1, n, &n.to_string()));
    }
    // They are on the member's shard, and not stored there.
    while c.unstored.front().is_some_and(|(shard, ..)| *shard == owner_at) {
        c.store_one();
    }
    c.pass(owner_at, usize::from(away));
    assert!(!c.unstored.is_empty() && payloads(&c.got(member)).is_empty());
    c.mail.clear();
    // Something else has the member's shard look at its groups.
    c.send(member, &puback(9));
    c.shards[usize::from(away)].handle_timeout(c.now);
    c.obey();
    c.send(member, &subscribe(2, &filter("u", QoS::AtMostOnce)));
    let asked = |c: &Cluster| {
        let letters = c.mail.get(&(usize::from(away), owner_at)).into_iter().flatten();
        let asks = |letter: &&cluster::Letter| {
            matches!(letter, cluster::Letter::Said(ShardMessage::GroupSlots { .. }))
        };
        letters.filter(asks).count()
    };
    assert_eq!(asked(&c), 0);
}

/// A message that waits for a session and is retained was stored once by one shard. Of several, one has the session and
/// another what is retained, and what replaces that takes nothing from the session.
#[test]
fn what_is_replaced_on_one_shard_stays_for_a_session_of_another() {
    let mut c = cluster(1);
    let link = connect(&mut c, "s");
    subscribed(&mut c, link, "t/+", QoS::AtLeastOnce);
    c.shards[0].handle_close(c.now, c.links[link].conn, Closed::Eof);
    c.obey();
    let publish_all = |c: &mut Cluster, text: &str| {
        let publisher = connect(c, "p");
        for n in 0..6 {
            let topic = format!("t/{n}");
            c.send(publisher, &retained(&topic, 1, n + 1, text));
        }
        c.settle();
    };
    publish_all(&mut c, "old");
    c.restart(2);
    c.settle();
    publish_all(&mut c, "new");
    let restored = c.restart(2);
    assert_eq!(restored.dropped, 0);
    c.settle();
    let link = connect_for_messages(&mut c, "s");
    assert_eq!(payloads(&c.got(link)), [["old"; 6], ["new"; 6]].concat());
}
