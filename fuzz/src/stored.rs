//! Machines made from what a store holds, whole or not, and two honest machines over bad links.

use arbitrary::{Result, Unstructured};
use mqtt_proto::{
    ConnectRef, PacketId, PropertiesBuf, Property, QoS, SubscriptionOptions, TopicFilter, TopicName, Version,
};
use mqtt_session::broker::{self, BrokerConfig, Output, Restoration, Restore, Restored};
use mqtt_session::client::{CleanStart, ClientConfig, Event, Outcome};
use mqtt_session::store::{
    Contents, EntryId, HandOver, MessageId, SessionId, StoredAuthor, StoredDelivery, StoredHandOver,
    StoredLimits, StoredMessage, StoredReplay, StoredSession, StoredShards, StoredStage, StoredWill,
};
use mqtt_session::{Broker, Durability, Message, ShardId, StoreGroup, StoreOp, Timestamp};
use mqtt_testkit::packets::{puback, pubcomp, pubrec, pubrel};
use mqtt_testkit::{Pair, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The bodies by the name of their target.
#[allow(dead_code, reason = "the targets call the bodies themselves")]
#[allow(clippy::type_complexity, reason = "a list of names and functions")]
pub const ALL: [(&str, fn(&[u8])); 4] =
    [("restore", restore), ("shards", shards), ("pair", pair), ("topic_tree", topic_tree)];

const CLIENTS: [&str; 4] = ["", "one", "two", "three"];
const STORED_FILTERS: [&str; 8] = ["#", "a/b", "+/b", "$share/g/a", "$share/g/#", "", "a#", "$share//a"];
const STORED_TOPICS: [&str; 5] = ["a", "a/b", "$SYS/x", "", "a/+"];

fn qos(u: &mut Unstructured<'_>) -> Result<QoS> {
    Ok(*u.choose(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])?)
}

fn packet_id(u: &mut Unstructured<'_>) -> Result<PacketId> {
    Ok(PacketId::new(*u.choose(&[1, 2, 3, 65_535])?).unwrap_or(PacketId::MIN))
}

fn session_id(u: &mut Unstructured<'_>) -> Result<SessionId> {
    Ok(SessionId(u.int_in_range(1..=6)?))
}

/// Whose queue.
fn owner(u: &mut Unstructured<'_>) -> Result<SessionId> {
    Ok(SessionId(*u.choose(&[1, 2, 3, 4, 5, 6, 11, 12])?))
}

fn author(u: &mut Unstructured<'_>) -> Result<StoredAuthor> {
    Ok(StoredAuthor {
        acl: u.int_in_range(0..=2)?,
        client_id: (*u.choose(&CLIENTS)?).into(),
        user_name: if u.arbitrary()? { Some("user".into()) } else { None },
    })
}

/// A message whose lengths need not fit its body.
fn message(u: &mut Unstructured<'_>) -> Result<StoredMessage> {
    let topic = *u.choose(&STORED_TOPICS)?;
    let mut body = topic.as_bytes().to_vec();
    let properties = if u.ratio(1, 3)? { &[0x03, 0, 1, b'x'][..] } else { &[] };
    body.extend_from_slice(properties);
    body.extend_from_slice(b"payload");
    let mut stored = StoredMessage {
        topic_len: u16::try_from(topic.len()).unwrap_or(0),
        properties_len: u32::try_from(properties.len()).unwrap_or(0),
        body: body.into(),
        qos: qos(u)?,
        retain: u.arbitrary()?,
        expires_at: if u.ratio(1, 4)? { Some(u.int_in_range(0..=100_000_000)?) } else { None },
        author: if u.ratio(1, 4)? { Some(Box::new(author(u)?)) } else { None },
    };
    if u.ratio(1, 8)? {
        (stored.topic_len, stored.properties_len) = (u.arbitrary()?, u.arbitrary()?);
    }
    Ok(stored)
}

fn operation(u: &mut Unstructured<'_>) -> Result<StoreOp> {
    let filter =
        |u: &mut Unstructured<'_>| Ok::<String, arbitrary::Error>((*u.choose(&STORED_FILTERS)?).into());
    let message_id = |u: &mut Unstructured<'_>| u.int_in_range(1..=8).map(MessageId);
    Ok(match u.int_in_range(0..=15)? {
        0 => StoreOp::PutLimits(
            ShardId(0),
            StoredLimits { sessions: u.arbitrary()?, messages: u.arbitrary()?, entries: u.arbitrary()? },
        ),
        1..=3 => StoreOp::PutSession(
            session_id(u)?,
            Box::new(StoredSession {
                client_id: (*u.choose(&CLIENTS)?).into(),
                user_name: None,
                acl: u.int_in_range(0..=2)?,
                expiry_secs: *u.choose(&[0, 1, 100, u32::MAX])?,
                disconnected_at: if u.arbitrary()? { Some(u.int_in_range(0..=100_000_000)?) } else { None },
            }),
        ),
        4 => StoreOp::PutPacketId(session_id(u)?, packet_id(u)?),
        // Numbers of groups and sessions are never the same.
        5 => StoreOp::PutGroup(SessionId(u.int_in_range(11..=12)?), filter(u)?),
        6 | 7 => StoreOp::PutSubscription {
            session: session_id(u)?,
            filter: filter(u)?,
            options: SubscriptionOptions::from(qos(u)?),
            id: if u.arbitrary()? { Some(u.int_in_range(0..=3)?) } else { None },
        },
        8 => StoreOp::PutReplay {
            session: session_id(u)?,
            filter: filter(u)?,
            replay: Box::new(StoredReplay {
                after: message_id(u)?,
                until: (0..u.int_in_range(0..=3)?).map(|_| message_id(u)).collect::<Result<_>>()?,
                except: if u.arbitrary()? { vec![message_id(u)?] } else { Vec::new() },
            }),
        },
        9 | 10 => StoreOp::PutMessage(message_id(u)?, Box::new(message(u)?)),
        11 => StoreOp::PutReceived(session_id(u)?, packet_id(u)?),
        12 => StoreOp::PutExchange {
            session: session_id(u)?,
            entry: EntryId(u.int_in_range(1..=6)?),
            packet_id: packet_id(u)?,
            number: u.int_in_range(0..=3)?,
            stage: *u.choose(&[StoredStage::Published, StoredStage::Released])?,
        },
        13 => StoreOp::Append(
            message_id(u)?,
            vec![StoredDelivery {
                session: owner(u)?,
                entry: EntryId(u.int_in_range(1..=6)?),
                qos: qos(u)?,
                retain: u.arbitrary()?,
                subscription_ids: if u.arbitrary()? { [1].into() } else { [].into() },
            }],
        ),
        14 => StoreOp::PutRetained((*u.choose(&STORED_TOPICS)?).into(), message_id(u)?),
        _ => StoreOp::PutWill(
            session_id(u)?,
            Box::new(StoredWill {
                message: message(u)?,
                delay_secs: *u.choose(&[0, 1, 50, u32::MAX])?,
                author: author(u)?,
            }),
        ),
    })
}

/// Any records make a broker. What made no sense is gone after that: the next restart drops nothing and
/// finds the same. Clients can use what is left, and nothing stays behind them.
pub fn restore(data: &[u8]) {
    let _ = restored_history(&mut Unstructured::new(data));
}

fn restored_history(u: &mut Unstructured<'_>) -> Result<()> {
    let mut config = BrokerConfig::default();
    config.durability = Durability::Synced;
    config.max_session_expiry = 1_000;
    // Several shards are the subject of `shards`: they hold more bodies while one asks another for what is retained.
    let mut w = World::of_one_shard(config);
    for _ in 0..u.int_in_range(1..=40)? {
        let op = operation(u)?;
        w.contents.apply(&StoreGroup { ops: [op].into() });
    }
    w.restart(Duration::ZERO);
    // Wills are held for a moment so that they do not come all at once.
    w.advance(Duration::from_millis(100));
    w.confirm_stores();
    let before = w.broker.stats();
    let restored = w.restart(Duration::ZERO);
    let after = w.broker.stats();
    assert_eq!(restored.dropped, 0, "the first restart left what it dropped: {:#?}", w.contents);
    assert_eq!(
        (before.sessions, before.subscriptions, before.retained, before.messages),
        (after.sessions, after.subscriptions, after.retained, after.messages),
        "{:#?}",
        w.contents
    );
    let properties = PropertiesBuf::new().with(Property::SessionExpiryInterval(10)).unwrap_or_default();
    while !u.is_empty() {
        let connect = ConnectRef {
            version: Version::V5,
            clean_start: u.ratio(1, 4)?,
            client_id: u.choose(&CLIENTS)?,
            properties: properties.as_properties(),
            ..ConnectRef::default()
        };
        let peer = w.connect(&connect);
        for _ in 0..u.int_in_range(0..=6)? {
            let id = packet_id(u)?.get();
            match u.int_in_range(0..=4)? {
                0 => w.send(peer, &puback(id)),
                1 => w.send(peer, &pubrec(id)),
                2 => w.send(peer, &pubcomp(id)),
                3 => w.send(peer, &pubrel(id)),
                _ => w.confirm_stores(),
            }
        }
        // Panics if it sent anything but whole, valid packets.
        let _ = w.got(peer);
        w.cut(peer);
        if u.ratio(1, 4)? {
            w.restart(Duration::from_secs(u.int_in_range(0..=20)?));
        }
    }
    for _ in 0..20 {
        w.confirm_stores();
        w.advance(Duration::from_secs(100));
    }
    // Sessions that never end are those that were stored so.
    let stats = w.broker.stats();
    assert_eq!(stats.connections, 0);
    if stats.sessions == 0 {
        assert_eq!(stats.messages, stats.retained, "{stats:?}");
    }
    Ok(())
}

/// Any records make a broker in any number of shards, also those of a crash in the middle of that. What made no sense is
/// gone then: the next restart, in another number, drops nothing and finds the same.
pub fn shards(data: &[u8]) {
    let _ = sharded_history(&mut Unstructured::new(data));
}

fn sharded_operation(u: &mut Unstructured<'_>) -> Result<StoreOp> {
    let shard = |u: &mut Unstructured<'_>| u.int_in_range(0..=4).map(ShardId);
    Ok(match u.int_in_range(0..=9)? {
        0 => StoreOp::PutShards(StoredShards { count: u.int_in_range(0..=5)?, key: u.arbitrary()? }),
        1 | 2 => {
            let purpose = match u.int_in_range(0..=2)? {
                0 => HandOver::Group((*u.choose(&STORED_FILTERS)?).into()),
                1 => HandOver::Back((*u.choose(&STORED_FILTERS)?).into()),
                _ => HandOver::Publish { deliver: u.arbitrary()?, retain: u.arbitrary()? },
            };
            let (from, to, number) = (shard(u)?, shard(u)?, u.int_in_range(0..=5)?);
            let message = MessageId(u.int_in_range(1..=8)?);
            StoreOp::PutHandOver(Box::new(StoredHandOver { from, to, number, message, purpose }))
        }
        3 => StoreOp::PutTaken { by: shard(u)?, from: shard(u)?, number: u.int_in_range(0..=5)? },
        _ => match operation(u)? {
            // Beyond the numbers that anybody gives, each restart begins at the same one.
            StoreOp::PutLimits(shard, StoredLimits { sessions, messages, entries }) => {
                let [sessions, messages, entries] = [sessions, messages, entries].map(|limit| limit >> 8);
                StoreOp::PutLimits(shard, StoredLimits { sessions, messages, entries })
            }
            other => other,
        },
    })
}

fn sharded_history(u: &mut Unstructured<'_>) -> Result<()> {
    let mut contents = Contents::default();
    for _ in 0..u.int_in_range(1..=40)? {
        contents.apply(&StoreGroup { ops: [sharded_operation(u)?].into() });
    }
    if u.arbitrary()? {
        // It crashes after so many of the groups that come before all others.
        let (_, first, _) = start(&contents, u.int_in_range(1..=4)?);
        for group in first.iter().take(u.int_in_range(0..=4)?) {
            contents.apply(group);
        }
    }
    let (mut broker, first, _) = start(&contents, u.int_in_range(1..=4)?);
    first.iter().for_each(|group| contents.apply(group));
    settle(&mut broker, &mut contents);
    let before = retained(&broker);
    for _ in 0..2 {
        let (mut broker, first, restored) = start(&contents, u.int_in_range(1..=4)?);
        first.iter().for_each(|group| contents.apply(group));
        assert_eq!(restored.dropped, 0, "the restart before left what it dropped: {contents:#?}");
        assert_eq!(restored.handed_over, 0, "{contents:#?}");
        settle(&mut broker, &mut contents);
        // Sessions may have ended meanwhile.
        assert_eq!(retained(&broker), before, "{contents:#?}");
    }
    Ok(())
}

fn start(contents: &Contents, shards: u16) -> (Vec<Broker>, Vec<StoreGroup>, Restored) {
    let mut config = BrokerConfig::default();
    config.durability = Durability::Synced;
    config.max_session_expiry = 1_000;
    config.shards = shards;
    let mut restore = Restore::new(config).expect("settings that can be");
    contents.records().for_each(|record| restore.record(record));
    let Restoration { shards, first, restored, .. } = restore.finish(1_000_000);
    (shards, first, restored)
}

/// Lets everything be stored and everything be said. No time passes.
fn settle(shards: &mut [Broker], contents: &mut Contents) {
    while let Some((from, output)) =
        shards.iter_mut().enumerate().find_map(|(n, shard)| Some((n, shard.poll_output()?)))
    {
        match output {
            Output::Store(seq, group) => {
                contents.apply(&group);
                shards[from].handle_stored(Timestamp::ZERO, seq);
            }
            Output::Shard { to, message } => {
                let from = ShardId(u16::try_from(from).expect("a few"));
                shards[usize::from(to.0)].handle_shard(Timestamp::ZERO, from, *message);
            }
            _ => {}
        }
    }
}

fn retained(shards: &[Broker]) -> usize {
    shards.iter().map(|shard| shard.stats().retained).sum()
}

/// Two honest machines, a link that breaks at any byte, and a broker that crashes at any time and loses
/// what its store did not confirm: QoS 1 arrives, QoS 2 arrives once and in order.
pub fn pair(data: &[u8]) {
    let _ = pair_history(&mut Unstructured::new(data));
}

fn pair_history(u: &mut Unstructured<'_>) -> Result<()> {
    let mut settings = BrokerConfig::default();
    settings.durability = Durability::Synced;
    settings.receive_maximum = u.int_in_range(1..=3)?;
    settings.max_inflight = u.int_in_range(1..=3)?;
    let version = *u.choose(&[Version::V311, Version::V5])?;
    let mut config = ClientConfig::new("client");
    config.version = version;
    config.clean_start = CleanStart::Never;
    config.session_expiry_secs = 100_000;
    config.receive_maximum = u.int_in_range(1..=3)?;
    let mut pair = Pair::new(World::new(settings), config);
    let settle = |pair: &mut Pair| {
        for _ in 0..50 {
            for turn in 0.. {
                assert!(turn < 10_000, "it comes to rest");
                pair.drive();
                if pair.world.stores.is_empty() {
                    break;
                }
                pair.world.confirm_stores();
            }
            pair.advance(Duration::from_secs(30));
        }
    };
    pair.connect();
    let filters = [("t/#", SubscriptionOptions::from(QoS::ExactlyOnce))];
    pair.client.subscribe(pair.world.now, &filters, &PropertiesBuf::new()).expect("a filter");
    settle(&mut pair);
    pair.events.clear();

    let mut sent: BTreeMap<QoS, usize> = BTreeMap::new();
    let mut open = BTreeSet::new();
    while !u.is_empty() && open.len() < 40 {
        match u.int_in_range(0..=8)? {
            0..=2 => {
                let qos = *u.choose(&[QoS::AtLeastOnce, QoS::ExactlyOnce])?;
                let number = sent.entry(qos).or_default();
                let topic = if qos == QoS::ExactlyOnce { "t/2" } else { "t/1" };
                let message = Message::new(topic, number.to_string()).with_qos(qos);
                *number += 1;
                open.insert(pair.client.publish(pair.world.now, message).expect("there is room"));
            }
            3 => pair.drive(),
            4 => pair.carries = u.int_in_range(0..=60)?,
            5 => pair.world.confirm(u.int_in_range(1..=3)?),
            6 => pair.advance(Duration::from_millis(u.int_in_range(0..=3_000)?)),
            7 => pair.cut(),
            _ => {
                pair.world.restart(Duration::from_secs(u.int_in_range(0..=5)?));
                pair.drive();
            }
        }
    }
    pair.carries = usize::MAX;
    settle(&mut pair);
    let mut got: BTreeMap<QoS, Vec<usize>> = BTreeMap::new();
    for event in &pair.events {
        match event {
            Event::Message(received) => {
                let text = String::from_utf8_lossy(&received.message.payload);
                let qos =
                    if received.message.topic.ends_with('2') { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
                got.entry(qos).or_default().push(text.parse().expect("a number"));
            }
            Event::Done { token, outcome } if open.remove(token) => {
                assert!(matches!(outcome, Outcome::Acked { .. }), "{outcome:?}");
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "never acknowledged: {open:?}");
    let all = |qos| (0..sent.get(&qos).copied().unwrap_or(0)).collect::<Vec<_>>();
    assert_eq!(got.remove(&QoS::ExactlyOnce).unwrap_or_default(), all(QoS::ExactlyOnce));
    let once = got.remove(&QoS::AtLeastOnce).unwrap_or_default();
    assert_eq!(once.iter().copied().collect::<BTreeSet<_>>(), all(QoS::AtLeastOnce).into_iter().collect());
    Ok(())
}

/// The broker's tree of filters agrees with matching one by one, whatever was subscribed, taken back and
/// retained before.
pub fn topic_tree(data: &[u8]) {
    let _ = tree_history(&mut Unstructured::new(data));
}

fn text(u: &mut Unstructured<'_>, wildcards: bool) -> Result<String> {
    let mut text = String::new();
    for level in 0..u.int_in_range(1..=5)? {
        if level > 0 {
            text.push('/');
        }
        let all = ["", "a", "b", "$x", "ab", "+", "#"];
        text.push_str(u.choose(if wildcards { &all } else { &all[..5] })?);
    }
    Ok(text)
}

fn tree_history(u: &mut Unstructured<'_>) -> Result<()> {
    let mut w = World::new(BrokerConfig::default());
    let mut filters = Vec::new();
    let mut retained = BTreeSet::new();
    while !u.is_empty() {
        match u.int_in_range(0..=4)? {
            0 | 1 => {
                let filter = text(u, true)?;
                let Ok(parsed) = TopicFilter::new(&filter) else { continue };
                let id = w.broker.subscribe(w.now, &filter, QoS::AtMostOnce.into()).expect("it is a filter");
                w.settle();
                let replayed: BTreeSet<String> = local(&mut w, id).into_iter().collect();
                let wanted =
                    retained.iter().filter(|topic: &&String| matches(parsed, topic)).cloned().collect();
                assert_eq!(replayed, wanted, "retained messages for {filter}");
                filters.push((id, filter));
            }
            2 if !filters.is_empty() => {
                let (id, _) = filters.swap_remove(u.choose_index(filters.len())?);
                assert!(w.broker.unsubscribe(w.now, id));
                w.settle();
            }
            _ => {
                let topic = text(u, false)?;
                if TopicName::new(&topic).is_err() {
                    continue;
                }
                let retain = u.ratio(1, 3)?;
                let payload = if u.ratio(1, 3)? { "" } else { "x" };
                if retain && payload.is_empty() {
                    retained.remove(&topic);
                } else if retain {
                    retained.insert(topic.clone());
                }
                let mut message = Message::new(topic.as_str(), payload);
                message.retain = retain;
                let matched = w.broker.publish(w.now, message).expect("there is room");
                w.settle();
                let mut got = BTreeSet::new();
                for event in w.events.drain(..) {
                    if let broker::Event::Message { subscriber, .. } = event {
                        assert!(got.insert(format!("{subscriber:?}")), "twice");
                    }
                }
                let wanted = filters.iter().filter(|(_, filter)| {
                    TopicFilter::new(filter).is_ok_and(|filter| matches(filter, &topic))
                });
                let wanted: BTreeSet<_> = wanted.map(|(id, _)| format!("{id:?}")).collect();
                assert_eq!(got, wanted, "{topic}");
                assert_eq!(matched, wanted.len());
            }
        }
    }
    assert_eq!(w.broker.stats().retained, retained.len());
    Ok(())
}

/// The topics of the messages that came for `id`.
fn local(w: &mut World, id: broker::LocalId) -> Vec<String> {
    let events = w.events.drain(..);
    events
        .filter_map(|event| match event {
            broker::Event::Message { subscriber, message } if subscriber == id => {
                Some(message.topic.to_string())
            }
            _ => None,
        })
        .collect()
}

fn matches(filter: TopicFilter<'_>, topic: &str) -> bool {
    TopicName::new(topic).is_ok_and(|topic| filter.matches(topic))
}
