//! Several shards of one broker, rule by rule. What goes on between them is held back until a test lets it
//! pass, pair by pair.

mod cluster;

use cluster::{Cluster, Link};
use mqtt_proto::{
    ConnectRef, DisconnectRef, PacketRef, PropertiesBuf, Property, PublishRef, QoS, SubscribeFiltersBuf,
    SubscriptionOptions, Version,
};
use mqtt_session::acl::{Access, Acl, Mode, Who};
use mqtt_session::broker::{BrokerConfig, Closed, Event};
use mqtt_session::store::MessageId;
use mqtt_session::{Message, Refused, ShardCredit, ShardId, ShardMessage};
use mqtt_testkit::packets::{filter, publish, pubrel, retained, subscribe};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

fn wants(text: &str) -> SubscribeFiltersBuf {
    filter(text, QoS::ExactlyOnce)
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |set: fn(&mut BrokerConfig)| {
        let mut config = BrokerConfig::default();
        set(&mut config);
        config.check().unwrap_err().setting()
    };
    assert_eq!(refused(|c| c.shards = 0), "shards");
    assert_eq!(refused(|c| c.shards = 65), "shards");
    assert_eq!(refused(|c| c.shard = ShardId(1)), "shard");
    assert_eq!(refused(|c| c.shard_credit.messages = 0), "shard_credit");
}

/// A session lives where its identifier says, whichever shard the connection reached; nothing behind CONNECT is
/// lost on the way, and nothing is answered before.
#[test]
fn a_connection_moves_to_its_home_with_everything_that_it_sent() {
    let mut c = Cluster::new(3, |_| {});
    let name = c.name_on(2, "c");
    let link = c.connect_at(0, Version::V311, &name, false);
    assert!(c.got(link).is_empty());
    assert_eq!(c.shards[0].stats().connections, 0, "it is on its way");
    c.pass_all();
    assert_eq!(c.got(link), ["CONNACK 00"]);
    assert_eq!(c.shards[2].stats().sessions, 1);
    // Again from elsewhere, with a packet behind CONNECT in the same piece: it is the same session.
    c.open_at(1, Version::V311);
    let mut bytes = Vec::new();
    let connect = ConnectRef { version: Version::V311, client_id: &name, ..Default::default() };
    PacketRef::Connect(connect).encode(Version::V311, &mut bytes).unwrap();
    PacketRef::Pingreq.encode(Version::V311, &mut bytes).unwrap();
    c.read(1, &bytes);
    assert!(c.links[1].paused);
    c.obey();
    c.pass_all();
    assert_eq!(c.got(1), ["CONNACK sp 00", "PINGRESP"]);
    assert!(c.links[0].closed, "taken over");
    assert_eq!(c.stats().sessions, 1);
}

/// An identifier that the broker assigns belongs to the shard that the connection reached [MQTT-3.1.3-6].
#[test]
fn an_assigned_identifier_stays() {
    let mut c = Cluster::new(4, |_| {});
    for shard in 0..4 {
        let link = c.connect_at(shard, Version::V5, "", true);
        assert!(c.got(link)[0].starts_with("CONNACK 00"), "at once");
    }
    assert!(c.mail.is_empty());
}

/// SUBACK waits until every shard knows of the subscription, so nothing that is published after it is missed.
#[test]
fn suback_waits_for_all_shards() {
    let mut c = Cluster::new(3, |_| {});
    let (sub, publisher) = (c.client(0, "s"), c.client(1, "p"));
    c.send(sub, &subscribe(1, &wants("a/+")));
    assert!(c.got(sub).is_empty());
    c.send(publisher, &publish("a/b", 1, 1, "early"));
    assert_eq!(c.got(publisher), ["PUBACK #1 10"], "no matching subscribers, as far as is known there");
    c.pass(0, 1);
    c.pass(1, 0);
    assert!(c.got(sub).is_empty(), "shard 2 does not know yet");
    c.pass_all();
    assert_eq!(c.got(sub), ["SUBACK #1 02"]);
    c.send(publisher, &publish("a/b", 1, 2, "late"));
    assert_eq!(c.got(publisher), ["PUBACK #2"]);
    c.pass_all();
    assert_eq!(c.got(sub).len(), 1);
    c.send(publisher, &publish("b", 1, 3, "nobody"));
    assert_eq!(c.got(publisher), ["PUBACK #3 10"]);
    assert!(c.mail.is_empty(), "a message goes only where it is wanted");
}

/// A message crosses once for a shard, however many want it there.
#[test]
fn one_message_for_a_shard() {
    let mut c = Cluster::new(2, |_| {});
    let subs: Vec<usize> = (0..5).map(|n| c.client(1, &format!("s{n}-"))).collect();
    for (n, &sub) in subs.iter().enumerate() {
        c.send(sub, &subscribe(1, &wants(if n % 2 == 0 { "a" } else { "+" })));
        c.pass_all();
        c.got(sub);
    }
    let publisher = c.client(0, "p");
    c.send(publisher, &publish("a", 0, 0, "x"));
    assert_eq!(c.mail.values().map(VecDeque::len).sum::<usize>(), 1);
    c.pass_all();
    for sub in subs {
        assert_eq!(c.got(sub).len(), 1);
    }
}

/// Whoever publishes to a shard without room is not read until there is room; others go on.
#[test]
fn credit_stops_who_uses_it_up() {
    let mut c = Cluster::new(3, |config| config.shard_credit = ShardCredit { messages: 2, bytes: 1 << 20 });
    let (slow, fast) = (c.client(1, "slow"), c.client(2, "fast"));
    for (link, topic) in [(slow, "slow"), (fast, "fast")] {
        c.send(link, &subscribe(1, &wants(topic)));
        c.pass_all();
        c.got(link);
    }
    let (one, two) = (c.client(0, "one"), c.client(0, "two"));
    for n in 0..5 {
        c.send(one, &publish("slow", 0, 0, &n.to_string()));
    }
    assert!(c.links[one].paused);
    assert_eq!(c.mail[&(0, 1)].len(), 2, "as many as there was room for");
    c.send(two, &publish("fast", 1, 1, "x"));
    assert!(!c.links[two].paused);
    assert_eq!(c.got(two), ["PUBACK #1"]);
    c.pass_all();
    assert!(!c.links[one].paused);
    assert_eq!(c.got(slow).len(), 5, "none is lost, in order: they only waited");
}

/// A new subscription gets what is retained on all shards, each message once, also one whose write is still on its
/// way to the shard that keeps it.
#[test]
fn retained_messages_of_all_shards_come_once() {
    let mut c = Cluster::new(3, |_| {});
    let (publisher, sub) = (c.client(1, "p"), c.client(0, "s"));
    let topics: Vec<String> = (0..30).map(|n| format!("t/{n}")).collect();
    for topic in &topics {
        c.send(publisher, &retained(topic, 0, 0, "r"));
    }
    // To shard 2 nothing has come yet, when it is asked.
    c.send(sub, &subscribe(1, &wants("t/#")));
    c.pass(0, 1);
    c.pass(0, 2);
    c.pass(1, 0);
    c.pass(2, 0);
    c.pass(0, 2);
    let mut got = c.got(sub);
    let count = |got: &[String], topic: &str| {
        got.iter().filter(|line| line.starts_with(&format!("PUBLISH {topic} "))).count()
    };
    assert!(topics.iter().any(|topic| count(&got, topic) == 0), "shard 2 waits for what is on its way");
    // What is published now comes live, and not with the answer.
    c.send(publisher, &retained("t/0", 0, 0, "live"));
    c.pass_all();
    got.extend(c.got(sub));
    for topic in &topics[1..] {
        assert_eq!(count(&got, topic), 1, "{topic}");
    }
    assert!((1..=2).contains(&count(&got, "t/0")), "the live one, and perhaps the old one: {got:?}");
    assert_eq!(got.iter().filter(|line| line.contains("\"live\"")).count(), 1);
    assert_eq!(c.stats().retained, topics.len());
    // Gone is gone everywhere.
    for topic in &topics {
        c.send(publisher, &retained(topic, 0, 0, ""));
    }
    c.pass_all();
    assert_eq!(c.stats().retained, 0);
}

/// Pages follow one another as the client takes them, and a subscription that is given back ends them.
#[test]
fn many_retained_messages_come_in_pages() {
    let mut c = Cluster::new(2, |_| {});
    let (publisher, sub) = (c.client(1, "p"), c.client(0, "s"));
    for n in 0..500 {
        c.send(publisher, &retained(&format!("t/{n}"), 0, 0, "r"));
    }
    c.pass_all();
    c.send(sub, &subscribe(1, &wants("#")));
    c.pass_all();
    assert_eq!(c.got(sub).iter().filter(|line| line.starts_with("PUBLISH")).count(), 500);
    assert_eq!(c.stats().messages, 500, "nothing is left of the pages");
}

/// A group's message goes to one member, wherever it is; what a member that leaves did not acknowledge goes to another.
#[test]
fn a_group_spans_shards() {
    let mut c = Cluster::new(3, |_| {});
    let members: Vec<usize> = (0..3).map(|shard| c.client(shard, "m")).collect();
    for &member in &members {
        c.send(member, &subscribe(1, &wants("$share/g/a")));
        c.pass_all();
        assert_eq!(c.got(member), ["SUBACK #1 02"]);
    }
    let publisher = c.client(0, "p");
    for n in 1..=30 {
        c.send(publisher, &publish("a", 1, n, "x"));
        c.pass_all();
    }
    let counts: Vec<usize> = members.iter().map(|&member| c.got(member).len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 30, "{counts:?}");
    assert!(counts.iter().all(|&count| count > 0), "all have a share: {counts:?}");
    // The first one leaves without an acknowledgement.
    let Link { shard, conn, .. } = c.links[members[0]];
    c.shards[shard].handle_close(c.now, conn, Closed::Error);
    c.obey();
    c.pass_all();
    let again: usize = members[1..].iter().map(|&member| c.got(member).len()).sum();
    assert_eq!(again, counts[0]);
}

/// The program's own subscription hears of everything once it is in force.
#[test]
fn a_subscription_of_the_program_is_in_force_everywhere() {
    let mut c = Cluster::new(2, |_| {});
    let publisher = c.client(1, "p");
    c.send(publisher, &retained("a", 0, 0, "old"));
    let id = c.shards[0].subscribe(c.now, "#", QoS::AtMostOnce.into()).unwrap();
    c.obey();
    assert!(c.events.iter().all(|(_, event)| *event != Event::InForce { subscriber: id }));
    c.pass_all();
    assert!(c.events.iter().any(|(_, event)| *event == Event::InForce { subscriber: id }));
    c.send(publisher, &publish("b", 0, 0, "new"));
    c.pass_all();
    let told = |topic: &str| {
        let is_it = |event: &&(usize, Event)| matches!(&event.1, Event::Message { message, .. } if message.topic == topic);
        c.events.iter().filter(is_it).count()
    };
    assert_eq!((told("a"), told("b")), (1, 1));
    assert_eq!(c.shards[1].publish(c.now, Message::new("c", "x")), Ok(1));
}

/// `$SYS` is told by the first shard, about all.
#[test]
fn the_figures_are_those_of_all_shards() {
    let mut c = Cluster::new(3, |config| config.sys_interval = Some(Duration::from_secs(10)));
    let watcher = c.client(1, "w");
    c.client(2, "x");
    c.send(watcher, &subscribe(1, &wants("$SYS/broker/clients/connected")));
    for _ in 0..2 {
        c.now = c.now + Duration::from_secs(10);
        for shard in 0..3 {
            c.shards[shard].handle_timeout(c.now);
        }
        c.obey();
        c.pass_all();
    }
    let got = c.got(watcher);
    assert!(got.last().unwrap().ends_with("\"2\""), "{got:?}");
}

/// A shard that shuts down waits for what the others had for it, and not for one that is gone.
#[test]
fn shutting_down_waits_for_the_others() {
    let mut c = Cluster::new(3, |_| {});
    let (sub, publisher) = (c.client(0, "s"), c.client(1, "p"));
    c.send(sub, &subscribe(1, &wants("a")));
    c.pass_all();
    c.got(sub);
    c.send(publisher, &publish("a", 1, 1, "last"));
    c.shards[0].shutdown(c.now);
    c.obey();
    assert!(c.got(sub).is_empty() && !c.shards[0].has_left());
    c.shards[1].shutdown(c.now);
    c.obey();
    c.pass_all();
    assert!(!c.shards[0].has_left(), "shard 2 may have something");
    c.shards[0].handle_shard_lost(c.now, ShardId(2));
    c.obey();
    assert!(c.shards[0].has_left());
    let got = c.got(sub);
    assert!(got[0].contains("\"last\"") && got[1] == "DISCONNECT 8B", "{got:?}");
}

/// What comes from nowhere changes nothing.
#[test]
fn nonsense_from_a_shard_is_harmless() {
    let mut c = Cluster::new(2, |_| {});
    for from in [0, 1, 7] {
        for message in [
            ShardMessage::Synced { sync: 9, writes: vec![] },
            ShardMessage::RetainedMore { query: 9 },
            ShardMessage::RetainedCancel { query: 9 },
            ShardMessage::RetainedPage {
                query: 9,
                messages: vec![],
                more: true,
                until: MessageId(0),
                except: vec![],
            },
            ShardMessage::RetainedNone { queries: vec![9], until: MessageId(0) },
            ShardMessage::GroupJoined { sync: 9 },
            ShardMessage::GroupLeave { filter: "no group".into() },
            ShardMessage::GroupSlots { filter: "$share/g/a".into(), more: u32::MAX },
            ShardMessage::GroupReturn {
                filter: "$share/g/a".into(),
                messages: vec![],
                refused: Refused::default(),
            },
            ShardMessage::Credit(ShardCredit { messages: u32::MAX, bytes: u64::MAX }),
        ] {
            c.shards[0].handle_shard(c.now, ShardId(from), message);
        }
    }
    c.obey();
    assert!(c.mail.is_empty());
}

/// Everything that one read of a publisher may bring: small and large, of each QoS, with and without properties, to be
/// retained and not.
fn one_of_each() -> Vec<u8> {
    let large = "x".repeat(3_000);
    let mut properties = PropertiesBuf::new();
    for property in [
        Property::MessageExpiryInterval(10),
        Property::UserProperty("colour", "red"),
        Property::ContentType("text"),
    ] {
        properties.push(property).unwrap();
    }
    let mut bytes = Vec::new();
    let mut add = |packet: PacketRef<'_>| packet.encode(Version::V5, &mut bytes).unwrap();
    add(publish("a/1", 0, 0, "first"));
    let PacketRef::Publish(plain) = publish("a/2", 0, 0, "second") else { unreachable!() };
    add(PacketRef::Publish(PublishRef { properties: properties.as_properties(), ..plain }));
    add(publish("a/3", 1, 1, "third"));
    add(publish("a/4", 0, 0, &large));
    add(publish("a/5", 2, 2, ""));
    // Of several owners.
    for topic in ["a/6", "a/6a", "a/6b", "a/6c", "a/6d"] {
        add(retained(topic, 0, 0, "kept"));
    }
    add(publish("a/7", 0, 0, "last but one"));
    add(publish("a/8", 1, 3, &large[..900]));
    bytes
}

/// What a subscriber gets does not depend on where it lives: the same packets in the same order as from a broker of one
/// shard, also below 5.0; and small ones cross together.
#[test]
fn what_crosses_is_what_does_not() {
    let subscribers =
        [&["near", "far"][..], &["near", "far", "further", "there"], &["far", "further", "there"]];
    for (version, names) in [Version::V311, Version::V5].into_iter().flat_map(|v| subscribers.map(|s| (v, s)))
    {
        let mut options = SubscriptionOptions::from(QoS::ExactlyOnce);
        options.retain_as_published = version.is_v5();
        let run = |shards: u16| {
            let mut c = Cluster::new(shards, |_| {});
            let home = shards - 1;
            let connect = |name: &&str| {
                let shard = if *name == "near" { 0 } else { home };
                let name = c.name_on(shard, name);
                let link = c.connect_at(usize::from(shard), version, &name, true);
                c.send(link, &subscribe(1, &filter("a/+", options)));
                c.pass_all();
                c.got(link);
                link
            };
            let links: Vec<usize> = names.iter().map(connect).collect();
            let publisher = c.client(0, "p");
            c.read(publisher, &one_of_each());
            c.obey();
            let letters = c.mail.get(&(0, usize::from(home))).map_or(0, VecDeque::len);
            c.pass_all();
            (links.into_iter().map(|link| c.got(link)).collect::<Vec<_>>(), letters)
        };
        let (alone, none) = run(1);
        assert_eq!((alone[0].len(), none), (12, 0));
        assert!(alone.iter().all(|got| *got == alone[0]));
        for shards in [2, 3] {
            let (split, letters) = run(shards);
            assert_eq!(split, alone, "{version:?}, {shards} shards");
            // Three together, the large one, and the others, of which the other shard's retained ones go by themselves.
            assert!((4..12).contains(&letters), "{letters}");
        }
    }
}

/// The lifetime of a message goes on while it is on its way to another shard [MQTT-3.3.2-5] [MQTT-3.3.2-6].
#[test]
fn a_message_expires_on_its_way() {
    for (seconds, expected) in [(4, Some("MessageExpiryInterval(6)")), (11, None)] {
        let mut c = Cluster::new(2, |_| {});
        let (publisher, sub) = (c.client(0, "p"), c.client(1, "s"));
        c.send(sub, &subscribe(1, &wants("a/2")));
        c.pass_all();
        c.got(sub);
        c.read(publisher, &one_of_each());
        c.obey();
        c.now = c.now + Duration::from_secs(seconds);
        c.pass_all();
        let got = c.got(sub);
        assert_eq!(got.len(), usize::from(expected.is_some()), "{got:?}");
        assert!(got.iter().all(|packet| packet.contains(expected.unwrap())), "{got:?}");
        assert_eq!(c.stats().dropped, u64::from(expected.is_none()), "counted");
        assert_eq!(c.stats().messages, c.stats().retained, "and not kept");
    }
}

/// A shard whose memory for messages is used up takes no more from others, says so in its figures, and the publisher
/// elsewhere goes on.
#[test]
fn what_comes_to_a_full_shard_is_counted() {
    let mut c = Cluster::new(2, |config| config.max_message_bytes = 5_000);
    let (publisher, sub, filler) = (c.client(0, "p"), c.client(1, "s"), c.client(1, "f"));
    c.send(sub, &subscribe(1, &wants("a/#")));
    c.pass_all();
    c.got(sub);
    let name = c.name_on(1, "away");
    let away = c.connect_at(1, Version::V311, &name, false);
    c.send(away, &subscribe(1, &wants("fill")));
    c.pass_all();
    c.shards[1].handle_close(c.now, c.links[away].conn, Closed::Eof);
    c.obey();
    for n in 1..=4 {
        c.send(filler, &publish("fill", 1, n, &"x".repeat(1_150)));
    }
    let full = c.shards[1].stats();
    assert_eq!((full.messages, full.dropped), (4, 0));
    for (n, qos) in (1..).zip([0, 1, 2]) {
        c.send(publisher, &publish("a/b", qos, if qos > 0 { n } else { 0 }, &"y".repeat(500)));
    }
    c.pass_all();
    assert_eq!(c.got(publisher), ["PUBACK #2", "PUBREC #3"]);
    assert!(c.got(sub).is_empty());
    assert_eq!(c.stats().counters.dropped.memory_full, 3);
}

/// Who may not read what comes from another shard does not get it, also if others there do.
#[test]
fn rights_bind_what_comes_from_another_shard() {
    let mut c = Cluster::new(2, |_| {});
    let mut acl = Acl::new(Mode::Mosquitto);
    for (access, filter) in [(Access::Write, "#"), (Access::Read, "a/%c")] {
        acl.add(Who::Pattern, access, filter, 1).unwrap();
    }
    let acl = Arc::new(acl);
    for shard in &mut c.shards {
        shard.set_acls(c.now, vec![Arc::clone(&acl)]);
    }
    c.pass_all();
    let topic = format!("a/{}", c.name_on(1, "may"));
    let (publisher, may, may_not) = (c.client(0, "p"), c.client(1, "may"), c.client(1, "not"));
    for link in [may, may_not] {
        c.send(link, &subscribe(1, &wants("a/#")));
        c.pass_all();
        assert_eq!(c.got(link), ["SUBACK #1 02"]);
    }
    for _ in 0..2 {
        for (n, qos) in (1..).zip([0, 1]) {
            c.send(publisher, &publish(&topic, qos, if qos > 0 { n } else { 0 }, "x"));
        }
        c.pass_all();
        assert_eq!(c.got(may).len(), 2);
        assert!(c.got(may_not).is_empty());
    }
}

/// Limits of the broker hold for all shards together, wherever the clients live; who leaves makes room for others elsewhere.
#[test]
fn limits_are_for_all_shards_together() {
    let count = 3;
    let mut c = Cluster::new(count, |config| (config.max_sessions, config.max_retained) = (5, 4));
    let mut accepted = Vec::new();
    for n in 0..9 {
        let name = c.name_on(n % count, &format!("c{n}-"));
        let link = c.connect_at(0, Version::V5, &name, true);
        c.pass_all();
        let got = c.got(link);
        assert!(got[0].starts_with(if n < 5 { "CONNACK 00" } else { "CONNACK 97" }), "{n}: {got:?}");
        accepted.extend((n < 5).then_some(link));
    }
    assert_eq!(c.stats().sessions, 5);
    let gone = accepted[4];
    c.send(gone, &PacketRef::Disconnect(DisconnectRef::default()));
    c.pass_all();
    c.client(2, "later");
    // Seven topics, of several owners.
    for n in 0..7 {
        c.send(accepted[0], &retained(&format!("t/{n}"), 0, 0, "x"));
        c.pass_all();
    }
    assert_eq!((c.stats().retained, c.stats().counters.dropped.not_retained), (4, 3));
    c.send(accepted[1], &retained("t/0", 0, 0, ""));
    c.pass_all();
    c.send(accepted[1], &retained("t/6", 0, 0, "x"));
    c.pass_all();
    assert_eq!((c.stats().retained, c.stats().counters.dropped.not_retained), (4, 3));

    let mut c = Cluster::new(count, |config| config.max_connections = 5);
    for n in 0..8 {
        let shard = n % usize::from(count);
        let link = c.open_at(shard, Version::V5);
        // Its first bytes; nothing is told before.
        c.read(link, &[0x10]);
        c.obey();
        c.pass_all();
        assert_eq!(c.links[link].closed, n >= 5, "{n}");
    }
}

/// Far from the limits shards do not talk of them.
#[test]
fn what_is_far_from_its_limit_is_not_told() {
    let mut c = Cluster::new(3, |_| {});
    for n in 0..50 {
        let name = c.name_on(n % 3, &format!("c{n}-"));
        c.connect_at(usize::from(n % 3), Version::V5, &name, true);
        assert!(c.mail.is_empty(), "{n}");
    }
}

/// A QoS 2 message that is sent again crosses once, until its identifier is released [MQTT-4.3.3-10] [MQTT-4.3.3-12].
#[test]
fn qos_2_crosses_once() {
    let mut c = Cluster::new(2, |_| {});
    let (publisher, sub) = (c.client(0, "p"), c.client(1, "s"));
    c.send(sub, &subscribe(1, &filter("t", QoS::AtMostOnce)));
    c.pass_all();
    c.got(sub);
    for expected in [1, 1] {
        for _ in 0..3 {
            c.send(publisher, &publish("t", 2, 7, "m"));
        }
        c.send(publisher, &pubrel(7));
        c.pass_all();
        assert_eq!(c.got(publisher), ["PUBREC #7", "PUBREC #7", "PUBREC #7", "PUBCOMP #7"]);
        assert_eq!(c.got(sub).len(), expected);
    }
}

/// What a shard had that is gone counts against no limit any more.
#[test]
fn a_shard_that_is_gone_has_nothing() {
    let mut c = Cluster::new(2, |config| config.max_sessions = 2);
    for n in 0..2 {
        c.client(1, &format!("lost{n}-"));
    }
    let name = c.name_on(0, "more");
    let refused = c.connect_at(0, Version::V5, &name, true);
    assert!(c.got(refused)[0].starts_with("CONNACK 97"));
    let now = c.now;
    c.shards[0].handle_shard_lost(now, ShardId(1));
    c.obey();
    let taken = c.connect_at(0, Version::V5, &name, true);
    assert!(c.got(taken)[0].starts_with("CONNACK 00"));
}
