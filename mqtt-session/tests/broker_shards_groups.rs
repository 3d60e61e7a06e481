//! Groups of shared subscriptions on several shards, some of whose members may not read everything.

mod cluster;

use cluster::{Cluster, Link};
use mqtt_proto::{ConnectRef, PacketRef, PropertiesBuf, Property, QoS, Version};
use mqtt_session::acl::{Access, Acl, Mode, Who};
use mqtt_session::broker::Closed;
use mqtt_session::{Durability, ShardId};
use mqtt_testkit::packets::{filter, puback, publish, subscribe};
use std::sync::Arc;

/// The owner of the group `$share/g/t`, and two other shards.
fn cluster(durability: Durability) -> (Cluster, u16, [u16; 2]) {
    let mut c = Cluster::new(3, |config| config.durability = durability);
    let mut acl = Acl::new(Mode::Mosquitto);
    acl.add(Who::Pattern, Access::Write, "#", 1).unwrap();
    acl.add(Who::User("reader"), Access::Read, "#", 2).unwrap();
    let acl = Arc::new(acl);
    for shard in &mut c.shards {
        shard.set_acls(c.now, vec![Arc::clone(&acl)]);
    }
    c.obey();
    let ShardId(owner) = c.shards[0].home_of("$share/g/t");
    (c, owner, [(owner + 1) % 3, (owner + 2) % 3])
}

/// A client with a session that lasts. The same is the same again.
fn connect(c: &mut Cluster, shard: u16, like: &str, user_name: &str) -> usize {
    let client_id = &c.name_on(shard, like);
    let properties = PropertiesBuf::new().with(Property::SessionExpiryInterval(100)).unwrap();
    let link = c.open_at(usize::from(shard), Version::V5);
    let user_name = Some(user_name);
    let properties = properties.as_properties();
    c.send(link, &PacketRef::Connect(ConnectRef { client_id, user_name, properties, ..Default::default() }));
    c.settle();
    link
}

fn member(c: &mut Cluster, shard: u16, like: &str, user_name: &str) -> usize {
    let link = connect(c, shard, like, user_name);
    c.send(link, &subscribe(1, &filter("$share/g/t", QoS::AtLeastOnce)));
    c.settle();
    c.got(link);
    link
}

fn cut(c: &mut Cluster, link: usize) {
    let Link { shard, conn, .. } = c.links[link];
    c.shards[shard].handle_close(c.now, conn, Closed::Error);
    c.obey();
    c.settle();
}

fn payloads(c: &mut Cluster, link: usize) -> Vec<String> {
    let got = c.got(link);
    got.iter().filter_map(|line| Some(line.split('"').nth(1)?.to_owned())).collect()
}

/// A message waits for a member that is away while those that are there may not read it, on whatever shards they are: it
/// does not go round between them, and goes to the first that may and comes back.
#[test]
fn a_message_waits_for_a_member_that_may_read_it() {
    for durability in [Durability::Off, Durability::Synced] {
        for returns in [0, 1] {
            let (mut c, owner, shards) = cluster(durability);
            for shard in shards {
                member(&mut c, shard, "not", "stranger");
                let reader = member(&mut c, shard, "may", "reader");
                cut(&mut c, reader);
            }
            let publisher = connect(&mut c, owner, "p", "p");
            for (id, text) in [(1, "first"), (2, "second")] {
                c.send(publisher, &publish("t", 1, id, text));
                c.settle();
            }
            let reader = connect(&mut c, shards[returns], "may", "reader");
            assert_eq!(payloads(&mut c, reader), ["first", "second"], "{durability:?}");
            c.send(reader, &puback(1));
            c.send(reader, &puback(2));
            c.settle();
            assert_eq!(c.stats().messages, 0, "{durability:?}");
        }
    }
}

/// What a member that is lost did not acknowledge comes back to the group in its order.
#[test]
fn what_comes_back_keeps_its_order() {
    let (mut c, owner, [first, second]) = cluster(Durability::Off);
    let lost = member(&mut c, first, "a", "reader");
    let publisher = connect(&mut c, owner, "p", "p");
    for (id, text) in [(1, "one"), (2, "two"), (3, "three")] {
        c.send(publisher, &publish("t", 1, id, text));
        c.settle();
    }
    assert_eq!(payloads(&mut c, lost), ["one", "two", "three"]);
    cut(&mut c, lost);
    let other = connect(&mut c, second, "b", "reader");
    c.send(other, &subscribe(1, &filter("$share/g/t", QoS::AtLeastOnce)));
    c.settle();
    assert_eq!(payloads(&mut c, other), ["one", "two", "three"]);
}

/// Nobody on any shard may read it: it goes to each of them once, and is dropped and counted.
#[test]
fn a_message_that_no_member_may_read_is_dropped() {
    for durability in [Durability::Off, Durability::Synced] {
        let (mut c, owner, shards) = cluster(durability);
        for shard in shards {
            member(&mut c, shard, "not", "stranger");
        }
        let publisher = connect(&mut c, owner, "p", "p");
        c.send(publisher, &publish("t", 1, 1, "secret"));
        c.settle();
        let stats = c.stats();
        assert_eq!((stats.messages, stats.counters.dropped.not_authorized), (0, 1), "{durability:?}");
    }
}

/// Members that take one message at a time are in many groups. Whichever is acknowledged, those groups go on in which
/// something waits, on whatever shard; each message comes once.
#[test]
fn room_goes_to_the_groups_in_which_something_waits() {
    const GROUPS: u16 = 80;
    for (shards, window) in [(1, 1), (1, 3), (2, 1), (3, 3)] {
        let mut c = Cluster::new(shards, |_| {});
        let receive_maximum = Property::ReceiveMaximum(window);
        let properties = PropertiesBuf::new().with(receive_maximum).unwrap();
        let mut members = Vec::new();
        for n in 0..2 {
            let shard = if n == 0 { 0 } else { shards - 1 };
            let client_id = &c.name_on(shard, &format!("m{n}"));
            let link = c.open_at(usize::from(shard), Version::V5);
            let properties = properties.as_properties();
            c.send(link, &PacketRef::Connect(ConnectRef { client_id, properties, ..Default::default() }));
            for group in 0..GROUPS {
                let text = format!("$share/g/t/{group}");
                c.send(link, &subscribe(1 + group, &filter(&text, QoS::AtLeastOnce)));
            }
            c.settle();
            c.got(link);
            members.push(link);
        }
        let publisher = connect(&mut c, 0, "p", "p");
        let mut wanted = Vec::new();
        for group in (0..GROUPS).step_by(7) {
            for n in 0..4 {
                let text = format!("{group} {n}");
                c.send(publisher, &publish(&format!("t/{group}"), 1, 1 + group * 4 + n, &text));
                wanted.push(text);
            }
        }
        c.settle();
        let mut seen = Vec::new();
        loop {
            let before = seen.len();
            for &link in &members {
                for line in c.got(link) {
                    let id =
                        line.split(['#', ' ']).nth(4).and_then(|id| id.parse().ok()).expect("an identifier");
                    seen.extend(line.split('"').nth(1).map(str::to_owned));
                    c.send(link, &puback(id));
                }
            }
            c.settle();
            if seen.len() == before {
                break;
            }
        }
        seen.sort();
        wanted.sort();
        assert_eq!(seen, wanted, "{shards} shards, window {window}");
        assert_eq!(c.stats().messages, 0);
    }
}
